"""What a verification found, as a value, lines and a hashed file of JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from samespace.documents import SlotInfo
from samespace.errors import excerpt
from samespace.migrate.hashed import Fields, Kind, digest, hashed
from samespace.migrate.thresholds import Threshold
from samespace.space import EmbeddingSpace

FORMAT: Final = 1
_KIND: Final = Kind(
    "the verification",
    "verify again: samespace migrate verify --plan PLAN.json --backend SPEC --out FILE",
)
CheckName = Literal[
    "pending",
    "stale",
    "canary",
    "sample",
    "truncated",
    "self-retrieval",
    "overlap",
    "rank-shift",
    "judgements",
    "latency",
    "thresholds",
]
REQUIRED: Final[tuple[CheckName, ...]] = ("pending", "sample")
"""Checks without which nothing is proved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at.

    ``passed`` is None where nothing is demanded of it, or where it could not be judged; the ``sentence`` says
    which, and why. ``figures`` are JSON.
    """

    name: CheckName
    passed: bool | None
    sentence: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A hit as a report shows it: the beginning of its text."""

    id: str
    score: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A query whose ranking changed: the share of the first ten that stayed, and the first five of both."""

    query: str
    overlap: float
    old: tuple[Answer, ...]
    new: tuple[Answer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCollection:
    """What was found of one collection.

    ``rows`` are those that the plan is of, ``slot`` what tells the target's slot from another one of its
    space (empty where nothing does), ``tokens`` what looking cost (0 if nobody says). ``curve`` has shares of
    hits with the threshold that lets so many pass in either space; ``examples`` are the queries whose
    rankings changed most.
    """

    name: str
    source: EmbeddingSpace
    target: EmbeddingSpace
    rows: int
    checks: tuple[Check, ...]
    thresholds: tuple[Threshold, ...] = ()
    curve: tuple[tuple[float, float, float], ...] = ()
    examples: tuple[Example, ...] = ()
    tokens: int = 0
    slot: str = ""

    @property
    def failures(self) -> tuple[Check, ...]:
        """What did not pass, and what had to be judged and could not, or was not looked at."""
        failed = [
            each
            for each in self.checks
            if each.passed is False or (each.passed is None and each.name in REQUIRED)
        ]
        names = {each.name for each in self.checks}
        return (*failed, *(_unseen(name) for name in REQUIRED if name not in names))

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    def check(self, name: CheckName) -> Check:
        """The check of this name."""
        return next(each for each in self.checks if each.name == name)


def _unseen(name: CheckName) -> Check:
    return Check(name=name, passed=None, sentence="was not looked at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The evidence that a migration's target holds what it must, for each collection of a plan.

    ``plan`` is the plan's hash, ``version`` the library's that looked, ``made_at`` when, where that was said.
    """

    plan: str
    version: str
    collections: tuple[VerifiedCollection, ...]
    made_at: str | None = None

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON of everything else."""
        return digest(self._content())

    @property
    def passed(self) -> bool:
        """Whether all collections passed."""
        return all(each.passed for each in self.collections)

    @property
    def failures(self) -> tuple[Check, ...]:
        """What failed, of all collections."""
        return tuple(check for each in self.collections for check in each.failures)

    @property
    def tokens(self) -> int:
        """What looking cost."""
        return sum(each.tokens for each in self.collections)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the inverse of :meth:`from_dict`."""
        return hashed(self._content())

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": self.version,
            "plan": self.plan,
            "made_at": self.made_at,
            "passed": self.passed,
            "collections": [_collection_dict(each) for each in self.collections],
        }

    @classmethod
    def from_dict(cls, values: object) -> Verification:
        """Read what :meth:`to_dict` wrote.

        :class:`~samespace.errors.InvalidInput` names the field that is not what it must be; so is a file that
        was edited after it was made, which its hash shows.
        """
        fields = Fields(values, _KIND)
        fields.check_format(FORMAT)
        found = cls(
            plan=fields.text("plan"),
            version=fields.text("version"),
            made_at=fields.optional("made_at", fields.text),
            collections=tuple(map(_collection, fields.items("collections"))),
        )
        fields.check_hash()
        return found

    def lines(self) -> list[str]:
        """The verification for a terminal, a line each."""
        found = [line for each in self.collections for line in _collection_lines(each)]
        return [*found, f"{self.tokens:,} tokens spent", self.verdict]

    @property
    def verdict(self) -> str:
        """In one sentence."""
        if self.passed:
            return f"passed, for plan {self.plan[:12]}"
        names = ", ".join(dict.fromkeys(each.name for each in self.failures))
        return f"FAILED, for plan {self.plan[:12]}: {names}"


def _collection_dict(found: VerifiedCollection) -> dict[str, Any]:
    return {
        "name": found.name,
        "source": found.source.to_dict(),
        "target": found.target.to_dict(),
        "rows": found.rows,
        "checks": [
            {
                "name": each.name,
                "passed": each.passed,
                "sentence": each.sentence,
                "figures": dict(each.figures),
            }
            for each in found.checks
        ],
        "thresholds": [each.to_dict() for each in found.thresholds],
        "curve": [{"share": share, "old": old, "new": new} for share, old, new in found.curve],
        "examples": [_example_dict(each) for each in found.examples],
        "tokens": found.tokens,
        "slot": found.slot,
    }


def _example_dict(example: Example) -> dict[str, Any]:
    sides = {"old": example.old, "new": example.new}
    return {
        "query": example.query,
        "overlap": example.overlap,
        **{
            side: [{"id": each.id, "score": each.score, "text": each.text} for each in answers]
            for side, answers in sides.items()
        },
    }


def slot_id(slot: SlotInfo) -> str:
    """What tells a slot from one that was there before it or is elsewhere; empty where no run made it."""
    return slot.provenance.get("slot", "")


# Reading


def _collection(fields: Fields) -> VerifiedCollection:
    return VerifiedCollection(
        name=fields.text("name"),
        source=fields.space("source"),
        target=fields.space("target"),
        rows=fields.number("rows"),
        checks=tuple(map(_check, fields.items("checks"))),
        thresholds=tuple(map(_threshold, fields.items("thresholds"))),
        curve=tuple(map(_point, fields.items("curve"))),
        examples=tuple(map(_example, fields.items("examples"))),
        tokens=fields.number("tokens"),
        slot=fields.text("slot"),
    )


def _check(fields: Fields) -> Check:
    return Check(
        name=fields.one_of("name", get_args(CheckName)),
        passed=fields.one_of("passed", (True, False, None)),
        sentence=fields.text("sentence"),
        figures=fields.mapping("figures"),
    )


def _threshold(fields: Fields) -> Threshold:
    return Threshold(
        old=fields.real("old"),
        share=fields.real("share"),
        new=fields.real("new"),
        low=fields.optional("low", fields.real),
        high=fields.optional("high", fields.real),
    )


def _point(fields: Fields) -> tuple[float, float, float]:
    return fields.real("share"), fields.real("old"), fields.real("new")


def _example(fields: Fields) -> Example:
    return Example(
        query=fields.text("query"),
        overlap=fields.real("overlap"),
        old=tuple(map(_answer, fields.items("old"))),
        new=tuple(map(_answer, fields.items("new"))),
    )


def _answer(fields: Fields) -> Answer:
    return Answer(id=fields.text("id"), score=fields.real("score"), text=fields.text("text"))


# For people


def _collection_lines(found: VerifiedCollection) -> Iterator[str]:
    yield f"{excerpt(found.name).strip(chr(39))}: {found.source} to {found.target}, {found.rows:,} rows"
    for each in found.checks:
        yield f"  {mark(each):<7} {each.name:<15} {each.sentence}"
    for threshold in found.thresholds:
        yield f"  {'':<7} {'threshold':<15} {threshold}"


def mark(check: Check) -> str:
    """``ok``, ``FAILED``, or ``-`` where nothing is demanded or nothing could be judged."""
    if check.passed is None:
        return "-" if check.name not in REQUIRED else "FAILED"
    return "ok" if check.passed else "FAILED"
