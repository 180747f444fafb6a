"""What a backend has shown of itself: that it embeds as what filled a slot."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from samespace.embedding import Embedded, embed_async, embed_proving_async
from samespace.guard import Canary, Direction, SlotRecord, check_canary, differing
from samespace.protocols import AnyBackend
from samespace.space import EmbeddingSpace


class AsyncProofs:
    """The proofs of a handle's backends, one for each slot and direction.

    A proof is of one canary: a collection that was made anew, or has got a canary since, asks again.
    """

    def __init__(self, *, collection: str, threshold: float, scope: Sequence[str] = ()) -> None:
        self._collection = collection
        self._scope = scope
        self.threshold = threshold
        self._locks: dict[tuple[EmbeddingSpace, Direction], asyncio.Lock] = {}
        self._proved: dict[
            tuple[EmbeddingSpace, Direction], tuple[Canary | None, float | None]
        ] = {}

    def holds(self, slot: SlotRecord, direction: Direction) -> bool:
        """Whether the slot's backend is proved by the canary that the slot has now."""
        proof = self._proved.get((slot.space, direction))
        if proof is None:
            return False
        canary = proof[0]
        return canary is slot.canary or (canary is not None and canary.equals(slot.canary))

    def cosine(self, slot: SlotRecord, direction: Direction) -> float | None:
        """The lowest cosine that proved it; None while unproved, and without a canary."""
        return self._proved[slot.space, direction][1] if self.holds(slot, direction) else None

    def made(self, slot: SlotRecord) -> None:
        """The slot's canary was made by this handle's backend just now."""
        cosine = None if slot.canary is None else 1.0
        for direction in ("documents", "queries"):
            self._proved[slot.space, direction] = slot.canary, cosine

    def differing(self, slot: SlotRecord, made: Canary) -> dict[Direction, float]:
        """The cosines of the directions in which ``made`` would not prove a backend to the slot."""
        return differing(slot, made, threshold=self.threshold)

    async def embed(
        self, backend: AnyBackend, direction: Direction, texts: Sequence[str], slot: SlotRecord
    ) -> Embedded:
        """The texts' vectors by a backend that is proved by then, or :class:`SpaceMismatch`.

        Of callers at once the first has it proved, the others wait for that. A proof that fails
        leaves it unproved.
        """
        if not self.holds(slot, direction):
            async with self._locks.setdefault((slot.space, direction), asyncio.Lock()):
                if not self.holds(slot, direction):
                    return await self._prove(backend, direction, texts, slot)
        return await embed_async(backend, direction, texts)

    async def _prove(
        self, backend: AnyBackend, direction: Direction, texts: Sequence[str], slot: SlotRecord
    ) -> Embedded:
        if slot.canary is None:
            self._proved[slot.space, direction] = None, None
            return await embed_async(backend, direction, texts)
        answer, canary = await embed_proving_async(backend, direction, texts)
        cosine = check_canary(
            slot,
            direction,
            canary,
            collection=self._collection,
            threshold=self.threshold,
            scope=self._scope,
        )
        self._proved[slot.space, direction] = slot.canary, cosine
        return answer
