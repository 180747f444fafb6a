"""Models of the sentence-transformers library as backends."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import ClassVar, Final, Literal

from sentence_transformers import SentenceTransformer

from samespace.backends.computing import computed_async
from samespace.backends.sentence_transformer.checking import checked_space
from samespace.backends.sentence_transformer.loading import loaded
from samespace.backends.sentence_transformer.model import Model
from samespace.errors import InvalidInput, excerpt
from samespace.protocols import Matrix, Usage, Vector
from samespace.space import EmbeddingSpace

_NOTHING: Final = Usage(0)


class AsyncSentenceTransformerBackend:
    """Any model of the sentence-transformers library, on this machine's GPU or CPU.

    ``model`` is a folder with its files, its name on Hugging Face's hub (at ``revision``, if that is
    given), from whose cache it is taken or fetched, or a loaded ``SentenceTransformer``. It is loaded
    here, so that what is wrong with it is said at once: make it before the event loop runs, or in a
    worker thread. Code that comes with a model is never run. jina-embeddings-v3 is refused,
    whose adapters the library ignores, and so are the models that need code of their own.

    The space is named after the model's name on the hub. A folder or a loaded object does not say which
    model it is: declare its ``space``. ``dimensions`` takes the first so many components of a vector and
    normalises them again, which is of use with models that were trained for it.

    ``prompts`` ({"documents": …, "queries": …}) are put in front of the texts; without them the model's
    own are, where its configuration has any for documents or queries. A prompt changes vectors: unless
    it is the model's own, declare a ``space`` whose ``variant`` names it.

    A text may have as many tokens as the model looks at, prompt and special ones included, which the
    library cuts at silently. One that has more is refused before any is embedded:
    :class:`~samespace.errors.TokenLimitExceeded` names it. With ``on_too_long="truncate"`` its end is
    cut, and :meth:`usage` names it. Texts of like length go through the model ``batch_size`` at a time.
    Any number of threads or tasks may use a handle: batches take turns, so that a query waits for one
    of them. The async one computes in worker threads, never on the event loop.

    :class:`InvalidInput` for what cannot be run here, a device that is not there, a space that cannot be
    the model's; :class:`~samespace.errors.BackendUnavailable` if the hub cannot be asked.
    """

    is_async: ClassVar[bool] = True

    def __init__(
        self,
        model: str | os.PathLike[str] | SentenceTransformer,
        *,
        space: EmbeddingSpace | None = None,
        prompts: Mapping[str, str] | None = None,
        dimensions: int | None = None,
        device: str | None = None,
        batch_size: int = 32,
        on_too_long: Literal["reject", "truncate"] = "reject",
        revision: str | None = None,
    ) -> None:
        if on_too_long not in ("reject", "truncate"):
            raise InvalidInput(
                f'on_too_long is {excerpt(on_too_long)}; pass "reject" or "truncate"'
            )
        declared = checked_space(space)
        self._model = Model(
            loaded(model, device=device, revision=revision),
            declared,
            prompts=prompts,
            dimensions=dimensions,
            batch_size=batch_size,
            cuts=on_too_long == "truncate",
        )
        self._usage = ContextVar("usage", default=_NOTHING)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(space={str(self.space)!r})"

    @property
    def space(self) -> EmbeddingSpace:
        """The space of the model's vectors at this size."""
        return self._model.space

    @property
    def counts_exactly(self) -> bool:
        """Always: the tokenizer is the model's own."""
        return True

    def usage(self) -> Usage:
        """What this thread's (or task's) last call took, and which of its texts were cut."""
        return self._usage.get()

    def provenance(self) -> Mapping[str, str]:
        """What makes the vectors: model, revision if it is known, library, precision, any cutting."""
        return self._model.provenance()

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as a document has it: prompt and special ones included."""
        return self._model.count_tokens(texts)

    async def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``, float32, of unit norm."""
        self._usage.set(_NOTHING)
        found = await computed_async(lambda stop: self._model.documents(texts, stop))
        self._usage.set(found.usage)
        return found.vectors

    async def embed_queries(self, texts: Sequence[str]) -> Matrix:
        """As documents, with the queries' prompt."""
        self._usage.set(_NOTHING)
        found = await computed_async(lambda stop: self._model.queries(texts, stop))
        self._usage.set(found.usage)
        return found.vectors

    async def embed_query(self, text: str) -> Vector:
        """One query's vector, shape ``(dimensions,)``."""
        vector: Vector = (await self.embed_queries([text]))[0]
        return vector
