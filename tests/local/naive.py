"""What the local backend computes, as it is described: one text at a time, nothing merged or packed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import JinaEmbeddingsV3Model

from samespace.backends.jina_local.checkpoint import folder_of
from samespace.backends.jina_local.client import JinaLocalBackend
from samespace.backends.jina_local.engine import Engine
from samespace.models import MODELS
from samespace.protocols import Matrix

PROMPTS = MODELS["jina-embeddings-v3"].prompts


class Naive:
    """A checkpoint with the adapter of a task beside the weights, not in them."""

    def __init__(self, folder: Path, task: str | None) -> None:
        load: Any = JinaEmbeddingsV3Model.from_pretrained
        self.model = load(folder, add_pooling_layer=False, attn_implementation="eager").eval()
        self.tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.prompt = PROMPTS.get(task or "", "")
        if task is not None:
            self._adapt(folder / folder_of(task))

    def _adapt(self, folder: Path) -> None:
        """Have each adapted module add its own low-rank part to what it returns."""
        said = json.loads((folder / "adapter_config.json").read_text())
        scale = said["lora_alpha"] / said["r"]
        tensors = load_file(folder / "adapter_model.safetensors")
        for name, module in self.model.named_modules():
            stem = f"base_model.model.{name}"
            if f"{stem}.lora_A.weight" in tensors:
                low, high = tensors[f"{stem}.lora_A.weight"], tensors[f"{stem}.lora_B.weight"]
                module.register_forward_hook(
                    lambda _, given, out, a=low, b=high: out + scale * given[0] @ a.T @ b.T
                )
            elif f"{stem}.lora_embedding_A" in tensors:
                low, high = tensors[f"{stem}.lora_embedding_A"], tensors[f"{stem}.lora_embedding_B"]
                module.register_forward_hook(
                    lambda _, given, out, a=low, b=high: out + scale * a.T[given[0]] @ b.T
                )

    @torch.inference_mode()
    def hidden(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """The last layer's states, shape ``(tokens, 1024)``."""
        found = self.model(input_ids=torch.tensor([list(ids)])).last_hidden_state[0]
        states: NDArray[np.float32] = found.numpy()
        return states

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Means over the tokens of each text, normalised."""
        found = [
            self.hidden(self.tokenizer.encode(self.prompt + text).ids).mean(0) for text in texts
        ]
        return normalised(np.stack(found))

    def late(
        self, chunks: Sequence[str], *, size: int = 8192, overlap: int = 512
    ) -> NDArray[np.float32]:
        """Late chunking as in the paper's code: windows, all states of a document, then means over spans."""
        ids, spans = self._whole(chunks)
        states = []
        for start in range(0, len(ids), size - overlap):
            found = self.hidden(ids[start : start + size])
            states.append(found if start == 0 else found[overlap:])
        whole = np.concatenate(states)
        return normalised(np.stack([whole[start:stop].mean(0) for start, stop in spans]))

    def _whole(self, chunks: Sequence[str]) -> tuple[list[int], list[tuple[int, int]]]:
        begin, *instruction, end = self.tokenizer.encode(self.prompt.strip()).ids
        ids, spans = [begin, *instruction], []
        for chunk in chunks:
            start = len(ids)
            ids += self.tokenizer.encode(chunk, add_special_tokens=False).ids
            spans.append((start, len(ids)))
        spans[0] = (0, spans[0][1])
        spans[-1] = (spans[-1][0], len(ids) + 1)
        return [*ids, end], spans


def normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each of unit norm."""
    found: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


def engine_of(backend: JinaLocalBackend) -> Engine:
    """What computes."""
    return backend._model.loaded.engine


def farthest(left: Matrix, right: Matrix) -> float:
    """The greatest difference of two numbers."""
    return float(np.abs(left - right).max())


@contextmanager
def counted(engine: Any) -> Iterator[list[int]]:
    """How many tokens each batch has that goes through an engine's model meanwhile."""
    found: list[int] = []
    forward = engine._forward

    def noting(batch: Sequence[Any], held: Any) -> Any:
        found.append(sum(map(len, batch)))
        return forward(batch, held)

    engine._forward = noting
    try:
        yield found
    finally:
        del engine._forward
