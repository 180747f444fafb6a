"""An async store over rows in memory: all that a migration asks of one, step by step."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Final, Self

import numpy as np
import orjson
from tests.migrate.memory_rows import NEW, OLD, Attempt, MemoryRows, Seen, Symbol

from samespace.documents import CollectionInfo, Document, FillReport, SlotInfo, VersionedRow
from samespace.errors import MigrationError
from samespace.filters import Filter, matches
from samespace.guard import Canary, SlotRecord, SlotState, SpaceRecord
from samespace.index import Index
from samespace.protocols import AnyBackend, Matrix, Vector
from samespace.space import EmbeddingSpace

NAME: Final = "rows"
SPACES: Final[Mapping[str, EmbeddingSpace]] = {
    slot: EmbeddingSpace(model=f"{slot}-model", dimensions=8) for slot in (OLD, NEW)
}
SLOTS: Final = {space: slot for slot, space in SPACES.items()}


class SymbolBackend:
    """Makes a vector of its own of each text, at once."""

    is_async: ClassVar[bool] = True

    def __init__(self, slot: str) -> None:
        self._slot = slot

    @property
    def space(self) -> EmbeddingSpace:
        """That of its slot."""
        return SPACES[self._slot]

    async def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """Shape ``(len(texts), 8)``."""
        return np.stack([vector_of(Symbol(self._slot, text)) for text in texts])

    async def embed_queries(self, texts: Sequence[str]) -> Matrix:
        """The same."""
        return await self.embed_documents(texts)

    async def embed_query(self, text: str) -> Vector:
        """One of them."""
        vector: Vector = (await self.embed_documents([text]))[0]
        return vector


def vector_of(symbol: Symbol) -> Vector:
    """The vector that a symbol stands for."""
    random = np.random.default_rng(zlib.crc32("/".join(symbol).encode()))
    vector = random.standard_normal(8)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


@dataclass
class Collection:
    """Rows, and what they say of their slots; ``lost`` are those whose only vector was dropped."""

    rows: MemoryRows
    record: SpaceRecord = field(init=False)
    lost: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.record = SpaceRecord(slots=(SlotRecord(name=OLD, space=SPACES[OLD]),))
        if NEW in self.rows.slots:
            slot = SlotRecord(name=NEW, space=SPACES[NEW], state=SlotState.FILLING)
            self.record = self.record.with_slot(slot)

    def alone(self, slot: str, beside: str) -> set[str]:
        """The rows with a vector in one slot that are pending in another."""
        pending = {seen.key for seen in self.rows.pending(beside)}
        return pending & self.rows.vectors(slot).keys()

    def right_alone(self, slot: str, beside: str) -> set[str]:
        """Those of them whose vector is of their text."""
        vectors, texts = self.rows.vectors(slot), self.rows.texts()
        alone = self.alone(slot, beside)
        return {key for key in alone if vectors[key] == Symbol(slot, texts[key][0])}


class MemoryStore:
    """A handle; ``pauses`` is how many turns of the loop pass before and after each of its steps.

    ``between`` is called before each step, in the loop's thread. One that ``is_dead`` gets no answer
    any more, as a process that was killed.
    """

    is_async: ClassVar[bool] = True
    canary_threshold: ClassVar[float] = 0.995
    collection: ClassVar[str] = NAME

    def __init__(
        self,
        collection: Collection,
        slot: str = OLD,
        *,
        pauses: int = 0,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self._collection, self._rows, self._slot = collection, collection.rows, slot
        self._pauses, self._between = pauses, between
        self.is_dead = False

    @property
    def space(self) -> EmbeddingSpace:
        """That of its slot."""
        return SPACES[self._slot]

    @property
    def backend(self) -> AnyBackend:
        """The slot's."""
        return SymbolBackend(self._slot)

    def in_space(self, space: EmbeddingSpace, *, backend: AnyBackend | None = None) -> Self:
        """Another handle, for the slot of ``space``."""
        del backend
        return type(self)(
            self._collection, SLOTS[space], pauses=self._pauses, between=self._between
        )

    async def close(self) -> None:
        """There is nothing to give back."""

    async def _pause(self) -> None:
        for _ in range(self._pauses):
            await asyncio.sleep(0)
        if self.is_dead:
            await asyncio.Event().wait()
        self._between()

    async def _named(self, space: EmbeddingSpace) -> str:
        """The name of a space's slot, or the refusal."""
        await self._pause()
        return self._collection.record.require(space, collection=NAME).name

    # What there is

    async def info(self) -> CollectionInfo:
        """The slots, with how many rows are pending in each."""
        await self._named(self.space)
        record, rows = self._collection.record, self._rows
        return CollectionInfo(
            name=NAME,
            space=self.space,
            slots=tuple(self._info(slot) for slot in record.slots),
            rows=len(rows.rows),
            index=Index(build="manual"),
            index_built=False,
            provenance=MappingProxyType({}),
        )

    def _info(self, slot: SlotRecord) -> SlotInfo:
        return SlotInfo(
            name=slot.name,
            space=slot.space,
            state=slot.state,
            pending=len(self._rows.pending(slot.name)),
            has_canary=slot.canary is not None,
            provenance=slot.provenance,
            canary=slot.canary,
        )

    async def count_alone(self, space: EmbeddingSpace, *, beside: EmbeddingSpace) -> int:
        """How many rows have a vector in one slot, and are pending in another."""
        return len(self._collection.alone(await self._named(space), await self._named(beside)))

    # Slots

    async def add_slot(
        self,
        space: EmbeddingSpace,
        *,
        canary: Canary | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> None:
        """Add an empty slot, unless it is there."""
        await self._pause()
        record = self._collection.record
        if record.find(space) is None:
            slot = SlotRecord(
                name=SLOTS[space],
                space=space,
                state=SlotState.FILLING,
                provenance=provenance or {},
                canary=canary,
            )
            self._collection.record = record.with_slot(slot)
            self._rows.add_slot(slot.name)
        await self._pause()

    async def mark(
        self,
        space: EmbeddingSpace,
        state: SlotState,
        *,
        provenance: Mapping[str, str] | None = None,
    ) -> None:
        """Give a slot another state."""
        await self._named(space)
        slot = self._collection.record.require(space, collection=NAME)
        marked = SlotRecord(
            name=slot.name,
            space=space,
            state=state,
            provenance={**slot.provenance, **(provenance or {})},
            canary=slot.canary,
        )
        self._collection.record = self._collection.record.with_slot(marked)

    async def drop_slot(
        self, space: EmbeddingSpace, *, keeps: EmbeddingSpace | None = None
    ) -> None:
        """Drop a slot, unless a row has its only vector there."""
        name = await self._named(space)
        if keeps is not None:
            alone = self._collection.alone(name, SLOTS[keeps])
            if alone:
                raise MigrationError(f"{sorted(alone)} have their only vector in {name!r}")
            if not self._rows.empties:  # without a transaction others may write here
                await self._pause()
            self._collection.lost |= self._collection.right_alone(name, SLOTS[keeps])
        self._collection.record = self._collection.record.without(space)
        self._rows.drop_slot(name)

    async def build_index(self, space: EmbeddingSpace | None = None, *, wait: bool = True) -> None:
        """There is none."""
        del space, wait

    # Rows

    async def pending(
        self,
        space: EmbeddingSpace,
        *,
        limit: int,
        after: str | None = None,
        where: Filter | None = None,
        **_: Any,
    ) -> tuple[list[VersionedRow], str | None]:
        """The next rows to fill, in the order of their keys."""
        name = await self._named(space)
        found = self._page(_passing(self._rows.pending(name), where), limit, after)
        await self._pause()
        return found

    async def filled(
        self,
        space: EmbeddingSpace,
        *,
        limit: int,
        after: str | None = None,
        where: Filter | None = None,
        **_: Any,
    ) -> tuple[list[VersionedRow], str | None]:
        """The next rows that have a vector, in the order of their keys."""
        name = await self._named(space)
        found = self._page(_passing(self._rows.filled(name), where), limit, after)
        await self._pause()
        return found

    async def stale(
        self, space: EmbeddingSpace, *, limit: int, since: str | None = None
    ) -> tuple[list[VersionedRow], str | None]:
        """The next rows to fill again, in the order of their keys."""
        name = await self._named(space)
        found = self._page(self._rows.stale(name), limit, since)
        await self._pause()
        return found

    def _page(
        self, rows: Sequence[Seen], limit: int, after: str | None
    ) -> tuple[list[VersionedRow], str | None]:
        rest = [seen for seen in rows if after is None or seen.key > after][:limit]
        cursor = rest[-1].key if len(rest) == limit else None
        return [_versioned(seen) for seen in rest], cursor

    async def fill(
        self, space: EmbeddingSpace, rows: Sequence[VersionedRow], vectors: Matrix
    ) -> FillReport:
        """Give rows that are as they were read the vectors of their texts, step by step."""
        name = await self._named(space)
        seen = [Seen(**orjson.loads(row.version)) for row in rows]
        for row, vector in zip(rows, vectors, strict=True):
            assert np.array_equal(vector, vector_of(Symbol(name, row.document.text)))
        attempt: Attempt | None = self._rows.begin(name, seen)
        while attempt is not None:
            await self._pause()
            attempt = self._rows.advance(attempt)
        await self._pause()
        fresh = self._rows.fresh(name) if name in self._rows.slots else {}
        filled = sum(fresh.get(each.key) == Symbol(name, each.text) for each in seen)
        return FillReport(filled=filled, changed=len(rows) - filled)


def _passing(rows: Sequence[Seen], where: Filter | None) -> list[Seen]:
    """The rows of which a filter on their ids is true."""
    return [
        seen
        for seen in rows
        if where is None or matches(where, id=seen.key, metadata={}, parent=None)
    ]


def _versioned(seen: Seen) -> VersionedRow:
    return VersionedRow(document=Document(seen.key, seen.text), version=orjson.dumps(asdict(seen)))
