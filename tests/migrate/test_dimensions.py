"""Dimensions before money: every text is embedded once, and the overlap is what brute force says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest
from tests.audit.poisoning import documents
from tests.cli.running import KEY, Caller

from samespace import HashingBackend, JinaAPIBackend, open_store
from samespace.errors import InvalidInput
from samespace.migrate import DimensionReport, compare_dimensions, dry_run
from samespace.migrate.dimensions import first_sentence, overlap, sizes_of
from samespace.space import EmbeddingSpace, derive
from samespace.testing.backends import TaskBackend
from samespace.testing.jina_server import JinaServer

TEXTS = [row.text for row in documents(60)]
FULL = EmbeddingSpace(model="jina-embeddings-v3", dimensions=1024, task="retrieval.passage")


def at(report: DimensionReport, dimensions: int, precision: str) -> float:
    [found] = [
        row.overlap
        for row in report.rows
        if (row.dimensions, row.precision) == (dimensions, precision)
    ]
    return found


def test_each_text_is_embedded_once_and_smaller_sizes_are_derived() -> None:
    with JinaServer(keys=(KEY,)) as server:
        with JinaAPIBackend(api_key=KEY, base_url=server.url) as backend:
            found = compare_dimensions(TEXTS, backend)
        sent = [text for request in server.requests for text in request["input"]]
    assert sorted(sent) == sorted([*TEXTS, *map(first_sentence, TEXTS)])
    assert [row.dimensions for row in found.rows[::3]] == [1024, 768, 512, 256, 128]
    assert found.tokens > 0
    assert at(found, 1024, "float") == 1
    assert 1 > at(found, 512, "float") > at(found, 128, "float") > at(found, 128, "binary") > 0


def test_the_overlap_is_that_of_brute_force() -> None:
    backend = TaskBackend(EmbeddingSpace(model="jina-embeddings-v3", dimensions=256))
    queries = TEXTS[:7]
    found = compare_dimensions(TEXTS, backend, queries=queries)
    short = EmbeddingSpace(model="jina-embeddings-v3", dimensions=128)
    asked, held = backend.embed_queries(queries), backend.embed_documents(TEXTS)
    shorter = [derive(each, stored=backend.space, offered=short) for each in (asked, held)]
    nearest = [np.argsort(-(a @ b.T), axis=1)[:, :10] for a, b in ((asked, held), shorter)]
    shares = [len({*a} & {*b}) / 10 for a, b in zip(*nearest, strict=True)]
    assert at(found, 128, "float") == pytest.approx(np.mean(shares), abs=1e-4)
    assert (found.queries, found.own_queries) == (7, True)


def test_ties_at_the_border_count_by_their_chance() -> None:
    truth = np.array([[4, 3, 2, 1]], np.float32)
    assert overlap(truth, np.zeros((1, 4), np.float32), 2) == pytest.approx(0.5)
    assert overlap(truth, np.array([[9, 5, 5, 1]], np.float32), 2) == pytest.approx(0.75)
    alike = np.array([[4, 3, 3, 1]], np.float32)
    assert overlap(alike, np.array([[9, 1, 5, 1]], np.float32), 2) == 1


def test_only_sizes_that_the_model_is_trained_for_are_compared() -> None:
    assert sizes_of(FULL) == [1024, 768, 512, 256, 128]
    small = EmbeddingSpace(model="jina-embeddings-v5-text-small", dimensions=1024)
    assert sizes_of(small) == [1024, 896, 768, 512, 256, 128]
    assert sizes_of(EmbeddingSpace(model="jina-embeddings-v2-base-en", dimensions=768)) == [768]


def test_what_cannot_be_compared_is_refused_before_it_is_paid_for(tmp_path: Path) -> None:
    backend = TaskBackend()
    for texts, queries in ((TEXTS[:11], None), ([*TEXTS[:11], " "], None), (TEXTS, [""])):
        with pytest.raises(InvalidInput):
            compare_dimensions(texts, backend, queries=queries)
    address = f"qdrant:{tmp_path / 'points'}"
    with open_store(address, collection="docs", backend=HashingBackend(64)) as store:
        for count in (3, True, 10_001):
            with pytest.raises(InvalidInput, match="--dry-run"):
                dry_run(store, backend, documents=count)
    assert backend.documents == []


def test_the_command_embeds_at_full_size_what_is_planned_for_a_smaller_one(
    call: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, queries = f"qdrant:{tmp_path / 'points'}", tmp_path / "queries.txt"
    queries.write_text("\n".join(TEXTS[:3]))
    with open_store(address, collection="docs", backend="hashing@64") as store:
        store.upsert(documents(60))
    with JinaServer(keys=(KEY,)) as server:
        monkeypatch.setenv("JINA_API_KEY", KEY)
        monkeypatch.setenv("JINA_BASE_URL", server.url)
        code, shown, said = call(
            "migrate", "plan", "--store", address, "-c", "docs", "--backend", "jina@256",
            "--dry-run", "20", "--queries", str(queries), "--json", "--html", str(tmp_path / "page.html"),
        )  # fmt: skip
        sizes = {request["dimensions"] for request in server.requests}
        texts = [text for request in server.requests for text in request["input"]]
    assert code == 0, said
    assert (sizes, len(texts)) == ({1024}, 23)
    found = orjson.loads(shown)["dry_run"]
    assert found["rows"][0]["disk_per_row"] == round(1024 * 4 * 1.5)
    assert found["space"] == FULL.to_dict()
    page = (tmp_path / "page.html").read_text()
    assert "<h1>Smaller sizes of jina-embeddings-v3@1024:retrieval.passage</h1>" in page
    assert page.count("<circle") == 15  # five sizes in three precisions
    assert call("migrate", "plan", "--backend", "hashing", "--html", "page.html")[0] == 2


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(monkeypatch, capsys)
