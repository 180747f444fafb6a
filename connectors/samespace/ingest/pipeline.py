"""One run of a job: three stages beside one another, and what holds them together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal

from samespace.documents import Document, WriteReport
from samespace.embedding import close_async, count_tokens_async
from samespace.errors import CollectionNotFound, InvalidInput, SamespaceError, excerpt
from samespace.filters import Filter
from samespace.ingest.checkpoint import Checkpoint, CheckpointFile, Job, Watermark
from samespace.ingest.chunking import Chunker
from samespace.ingest.clock import StageClock
from samespace.ingest.embedder import Embedder, Made
from samespace.ingest.pieces import Batch, Plan, asked_for, compared
from samespace.ingest.report import STAGES, Estimate, IngestReport, Stage
from samespace.ingest.seen import SeenIds
from samespace.ingest.source import Items, Reader
from samespace.ingest.target import AnyStore, Target, unique
from samespace.ingest.worker import GRACE, Left, Worker, in_a_thread
from samespace.protocols import AnyBackend, CountsTokens, TakesCallsAtOnce, Vector

IN_FLIGHT: Final = 4
"""How many batches are at most between the source and the store's acknowledgement."""
LAST_ROWS: Final = 10
"""Of how many rows a checkpoint says that they are in the store."""
LATE: Final = {"late_chunking": "by document"}
"""What a collection records of chunks that were embedded in sight of one another."""


@dataclass(frozen=True, slots=True)
class Prune:
    """Which rows are deleted where the source no longer brings them."""

    where: Filter
    only: Callable[[Document], bool] = lambda _: True


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a job was asked for, checked."""

    store: AnyStore
    backend: AnyBackend
    items: Items
    chunker: Chunker | None
    together: bool
    checkpoint: CheckpointFile | None
    batch_size: int
    prune: Prune | None
    budget: int | None
    tell: Callable[[IngestReport], object]

    @property
    def marks(self) -> Path | None:
        """Where seen ids are marked; None for a temporary place."""
        path = self.checkpoint.path if self.checkpoint else None
        return path.with_name(f"{path.name}.seen") if path else None

    @property
    def chunking(self) -> str:
        """How documents are cut and embedded, for people and for a checkpoint."""
        if self.chunker is None:
            return "none"
        kind = type(self.chunker)
        said = repr(self.chunker) if kind.__repr__ is not object.__repr__ else kind.__qualname__
        return f"{said}, late" if self.together else said

    @property
    def calls_at_once(self) -> int:
        """How many batches are embedded beside one another; with a budget each is waited for."""
        if self.budget is not None or not isinstance(self.backend, TakesCallsAtOnce):
            return 1
        return max(1, min(self.backend.calls_at_once, IN_FLIGHT - 1))


@dataclass(frozen=True, slots=True)
class _End:
    """Nothing follows, since the source has ended or for another reason."""

    stopped: Literal["", "budget"] = ""
    error: Exception | None = None


@asynccontextmanager
async def open_pipeline(
    settings: Settings, reading: Worker, *, closing: bool = False
) -> AsyncIterator[Pipeline]:
    """A pipeline with its threads, which have ended afterwards.

    ``closing`` closes the store too, and an async backend.
    """
    with ExitStack() as threads:
        embedding = [
            threads.enter_context(in_a_thread("embed", grace=GRACE))
            for _ in range(settings.calls_at_once)
        ]
        comparing = threads.enter_context(in_a_thread("compare", grace=GRACE))  # it changes nothing
        writing = threads.enter_context(in_a_thread("write"))
        pipeline = Pipeline(settings, reading, embedding, comparing, writing)
        try:
            yield pipeline
        finally:
            if closing and pipeline.comparing.is_open:
                await pipeline.target.close()
                await close_async(settings.backend)


class Pipeline:
    """Reads, embeds and writes batches, and knows how far it is."""

    def __init__(
        self,
        settings: Settings,
        reading: Worker,
        embedding: Sequence[Worker],
        comparing: Worker,
        writing: Worker,
    ) -> None:
        self.settings = settings
        self.reading, self.writing = reading, writing
        self.reader = Reader(settings.items.units(settings.chunker), batch_size=settings.batch_size)
        self.target = Target(settings.store, writing)
        self.comparing = Target(settings.store, comparing)
        self.proving = Target(settings.store, embedding[0])
        self.embedder = Embedder(settings.backend, embedding)
        self._job: Job | None = None
        self._seen: SeenIds | None = None
        self._is_proved = self._is_there = self._has_failed = False
        self._done = Watermark(0)
        self._rows: tuple[str, ...] = ()
        self._room = asyncio.Semaphore(IN_FLIGHT)
        self._in_flight: list[Batch] = []
        self._to_embed: asyncio.Queue[tuple[Batch, Plan] | _End] = asyncio.Queue()
        self._to_write: asyncio.Queue[tuple[Batch, Plan, asyncio.Task[Made]] | _End]
        self._to_write = asyncio.Queue()
        self._calls = asyncio.Semaphore(len(embedding))
        self._making: set[asyncio.Task[Made]] = set()
        self._clocks = {stage: StageClock() for stage in STAGES}
        self._began = time.monotonic()
        self._tally = IngestReport()

    # The run

    async def run(self) -> None:
        """From where the checkpoint says to the source's end, or to what ends it before."""
        try:
            with ExitStack() as files:
                await self._begin(files)
                async with self.target.bulk(resumed=self._tally.resumed_at > 0):
                    end = await self._staged()
                await self._finish(end)
        except (asyncio.CancelledError, Left):
            self._tally = replace(self._tally, stopped="cancelled")
            raise
        except Exception as error:
            self._tally = replace(self._tally, stopped="error")
            if isinstance(error, SamespaceError):
                error.report = self.report().write
            raise

    async def _begin(self, files: ExitStack) -> None:
        """Go to where an earlier run of the same job ended."""
        settings = self.settings
        recorded = await self._recorded()
        if settings.checkpoint is not None:
            files.enter_context(settings.checkpoint.held())
        reached = await self._reached(exists=recorded is not None)
        position, self._rows = reached.position, reached.rows
        if settings.prune is not None:
            self._seen = files.enter_context(SeenIds(settings.marks))
            if not position:
                self._seen.clear()
        self._tally = replace(self._tally, resumed_at=position, rejected_before=reached.rejected)
        self._save(position)
        await self.reading.do(lambda: self.reader.skip(position))
        self._done = Watermark(position)

    async def _recorded(self) -> Mapping[str, str] | None:
        """What the collection says of itself, which must be how this job embeds."""
        recorded = await self.comparing.provenance()
        self._is_there = recorded is not None
        if recorded is None or ("late_chunking" in recorded) == self.settings.together:
            return recorded
        named = excerpt(self.settings.store.collection)
        raise InvalidInput(
            f"collection {named} does not say that its chunks are embedded together: let the job "
            f"create it, or pass provenance={LATE} to create(); or leave late_chunking out"
            if self.settings.together
            else f"the chunks of collection {named} are embedded together: pass late_chunking=True, "
            "or another collection"
        )

    async def _reached(self, *, exists: bool) -> Checkpoint:
        """What the checkpoint says, if the rows and the marks that go with it are there."""
        settings = self.settings
        self._job = job = Job(
            source=settings.items.identity,
            version=await self.reading.do(settings.items.version),
            collection=settings.store.collection,
            space=settings.store.space.id,
            chunking=settings.chunking,
        )
        if settings.checkpoint is None:
            return Checkpoint(job=job)
        found = settings.checkpoint.load(job, seen=settings.prune is not None)
        marked = settings.marks is not None and settings.marks.exists()
        is_whole = exists and (settings.prune is None or marked)
        return found if is_whole and await self._has(found.rows) else Checkpoint(job=job)

    async def _has(self, rows: Sequence[str]) -> bool:
        """Whether the store is the one that these rows were written to, as far as that shows."""
        stored = await self.comparing.with_vectors(rows)
        return stored is not None and stored.keys() >= set(rows)

    async def _staged(self) -> _End:
        """All three stages, until the last one has ended."""
        stages = [asyncio.create_task(self._read()), asyncio.create_task(self._embed())]
        try:
            end = await self._write()
            if end.error is not None:
                raise end.error
            return end
        finally:
            for task in (*stages, *self._making):
                task.cancel()
            await asyncio.gather(*stages, *self._making, return_exceptions=True)

    async def _finish(self, end: _End) -> None:
        if end.stopped:
            self._tally = replace(self._tally, stopped=end.stopped)
            return
        if self.settings.prune is not None and self._seen is not None:
            await self._remove_unseen(self.settings.prune, self._seen)
        if self.settings.checkpoint is not None:
            self.settings.checkpoint.remove()
            if self._seen is not None:
                self._seen.remove()
        self._tally = replace(self._tally, complete=True)

    async def _remove_unseen(self, prune: Prune, seen: SeenIds) -> None:
        """Delete what the source no longer has, if that can be told."""
        if seen.keeps_all:
            self._tally = replace(self._tally, prune_withheld=True)
            return
        async for gone in self._unseen(prune, seen):
            pruned = await self.target.delete(ids=gone, where=prune.where)
            self._tally = replace(self._tally, pruned=self._tally.pruned + pruned)

    async def _unseen(self, prune: Prune, seen: SeenIds) -> AsyncIterator[list[str]]:
        """The ids of rows that the source could have and did not bring, in lists."""
        async for rows in self.comparing.scan(prune.where):
            gone = await self.writing.do(partial(_gone, rows, prune, seen))
            if gone:
                yield gone

    # The stages

    async def _read(self) -> None:
        try:
            while True:
                await self._room.acquire()
                with self._busy("read"):
                    batch = await self.reading.do(self.reader.batch)
                if batch is None:
                    break
                with self._busy("compare"):
                    plan = await self.compare(batch)
                self._in_flight.append(batch)
                self._to_embed.put_nowait((batch, plan))
            self._to_embed.put_nowait(_End())
        except Exception as error:  # noqa: BLE001  raised where the stages come together
            self._to_embed.put_nowait(_End(error=error))

    async def compare(self, batch: Batch) -> Plan:
        """What is to be done for a batch, by what is stored."""
        ids = asked_for(batch.units, together=self.settings.together)
        # Before the store is asked: what is acknowledged meanwhile may not be in what it answers.
        moving = {key for other in self._in_flight for key in other.keys}
        was_there = self._is_there
        stored = await self.comparing.with_vectors(ids)
        if stored is None and was_there:
            raise self._gone()
        self._is_there |= stored is not None and bool(ids)
        return compared(batch.units, stored or {}, moving=moving, together=self.settings.together)

    def _gone(self) -> CollectionNotFound:
        named = excerpt(self.settings.store.collection)
        return CollectionNotFound(
            f"collection {named} was dropped while the job was running; run the job again to fill it "
            "from the beginning"
        )

    async def _embed(self) -> None:
        try:
            while not isinstance(asked := await self._to_embed.get(), _End):
                batch, plan = asked
                await self._calls.acquire()
                if self._has_failed:  # which is raised when its turn comes
                    return
                if plan.to_embed and self._is_spent:
                    asked = _End("budget")
                    break
                with self._busy("embed"):
                    await self._prove(plan)
                self._to_write.put_nowait((batch, plan, self._begun(plan)))
            self._to_write.put_nowait(asked)
        except Exception as error:  # noqa: BLE001  raised where the stages come together
            self._to_write.put_nowait(_End(error=error))

    @property
    def _is_spent(self) -> bool:
        budget = self.settings.budget
        return budget is not None and self.embedder.spent >= budget

    async def _prove(self, plan: Plan) -> None:
        """Before anything is embedded, the guard has seen the backend."""
        if self._is_proved or not plan.to_embed:
            return
        if self.settings.together and not self._is_there:
            await self.proving.create(LATE)
            self._is_there = True
        await self.proving.prove()
        self._is_proved = True

    def _begun(self, plan: Plan) -> asyncio.Task[Made]:
        task = asyncio.create_task(self._made(plan))
        self._making.add(task)
        task.add_done_callback(self._making.discard)
        return task

    async def _made(self, plan: Plan) -> Made:
        try:
            with self._busy("embed"):
                return await self.embedder.embed(plan)
        except Exception:
            self._has_failed = True
            raise
        finally:
            self._calls.release()

    async def _write(self) -> _End:
        """Batches in their order, whichever was embedded first."""
        while not isinstance(asked := await self._to_write.get(), _End):
            batch, plan, making = asked
            made = await making
            with self._busy("write"):
                await self._store(batch, plan, made)
            self._room.release()
            self.settings.tell(self.report())
        return asked

    async def _store(self, batch: Batch, plan: Plan, made: Made) -> None:
        """Write a batch, then what it makes old, then how far the job is."""
        before = len(self._tally.write.rejected)
        self._tally = replace(self._tally, embedded=self._tally.embedded + made.embedded)
        made.withhold(batch.units, plan)
        # A changed text comes last: until it is stored, its document is known to be unfinished.
        lost = await self._written([row for row in made.rows if row[0].id in plan.old])
        lost += await self._written([row for row in made.rows if row[0].id not in plan.old])
        lost += self._counted(await self.target.change(plan.metadata))
        refused = made.refused | batch.parents_of(lost)
        parents = [parent for parent in batch.parents if parent not in refused]
        removed = await self.target.delete_others(parents, batch.ids)
        rejected = (*batch.rejected, *made.rejected)
        self._count(
            WriteReport(skipped=plan.unchanged, rejected=rejected, truncated=tuple(made.truncated))
        )
        self._tally = replace(self._tally, removed=self._tally.removed + removed)
        left_out = refused | {item.id for item in self._tally.write.rejected[before:]}
        self._rows = _last_rows(batch, left_out) or self._rows
        await self.writing.do(lambda: self._acknowledge(batch, refused))
        self._in_flight.remove(batch)
        self.embedder.forget(made.texts)

    async def _written(self, rows: list[tuple[Document, Vector]]) -> list[str]:
        """Write rows; the ids of those that the store refuses."""
        try:
            report = await self.target.write(rows)
        except SamespaceError as error:
            self._count(error.report or WriteReport())
            raise
        self._is_there |= report.written > 0
        return self._counted(report)

    def _counted(self, report: WriteReport) -> list[str]:
        self._count(report)
        return [item.id for item in report.rejected]

    def _acknowledge(self, batch: Batch, refused: Iterable[str]) -> None:
        """The marks first: a checkpoint says that they are there. What is refused stays whole."""
        self._mark(batch, refused)
        self._save(self._done.done(batch.first, batch.stop))

    def _mark(self, batch: Batch, refused: Iterable[str] = ()) -> None:
        if self._seen is not None:
            self._seen.mark(batch.ids, kept=(*batch.kept, *refused))

    def _save(self, position: int) -> None:
        if self.settings.checkpoint is None or self._job is None:
            return
        reached = Checkpoint(
            job=self._job,
            position=position,
            seen=self._seen is not None,
            rows=self._rows,
            rejected=self._tally.rejected_before + len(self._tally.write.rejected),
        )
        self.settings.checkpoint.save(reached)

    # What comes of it

    def report(self) -> IngestReport:
        """What was done so far."""
        return replace(
            self._tally,
            documents=self._done.position - self._tally.resumed_at,
            write=replace(self._tally.write, tokens=self.embedder.spent),
            seconds={stage: clock.seconds for stage, clock in self._clocks.items()},
            wall=time.monotonic() - self._began,
        )

    def _count(self, report: WriteReport) -> None:
        self._tally = replace(self._tally, write=self._tally.write + report)

    def _busy(self, stage: Stage) -> AbstractContextManager[None]:
        return self._clocks[stage].running()

    async def estimate(self) -> Estimate:
        """What a run would do."""
        recorded = await self._recorded()
        position = (await self._reached(exists=recorded is not None)).position
        with ExitStack() as files:
            if self.settings.prune is not None:
                self._seen = files.enter_context(SeenIds(None))
            total = await self._compared_from(position)
            return await self._with_pruned(total)

    async def _compared_from(self, position: int) -> Estimate:
        """What would be stored; what the source brings is marked."""
        await self.reading.do(lambda: self.reader.skip(position, passed=self._mark))
        total = Estimate(resumed_at=position)
        while (batch := await self.reading.do(self.reader.batch)) is not None:
            await self.writing.do(partial(self._mark, batch))
            total = await _added(total, batch, await self.compare(batch), self.settings.backend)
        return total

    async def _with_pruned(self, total: Estimate) -> Estimate:
        """How many rows have left the source too, if that can be told."""
        prune, seen = self.settings.prune, self._seen
        if prune is None or seen is None:
            return total
        if seen.keeps_all:
            return replace(total, prune_withheld=True)
        return replace(total, pruned=sum([len(gone) async for gone in self._unseen(prune, seen)]))


def _gone(rows: Iterable[Document], prune: Prune, seen: SeenIds) -> list[str]:
    return seen.unseen([(row.id, _names(row)) for row in rows if prune.only(row)])


def _last_rows(batch: Batch, refused: Collection[str]) -> tuple[str, ...]:
    """A few of the rows that a batch has in the store."""
    parents = {piece.id: piece.parent.id for piece in batch.documents() if piece.parent}
    ids = [piece.id for piece in batch.documents()]
    stored = [id for id in ids if id not in refused and parents.get(id) not in refused]
    return tuple(stored[-LAST_ROWS:])


def _names(row: Document) -> list[str]:
    """Names that a row belongs to: itself, its parent, its file."""
    source = row.metadata.get("source")
    parents = [row.parent.id] if row.parent else []
    return [row.id, *parents, *([source] if isinstance(source, str) else [])]


async def _added(total: Estimate, batch: Batch, plan: Plan, backend: AnyBackend) -> Estimate:
    new = unique(piece.embedded_text for piece in plan.embed)
    new += [piece.embedded_text for pieces in plan.together for piece in pieces]
    tokens: int | None = None
    if isinstance(backend, CountsTokens):
        tokens = (total.tokens or 0) + (sum(await count_tokens_async(backend, new)) if new else 0)
    return replace(
        total,
        documents=total.documents + len(batch.units),
        pieces=total.pieces + batch.pieces,
        unchanged=total.unchanged + plan.unchanged,
        to_embed=total.to_embed + len(new),
        characters=total.characters + sum(map(len, new)),
        tokens=tokens,
        rejected=total.rejected + len(batch.rejected),
    )
