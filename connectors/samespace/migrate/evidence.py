"""What was measured of a migrated collection, judged: a check each, with its sentence and figures."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from samespace.audit.intervals import share_interval
from samespace.audit.verdicts import bin_of, edges_of
from samespace.errors import excerpt
from samespace.guard import suggestion
from samespace.migrate.ranking import (
    NEAREST,
    Paired,
    overlap,
    paired_means,
    paired_shares,
    quantile,
    shifts,
)
from samespace.migrate.verification import Check, CheckName
from samespace.vectors import cosine_text

AGREEMENT: Final = 0.999
"""Smallest cosine of a stored vector with that of its text, embedded again by the same model."""
NAMED: Final = 10
"""How many rows a sentence names."""
_RUN: Final = "samespace migrate run --plan PLAN.json --backend SPEC"


@dataclass(slots=True)
class Named:
    """A number of rows, and the first of them by their ids."""

    count: int = 0
    ids: list[str] = field(default_factory=list)

    def add(self, id: str) -> None:
        """One more."""
        self.count += 1
        if len(self.ids) < NAMED:
            self.ids.append(id)

    def __str__(self) -> str:
        more = f" and {self.count - len(self.ids):,} more" if self.count > len(self.ids) else ""
        return ", ".join(map(excerpt, self.ids)) + more


@dataclass(slots=True)
class Pending:
    """Rows without a vector of the target.

    ``blank`` have neither a text nor a vector of the source, so that nothing is missing there;
    ``textless`` have a vector of the source and no text that another could be made from.
    """

    missing: Named = field(default_factory=Named)
    textless: Named = field(default_factory=Named)
    blank: int = 0
    settled: int = 0

    @property
    def count(self) -> int:
        """How many that matters of."""
        return self.missing.count + self.textless.count


@dataclass(slots=True)
class Stale:
    """Rows with a vector of an earlier text, and how many were filled or written again meanwhile."""

    rows: Named = field(default_factory=Named)
    settled: int = 0


@dataclass(slots=True)
class Sampled:
    """Stored vectors of a random sample against those that their texts have now.

    ``cosines`` are of the rows that were judged. ``foreign`` differ, by id with what is likely;
    ``changed`` were written meanwhile; ``refused`` are texts that the backend did not take, each with
    why, and ``cut`` those that it shortened; ``blank`` have nothing to embed. ``shared`` are ids that
    several rows have, each of which was judged by its own text.
    """

    threshold: float = AGREEMENT
    drawn: int = 0
    cosines: MutableSequence[float] = field(default_factory=lambda: array("f"))
    foreign: Named = field(default_factory=Named)
    refused: dict[str, str] = field(default_factory=dict)
    cut: Named = field(default_factory=Named)
    changed: int = 0
    blank: int = 0
    shared: Named = field(default_factory=Named)

    @property
    def judged(self) -> int:
        """How many could be compared."""
        return self.drawn - self.unjudged

    @property
    def unjudged(self) -> int:
        """How many could not."""
        return len(self.refused) + self.changed + self.blank


def pending(found: Pending, rows: int, *, give_up_textless: bool = False) -> Check:
    """Whether every row has a vector of the target, those without a text aside where these are given up."""
    figures = {
        "rows": rows,
        "missing": found.missing.count,
        "textless": found.textless.count,
        "given_up": found.textless.count if give_up_textless else 0,
        "blank": found.blank,
        "settled": found.settled,
        "ids": [*found.missing.ids, *found.textless.ids][:NAMED],
    }
    said, passed = [], not found.missing.count
    if found.missing.count:
        said.append(
            f"{_rows(found.missing.count)} of {rows:,} without a vector of the target: {found.missing}; "
            f"run it again ({_RUN}), which says what it cannot embed"
        )
    if found.textless.count and not give_up_textless:
        passed = False
        said.append(
            f"{_rows(found.textless.count)} with a vector of the source and no text to make another from: "
            f"{found.textless}; give these a text or delete them, or give their vectors up, here and in the "
            "end (--give-up-textless, of samespace migrate verify and finish)"
        )
    if passed:
        said.append(
            f"every one of {_rows(rows)} has a vector of the target{_behind(found.settled)}"
        )
    return Check(
        name="pending",
        passed=passed,
        sentence="; ".join([*said, *_aside(found, give_up_textless=give_up_textless)]),
        figures=figures,
    )


def _aside(found: Pending, *, give_up_textless: bool) -> list[str]:
    """The rows that lack a vector and are no failure."""
    said = []
    if found.textless.count and give_up_textless:
        said.append(
            f"{_rows(found.textless.count)} aside with no text, whose vector of the source is given up: "
            f"{found.textless}"
        )
    if found.blank:
        said.append(f"{_rows(found.blank)} with neither text nor vector aside")
    return said


def stale(found: Stale, *, is_told: bool) -> Check:
    """Whether every vector is of the text that its row has; ``is_told``: the slot keeps what each is of."""
    figures = {"stale": found.rows.count, "settled": found.settled, "ids": list(found.rows.ids)}
    if found.rows.count:
        sentence = (
            f"{_rows(found.rows.count)} with a vector of an earlier text: {found.rows}; run it again "
            f"({_RUN})"
        )
        return Check(name="stale", passed=False, sentence=sentence, figures=figures)
    if not is_told:
        sentence = (
            "not told: the slot does not say what its vectors were made from; the sample tells"
        )
        return Check(name="stale", passed=None, sentence=sentence, figures=figures)
    sentence = (
        f"no vector is of an earlier text, as far as their sources show{_behind(found.settled)}"
    )
    return Check(name="stale", passed=True, sentence=sentence, figures=figures)


def _behind(settled: int) -> str:
    return f"; {_rows(settled)} settled meanwhile, as a follower came to them" if settled else ""


def canary(cosines: Mapping[str, float], least: float) -> Check:
    """Whether the backend embeds known texts as what filled the slot did; no cosines: it has none."""
    if not cosines:
        return _unjudged("canary", "the slot has no canary; the sample tells")
    figures = {name: round(cosine, 6) for name, cosine in cosines.items()}
    wrong = [name for name, cosine in cosines.items() if not cosine >= least]
    if not wrong:
        shown = ", ".join(f"{name} {cosine:.4f}" for name, cosine in cosines.items())
        return Check(
            name="canary", passed=True, sentence=f"known texts agree: {shown}", figures=figures
        )
    said = "; ".join(
        f"as {name} {cosine_text(cosines[name], least)}, at least {least} expected, which suggests "
        f"{suggestion(cosines[name])}"
        for name in wrong
    )
    return Check(
        name="canary",
        passed=False,
        sentence=f"the backend embeds known texts otherwise than what filled the slot: {said}",
        figures=figures,
    )


def sample(found: Sampled, population: int) -> Check:
    """Whether each drawn vector is that of its text, and what that says of all ``population`` vectors."""
    if not population:
        return Check(name="sample", passed=True, sentence="there is no vector to embed again")
    if not found.judged:
        return _unjudged("sample", f"none of {found.drawn:,} drawn rows could be compared")
    population = max(population, found.drawn)
    low, high = _bounds(found, population)
    wrong, lowest = found.foreign.count, min(found.cosines)
    if wrong:
        sentence = (
            f"{wrong:,} of {found.judged:,} vectors are not those of their texts (cosine below "
            f"{found.threshold:g}): {found.foreign}; {_said_of_others(found, population)}; samespace audit "
            "says what they are, samespace repair mends them"
        )
    else:
        sentence = (
            f"{found.judged:,} vectors are those of their texts, embedded again (cosine from {lowest:.4f} "
            f"on); {_said_of_others(found, population)}"
        )
    sentence += _said_of_shared(found.shared)
    figures = {
        "drawn": found.drawn,
        "judged": found.judged,
        "population": population,
        "foreign": wrong,
        "changed": found.changed,
        "shared": found.shared.count,
        "ids": list(found.foreign.ids),
        "low": round(low, 6),
        "high": round(high, 6),
        "threshold": found.threshold,
        "lowest": round(lowest, 6),
        **_histogram(found.cosines, found.threshold),
    }
    return Check(name="sample", passed=not wrong, sentence=sentence, figures=figures)


def _bounds(found: Sampled, population: int) -> tuple[float, float]:
    """Of the share of vectors that differ among all; one that was not judged may be either."""
    wrong, drawn = found.foreign.count, found.drawn
    low, _ = share_interval(wrong, drawn, population)
    _, high = share_interval(wrong + found.unjudged, drawn, population)
    return low, high


def _said_of_others(found: Sampled, population: int) -> str:
    if found.drawn < population:
        low, high = _bounds(found, population)
        return f"of all {population:,}, {low:.2%} to {high:.2%} differ, at 95 %"
    aside = f", of which {found.unjudged:,} could not be compared" if found.unjudged else ""
    return f"all were looked at{aside}"


def _said_of_shared(shared: Named) -> str:
    if not shared.count:
        return ""
    has = "1 id is" if shared.count == 1 else f"{shared.count:,} ids are"
    return (
        f"; {has} of several rows, none of which can be written by it: {shared}; samespace audit names the "
        "rows, give them ids of their own"
    )


def _histogram(cosines: Sequence[float], threshold: float) -> dict[str, Any]:
    edges = edges_of(threshold)
    counts = Counter(bin_of(cosine, edges) for cosine in cosines)
    return {"edges": list(edges), "histogram": [counts[place] for place in range(len(edges))]}


def truncated(found: Sampled) -> Check:
    """Whether the backend takes the drawn texts whole."""
    refused = Named()
    for id in found.refused:
        refused.add(id)
    figures = {
        "cut": found.cut.count,
        "refused": refused.count,
        "ids": [*found.cut.ids, *refused.ids][:NAMED],
    }
    said = []
    if found.cut.count:
        said.append(f"{_rows(found.cut.count)} whose text is longer than the model takes, so that the "
                    f"vector is of its beginning alone: {found.cut}")  # fmt: skip
    if refused.count:
        said.append(f"{_rows(refused.count)} with a vector and a text that the backend refuses, so that "
                    f"nobody knows what the vector is of: {refused} "
                    f"({next(iter(found.refused.values()))})")  # fmt: skip
    if said:
        sentence = f"{'; '.join(said)}; chunk these texts first"
        return Check(name="truncated", passed=False, sentence=sentence, figures=figures)
    sentence = f"the backend takes each of {_rows(found.drawn)} whole"
    return Check(name="truncated", passed=True, sentence=sentence, figures=figures)


def self_retrieval(old: Sequence[bool], new: Sequence[bool]) -> Check:
    """Whether as many texts find their own row first as in the old slot."""
    found = paired_shares(old, new)
    what = f"of {_rows(found.pairs)} asked for by their own texts {found.new:.1%} come first"
    return _compared("self-retrieval", found, what, f"{found.old:.1%} in the old slot")


def judgements(
    old: Sequence[float], new: Sequence[float], *, unknown: int, some_of: str = ""
) -> Check:
    """nDCG@10 over queries with judgements; ``unknown`` of these are of rows that are not there.

    ``some_of`` says of how many the queries are some.
    """
    found = paired_means(old, new)
    aside = f"; {unknown:,} judged rows are not there, or not of the plan" if unknown else ""
    what = f"nDCG@{NEAREST} {found.new:.3f} over {found.pairs:,} judged queries{some_of}"
    return _compared("judgements", found, what, f"{found.old:.3f} in the old slot{aside}")


def _compared(name: CheckName, found: Paired, new: str, old: str) -> Check:
    if found.low is None or found.high is None:
        bounds = "too few to say whether that differs"
    else:
        bounds = f"a difference of {found.difference:+.3f} ({found.low:+.3f} to {found.high:+.3f}, at 95 %)"
    if found.is_worse:
        bounds += ", which is significantly below"
    passed = None if found.is_worse is None else not found.is_worse
    return Check(
        name=name, passed=passed, sentence=f"{new}, {old}: {bounds}", figures=found.to_dict()
    )


def rankings(
    old: Sequence[Sequence[str]], new: Sequence[Sequence[str]], asked: str
) -> tuple[Check, Check]:
    """How alike the rankings of the same queries are; ``asked`` says which queries these are."""
    shares = [overlap(a, b) for a, b in zip(old, new, strict=True)]
    moved = [step for a, b in zip(old, new, strict=True) for step in shifts(a, b)]
    first = sum(a[:1] == b[:1] for a, b in zip(old, new, strict=True)) / len(shares)
    tenths = Counter(round(share * NEAREST) for share in shares)
    steps = Counter(moved)
    mean = sum(shares) / len(shares)
    alike = Check(
        name="overlap",
        passed=None,
        sentence=f"overlap@{NEAREST} {mean:.3f} over {len(shares):,} {asked}; for {first:.1%} the first "
        "hit is the same. Nothing is demanded of it: another model ranks otherwise",
        figures={
            "queries": len(shares),
            "mean": round(mean, 6),
            "same_first": round(first, 6),
            "asked": asked,
            "tenths": [tenths[place] for place in range(NEAREST + 1)],
        },
    )
    middle = quantile(moved, 0.5) if moved else 0
    far = quantile(moved, 0.95) if moved else 0
    shifted = Check(
        name="rank-shift",
        passed=None,
        sentence=f"of {len(moved):,} hits that stayed, half moved by at most {middle:g} places, 95 % by at "
        f"most {far:g}",
        figures={
            "hits": len(moved),
            "p50": middle,
            "p95": far,
            "places": [steps[place] for place in range(NEAREST)],
        },
    )
    return alike, shifted


def latency(old: Sequence[float], new: Sequence[float]) -> Check:
    """How long searches took, in seconds, in turns on both slots."""
    figures: dict[str, Any] = {"searches": len(new)}
    for side, seconds in (("old", old), ("new", new)):
        figures[side] = {
            "p50": round(quantile(seconds, 0.5), 6),
            "p95": round(quantile(seconds, 0.95), 6),
        }
    shown = {
        side: f"p50 {_shown(figures[side]['p50'])}, p95 {_shown(figures[side]['p95'])}"
        for side in ("old", "new")
    }
    sentence = (
        f"a search takes {shown['new']} in the new slot, {shown['old']} in the old, by vector and without "
        f"embedding ({len(new):,} each, in turns)"
    )
    return Check(name="latency", passed=None, sentence=sentence, figures=figures)


def _shown(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def unjudged(names: Iterable[CheckName], why: str) -> list[Check]:
    """Checks that could not be made, each with why."""
    return [_unjudged(name, why) for name in names]


def _unjudged(name: CheckName, why: str) -> Check:
    return Check(name=name, passed=None, sentence=f"not judged: {why}")


def agree(cosines: Mapping[str, float], least: float) -> bool:
    """Whether a canary's cosines are all high enough; so are none."""
    return all(cosine >= least for cosine in cosines.values())


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"
