"""Verifications that nobody had to gather."""

from __future__ import annotations

from samespace.migrate import Check, MigrationPlan, Verification, VerifiedCollection


def passing(made: MigrationPlan) -> Verification:
    """Evidence of all collections, which nobody had to gather."""
    return Verification(
        plan=made.hash,
        version="0",
        collections=tuple(
            VerifiedCollection(
                name=each.name,
                source=each.source.space,
                target=each.target.space,
                rows=each.rows,
                checks=(Check(name="pending", passed=True, sentence="no row is pending"),),
            )
            for each in made.collections
        ),
    )
