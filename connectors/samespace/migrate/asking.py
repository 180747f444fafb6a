"""The same questions to the old slot and to the new one, in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from samespace.audit.rows import Rows
from samespace.documents import Document, Hit
from samespace.filters import Filter, matches
from samespace.ingest.embedder import Embedder
from samespace.ingest.target import IDS, AnyStore, unique
from samespace.ingest.worker import Worker
from samespace.migrate.ranking import NEAREST
from samespace.protocols import Vector

BATCH: Final = 200
"""How many questions are embedded together."""
Clock = Callable[[], float]
"""Seconds, from wherever on."""


class Slot(Rows):
    """One slot of a collection as it is asked, and what embeds the questions, if anything does."""

    def __init__(
        self, store: AnyStore, worker: Worker, embedder: Embedder | None, where: Filter | None
    ) -> None:
        super().__init__(store, worker)
        self.embedder, self._where = embedder, where

    async def nearest(self, vector: Vector) -> list[Hit]:
        """The best hits, one more than is compared: a question may be of a row's own text."""
        found: list[Hit] = await self._call(
            self._store.search_vector,
            vector,
            space=self.space,
            limit=NEAREST + 1,
            where=self._where,
            allow_filling=True,
        )
        return found

    async def page(self, after: str | None) -> tuple[list[Document], str | None]:
        """The next of the rows with a vector, and where to go on; None at the end."""
        rows, cursor = await self._call(
            self._store.filled, self.space, limit=BATCH, after=after, where=self._where
        )
        self.see(rows)
        return [self._named(row) for row in rows], cursor

    async def within(self, ids: Sequence[str]) -> set[str]:
        """Those of these ids that are there and among the rows that are searched."""
        found: set[str] = set()
        for start in range(0, len(ids), IDS):
            rows = await self._call(self._store.get, ids[start : start + IDS])
            found |= {row.id for row in rows if self.is_searched(row)}
        return found

    def is_searched(self, row: Document) -> bool:
        """Whether a row is among those that are asked for."""
        if self._where is None:
            return True
        parent = None if row.parent is None else row.parent.id
        return matches(self._where, id=row.id, metadata=row.metadata, parent=parent)

    async def vectors_of(self, texts: Sequence[str]) -> dict[str, Vector]:
        """What texts are as questions, without those that are refused."""
        found: dict[str, Vector] = {}
        if self.embedder is None:
            return found
        asked = unique(text for text in texts if text.strip())
        for start in range(0, len(asked), BATCH):
            found |= await self.embedder.embed_as_queries(asked[start : start + BATCH])
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A text and its vectors in both spaces; ``own`` is the row that it was taken from."""

    text: str
    old: Vector
    new: Vector
    own: str | None = None


class Turns:
    """Asks both slots, and notes how long each took: the one first, then the other."""

    def __init__(self, old: Slot, new: Slot, *, repetitions: int, clock: Clock) -> None:
        self._old, self._new = old, new
        self._repetitions, self._clock = repetitions, clock
        self._asked = 0
        self.old_seconds: list[float] = []
        self.new_seconds: list[float] = []

    async def ask(self, question: Question) -> tuple[list[Hit], list[Hit]]:
        """The hits of both; the first question of all is asked once more before, which is not timed."""
        if not self._asked:
            await self._old.nearest(question.old)
            await self._new.nearest(question.new)
        rounds = [await self._round(question) for _ in range(self._repetitions)]
        return rounds[-1]

    async def _round(self, question: Question) -> tuple[list[Hit], list[Hit]]:
        self._asked += 1
        if self._asked % 2:
            old = await self._timed(self._old, question.old, self.old_seconds)
            return old, await self._timed(self._new, question.new, self.new_seconds)
        new = await self._timed(self._new, question.new, self.new_seconds)
        return await self._timed(self._old, question.old, self.old_seconds), new

    async def _timed(self, slot: Slot, vector: Vector, seconds: list[float]) -> list[Hit]:
        began = self._clock()
        hits = await slot.nearest(vector)
        seconds.append(self._clock() - began)
        return hits
