"""The model with the adapter of each task in it: loaded when it is needed, kept while there is room."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from typing import Any, Final

import torch
from transformers import JinaEmbeddingsV3Model

from samespace.backends.jina_local import attention
from samespace.backends.jina_local.adapters import merge
from samespace.backends.jina_local.checkpoint import MODEL, Checkpoint
from samespace.backends.quiet import without_bars
from samespace.errors import InvalidInput, excerpt
from samespace.models import MODELS

_LOG: Final = logging.getLogger("samespace")


class Weights:
    """Weight sets by task, at most ``most`` at a time; the one that was not used for longest goes.

    Each is a whole copy of the model: an adapter changes the embedding matrix, too. ``None`` is the model
    without an adapter. Any number of threads may ask.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, device: torch.device, dtype: torch.dtype, most: int
    ) -> None:
        self.device, self.dtype = device, dtype
        self.way: attention.Way = attention.best(device, dtype)
        self._checkpoint, self._most = checkpoint, most
        self._kept: OrderedDict[str | None, Any] = OrderedDict()
        self._dropped = 0
        self._turn, self._loading = threading.Lock(), threading.Lock()

    def of(self, task: str | None) -> Any:
        """The model for a task."""
        return self.kept(task) or self._loaded(task)

    def drop(self) -> None:
        """Keep none, not even what is being loaded; they are loaded again when they are needed."""
        with self._turn:
            self._kept.clear()
            self._dropped += 1

    def kept(self, task: str | None) -> Any:
        """The model for a task if it is there; it is in use then, so that others go before it."""
        with self._turn:
            if task in self._kept:
                self._kept.move_to_end(task)
            return self._kept.get(task)

    def _loaded(self, task: str | None) -> Any:
        with self._loading:  # one copy in float32 at a time
            made = self.kept(task)
            if made is not None:
                return made
            with self._turn:
                while len(self._kept) >= self._most:
                    self._kept.popitem(last=False)
                dropped = self._dropped
            made = self._made(task)
            with self._turn:
                if dropped == self._dropped:
                    self._kept[task] = made
            return made

    def _made(self, task: str | None) -> Any:
        model = _base(self._checkpoint)
        if task is not None:
            merge(model, self._checkpoint.adapter(task))
        model.requires_grad_(False)
        model = self._placed(model).eval()
        model.set_attn_implementation(attention.NAMES[self.way])
        _LOG.info(
            "%s (%s) is loaded on %s in %s; its weights are licensed %s: no commercial use without an "
            "agreement",
            *(MODEL, task or "no task", self.device, str(self.dtype).removeprefix("torch.")),
            MODELS[MODEL].licence,
        )
        return model

    def _placed(self, model: Any) -> Any:
        """The weights in their precision; buffers stay as they are.

        Rotary frequencies are among them: in half precision, far positions would be others.
        """
        for weight in model.parameters():
            weight.data = weight.data.to(device=self.device, dtype=self.dtype)
        return model.to(device=self.device)


class Held:
    """The model of a call: loaded when it is first needed, and the call's until that is done."""

    def __init__(self, weights: Weights, task: str | None) -> None:
        self._weights, self._task = weights, task
        self._model: Any = None

    @property
    def model(self) -> Any:
        """The model, whether it is kept for other calls or not."""
        weights, task = self._weights, self._task
        self._model = weights.kept(task) or self._model or weights.of(task)
        return self._model


def _base(checkpoint: Checkpoint) -> Any:
    """The model in float32, all weights of which are in the files."""
    load: Any = JinaEmbeddingsV3Model.from_pretrained
    try:
        with without_bars():
            model, report = load(
                checkpoint.folder,
                add_pooling_layer=False,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidInput(
            f"the weights in {checkpoint.folder} cannot be loaded: {excerpt(str(error))}"
        ) from error
    missing = sorted(report["missing_keys"]) + sorted(map(str, report["mismatched_keys"]))
    if missing:
        raise InvalidInput(
            f"{checkpoint.folder} lacks {len(missing)} weights of the model, {excerpt(missing[0])} first; "
            "fetch the files again"
        )
    return model
