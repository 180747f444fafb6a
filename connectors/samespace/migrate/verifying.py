"""Verifying a migration: is everything in the target's slot, and is it what it must be?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Literal

import samespace
from samespace.audit.checking import canary_cosines
from samespace.audit.remaking import check_can_embed_chunks, is_late
from samespace.documents import CollectionInfo, Document, SlotInfo
from samespace.embedding import close_async, require_any, uncached
from samespace.errors import InvalidInput, MigrationError, excerpt
from samespace.filters import Filter, of_json
from samespace.guard import check_threshold
from samespace.ingest.arguments import check_count
from samespace.ingest.embedder import Embedder
from samespace.ingest.running import served
from samespace.ingest.target import AnyStore, unique
from samespace.ingest.worker import GRACE, Worker, in_a_thread
from samespace.migrate import evidence
from samespace.migrate.asking import Clock, Slot, Turns
from samespace.migrate.comparing import BY_BOTH, MOST_ASKED, Compared, compared
from samespace.migrate.evidence import AGREEMENT
from samespace.migrate.plan import MigrationPlan, PlannedCollection
from samespace.migrate.ranking import Judgement
from samespace.migrate.reading import Finished, Rows
from samespace.migrate.sampling import Sampling
from samespace.migrate.sweeping import PATIENCE, Sweeping
from samespace.migrate.verification import (
    Check,
    CheckName,
    Verification,
    VerifiedCollection,
    slot_id,
)
from samespace.migrate.walking import RUN, typed
from samespace.protocols import AnyBackend

SAMPLED: Final = 500
"""How many rows are looked at unless said: if none differs, at most 0.6 % of all do."""
MOST_SAMPLED: Final = 10_000
REPETITIONS: Final = 3
MOST_REPETITIONS: Final = 100
_BY_MODEL: Final[tuple[CheckName, ...]] = ("sample", "truncated")
Tell = Callable[[str, CheckName], object]


def verify(
    stores: AnyStore | Iterable[AnyStore],
    backend: AnyBackend,
    plan: MigrationPlan,
    *,
    queries: Sequence[str] | None = None,
    judgements: Sequence[Judgement] | None = None,
    thresholds: Sequence[float] = (),
    sample: int | Literal["all"] = SAMPLED,
    repetitions: int = REPETITIONS,
    agreement: float = AGREEMENT,
    give_up_textless: bool = False,
    patience: float = PATIENCE,
    made_at: str | None = None,
    on_progress: Tell | None = None,
    clock: Clock = time.perf_counter,
) -> Verification:
    """The evidence that each collection of a plan holds in the target's slot what it must.

    ``stores`` is a handle on each, opened with the space to move from; a handle's own backend embeds the
    questions to the old slot, and what cannot be told without one is named. ``backend`` is the target's.
    Looked at are all rows (pending, stale), the canary, ``sample`` vectors drawn at random or ``"all"``, made
    anew (cosine of at least ``agreement``), whether these texts find themselves, and how both slots rank
    ``queries``, by default the first sentences of these texts: overlap, ranks, nDCG with ``judgements``,
    and how long a search takes by ``clock``, each question ``repetitions`` times. For each of
    ``thresholds``, which are scores of the old space, the new one is found that as many hits pass.

    A row without a text, and with a vector of the source, fails it unless ``give_up_textless`` says that
    :func:`finish` is to give that vector up. Rows that are pending or stale are looked at again for
    ``patience`` seconds, within which a run that follows comes to them.

    ``made_at`` goes into the result as it is. ``on_progress`` is called with a collection and the check that
    begins, in the job's thread. Nothing is written; an async store is closed in the end, with async backends.

    A collection that the plan is finished in is left out, unless that is all of them.

    :class:`~samespace.errors.InvalidInput` for what cannot be, :class:`~samespace.errors.SpaceMismatch` for a
    backend of another space, :class:`~samespace.errors.MigrationError` where a collection is not as
    planned, or nothing has been run.
    """
    asked = _Asked(
        backend=_of_target(backend, plan),
        plan=plan,
        queries=_texts(queries),
        judgements=tuple(judgements or ()),
        thresholds=tuple(map(_threshold, thresholds)),
        sample=None if sample == "all" else _sample(sample),
        repetitions=check_count(repetitions, what="repetitions", most=MOST_REPETITIONS),
        agreement=check_threshold(agreement, what="agreement (--agreement)"),
        give_up_textless=give_up_textless,
        patience=patience,
        made_at=made_at,
        tell=on_progress or _nobody,
        clock=clock,
    )
    listed: Iterable[AnyStore] = stores if isinstance(stores, Iterable) else [stores]
    return served(lambda worker: _verified(listed, asked, worker))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    backend: AnyBackend
    plan: MigrationPlan
    queries: tuple[str, ...] | None
    judgements: tuple[Judgement, ...]
    thresholds: tuple[float, ...]
    sample: int | None
    repetitions: int
    agreement: float
    give_up_textless: bool
    patience: float
    made_at: str | None
    tell: Tell
    clock: Clock


def _nobody(_collection: str, _check: CheckName) -> None:
    """Hears of the progress where nobody wants to."""


def _of_target(backend: AnyBackend | None, plan: MigrationPlan) -> AnyBackend:
    found = require_any(backend)
    if found is None:
        raise InvalidInput("there is no backend to verify with: pass one of the target's space")
    for each in plan.collections:
        each.check_target(found.space)
    return found


def _texts(queries: Sequence[str] | None) -> tuple[str, ...] | None:
    if queries is None:
        return None
    for text in queries:
        if not isinstance(text, str):
            raise InvalidInput(f"a query is {excerpt(text)}; pass strings")
    found = unique(text for text in queries if text.strip())
    if not found:
        raise InvalidInput("queries has no text (--queries); leave it out, or pass some")
    return tuple(found)


def _sample(size: object) -> int:
    return check_count(size, what="sample (--sample)", most=MOST_SAMPLED, or_else=", or 'all'")


def _threshold(score: Any) -> float:
    is_number = isinstance(score, int | float) and not isinstance(score, bool)
    if not is_number or not -1 <= score <= 1:
        raise InvalidInput(
            f"threshold (--threshold) is {excerpt(score)}; pass a score from -1 to 1"
        )
    return float(score)


async def _verified(stores: Iterable[AnyStore], asked: _Asked, worker: Worker) -> Verification:
    found: dict[str, VerifiedCollection | Finished] = {}
    remaining = iter(stores)
    while (store := await worker.do(lambda: next(remaining, None))) is not None:
        planned = asked.plan.of(store.collection)
        found[planned.name] = await _unless_finished(store, planned, asked)
    missing = [each.name for each in asked.plan.collections if each.name not in found]
    if missing:
        raise InvalidInput(
            f"the plan is for {', '.join(map(excerpt, missing))}, too; pass a handle on each collection"
        )
    return Verification(
        plan=asked.plan.hash,
        version=samespace.__version__,
        collections=_verifiable([found[each.name] for each in asked.plan.collections]),
        made_at=asked.made_at,
    )


async def _unless_finished(
    store: AnyStore, planned: PlannedCollection, asked: _Asked
) -> VerifiedCollection | Finished:
    try:
        return await _looked_at(store, planned, asked)
    except Finished as refusal:
        return refusal


def _verifiable(found: Sequence[VerifiedCollection | Finished]) -> tuple[VerifiedCollection, ...]:
    """What was looked at; :class:`Finished` if that is nothing."""
    finished = [each for each in found if isinstance(each, Finished)]
    if finished and len(finished) == len(found):
        raise finished[0]
    return tuple(each for each in found if not isinstance(each, Finished))


async def _looked_at(
    store: AnyStore, planned: PlannedCollection, asked: _Asked
) -> VerifiedCollection:
    if store.space != planned.source.space:
        raise InvalidInput(
            f"the handle of collection {excerpt(planned.name)} is for {store.space}, and the plan moves from "
            f"{planned.source.space}; open it with that space"
        )
    with ExitStack() as held:
        look = _Look(store, planned, asked, held)
        try:
            return await look.run()
        finally:
            if store.is_async and look.is_open:
                await look.close()


class _Look:
    """A look at one collection."""

    def __init__(
        self, store: AnyStore, planned: PlannedCollection, asked: _Asked, held: ExitStack
    ) -> None:
        self._store, self._planned, self._asked = store, planned, asked
        self._where: Filter | None = None if planned.where is None else of_json(planned.where)
        self._reading = held.enter_context(in_a_thread("verify", grace=GRACE))
        self._embedding = held.enter_context(in_a_thread("embed", grace=GRACE))
        self._rows = Rows(store, self._reading)
        self._old_backend = None if store.backend is None else uncached(store.backend)
        self._backend = uncached(asked.backend)  # a cache would vouch for what it was filled with
        self._checks: list[Check] = []
        self._compared = Compared()
        self._embedders: list[Embedder] = []

    @property
    def is_open(self) -> bool:
        """Whether there is something to close."""
        return self._rows.is_open

    async def close(self) -> None:
        """Close what was used in this loop."""
        await self._rows.close()
        for each in (self._asked.backend, self._store.backend):
            if each is not None:
                await close_async(each)

    async def run(self) -> VerifiedCollection:
        """Look from what is free to what costs, and in the end again at rows that others were writing."""
        info = await self._rows.planned_info(self._asked.plan, self._planned)
        slot = self._slot(info)
        rows = await self._count(info)
        embedder = self._embedder(self._backend)
        target = Slot(self._store.in_space(slot.space), self._reading, embedder, self._where)
        sweeping = await self._sweep(target)
        if await self._is_proved(slot):
            drawn = await target.sample(self._asked.sample or MOST_ASKED, self._where)
            filled = max(rows - sweeping.pending.count - sweeping.pending.blank, 0)
            await self._make_anew(target, embedder, slot, drawn, filled)
            await self._ask_both(info, target, drawn)
        else:
            why = "the backend is not what filled the slot, so that its answers would say nothing"
            self._checks += evidence.unjudged((*_BY_MODEL, *BY_BOTH), why)
        await sweeping.look_again(self._asked.patience)
        gives_up = self._asked.give_up_textless
        pending = evidence.pending(sweeping.pending, rows, give_up_textless=gives_up)
        stale = evidence.stale(sweeping.stale, is_told=_tells_sources(slot, info))
        return self._found(slot, rows, [pending, stale, *self._checks])

    def _found(self, slot: SlotInfo, rows: int, checks: Sequence[Check]) -> VerifiedCollection:
        return VerifiedCollection(
            name=self._planned.name,
            source=self._planned.source.space,
            target=self._planned.target.space,
            rows=rows,
            checks=tuple(checks),
            thresholds=self._compared.thresholds,
            curve=self._compared.curve,
            examples=self._compared.examples,
            tokens=sum(each.spent for each in self._embedders),
            slot=slot_id(slot),
        )

    async def _sweep(self, target: Slot) -> Sweeping:
        source = Slot(self._store, self._reading, None, self._where)
        sweeping = Sweeping(self._rows, source, target, self._where)
        self._begin("pending")
        await sweeping.look_for_pending()
        self._begin("stale")
        await sweeping.look_for_stale()
        return sweeping

    def _slot(self, info: CollectionInfo) -> SlotInfo:
        target = self._planned.target.space
        found = next((slot for slot in info.slots if slot.space == target), None)
        if found is None:
            raise MigrationError(
                f"collection {excerpt(info.name)} has no slot of {target}, so there is nothing to verify; "
                f"run the migration first: {typed(RUN, target)}"
            )
        if is_late(found.provenance):
            check_can_embed_chunks(self._backend, info.name)
        return found

    async def _count(self, info: CollectionInfo) -> int:
        return info.rows if self._where is None else await self._rows.count(self._where)

    def _embedder(self, backend: AnyBackend) -> Embedder:
        self._embedders.append(Embedder(backend, [self._embedding]))
        return self._embedders[-1]

    def _begin(self, check: CheckName) -> None:
        self._asked.tell(self._planned.name, check)

    # By the model

    async def _is_proved(self, slot: SlotInfo) -> bool:
        self._begin("canary")
        least = self._store.canary_threshold
        cosines = await canary_cosines(slot, self._backend)
        self._checks.append(evidence.canary(cosines, least))
        return evidence.agree(cosines, least)

    async def _make_anew(
        self,
        target: Slot,
        embedder: Embedder,
        slot: SlotInfo,
        drawn: Sequence[Document],
        filled: int,
    ) -> None:
        self._begin("sample")
        sampling = Sampling(
            target,
            embedder,
            slot,
            is_late=is_late(slot.provenance),
            agreement=self._asked.agreement,
        )
        if self._asked.sample is None:
            found = await sampling.run_through(target)
        else:
            found = await sampling.run(drawn)
        there_are_more = found.drawn == self._asked.sample
        self._checks.append(evidence.sample(found, filled if there_are_more else found.drawn))
        self._checks.append(evidence.truncated(found))

    # By questions

    async def _ask_both(
        self, info: CollectionInfo, target: Slot, drawn: Sequence[Document]
    ) -> None:
        if self._planned.source.space == target.space:
            self._checks += evidence.unjudged(BY_BOTH, "the collection was in this space before")
            return
        why_not = await self._why_not_asked(info)
        backend = None if why_not else self._old_backend
        embedder = None if backend is None else self._embedder(backend)
        source = Slot(self._store, self._reading, embedder, self._where)
        asked = self._asked
        self._compared = await compared(
            source,
            target,
            drawn[:MOST_ASKED],
            queries=asked.queries,
            judgements=asked.judgements,
            thresholds=asked.thresholds,
            why_not=why_not,
            turns=Turns(source, target, repetitions=asked.repetitions, clock=asked.clock),
            begin=self._begin,
        )
        self._checks += self._compared.checks

    async def _why_not_asked(self, info: CollectionInfo) -> str:
        """Why no backend can ask the old slot; empty if one can."""
        if self._old_backend is None:
            return "there is no backend of the source to embed questions with (--old-backend)"
        slot = next(each for each in info.slots if each.space == self._planned.source.space)
        cosines = await canary_cosines(slot, self._old_backend)
        if evidence.agree(cosines, self._store.canary_threshold):
            return ""
        return "the source's backend embeds known texts otherwise than what filled the old slot"


def _tells_sources(slot: SlotInfo, info: CollectionInfo) -> bool:
    """Whether a slot keeps what its vectors were made from: one of ours does, of texts that are there."""
    has_text = info.layout is None or isinstance(info.layout.text, str)
    return slot.name == slot.space.id and has_text
