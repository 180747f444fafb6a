"""The embed-server in front of the local backend: the same vectors, through the API's own client."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.cli.running import run
from tests.local.checkpoints import make_checkpoint
from tests.models.paragraphs import paragraphs
from tests.server.serving import KEY, TLS, Served, served

from samespace import AsyncJinaAPIBackend, Document, JinaAPIBackend, QdrantStore
from samespace.backends.jina_local.client import JinaLocalBackend
from samespace.errors import TokenLimitExceeded
from samespace.models import MODELS
from samespace.protocols import Matrix

TASKS = (*MODELS["jina-embeddings-v3"].tasks, None)
TEXTS = [*(text[:200] for text in paragraphs(6)), "a", "two words", " ".join(paragraphs(8)[6:])]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "v3", layers=1)


@pytest.fixture(scope="module")
def local(checkpoint: Path) -> JinaLocalBackend:
    backend = JinaLocalBackend(checkpoint, device="cpu", weight_sets=6)
    backend.servable.load(TASKS)
    return backend


@pytest.fixture(scope="module")
def server(local: JinaLocalBackend) -> Iterator[Served]:
    with served(local) as here:
        yield here


@pytest.fixture(scope="module")
def remote(server: Served) -> Iterator[JinaAPIBackend]:
    with JinaAPIBackend(api_key=KEY, base_url=server.url) as backend:
        yield backend


def embed(server: Served, **body: Any) -> Matrix:
    answer = server.post(**{"input": TEXTS, "embedding_type": "base64", **body})
    assert answer.status_code == 200, answer.text
    rows = [base64.b64decode(item["embedding"]) for item in answer.json()["data"]]
    return np.array([np.frombuffer(row, "<f4") for row in rows])


def farthest(left: Matrix, right: Matrix) -> float:
    return float(np.abs(left - right).max())


@pytest.mark.parametrize("task", TASKS)
def test_each_task_and_size_is_that_of_the_backend(
    server: Served, local: JinaLocalBackend, task: str | None
) -> None:
    said = {"task": task} if task else {}
    means = local.servable.texts(TEXTS, task, cuts=False).means
    for dimensions in (1024, 64):
        first = means[:, :dimensions]
        unit = first / np.linalg.norm(first, axis=1, keepdims=True)
        assert farthest(embed(server, dimensions=dimensions, **said), unit) <= 1e-5
    raw = embed(server, dimensions=64, normalized=False, **said)
    assert farthest(raw, means[:, :64]) <= 1e-5


def test_the_client_gets_what_the_backend_makes(
    remote: JinaAPIBackend, local: JinaLocalBackend, server: Served
) -> None:
    assert remote.space == local.space
    assert farthest(remote.embed_documents(TEXTS), local.embed_documents(TEXTS)) <= 1e-5
    assert remote.usage() == local.usage()
    assert farthest(remote.embed_queries(TEXTS), local.embed_queries(TEXTS)) <= 1e-5
    assert farthest(remote.embed_query("two words"), local.embed_query("two words")) <= 1e-5
    assert remote.usage() == local.usage()

    async def ask() -> Matrix:
        async with AsyncJinaAPIBackend(api_key=KEY, base_url=server.url, dimensions=256) as backend:
            return await backend.embed_documents(TEXTS)

    small = local.embed_documents(TEXTS)[:, :256]
    unit = small / np.linalg.norm(small, axis=1, keepdims=True)
    assert farthest(asyncio.run(ask()), unit) <= 1e-5


def test_chunks_see_one_another(remote: JinaAPIBackend, local: JinaLocalBackend) -> None:
    documents = [TEXTS[:4], TEXTS[4:5], TEXTS[5:]]
    for left, right in zip(
        remote.embed_chunks(documents), local.embed_chunks(documents), strict=True
    ):
        assert farthest(left, right) <= 1e-5
    assert remote.usage() == local.usage()


@pytest.mark.parametrize("late_chunking", [False, True])
def test_a_text_that_is_none_is_the_client_s_fault(server: Served, late_chunking: bool) -> None:
    asked = {"model": "jina-embeddings-v3", "input": ["a", "\ud800"]}
    answer = httpx.post(
        f"{server.url}/embeddings",
        content=json.dumps({**asked, "late_chunking": late_chunking}),
        headers={"Authorization": f"Bearer {KEY}"},
        verify=TLS,
    )
    assert answer.status_code == 422
    assert "text 1" in answer.json()["errors"][0]["message"]


def test_forms_say_the_same(server: Served) -> None:
    forms = {
        form: server.post(input=TEXTS[:4], embedding_type=form).json()["data"]
        for form in ("float", "ubinary", "binary")
    }
    found = {form: np.array([item["embedding"] for item in data]) for form, data in forms.items()}
    assert farthest(found["float"], embed(server, input=TEXTS[:4])) <= 1e-7
    assert np.array_equal(found["ubinary"], np.packbits(found["float"] > 0, axis=1))
    assert np.array_equal(found["binary"], found["ubinary"] - 128)


def test_a_text_that_is_too_long_is_named_or_cut(
    server: Served, local: JinaLocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("engine", "tokens"):
        monkeypatch.setattr(f"samespace.backends.jina_local.{module}.LIMIT", 300)
    texts = ["a", "a " * 400, "b"]
    with JinaAPIBackend(api_key=KEY, base_url=server.url) as strict:
        with pytest.raises(TokenLimitExceeded) as refused:
            strict.embed_documents(texts)
        assert refused.value.indices == (1,)
    with JinaAPIBackend(api_key=KEY, base_url=server.url, on_too_long="truncate") as cutting:
        vectors, usage = cutting.embed_documents(texts), cutting.usage()
    found = local.servable.texts(texts, "retrieval.passage", cuts=True)
    assert farthest(vectors, found.means / np.linalg.norm(found.means, axis=1)[:, None]) <= 1e-5
    assert usage == (found.tokens, (1,))
    assert found.counts[1] == 300


def test_each_is_accepted_for_the_other(
    tmp_path: Path, remote: JinaAPIBackend, local: JinaLocalBackend
) -> None:
    place, documents = tmp_path / "qdrant", [Document(str(n), text) for n, text in enumerate(TEXTS)]
    for maker, other, name in ((local, remote, "a"), (remote, local, "b")):
        with QdrantStore(str(place), collection=name, backend=maker) as store:
            store.upsert(documents[:-1])
            hits = store.search(TEXTS[3])
        with QdrantStore(str(place), collection=name, backend=other) as store:
            store.upsert(documents[-1:])
            found = store.search(TEXTS[3], limit=len(hits))
            store.prove()
            store.prove("queries")
            assert found[0].score == pytest.approx(hits[0].score, abs=1e-4)


def test_the_command_does_not_open_itself_to_all(tmp_path: Path, checkpoint: Path) -> None:
    for words, said in (
        (("--host", "0.0.0.0"), "SAMESPACE_SERVER_KEYS"),  # noqa: S104  that is the point
        (("--api-key-file", str(tmp_path / "none")), "cannot be read"),
    ):
        done = run(tmp_path, "embed-server", str(checkpoint), *words)
        assert done.returncode == 2
        assert said in done.stderr


def test_the_command_says_where_it_is_and_ends_as_told(checkpoint: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "samespace", "embed-server", str(checkpoint), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SAMESPACE_SERVER_KEYS": KEY},
    ) as process:
        assert process.stdout
        said = process.stdout.readline().split()
        url = next(word for word in said if word.startswith("JINA_BASE_URL=")).partition("=")[2]
        with JinaAPIBackend(api_key=KEY, base_url=url, attempts=200, retry_seconds=200) as backend:
            assert backend.embed_query("a").shape == (1024,)
        process.send_signal(signal.SIGTERM)
        rest, told = process.communicate(timeout=60)
    assert (process.returncode, rest, told) == (0, "", "")
    assert KEY not in " ".join(said)


LOADS_FOR_EVER = """
from samespace.backends.jina_local.model import Loaded
from samespace.cli import main

load = Loaded.load

def endless(loaded, tasks):
    while True:
        load(loaded, tasks)
        loaded.drop()

Loaded.load = endless
main()
"""


def test_the_command_ends_as_told_while_torch_loads_weights(checkpoint: Path) -> None:
    words = ["embed-server", str(checkpoint), "--port", "0"]
    with subprocess.Popen(
        [sys.executable, "-c", LOADS_FOR_EVER, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        here = Served(process.stdout.readline().partition("on ")[2].partition(";")[0])
        assert here.get("/ready").status_code == 503
        process.send_signal(signal.SIGTERM)
        rest, told = process.communicate(timeout=60)
    assert (process.returncode, rest, told) == (0, "", "")
