"""The main job with the local backend: files in by the command, questions out, other spaces refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.cli.running import run
from tests.models.paragraphs import paragraphs

from samespace import JinaLocalBackend


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "texts"
    made.mkdir()
    for number, text in enumerate(paragraphs(12)):
        (made / f"{number}.md").write_text(text)
    return made


@pytest.mark.parametrize("chunking", [(), ("--late-chunking", "--chunk-size", "30")])
def test_files_go_in_and_questions_come_back(
    checkpoint: Path, folder: Path, tmp_path: Path, chunking: tuple[str, ...]
) -> None:
    place = ("--store", f"qdrant:{tmp_path / 'points'}", "--collection", "texts")
    backend = ("--backend", f"local:{checkpoint}@256")
    done = run(tmp_path, "ingest", str(folder), *place, *backend, *chunking)
    assert done.returncode == 0, done.stderr
    again = run(tmp_path, "ingest", str(folder), *place, *backend, *chunking)
    assert again.returncode == 0, again.stderr
    question = paragraphs(12)[7]
    found = run(tmp_path, "search", question, *place, *backend, "--json")
    assert found.returncode == 0, found.stderr
    hits = json.loads(found.stdout)
    texts = [hit["text"] for hit in hits]
    backend_by_hand = JinaLocalBackend(checkpoint, dimensions=256, device="cpu")
    scores = backend_by_hand.embed_documents(texts) @ backend_by_hand.embed_query(question)
    are_scores = np.allclose([hit["score"] for hit in hits], scores, atol=1e-4)
    assert are_scores != bool(chunking)  # chunks that saw their document have other vectors
    info = run(tmp_path, "info", *place)
    assert "jina-embeddings-v3@256:retrieval.passage" in info.stdout
    assert "jina-local" in info.stdout
    other = ("--backend", f"local:{checkpoint}@256:text-matching")
    refused = run(tmp_path, "search", question, *place, *other)
    assert refused.returncode == 3
    assert "text-matching" in refused.stderr
