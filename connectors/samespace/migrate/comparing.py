"""What questions tell of two slots of a collection, the old one and the new one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, field, replace
from heapq import nsmallest
from typing import Final

import numpy as np

from samespace.documents import Document, Hit
from samespace.migrate import evidence
from samespace.migrate.asking import Question, Slot, Turns
from samespace.migrate.dimensions import first_sentence
from samespace.migrate.ranking import NEAREST, Judgement, finds_itself, ndcg, overlap
from samespace.migrate.thresholds import Threshold, curve, translated
from samespace.migrate.verification import Answer, Check, CheckName, Example
from samespace.protocols import Vector
from samespace.space import EmbeddingSpace

MOST_ASKED: Final = 500
"""How many questions of each kind both slots are asked."""
EXAMPLES: Final = 5
"""How many queries are shown, and how many hits of each."""
SHOWN: Final = 160
"""Characters of a text in an example."""
_BY_QUESTIONS: Final[tuple[CheckName, ...]] = ("overlap", "rank-shift")
BY_BOTH: Final[tuple[CheckName, ...]] = (
    "self-retrieval",
    *_BY_QUESTIONS,
    "judgements",
    "latency",
)
Begin = Callable[[CheckName], None]


@dataclass(slots=True)
class Compared:
    """What came of it."""

    checks: list[Check] = field(default_factory=list)
    thresholds: tuple[Threshold, ...] = ()
    curve: tuple[tuple[float, float, float], ...] = ()
    examples: tuple[Example, ...] = ()


@dataclass(slots=True)
class _Rankings:
    """Both rankings of each question: ids without the row that it was taken from, and scores with it."""

    old: list[list[str]] = field(default_factory=list)
    new: list[list[str]] = field(default_factory=list)
    old_scores: list[list[float]] = field(default_factory=list)
    new_scores: list[list[float]] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)

    def add(self, question: Question, old: Sequence[Hit], new: Sequence[Hit]) -> None:
        """One more."""
        before, after = (
            [hit for hit in hits if hit.document.id != question.own][:NEAREST]
            for hits in (old, new)
        )
        self.old.append([hit.document.id for hit in before])
        self.new.append([hit.document.id for hit in after])
        self.old_scores.append([hit.score for hit in old[:NEAREST]])
        self.new_scores.append([hit.score for hit in new[:NEAREST]])
        example = Example(
            query=_shown(question.text),
            overlap=overlap(self.old[-1], self.new[-1]),
            old=tuple(map(_answer, before[:EXAMPLES])),
            new=tuple(map(_answer, after[:EXAMPLES])),
        )
        self.examples = nsmallest(
            EXAMPLES, [*self.examples, example], key=lambda each: each.overlap
        )

    @property
    def has_scores(self) -> bool:
        """Whether there is a hit on each side."""
        return any(self.old_scores) and any(self.new_scores)


async def compared(
    old: Slot,
    new: Slot,
    drawn: Sequence[Document],
    *,
    queries: Sequence[str] | None,
    judgements: Sequence[Judgement],
    thresholds: Sequence[float],
    why_not: str,
    turns: Turns,
    begin: Begin,
) -> Compared:
    """Ask both; ``drawn`` are rows with a vector in the new slot.

    ``why_not`` says why no backend embeds questions to the old slot, if none does: then the vectors that rows
    have there ask for what is nearest to them, and what takes more is not judged.
    """
    asking = _Asking(old, new, turns, why_not)
    await asking.see(drawn)
    begin("self-retrieval")
    await asking.find_themselves(drawn)
    begin("overlap")
    rankings = await asking.rank(drawn, queries)
    begin("judgements")
    await asking.judge(judgements)
    asking.time()
    asking.translate(thresholds, rankings)
    return asking.found


class _Asking:
    """The questions in their order, and what came of them so far."""

    def __init__(self, old: Slot, new: Slot, turns: Turns, why_not: str) -> None:
        self._old, self._new, self._turns, self._why_not = old, new, turns, why_not
        self._stored: dict[str, Vector] = {}
        self.found = Compared()

    async def see(self, drawn: Sequence[Document]) -> None:
        """Read what vectors these rows have in the old slot."""
        rows = await self._old.of([row.id for row in drawn])
        self._stored = {row.document.id: row.vector for row in rows if row.vector is not None}

    async def find_themselves(self, drawn: Sequence[Document]) -> None:
        """Ask for each row by its own text, where it has a vector in both."""
        if self._why_not:
            self._leave_out(["self-retrieval"], self._why_not)
            return
        rows = [row for row in drawn if row.id in self._stored]
        questions = await self._embedded([row.embedded_text for row in rows])
        old, new = list[bool](), list[bool]()
        for row in rows:
            if (question := questions.get(row.embedded_text)) is not None:
                before, after = await self._turns.ask(question)
                old.append(finds_itself(before, row))
                new.append(finds_itself(after, row))
        if not new:
            why = "no row of the sample has a vector in both slots, and a text to ask with"
            self._leave_out(["self-retrieval"], why)
            return
        self.found.checks.append(evidence.self_retrieval(old, new))

    async def rank(self, drawn: Sequence[Document], queries: Sequence[str] | None) -> _Rankings:
        """Ask the queries, or what the rows say first."""
        found = _Rankings()
        if queries is not None and self._why_not:
            self._leave_out(_BY_QUESTIONS, self._why_not)
            return found
        questions, asked = await self._questions(drawn, queries)
        for question in questions:
            found.add(question, *await self._turns.ask(question))
        if not questions:
            self._leave_out(_BY_QUESTIONS, "there is nothing to ask with in both slots")
            return found
        self.found.checks += evidence.rankings(found.old, found.new, asked)
        self.found.examples = tuple(each for each in found.examples if each.overlap < 1)
        return found

    async def _questions(
        self, drawn: Sequence[Document], queries: Sequence[str] | None
    ) -> tuple[list[Question], str]:
        """What is asked, and what that is in words."""
        if queries is not None:
            some = _spread(queries)
            named = _left_out(queries)
            return list((await self._embedded(some)).values()), f"queries that were given{named}"
        if self._why_not:
            return self._neighbours(
                drawn
            ), f"rows that ask by their own vectors, since {self._why_not}"
        sentences = {row.id: first_sentence(row.embedded_text) for row in drawn}
        made = await self._embedded(list(sentences.values()))
        questions = [replace(made[text], own=id) for id, text in sentences.items() if text in made]
        return questions, "first sentences of sampled texts"

    def _neighbours(self, drawn: Sequence[Document]) -> list[Question]:
        pairs = [(row, self._stored.get(row.id), row.vector) for row in drawn]
        return [
            Question(
                text=row.embedded_text,
                old=_unit(old, self._old.space),
                new=_unit(new, self._new.space),
                own=row.id,
            )
            for row, old, new in pairs
            if old is not None and new is not None and _has_direction(old) and _has_direction(new)
        ]

    async def judge(self, judgements: Sequence[Judgement]) -> None:
        """Ask what was judged."""
        if not judgements or self._why_not:
            why = self._why_not if judgements else "there are no judgements (--judgements)"
            self._leave_out(["judgements"], why)
            return
        ids = list(dict.fromkeys(each.id for each in judgements))
        there = await self._new.within(ids)
        grades: dict[str, dict[str, float]] = {}
        for each in judgements:
            if each.id in there:
                grades.setdefault(each.query, {})[each.id] = each.grade
        questions = await self._embedded(_spread(list(grades)))
        old, new = list[float](), list[float]()
        for query, question in questions.items():
            if max(grades[query].values()) > 0:
                before, after = await self._turns.ask(question)
                old.append(ndcg([hit.document.id for hit in before], grades[query]))
                new.append(ndcg([hit.document.id for hit in after], grades[query]))
        if not new:
            self._leave_out(["judgements"], "no query has a row with a grade above 0 that is there")
            return
        unknown = len(ids) - len(there)
        self.found.checks.append(
            evidence.judgements(old, new, unknown=unknown, some_of=_left_out(grades))
        )

    def time(self) -> None:
        """How long each took."""
        if not self._turns.new_seconds:
            self._leave_out(["latency"], "nothing was asked")
            return
        times = self._turns.old_seconds, self._turns.new_seconds
        self.found.checks.append(evidence.latency(*times))

    def translate(self, thresholds: Sequence[float], rankings: _Rankings) -> None:
        """What thresholds become; neighbours of rows have no scores of queries."""
        if self._why_not or not rankings.has_scores:
            if thresholds:
                why = self._why_not or "no query has a hit"
                self._leave_out(["thresholds"], why)
            return
        scores = rankings.old_scores, rankings.new_scores
        self.found.curve = tuple(curve(*scores))
        self.found.thresholds = tuple(translated(each, *scores) for each in thresholds)

    async def _embedded(self, texts: Sequence[str]) -> dict[str, Question]:
        """What both backends take, by text."""
        old, new = await self._old.vectors_of(texts), await self._new.vectors_of(texts)
        return {
            text: Question(text=text, old=old[text], new=new[text])
            for text in texts
            if text in old and text in new
        }

    def _leave_out(self, names: Sequence[CheckName], why: str) -> None:
        self.found.checks += evidence.unjudged(names, why)


def _left_out(queries: Sized) -> str:
    """What is said where more are there than are asked."""
    return "" if len(queries) <= MOST_ASKED else f" (some of {len(queries):,})"


def _spread(queries: Sequence[str]) -> Sequence[str]:
    """As many as are asked, evenly spread."""
    return queries[:: max(1, -(-len(queries) // MOST_ASKED))]


def _has_direction(vector: Vector) -> bool:
    """Whether there is something near it: nothing is near zeros, or what is no number."""
    norm = float(np.linalg.norm(vector))
    return 0 < norm < math.inf


def _unit(vector: Vector, space: EmbeddingSpace) -> Vector:
    """A stored vector as a question: half precision may have moved its norm."""
    if not space.normalized:
        return vector
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def _answer(hit: Hit) -> Answer:
    text = _shown(hit.document.text)
    return Answer(id=hit.document.id, score=round(hit.score, 6), text=text)


def _shown(text: str) -> str:
    found = " ".join(text[: 4 * SHOWN].split())
    return found if len(found) <= SHOWN else found[: SHOWN - 1] + "…"
