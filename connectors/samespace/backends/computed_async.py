"""A model on this machine as a backend, whichever library runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import ClassVar

from samespace.backends.computing import NOTHING, Answer, Model, computed_async
from samespace.protocols import Matrix, Usage, Vector
from samespace.space import EmbeddingSpace


class AsyncComputedBackend:
    """What backends of models on this machine have in common; the async one computes in worker threads."""

    is_async: ClassVar[bool] = True

    def __init__(self, model: Model) -> None:
        self._computes, self._usage = model, ContextVar("usage", default=NOTHING)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(space={str(self.space)!r})"

    @property
    def space(self) -> EmbeddingSpace:
        """The space of the model's vectors, with this task and size."""
        return self._computes.space

    @property
    def counts_exactly(self) -> bool:
        """Always: the tokenizer is the model's own."""
        return True

    def usage(self) -> Usage:
        """What this thread's (or task's) last call took, and which of its texts were cut."""
        return self._usage.get()

    def provenance(self) -> Mapping[str, str]:
        """What makes the vectors: the model, its revision if it is known, the precision, any cutting.

        A model of the hub is looked for, and fetched if need be, in the caller's thread.
        """
        return self._computes.provenance()

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as a document has it: prompt and special ones included.

        They are counted in the caller's thread: a second for a few megabytes.
        """
        return self._computes.count_tokens(texts)

    async def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``, float32, of unit norm."""
        self._usage.set(NOTHING)
        return self._noted(await computed_async(lambda stop: self._computes.documents(texts, stop)))

    async def embed_queries(self, texts: Sequence[str]) -> Matrix:
        """As documents, as queries are."""
        self._usage.set(NOTHING)
        return self._noted(
            await computed_async(lambda stop: self._computes.queries(texts, stop), urgent=True)
        )

    async def embed_query(self, text: str) -> Vector:
        """One query's vector, shape ``(dimensions,)``."""
        vector: Vector = (await self.embed_queries([text]))[0]
        return vector

    def _noted(self, answer: Answer) -> Matrix:
        self._usage.set(answer.usage)
        return answer.vectors
