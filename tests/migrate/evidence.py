"""Verifications that nobody had to gather."""

from __future__ import annotations

from typing import get_args

from samespace.migrate import Check, MigrationPlan, Verification, VerifiedCollection
from samespace.migrate.verification import CheckName, slot_id
from samespace.protocols import VectorStore


def passing(made: MigrationPlan, *stores: VectorStore, slot: str = "") -> Verification:
    """Evidence of the slots that these handles' collections have, or of one that is known by ``slot``."""
    known = {store.collection: _slot(made, store) for store in stores}
    return Verification(
        plan=made.hash,
        version="0",
        collections=tuple(
            VerifiedCollection(
                name=each.name,
                source=each.source.space,
                target=each.target.space,
                rows=each.rows,
                checks=tuple(
                    Check(name=name, passed=True, sentence="nothing is amiss")
                    for name in get_args(CheckName)
                ),
                slot=known.get(each.name, slot),
            )
            for each in made.collections
        ),
    )


def _slot(made: MigrationPlan, store: VectorStore) -> str:
    target = made.of(store.collection).target.space
    return next((slot_id(slot) for slot in store.info().slots if slot.space == target), "")
