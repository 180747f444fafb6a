"""Where an index's log of changes is: how far each shard's are there for good, and for all to see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from samespace.errors import InvalidInput, StoreUnavailable, excerpt
from samespace.stores.elasticsearch.conditions import Query

FILLED: Final = "filled"
"""What a hit is marked with that has a vector in the slot; the vector itself is not read."""
STATISTICS: Final = "_stats/docs?level=shards&filter_path=" + ",".join(
    f"indices.*.shards.*.{part}"
    for part in (
        "routing.state", "routing.primary", "seq_no.global_checkpoint", "commit.user_data.history_uuid",
    )
)  # fmt: skip
"""Of an index, what :func:`reached` reads."""
_ACTIVE: Final = {"STARTED", "RELOCATING"}


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a shard's changes are known, by their numbers; one ``history`` has each number once."""

    history: str
    number: int


Position = Mapping[int, Reached]
"""By shard. One that is not in it has not been looked at."""


def reached(answer: Mapping[str, Any], *, shards: int) -> dict[int, Reached]:
    """How far each of an index's shards is, from an answer to :data:`STATISTICS`.

    That is its global checkpoint: every copy has all changes up to there, so that a refresh shows them,
    whichever copy answers, and the loss of a primary takes none of them back. The greatest number that a
    search shows may be beyond one that is still being written. :class:`StoreUnavailable` where a shard
    has no primary.
    """
    found: dict[int, Reached] = {}
    listed = [index["shards"] for index in answer.get("indices", {}).values()]
    for shard, copies in (pair for index in listed for pair in index.items()):
        for copy in copies:
            if copy["routing"]["primary"] and copy["routing"]["state"] in _ACTIVE:
                history = copy.get("commit", {}).get("user_data", {}).get("history_uuid", "")
                found[int(shard)] = Reached(history, copy["seq_no"]["global_checkpoint"])
    if len(found) < shards:
        raise StoreUnavailable(
            f"{shards - len(found)} of {shards} shards have no primary now, so that it is not known what "
            "was written there; try again when the index is no longer red"
        )
    return found


def spelt(position: Position) -> str:
    """A position as callers keep it."""
    kept = {str(shard): [each.history, each.number] for shard, each in sorted(position.items())}
    return orjson.dumps(kept).decode()


def read(text: str) -> dict[int, Reached]:
    """The inverse of :func:`spelt`; :class:`InvalidInput` for anything else."""
    try:
        found = {int(shard): Reached(*pair) for shard, pair in orjson.loads(text).items()}
        if all(
            type(each.history) is str and type(each.number) is int and shard >= 0
            for shard, each in found.items()
        ):
            return found
    except (AttributeError, TypeError, ValueError):
        pass
    raise InvalidInput(
        f"{excerpt(text)} is no position of this collection; pass what position() or changed() returned"
    )


def carried(since: Position, now: Position) -> dict[int, Reached]:
    """``since`` as it counts for the shards as they are now.

    A shard in another history, as after a restore, or in an index that was made anew, is to be looked at
    from its beginning. What was seen stays seen where a new primary does not know yet that it is safe.
    """
    return {**since, **{shard: _from(since.get(shard), each) for shard, each in now.items()}}


def _from(before: Reached | None, now: Reached) -> Reached:
    if before is None or before.history != now.history:
        return replace(now, number=-1)
    return before


def window(slot: str, *, after: int, until: int, source: object, size: int) -> dict[str, Any]:
    """A search, for one shard, for the rows whose last change has a number in ``(after, until]``."""
    numbered: Query = {"range": {"_seq_no": {"gt": after, "lte": until}}}
    marked: Query = {"exists": {"field": slot, "_name": FILLED}}
    return {
        "query": {"bool": {"filter": [numbered], "should": [marked]}},
        "sort": [{"_seq_no": "asc"}],
        "size": size,
        "_source": source,
        "seq_no_primary_term": True,
        "track_total_hits": False,
    }


def is_filled(hit: Mapping[str, Any]) -> bool:
    """Whether a hit of :func:`window` has a vector in the slot."""
    marks: Sequence[str] = hit.get("matched_queries", ())
    return FILLED in marks
