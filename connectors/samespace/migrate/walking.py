"""The collections of a plan, one handle after the other, as often as they have to be looked at."""

from __future__ import annotations

import shlex
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
)
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from samespace.adoption import ELSEWHERE
from samespace.documents import CollectionInfo, SlotInfo
from samespace.errors import InvalidInput, MigrationError, excerpt
from samespace.filters import field, of_json
from samespace.guard import SlotState
from samespace.ingest.running import served
from samespace.ingest.target import IDS, AnyStore
from samespace.ingest.worker import Worker
from samespace.migrate.evidence import Named
from samespace.migrate.plan import MigrationPlan, PlannedCollection, check_holds
from samespace.migrate.reading import Rows
from samespace.opening import spec_of
from samespace.protocols import (
    AsyncNamesDependents,
    AsyncNamesObstacles,
    DescribesSlots,
    NamesDependents,
    NamesObstacles,
)
from samespace.space import EmbeddingSpace

LISTED: Final = 20
"""How many of others' things a refusal names."""
T = TypeVar("T")
Stores = AnyStore | Iterable[AnyStore]
RUN: Final = "samespace migrate run --plan PLAN.json --backend SPEC"
"""What to type to have rows filled; its store is ``--store``, or that of ``SAMESPACE_STORE``."""


def typed(command: str, space: EmbeddingSpace, made_by: Mapping[str, str] | None = None) -> str:
    """A command with the backend of a space for SPEC, where a spec can name that.

    A model may be had of several providers, so that texts go to the one that ``made_by`` names, the
    provenance of a slot or a plan, or to none.
    """
    spec = spec_of(space)
    if spec is None or (spec.startswith("jina") and (made_by or {}).get("backend") != "jina-api"):
        return command
    return command.replace("SPEC", shlex.quote(spec))


def reads_texts(info: CollectionInfo) -> bool:
    """Whether a handle finds the texts of a collection, which may be elsewhere."""
    return info.layout is None or info.layout.text is not ELSEWHERE


@dataclass(frozen=True, slots=True)
class Found:
    """A collection as it is now, and what was planned for it."""

    planned: PlannedCollection
    info: CollectionInfo

    def slot(self, space: EmbeddingSpace) -> SlotInfo | None:
        """The slot of a space, if there is one."""
        return next((slot for slot in self.info.slots if slot.space == space), None)

    @property
    def source(self) -> SlotInfo | None:
        """The slot to move from."""
        return self.slot(self.planned.source.space)

    @property
    def target(self) -> SlotInfo | None:
        """The slot to move to."""
        return self.slot(self.planned.target.space)

    @property
    def is_open(self) -> bool:
        """Whether the target's slot is ready."""
        return self.target is not None and self.target.state == SlotState.READY

    @property
    def name(self) -> str:
        """The collection's, safe to print."""
        return excerpt(self.planned.name)

    def check_holds(self) -> None:
        """:class:`MigrationError` unless it is what was planned, begun or opened or not."""
        check_holds(self.planned, self.info, opened=True)

    def require_target(self) -> SlotInfo:
        """The target's slot, or :class:`MigrationError`."""
        if self.target is None:
            raise MigrationError(
                f"collection {self.name} has no slot of {self.planned.target.space} yet; fill one: "
                f"{typed(RUN, self.planned.target.space)}"
            )
        return self.target


class Here:
    """One collection on the way: what was planned for it, its rows and its store."""

    def __init__(self, planned: PlannedCollection, store: AnyStore, worker: Worker) -> None:
        self.planned, self.store, self._worker = planned, store, worker
        self.rows = Rows(store, worker)

    async def look(self) -> Found:
        """What the collection is now, also where the slot of the handle's space has been dropped."""
        return Found(self.planned, await self.rows.info_of(self.planned))

    def in_space(self, space: EmbeddingSpace) -> Here:
        """The same with a handle of this space."""
        if self.store.space == space:
            return self
        return Here(self.planned, self.store.in_space(space), self._worker)

    async def count_beyond(self) -> int:
        """How many rows the plan's filter leaves out now."""
        where = self.planned.where
        return 0 if where is None else await self.rows.count(~of_json(where))

    async def count_alone(self, space: EmbeddingSpace, beside: EmbeddingSpace) -> int:
        """How many rows have a vector in one slot, and are pending in the other."""
        return int(await self.do("count_alone", space, beside=beside))

    async def count_fresh_alone(self, space: EmbeddingSpace, beside: EmbeddingSpace) -> int:
        """How many rows have a vector of their text in one slot, and one of an earlier text in the other."""
        found = await self._stale(beside)
        if found:
            found -= await self._stale(space)
        pending = await self.rows.pending_of(space, sorted({id for id, _, _ in found}))
        return len(found.difference(row.place for row in pending))

    async def _stale(self, space: EmbeddingSpace) -> set[tuple[str, str, str]]:
        return {row.place async for rows in self.rows.stale_rows(space) for row in rows}

    async def missing(
        self, space: EmbeddingSpace, among: Collection[str] | None = None
    ) -> set[str]:
        """The ids of rows with a text and without a vector, a thousand or few more; or of these rows."""
        where = None if among is None else field.id.in_(among)
        found: set[str] = set()
        after: str | None = None
        while len(found) <= IDS:
            rows, after = await self.rows.pending(space, limit=IDS, after=after, where=where)
            documents = [row.document for row in rows]
            found |= {each.id for each in documents if each.embedded_text.strip()}
            if after is None:
                break
        return found

    async def textless(self, found: Found) -> Named:
        """Rows that only the source's slot has, and that have no text to make another vector from."""
        named, after = Named(), None
        if not reads_texts(found.info):
            await self._check_told(found)
            return named
        while True:
            rows, after = await self.rows.pending(self.planned.target.space, limit=IDS, after=after)
            blank = {row.place: row for row in rows if not row.document.embedded_text.strip()}
            ids = sorted({id for id, _, _ in blank})
            for row in await self.rows.filled_of(self.planned.source.space, ids):
                if row.place in blank:  # not another of its id, whose text is told apart
                    named.add(row.key or row.document.id)
            if after is None:
                return named

    async def _check_told(self, found: Found) -> None:
        """:class:`MigrationError` where rows have a vector in the source alone, and perhaps no text."""
        target = self.planned.target.space
        if await self.count_alone(self.planned.source.space, target):
            raise MigrationError(
                f"in collection {found.name} rows have no vector of {target}, and their texts are elsewhere, "
                "so that nobody here can tell whether they have one; nothing was dropped. Go on in Python, "
                "with handles whose layout= is as it was adopted: run() fills rows, and "
                "finish(…, give_up_textless=True) gives up the vectors of those without a text"
            )

    async def stale(self, space: EmbeddingSpace, among: Collection[str] | None = None) -> set[str]:
        """The ids of rows with a vector of an earlier text, a thousand or few more; or of these rows."""
        found: set[str] = set()
        async for rows in self.rows.stale_rows(space):
            found |= {row.document.id for row in rows if among is None or row.document.id in among}
            if len(found) > IDS:
                break
        return found

    async def do(self, method: str, *arguments: Any, **options: Any) -> Any:
        """What a method of the store returns."""
        call: Callable[..., Any] = getattr(self.store, method)
        if self.store.is_async:
            return await call(*arguments, **options)
        return await self._worker.do(lambda: call(*arguments, **options))

    async def check_free(self, space: EmbeddingSpace) -> None:
        """:class:`MigrationError` while others have built on a slot that is to be dropped."""
        if isinstance(self.store, NamesObstacles | AsyncNamesObstacles):
            await self._check_unused(space)
        if isinstance(self.store, NamesDependents | AsyncNamesDependents):
            await self._check_unseen(space)

    async def _check_unused(self, space: EmbeddingSpace) -> None:
        obstacles: list[str] = await self.do("obstacles", space)
        if obstacles:
            raise MigrationError(
                f"what others have made uses the slot of {space} in collection "
                f"{excerpt(self.planned.name)}, so nothing was dropped: {_listed(obstacles)}. Change it to "
                "another slot, or drop it, as its owner; then run this again"
            )

    async def _check_unseen(self, space: EmbeddingSpace) -> None:
        statements: list[str] = await self.do("dependents", space)
        if statements:
            shown = " ".join(
                f"{each if each.isprintable() else excerpt(each)};" for each in statements
            )
            raise MigrationError(
                f"views use the slot of {space} in collection {excerpt(self.planned.name)}, so nothing was "
                f"dropped; move the applications that read them to another, then run: {shown}"
            )

    def is_told_stale(self, slot: SlotInfo) -> bool:
        """Whether it is known of each vector that its text has changed: of ours, or by a server's trigger."""
        knows_dependents = isinstance(self.store, NamesDependents | AsyncNamesDependents)
        return slot.name == slot.space.id or knows_dependents  # what has views has triggers

    @property
    def described(self) -> DescribesSlots | None:
        """The store, where it says what its slots are to others."""
        return self.store if isinstance(self.store, DescribesSlots) else None


def _listed(found: list[str]) -> str:
    shown = ", ".join(each if each.isprintable() else excerpt(each) for each in found[:LISTED])
    return f"{shown}, and {len(found) - LISTED:,} more" if len(found) > LISTED else shown


class Way:
    """Leads through the handles, as often as asked; async ones are closed in the end."""

    def __init__(self, stores: Iterable[AnyStore], plan: MigrationPlan, worker: Worker) -> None:
        self._stores, self._plan, self._worker = stores, plan, worker
        self._open: dict[int, Here] = {}

    async def ask(self, work: Callable[[], T]) -> T:
        """What ``work`` returns in the thread of who began all this."""
        return await self._worker.do(work)

    async def each(self, work: Callable[[Here], Awaitable[T]]) -> list[T]:
        """What ``work`` returns for each collection, one after the other."""
        remaining = iter(self._stores)
        try:
            return [await work(here) async for here in self._each(remaining)]
        finally:
            end = getattr(remaining, "close", None)
            if end is not None:  # a handle that is opened on the way is closed there, too
                await self._worker.do(end)

    async def _each(self, remaining: Iterator[AnyStore]) -> AsyncIterator[Here]:
        while (store := await self._worker.do(lambda: next(remaining, None))) is not None:
            here = Here(self._plan.of(store.collection), store, self._worker)
            if store.is_async:
                self._open[id(store)] = here
            yield here

    async def close(self) -> None:
        """Close what is async, in the loop that it was used in."""
        for here in self._open.values():
            if here.rows.is_open:
                await here.rows.close()


def walked(stores: Stores, plan: MigrationPlan, work: Callable[[Way], Awaitable[T]]) -> T:
    """What ``work`` makes of the collections, in a loop and a thread of its own.

    :class:`InvalidInput` for an iterable that can be gone through once only, or is empty.
    """
    listed: Iterable[AnyStore] = stores if isinstance(stores, Iterable) else [stores]
    if isinstance(listed, Iterator):
        raise InvalidInput("stores can be gone through once only; pass a list of handles")

    async def whole(worker: Worker) -> T:
        way = Way(listed, plan, worker)
        try:
            return await work(way)
        finally:
            await way.close()

    return served(whole)
