"""The parts of an audit that need no store."""

from __future__ import annotations

import math
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.audit.poisoning import NEW, OLD, model

from samespace.audit.intervals import share_interval
from samespace.audit.notes import AuditFile, Subject, taking_notes
from samespace.audit.outliers import centre_of
from samespace.audit.page import page_of
from samespace.audit.remaking import BLANK, remade
from samespace.audit.report import AuditReport, FreeFindings
from samespace.audit.verdicts import (
    ANOTHER_LENGTH,
    ANOTHER_TASK,
    NONE_OF_THEM,
    NOT_NORMALISED,
    Finding,
    Verdict,
    bars,
    bin_of,
    edges_of,
    judge,
)
from samespace.documents import Document
from samespace.errors import InvalidInput
from samespace.ingest.durable import replace_file
from samespace.ingest.embedder import Embedder
from samespace.ingest.worker import in_a_thread
from samespace.protocols import Matrix, Vector
from samespace.space import EmbeddingSpace
from samespace.testing.backends import TaskBackend
from samespace.testing.corpus import texts

SUBJECT = Subject(collection="c", space="s", rows="all", judged_by="its model", threshold=0.95)


# Lengths


@pytest.mark.parametrize(
    ("length", "is_right"), [(0.81, True), (0.79, False), (1.19, True), (1.21, False)]
)
def test_a_length_may_be_off_by_what_an_error_within_the_cosine_may_be(
    length: float, is_right: bool
) -> None:
    raw = EmbeddingSpace(model="m", dimensions=2, normalized=False)
    stored, own = np.array([[0, 5 * length], [0, 5]], np.float32)
    assert (judge("a", stored, own, raw).verdict is Verdict.AGREES) == is_right
    unit = np.array([0, 1], np.float32)
    assert judge("a", unit, own, raw).likely == ANOTHER_LENGTH
    assert judge("a", unit, own, raw, may_be_unit=True).verdict is Verdict.AGREES


# The interval


@pytest.mark.parametrize("population", [200, 20_000, 1_000_000])
@pytest.mark.parametrize("drawn", [50, 500])
@pytest.mark.parametrize("share", [0.005, 0.1, 0.5])
def test_the_interval_covers_the_truth(population: int, drawn: int, share: float) -> None:
    marked, drawn = round(population * share), min(drawn, population)
    random = np.random.default_rng(population + drawn)
    found = random.hypergeometric(marked, population - marked, drawn, 2_000)
    bounds = {k: share_interval(k, drawn, population) for k in map(int, np.unique(found))}
    covered = [bounds[k][0] <= marked / population <= bounds[k][1] for k in map(int, found)]
    assert np.mean(covered) >= 0.94


def test_of_a_large_population_the_bounds_are_those_of_clopper_and_pearson() -> None:
    # quantiles of Beta(5, 496), Beta(6, 495) and Beta(1, 500)
    assert share_interval(5, 500, 10**9) == pytest.approx((0.0032547, 0.0231814), abs=2e-6)
    assert share_interval(0, 500, 10**9) == pytest.approx((0.0, 0.0073506), abs=2e-6)


def test_the_tails_are_exact() -> None:
    def at_most(found: int, marked: int) -> float:
        ways = [
            math.comb(marked, k) * math.comb(50 - marked, 10 - k)
            for k in range(min(found, marked) + 1)
        ]
        return sum(ways) / math.comb(50, 10)

    low, high = (round(bound * 50) for bound in share_interval(3, 10, 50))
    assert at_most(3, high) > 0.025 >= at_most(3, high + 1)
    assert 1 - at_most(2, low) > 0.025 >= 1 - at_most(2, low - 1)


@pytest.mark.parametrize("found", [0, 3, 10])
def test_a_sample_of_everything_is_the_truth(found: int) -> None:
    assert share_interval(found, 10, 10) == (found / 10, found / 10)


def test_nothing_drawn_says_nothing() -> None:
    assert share_interval(0, 0, 10) == (0.0, 1.0)


@pytest.mark.parametrize("numbers", [(2, 1, 5), (1, 6, 5), (-1, 1, 5)])
def test_impossible_counts_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidInput, match="at most be the next"):
        share_interval(*numbers)


# Verdicts


def vector(*values: float) -> Vector:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("stored", "verdict", "likely"),
    [
        (vector(1, 0), Verdict.AGREES, ""),
        (vector(0.9988, 0.05), Verdict.AGREES, ""),
        (vector(0.6, 0.8), Verdict.FOREIGN, ANOTHER_TASK),
        (vector(0, 1), Verdict.FOREIGN, NONE_OF_THEM),
        (vector(-1, 0), Verdict.FOREIGN, NONE_OF_THEM),
        (vector(2, 0), Verdict.FOREIGN, NOT_NORMALISED),
        (vector(1, 0, 0), Verdict.FOREIGN, "a vector of 3 dimensions"),
        (vector(0, 0), Verdict.FOREIGN, "no direction: zero, or not finite"),
        (vector(math.nan, 0), Verdict.FOREIGN, "no direction: zero, or not finite"),
    ],
)
def test_a_vector_is_judged_by_direction_and_norm(
    stored: Vector, verdict: Verdict, likely: str
) -> None:
    space = EmbeddingSpace(model="m", dimensions=2)
    found = judge("a", stored, vector(1, 0), space)
    assert (found.verdict, found.likely) == (verdict, likely)


def histogram_of(threshold: float, *cosines: float) -> list[int]:
    edges = edges_of(threshold)
    places = [bin_of(cosine, edges) for cosine in cosines]
    return [places.count(place) for place in range(len(edges))]


def test_every_cosine_has_a_bin_and_gaps_are_one_line() -> None:
    histogram = histogram_of(0.98, -1.0, 0.0, 0.001, 1.0)
    assert [line.split() for line in bars(histogram, 0.98, width=4)] == [
        ["-1.00", "xx", "1"], ["…"], ["+0.00", "xxxx", "2"], ["…"], ["+0.999", "##", "1"],
    ]  # fmt: skip


@pytest.mark.parametrize("threshold", [0.98, 0.9712, 0.5, 0.9995])
def test_rows_on_both_sides_of_the_bound_are_told_apart(threshold: float) -> None:
    histogram = histogram_of(threshold, threshold, math.nextafter(threshold, 0))
    below, above = bars(histogram, threshold)
    assert ("x" in below, "#" in below) == (True, False)
    assert ("x" in above, "#" in above) == (False, True)
    assert float(above.split()[0]) == threshold
    drawn = re.findall(
        r"<tr.*?><td class=.n.>",
        page_of(replace(report(), threshold=threshold, histogram=tuple(histogram))),
    )
    assert drawn == ['<tr class="low"><td class="n">', '<tr><td class="n">']


def test_a_cosine_is_judged_and_counted_alike_however_near_the_bound() -> None:
    space, edges = EmbeddingSpace(model="m", dimensions=2, normalized=False), edges_of(0.6)
    for tilt in np.linspace(-1e-6, 1e-6, 21):
        found = judge("a", vector(0.6 + tilt, 0.8), vector(1, 0), space, threshold=0.6)
        is_foreign = found.verdict is Verdict.FOREIGN
        assert (edges[bin_of(found.cosine or 0, edges)] < 0.6) is is_foreign


# Without a model


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.4])
def test_vectors_of_another_model_are_out_of_place(share: float) -> None:
    vectors, foreign = mixture(share)
    centre = centre_of(vectors, NEW)
    assert centre is not None
    assert centre.sees
    assert np.array_equal(centre.suspects(vectors), foreign)


def test_known_vectors_say_which_half_is_the_own_one() -> None:
    vectors, foreign = mixture(0.6)
    known = model(NEW, 1).embed_documents(["known", "texts"]).astype(np.float16)
    centre = centre_of(vectors, NEW, known=known)
    assert centre is not None
    assert np.array_equal(centre.suspects(vectors), foreign)


def test_vectors_without_a_common_direction_tell_nothing_and_that_is_said() -> None:
    vectors, _ = mixture(0.1)
    random = np.random.default_rng(2).standard_normal((500, 256)).astype(np.float32)
    centre = centre_of(random / np.linalg.norm(random, axis=1, keepdims=True), NEW)
    assert centre is not None
    assert not centre.sees
    assert not centre.suspects(vectors).any()


def test_a_norm_is_out_of_place_whatever_the_direction() -> None:
    vectors, _ = mixture(0.0)
    centre = centre_of(vectors, NEW)
    assert centre is not None
    assert centre.suspects(vectors[:3] * np.float32(1.5)).all()


def mixture(share: float) -> tuple[Matrix, NDArray[np.bool_]]:
    """Vectors of two models, and which are the second one's."""
    said = texts(500)
    own = model(NEW, 1).embed_documents(said)
    other = model(OLD, 2).embed_documents(said)
    foreign = np.arange(500) % 100 < 100 * share
    return np.where(foreign[:, np.newaxis], other, own), foreign


# The report


def report() -> AuditReport:
    counts = dict.fromkeys(map(str, Verdict), 0) | {"agrees": 95, "foreign": 4, "stale": 1}
    return AuditReport(
        collection="c<script>",
        space=NEW,
        population=1_000,
        sampled=True,
        counts=counts,
        findings=(
            Finding(id="a<b>", verdict=Verdict.FOREIGN, cosine=0.1, likely="v2", suspect=True),
            Finding(id="s", verdict=Verdict.STALE, cosine=0.5),
        ),
        free=FreeFindings(looked_at=100, suspects=4, right=3, foreign=4),
    )


def test_a_report_says_the_share_and_where_it_lies() -> None:
    found = report()
    assert found.share == 0.04
    low, high = found.interval or (0, 0)
    assert 0.01 < low < 0.04 < high < 0.1
    assert (found.free and found.free.recall, found.free and found.free.precision) == (0.75, 0.75)
    assert found.ids() == ["a<b>", "s"]
    said = "\n".join(found.lines())
    assert "foreign: 4 (4.00%; of all rows 1.30% to 9.60%, at 95 %)" in said
    assert "stale (the text changed, the vector did not): 1" in said


def counted(**counts: int) -> AuditReport:
    """Of every row but for those that are said not to have been read."""
    found = dict.fromkeys(map(str, Verdict), 0) | counts
    return replace(report(), sampled=False, population=50, counts=found)


def test_rows_that_were_not_judged_may_be_foreign() -> None:
    assert counted(agrees=40, foreign=10).interval is None
    found = counted(agrees=1, unjudged=40, changed=9)
    assert (found.share, found.interval) == (0.0, (0.0, 0.98))
    assert "foreign: 0 (0.00%; of all rows 0.00% to 98.00%: 49 were not judged)" in found.lines()
    assert "(of all rows 0.00% to 98.00%: 49 were not judged)" in page_of(found)
    assert counted(agrees=18, foreign=2).interval == (0.04, 0.64)
    assert counted(suspect=3, unsuspected=47).interval is None


def test_rows_of_a_sample_that_were_not_judged_may_be_foreign() -> None:
    found = replace(counted(agrees=90, foreign=4, unjudged=6), sampled=True, population=1_000)
    low, _ = share_interval(4, 100, 1_000)
    _, high = share_interval(10, 100, 1_000)
    assert found.interval == (low, high)


def test_no_cosine_reads_like_the_bound_that_it_misses() -> None:
    near = Finding(id="n", verdict=Verdict.FOREIGN, cosine=0.9799996)
    far = Finding(id="f", verdict=Verdict.FOREIGN, cosine=0.9994, likely=NOT_NORMALISED)
    found = replace(report(), findings=(near, far))
    said = "\n".join(found.lines())
    assert "'n', cosine 0.9799996" in said
    assert "'f', cosine 0.999, the same" in said
    assert "<td>0.9799996</td>" in page_of(found)


def test_a_report_survives_json() -> None:
    assert AuditReport.from_dict(report().to_dict()) == report()
    others: list[object] = [{}, [], None, {**report().to_dict(), "findings": [{"id": 1}]}]
    for bad in others:
        with pytest.raises(InvalidInput, match="no report of an audit"):
            AuditReport.from_dict(bad)
    for name, value in {
        "population": "x",
        "pending": -1,
        "collection": 7,
        "sampled": "yes",
        "complete": None,
        "stopped": "never",
        "histogram": [1],
        "unasked": {"v2": 1},
        "counts": {"agrees": 1.5},
        "free": {"looked_at": 1, "suspects": "many", "sees": True, "right": 0, "foreign": 0},
        "format": "1",
    }.items():
        with pytest.raises(InvalidInput, match="no report of an audit"):
            AuditReport.from_dict({**report().to_dict(), name: value})
    with pytest.raises(InvalidInput, match="threshold is '1'"):
        AuditReport.from_dict({**report().to_dict(), "threshold": "1"})
    with pytest.raises(InvalidInput, match="newer samespace"):
        AuditReport.from_dict({**report().to_dict(), "format": 99})


def test_a_page_needs_nothing_else_and_escapes_what_it_shows() -> None:
    page = page_of(report())
    assert "c&lt;script&gt;" in page
    assert "<td>a&lt;b&gt;</td>" in page
    assert "4.00% foreign (of all rows 1.30% to 9.60%, at 95 %)" in page
    assert not re.search(r"<script|src=|href=|url\(|@import", page)


def test_a_page_says_all_that_the_terminal_does() -> None:
    page = page_of(replace(report(), unasked={"v2@768": "it is <down>"}))
    assert "<td>v2</td><td>1</td>" in page
    assert "<td>v2@768</td><td>it is &lt;down&gt;</td>" in page
    assert "that is 75.0% of the foreign ones" in page
    assert "and 75.0% of what was suspected is foreign" in page
    assert "Cosine of each" not in page
    few = replace(counted(suspect=1, unsuspected=49), free=None, findings=())
    assert "there are too few vectors" in page_of(few)


def test_an_audit_that_was_stopped_among_all_rows_claims_no_more_than_it_saw() -> None:
    found = replace(counted(agrees=20), stopped="budget")
    said = "0.00% foreign of the first 20 of 50 rows, which are no sample"
    assert f"{said} (of all rows 0.00% to 60.00%: 30 were not judged)" in page_of(found)
    assert "the budget is spent before all rows were looked at" in page_of(found)
    assert any("of the first 20 of 50 rows, which are no sample" in each for each in found.lines())
    assert "no sample" not in page_of(replace(found, sampled=True))


# Embedding again


async def test_rows_without_words_are_told_apart_and_the_others_embedded() -> None:
    with in_a_thread("embed") as worker:
        embedder = Embedder(TaskBackend(), [worker])
        rows = [Document("a", "words"), Document("b", " "), Document("c", "")]
        made = await remade(embedder, rows, {})
    assert set(made.vectors) == {"a"}
    assert made.refused == {"b": BLANK, "c": BLANK}


# The checkpoint

FOUND = [Finding(id=f"d{n}", verdict=Verdict.FOREIGN, likely="v2") for n in range(5)]


def test_notes_go_on_where_the_checkpoint_is_and_forget_what_came_after(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "point")
    with taking_notes(file, SUBJECT) as notes:
        notes.note(FOUND[:2], "b")
        notes.findings.add(FOUND[2:])  # and then it was killed
    with taking_notes(file, SUBJECT) as notes:
        assert notes.progress.after == "b"
        assert list(notes.findings) == FOUND[:2]


def test_what_is_settled_keeps_the_size_of_its_file(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "point")
    with taking_notes(file, SUBJECT) as notes:
        notes.note(FOUND, None)
        size = file.findings.path.stat().st_size
        notes.restate(lambda found: Finding(id=found.id, verdict=Verdict.STALE))
        notes.complete()
        assert file.findings.path.stat().st_size == size
        assert {found.verdict for found in notes.findings} == {Verdict.STALE}
    with taking_notes(file, SUBJECT) as notes:  # a complete one begins anew
        assert (notes.progress.after, notes.progress.complete) == (None, False)
        assert len(list(notes.findings)) == len(FOUND)
        notes.begin()
        assert list(notes.findings) == []


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "point"
    with taking_notes(AuditFile(path), SUBJECT) as notes:
        notes.save()
    other = Subject(collection="d", space="s", rows="all", judged_by="its model", threshold=0.95)
    with pytest.raises(InvalidInput, match="another audit: collection 'c', not 'd'"):
        AuditFile(path).load(other)
    for content in (
        "{}",
        "[]",
        "nothing",
        '{"format": 1, "position": 3}',
        '{"kind": "audit", "format": 1}',
    ):
        path.write_text(content)
        with pytest.raises(InvalidInput, match="no checkpoint"):
            AuditFile(path).load(SUBJECT)
    path.write_text('{"kind": "audit", "format": 2}')
    with pytest.raises(InvalidInput, match="newer samespace"):
        AuditFile(path).load(SUBJECT)


def test_two_audits_do_not_share_a_checkpoint(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "point")
    with (
        taking_notes(file, SUBJECT),
        pytest.raises(InvalidInput, match="another job uses"),
        taking_notes(file, SUBJECT),
    ):
        pass


def test_many_may_replace_one_file_at_once(tmp_path: Path) -> None:
    path, contents = tmp_path / "page", [str(n).encode() * 1000 for n in range(4)]
    begin = Barrier(4)

    def replace_often(content: bytes) -> None:
        begin.wait()
        for _ in range(10):
            replace_file(path, content)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(replace_often, contents)) == [None] * 4
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]
