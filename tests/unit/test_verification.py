"""The pure parts of a verification: rankings, thresholds, evidence, its file and its page."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samespace.documents import Document, Hit
from samespace.errors import InvalidInput
from samespace.migrate import Check, Verification, VerifiedCollection, evidence, verification_page
from samespace.migrate.evidence import Named, Pending, Sampled, Stale
from samespace.migrate.ranking import (
    Judgement,
    Paired,
    finds_itself,
    judgements_from,
    ndcg,
    overlap,
    paired_means,
    paired_shares,
    quantile,
    shifts,
)
from samespace.migrate.thresholds import Scores, Threshold, curve, translated
from samespace.migrate.verification import Answer, CheckName, Example
from samespace.space import EmbeddingSpace

V2 = EmbeddingSpace(model="jina-embeddings-v2-base-en", dimensions=768)
V3 = EmbeddingSpace(model="jina-embeddings-v3", dimensions=1024, task="retrieval.passage")


# Rankings


def hit(id: str, score: float, text: str = "") -> Hit:
    return Hit(Document(id, text or f"text of {id}"), score)


def test_a_row_finds_itself_if_it_comes_first_or_ties_or_another_has_its_text() -> None:
    own = Document("a", "text of a")
    assert finds_itself([hit("a", 0.9), hit("b", 0.8)], own)
    assert finds_itself([hit("b", 0.9), hit("a", 0.9 - 1e-8)], own)
    assert finds_itself([hit("b", 0.9, "text of a"), hit("a", 0.5)], own)
    assert not finds_itself([hit("b", 0.9), hit("a", 0.8)], own)
    assert not finds_itself([], own)


def test_rankings_share_and_move() -> None:
    assert overlap(["a", "b", "c"], ["c", "b", "d"]) == 2 / 3
    assert overlap(["a"], ["a", "b"]) == 0.5
    assert overlap([], []) == 1
    assert shifts(["a", "b", "c"], ["c", "b", "d"]) == [0, 2]


def test_ndcg_is_that_of_trec_eval() -> None:
    grades = {"a": 3.0, "b": 2.0, "c": 1.0}
    assert ndcg(["a", "b", "c"], grades) == 1
    best = 3 + 2 / math.log2(3) + 1 / 2
    assert ndcg(["x", "a", "c"], grades) == pytest.approx((3 / math.log2(3) + 1 / 2) / best)
    assert ndcg([*"xxxxxxxxxx", "a"], grades) == 0


def test_the_difference_of_shares_is_bounded_by_the_rows_that_moved() -> None:
    same = paired_shares([True] * 500, [True] * 500)
    assert same.is_worse is False
    assert same.low is not None
    assert -0.005 < same.low < 0
    assert paired_shares([True] * 500, [True] * 480 + [False] * 20).is_worse
    assert paired_shares([True] * 500, [True] * 497 + [False] * 3).is_worse is False
    assert paired_shares([True] * 500, [True] * 490 + [False] * 10).difference == pytest.approx(
        -0.02
    )
    assert paired_shares([True] * 9, [False] * 9).is_worse is None


def test_the_difference_of_means_is_students() -> None:
    old = [0.1 * n for n in range(10)]
    moved = [0.2, -0.1, 0.0, 0.1, 0.3, -0.2, 0.1, 0.0, 0.2, 0.1]
    found = paired_means(old, [a + b for a, b in zip(old, moved, strict=True)])
    spread = 2.2622 * np.std(moved, ddof=1) / math.sqrt(10)  # t of 9 degrees, from a table
    assert found.high is not None
    assert found.high == pytest.approx(np.mean(moved) + spread, abs=1e-4)
    assert found.is_worse is False
    assert paired_means([0.9] * 20, [0.5] * 20).is_worse


def test_judgements_are_read_line_by_line() -> None:
    lines = ['{"query": "q", "id": "a", "grade": 2}', "", '{"query": "q", "id": "b", "grade": 0.5}']
    assert judgements_from(lines) == [
        Judgement(query="q", id="a", grade=2), Judgement(query="q", id="b", grade=0.5)
    ]  # fmt: skip
    for wrong in ("[]", "nonsense", '{"query": "q", "id": "a"}',
                  '{"query": " ", "id": "a", "grade": 1}', '{"query": "q", "id": 1, "grade": 1}',
                  '{"query": "q", "id": "a", "grade": -1}', '{"query": "q", "id": "a", "grade": 101}',
                  '{"query": "q", "id": "a", "grade": 1e308}',
                  '{"query": "q", "id": "a", "grade": true}'):  # fmt: skip
        with pytest.raises(InvalidInput, match="judgements, line 2"):
            judgements_from([lines[0], wrong])


@pytest.mark.parametrize("grade", [math.nan, math.inf, -1, 101, True, "2"])
def test_a_grade_is_a_number_within_bounds(grade: Any) -> None:
    with pytest.raises(InvalidInput, match="the grade of row 'a' is .*from 0 to 100"):
        Judgement(query="q", id="a", grade=grade)
    assert Judgement(query="q", id="a", grade=100).grade == 100


def test_quantiles_are_values_that_occurred() -> None:
    assert quantile([3, 1, 2, 4], 0.5) == 2
    assert quantile([3, 1, 2, 4], 0.95) == 4
    assert quantile([7], 0.05) == 7


# Thresholds


def drawn(queries: int, seed: int, *, move: Callable[[Any], Any] = lambda x: x) -> Scores:
    """Scores whose hits are alike within a query."""
    random = np.random.default_rng(seed)
    middle = random.normal(0.6, 0.1, (queries, 1))
    found: Scores = move(middle + random.normal(0, 0.05, (queries, 10))).tolist()
    return found


def test_a_threshold_keeps_the_share_of_hits() -> None:
    old = drawn(200, 1)
    new = [[0.5 * score - 0.1 for score in each] for each in old]
    found = translated(0.6, old, new)
    assert found.new == pytest.approx(0.2, abs=1e-3)
    passing = [score >= 0.6 for each in old for score in each]
    assert sum(score >= found.new for each in new for score in each) == sum(passing)
    assert found.share == pytest.approx(sum(passing) / len(passing), abs=1e-6)
    shares = [share for share, _, _ in curve(old, new)]
    assert shares == sorted(shares)
    for _, before, after in curve(old, new):
        assert after == pytest.approx(0.5 * before - 0.1)


def test_the_interval_covers_the_truth_though_hits_of_a_query_are_alike() -> None:
    threshold, covered = 0.65, 0
    for seed in range(400):
        old, new = drawn(60, seed), drawn(60, seed + 10_000, move=lambda x: 0.5 * x)
        found = translated(threshold, old, new)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.5 * threshold <= found.high
    assert covered / 400 >= 0.93


@pytest.mark.parametrize("queries", [10, 30])
@pytest.mark.parametrize("alike", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.75, 0.8])
def test_the_bounds_hold_where_hits_of_a_query_are_alike(
    queries: int, alike: float, threshold: float
) -> None:
    made, covered, rounds = np.random.default_rng(3), 0, 200
    both = [[1, 0.7], [0.7, 1]]
    for _ in range(rounds):
        shared = made.multivariate_normal([0, 0], both, size=(queries, 1))
        own = made.multivariate_normal([0, 0], both, size=(queries, 10))
        drawn = math.sqrt(alike) * shared + math.sqrt(1 - alike) * own
        old, new = (0.6 + 0.1 * drawn[..., 0]).tolist(), (0.4 + 0.08 * drawn[..., 1]).tolist()
        found = translated(threshold, old, new)
        low = -math.inf if found.low is None else found.low
        high = math.inf if found.high is None else found.high
        covered += low <= 0.4 + 0.8 * (threshold - 0.6) <= high
    assert covered / rounds >= 0.92


def test_a_threshold_that_nothing_or_everything_passes_is_bounded_on_one_side() -> None:
    old, new = drawn(50, 3), drawn(50, 4)
    scores = sorted(score for each in new for score in each)
    none = translated(1.5, old, new)
    assert none.share == 0
    assert none.new > scores[-1]
    assert none.high is None
    assert none.low is not None
    assert none.low < scores[-1]
    every = translated(-1.0, old, new)
    assert every.share == 1
    assert every.new == scores[0]
    assert every.low is None
    assert "no less" in str(every)


def test_few_queries_have_no_interval() -> None:
    found = translated(0.6, drawn(5, 1), drawn(5, 2))
    assert found.low is None
    assert found.high is None


@settings(max_examples=40)
@given(
    old=st.lists(st.lists(st.floats(-1, 1), min_size=1, max_size=10), min_size=1, max_size=15),
    new=st.lists(st.lists(st.floats(-1, 1), min_size=1, max_size=10), min_size=15, max_size=15),
    threshold=st.floats(-1, 1),
)
def test_bounds_are_in_order(old: Scores, new: Scores, threshold: float) -> None:
    found = translated(threshold, old, new[: len(old)])
    assert found.low is None or found.low <= found.new
    assert found.high is None or found.new <= found.high


# Evidence


def test_pending_rows_are_named_and_blank_ones_left_aside() -> None:
    found = Pending(blank=3)
    assert evidence.pending(found, 10).passed
    assert "3 rows with neither text nor vector aside" in evidence.pending(found, 10).sentence
    for n in range(12):
        found.missing.add(f"r{n}")
    check = evidence.pending(found, 20)
    assert check.passed is False
    assert "12 rows of 20 without a vector" in check.sentence
    assert "'r9' and 2 more" in check.sentence


def test_a_canary_says_what_the_cosine_suggests() -> None:
    assert evidence.canary({"documents": 0.999, "queries": 1.0}, 0.995).passed
    wrong = evidence.canary({"documents": 0.999, "queries": 0.63}, 0.995)
    assert wrong.passed is False
    assert "as queries 0.630" in wrong.sentence
    assert "a task or prompt that was ignored" in wrong.sentence
    assert evidence.canary({}, 0.995).passed is None


def test_a_sample_bounds_what_was_not_drawn() -> None:
    found = Sampled(drawn=500, cosines=[0.9999] * 500)
    check = evidence.sample(found, 1_000_000)
    assert check.passed
    assert check.figures["high"] == pytest.approx(0.00735, abs=1e-4)  # Clopper and Pearson's
    assert sum(check.figures["histogram"]) == 500
    found.foreign.add("r1")
    found.cosines[0] = 0.7
    check = evidence.sample(found, 1_000_000)
    assert check.passed is False
    assert "1 of 500 vectors" in check.sentence
    assert evidence.sample(Sampled(drawn=2, blank=2), 10).passed is None
    assert evidence.sample(Sampled(), 0).passed


def test_what_changed_meanwhile_widens_the_bounds() -> None:
    found = Sampled(drawn=100, cosines=[1.0] * 90, changed=10)
    assert evidence.sample(found, 100).figures["high"] == 0.1


def test_stale_is_not_told_by_a_slot_without_sources() -> None:
    assert evidence.stale(Stale(), is_told=True).passed
    assert evidence.stale(Stale(), is_told=False).passed is None
    assert evidence.stale(Stale(Named(1, ["r1"])), is_told=False).passed is False


# The file


CHECKS = (
    evidence.pending(Pending(), 1000),
    evidence.sample(Sampled(drawn=500, cosines=[1.0] * 500), 1000),
    evidence.self_retrieval([True] * 500, [True] * 499 + [False]),
    *evidence.rankings([["a", "b"], ["b"]], [["b", "a"], ["b"]], "queries <that> were given"),
    evidence.latency([0.001, 0.002], [0.003, 1.5]),
)
EXAMPLE = Example(
    query="a <query> & more",
    overlap=0.5,
    old=(Answer(id="a", score=0.8, text="<b>old</b>"),),
    new=(Answer(id="b", score=0.4, text="new"),),
)
COLLECTION = VerifiedCollection(
    name="manuals <1>",
    source=V2,
    target=V3,
    rows=1000,
    checks=CHECKS,
    thresholds=(Threshold(old=0.8, share=0.25, new=0.65, low=0.6, high=None),),
    curve=((0.05, 0.9, 0.7), (1.0, 0.2, 0.1)),
    examples=(EXAMPLE,),
    tokens=1234,
)
FOUND = Verification(
    plan="0123456789abcdef", version="0.1.0", collections=(COLLECTION,), made_at="2026-11-26"
)


def failing(*checks: Check) -> Verification:
    return replace(FOUND, collections=(replace(COLLECTION, checks=checks),))


def test_it_is_read_as_it_was_written() -> None:
    for indent in (None, 2):
        assert (
            Verification.from_dict(json.loads(json.dumps(FOUND.to_dict(), indent=indent))) == FOUND
        )
    assert Verification.from_dict(orjson.loads(orjson.dumps(FOUND.to_dict()))).hash == FOUND.hash


def test_an_edited_file_is_refused() -> None:
    values = failing(replace(CHECKS[0], passed=False), CHECKS[1]).to_dict()
    assert not Verification.from_dict(values).passed
    values["collections"][0]["checks"][0]["passed"] = True
    with pytest.raises(InvalidInput, match="edited after it was made.*samespace migrate verify"):
        Verification.from_dict(values)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "has format 2"),
        ({"plan": 1}, "plan is 1, not a string"),
        ({"collections": None}, "collections is None"),
        ({"collections": [{}]}, r"lacks collections\[0\]\.name"),
    ],
)
def test_what_it_must_be_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=f"the verification('s)? {said}"):
        Verification.from_dict({**FOUND.to_dict(), **change})


def test_it_passes_without_a_failure_and_with_what_is_required() -> None:
    assert FOUND.passed
    unjudged = replace(CHECKS[1], passed=None)
    assert failing(CHECKS[0], unjudged).failures == (unjudged,)
    failed = failing(replace(CHECKS[0], passed=False), CHECKS[1])
    assert not failed.passed
    assert failed.verdict == "FAILED, for plan 0123456789ab: pending"
    assert "  FAILED  pending" in failed.lines()[1]
    assert FOUND.lines()[-1] == "passed, for plan 0123456789ab"


def test_the_page_is_whole_and_has_no_text_of_a_user_as_markup() -> None:
    page = verification_page(FOUND)
    assert page.count("<svg") == page.count("</svg>") == 4
    assert "a &lt;query&gt; &amp; more" in page
    assert "&lt;b&gt;old&lt;/b&gt;" in page
    assert "manuals &lt;1&gt;" in page
    assert not re.search(r"<script|src=|href=|url\(|http", page)
    for number in re.findall(r'\s(?:x|y|width|height|cx|cy|x1|x2|y1|y2)="([^"]*)"', page):
        assert math.isfinite(float(number))
    assert "FAILED" in verification_page(failing(replace(CHECKS[0], passed=False)))
    bare = replace(FOUND, collections=(replace(COLLECTION, curve=(), thresholds=(), examples=()),))
    assert "<h3>Thresholds" not in verification_page(bare)


def test_pairs_are_json() -> None:
    found = Paired(pairs=3, old=0.5, new=0.25, low=None, high=None)
    assert found.to_dict() == {
        "pairs": 3, "old": 0.5, "new": 0.25, "difference": -0.25, "low": None, "high": None
    }  # fmt: skip


ODD: list[dict[str, Any]] = [
    {"unknown": 1},
    {"histogram": [1], "tenths": None, "places": "x", "old": 1, "new": {"p50": "x"}},
    {"histogram": 1, "edges": 2, "threshold": None, "tenths": [1], "mean": "x", "places": [None]},
]


@pytest.mark.parametrize("figures", ODD)
def test_a_plot_without_its_figures_is_left_out(figures: dict[str, Any]) -> None:
    names: tuple[CheckName, ...] = ("sample", "overlap", "rank-shift", "latency")
    odd = [Check(name=each, passed=None, sentence="odd", figures=figures) for each in names]
    found = Verification.from_dict(json.loads(json.dumps(failing(*odd).to_dict())))
    page = verification_page(found)
    assert page.count("<h3>Thresholds") == 1
    assert "How long a search takes" not in page
