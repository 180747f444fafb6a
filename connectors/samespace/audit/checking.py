"""A check for machines: does a collection hold what is expected, whole and in order?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from samespace.audit.rows import Rows
from samespace.documents import CollectionInfo, SlotInfo
from samespace.embedding import close_async, make_canary_async, require_any
from samespace.errors import InvalidInput, excerpt
from samespace.guard import SlotState, check_threshold, suggestion
from samespace.ingest.running import served
from samespace.ingest.target import AnyStore
from samespace.ingest.worker import GRACE, in_a_thread
from samespace.protocols import AnyBackend
from samespace.space import EmbeddingSpace, differences
from samespace.vectors import cosine_text, cosines

Cosines = Mapping[str, float]
"""The lowest cosine of the canary texts in each direction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What a check found. ``problems`` says in words what is not fine; without any all is.

    ``slot`` is the one that was checked, None where the collection has none of the expected space; ``slots``
    are all of them. ``stale`` counts the slot's rows whose text changed behind their vector; None where the
    slot does not say what its vectors were made from, so that nobody can tell. ``canary`` has
    the cosines of documents and queries, and nothing where no backend or no canary was there to compare.
    """

    collection: str
    expected: EmbeddingSpace
    rows: int
    slots: tuple[SlotInfo, ...]
    slot: SlotInfo | None
    stale: int | None
    canary: Cosines
    problems: tuple[str, ...]

    @property
    def is_fine(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "collection": self.collection,
            "expected": self.expected.to_dict(),
            "rows": self.rows,
            "slots": [
                {"name": slot.name, "space": slot.space.to_dict(), "state": slot.state,
                 "pending": slot.pending}
                for slot in self.slots
            ],
            "stale": self.stale,
            "canary": dict(self.canary),
            "problems": list(self.problems),
            "fine": self.is_fine,
        }  # fmt: skip


def check(
    store: AnyStore,
    *,
    expect: EmbeddingSpace | None = None,
    backend: AnyBackend | None = None,
    max_pending: int = 0,
    max_stale: int = 0,
    threshold: float | None = None,
) -> CheckReport:
    """Look whether a collection holds ``expect``, by default the handle's space, ready and up to date.

    With a ``backend`` of that space, by default the store's, the canary is compared in both directions. Not
    fine is: no slot of the space, one that is being filled, more than ``max_pending`` rows without a
    vector, more than ``max_stale`` whose text changed behind theirs (for which a store may have to read every
    row), a canary's cosine below ``threshold``, by default the handle's ``canary_threshold``. What cannot
    be told raises: :class:`InvalidInput`, and errors of store and backend as they are. It writes nothing; an
    async store is closed in the end.
    """
    model = require_any(store.backend if backend is None else backend)
    wanted = expect or (store.space if model is None else model.space)
    if model is not None and model.space != wanted:
        raise InvalidInput(
            f"the backend embeds as {model.space}, and {wanted} is expected; pass one of that space, or none"
        )
    least = check_threshold(store.canary_threshold if threshold is None else threshold)
    asked = _Asked(wanted, model, max_pending, max_stale, least)
    return served(lambda _: _run(store, asked))


@dataclass(frozen=True, slots=True)
class _Asked:
    wanted: EmbeddingSpace
    backend: AnyBackend | None
    max_pending: int
    max_stale: int
    threshold: float


async def _run(store: AnyStore, asked: _Asked) -> CheckReport:
    with ExitStack() as threads:
        rows = Rows(store, threads.enter_context(in_a_thread("check", grace=GRACE)))
        try:
            return await _checked(rows, asked)
        finally:
            if store.is_async and rows.is_open:
                await rows.close()
                if asked.backend is not None:
                    await close_async(asked.backend)


async def _checked(rows: Rows, asked: _Asked) -> CheckReport:
    info = await rows.info()
    slot = next((slot for slot in info.slots if slot.space == asked.wanted), None)
    stale = None if slot is None else await _stale(rows, info, slot)
    canary = {} if slot is None else await canary_cosines(slot, asked.backend)
    return CheckReport(
        collection=info.name,
        expected=asked.wanted,
        rows=info.rows,
        slots=info.slots,
        slot=slot,
        stale=stale,
        canary=canary,
        problems=tuple(_problems(info, slot, stale, canary, asked)),
    )


async def _stale(rows: Rows, info: CollectionInfo, slot: SlotInfo) -> int | None:
    found = await rows.count_stale(slot.space)
    has_text = info.layout is None or isinstance(info.layout.text, str)
    return found if found or (slot.name == slot.space.id and has_text) else None


async def canary_cosines(slot: SlotInfo, backend: AnyBackend | None) -> dict[str, float]:
    """The lowest cosine of the canary texts in each direction; nothing where there is nothing to compare."""
    if slot.canary is None or backend is None:
        return {}
    now = await make_canary_async(backend)
    pairs = {
        "documents": (now.documents, slot.canary.documents),
        "queries": (now.queries, slot.canary.queries),
    }
    return {
        direction: float(cosines(made.astype("f4"), kept.astype("f4")).min())
        for direction, (made, kept) in pairs.items()
    }


def _problems(
    info: CollectionInfo, slot: SlotInfo | None, stale: int | None, canary: Cosines, asked: _Asked
) -> Iterator[str]:
    if slot is None:
        held = ", ".join(str(each.space) for each in info.slots)
        yield f"it holds {held}; {asked.wanted} is expected{_said(info.slots, asked.wanted)}"
        return
    if slot.state != SlotState.READY:
        yield f"the slot is {slot.state}: {slot.pending:,} of {info.rows:,} rows have no vector yet"
    elif slot.pending > asked.max_pending:
        yield (
            f"{slot.pending:,} rows are pending, at most {asked.max_pending:,} may be "
            "(samespace repair --pending, which names those that it must leave)"
        )
    if stale is not None and stale > asked.max_stale:
        yield (
            f"{stale:,} rows are stale, at most {asked.max_stale:,} may be (samespace repair --stale)"
        )
    for direction, cosine in canary.items():
        if not cosine >= asked.threshold:
            yield (
                f"the backend embeds known texts as {direction} otherwise than what filled the slot: cosine "
                f"{cosine_text(cosine, asked.threshold)}, at least {asked.threshold} expected; this suggests "
                f"{suggestion(cosine)}"
            )


def _said(slots: Sequence[SlotInfo], wanted: EmbeddingSpace) -> str:
    """In what the nearest slot differs."""
    nearest = min((differences(slot.space, wanted) for slot in slots), key=len)
    said = [
        f"{each.field} {excerpt(each.stored)} is not {excerpt(each.offered)}" for each in nearest
    ]
    return f" ({', '.join(said)})"


# Metrics

_HELP: Final = {
    "samespace_rows": "Rows of the collection.",
    "samespace_pending_rows": "Rows without a vector in the slot. No store knows since when, so that "
    "this count is the lag of whoever fills it.",
    "samespace_slot_ready": "Whether the slot is ready to be searched.",
    "samespace_stale_rows": "Rows whose text changed behind their vector.",
    "samespace_canary_cosine": "Lowest cosine of known texts, embedded now and when the slot was made.",
    "samespace_check_success": "Whether the last check found all as expected.",
    "samespace_check_timestamp_seconds": "When the last check ended, in seconds since 1970.",
}


def metrics(collection: str, report: CheckReport | None, *, timestamp: float) -> str:
    """Prometheus' text format, of a check that ended at ``timestamp``; None of one that could not tell."""
    here = {"collection": collection}
    samples: dict[str, list[tuple[dict[str, str], float]]] = {name: [] for name in _HELP}
    if report is not None:
        samples["samespace_rows"] = [(here, report.rows)]
        samples["samespace_stale_rows"] = [] if report.stale is None else [(here, report.stale)]
        for slot in report.slots:
            labels = {**here, "slot": slot.name}
            samples["samespace_pending_rows"].append((labels, slot.pending))
            samples["samespace_slot_ready"].append((labels, slot.state == SlotState.READY))
        samples["samespace_canary_cosine"] = [
            ({**here, "direction": direction}, cosine)
            for direction, cosine in report.canary.items()
        ]
    samples["samespace_check_success"] = [(here, report is not None and report.is_fine)]
    samples["samespace_check_timestamp_seconds"] = [(here, timestamp)]
    return "".join(_family(name, found) for name, found in samples.items() if found)


def _family(name: str, samples: Sequence[tuple[dict[str, str], float]]) -> str:
    lines = [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} gauge"]
    lines += [f"{name}{{{_labels(labels)}}} {float(value)!r}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    value = value.encode(errors="replace").decode()  # a name on a command line may be any bytes
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
