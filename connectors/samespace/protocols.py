"""What a backend and a store must be: everything above the adapters sees only these."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Protocol,
    Self,
    runtime_checkable,
)

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from samespace.documents import (
        CollectionInfo,
        Document,
        FillReport,
        Hit,
        Metadata,
        SlotInfo,
        VersionedRow,
        WriteReport,
    )
    from samespace.filters import Field, Filter
    from samespace.forecast import ClientChange, SlotForecast
    from samespace.guard import Canary, Direction, SlotState
    from samespace.hardening import Change, RawWrite
    from samespace.index import Index
    from samespace.rights import Part
    from samespace.space import EmbeddingSpace

Vector = NDArray[np.float32]
"""Shape ``(dimensions,)``."""
Matrix = NDArray[np.float32]
"""Shape ``(n, dimensions)``, row i for text i."""
OnConflict = Literal["overwrite", "skip", "fail"]
OnError = Literal["raise", "report"]
Shard = tuple[int, int]
"""``(i, n)``: the i-th of n disjoint parts of the rows, ``0 <= i < n``."""


class EmbeddingBackend(Protocol):
    """Turns texts into vectors of one space. Documents and queries are different acts.

    Every method returns float32; of unit norm where ``space.normalized``. Row i is that of text i,
    whatever else is asked with it; no texts have no rows. What is no list of strings is
    :class:`~samespace.errors.InvalidInput`, and so may be a string that is not for embedding, as a blank
    one: nothing is asked then. Other failures are :class:`~samespace.errors.EmbeddingError` with the
    positions of the texts concerned. Several threads (or tasks) may call at once.

    :class:`~samespace.testing.backend_contract.EmbeddingBackendContract` has tests of all this.
    """

    is_async: ClassVar[bool]

    @property
    def space(self) -> EmbeddingSpace: ...
    def embed_documents(self, texts: Sequence[str]) -> Matrix: ...
    def embed_query(self, text: str) -> Vector: ...
    def embed_queries(self, texts: Sequence[str]) -> Matrix: ...


class AsyncEmbeddingBackend(Protocol):
    """:class:`EmbeddingBackend` with async methods."""

    is_async: ClassVar[bool]

    @property
    def space(self) -> EmbeddingSpace: ...
    async def embed_documents(self, texts: Sequence[str]) -> Matrix: ...
    async def embed_query(self, text: str) -> Vector: ...
    async def embed_queries(self, texts: Sequence[str]) -> Matrix: ...


AnyBackend = EmbeddingBackend | AsyncEmbeddingBackend
"""What an async store runs; a sync one runs an :class:`EmbeddingBackend`."""


class Usage(NamedTuple):
    """What the last call cost: ``tokens``, and the indices of the texts that were cut."""

    tokens: int
    truncated: tuple[int, ...] = ()


@runtime_checkable
class ReportsUsage(Protocol):
    """A backend that counts tokens. ``usage`` speaks of this thread's (or task's) last call."""

    def usage(self) -> Usage: ...


@runtime_checkable
class CountsTokens(Protocol):
    """A backend that can count tokens without embedding, special tokens included.

    It is a plain method of async backends, too, which the library calls in a worker thread.
    """

    def count_tokens(self, texts: Sequence[str]) -> list[int]: ...


@runtime_checkable
class TellsEstimates(Protocol):
    """A backend whose ``count_tokens`` may be an estimate; told once it has counted something."""

    @property
    def counts_exactly(self) -> bool: ...


@runtime_checkable
class TakesCallsAtOnce(Protocol):
    """A backend that several threads (or tasks) may call at once: so many keep it busy."""

    @property
    def calls_at_once(self) -> int: ...


@runtime_checkable
class SupportsLateChunking(Protocol):
    """A backend that embeds the chunks of a document in sight of one another, and of no other's.

    One matrix a document, of a row a chunk; without chunks it has no rows.
    """

    def embed_chunks(self, documents: Sequence[Sequence[str]]) -> list[Matrix]: ...


@runtime_checkable
class ChecksAdoption(Protocol):
    """A store whose server can look at all rows, so that what adopting refuses is known before."""

    def check_adoptable(self) -> None: ...


@runtime_checkable
class AnswersFromMemory(Protocol):
    """A backend that may answer without asking its model, as a cache does.

    ``uncached`` is the backend beneath, which always asks it and is of the same kind, sync or async;
    itself where there is none. A canary is embedded by that one.
    """

    @property
    def uncached(self) -> EmbeddingBackend | AsyncEmbeddingBackend: ...


@runtime_checkable
class ReportsProvenance(Protocol):
    """A backend that says how it makes vectors, beyond the space: kind, revision, truncation.

    It is a plain method of async backends, too, which the library calls in a worker thread.
    """

    def provenance(self) -> Mapping[str, str]: ...


class VectorStore(Protocol):
    """One collection of documents and their vectors; the handle's ``space`` names the slot."""

    is_async: ClassVar[bool]

    @property
    def collection(self) -> str: ...
    @property
    def space(self) -> EmbeddingSpace: ...
    @property
    def backend(self) -> EmbeddingBackend | None: ...
    @property
    def canary_threshold(self) -> float: ...

    def in_space(
        self, space: EmbeddingSpace, *, backend: EmbeddingBackend | None = None
    ) -> Self: ...

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def close(self) -> None: ...

    def create(
        self, *, exist_ok: bool = True, provenance: Mapping[str, str] | None = None
    ) -> None: ...
    def drop(self) -> None: ...
    def info(self) -> CollectionInfo: ...
    def adopt(self, *, canary: bool = True) -> None: ...
    def build_index(self, space: EmbeddingSpace | None = None, *, wait: bool = True) -> None: ...

    def prove(self, direction: Direction = "documents") -> None: ...
    def bulk(self, *, resumed: bool = False) -> AbstractContextManager[None]: ...
    def upsert(
        self,
        documents: Iterable[Document],
        *,
        on_conflict: OnConflict = "overwrite",
        on_error: OnError = "raise",
    ) -> WriteReport: ...
    def upsert_vectors(
        self,
        documents: Iterable[Document],
        vectors: Iterable[Vector | None] | Matrix,
        *,
        space: EmbeddingSpace,
        on_conflict: OnConflict = "overwrite",
        on_error: OnError = "raise",
    ) -> WriteReport: ...
    def update_metadata(
        self,
        changes: Mapping[str, Metadata] | Metadata,
        *,
        where: Filter | None = None,
        merge: bool = False,
    ) -> int: ...

    def search(
        self,
        query: str,
        *,
        limit: int = 10,
        where: Filter | None = None,
        min_score: float | None = None,
        with_vectors: bool = False,
    ) -> list[Hit]: ...
    def search_many(
        self,
        queries: Sequence[str],
        *,
        limit: int = 10,
        where: Filter | None = None,
        min_score: float | None = None,
        with_vectors: bool = False,
    ) -> list[list[Hit]]: ...
    def search_vector(
        self,
        vector: Vector | Sequence[float],
        *,
        space: EmbeddingSpace,
        limit: int = 10,
        where: Filter | None = None,
        min_score: float | None = None,
        with_vectors: bool = False,
        allow_filling: bool = False,
    ) -> list[Hit]: ...

    def get(self, ids: Sequence[str], *, with_vectors: bool = False) -> list[Document]: ...
    def delete(
        self,
        *,
        ids: Sequence[str] | None = None,
        where: Filter | None = None,
        parent: str | None = None,
    ) -> int: ...
    def count(self, where: Filter | None = None) -> int: ...
    def scan(
        self, *, where: Filter | None = None, batch_size: int = 500, with_vectors: bool = False
    ) -> Iterator[Document]: ...
    def values(
        self,
        field: str | Field,
        *,
        where: Filter | None = None,
        limit: int = 100,
        after: Any = None,
    ) -> list[tuple[Any, int]]: ...

    def add_slot(
        self,
        space: EmbeddingSpace,
        *,
        canary: Canary | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> None: ...
    def pending(
        self,
        space: EmbeddingSpace,
        *,
        limit: int,
        after: str | None = None,
        shard: Shard | None = None,
        where: Filter | None = None,
        with_vectors_of: EmbeddingSpace | None = None,
    ) -> tuple[list[VersionedRow], str | None]: ...
    def filled(
        self,
        space: EmbeddingSpace,
        *,
        limit: int,
        after: str | None = None,
        shard: Shard | None = None,
        where: Filter | None = None,
    ) -> tuple[list[VersionedRow], str | None]: ...
    def sample(
        self, space: EmbeddingSpace, *, size: int, where: Filter | None = None
    ) -> list[VersionedRow]: ...
    def stale(
        self, space: EmbeddingSpace, *, since: str | None = None, limit: int
    ) -> tuple[list[VersionedRow], str | None]: ...
    def fill(
        self, space: EmbeddingSpace, rows: Sequence[VersionedRow], vectors: Matrix
    ) -> FillReport: ...
    def mark(
        self,
        space: EmbeddingSpace,
        state: SlotState,
        *,
        provenance: Mapping[str, str] | None = None,
    ) -> None: ...
    def count_alone(self, space: EmbeddingSpace, *, beside: EmbeddingSpace) -> int: ...
    def drop_slot(self, space: EmbeddingSpace, *, keeps: EmbeddingSpace | None = None) -> None: ...


class AsyncVectorStore(Protocol):
    """:class:`VectorStore` with async methods; belongs to the event loop that opened it."""

    is_async: ClassVar[bool]

    @property
    def collection(self) -> str: ...
    @property
    def space(self) -> EmbeddingSpace: ...
    @property
    def backend(self) -> EmbeddingBackend | AsyncEmbeddingBackend | None: ...
    @property
    def canary_threshold(self) -> float: ...

    def in_space(
        self,
        space: EmbeddingSpace,
        *,
        backend: EmbeddingBackend | AsyncEmbeddingBackend | None = None,
    ) -> Self: ...

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    async def close(self) -> None: ...

    async def create(
        self, *, exist_ok: bool = True, provenance: Mapping[str, str] | None = None
    ) -> None: ...
    async def drop(self) -> None: ...
    async def info(self) -> CollectionInfo: ...
    async def adopt(self, *, canary: bool = True) -> None: ...
    async def build_index(
        self, space: EmbeddingSpace | None = None, *, wait: bool = True
    ) -> None: ...

    async def prove(self, direction: Direction = "documents") -> None: ...
    def bulk(self, *, resumed: bool = False) -> AbstractAsyncContextManager[None]: ...
    async def upsert(
        self,
        documents: Iterable[Document],
        *,
        on_conflict: OnConflict = "overwrite",
        on_error: OnError = "raise",
    ) -> WriteReport: ...
    async def upsert_vectors(
        self,
        documents: Iterable[Document],
        vectors: Iterable[Vector | None] | Matrix,
        *,
        space: EmbeddingSpace,
        on_conflict: OnConflict = "overwrite",
        on_error: OnError = "raise",
    ) -> WriteReport: ...
    async def update_metadata(
        self,
        changes: Mapping[str, Metadata] | Metadata,
        *,
        where: Filter | None = None,
        merge: bool = False,
    ) -> int: ...

    async def search(
        self,
        query: str,
        *,
        limit: int = 10,
        where: Filter | None = None,
        min_score: float | None = None,
        with_vectors: bool = False,
    ) -> list[Hit]: ...
    async def search_many(
        self,
        queries: Sequence[str],
        *,
        limit: int = 10,
        where: Filter | None = None,
        min_score: float | None = None,
        with_vectors: bool = False,
    ) -> list[list[Hit]]: ...
    async def search_vector(
        self,
        vector: Vector | Sequence[float],
        *,
        space: EmbeddingSpace,
        limit: int = 10,
        where: Filter | None = None,
        min_score: float | None = None,
        with_vectors: bool = False,
        allow_filling: bool = False,
    ) -> list[Hit]: ...

    async def get(self, ids: Sequence[str], *, with_vectors: bool = False) -> list[Document]: ...
    async def delete(
        self,
        *,
        ids: Sequence[str] | None = None,
        where: Filter | None = None,
        parent: str | None = None,
    ) -> int: ...
    async def count(self, where: Filter | None = None) -> int: ...
    def scan(
        self, *, where: Filter | None = None, batch_size: int = 500, with_vectors: bool = False
    ) -> AsyncIterator[Document]: ...
    async def values(
        self,
        field: str | Field,
        *,
        where: Filter | None = None,
        limit: int = 100,
        after: Any = None,
    ) -> list[tuple[Any, int]]: ...

    async def add_slot(
        self,
        space: EmbeddingSpace,
        *,
        canary: Canary | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> None: ...
    async def pending(
        self,
        space: EmbeddingSpace,
        *,
        limit: int,
        after: str | None = None,
        shard: Shard | None = None,
        where: Filter | None = None,
        with_vectors_of: EmbeddingSpace | None = None,
    ) -> tuple[list[VersionedRow], str | None]: ...
    async def filled(
        self,
        space: EmbeddingSpace,
        *,
        limit: int,
        after: str | None = None,
        shard: Shard | None = None,
        where: Filter | None = None,
    ) -> tuple[list[VersionedRow], str | None]: ...
    async def sample(
        self, space: EmbeddingSpace, *, size: int, where: Filter | None = None
    ) -> list[VersionedRow]: ...
    async def stale(
        self, space: EmbeddingSpace, *, since: str | None = None, limit: int
    ) -> tuple[list[VersionedRow], str | None]: ...
    async def fill(
        self, space: EmbeddingSpace, rows: Sequence[VersionedRow], vectors: Matrix
    ) -> FillReport: ...
    async def mark(
        self,
        space: EmbeddingSpace,
        state: SlotState,
        *,
        provenance: Mapping[str, str] | None = None,
    ) -> None: ...
    async def count_alone(self, space: EmbeddingSpace, *, beside: EmbeddingSpace) -> int: ...
    async def drop_slot(
        self, space: EmbeddingSpace, *, keeps: EmbeddingSpace | None = None
    ) -> None: ...


@runtime_checkable
class FacesRawWriters(Protocol):
    """A store that knows what its server makes of writes that go around this library."""

    guard_limit: ClassVar[str]
    """Why there is nothing that could be installed; empty where there is something."""

    def guard_check(self) -> tuple[RawWrite, ...]: ...
    def guard_install(self, *, dry_run: bool = False) -> tuple[Change, ...]: ...
    def guard_remove(self, *, dry_run: bool = False) -> tuple[Change, ...]: ...


@runtime_checkable
class RebuildsRecords(Protocol):
    """A store that can write a lost record anew, of the names of its slots."""

    def repair_record(self, *, spaces: Sequence[EmbeddingSpace] = ()) -> tuple[SlotInfo, ...]: ...


@runtime_checkable
class AsyncFacesRawWriters(Protocol):
    """:class:`FacesRawWriters` with async methods."""

    guard_limit: ClassVar[str]
    """Why there is nothing that could be installed; empty where there is something."""

    async def guard_check(self) -> tuple[RawWrite, ...]: ...
    async def guard_install(self, *, dry_run: bool = False) -> tuple[Change, ...]: ...
    async def guard_remove(self, *, dry_run: bool = False) -> tuple[Change, ...]: ...


@runtime_checkable
class AsyncRebuildsRecords(Protocol):
    """:class:`RebuildsRecords` with async methods."""

    async def repair_record(
        self, *, spaces: Sequence[EmbeddingSpace] = ()
    ) -> tuple[SlotInfo, ...]: ...


@runtime_checkable
class ForecastsSlots(Protocol):
    """A store, sync or async, that knows what one more slot would need; it asks no server.

    ``index`` is the handle's unless it is given; :class:`~samespace.errors.InvalidInput` for one that the
    store lacks.
    """

    def forecast(
        self, space: EmbeddingSpace, info: CollectionInfo, index: Index | None = None
    ) -> SlotForecast: ...


@runtime_checkable
class DescribesSlots(Protocol):
    """A store, sync or async, that says what its slots are to others; it asks no server."""

    unseen_changes: ClassVar[str]
    """Which changes of others nobody sees who keeps a slot fresh."""
    unreclaimed_space: ClassVar[str]
    """What a dropped slot leaves behind, and what brings that back."""

    def client_changes(self, source: str, target: str) -> tuple[ClientChange, ...]: ...


@runtime_checkable
class NamesKind(Protocol):
    """A store that says what kind it is, so that a plan of another is told from its own."""

    kind: ClassVar[str]
    """As a forecast and a plan name it."""


@runtime_checkable
class NamesRights(Protocol):
    """A store that knows the least rights a part takes, in the words of who grants them there."""

    def grants(self, part: Part, *, to: str) -> str: ...


@runtime_checkable
class AsyncNamesRights(Protocol):
    """:class:`NamesRights` with async methods."""

    async def grants(self, part: Part, *, to: str) -> str: ...


@runtime_checkable
class PlansSlots(Protocol):
    """A store where a slot can be prepared by somebody else, who has rights that a migrator lacks."""

    def ddl(self, space: EmbeddingSpace) -> list[str]: ...


@runtime_checkable
class AsyncPlansSlots(Protocol):
    """:class:`PlansSlots` with async methods."""

    async def ddl(self, space: EmbeddingSpace) -> list[str]: ...


@runtime_checkable
class FollowsChanges(Protocol):
    """A store with a log of changes: who follows them need not look at every row again and again.

    ``changed`` is of the rows written since a position whose vector is missing or was made from another
    text, to be filled; with fewer than ``limit`` of them all that was written until then was looked at.
    """

    def position(self) -> str: ...
    def changed(
        self, space: EmbeddingSpace, *, since: str, limit: int
    ) -> tuple[list[VersionedRow], str]: ...


@runtime_checkable
class AsyncFollowsChanges(Protocol):
    """:class:`FollowsChanges` with async methods."""

    async def position(self) -> str: ...
    async def changed(
        self, space: EmbeddingSpace, *, since: str, limit: int
    ) -> tuple[list[VersionedRow], str]: ...


@runtime_checkable
class ExposesSlots(Protocol):
    """A store where one slot can stand under another's name, for an application that cannot be changed."""

    def view(self, space: EmbeddingSpace, *, schema: str, role: str | None = None) -> list[str]: ...


@runtime_checkable
class AsyncExposesSlots(Protocol):
    """:class:`ExposesSlots` with async methods."""

    async def view(
        self, space: EmbeddingSpace, *, schema: str, role: str | None = None
    ) -> list[str]: ...


@runtime_checkable
class NamesDependents(Protocol):
    """A store that knows the statements which remove what others have built on a slot and can make again."""

    def dependents(self, space: EmbeddingSpace) -> list[str]: ...


@runtime_checkable
class AsyncNamesDependents(Protocol):
    """:class:`NamesDependents` with async methods."""

    async def dependents(self, space: EmbeddingSpace) -> list[str]: ...


@runtime_checkable
class NamesObstacles(Protocol):
    """A store that knows, in the server's words, what else others have built on a slot."""

    def obstacles(self, space: EmbeddingSpace) -> list[str]: ...


@runtime_checkable
class AsyncNamesObstacles(Protocol):
    """:class:`NamesObstacles` with async methods."""

    async def obstacles(self, space: EmbeddingSpace) -> list[str]: ...
