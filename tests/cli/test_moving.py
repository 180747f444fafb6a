"""Whole migrations by the command line alone, from wherever collections come from."""

from __future__ import annotations

import hashlib
import json
import shlex
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from elasticsearch import Elasticsearch, helpers
from psycopg.sql import SQL
from psycopg.types.json import Json
from qdrant_client import QdrantClient, models
from tests.addresses import elasticsearch_address, postgres_address
from tests.cli.running import KEY, Caller
from tests.contract.test_pgvector_layouts import PGVECTOR, PGVECTORSTORE
from tests.faults.migrating import Lexical
from tests.places import database

from samespace import Document, EmbeddingSpace, VectorStore, open_store
from samespace.cli.options import scoped
from samespace.guard import CANARY_TEXTS
from samespace.protocols import Matrix
from samespace.testing.corpus import texts
from samespace.testing.jina_server import JinaServer
from samespace.testing.jina_vectors import count_tokens

V2 = EmbeddingSpace(model="jina-embeddings-v2-base-en", dimensions=768)
V2_SPEC = "jina:jina-embeddings-v2-base-en"


def v3(dimensions: int) -> EmbeddingSpace:
    return EmbeddingSpace(
        model="jina-embeddings-v3", dimensions=dimensions, task="retrieval.passage"
    )


@dataclass(frozen=True, slots=True)
class Start:
    """A collection with vectors of v2: where it is, and which of several in its table."""

    address: str
    name: str
    scope: tuple[str, ...] = ()
    is_ours: bool = False

    @property
    def place(self) -> tuple[str, ...]:
        return ("--store", self.address, *self.scope)


Rows = Sequence[Document]


@contextmanager
def pgvectorstore(request: pytest.FixtureRequest, rows: Rows, vectors: Matrix) -> Iterator[Start]:
    """A table of LangChain's ``PGVectorStore``."""
    with database(request.getfixturevalue("postgres")) as conninfo:
        _insert(conninfo, PGVECTORSTORE.replace("vector(64)", "vector(768)"), "passages", [
            (uuid.UUID(int=int(row.id) + 1), row.text, vector, Json(row.metadata))
            for row, vector in zip(rows, _literals(vectors), strict=True)
        ])  # fmt: skip
        yield Start(postgres_address(conninfo), "passages")


@contextmanager
def pgvector(request: pytest.FixtureRequest, rows: Rows, vectors: Matrix) -> Iterator[Start]:
    """A collection in the table of LangChain's older ``PGVector``, which has another one."""
    mine, other = uuid.UUID(int=1), uuid.UUID(int=2)
    with database(request.getfixturevalue("postgres")) as conninfo:
        _insert(conninfo, PGVECTOR, "langchain_pg_collection", [
            (mine, "mine", None), (other, "other", None)
        ])  # fmt: skip
        _insert(conninfo, "", "langchain_pg_embedding", [
            (f"theirs {number}", other, "[1,2,3]", "a row of another collection", Json({}))
            for number in range(5)
        ])  # fmt: skip
        _insert(conninfo, "", "langchain_pg_embedding", [
            (row.id, mine, vector, row.text, Json(row.metadata))
            for row, vector in zip(rows, _literals(vectors), strict=True)
        ])  # fmt: skip
        scope = ("--scope", f"collection_id={mine}")
        yield Start(postgres_address(conninfo), "langchain_pg_embedding", scope)


def _insert(conninfo: str, before: str, table: str, rows: list[tuple[Any, ...]]) -> None:
    with psycopg.connect(conninfo) as connection:
        if before:
            connection.execute(before.replace("{schema}", "public").encode())
        marks = SQL(", ").join([SQL("%s")] * len(rows[0]))
        statement = SQL("INSERT INTO {} VALUES ({})").format(SQL(table), marks)
        connection.cursor().executemany(statement, rows)


def _literals(vectors: Matrix) -> list[str]:
    return [str(vector.tolist()) for vector in vectors]


@contextmanager
def unnamed(request: pytest.FixtureRequest, rows: Rows, vectors: Matrix) -> Iterator[Start]:
    """Points in a folder of local mode."""
    request.getfixturevalue("qdrant_local")
    folder = request.getfixturevalue("tmp_path") / "points"
    with closing(QdrantClient(path=str(folder))) as client:
        _put_points(client, "passages", rows, vectors)
    yield Start(f"qdrant:{folder}", "passages")


@contextmanager
def served(request: pytest.FixtureRequest, rows: Rows, vectors: Matrix) -> Iterator[Start]:
    """Points in a server."""
    url, name = request.getfixturevalue("qdrant"), f"passages_{uuid.uuid4().hex[:12]}"
    port = request.getfixturevalue("qdrant_grpc")  # over which alone an unnamed vector is dropped
    request.getfixturevalue("monkeypatch").setenv("QDRANT_GRPC_PORT", str(port))
    with closing(QdrantClient(url, check_compatibility=False)) as client:
        _put_points(client, name, rows, vectors)
        yield Start(url.replace("http://", "qdrant://"), name)
        client.delete_collection(name)


def _put_points(client: QdrantClient, name: str, rows: Rows, vectors: Matrix) -> None:
    """With integer ids, an unnamed vector, and texts under a key of the payload."""
    size = models.VectorParams(size=768, distance=models.Distance.COSINE)
    client.create_collection(name, vectors_config=size)
    points = [
        models.PointStruct(
            id=int(row.id), payload={"body": row.text, **row.metadata}, vector=vector.tolist()
        )
        for row, vector in zip(rows, vectors, strict=True)
    ]
    for first in range(0, len(points), 500):
        client.upsert(name, points[first : first + 500], wait=True)


@contextmanager
def crowded(request: pytest.FixtureRequest, rows: Rows, vectors: Matrix) -> Iterator[Start]:
    """An index with forty other fields, a ``_meta`` and a final pipeline of its owner's."""
    url, name = request.getfixturevalue("elasticsearch"), f"passages-{uuid.uuid4().hex[:12]}"
    with Elasticsearch(url) as client:
        client.ingest.put_pipeline(id=name, processors=[{"set": {"field": "seen", "value": True}}])
        others = {f"other_{number}": {"type": "keyword"} for number in range(40)}
        vector = {"type": "dense_vector", "dims": 768, "similarity": "cosine"}
        client.indices.create(
            index=name,
            mappings={
                "_meta": {"owner": "somebody"},
                "properties": {"v": vector, "body": {"type": "text"}, **others},
            },
            settings={"final_pipeline": name},
        )
        helpers.bulk(client, [
            {"_index": name, "_id": row.id, "_source": {
                "body": row.text, "v": vector.tolist(), **dict.fromkeys(others, "x")
            }}
            for row, vector in zip(rows, vectors, strict=True)
        ], refresh=True)  # fmt: skip
        yield Start(elasticsearch_address(url), name)
        mapping = client.indices.get(index=name)[name]
        assert mapping["mappings"]["_meta"]["owner"] == "somebody"
        client.indices.delete(index=name)


@contextmanager
def ours(request: pytest.FixtureRequest, rows: Rows, vectors: Matrix) -> Iterator[Start]:
    """A collection that this library made, in the embedded store."""
    with database(request.getfixturevalue("postgres")) as conninfo:
        start = Start(postgres_address(conninfo), "passages", is_ours=True)
        with open_store(start.address, collection=start.name, space=V2) as store:
            store.upsert_vectors(rows, list(vectors), space=V2)
        yield start


Making = Callable[[pytest.FixtureRequest, Rows, Matrix], Any]
STARTS: dict[str, Making] = {
    "ours": ours,
    "PGVectorStore": pgvectorstore,
    "PGVector": pgvector,
    "Qdrant local, unnamed": unnamed,
    "Qdrant REST, unnamed": served,
    "Elasticsearch, crowded": crowded,
}
SIZES = [
    pytest.param(300, id="small"),
    pytest.param(20_000, id="full", marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
]


LOCALLY = 5
"""How many times as few rows there are in local mode, which writes a point at a time, several times."""


class Account:
    """The API's server, and what it has been asked for."""

    def __init__(self, server: JinaServer) -> None:
        self._server = server

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def requests(self) -> int:
        return len(self._server.requests)

    @property
    def tokens(self) -> int:
        """Of all texts but the canary's."""
        asked = [text for each in self._server.requests for text in each["input"]]
        return sum(count_tokens(text) for text in asked if text not in CANARY_TEXTS)


@pytest.fixture
def account() -> Iterator[Account]:
    with JinaServer(keys=(KEY,)) as server:
        yield Account(server)


class Moving:
    """``samespace`` on one collection."""

    def __init__(self, start: Start, call: Caller, folder: Path) -> None:
        self.start, self._call, self._folder = start, call, folder

    def does(self, *arguments: str) -> str:
        """What a command that succeeds has to say."""
        code, shown, said = self._call(*arguments)
        assert code == 0, shown + said
        return shown

    def adopt(self) -> None:
        """By the command that ``identify`` prints."""
        at = (*self.start.place, "--collection", self.start.name)
        found = self.does("identify", *at, "--candidate", V2_SPEC)
        (command,) = [line for line in found.splitlines() if line.startswith("  samespace adopt")]
        self.does(*shlex.split(command)[1:], "--yes")

    def plan(self, backend: str) -> Path:
        file = self._folder / f"{backend.replace(':', '-')}.json"
        self.does(
            "migrate", "plan", *self.start.place, "--collection", self.start.name,
            "--backend", backend, "--out", str(file),
        )  # fmt: skip
        return file

    def run(self, plan: Path, backend: str) -> dict[str, Any]:
        arguments = (*self.start.place, "--backend", backend, "--plan", str(plan), "--json")
        report: dict[str, Any] = json.loads(self.does("migrate", "run", *arguments))
        assert report["complete"]
        return report

    def ends(self, part: str, plan: Path, *more: str) -> None:
        self.does("migrate", part, *self.start.place, "--plan", str(plan), *more)

    def check(self, space: EmbeddingSpace, rows: Rows) -> None:
        """Every row has the vector of its text in the space's slot."""
        with self.opened(space) as store:
            found = list(store.scan(with_vectors=True))
        shown = [row.text for row in rows]
        expected = dict(zip(shown, Lexical(space).embed_documents(shown), strict=True))
        assert len(found) == len(rows)
        for row in found:
            assert row.vector is not None
            assert np.allclose(row.vector, expected[row.text], atol=1e-5)

    def opened(self, space: EmbeddingSpace) -> VectorStore:
        start = self.start
        layout = scoped(start.address, start.name, [*start.scope[1:]] or None)
        return open_store(start.address, collection=start.name, space=space, layout=layout)


@pytest.fixture(params=STARTS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=SIZES)
def rows(request: pytest.FixtureRequest, kind: str) -> Rows:
    count = request.param // LOCALLY if kind.startswith("Qdrant local") else request.param
    return [
        Document(str(number), f"{text} {words_of(number)}", {"lang": ("de", "en")[number % 2]})
        for number, text in enumerate(texts(count))
    ]


def words_of(number: int) -> str:
    """Words of one row alone: among many rows its own text is to be the nearest by far."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return " ".join(digest[start : start + 5] for start in range(0, 40, 5))


@pytest.fixture
def call(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Caller:
    """The command, with a key for the server."""
    call = Caller(monkeypatch, capsys)
    monkeypatch.setenv("JINA_API_KEY", KEY)
    monkeypatch.setenv("JINA_BASE_URL", account.url)
    return call


@pytest.fixture
def moving(
    request: pytest.FixtureRequest, kind: str, rows: Rows, call: Caller, tmp_path: Path
) -> Iterator[Moving]:
    vectors = Lexical(V2).embed_documents([row.text for row in rows])
    with STARTS[kind](request, rows, vectors) as start:
        moving = Moving(start, call, tmp_path)
        if not start.is_ours:
            moving.adopt()
        yield moving


def test_from_v2_to_v3_of_either_size_and_from_there_to_a_shorter_one(
    moving: Moving, rows: Rows, account: Account, tmp_path: Path
) -> None:
    same_size = embedded(moving, "jina@768", rows, account)
    moving.ends("abort", same_size, "--yes")
    plan = embedded(moving, "jina@1024", rows, account)
    evidence, backends = str(tmp_path / "evidence.json"), ("jina@1024", "--old-backend", V2_SPEC)
    few = ("--sample", "50", "--repetitions", "1")
    moving.ends("verify", plan, "--backend", *backends, "--out", evidence, *few)
    moving.ends("open", plan, "--verification", evidence)
    moving.ends("finish", plan, "--yes")

    before = account.requests
    report = moving.run(moving.plan("jina@256"), "jina@256")
    assert account.requests == before
    assert report["collections"][0]["slots"][0]["derived"] == len(rows)
    moving.check(v3(256), rows)


def embedded(moving: Moving, backend: str, rows: Rows, account: Account) -> Path:
    """The plan of a move that is done, for which each text was paid once, and nothing before."""
    before = account.tokens
    plan = moving.plan(backend)
    assert account.tokens == before
    report = moving.run(plan, backend)
    corpus = sum(count_tokens(row.text) for row in rows)
    assert report["tokens"] == account.tokens - before
    assert corpus <= report["tokens"] <= 1.01 * corpus
    moving.check(v3(int(backend.partition("@")[2])), rows)
    return plan
