"""Collections that LangChain itself made: recognised, identified, adopted, and LangChain goes on."""

from __future__ import annotations

import json
import shlex
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elasticsearch import Elasticsearch
from qdrant_client import QdrantClient
from tests.addresses import elasticsearch_address, postgres_address
from tests.cli.running import Caller
from tests.contract.test_langchain import PYTHON, SCRIPT, url_of
from tests.contract.test_pgvector_layouts import texts
from tests.places import database, dump_database, dump_index, dump_points

from samespace import HashingBackend
from samespace.opening import survey

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(
        not PYTHON.exists(), reason="LangChain is not installed: python tools/install.py peers"
    ),
]
BACKEND = HashingBackend(64)
QUERY = "amber brook cedar"
TEXTS = texts()
IDS = [str(uuid.UUID(int=number + 1)) for number in range(len(TEXTS))]
ADDED = [(id, text, {"n": n}) for n, (id, text) in enumerate(zip(IDS, TEXTS, strict=True))]
SEARCH: dict[str, Any] = {"search": QUERY, "k": 10}
PROBES = ("dummy_text", "get num dimensions")
"""What LangChain embeds to see how long its vectors are."""
KINDS = {
    "PGVectorStore": "passages",
    "PGVector": "langchain_pg_embedding",
    "QdrantVectorStore": "My-Passages",
    "ElasticsearchStore": "my-passages",
}
"""Each with the name that the collection has for the store."""


@dataclass(frozen=True, slots=True)
class Made:
    """Where LangChain keeps its passages, as it and as we name it, and all that is there."""

    kind: str
    url: str
    address: str
    name: str
    dump: Callable[[], object]

    def application(self, *jobs: dict[str, Any]) -> list[Any]:
        """What LangChain answers."""
        known = [*TEXTS, QUERY, *PROBES]
        vectors = BACKEND.embed_documents(known).tolist()
        asked = {
            "kind": self.kind,
            "url": self.url,
            "schema": "public",
            "name": "mine" if self.kind == "PGVector" else self.name,
            "known": dict(zip(known, vectors, strict=True)),
            "jobs": jobs,
        }
        done = subprocess.run(
            [PYTHON, SCRIPT, json.dumps(asked)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        answers: list[Any] = json.loads(done.stdout)
        return answers


@pytest.fixture(params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Made]:
    kind, ask = request.param, request.getfixturevalue
    name = KINDS[kind]
    if kind == "QdrantVectorStore":
        ask("qdrant_local")
        folder = str(tmp_path / "points")
        yield Made(kind, folder, f"qdrant:{folder}", name, lambda: dump_folder(folder))
    elif kind == "ElasticsearchStore":
        url = ask("elasticsearch")
        with Elasticsearch(url) as client:
            client.indices.delete(index=name, ignore_unavailable=True)
            yield Made(
                kind, url, elasticsearch_address(url), name, lambda: dump_index(client, name)
            )
            client.indices.delete(index=name, ignore_unavailable=True)
    else:
        with database(ask("postgres")) as conninfo:
            address = postgres_address(conninfo)
            yield Made(kind, url_of(conninfo), address, name, lambda: dump_database(conninfo))


def dump_folder(folder: str) -> object:
    client = QdrantClient(path=folder)
    try:
        return dump_points(client)
    finally:
        client.close()


def shown(answer: list[list[Any]]) -> list[str]:
    """The texts of LangChain's hits."""
    return [text for _, text, *_ in answer]


def test_they_are_adopted_by_two_commands_and_their_maker_goes_on(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = Caller(monkeypatch, capsys)
    _, found = made.application({"add": ADDED[:50]}, SEARCH)
    before = made.dump()
    place = ("--store", made.address, "--collection", made.name)
    best = survey(made.address, collection=made.name).proposals[0]
    assert best.maker == f"LangChain {made.kind}"
    code, told, _ = call("identify", *place)
    assert code == 0, told
    (command,) = [line for line in told.splitlines() if line.startswith("  samespace adopt")]
    code, _, said = call(*shlex.split(command)[1:], "--yes")
    assert code == 0, said
    assert made.dump() == before

    search = ("search", QUERY, *place, "--backend", "hashing@64", "--limit", "10", "--json")
    code, told, _ = call(*search)
    hits = json.loads(told)
    scores = dict(
        zip(TEXTS, BACKEND.embed_documents(TEXTS) @ BACKEND.embed_query(QUERY), strict=True)
    )
    assert code == 0
    texts_found = [hit["text"] for hit in hits]
    exact = sorted(ADDED[:50], key=lambda row: -scores[row[1]])[:10]
    assert texts_found == [text for _, text, _ in exact]
    assert np.allclose(
        [hit["score"] for hit in hits], [scores[text] for text in texts_found], atol=1e-5
    )
    if made.kind == "ElasticsearchStore":  # which LangChain asks for what its index of bytes finds
        assert len({*texts_found} & {*shown(found)}) >= 9
    else:
        assert texts_found == shown(found)
    assert all(hit["metadata"] == {"n": TEXTS.index(hit["text"])} for hit in hits)

    again, _, _, after = made.application(
        SEARCH, {"add": ADDED[50:]}, {"delete": [IDS[TEXTS.index(shown(found)[0])]]}, SEARCH
    )
    assert shown(again) == shown(found)
    assert np.allclose([hit[-1] for hit in again], [hit[-1] for hit in found], atol=1e-6)
    assert shown(found)[0] not in shown(after)
    assert call(*search)[0] == 0
    assert json.loads(call("info", *place, "--json")[1])["rows"] == len(TEXTS) - 1
