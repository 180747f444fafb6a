"""Jina's v3 run on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Literal, Self

from samespace.backends.computed_async import AsyncComputedBackend
from samespace.backends.computing import NOTHING, computed_async
from samespace.backends.jina_local.checkpoint import MODEL
from samespace.backends.jina_local.model import Loaded, LocalModel
from samespace.errors import InvalidInput, excerpt
from samespace.models import MODELS
from samespace.protocols import Matrix
from samespace.space import EmbeddingSpace

DEFAULT_TASK: Final = "retrieval.passage"


class AsyncJinaLocalBackend(AsyncComputedBackend):
    """jina-embeddings-v3 on this machine's GPU or CPU: documents embedded as ``task``, queries as its twin.

    ``model_or_folder`` is the model's name, whose weights are then in Hugging Face's cache or fetched at
    a pinned ``revision`` of ``jinaai/jina-embeddings-v3-hf``, or a folder with those files. They are
    read from safetensors by the transformers library's own class; no code of a repository is run. **The
    weights are licensed CC BY-NC 4.0**: commercial use needs an agreement with their vendor.

    They are loaded at the first text, or by :meth:`load`. A task's adapter is merged into a copy of the
    model (1.1 GB in bfloat16, 2.2 GB in float32), because it changes the embedding matrix as well; the
    copies for documents and for queries are both kept. ``weight_sets=1`` keeps that of the last call
    alone: enough for a process that only searches or only ingests.

    ``device`` is ``"cuda"``, ``"cuda:1"`` or ``"cpu"``, by default a GPU if there is one; ``dtype`` is
    ``"bfloat16"`` on GPUs that have it and else ``"float32"``. ``token_budget`` is how many tokens go
    through the model at once. ``dimensions`` takes the first so many of 1024 and normalises them again.

    A text may have 8192 tokens, prompt and special ones included. One that has more is refused before
    any is embedded: :class:`~samespace.errors.TokenLimitExceeded` names it. With
    ``on_too_long="truncate"`` its end is cut, and :meth:`usage` names it. Any number of threads or tasks
    may use a handle, and a query waits for no batch of documents. The async one computes in worker
    threads, never on the event loop.

    :class:`InvalidInput` for another model, a folder that lacks something, a device that is not there.
    """

    def __init__(
        self,
        model_or_folder: str | os.PathLike[str] = MODEL,
        *,
        dimensions: int | None = None,
        task: str | None = DEFAULT_TASK,
        device: str | None = None,
        dtype: Literal["bfloat16", "float16", "float32"] | None = None,
        token_budget: int | None = None,
        weight_sets: int = 2,
        on_too_long: Literal["reject", "truncate"] = "reject",
        revision: str | None = None,
    ) -> None:
        if on_too_long not in ("reject", "truncate"):
            raise InvalidInput(
                f'on_too_long is {excerpt(on_too_long)}; pass "reject" or "truncate"'
            )
        size = MODELS[MODEL].dimensions if dimensions is None else dimensions
        space = EmbeddingSpace(model=MODEL, dimensions=size, task=task)
        self._loaded = Loaded(
            model_or_folder,
            device=device,
            dtype=dtype,
            token_budget=token_budget,
            weight_sets=weight_sets,
            revision=revision,
        )
        self._model = LocalModel(self._loaded, space, cuts=on_too_long == "truncate")
        super().__init__(self._model)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._loaded!r}, space={str(self.space)!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let the weights go; they are loaded again if the handle is used again."""
        self._loaded.drop()

    async def load(self) -> None:
        """Load the weights for documents and queries now, for what must not wait at the first text."""
        tasks = self.space.task, self.space.query_task
        await computed_async(lambda stop: self._loaded.load(tasks, stop))

    @property
    def servable(self) -> Loaded:
        """The model with all of its tasks, for :func:`samespace.server.create_app`."""
        return self._loaded

    async def embed_chunks(self, documents: Sequence[Sequence[str]]) -> list[Matrix]:
        """One matrix a document, shape ``(len(chunks), dimensions)``: late chunking.

        Each chunk's vector is the mean over its tokens, which have seen all of the document: its chunks
        one behind the other, in their order (Günther et al. 2024). A document of more than 8192 tokens
        goes through in windows, each of which begins with 512 tokens of the one before as context. A
        chunk may have any length; nothing is cut.
        """
        self._usage.set(NOTHING)
        found = await computed_async(lambda stop: self._model.chunks(documents, stop))
        self._usage.set(found.usage)
        return found.vectors
