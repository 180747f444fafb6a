"""Ways to come by the vectors of rows: by a model, and first in the slot that others made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from samespace.audit.auditing import prove
from samespace.audit.remaking import Chunks, Remade, remade
from samespace.documents import CollectionInfo, SlotInfo, VersionedRow
from samespace.errors import BackendUnavailable, RateLimited
from samespace.ingest.embedder import Embedder
from samespace.ingest.target import IDS
from samespace.migrate.fingerprints import Fingerprints, fingerprint, fingerprint_of
from samespace.migrate.pacing import Away, Budget, BudgetSpent
from samespace.migrate.reading import Rows
from samespace.migrate.tallying import BEHIND, Tally
from samespace.protocols import AnyBackend, Vector
from samespace.space import EmbeddingSpace
from samespace.vectors import stack

Place = tuple[str, str, str]
"""What tells a row from all others: :attr:`VersionedRow.place`."""
Affordable = Callable[[Sequence[VersionedRow], Sequence[int]], Awaitable[int]]
"""How many of some rows can be filled, each after so many tokens were paid for it elsewhere."""


class Making(Protocol):
    """A way to come by the vectors of rows."""

    @property
    def derives_from(self) -> EmbeddingSpace | None:
        """The space whose vectors the rows are to be read with."""

    def asks_for(self, row: VersionedRow) -> bool:
        """Whether a model is asked for the vector of a row's text."""

    async def make(self, rows: Sequence[VersionedRow], chunks: Chunks) -> Remade:
        """A vector for each row or the reason why there is none."""


class ByModel:
    """Vectors of a backend, which is proved by the slot's canary before it first embeds."""

    derives_from = None

    def __init__(
        self,
        backend: AnyBackend,
        embedder: Embedder,
        info: CollectionInfo,
        slot: SlotInfo | None,
        *,
        threshold: float,
        calls: int = 1,
    ) -> None:
        """``slot`` is what the backend is to be proved by; None where it was just made with it.

        ``calls`` says how many at once the backend takes, for which the embedder has a worker each.
        """
        self._backend, self._embedder = backend, embedder
        self._info, self._slot, self._threshold = info, slot, threshold
        self._proving, self._calls = asyncio.Lock(), asyncio.Semaphore(calls)

    def asks_for(self, row: VersionedRow) -> bool:
        """Always."""
        del row
        return True

    async def make(self, rows: Sequence[VersionedRow], chunks: Chunks) -> Remade:
        """Embed their texts, those with chunks together with them.

        What was paid for is not thrown away for a text that another batch fails to have embedded.
        """
        documents = [row.document for row in rows]
        async with self._calls:
            await self._prove()
            return await remade(self._embedder, documents, chunks, partly=True)

    async def _prove(self) -> None:
        async with self._proving:
            if self._slot is not None:
                await prove(self._backend, self._slot, info=self._info, threshold=self._threshold)
                self._slot = None


class Unsourced:
    """A slot that somebody else made, in which nothing says what text a vector is of.

    Where an application of the target's model changes a text in place, this slot's vector stays that of
    the text before. What shows it is the target's slot alone, until that is filled again: so a row's
    vector here is remade before its vector there. Where the text is changed back between, nothing shows
    that the vector here is of another: this run keeps in mind what it has made here, and one that ends at
    that very moment leaves it so.
    """

    def __init__(
        self,
        rows: Rows,
        space: EmbeddingSpace,
        model: ByModel,
        target: EmbeddingSpace,
        *,
        source: EmbeddingSpace,
        budget: Budget,
        tally: Tally,
        away: Away,
    ) -> None:
        """``source`` is the space that the plan moves from, mostly this slot's.

        ``budget`` counts as the model does; ``tally`` is of this slot; ``away`` says while the model is.
        """
        self._budget, self._tally, self._away = budget, tally, away
        self._rows, self._space, self._model, self._target = rows, space, model, target
        self._is_source = space == source
        self._fresh = Fingerprints()
        """Of rows whose vector in the target's slot was found to be of their text."""
        self._texts: dict[Place, int | None] = {}
        """What rows' vectors here were made of, None if in doubt, until the target's slot has one of that."""
        self._doubtful: set[Place] = set()
        """Rows that were to be filled there with some that others changed meanwhile, until they are."""
        self.embedded = 0

    async def look_beside(self, rows: Sequence[VersionedRow], *, are_pending: bool) -> None:
        """Learn which chunks of the documents of rows were not changed in place.

        To ask what is stale takes a look at all rows, so that it is asked for a batch of them at once.
        """
        places = {row.place for row in rows}
        parents = {row.document.parent.id for row in rows if row.document.parent is not None}
        beside = [
            row
            for parent in sorted(parents)
            for row in await self._beside(parent, places, are_pending=are_pending)
        ]
        for row in await self._rows.of_their_text(self._target, beside):
            self._fresh.add(_fingerprint(row))

    async def _beside(
        self, parent: str, places: set[Place], *, are_pending: bool
    ) -> list[VersionedRow]:
        filled, pending = await self._rows.of_parents(self._target, [parent])
        unfilled = {row.place for row in pending}
        if are_pending and places.isdisjoint(unfilled):
            return []  # another batch has filled them
        return [replace(row, vector=None) for row in filled if row.place not in unfilled]

    def is_fresh(self, row: VersionedRow) -> bool:
        """Whether a row is as it was when its vector in the target's slot was found to be of its text."""
        return _fingerprint(row) in self._fresh

    async def first(
        self, rows: Sequence[VersionedRow], affordable: Affordable
    ) -> Sequence[VersionedRow]:
        """Remake the vectors of rows whose text was changed in place; the rows that may be filled now.

        Those are rows that have a vector in the target's slot, or had one until this run came to fill
        it: a writer that replaces a row leaves none there. Of these as many are remade as are
        ``affordable`` here and there, and they come first, since what they cost there is set aside; the
        others are left out, as all are while the model is away.
        """
        found = await self._in_place({row.place for row in rows})
        if not found:
            return rows
        places = {row.place for row in found}
        others = [row for row in rows if row.place not in places]
        return [*await self._mended(found, rows, affordable), *others]

    def settle(self, rows: Iterable[VersionedRow]) -> None:
        """The target's slot has vectors of their texts."""
        for row in rows:
            self._doubtful.discard(row.place)
            if self._is_of_its_text(row):
                self._texts.pop(row.place, None)

    def doubt(self, rows: Iterable[VersionedRow]) -> None:
        """Others have changed some of these, of which the target's slot may have lost the vector for that.

        A store that takes away the vector of another text before it writes the new one leaves none where
        the text was changed between, as if a writer had replaced the row.
        """
        self._doubtful.update(row.place for row in rows)

    async def look_again(self) -> tuple[int, int]:
        """Remake vectors of rows that were changed back meanwhile: how many there were, and were remade.

        Their text is another than was embedded here, and the target's slot shows nothing of that. To ask
        what it shows takes a look at all rows.
        """
        if self._doubtful:
            left = await self._rows.pending_of(self._target, _ids(self._doubtful))
            self._doubtful.intersection_update(row.place for row in left)
        found = await self._in_place(self._texts) if self._texts else []
        if len(self._texts) <= IDS and all(map(self._is_of_its_text, found)):
            return 0, 0
        fresh = await self._rows.of_their_text(self._target, found)
        others = [row for row in fresh if not self._is_of_its_text(row)]
        back = [row for row in others if not self._tally.has_refused(row)]
        done = {row.place for row in fresh} - {row.place for row in back}
        places = {row.place for row in found} - done
        self._texts = {place: self._texts[place] for place in places}
        return len(back), len(await self._mended(back, back, self._alone)) if back else 0

    def _is_of_its_text(self, row: VersionedRow) -> bool:
        return self._texts.get(row.place) == fingerprint(row.document)

    async def _alone(self, rows: Sequence[VersionedRow], costs: Sequence[int]) -> int:
        """How many can be paid for, where nothing is for the target's slot."""
        return await self._budget.fitting([None] * len(rows), costs)

    async def _mended(
        self, found: Sequence[VersionedRow], rows: Sequence[VersionedRow], affordable: Affordable
    ) -> list[VersionedRow]:
        """Those whose vectors were remade; none where the model was not there, or is not paid for."""
        if self._away.error is None:
            try:
                return await self._remake(found, rows, affordable)
            except (BudgetSpent, BackendUnavailable, RateLimited) as error:
                self._away.note(error)
        return []

    async def _remake(
        self, found: Sequence[VersionedRow], rows: Sequence[VersionedRow], affordable: Affordable
    ) -> list[VersionedRow]:
        """Remake the vectors of rows as far as that is affordable; the rows that were remade.

        What was written here may be a new version of the row, so that it is read again; its vector there
        is of the text before, so that it comes with the one that it may be derived from instead. A text that
        the model refuses has none, and is asked for once.
        """
        asked = {row.place: row for row in rows}
        behind = [row for row in found if _says(row, asked) and not self._tally.has_refused(row)]
        most = await self._most(behind, asked, affordable)
        made = await self._remade(behind[:most])
        if made is None:
            return []
        vectors = made if self._is_source else _as_they_come(rows)
        dear = {row.place for row in behind[most:]}
        again = await self._again({row.place for row in found} - dear)
        return [
            replace(row, vector=vectors.vector_of(row.document))
            for row in again
            if _says(row, asked)
        ]

    async def _in_place(self, places: Collection[Place]) -> list[VersionedRow]:
        """Rows that have a vector in the target's slot, or may have lost it to a fill, as they are here."""
        filled = _at(places, await self._rows.filled_of(self._target, _ids(places)))
        places = {row.place for row in filled} | self._doubtful.intersection(places)
        found = _at(places, await self._rows.filled_of(self._space, _ids(places)))
        return [row for row in found if not row.key]

    async def _again(self, places: Collection[Place]) -> list[VersionedRow]:
        return _at(places, await self._rows.again(self._target, _ids(places)))

    async def _most(
        self,
        behind: Sequence[VersionedRow],
        asked: Mapping[Place, VersionedRow],
        affordable: Affordable,
    ) -> int:
        """How many of these can be paid for, also in the target's slot, where that is not derived."""
        if not behind:
            return 0
        costs = await self._budget.costs([row.document.embedded_text for row in behind])
        made_of = behind if self._is_source else [asked[row.place] for row in behind]
        return await affordable(made_of, costs)

    async def _remade(self, rows: Sequence[VersionedRow]) -> Remade | None:
        """The vectors that were made and written; None where a row is to be looked at again."""
        if not rows:
            return Remade()
        made = await self._model.make(rows, {})
        self.embedded += made.embedded
        pairs, refused = paired(rows, made), refused_of(rows, made)
        self._note(pairs, refused)
        is_whole = len(pairs) + len(refused) == len(rows)
        if not pairs:
            return Remade() if is_whole else None
        matrix = stack([vector for _, vector in pairs], self._space.dimensions)
        done = await self._rows.fill(
            self._space, [row for row, _ in pairs], np.asarray(matrix, np.float32)
        )
        self._tally.filled += done.filled
        if not done.changed:
            self._texts |= {row.place: fingerprint(row.document) for row, _ in pairs}
        return made if is_whole and not done.changed else None

    def _note(
        self,
        pairs: Iterable[tuple[VersionedRow, Vector]],
        refused: Iterable[tuple[VersionedRow, str]],
    ) -> None:
        """Nothing else tells of a row that is refused here, once its vector in the target's slot is made."""
        for row, reason in refused:
            self._tally.refuse(row, BEHIND + reason)
            self._texts[row.place] = fingerprint(row.document)
        for row, _ in pairs:
            self._tally.accept(row)
            self._texts[row.place] = None  # until it is written


def _as_they_come(rows: Sequence[VersionedRow]) -> Remade:
    """The vectors that rows were read with."""
    found = Remade()
    for row in rows:
        if row.vector is not None:
            found.put(row.document, row.vector)
    return found


def _fingerprint(row: VersionedRow) -> int:
    return fingerprint_of(f"{fingerprint(row.document)}:{row.version.hex()}:{row.native_id}")


def _says(row: VersionedRow, asked: Mapping[Place, VersionedRow]) -> bool:
    return row.document.embedded_text == asked[row.place].document.embedded_text


def _ids(places: Iterable[Place]) -> list[str]:
    return sorted({id for id, _, _ in places})


def _at(places: Collection[Place], found: Iterable[VersionedRow]) -> list[VersionedRow]:
    """Those that are in some places, and not others with their ids."""
    return [row for row in found if row.place in places]


def paired(rows: Sequence[VersionedRow], made: Remade) -> list[tuple[VersionedRow, Vector]]:
    """The rows that have a vector now, with it."""
    found = ((row, made.vector_of(row.document)) for row in rows)
    return [(row, vector) for row, vector in found if vector is not None]


def refused_of(rows: Sequence[VersionedRow], made: Remade) -> list[tuple[VersionedRow, str]]:
    """The rows that cannot have a vector, with the reason."""
    found = ((row, made.reason_of(row.document)) for row in rows)
    return [(row, reason) for row, reason in found if reason is not None]
