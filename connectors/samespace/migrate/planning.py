"""Planning a migration: collections are looked at, nothing is written, and no model is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import samespace
from samespace.documents import CollectionInfo, SlotInfo
from samespace.embedding import count_tokens_async, provenance_of_async, require_any, uncached
from samespace.errors import InvalidInput, SpaceUnknown, excerpt
from samespace.filters import Filter, check_filter, to_json
from samespace.forecast import Notice, SlotForecast
from samespace.guard import SlotState
from samespace.ingest.arguments import check_count
from samespace.ingest.pipeline import LATE
from samespace.ingest.running import served
from samespace.ingest.target import AnyStore
from samespace.ingest.worker import GRACE, Worker, in_a_thread
from samespace.legality import legality
from samespace.migrate.advice import Use, advice, check_use
from samespace.migrate.estimating import Estimate, Rates, Sample, estimate, tokens_by_size, total
from samespace.migrate.plan import (
    MigrationPlan,
    Path,
    PlannedCollection,
    PlannedSlot,
    TargetState,
)
from samespace.migrate.reading import Rows
from samespace.migrate.verification import slot_id
from samespace.models import find_model
from samespace.protocols import AnyBackend, CountsTokens, ForecastsSlots, TellsEstimates
from samespace.space import EmbeddingSpace, Verdict, compare

SAMPLED: Final = 200
"""How many texts are sampled for their tokens unless said."""
MOST_SAMPLED: Final = 10_000


def plan(
    stores: AnyStore | Iterable[AnyStore],
    backend: AnyBackend,
    *,
    use: Use = "search",
    where: Filter | None = None,
    rates: Rates | None = None,
    sample: int = SAMPLED,
) -> MigrationPlan:
    """What moving collections to ``backend``'s space takes, and whether it is to be embedded at all.

    ``stores`` is a handle on each collection, opened with the space that it is to move from; an iterable
    is gone through once, and each collection looked at before the next is taken. The cheapest legal path
    is chosen for each: nothing where the space is there, deriving where the vectors follow from
    the stored ones, else embedding. ``where`` pins fields of the rows to move (``field("tenant") == "a"``,
    joined by ``&``). Tokens are those of ``sample`` texts drawn at random from the rows with a vector,
    counted by the backend if it can. Nothing is written and no model is called; an async store is closed
    in the end.

    :class:`InvalidInput` for what cannot be, :class:`SpaceUnknown` for a collection without a record.
    """
    asked = _Asked(
        backend=_required(backend),
        use=check_use(use),
        where=check_filter(where),
        pinned=None if where is None else _pinned(where),
        rates=rates or Rates(),
        sample=check_count(sample, what="sample (--sample)", most=MOST_SAMPLED),
    )
    listed: Iterable[AnyStore] = stores if isinstance(stores, Iterable) else [stores]
    return served(lambda worker: _planned(listed, asked, worker))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    backend: AnyBackend
    use: Use
    where: Filter | None
    pinned: dict[str, Any] | None
    rates: Rates
    sample: int

    @property
    def target(self) -> EmbeddingSpace:
        return self.backend.space


def _required(backend: AnyBackend | None) -> AnyBackend:
    found = require_any(backend)
    if found is None:
        raise InvalidInput("there is no backend to move to: pass one of the target's space")
    return found


def _pinned(where: Filter) -> dict[str, Any]:
    try:
        return to_json(where)
    except InvalidInput:
        raise InvalidInput(
            f"where (--where) is {excerpt(where)}; a plan takes equalities alone, such as "
            'field("tenant") == "a", joined by &'
        ) from None


async def _planned(stores: Iterable[AnyStore], asked: _Asked, worker: Worker) -> MigrationPlan:
    collections: list[PlannedCollection] = []
    notices: list[Notice] = []
    remaining = iter(stores)
    while (store := await worker.do(lambda: next(remaining, None))) is not None:
        found, said = await _looked_at(store, asked)
        collections.append(found)
        notices += said
    if not collections:
        raise InvalidInput("there is no collection to plan for; pass at least one store")
    return MigrationPlan(
        version=samespace.__version__,
        use=asked.use,
        target=await provenance_of_async(asked.backend),
        collections=tuple(collections),
        estimate=total([each.estimate for each in collections]),
        warnings=tuple(dict.fromkeys(notices)),
    )


async def _looked_at(store: AnyStore, asked: _Asked) -> tuple[PlannedCollection, list[Notice]]:
    with ExitStack() as threads:
        rows = Rows(store, threads.enter_context(in_a_thread("plan", grace=GRACE)))
        try:
            return await _Look(rows, asked, store).run()
        finally:
            if store.is_async and rows.is_open:
                await rows.close()


class _Look:
    """A look at one collection."""

    def __init__(self, rows: Rows, asked: _Asked, store: AnyStore) -> None:
        self._rows, self._asked, self._store = rows, asked, store

    async def run(self) -> tuple[PlannedCollection, list[Notice]]:
        asked = self._asked
        info = await self._rows.info()
        target = next((slot for slot in info.slots if slot.space == asked.target), None)
        source = _source(info, self._store.space, asked.target)
        path, reason = _path(source, asked.target, target)
        forecast = self._forecast(info)
        rows, pending = await self._counts(info, source)
        texts = 0 if path == "nothing" else await self._to_fill(rows, target)
        sampled = await self._sampled(source) if path == "embed" and texts else Sample()
        stale = await self._stale(info, source)
        found = PlannedCollection(
            name=info.name,
            store=forecast.store if forecast else type(self._store).__name__,
            path=path,
            reason=reason,
            source=_planned_slot(source),
            target=_planned_slot(target)
            if target
            else PlannedSlot(name=asked.target.id, space=asked.target),
            target_state=_state(target),
            layout=None if info.layout is None else info.layout.to_dict(),
            where=asked.pinned,
            rows=rows,
            pending=pending,
            stale=stale,
            estimate=self._estimate(path, texts, sampled, forecast),
        )
        return found, await self._notices(found, source, sampled, forecast)

    def _forecast(self, info: CollectionInfo) -> SlotForecast | None:
        if not isinstance(self._store, ForecastsSlots):
            return None
        return self._store.forecast(self._asked.target, info)

    async def _counts(self, info: CollectionInfo, source: SlotInfo) -> tuple[int, int]:
        """Rows, and those without a vector of the source."""
        where = self._asked.where
        if where is None:
            return info.rows, source.pending
        return await self._rows.count(where), await self._rows.count_pending(source.space, where)

    async def _to_fill(self, rows: int, target: SlotInfo | None) -> int:
        """Rows without a vector of the target."""
        where = self._asked.where
        if target is None:
            return rows
        if where is None:
            return target.pending
        return await self._rows.count_pending(target.space, where)

    async def _sampled(self, source: SlotInfo) -> Sample:
        drawn = await self._rows.sample(source.space, self._asked.sample, self._asked.where)
        return await _counted(self._asked.backend, [row.document.embedded_text for row in drawn])

    async def _stale(self, info: CollectionInfo, source: SlotInfo) -> int | None:
        """None where nobody can tell, as in a slot that others made."""
        found = await self._rows.count_stale(source.space, self._asked.where)
        has_text = info.layout is None or isinstance(info.layout.text, str)
        return found if found or (source.name == source.space.id and has_text) else None

    def _estimate(
        self, path: Path, texts: int, sampled: Sample, forecast: SlotForecast | None
    ) -> Estimate:
        return estimate(
            texts=texts,
            sample=sampled,
            rates=self._asked.rates,
            forecast=forecast,
            calls=path == "embed",
        )

    async def _notices(
        self,
        found: PlannedCollection,
        source: SlotInfo,
        sampled: Sample,
        forecast: SlotForecast | None,
    ) -> list[Notice]:
        if found.path == "nothing":
            return []
        provenance = await provenance_of_async(self._asked.backend)
        said = advice(source.space, self._asked.target, use=self._asked.use, provenance=provenance)
        state = _state_notices(found, source.provenance)
        length = _length_notices(self._asked.target, sampled)
        return [*said, *state, *length, *(forecast.notices if forecast else ())]


def _source(info: CollectionInfo, own: EmbeddingSpace, target: EmbeddingSpace) -> SlotInfo:
    """The slot to move from: the handle's, or another if that is the target already."""
    slots = {slot.space: slot for slot in info.slots}
    if own != target and own in slots:
        return slots[own]
    others = [slot for slot in info.slots if slot.space != target]
    ready = [slot for slot in others if slot.state == SlotState.READY]
    found = next(iter([*ready, *others, *info.slots]), None)
    if found is None:
        raise SpaceUnknown(f"collection {excerpt(info.name)} has no slot; write documents first")
    return found


def _path(source: SlotInfo, target: EmbeddingSpace, there: SlotInfo | None) -> tuple[Path, str]:
    """The cheapest legal path, and why."""
    if there is not None and there.state == SlotState.READY:
        if there.space == source.space:
            return "nothing", f"The collection holds {target} already."
        return "nothing", f"A slot of {target} is there and ready."
    verdict = compare(source.space, target)
    if verdict is Verdict.DERIVABLE:
        return "derive", legality(source.space, target, "write").reason
    if compare(target, source.space) is Verdict.DERIVABLE:
        return "embed", f"{target} has what the vectors of {source.space} have lost."
    return "embed", legality(source.space, target, "write").reason


def _planned_slot(found: SlotInfo) -> PlannedSlot:
    return PlannedSlot(name=found.name, space=found.space, slot=slot_id(found))


def _state(target: SlotInfo | None) -> TargetState:
    if target is None:
        return "absent"
    return "ready" if target.state == SlotState.READY else "filling"


async def _counted(backend: AnyBackend, texts: Sequence[str]) -> Sample:
    """Tokens of each text, by the backend if it counts any."""
    if not texts:
        return Sample()
    model = uncached(backend)
    if isinstance(model, CountsTokens):
        tokens, name = await count_tokens_async(model, texts), type(model).__name__
        if isinstance(model, TellsEstimates) and not model.counts_exactly:
            counter = f"estimated by {name}, which has no tokenizer here: rather too many"
            return Sample(tokens=tokens, counter=counter, is_counted=False)
        return Sample(tokens=tokens, counter=f"counted by {name}")
    counter = "a token for three bytes, which is rather too many"
    return Sample(tokens=tokens_by_size(texts), counter=counter, is_counted=False)


def _state_notices(found: PlannedCollection, provenance: Mapping[str, str]) -> list[Notice]:
    said = []
    if found.stale:
        said.append(
            Notice(
                "stale-source",
                f"{found.stale:,} rows of {excerpt(found.name)} have a vector of an earlier text; their "
                "present text is what is embedded. samespace repair --stale mends the source's.",
            )
        )
    if found.stale and found.path == "derive":
        said.append(
            Notice(
                "stale-derived",
                f"In {excerpt(found.name)} vectors are derived, stale ones among them: repair first.",
            )
        )
    if LATE.items() <= dict(provenance).items() and found.path == "embed":
        said.append(
            Notice(
                "late-chunking",
                f"The chunks of {excerpt(found.name)} were embedded in sight of one another: the unit is "
                "the document, and changing one chunk embeds its siblings again.",
            )
        )
    if found.layout is not None and found.layout.get("text") is None:
        said.append(
            Notice(
                "external-text",
                f"The texts of {excerpt(found.name)} are elsewhere: pass its layout again on each step.",
            )
        )
    return said


def _length_notices(target: EmbeddingSpace, sampled: Sample) -> list[Notice]:
    model = find_model(target.model)
    long = sum(count > model.context for count in sampled.tokens) if model else 0
    if not long or model is None:
        return []
    return [
        Notice(
            "too-long",
            f"{long:,} of {len(sampled.tokens):,} sampled texts have more than {model.context:,} tokens "
            f"({sampled.counter}), which the model refuses or cuts: chunk them first.",
        )
    ]
