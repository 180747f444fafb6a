"""An audit: are the vectors of a collection those that its texts have?"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from samespace.audit.notes import AuditFile, Notes, Subject, taking_notes
from samespace.audit.outliers import LEAST, SAMPLE, Centre, centre_of
from samespace.audit.remaking import Remade, check_can_embed_chunks, is_late, remade
from samespace.audit.report import NAMED, AuditReport, FreeFindings
from samespace.audit.rows import Rows, may_be_unit
from samespace.audit.verdicts import (
    AGREEMENT,
    AS_QUERIES,
    Finding,
    Verdict,
    bin_of,
    cosine_of,
    edges_of,
    judge,
)
from samespace.audit.witnesses import latest, unchanged, witnesses_of
from samespace.documents import CollectionInfo, Document, SlotInfo, VersionedRow
from samespace.embedding import (
    close_async,
    embed_documents_async,
    require_any,
    uncached,
)
from samespace.errors import EmbeddingError, InvalidInput, SpaceMismatch, excerpt
from samespace.guard import CANARY_TEXTS, Canary, SlotRecord, check_canary, check_threshold
from samespace.ingest.arguments import check_count
from samespace.ingest.embedder import Embedder
from samespace.ingest.running import served
from samespace.ingest.target import AnyStore, unique
from samespace.ingest.worker import GRACE, Worker, in_a_thread
from samespace.names import is_unstorable
from samespace.protocols import AnyBackend, ReportsUsage, TakesCallsAtOnce, Vector
from samespace.space import differences
from samespace.survey import scope_options

BATCH_SIZE: Final = 200
"""How many rows are embedded and judged together."""
SAMPLED: Final = 500
"""How many rows are looked at unless said: 5 foreign ones among them say 0.3 % to 2.3 %."""
MOST_SAMPLED: Final = 10_000
MOST_IN_BATCH: Final = 1_000
_UNREMARKABLE: Final = (Verdict.AGREES, Verdict.UNSUSPECTED)
POINTS: Final = 10
"""How many of the rows that share an id a finding names."""
MOST_AT_ONCE: Final = 3
"""How many batches are at most being embedded."""


class AuditJob:
    """Embeds the texts of rows again, and compares with the vectors that are stored. It writes nothing.

    ``backend`` must be of the handle's space, and is the store's unless given. ``sample`` rows are drawn at
    random, which bounds the share of foreign vectors at 95 %; with None or ``"all"`` every row is looked
    at. A vector whose cosine with the new one is below ``threshold`` is foreign; where the text has changed
    behind the vector it is stale instead. ``candidates`` are backends of spaces that foreign vectors may be
    of: each is asked for the foreign rows' texts, until it fails. Chunks that were embedded together are so
    again. ``only="free"`` calls no model and names the vectors that are out of place among the others.

    With a ``checkpoint`` an audit that has ended, however, goes on from there when it is run again, and
    ``CHECKPOINT.found`` has a line for each row that does not agree; both stay when it is complete, and
    the next run begins anew. What was being embedded when it ended is embedded again: a batch, or at most
    three of a backend that takes several calls at once. A checkpoint is refused where ``place``, a name of
    where the store is, was another, and where most of the rows that it has seen last are not what they
    were. ``budget_tokens`` ends the audit before a batch once this run has spent so many. ``on_progress`` is
    called with the report so far after each batch, and before the first of an audit that goes on, in
    the job's thread.

    :class:`InvalidInput` for what cannot be, :class:`SpaceMismatch` for a backend of another space.
    """

    def __init__(
        self,
        store: AnyStore,
        *,
        backend: AnyBackend | None = None,
        sample: int | Literal["all"] | None = SAMPLED,
        candidates: Sequence[AnyBackend] = (),
        threshold: float = AGREEMENT,
        only: Literal["free"] | None = None,
        checkpoint: str | Path | None = None,
        place: str = "",
        batch_size: int = BATCH_SIZE,
        budget_tokens: int | None = None,
        on_progress: Callable[[AuditReport], object] | None = None,
    ) -> None:
        _check_options(only, threshold, batch_size, budget_tokens)
        model = None if only else backend_of(store, backend)
        if only and candidates:
            raise InvalidInput(
                'only="free" asks no model, so that candidates would not be asked; leave one of them out'
            )
        if budget_tokens is not None and not isinstance(model, ReportsUsage):
            raise InvalidInput(
                "budget_tokens would end nothing: no backend here says what its calls cost; leave it out"
            )
        for candidate in candidates:
            require_any(candidate)
        self._on_progress = on_progress
        self._asked = _Asked(
            store=store,
            backend=model,
            sample=_sample(sample),
            candidates=tuple(map(uncached, candidates)) if model is not None else (),
            threshold=float(threshold),
            checkpoint=_file(checkpoint),
            place=place,
            batch_size=batch_size,
            budget=budget_tokens,
            tell=self._tell,
        )
        self._report = AuditReport(collection=store.collection, space=store.space, population=0)

    @property
    def report(self) -> AuditReport:
        """What has been found so far; also while it is running, and after an error."""
        return self._report

    def run(self) -> AuditReport:
        """Audit in a loop and a thread of its own, as an ingestion job runs.

        An async store is closed in the end, in the loop that it was used in, and so are async backends.
        What interrupts this thread, Ctrl-C among others, ends it with a valid checkpoint.
        """
        return served(lambda _: self._run(closing=self._asked.store.is_async))

    async def run_async(self) -> AuditReport:
        """:meth:`run` in the caller's loop; it closes nothing."""
        return await self._run(closing=False)

    async def _run(self, *, closing: bool) -> AuditReport:
        self._report = await _run(self._asked, closing=closing)
        return self._report

    def _tell(self, report: AuditReport) -> None:
        self._report = report
        if self._on_progress is not None:
            self._on_progress(report)


def audit(store: AnyStore, **options: Any) -> AuditReport:
    """What an :class:`AuditJob` of this store with these options finds."""
    return AuditJob(store, **options).run()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What an audit was asked for, checked. ``sample`` is None for all rows, ``backend`` for no model."""

    store: AnyStore
    backend: AnyBackend | None
    sample: int | None
    candidates: tuple[AnyBackend, ...]
    threshold: float
    checkpoint: AuditFile | None
    place: str
    batch_size: int
    budget: int | None
    tell: Callable[[AuditReport], object]

    @property
    def at_once(self) -> int:
        """How many batches are embedded beside one another; with a budget each is waited for."""
        if self.budget is not None or self.backend is None:
            return 1
        return _calls_at_once(self.backend)

    @property
    def subject(self) -> Subject:
        """What tells this audit from others."""
        spaces = [str(candidate.space) for candidate in self.candidates]
        return Subject(
            collection=self.store.collection,
            space=self.store.space.id,
            rows="all" if self.sample is None else f"a sample of {self.sample}",
            judged_by="no model" if self.backend is None else ", ".join(["its model", *spaces]),
            threshold=self.threshold,
            place=self.place,
        )


def _calls_at_once(backend: AnyBackend) -> int:
    if not isinstance(backend, TakesCallsAtOnce):
        return 1
    return max(1, min(backend.calls_at_once, MOST_AT_ONCE))


def _check_options(only: object, threshold: object, batch_size: object, budget: object) -> None:
    if only not in {None, "free"}:
        raise InvalidInput(
            f'only is {excerpt(only)}; pass "free" to call no model, or leave it out'
        )
    check_threshold(threshold, what="threshold")
    check_count(batch_size, what="batch_size", most=MOST_IN_BATCH)
    if budget is not None:
        check_count(budget, what="budget_tokens")


def _sample(sample: object) -> int | None:
    if sample is None or sample == "all":
        return None
    every = ', or "all" for every row'
    return check_count(sample, what="sample", most=MOST_SAMPLED, or_else=every)


def _file(checkpoint: object) -> AuditFile | None:
    if checkpoint is None:
        return None
    if not isinstance(checkpoint, str | Path) or is_unstorable(str(checkpoint)):
        raise InvalidInput(f"checkpoint is {excerpt(checkpoint)}; pass the path of a file")
    return AuditFile(Path(checkpoint))


def backend_of(store: AnyStore, backend: AnyBackend | None) -> AnyBackend:
    """The backend to embed with, which is of the store's space."""
    chosen = require_any(store.backend if backend is None else backend)
    if chosen is None:
        raise InvalidInput(
            "there is no backend to embed with: pass backend=, or open the store with one"
        )
    if chosen.space != store.space:
        raise SpaceMismatch(
            f"the backend embeds as {chosen.space}, and this handle of collection "
            f"{excerpt(store.collection)} is for {store.space}: every row would look foreign; pass a "
            "backend of that space",
            stored=store.space,
            offered=chosen.space,
            differences=differences(store.space, chosen.space),
        )
    return uncached(chosen)  # a cache would vouch for what it was filled with


async def prove(
    backend: AnyBackend, slot: SlotInfo, *, info: CollectionInfo, threshold: float
) -> None:
    """:class:`SpaceMismatch` for a backend that embeds otherwise than what filled the slot."""
    if slot.canary is None:
        return
    answers, _ = await embed_documents_async(backend, CANARY_TEXTS)
    record = SlotRecord(name=slot.name, space=slot.space, canary=slot.canary)
    scope = scope_options(info.layout.scope) if info.layout is not None else ()
    check_canary(
        record, "documents", answers, collection=info.name, threshold=threshold, scope=scope
    )


@dataclass(frozen=True, slots=True)
class _Page:
    """Rows to judge together, and where to go on after them."""

    rows: list[Document]
    chunks: dict[str, list[Document]]
    gone: list[str]
    after: str | None
    twins: list[str] = field(default_factory=list)
    """Rows that have another row's id, of which no more is known."""


@dataclass(slots=True)
class _Judged:
    """What was found of a page."""

    after: str | None
    findings: list[Finding] = field(default_factory=list)
    embedded: int = 0
    witnesses: dict[str, str] = field(default_factory=dict)


async def _run(asked: _Asked, *, closing: bool) -> AuditReport:
    with ExitStack() as held:
        notes = held.enter_context(taking_notes(asked.checkpoint, asked.subject))
        reading = held.enter_context(in_a_thread("read", grace=GRACE))
        rows = Rows(asked.store, reading)
        try:
            with _embedders(asked) as embedders:
                return await _Audit(asked, rows, notes, embedders).run()
        finally:
            if closing and rows.is_open:
                await rows.close()
                for each in (asked.backend, *asked.candidates):
                    if each is not None:
                        await close_async(each)


@contextmanager
def _embedders(asked: _Asked) -> Iterator[list[Embedder]]:
    """The backend's, and one for each candidate."""
    with ExitStack() as threads:

        def workers(count: int) -> list[Worker]:
            return [threads.enter_context(in_a_thread("embed", grace=GRACE)) for _ in range(count)]

        backends = [] if asked.backend is None else [asked.backend, *asked.candidates]
        yield [Embedder(each, workers(asked.at_once)) for each in backends]


class _Audit:
    """One run."""

    def __init__(
        self, asked: _Asked, rows: Rows, notes: Notes, embedders: Sequence[Embedder]
    ) -> None:
        self._asked, self._rows, self._notes = asked, rows, notes
        self._embedders = embedders
        self._progress = notes.progress
        self._is_late = False
        self._may_be_unit = False
        self._drawn: dict[str, Document] = {}
        self._embedded = 0
        self._unasked: dict[str, str] = {}
        self._report = AuditReport(
            collection=asked.store.collection,
            space=asked.store.space,
            population=0,
            threshold=asked.threshold,
            resumed_at=self._progress.tally.looked_at,
        )

    async def run(self) -> AuditReport:
        """Judge page by page, each noted before the next but one is waited for."""
        await self._begin()
        judging: deque[asyncio.Task[_Judged]] = deque()
        stopped: Literal["", "budget"] = ""
        try:
            async for page in self._pages():
                while len(judging) >= self._asked.at_once:
                    self._settle(await judging.popleft())
                if self._is_spent:
                    stopped = "budget"
                    break
                judging.append(asyncio.create_task(self._judged(page)))
            while judging:
                self._settle(await judging.popleft())
        finally:
            for task in judging:
                task.cancel()
            await asyncio.gather(*judging, return_exceptions=True)
        if not stopped:
            await self._finish()
        return self._told(complete=not stopped, stopped=stopped)

    # The beginning

    async def _begin(self) -> None:
        info = await self._rows.info()
        slot = self._rows.slot(info)
        self._is_late = is_late(slot.provenance)
        self._may_be_unit = may_be_unit(slot)
        if self._asked.backend is not None and self._is_late:
            check_can_embed_chunks(self._asked.backend, info.name)
        if self._asked.backend is not None:
            least = self._asked.store.canary_threshold
            await prove(self._asked.backend, slot, info=info, threshold=least)
        if not self._progress.tally.looked_at:
            await self._draw(info, slot)
        self._report = replace(self._report, pending=slot.pending)
        if self._report.resumed_at:
            await self._check_witnesses()
            self._asked.tell(self._told())

    async def _draw(self, info: CollectionInfo, slot: SlotInfo) -> None:
        """Which rows are looked at, and where the centre of all is."""
        size = self._asked.sample
        wanted = min(MOST_SAMPLED, max(size or 0, SAMPLE))
        drawn = await self._rows.sample(wanted)
        random.SystemRandom().shuffle(drawn)  # a store may return them in the order of their keys
        self._progress.centre = self._centre(drawn[:SAMPLE], slot.canary)
        there_are_more = len(drawn) == wanted
        self._progress.population = (
            await self._rows.count_filled(info, slot) if there_are_more else len(drawn)
        )
        self._progress.sampled = None
        if size is not None and (there_are_more or len(drawn) > size):
            # A part of a random sample is one.
            self._drawn = {row.id: row for row in drawn[:size]}
            self._progress.sampled = list(self._drawn)
            self._progress.twins = {
                key: id for key, id in self._rows.twins.items() if key in self._drawn
            }
        self._notes.begin()

    def _centre(self, drawn: Sequence[Document], canary: Canary | None) -> Centre | None:
        shape = (self._asked.store.space.dimensions,)
        vectors = [
            row.vector for row in drawn if row.vector is not None and row.vector.shape == shape
        ]
        if len(vectors) < LEAST:
            return None
        return centre_of(
            np.stack(vectors),
            self._asked.store.space,
            known=None if canary is None else canary.documents,
        )

    async def _check_witnesses(self) -> None:
        """:class:`InvalidInput` where the rows that were judged before are not those that are there."""
        seen = self._progress.witnesses
        kept = unchanged(seen, await self._rows.of(list(seen)))
        if 2 * kept < len(seen):
            raise InvalidInput(
                f"of {len(seen)} rows that the checkpoint {excerpt(str(self._notes.path))} has seen in "
                f"collection {excerpt(self._report.collection)}, {kept} are what they were: this is "
                "another collection of that name, or it was written anew; remove the file to begin anew, "
                "or pass another path"
            )

    # Pages

    async def _pages(self) -> AsyncIterator[_Page]:
        pages = self._of_all() if self._progress.sampled is None else self._of_sample()
        async for page in pages:
            yield page

    async def _of_sample(self) -> AsyncIterator[_Page]:
        ids = self._progress.sampled or []
        size, start = self._asked.batch_size, int(self._progress.after or 0)
        for first in range(start, len(ids), size):
            part = ids[first : first + size]
            found = {id: self._drawn.pop(id) for id in part if id in self._drawn}
            if not found:  # it was drawn by an earlier run
                again = await self._rows.of(part)
                self._rows.see(again)
                found = {row.document.id: replace(row.document, vector=row.vector) for row in again}
            rows = list(found.values())
            twins = await self._twins_left([id for id in part if id not in found])
            gone = [id for id in part if id not in found and id not in twins]
            yield _Page(rows, await self._chunks(rows), gone, str(first + len(part)), twins)

    async def _twins_left(self, missing: Sequence[str]) -> list[str]:
        """Those of these rows that are there still, and that an earlier run has drawn as twins."""
        twins = self._progress.twins
        drawn = {key: twins[key] for key in missing if key in twins}
        there = await self._rows.present(list(drawn))
        self._rows.twins |= {key: drawn[key] for key in there}
        return sorted(there)

    async def _of_all(self) -> AsyncIterator[_Page]:
        after = self._progress.after
        while not self._progress.read:
            rows, after = await self._rows.filled(self._asked.batch_size, after)
            chunks = await self._chunks(rows)
            yield _Page(_whole(rows, chunks), _begun(rows, chunks), [], after)
            if after is None:
                return

    async def _chunks(self, rows: Sequence[Document]) -> dict[str, list[Document]]:
        if not self._is_late or self._asked.backend is None:
            return {}
        parents = unique(row.parent.id for row in rows if row.parent is not None)
        return await self._rows.chunks_of(parents)

    # Judging

    async def _judged(self, page: _Page) -> _Judged:
        told = [Finding(id=id, verdict=Verdict.CHANGED, likely="gone") for id in page.gone]
        told += self._twins([*page.twins, *(row.id for row in page.rows)])
        told += [self._shared(row.id) for row in page.rows if row.id in self._rows.shared]
        several = self._rows.twins.keys() | self._rows.shared.keys()
        rows = [row for row in page.rows if row.id not in several]
        suspects = self._suspects(rows)
        if self._asked.backend is None:
            found = [_unmodelled(row.id, suspects) for row in rows]
            return _Judged(page.after, told + found, witnesses=_witnesses(rows, found))
        made = await remade(self._embedders[0], rows, page.chunks)
        found = [replace(self._verdict(row, made), suspect=row.id in suspects) for row in rows]
        foreign = {each.id for each in found if each.verdict is Verdict.FOREIGN}
        changed = await self._changed([row for row in rows if row.id in foreign])
        shared = foreign.intersection(self._rows.shared)
        likely = await self._likely([row for row in rows if row.id in foreign - changed - shared])
        found = [
            self._shared(each.id) if each.id in shared else _restated(each, changed, likely)
            for each in found
        ]
        return _Judged(page.after, told + found, made.embedded, _witnesses(rows, found))

    def _twins(self, ids: Sequence[str]) -> list[Finding]:
        named = ((key, self._rows.twins.get(key)) for key in ids)
        return [
            Finding(
                id=key, verdict=Verdict.DUPLICATE, likely=f"another row has its id {excerpt(id)}"
            )
            for key, id in named
            if id is not None
        ]

    def _shared(self, id: str) -> Finding:
        """Of a row whose id others have, too: none of them can be written by it."""
        points = self._rows.called(id)
        shown = f"{', '.join(points[:POINTS])}{', …' if len(points) > POINTS else ''}"
        return Finding(
            id=id,
            verdict=Verdict.DUPLICATE,
            likely=f"several rows have this id: {shown}",
            points=points[:POINTS],
        )

    def _suspects(self, rows: Sequence[Document]) -> set[str]:
        centre = self._progress.centre
        if centre is None:
            return set()
        return {row.id for row in rows if row.vector is not None and _is_odd(centre, row.vector)}

    def _verdict(self, row: Document, made: Remade) -> Finding:
        own = made.vectors.get(row.id)
        if own is None or row.vector is None:
            reason = made.refused.get(row.id, "")
            return Finding(id=row.id, verdict=Verdict.UNJUDGED, likely=reason)
        space = self._asked.store.space
        return judge(
            row.id, row.vector, own, space,
            threshold=self._asked.threshold, may_be_unit=self._may_be_unit,
        )  # fmt: skip

    async def _changed(self, rows: Sequence[Document]) -> set[str]:
        """Those of these rows that were written since they were read.

        A row that its id does not find stays what it was: somebody else's has no id that a store can ask
        for, and of one that is gone a repair says so.
        """
        ids = [row.id for row in rows]
        now: dict[str, list[VersionedRow]] = {}
        for found in await self._seen(ids):
            now.setdefault(found.document.id, []).append(found)
        return {
            row.id
            for row in rows
            if row.id in now and not any(is_still(row, each) for each in now[row.id])
        }

    async def _seen(self, ids: Sequence[str]) -> list[VersionedRow]:
        """These rows as they are now; that several have one id is noticed."""
        found = await self._rows.of(ids)
        if any(row.native_id for row in found):  # one of them may be without a vector
            self._rows.see([*found, *await self._rows.pending_of(ids)])
        return found

    async def _likely(self, rows: Sequence[Document]) -> dict[str, str]:
        """Which space each of these foreign rows is of, where a candidate agrees."""
        likely = await self._as_queries(rows)
        for candidate, embedder in zip(self._asked.candidates, self._embedders[1:], strict=True):
            left = [row for row in rows if row.id not in likely]
            if not left:
                break
            named = str(candidate.space)
            if named not in self._unasked:
                likely |= dict.fromkeys(await self._made_by(named, embedder, left), named)
        return likely

    async def _made_by(
        self, candidate: str, embedder: Embedder, rows: Sequence[Document]
    ) -> list[str]:
        """The rows whose vectors are a candidate's; one that does not answer is not asked again."""
        try:
            made = await remade(embedder, rows, {})
        except EmbeddingError as error:
            self._unasked[candidate] = str(error)
            return []
        return self._agreeing(rows, made.vectors)

    async def _as_queries(self, rows: Sequence[Document]) -> dict[str, str]:
        backend = self._asked.backend
        if not rows or backend is None or backend.space.query_task == backend.space.task:
            return {}
        texts = unique(row.embedded_text for row in rows if row.embedded_text.strip())
        try:
            vectors = await self._embedders[0].embed_as_queries(texts)
        except EmbeddingError:  # which is no finding
            return {}
        made = {row.id: vectors[row.embedded_text] for row in rows if row.embedded_text in vectors}
        return dict.fromkeys(self._agreeing(rows, made), AS_QUERIES)

    def _agreeing(self, rows: Sequence[Document], vectors: Mapping[str, Vector]) -> list[str]:
        return [
            row.id
            for row in rows
            if row.id in vectors and row.vector is not None
            and (cosine_of(row.vector, vectors[row.id]) or 0) >= self._asked.threshold
        ]  # fmt: skip

    # Noting

    def _settle(self, judged: _Judged) -> None:
        tally, edges = self._progress.tally, edges_of(self._asked.threshold)
        for each in judged.findings:
            tally.counts[each.verdict] += 1
            tally.suspects += each.suspect
            tally.right += each.suspect and each.verdict is Verdict.FOREIGN
            if each.cosine is not None:
                tally.histogram[bin_of(each.cosine, edges)] += 1
        kept = [each for each in judged.findings if each.verdict not in _UNREMARKABLE]
        self._embedded += judged.embedded
        self._progress.read = judged.after is None
        self._progress.witnesses = latest(self._progress.witnesses, judged.witnesses)
        self._notes.note(kept, judged.after)
        self._asked.tell(self._told())

    @property
    def _is_spent(self) -> bool:
        return self._asked.budget is not None and self._spent >= self._asked.budget

    @property
    def _spent(self) -> int:
        return sum(embedder.spent for embedder in self._embedders)

    async def _finish(self) -> None:
        """Tell those whose text changed behind their vector from those that are foreign."""
        stale = await self._stale() if self._progress.tally.counts[Verdict.FOREIGN] else set()
        found: Counter[Verdict] = Counter()
        right = 0

        def restated(finding: Finding) -> Finding:
            nonlocal right
            if finding.verdict is Verdict.FOREIGN and finding.id in stale:
                finding = replace(finding, verdict=Verdict.STALE, likely="")
            found[finding.verdict] += 1
            right += finding.suspect and finding.verdict is Verdict.FOREIGN
            return finding

        self._notes.restate(restated)
        tally = self._progress.tally  # by the file: it may be ahead of the checkpoint
        tally.counts |= {each: found[each] for each in (Verdict.FOREIGN, Verdict.STALE)}
        tally.right = right
        self._notes.complete()

    async def _stale(self) -> set[str]:
        """The foreign rows of which it is known that their vector is of an earlier text.

        A vector without a source is pending, too: nobody knows what it was made from.
        """
        changed = await self._rows.stale()
        foreign = (each.id for each in self._notes.findings if each.verdict is Verdict.FOREIGN)
        named = [id for id in foreign if id in changed]
        unknown = await self._rows.pending_of(named)
        return set(named) - {row.document.id for row in unknown}

    def _told(self, *, complete: bool = False, stopped: Literal["", "budget"] = "") -> AuditReport:
        tally = self._progress.tally
        ended = complete or bool(stopped)
        is_sampled = self._progress.sampled is not None
        return replace(
            self._report,
            population=tally.looked_at
            if complete and not is_sampled
            else self._progress.population,
            sampled=is_sampled,
            counts=dict(tally.counts),
            histogram=tuple(tally.histogram),
            findings=tuple(self._notes.findings.first(NAMED)) if ended else (),
            free=self._free(),
            unasked=dict(self._unasked),
            tokens=self._spent,
            embedded=self._embedded,
            complete=complete,
            stopped=stopped,
        )

    def _free(self) -> FreeFindings | None:
        tally, centre = self._progress.tally, self._progress.centre
        if centre is None:
            return None
        modelled = self._asked.backend is not None
        return FreeFindings(
            looked_at=tally.looked_at - tally.counts[Verdict.CHANGED],
            suspects=tally.suspects,
            sees=centre.sees,
            right=tally.right if modelled else None,
            foreign=tally.counts[Verdict.FOREIGN] if modelled else None,
        )


def _witnesses(rows: Sequence[Document], found: Sequence[Finding]) -> dict[str, str]:
    firm = {each.id for each in found if each.verdict in _UNREMARKABLE}
    return witnesses_of(rows, firm)


def _is_odd(centre: Centre, vector: Vector) -> bool:
    return vector.shape != centre.direction.shape or bool(centre.suspects(vector[np.newaxis])[0])


def is_still(row: Document, found: VersionedRow) -> bool:
    """Whether a row has the text and the vector that it was read with."""
    if found.vector is None or row.vector is None:
        return False
    same_text = found.document.embedded_text == row.embedded_text
    return same_text and np.array_equal(found.vector, row.vector, equal_nan=True)


def _unmodelled(id: str, suspects: set[str]) -> Finding:
    is_suspect = id in suspects
    verdict = Verdict.SUSPECT if is_suspect else Verdict.UNSUSPECTED
    return Finding(id=id, verdict=verdict, suspect=is_suspect)


def _restated(finding: Finding, changed: set[str], likely: dict[str, str]) -> Finding:
    """A finding, now that it was looked at twice."""
    if finding.id in changed:
        return replace(finding, verdict=Verdict.CHANGED, cosine=None, likely="", suspect=False)
    return replace(finding, likely=likely.get(finding.id, finding.likely))


def _begun(
    rows: Sequence[Document], chunks: dict[str, list[Document]]
) -> dict[str, list[Document]]:
    """The documents whose first chunk with a vector is among these rows: each is judged once, whole."""
    here = {row.id for row in rows}
    return {
        parent: each
        for parent, each in chunks.items()
        if next((chunk.id for chunk in each if chunk.vector is not None), None) in here
    }


def _whole(rows: Sequence[Document], chunks: dict[str, list[Document]]) -> list[Document]:
    """The rows to judge: those that belong to no document, and all chunks of those that begin here."""
    alone = [row for row in rows if row.parent is None or row.parent.id not in chunks]
    begun = [chunk for each in _begun(rows, chunks).values() for chunk in each]
    return alone + [chunk for chunk in begun if chunk.vector is not None]
