"""Ingesting again what is stored already: what changed is embedded, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from samespace import CallableBackend, HashingBackend, IngestJob, PgVectorStore
from samespace.errors import SpaceMismatch
from samespace.guard import CANARY_TEXTS
from samespace.ingest.job import BATCH_SIZE
from samespace.protocols import Matrix

HASHING = HashingBackend(64)


class Counting(CallableBackend):
    """Remembers what it embeds, canaries aside."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        super().__init__(HASHING.space, self._remember, HASHING.embed_query)

    def _remember(self, texts: Sequence[str]) -> Matrix:
        self.texts += [text for text in texts if text not in CANARY_TEXTS]
        return HASHING.embed_documents(texts)


@pytest.fixture
def backend() -> Counting:
    return Counting()


@pytest.fixture
def store(postgres: str, schema: str, backend: Counting) -> Iterator[PgVectorStore]:
    with PgVectorStore(postgres, collection="files", schema=schema, backend=backend) as opened:
        yield opened


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ingested(store: PgVectorStore) -> tuple[int, int, int]:
    done = IngestJob(store, Path()).run()
    return done.write.written, done.write.skipped, done.removed


def write_text(path: Path, passages: int) -> None:
    path.write_text("\n\n".join(f"passage {number} {'x' * 980}" for number in range(passages)))


def test_what_is_stored_already_is_not_embedded_again(
    here: Path, store: PgVectorStore, backend: Counting
) -> None:
    write_text(here / "long.md", BATCH_SIZE + 1)
    rows = "".join(
        f'{{"id": {number}, "text": "row {number}"}}\n' for number in range(2 * BATCH_SIZE)
    )
    (here / "rows.jsonl").write_text(rows)
    every = 3 * BATCH_SIZE + 1
    assert ingested(store) == (every, 0, 0)
    backend.texts.clear()
    assert ingested(store) == (0, every, 0)
    (here / "rows.jsonl").write_text(rows.replace('"row 7"', '"row seven"'))
    assert ingested(store) == (1, every - 1, 0)
    assert backend.texts == ["row seven"]


def test_a_change_of_metadata_is_written(here: Path, store: PgVectorStore) -> None:
    (here / "rows.jsonl").write_text('{"id": "a", "text": "same", "lang": "en"}')
    ingested(store)
    (here / "rows.jsonl").write_text('{"id": "a", "text": "same", "lang": "de"}')
    assert ingested(store) == (1, 0, 0)
    assert store.get(["a"])[0].metadata["lang"] == "de"


def test_a_document_without_a_vector_is_embedded(
    here: Path, store: PgVectorStore, backend: Counting
) -> None:
    (here / "a.md").write_text("some text")
    ingested(store)
    store.upsert_vectors(store.get(["a.md#0"]), [None], space=store.space)
    assert ingested(store) == (1, 0, 0)


def test_passages_that_a_file_no_longer_has_are_removed_and_no_others(
    here: Path, store: PgVectorStore
) -> None:
    for name in ("shrinks.md", "stays.md", "emptied.md", "gone.md"):
        write_text(here / name, 3)
    ingested(store)
    write_text(here / "shrinks.md", 1)
    (here / "emptied.md").write_text("")
    (here / "gone.md").unlink()
    assert ingested(store) == (0, 4, 5)
    kept = {document.parent.id for document in store.scan() if document.parent is not None}
    assert kept == {"shrinks.md", "stays.md", "gone.md"}
    assert store.count() == 1 + 3 + 3


def test_a_file_that_can_no_longer_be_read_keeps_its_passages(
    here: Path, store: PgVectorStore
) -> None:
    write_text(here / "a.md", 2)
    ingested(store)
    (here / "a.md").write_bytes(b"caf\xe9")
    assert ingested(store) == (0, 0, 0)
    assert store.count() == 2


def test_an_unchanged_file_does_not_hide_another_space(
    here: Path, store: PgVectorStore, postgres: str, schema: str
) -> None:
    (here / "a.md").write_text("some text")
    ingested(store)
    other = HashingBackend(32)
    with (
        PgVectorStore(postgres, collection="files", schema=schema, backend=other) as offered,
        pytest.raises(SpaceMismatch),
    ):
        ingested(offered)
