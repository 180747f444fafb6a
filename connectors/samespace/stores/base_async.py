"""What every store does alike: the guard, the batches of an upsert, the canary, the reports."""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, get_args

import numpy as np

from samespace.documents import (
    Document,
    Hit,
    Metadata,
    Rejected,
    VersionedRow,
    WriteReport,
    check_document,
    encode_metadata,
)
from samespace.embedding import require_any
from samespace.errors import (
    AuthenticationFailed,
    DocumentExists,
    EmbeddingError,
    InvalidInput,
    PartialWrite,
    QuotaExhausted,
    SamespaceError,
    SpaceMismatch,
    excerpt,
)
from samespace.filters import Filter, check_filter, id_in
from samespace.guard import (
    CANARY_THRESHOLD,
    Canary,
    Direction,
    SlotRecord,
    SlotState,
    check_threshold,
)
from samespace.layout import Layout
from samespace.names import check_storable
from samespace.protocols import AnyBackend, Matrix, OnConflict, OnError, Usage, Vector
from samespace.space import EmbeddingSpace, differences
from samespace.stores.proofs_async import AsyncProofs
from samespace.stores.refusals import RowsRefused
from samespace.stores.running import AsyncBeside
from samespace.survey import scope_options
from samespace.vectors import as_matrix, as_vector, as_vectors

if TYPE_CHECKING:
    from samespace.protocols import AsyncVectorStore, Shard

BATCH_DOCUMENTS: Final = 1000
BATCH_BYTES: Final = 16 * 2**20
MAX_LIMIT: Final = 10_000
DRAWN_PER_READ: Final = 500
logger: Final = logging.getLogger("samespace")
_NOWHERE: Final[Mapping[EmbeddingSpace, Vector]] = MappingProxyType({})


@dataclass(slots=True)  # frozen takes four times as long to make
class Row:
    """A checked document with its metadata as JSON and its vector, if it has one."""

    document: Document
    metadata: bytes
    vector: Vector | None = None
    mirrored: Mapping[EmbeddingSpace, Vector] = field(default_factory=lambda: _NOWHERE)


@dataclass(frozen=True, slots=True)
class Written:
    """What a store did with a batch: ids that met a stored row of ``on_conflict``, and the rest.

    ``refused`` says why, where the store judges each row by itself.
    """

    conflicts: frozenset[str] = frozenset()
    pending: int = 0
    refused: Mapping[str, SamespaceError] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(slots=True)
class _Batch:
    """One batch on its way through an upsert."""

    rows: list[Row] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    earlier: dict[str, list[Row]] = field(default_factory=dict)
    """Rows of the same ids that came before: what counts if the last one cannot be embedded."""
    skipped: int = 0
    tokens: int = 0
    truncated: tuple[str, ...] = ()
    pending: int = 0

    def note(self, usage: Usage, rows: Sequence[Row]) -> None:
        """What it cost to embed these rows, and which texts were cut for one slot or another."""
        self.tokens += usage.tokens
        cut = [rows[i].document.id for i in usage.truncated if i < len(rows)]
        self.truncated = tuple(dict.fromkeys([*self.truncated, *cut]))


class AsyncStoreBase(ABC):
    """A store is a subclass with the hooks below; ``tests`` show with the contract suite."""

    is_async: ClassVar[bool] = True

    def __init__(
        self,
        *,
        collection: str,
        space: EmbeddingSpace | None,
        backend: AnyBackend | None,
        mirrors: Sequence[AnyBackend],
        layout: Layout | None,
        canary_threshold: float = CANARY_THRESHOLD,
    ) -> None:
        self._collection = collection
        self._claimed_layout = layout
        self._threshold = check_threshold(canary_threshold)
        self._is_guest = False
        self._settle(space, backend, mirrors)
        self._claimed_space = self._space

    def _settle(
        self,
        space: EmbeddingSpace | None,
        backend: AnyBackend | None,
        mirrors: Sequence[AnyBackend],
    ) -> None:
        """All that handles on one collection over the same connections do not share."""
        self._backend = require_any(backend)
        self._space = _agreed_space(space, self._backend)
        self._mirrors = _distinct(self._space, [require_any(mirror) for mirror in mirrors])
        self._reset()

    def _reset(self) -> None:
        """Begin anew, as a handle that has read and done nothing."""
        self._closing: list[Callable[[], object]] = []
        self._bulks = 0
        self._owed = False
        self._proofs = AsyncProofs(
            collection=self._collection, threshold=self._threshold, scope=self._scope
        )

    def in_space(self, space: EmbeddingSpace, *, backend: AnyBackend | None = None) -> Self:
        """Another handle on this collection, for its slot of ``space``, over the same connections.

        It has no mirrors, and closing it closes nothing of this one, with which its connections go.
        :class:`SpaceMismatch` if ``backend`` makes vectors of another space. Whether there is such a
        slot is looked at when it is used, as with any handle; a layout that this one claims says
        nothing of another space's.
        """
        other = copy.copy(self)
        AsyncStoreBase._settle(other, check_space(space), backend, ())
        vars(other).update(_is_guest=True)
        return other

    @property
    def collection(self) -> str:
        """The collection's name."""
        return self._collection

    @property
    def space(self) -> EmbeddingSpace:
        """The embedding space of this handle's slot."""
        return self._space

    @property
    def backend(self) -> AnyBackend | None:
        """What embeds for this handle, if anything does."""
        return self._backend

    @property
    def canary_threshold(self) -> float:
        """The smallest cosine at which a backend counts as the one that filled the slot."""
        return self._threshold

    @property
    def _scope(self) -> tuple[str, ...]:
        """What tells this collection from others in its table, as the command line takes it."""
        return scope_options(self._claimed_layout.scope) if self._claimed_layout else ()

    def __repr__(self) -> str:
        made = vars(self)  # of a handle that was refused a traceback shows what there is
        collection, space = made.get("_collection"), str(made.get("_space"))
        return f"{type(self).__name__}({collection=!r}, {space=!r})"

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
        """Give back this handle's connections; it is of no use afterwards.

        What was passed in stays open, and so does what a handle of :meth:`in_space` uses with another.
        """
        try:
            if not self._is_guest:
                await self._disconnect()
        finally:
            while self._closing:
                self._closing.pop()()

    def on_close(self, call: Callable[[], object]) -> None:
        """Have something closed with this handle, once."""
        self._closing.append(call)

    # Hooks

    @abstractmethod
    async def _disconnect(self) -> None:
        """Close every connection that is this store's own."""

    @abstractmethod
    async def _for_writing(self) -> SlotRecord:
        """This handle's slot, the collection created if there is none; or the refusal."""

    @abstractmethod
    async def _for_searching(self, *, allow_filling: bool = False) -> SlotRecord:
        """This handle's slot if it may be searched; or the refusal."""

    @abstractmethod
    def _slots(self) -> Sequence[SlotRecord]:
        """All slots of the collection, as it was when :meth:`_for_writing` looked."""

    @abstractmethod
    def _check_row(self, document: Document) -> None:
        """:class:`InvalidInput` if the collection has no place for a part of the document."""

    @abstractmethod
    async def _existing(self, ids: Sequence[str]) -> set[str]:
        """Which of these ids are stored."""

    @abstractmethod
    async def _write(self, rows: Sequence[Row], on_conflict: OnConflict) -> Written:
        """Store rows whose ids differ; :class:`RowsRefused` if one of them cannot be stored."""

    @abstractmethod
    async def _written(self) -> None:
        """The end of an upsert that wrote something, and of a :meth:`bulk` of them."""

    @abstractmethod
    async def _nearest(
        self,
        slot: SlotRecord,
        vectors: Matrix,
        *,
        limit: int,
        where: Filter | None,
        with_vectors: bool,
    ) -> list[list[Hit]]:
        """The nearest rows to each vector, best first."""

    # Writing

    async def prove(self, direction: Direction = "documents") -> None:
        """Have the backend embed the canary texts, and compare them with the collection's.

        :class:`SpaceMismatch` if it embeds otherwise than what is stored. Once for each handle and
        direction; :meth:`upsert` and :meth:`search` do it by themselves. For those who embed with
        :attr:`backend` and write with :meth:`upsert_vectors`: for ``"documents"`` the collection is
        created if there is none. :meth:`info` has the cosines from then on.
        """
        if direction not in get_args(Direction):
            raise InvalidInput(
                f"direction is {excerpt(direction)}; choose one of {', '.join(get_args(Direction))}"
            )
        if self._backend is None:
            raise InvalidInput("this handle has no backend to prove: pass backend=")
        writing = direction == "documents"
        look = self._for_writing if writing else partial(self._for_searching, allow_filling=True)
        slot = await look()
        if not self._proofs.holds(slot, direction):
            await self._proofs.embed(self._backend, direction, [], slot)

    @asynccontextmanager
    async def bulk(self, *, resumed: bool = False) -> AsyncIterator[None]:
        """Writes within it are parts of one: an index that they call for is built at its end.

        It is not if they fail. ``resumed`` says that it goes on with one that was broken off, whose
        index may be missing though nothing is left to write.
        """
        self._bulks += 1
        self._owed = self._owed or resumed
        try:
            yield
        finally:
            self._bulks -= 1
        if self._owed and not self._bulks:
            self._owed = False
            await self._written()

    async def upsert(
        self,
        documents: Iterable[Document],
        *,
        on_conflict: OnConflict = "overwrite",
        on_error: OnError = "raise",
    ) -> WriteReport:
        """Embed documents as passages and store them, from any iterable.

        A batch is at most 1,000 documents or about 16 MiB of text; it is embedded while the one before
        is written, so that two are in memory at a time.
        The collection is created on first use. A document that cannot be stored is left out and
        reported; by default :class:`PartialWrite` is raised after all others are stored. An error
        that concerns the whole call carries the report of what was stored before it. If the iterable
        itself fails, what it yielded since the last whole batch is not stored.
        """
        _check_options(on_conflict, on_error)
        if self._backend is None:
            raise InvalidInput(
                "this handle has no backend to embed with: pass backend=, or use upsert_vectors()"
            )
        _check_iterable(documents, what="documents")
        pairs = ((document, None) for document in documents)
        return await self._upsert(pairs, on_conflict, on_error, embed=True)

    async def upsert_vectors(
        self,
        documents: Iterable[Document],
        vectors: Iterable[Vector | None] | Matrix,
        *,
        space: EmbeddingSpace,
        on_conflict: OnConflict = "overwrite",
        on_error: OnError = "raise",
    ) -> WriteReport:
        """Store documents with vectors made elsewhere, one for each, of shape ``(dimensions,)``.

        ``space`` says what the vectors are and must be this handle's. None in place of a vector
        leaves the slot empty, to be filled; such a document's text may be blank.
        """
        _check_options(on_conflict, on_error)
        self._require_same(space)
        _check_iterable(documents, what="documents")
        _check_iterable(vectors, what="vectors")
        if isinstance(vectors, np.ndarray) and vectors.ndim != 2:
            raise InvalidInput(f"vectors has shape {vectors.shape}; pass (n, dimensions)")
        pairs = _zipped(documents, vectors)
        return await self._upsert(pairs, on_conflict, on_error, embed=False)

    async def _upsert(
        self,
        pairs: Iterable[tuple[Document, Any]],
        on_conflict: OnConflict,
        on_error: OnError,
        *,
        embed: bool,
    ) -> WriteReport:
        report = WriteReport()
        slot: SlotRecord | None = None
        async with AsyncBeside[WriteReport]() as writing:
            try:
                for documents, more in _batches(pairs):
                    slot = slot or await self._for_writing()
                    batch = await self._prepared(documents, slot, on_conflict, embed=embed)
                    report += await writing.finished() or WriteReport()
                    if more:  # the next batch is embedded while this one is written
                        await writing.start(partial(self._stored, batch, on_conflict))
                    else:
                        report += await self._stored(batch, on_conflict)
                await self._end(report)
            except Exception as error:
                with suppress(SamespaceError):
                    report += await writing.finished() or WriteReport()
                with suppress(SamespaceError):
                    await self._end(report)
                if isinstance(error, SamespaceError):
                    error.report = report
                raise
        if report.rejected and on_error == "raise":
            raise PartialWrite(report)
        return report

    async def _end(self, report: WriteReport) -> None:
        if report.written:
            self._owed = self._bulks > 0
            await self._written()

    def _checked(
        self, pairs: Sequence[tuple[Document, Any]], on_conflict: OnConflict, *, embed: bool
    ) -> _Batch:
        """The rows that can be stored, one for each id; of equal ids the one that counts."""
        batch = _Batch()
        rows: dict[str, Row] = {}
        vectors = as_vectors([vector for _, vector in pairs], self._space)
        for (document, _), vector in zip(pairs, vectors, strict=True):
            try:
                row = self._row(document, vector, embed=embed)
            except InvalidInput as error:
                batch.rejected.append(Rejected(_id_of(document), error))
                continue
            if document.id not in rows:
                rows[document.id] = row
            elif on_conflict == "overwrite":
                batch.earlier.setdefault(document.id, []).append(rows[document.id])
                rows[document.id] = row
            else:
                _met(document.id, batch, on_conflict)
        batch.rows = list(rows.values())
        return batch

    def _row(self, document: Document, vector: Vector | InvalidInput | None, *, embed: bool) -> Row:
        check_document(document, allow_blank=not embed and vector is None)
        metadata = encode_metadata(document.metadata)
        self._check_row(document)
        if isinstance(vector, InvalidInput):
            raise vector
        return Row(document, metadata, vector)

    async def _prepared(
        self,
        documents: Sequence[tuple[Document, Any]],
        slot: SlotRecord,
        on_conflict: OnConflict,
        *,
        embed: bool,
    ) -> _Batch:
        """A batch that only has to be written: checked, and with all its vectors."""
        batch = self._checked(documents, on_conflict, embed=embed)
        if on_conflict != "overwrite" and batch.rows:
            stored = await self._existing([row.document.id for row in batch.rows])
            _leave_out(stored, batch, on_conflict)
        if embed:
            await self._embed(batch, slot)
        for mirror in self._mirrors:
            await self._mirror(batch, mirror)
        return batch

    async def _stored(self, batch: _Batch, on_conflict: OnConflict) -> WriteReport:
        written = await self._write_each(batch, batch.rows, on_conflict) if batch.rows else set()
        return WriteReport(
            written=sum(1 + len(batch.earlier.get(id, ())) for id in written),
            skipped=batch.skipped,
            rejected=tuple(batch.rejected),
            tokens=batch.tokens,
            truncated=batch.truncated,
            pending=batch.pending,
        )

    async def _embed(self, batch: _Batch, slot: SlotRecord) -> None:
        """Give every row its vector; rows whose text the backend refuses are rejected."""
        assert self._backend is not None  # noqa: S101  upsert has refused a handle without one
        while batch.rows:
            try:
                vectors, usage = await self._passages(self._backend, batch.rows, slot)
            except EmbeddingError as error:
                batch.tokens += error.tokens
                if not error.indices or isinstance(error, AuthenticationFailed | QuotaExhausted):
                    raise
                _reject(batch, set(error.indices), error)
                continue
            batch.note(usage, batch.rows)
            batch.rows = [
                Row(row.document, row.metadata, vector)
                for row, vector in zip(batch.rows, vectors, strict=True)
            ]
            return

    async def _passages(
        self, backend: AnyBackend, rows: Sequence[Row], slot: SlotRecord
    ) -> tuple[Matrix, Usage]:
        """Passages' vectors; the canary rides along the first time."""
        texts = [row.document.embedded_text for row in rows]
        return await self._proofs.embed(backend, "documents", texts, slot)

    async def _mirror(self, batch: _Batch, mirror: AnyBackend) -> None:
        """Fill a further slot; a text that its backend fails on leaves the row pending there."""
        slot = next((slot for slot in self._slots() if slot.space == mirror.space), None)
        rows = [row for row in batch.rows if row.document.embedded_text.strip()]
        while slot is not None and rows:
            try:
                vectors, usage = await self._passages(mirror, rows, slot)
            except EmbeddingError as error:
                batch.tokens += error.tokens
                failed = {i for i in error.indices if i < len(rows)} or set(range(len(rows)))
                logger.warning(
                    "%d row(s) of %s stay pending in slot %s: %s",
                    len(failed), self._collection, slot.name, error,
                )  # fmt: skip
                rows = [row for i, row in enumerate(rows) if i not in failed]
                continue
            batch.note(usage, rows)
            made = {row.document.id: vector for row, vector in zip(rows, vectors, strict=True)}
            batch.rows = [_with_mirrored(row, mirror.space, made) for row in batch.rows]
            return

    async def _write_each(
        self, batch: _Batch, rows: Sequence[Row], on_conflict: OnConflict
    ) -> set[str]:
        """Store rows, and find those that the store refuses by halving; the ids that were written."""
        try:
            done = await self._write(rows, on_conflict)
        except RowsRefused as error:
            if len(rows) == 1:
                batch.rejected.append(Rejected(rows[0].document.id, error))
                return set()
            middle = len(rows) // 2
            first = await self._write_each(batch, rows[:middle], on_conflict)
            return first | await self._write_each(batch, rows[middle:], on_conflict)
        for id in sorted(done.conflicts):
            _met(id, batch, on_conflict)
        batch.rejected += [Rejected(id, error) for id, error in done.refused.items()]
        batch.pending += done.pending
        return {row.document.id for row in rows} - done.conflicts - done.refused.keys()

    # Searching

    async def search(
        self,
        query: str,
        *,
        limit: int = 10,
        where: Filter | None = None,
        min_score: float | None = None,
        with_vectors: bool = False,
    ) -> list[Hit]:
        """The ``limit`` (at most 10,000) documents nearest to a query, best first.

        The query is embedded as the space's queries are. ``min_score`` is a cosine similarity; it
        does not carry over to another model.
        """
        found = await self.search_many(
            [query], limit=limit, where=where, min_score=min_score, with_vectors=with_vectors
        )
        return found[0]

    async def search_many(
        self,
        queries: Sequence[str],
        *,
        limit: int = 10,
        where: Filter | None = None,
        min_score: float | None = None,
        with_vectors: bool = False,
    ) -> list[list[Hit]]:
        """:meth:`search` for several queries, which are embedded together; one list for each."""
        _check_search(limit, where, min_score)
        _check_several(queries, what="queries")
        for query in queries:
            _check_query(query)
        if self._backend is None:
            raise InvalidInput(
                "this handle has no backend to embed with: pass backend=, or use search_vector()"
            )
        if not queries:
            return []
        slot = await self._for_searching()
        vectors = await self._embedded_queries(list(queries), slot)
        found = await self._nearest(
            slot, vectors, limit=limit, where=where, with_vectors=with_vectors
        )
        return [_at_least(min_score, hits) for hits in found]

    async def _embedded_queries(self, queries: list[str], slot: SlotRecord) -> Matrix:
        assert self._backend is not None  # noqa: S101  search has refused a handle without one
        return (await self._proofs.embed(self._backend, "queries", queries, slot))[0]

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
    ) -> list[Hit]:
        """:meth:`search` with a query's vector, shape ``(dimensions,)``, made elsewhere.

        ``space`` says what the vector is and must be this handle's.
        """
        _check_search(limit, where, min_score)
        self._require_same(space)
        checked = as_vector(vector, self._space)
        slot = await self._for_searching(allow_filling=allow_filling)
        found = await self._nearest(
            slot, checked[np.newaxis, :], limit=limit, where=where, with_vectors=with_vectors
        )
        return _at_least(min_score, found[0])

    def _require_same(self, space: EmbeddingSpace) -> None:
        if check_space(space) != self._space:
            raise SpaceMismatch(
                f"the vectors are said to be of {space}; this handle is for {self._space}: open the "
                "collection with the vectors' space",
                stored=self._space,
                offered=space,
                differences=differences(self._space, space),
            )


def checked_matrix(vectors: object, space: EmbeddingSpace, count: int) -> Matrix:
    """Vectors for a slot's rows, shape ``(count, dimensions)``; or :class:`InvalidInput`."""
    return as_matrix(vectors, check_space(space), count=count)


def check_pending(rows: object) -> None:
    """:class:`InvalidInput` unless ``rows`` are what ``pending`` and its like return."""
    listed = rows if isinstance(rows, Sequence) and not isinstance(rows, str) else [rows]
    for row in listed:
        if not isinstance(row, VersionedRow):
            raise InvalidInput(
                f"rows has {excerpt(row)}; pass rows that pending(), filled(), sample() or stale() "
                "returned"
            )


async def read_drawn_async(
    store: AsyncVectorStore, space: EmbeddingSpace, ids: Sequence[str], where: Filter | None
) -> list[VersionedRow]:
    """The rows that were drawn and still have a vector, in that order: the first are a sample too."""
    rows: list[VersionedRow] = []
    for start in range(0, len(ids), DRAWN_PER_READ):
        among = id_in(ids[start : start + DRAWN_PER_READ], where)
        # One more, or a cursor behind the last row is asked for, which a stranger's may not give.
        rows += (await store.filled(space, limit=DRAWN_PER_READ + 1, where=among))[0]
    place = {id: number for number, id in enumerate(ids)}
    return sorted(rows, key=lambda row: place[row.document.id])


def check_ids(ids: Sequence[str]) -> None:
    """:class:`InvalidInput` unless ``ids`` are strings that a store can be asked for.

    Any length will do: tables that others made have ids that ours may not be.
    """
    _check_several(ids, what="ids")
    for id in ids:
        check_storable(id, what="id")


def _check_several(values: object, *, what: str) -> None:
    if isinstance(values, str) or not isinstance(values, Collection):
        raise InvalidInput(f"{what} is {excerpt(values)}; pass a list of strings")


def check_selectors(ids: Sequence[str] | None, where: Filter | None, parent: str | None) -> None:
    """:class:`InvalidInput` if nothing selects, or something is no selector."""
    if ids is None and where is None and parent is None:
        raise InvalidInput(
            "nothing says what to delete: pass ids=, where= or parent= "
            "(all documents are where=samespace.everything)"
        )
    check_filter(where)
    if ids is not None:
        check_ids(ids)
    if parent is not None:
        check_storable(parent, what="parent")


def check_limit(limit: object, *, most: int = MAX_LIMIT, what: str = "limit") -> None:
    """:class:`InvalidInput` unless ``limit`` is a whole number from 1 to ``most``."""
    if type(limit) is not int or not 1 <= limit <= most:
        raise InvalidInput(f"{what} is {excerpt(limit)}; pass a whole number from 1 to {most}")


def check_shard(shard: Shard | None) -> None:
    """:class:`InvalidInput` unless ``shard`` is ``(i, n)`` with ``0 <= i < n``."""
    if shard is None:
        return
    pair = isinstance(shard, Sequence) and [type(number) for number in shard] == [int, int]
    if not pair or not 0 <= shard[0] < shard[1]:
        raise InvalidInput(f"shard is {excerpt(shard)}; pass (i, n) with 0 <= i < n")


def check_page(
    limit: object,
    after: str | None,
    shard: Shard | None,
    where: Filter | None,
    with_vectors_of: EmbeddingSpace | None,
) -> None:
    """:class:`InvalidInput` unless these are arguments of ``pending``."""
    check_limit(limit)
    check_cursor(after)
    check_shard(shard)
    check_filter(where)
    if with_vectors_of is not None:
        check_space(with_vectors_of)


def check_state(state: str) -> SlotState:
    """The slot's state that ``state`` names, or :class:`InvalidInput`."""
    if state not in tuple(SlotState):
        raise InvalidInput(f"state is {excerpt(state)}; choose one of {', '.join(SlotState)}")
    return SlotState(state)


def check_provenance(entries: object) -> Mapping[str, str]:
    """Entries for a slot's provenance, or :class:`InvalidInput` unless both sides are texts."""
    if entries is None:
        return {}
    if not isinstance(entries, Mapping):
        raise InvalidInput(f"provenance is {excerpt(entries)}; pass {{name: text}}")
    for name, value in entries.items():
        for text in (name, value):
            if not isinstance(text, str):
                raise InvalidInput(f"provenance has {excerpt(text)}; pass {{name: text}}")
            check_storable(text, what="provenance")
    return entries


def check_space(space: object) -> EmbeddingSpace:
    """``space``, or :class:`InvalidInput` if it is none."""
    if not isinstance(space, EmbeddingSpace):
        raise InvalidInput(f"space is {excerpt(space)}; pass an EmbeddingSpace")
    return space


def check_other(space: object, other: object, *, what: str) -> None:
    """:class:`InvalidInput` unless these are two spaces; None is no other one."""
    if other is not None and check_space(other) == check_space(space):
        raise InvalidInput(
            f"{what} is the space itself, {excerpt(str(space))}; pass another slot's"
        )


def check_fit(canary: Canary | None, space: EmbeddingSpace) -> None:
    """:class:`InvalidInput` unless a canary for the slot of ``space`` has its dimensions."""
    if canary is not None and not canary.fits(space):
        raise InvalidInput(
            f"the canary has {canary.documents.shape[1]} dimensions, {space} has {space.dimensions}; "
            "make it with the backend of this space"
        )


def check_cursor(cursor: str | None) -> None:
    """:class:`InvalidInput` unless ``cursor`` can be what an earlier call returned."""
    if cursor is not None:
        check_storable(cursor, what="the cursor")


def check_changes(
    changes: Mapping[str, Metadata] | Metadata, where: Filter | None
) -> dict[str, bytes]:
    """Metadata changes as JSON by id; a patch for all that pass ``where`` under the id ``""``."""
    check_filter(where)
    if not isinstance(changes, Mapping):
        raise InvalidInput(f"changes is {excerpt(changes)}; pass {{id: metadata}}")
    if where is not None:
        return {"": encode_metadata(dict(changes))}
    check_ids(list(changes))
    for id, metadata in changes.items():
        if not isinstance(metadata, Mapping):
            raise InvalidInput(
                f"changes[{excerpt(id)}] is {excerpt(metadata)}; pass {{id: metadata}}, "
                "or where= for one patch"
            )
    return {id: encode_metadata(dict(metadata)) for id, metadata in changes.items()}


def _agreed_space(space: EmbeddingSpace | None, backend: AnyBackend | None) -> EmbeddingSpace:
    if space is None and backend is None:
        raise InvalidInput("pass backend=, or space= for a handle that brings its own vectors")
    if backend is None:
        return check_space(space)
    offered = backend.space
    if space is not None and space != offered:
        raise SpaceMismatch(
            f"space= says {space} and the backend makes {offered}; leave space= out",
            stored=space,
            offered=offered,
            differences=differences(space, offered),
        )
    return offered


def _distinct(space: EmbeddingSpace, mirrors: Sequence[AnyBackend | None]) -> list[AnyBackend]:
    """The mirrors, each of a space of its own; :class:`InvalidInput` otherwise."""
    seen = {space}
    found = []
    for mirror in mirrors:
        if mirror is None or mirror.space in seen:
            raise InvalidInput(
                "mirrors names a space twice, or this handle's own; pass one backend for each "
                "further slot"
            )
        seen.add(mirror.space)
        found.append(mirror)
    return found


def _with_mirrored(row: Row, space: EmbeddingSpace, made: Mapping[str, Vector]) -> Row:
    vector = made.get(row.document.id)
    return row if vector is None else replace(row, mirrored={**row.mirrored, space: vector})


def _check_options(on_conflict: object, on_error: object) -> None:
    for name, value, choices in (
        ("on_conflict", on_conflict, get_args(OnConflict)),
        ("on_error", on_error, get_args(OnError)),
    ):
        if value not in choices:
            raise InvalidInput(f"{name} is {excerpt(value)}; choose one of {', '.join(choices)}")


def _check_search(limit: object, where: object, min_score: Any) -> None:
    check_limit(limit)
    check_filter(where)
    if min_score is None:
        return
    number = isinstance(min_score, int | float | np.floating) and not isinstance(min_score, bool)
    if not number or not abs(min_score) <= 1:
        raise InvalidInput(f"min_score is {excerpt(min_score)}; pass a cosine from -1 to 1")


def _check_iterable(values: object, *, what: str) -> None:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InvalidInput(f"{what} is {excerpt(values)}; pass a list, or any iterable")


def _check_query(query: object) -> None:
    if not isinstance(query, str) or not query.strip():
        raise InvalidInput(f"query is {excerpt(query)}; pass a text that is not blank")
    check_document(Document(id="query", text=query))


def _at_least(min_score: float | None, hits: list[Hit]) -> list[Hit]:
    return hits if min_score is None else [hit for hit in hits if hit.score >= min_score]


def _id_of(document: object) -> str:
    id = getattr(document, "id", None)
    return id if isinstance(id, str) else excerpt(document)


def _zipped(
    documents: Iterable[Document], vectors: Iterable[Vector | None] | Matrix
) -> Iterator[tuple[Document, Any]]:
    """Pairs; :class:`InvalidInput` where one side ends before the other."""
    absent = _Absent()
    others = iter(vectors)
    for place, document in enumerate(documents):
        vector = next(others, absent)
        if isinstance(vector, _Absent):
            raise InvalidInput(f"vectors ends after {place}, documents go on; pass one for each")
        yield document, vector
    if next(others, absent) is not absent:
        raise InvalidInput("vectors goes on after the last document; pass one for each")


class _Absent:
    """Stands for no vector at all, which None does not."""

    __slots__ = ()


def _batches(
    pairs: Iterable[tuple[Document, Any]],
) -> Iterator[tuple[list[tuple[Document, Any]], bool]]:
    """Lists of at most 1,000 documents and about 16 MiB of text, each with whether more follow."""
    rest = iter(pairs)
    following = next(rest, None)
    while following is not None:
        batch: list[tuple[Document, Any]] = []
        size = 0
        while following is not None and len(batch) < BATCH_DOCUMENTS and size < BATCH_BYTES:
            batch.append(following)
            size += _size(following[0])
            following = next(rest, None)
        yield batch, following is not None


def _size(document: object) -> int:
    text = getattr(document, "text", "")
    return len(text) if isinstance(text, str) else 0


def _met(id: str, batch: _Batch, on_conflict: OnConflict) -> None:
    """A document whose id is taken."""
    if on_conflict == "skip":
        batch.skipped += 1
    else:
        batch.rejected.append(
            Rejected(
                id,
                DocumentExists(
                    f"id {excerpt(id)} is stored already, or belongs to another collection of this "
                    'table; choose another id, or on_conflict="overwrite"'
                ),
            )
        )


def _leave_out(stored: set[str], batch: _Batch, on_conflict: OnConflict) -> None:
    for row in batch.rows:
        if row.document.id in stored:
            _met(row.document.id, batch, on_conflict)
    batch.rows = [row for row in batch.rows if row.document.id not in stored]


def _reject(batch: _Batch, indices: set[int], error: EmbeddingError) -> None:
    """Take out the rows that an embedding error names; all of them if it names none of ours."""
    ours = {i for i in indices if 0 <= i < len(batch.rows)}
    if not ours:
        raise error
    refused = [batch.rows[i].document.id for i in sorted(ours)]
    batch.rejected += [Rejected(id, error) for id in refused]
    batch.rows = [row for i, row in enumerate(batch.rows) if i not in ours]
    for id in refused:
        if before := batch.earlier.get(id):
            batch.rows.append(before.pop())
