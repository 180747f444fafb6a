"""A repair: rows get the vectors that their texts have, unless somebody writes them meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final

import numpy as np

from samespace.audit.auditing import backend_of, prove
from samespace.audit.remaking import Chunks, Remade, check_can_embed_chunks, is_late, remade
from samespace.audit.report import NAMED, AuditReport
from samespace.audit.rows import Rows, may_be_unit
from samespace.audit.verdicts import AGREEMENT, Verdict, judge
from samespace.documents import Document, VersionedRow
from samespace.embedding import close_async
from samespace.errors import InvalidInput, excerpt
from samespace.ingest.embedder import Embedder
from samespace.ingest.running import served
from samespace.ingest.target import AnyStore, unique
from samespace.ingest.worker import GRACE, in_a_thread
from samespace.names import check_id
from samespace.protocols import AnyBackend, Vector
from samespace.vectors import stack

BATCH_SIZE: Final = 200
ROUNDS: Final = 20
"""How often a row is looked at again that somebody else writes at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairReport:
    """What a repair did.

    ``asked`` counts the rows that it was given, ``repaired`` those that it wrote and that are right now (with
    ``dry_run``: that would be), ``right`` those that it had no need to write: right already, or made so by
    another repair at the same time. ``deleted`` are ids that are
    not there any more; ``refused`` are those that cannot be embedded, each with the reason; ``unsettled``
    are those that somebody else wrote each time, to be repaired again. ``unreachable`` are rows that are
    there and that their ids do not lead to, like one of two points with one id, which is named by the
    point's: nothing was written, and ``store.delete(ids=[…])`` takes it away. Where several rows have an id
    that leads to none of them alone, it is unreachable too, and ``shared`` has it with what the store calls
    these rows: that takes the store's own client, for ``store.delete`` takes them all.
    ``looked_again`` counts the writes that were not done since the row was no longer what had been read.
    """

    asked: int = 0
    repaired: int = 0
    right: int = 0
    looked_again: int = 0
    deleted: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    unsettled: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()
    shared: tuple[tuple[str, tuple[str, ...]], ...] = ()
    tokens: int = 0
    embedded: int = 0
    dry_run: bool = False
    complete: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether no row is left to be repaired."""
        return self.complete and not (self.refused or self.unsettled or self.unreachable)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "asked": self.asked,
            "repaired": self.repaired,
            "right": self.right,
            "looked_again": self.looked_again,
            "deleted": list(self.deleted),
            "refused": [{"id": id, "error": reason} for id, reason in self.refused],
            "unsettled": list(self.unsettled),
            "unreachable": list(self.unreachable),
            "shared": [{"id": id, "points": list(points)} for id, points in self.shared],
            "tokens": self.tokens,
            "embedded": self.embedded,
            "dry_run": self.dry_run,
            "complete": self.complete,
        }


class RepairJob:
    """Embeds the texts of certain rows again, and writes the vectors of those that are not right.

    ``rows`` is an :class:`~samespace.audit.AuditReport`, whose foreign and stale rows are meant, or any
    iterable of ids; with ``pending`` also all rows that the store counts as pending, with ``stale`` those
    whose text changed behind their vector. ``backend`` must be of
    the handle's space, and is the store's unless given. Each write is conditional on the row being what was
    read: a row that somebody else writes meanwhile is looked at again, and a row that is deleted stays so.
    What was written is read again, and compared. A vector is right from the handle's ``canary_threshold``
    on, and never below what an audit calls foreign. With ``dry_run`` nothing is written. A second run finds
    everything right. ``on_progress`` is called with the report so far after each batch, in the job's thread.

    Chunks that were embedded together are so again, of the document as it is now.
    """

    def __init__(
        self,
        store: AnyStore,
        rows: AuditReport | Iterable[str] = (),
        *,
        backend: AnyBackend | None = None,
        pending: bool = False,
        stale: bool = False,
        dry_run: bool = False,
        on_progress: Callable[[RepairReport], object] | None = None,
    ) -> None:
        self._store, self._ids = store, _ids_of(rows, store)
        self._backend = backend_of(store, backend)
        self._pending, self._stale, self._dry_run = pending, stale, dry_run
        self._on_progress = on_progress
        self._report = RepairReport(dry_run=dry_run)

    @property
    def report(self) -> RepairReport:
        """What has been done so far; also while it is running, and after an error."""
        return self._report

    def run(self) -> RepairReport:
        """Repair in a loop and a thread of its own, as an ingestion job runs.

        An async store is closed in the end, in the loop that it was used in, and so is an async backend.
        """
        return served(lambda _: self._run(closing=self._store.is_async))

    async def run_async(self) -> RepairReport:
        """:meth:`run` in the caller's loop; it closes nothing."""
        return await self._run(closing=False)

    async def _run(self, *, closing: bool) -> RepairReport:
        with ExitStack() as threads:
            writing = threads.enter_context(in_a_thread("write"))
            embedding = threads.enter_context(in_a_thread("embed", grace=GRACE))
            rows = Rows(self._store, writing)
            repair = _Repair(
                rows, self._backend, Embedder(self._backend, [embedding]), self._dry_run
            )
            try:
                await repair.begin()
                for ids in _parts(self._ids):
                    self._tell(await repair.of(ids))
                for ids in _parts(sorted(repair.stale) if self._stale else ()):
                    self._tell(await repair.of(ids))
                if self._pending:
                    await self._all_pending(repair, rows)
                self._tell(replace(repair.report, complete=True))
            finally:
                if closing and rows.is_open:
                    await rows.close()
                    await close_async(self._backend)
        return self._report

    async def _all_pending(self, repair: _Repair, rows: Rows) -> None:
        async for listed in rows.pending():
            for ids in _parts(listed):
                self._tell(await repair.of(ids, listed=True))
        if not self._dry_run:
            self._tell(await repair.look_back())

    def _tell(self, report: RepairReport) -> None:
        self._report = report
        if self._on_progress is not None:
            self._on_progress(report)


def repair(store: AnyStore, rows: AuditReport | Iterable[str] = (), **options: Any) -> RepairReport:
    """What a :class:`RepairJob` of these rows with these options does."""
    return RepairJob(store, rows, **options).run()


def _ids_of(rows: AuditReport | Iterable[str], store: AnyStore) -> Iterable[str]:
    if not isinstance(rows, AuditReport):
        if isinstance(rows, str) or not isinstance(rows, Iterable):
            raise InvalidInput(f"rows is {excerpt(rows)}; pass an AuditReport, or a list of ids")
        return rows
    if (rows.collection, rows.space) != (store.collection, store.space):
        raise InvalidInput(
            f"the report is of collection {excerpt(rows.collection)} and {rows.space}, this handle of "
            f"{excerpt(store.collection)} and {store.space}; open the store as it was audited"
        )
    named = rows.ids()
    counted = rows.foreign + rows.stale + rows.counts[Verdict.DUPLICATE]
    if counted > len(named):
        raise InvalidInput(
            f"the report names {len(named):,} of {counted:,} rows (at most {NAMED:,}); "
            "audit with a checkpoint and repair what it has found (--checkpoint)"
        )
    return named


def _parts(ids: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(ids)
    while part := unique(islice(remaining, BATCH_SIZE)):
        for id in part:
            check_id(id)
        yield part


@dataclass(slots=True)
class _Batch:
    """Rows that are not right yet, and what was embedded for them so far, by all that it depends on."""

    left: set[str]
    made: dict[tuple[str, ...], Vector] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    attempted: dict[str, tuple[str, ...]] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    filled: int = 0
    repaired: set[str] = field(default_factory=set)
    """Those that were attempted and are right now, whoever wrote them."""


class _Repair:
    """One run."""

    def __init__(self, rows: Rows, backend: AnyBackend, embedder: Embedder, dry_run: bool) -> None:
        self._rows, self._backend, self._embedder = rows, backend, embedder
        self._dry_run = dry_run
        self._is_late = False
        self._may_be_unit = False
        self.stale: set[str] = set()
        self._not_needed: set[str] = set()
        self.report = RepairReport(dry_run=dry_run)

    async def begin(self) -> None:
        """Look at the collection, and prove the backend: what writes must be right itself."""
        info = await self._rows.info()
        slot = self._rows.slot(info)
        self._is_late = is_late(slot.provenance)
        self._may_be_unit = may_be_unit(slot)
        if self._is_late:
            check_can_embed_chunks(self._backend, info.name)
        least = self._rows.canary_threshold
        await prove(self._backend, slot, info=info, threshold=least)
        self.stale = await self._rows.stale()

    async def of(self, ids: Sequence[str], *, listed: bool = False) -> RepairReport:
        """Repair these rows: look, write, and look again until all are right.

        ``listed`` says that the store has just named them as pending.
        """
        batch = _Batch(left=set(ids))
        for _ in range(ROUNDS):
            wrong = await self._wrong(batch)
            if not wrong or self._dry_run:
                batch.repaired |= {row.document.id for row, _ in wrong}
                batch.left -= batch.repaired
                break
            await self._write(wrong, batch)
        deleted = self._count(ids, batch, await self._rows.present(sorted(batch.left)))
        if listed:
            right = set(ids) - batch.left - batch.repaired - batch.refused.keys()
            self._not_needed |= right | deleted
        return self.report

    async def look_back(self) -> RepairReport:
        """Rows that are pending still, and seemed to be right or gone, are none that their id leads to."""
        if self._not_needed:
            left = [id async for ids in self._rows.pending() for id in ids]
            unreachable = sorted(self._not_needed.intersection(left))
            deleted = [id for id in self.report.deleted if id not in unreachable]
            right = len(unreachable) - (len(self.report.deleted) - len(deleted))
            self.report = replace(
                self.report,
                right=self.report.right - right,
                deleted=tuple(deleted),
                unreachable=(*self.report.unreachable, *unreachable),
            )
        return self.report

    async def _wrong(self, batch: _Batch) -> list[tuple[VersionedRow, Vector]]:
        """The rows that are not right, each with the vector that it should have; others leave the batch."""
        rows = await self._read(batch)
        chunks = await self._chunks([row.document for row in rows])
        vectors = await self._vectors([row.document for row in rows], chunks, batch)
        wrong = []
        for row in rows:
            own, id = vectors.get(row.document.id), row.document.id
            if own is not None and self._is_wrong(row, own, batch):
                wrong.append((row, own))
                batch.attempted[id] = _key(row.document, chunks)
                continue
            batch.left.discard(id)
            if own is not None and batch.attempted.get(id) == _key(row.document, chunks):
                batch.repaired.add(id)
        return wrong

    async def _read(self, batch: _Batch) -> list[VersionedRow]:
        """Those with a vector as they are, and those that are pending, without one."""
        ids = sorted(batch.left)
        filled, pending = await self._rows.of(ids), await self._rows.pending_of(ids)
        self._rows.see([*filled, *pending])
        found = {_place(row): row for row in filled}
        found |= {_place(row): replace(row, vector=None) for row in pending}
        with_it = Counter(id for id, _ in found)
        batch.seen = {id for id, count in with_it.items() if count == 1}
        return [row for (id, _), row in found.items() if id in batch.seen]

    async def _chunks(self, rows: Sequence[Document]) -> Chunks:
        if not self._is_late:
            return {}
        parents = unique(row.parent.id for row in rows if row.parent is not None)
        return await self._rows.chunks_of(parents)

    async def _vectors(
        self, rows: Sequence[Document], chunks: Chunks, batch: _Batch
    ) -> dict[str, Vector]:
        """The vectors that these rows have now; what was embedded in an earlier round is not again."""
        keys = {row.id: _key(row, chunks) for row in rows}
        new = [row for row in rows if keys[row.id] not in batch.made]
        if new:
            made = await remade(self._embedder, new, chunks)
            self._note(made, new, keys, batch)
        return {row.id: batch.made[keys[row.id]] for row in rows if keys[row.id] in batch.made}

    def _note(
        self,
        made: Remade,
        rows: Sequence[Document],
        keys: dict[str, tuple[str, ...]],
        batch: _Batch,
    ) -> None:
        batch.made |= {keys[row.id]: made.vectors[row.id] for row in rows if row.id in made.vectors}
        batch.refused |= {row.id: made.refused[row.id] for row in rows if row.id in made.refused}
        self.report = replace(self.report, embedded=self.report.embedded + made.embedded)

    def _is_wrong(self, row: VersionedRow, own: Vector, batch: _Batch) -> bool:
        if row.vector is None:
            return True
        if row.document.id in self.stale and row.document.id not in batch.written:
            return True
        # as near as an honest backend comes, and near enough for the audit that looks again
        right = max(self._rows.canary_threshold, AGREEMENT)
        found = judge(
            row.document.id, row.vector, own, self._rows.space,
            threshold=right, may_be_unit=self._may_be_unit,
        )  # fmt: skip
        return found.verdict is not Verdict.AGREES

    async def _write(self, wrong: Sequence[tuple[VersionedRow, Vector]], batch: _Batch) -> None:
        vectors = stack([vector for _, vector in wrong], self._rows.space.dimensions)
        done = await self._rows.fill([row for row, _ in wrong], np.asarray(vectors, np.float32))
        batch.filled += done.filled
        if not done.changed:
            batch.written |= {row.document.id for row, _ in wrong}
        self.report = replace(self.report, looked_again=self.report.looked_again + done.changed)

    def _count(self, ids: Sequence[str], batch: _Batch, there: set[str]) -> set[str]:
        """Add what became of these rows; the ids that are not there."""
        left, report = batch.left, self.report
        twins = self._rows.twins.keys()
        deleted = left - there - batch.seen - twins
        unreachable = left & ((there ^ batch.seen) | twins)
        settled = len(set(ids) - left - batch.refused.keys())
        repaired = len(batch.repaired) if self._dry_run else min(len(batch.repaired), batch.filled)
        self.report = replace(
            report,
            asked=report.asked + len(ids),
            repaired=report.repaired + repaired,
            right=report.right + settled - repaired,
            deleted=(*report.deleted, *sorted(deleted)),
            refused=(*report.refused, *sorted(batch.refused.items())),
            unsettled=(*report.unsettled, *sorted(left - deleted - unreachable)),
            unreachable=(*report.unreachable, *sorted(unreachable)),
            shared=(*report.shared, *self._shared(unreachable)),
            tokens=self._embedder.spent,
        )
        return deleted

    def _shared(self, ids: set[str]) -> list[tuple[str, tuple[str, ...]]]:
        shared = sorted(ids.intersection(self._rows.shared))
        return [(id, self._rows.called(id)) for id in shared]


def _place(row: VersionedRow) -> tuple[str, str]:
    """What tells a row from others: a row with a vector may be pending too, with another version."""
    return (row.document.id, row.key or row.native_id)


def _key(row: Document, chunks: Chunks) -> tuple[str, ...]:
    """All that a row's vector is made from, and its place there."""
    together = chunks.get(row.parent.id, ()) if row.parent is not None else ()
    return (row.id, row.embedded_text, *(chunk.embedded_text for chunk in together))
