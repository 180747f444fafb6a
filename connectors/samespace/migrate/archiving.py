# Generated from archiving_async.py by tools/generate_sync.py; change that file, not this one.
"""Backends that answer in a smaller space what a model is asked for at full size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any, ClassVar, Final, NamedTuple, Self

from samespace.embedding import (
    embed,
    embed_chunks,
    is_async,
    provenance_of,
    require_sync,
    uncached,
    usage_of,
)
from samespace.errors import EmbeddingError, InvalidInput, excerpt
from samespace.guard import Direction
from samespace.migrate.archive import VectorArchive, chunk_keys, document_key, rounded
from samespace.names import check_storable, check_texts_listed
from samespace.protocols import (
    CountsTokens,
    EmbeddingBackend,
    Matrix,
    SupportsLateChunking,
    TakesCallsAtOnce,
    Usage,
    Vector,
)
from samespace.space import EmbeddingSpace, Verdict, compare, derive
from samespace.vectors import stack

_NOTHING: Final = Usage(0)


class _Kept(NamedTuple):
    """A text's vector at full size, and whether the text was cut for it."""

    vector: Vector
    cut: bool


class DerivingBackend:
    """Asks ``full`` for every text, and answers in ``space``, which can be derived from its space.

    Vectors are shortened and normalised again; what they cost is what they cost at full size. Whatever
    else the backend can do is handed through; closing this closes it. :class:`InvalidInput` for
    spaces of which one does not follow from the other.
    """

    is_async: ClassVar[bool] = False

    def __init__(self, full: EmbeddingBackend, space: EmbeddingSpace) -> None:
        required = require_sync(full)
        if required is None:
            raise InvalidInput("full is None; pass what embeds at full size")
        if is_async(required) != self.is_async:
            raise InvalidInput(
                f"{excerpt(required)} is sync and this backend is not; use its sync twin, which an async "
                "store runs too"
            )
        if compare(required.space, space) is Verdict.INCOMPATIBLE:
            raise InvalidInput(
                f"vectors of {space} cannot be derived from {required.space}; pass the backend of the same "
                "model and task at full size"
            )
        self._full, self._space = required, space
        self._usage: ContextVar[Usage] = ContextVar("usage", default=_NOTHING)
        self._hand_through()

    def _hand_through(self) -> None:
        """Have the optional methods that the backend has, and no others."""
        full: Any = self._full
        if isinstance(full, SupportsLateChunking):
            self.embed_chunks = self._embed_chunks
        if isinstance(full, CountsTokens):
            self.count_tokens = full.count_tokens
        if isinstance(full, TakesCallsAtOnce):
            self.calls_at_once = full.calls_at_once

    @property
    def space(self) -> EmbeddingSpace:
        """What it answers in."""
        return self._space

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._full!r}, {self._space})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the backend, if it has something to close."""
        close = getattr(self._full, "close", None)
        if callable(close):
            close()

    def usage(self) -> Usage:
        """What this thread's (or task's) last call cost, and the positions of texts that were cut."""
        return self._usage.get()

    def provenance(self) -> Mapping[str, str]:
        """What the backend says of how it makes vectors, and the size that they were made at."""
        return {**provenance_of(self._full), "full_size": str(self._full.space)}

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``, float32."""
        return self._derived(self._asked("documents", texts))

    def embed_queries(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``, float32."""
        return self._derived(self._asked("queries", texts))

    def embed_query(self, text: str) -> Vector:
        """One query's vector, shape ``(dimensions,)``, float32."""
        vector: Vector = self.embed_queries([text])[0]
        return vector

    def _embed_chunks(self, documents: Sequence[Sequence[str]]) -> list[Matrix]:
        return [self._derived(matrix) for matrix in self._asked_together(documents)]

    def _derived(self, vectors: Matrix) -> Matrix:
        return derive(vectors, stored=self._full.space, offered=self._space)

    def _asked(self, direction: Direction, texts: Sequence[str]) -> Matrix:
        """What the backend makes of texts, at full size."""
        self._usage.set(_NOTHING)
        try:
            vectors, usage = embed(self._full, direction, texts)
        except EmbeddingError as error:
            self._usage.set(Usage(error.tokens))
            raise
        self._usage.set(usage)
        return vectors

    def _asked_together(self, documents: Sequence[Sequence[str]]) -> list[Matrix]:
        """What the backend makes of the chunks of documents, at full size."""
        try:
            matrices, usage = embed_chunks(self._full, documents)
        except EmbeddingError:
            self._usage.set(Usage(usage_of(self._full).tokens))
            raise
        self._usage.set(usage)
        return matrices


class ArchivingBackend(DerivingBackend):
    """:class:`DerivingBackend` that keeps the vectors of documents at full size in ``archive``.

    What is there is not asked for again, whoever kept it: :meth:`usage` has no tokens for it. Chunks that
    are embedded together are kept by all of them. Queries are always asked for, and so is a collection's
    canary. Vectors are rounded as the archive keeps them, so that whether one was there makes no
    difference. Closing this closes the backend, and not the archive.
    """

    def __init__(
        self, full: EmbeddingBackend, archive: VectorArchive, space: EmbeddingSpace
    ) -> None:
        super().__init__(full, space)
        if archive.space != self._full.space:
            raise InvalidInput(
                f"the archive keeps vectors of {archive.space}, and those of {excerpt(full)} are of "
                f"{self._full.space}; pass another folder (--keep-full)"
            )
        self._archive = archive
        self._uncached = DerivingBackend(uncached(self._full), space)

    @property
    def uncached(self) -> DerivingBackend:
        """The backend that asks for every text."""
        return self._uncached

    def kept(self, texts: Sequence[str]) -> set[str]:
        """Those of some texts that are in the archive."""
        return set(self._remembered(texts))

    def keeps_chunks(self, chunks: Sequence[str]) -> bool:
        """Whether the chunks of a document, embedded together, are in the archive."""
        keys = chunk_keys(self._full.space, chunks)
        return self._archive.find(keys).keys() >= set(keys)

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``, float32."""
        _check(texts)
        self._usage.set(_NOTHING)
        found = self._remembered(texts)
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        if missing:
            found |= self._made(missing, texts)
        cut = tuple(place for place, text in enumerate(texts) if found[text].cut)
        self._usage.set(Usage(self.usage().tokens, cut))
        full = stack([found[text].vector for text in texts], self._full.space.dimensions)
        return self._derived(full)

    def _remembered(self, texts: Iterable[str]) -> dict[str, _Kept]:
        keys = {
            document_key(self._full.space, text, cut=cut): (text, cut)
            for text in dict.fromkeys(texts)
            for cut in (False, True)
        }
        found = self._archive.find(list(keys))
        return {keys[key][0]: _Kept(vector, keys[key][1]) for key, vector in found.items()}

    def _made(self, missing: Sequence[str], texts: Sequence[str]) -> dict[str, _Kept]:
        """What the backend makes of texts, kept from now on."""
        try:
            vectors = rounded(self._asked("documents", missing))
        except EmbeddingError as error:
            refused = {missing[i] for i in error.indices if i < len(missing)}
            error.indices = tuple(i for i, text in enumerate(texts) if text in refused)
            raise
        cut = set(self.usage().truncated)
        made = {
            text: _Kept(vector, place in cut)
            for place, (text, vector) in enumerate(zip(missing, vectors, strict=True))
        }
        self._archive.add(
            {
                document_key(self._full.space, text, cut=kept.cut): kept.vector
                for text, kept in made.items()
            }
        )
        return made

    def _embed_chunks(self, documents: Sequence[Sequence[str]]) -> list[Matrix]:
        for chunks in documents:
            _check(chunks)
        self._usage.set(_NOTHING)
        keys = [chunk_keys(self._full.space, chunks) for chunks in documents]
        found = self._archive.find([key for each in keys for key in each])
        missing = [i for i, each in enumerate(keys) if not each or not found.keys() >= set(each)]
        if missing:
            found |= self._made_together(documents, keys, missing)
        return [self._derived(self._full_size(found, each)) for each in keys]

    def _full_size(self, found: Mapping[bytes, Vector], keys: Sequence[bytes]) -> Matrix:
        return stack([found[key] for key in keys], self._full.space.dimensions)

    def _made_together(
        self,
        documents: Sequence[Sequence[str]],
        keys: Sequence[Sequence[bytes]],
        missing: Sequence[int],
    ) -> dict[bytes, Vector]:
        """What the backend makes of the missing documents' chunks, kept from now on."""
        try:
            matrices = self._asked_together([documents[place] for place in missing])
        except EmbeddingError as error:
            error.indices = tuple(missing[i] for i in error.indices if i < len(missing))
            raise
        made: dict[bytes, Vector] = {}
        for place, matrix in zip(missing, matrices, strict=True):
            made |= zip(keys[place], rounded(matrix), strict=True)
        self._archive.add(made)
        return made


def _check(texts: Sequence[str]) -> None:
    check_texts_listed(texts)
    for place, text in enumerate(texts):
        check_storable(text, what=f"text {place}")
