"""What passes the gates of a migration in use: rows on their way, without words, or beyond the plan."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from qdrant_client import QdrantClient
from qdrant_client.models import Distance, PointStruct, VectorParams
from tests.audit.poisoning import documents
from tests.cli.running import Caller
from tests.contract.ingesting import Place, postgres_place
from tests.migrate.following import Follower
from tests.places import database, opened_place

from samespace import Document, HashingBackend, Layout, PgVectorStore, QdrantStore, field
from samespace.errors import MigrationError
from samespace.migrate import (
    MigrationPlan,
    Verification,
    abort,
    finish,
    open_slot,
    plan,
    run,
    status,
    verify,
)
from samespace.protocols import VectorStore
from samespace.testing.backends import UNLIKE, V3, TaskBackend

ROWS = documents(20)
OLD, NEW = HashingBackend(64), HashingBackend(128)


@pytest.fixture
def one(request: pytest.FixtureRequest) -> Place:
    return postgres_place(request)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(monkeypatch, capsys)


def new() -> TaskBackend:
    return TaskBackend(UNLIKE, seed=5)


def moved(store: VectorStore, **asked: Any) -> MigrationPlan:
    made = plan(store, new(), **asked)
    assert run(store, new(), made).complete
    return made


def pending(found: Verification) -> tuple[bool | None, str]:
    check = found.collections[0].check("pending")
    return check.passed, check.sentence


def test_a_row_that_a_follower_is_coming_to_is_waited_for(one: Place) -> None:
    with one.open(TaskBackend()) as store, one.open(TaskBackend()) as writer:
        store.upsert(ROWS)
        made = moved(store)
        writer.upsert([Document("late", "written just now")])
        assert pending(verify(writer, new(), made, repetitions=1, patience=0))[0] is False
        with Follower(store, new(), made, interval=0.01):
            passed, sentence = pending(verify(writer, new(), made, repetitions=1, patience=3600.0))
    assert passed, sentence


def test_a_row_that_is_blanked_or_leaves_the_plan_meanwhile_is_not_missing(one: Place) -> None:
    with one.open(TaskBackend()) as store:
        store.upsert([replace(row, metadata={"lang": "en"}) for row in ROWS])
        made = moved(store, where=field("lang") == "en")
        store.upsert([Document(id, f"written late: {id}", {"lang": "en"}) for id in "ab"])

        def change(_: str, check: str) -> None:
            if check == "sample":
                store.upsert_vectors([Document("a", " ", {"lang": "en"})], [None], space=V3)
                store.update_metadata({"b": {"lang": "de"}})

        found = verify(store, new(), made, repetitions=1, patience=0, on_progress=change)
    check = found.collections[0].check("pending")
    assert (check.passed, check.figures["blank"], check.figures["settled"]) == (True, 1, 1)


def test_evidence_of_all_rows_by_a_filter_opens_while_others_write(one: Place) -> None:
    with one.open(TaskBackend()) as store:
        store.upsert([replace(row, metadata={"lang": "en"}) for row in ROWS])
        made = moved(store, where=field("lang") == "en")
        found = verify(store, new(), made, repetitions=1)
        store.upsert([Document("later", "one more", {"lang": "en"})])
        run(store, new(), made)
        store.delete(ids=[ROWS[0].id])
        store.upsert_vectors([Document("other", " ", {"lang": "de"})], [None], space=V3)
        with pytest.raises(MigrationError, match=r"1 row of 21 .*migrate plan --collection \S+ -"):
            open_slot(store, made, found)
        store.delete(ids=["other"])
        [opened] = open_slot(store, made, found)
        assert f"verified {found.hash[:12]}" in opened.said


def test_rows_without_a_text_pass_for_who_gives_their_vectors_up(
    request: pytest.FixtureRequest, call: Caller, tmp_path: Path
) -> None:
    rows = [Document(str(n), row.text, {"lang": "en"}) for n, row in enumerate(ROWS)]
    vectors = OLD.embed_documents([row.text for row in rows])
    with opened_place("PostgreSQL", request, tmp_path) as place:
        place.make([*rows[:-2], *(replace(row, text="") for row in rows[-2:])], vectors)
        at = ("--store", place.address)
        named = ("--collection", place.name)
        assert call("adopt", *at, *named, "--backend", "hashing@64", "--yes")[0] == 0
        paths = [str(tmp_path / name) for name in ("plan.json", "evidence.json")]
        by = ("--backend", "hashing@128")
        assert call("migrate", "plan", *at, *named, *by, "--out", paths[0])[0] == 0
        planned = (*at, "--plan", paths[0])
        assert call("migrate", "run", *planned, *by)[0] == 0
        looked = ("migrate", "verify", *planned, *by, "--out", paths[1])
        code, told, _ = call(*looked)
        assert (code, "--give-up-textless" in told) == (1, True)
        code, told, _ = call(*looked, "--give-up-textless")
        assert (code, "2 rows aside with no text" in told) == (0, True)
        assert call("migrate", "open", *planned, "--verification", paths[1])[0] == 0
        assert call("migrate", "finish", *planned, "--yes", "--give-up-textless")[0] == 0


def test_rows_without_a_text_are_told_by_who_finds_texts_elsewhere(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {row.id: row.text for row in ROWS} | {"blank": " "}
    with database(request.getfixturevalue("postgres")) as info:
        with psycopg.connect(info) as connection:
            connection.execute("CREATE TABLE chunks (key text primary key, v vector(64))")
            vectors = OLD.embed_documents(list(texts.values()))
            for id, vector in zip(texts, vectors, strict=True):
                connection.execute("INSERT INTO chunks VALUES (%s, %s)", (id, str(vector.tolist())))
        layout = Layout(id="key", text=lambda ids: [texts[id] for id in ids], slot="v", metadata=())
        with PgVectorStore(info, collection="chunks", backend=OLD, layout=layout) as store:
            store.adopt(canary=False)
            planned = plan(store, NEW)
            assert run(store, NEW, planned).complete
            assert status(store, planned).collections[0].next.startswith("samespace migrate verify")
            open_slot(store, planned, force=True)
            with pytest.raises(MigrationError, match="1 row has .*no text.*--give-up-textless"):
                finish(store, planned)
            [finished] = finish(store, planned, give_up_textless=True)
    assert finished.said.endswith("with the vectors of 1 row without text")


def test_what_comes_next_leaves_aside_what_no_run_fills(one: Place) -> None:
    with one.open(TaskBackend()) as store:
        store.upsert([replace(row, metadata={"lang": "en"}) for row in ROWS])
        store.upsert_vectors([Document("blank", " ", {"lang": "en"})], [None], space=V3)
        made = moved(store)
        assert status(store, made).collections[0].next.startswith("samespace migrate verify")
        abort(store, made)
        made = moved(store, where=field("lang") == "en")
        store.upsert([Document("other", "ein deutscher Text", {"lang": "de"})])
        assert "samespace migrate plan" in status(store, made).collections[0].next
        store.upsert([Document("mine", "an English text", {"lang": "en"})])
        assert status(store, made).collections[0].next.startswith("samespace migrate run")


def test_a_run_that_may_not_begin_is_not_the_last(
    call: Caller, tmp_path: Path, qdrant_local: None
) -> None:
    place = Place("QdrantStore", str(tmp_path / "qdrant"), {})
    with place.open(OLD) as store:
        store.upsert(ROWS)
    at, path = ("--store", f"qdrant:{place.source}"), str(tmp_path / "plan.json")
    named = ("--collection", place.collection, "--backend", "hashing@128")
    assert call("migrate", "plan", *at, *named, "--out", path)[0] == 0
    migrate_run = ("migrate", "run", *at, "--plan", path, "--backend")
    assert call(*migrate_run, "hashing@128")[0] == 0
    before = call("migrate", "status", *at, "--plan", path)[1]
    assert ": complete; 20 filled" in before
    assert call(*migrate_run, "hashing@96")[0] == 3
    assert call("migrate", "status", *at, "--plan", path)[1] == before


def test_a_row_with_the_id_of_one_without_a_text_is_not_counted_for_it(tmp_path: Path) -> None:
    path, layout = str(tmp_path / "q"), Layout(id="doc", text="body", slot="v")

    def put(client: QdrantClient, n: int, id: str, text: str) -> None:
        vector = OLD.embed_documents([text or "a picture"])[0].tolist()
        client.upsert(
            "docs", [PointStruct(id=n, payload={"doc": id, "body": text}, vector={"v": vector})]
        )

    with closing(QdrantClient(path=path)) as client:
        size = VectorParams(size=64, distance=Distance.COSINE)
        client.create_collection("docs", vectors_config={"v": size})
        for n, row in enumerate(ROWS):
            put(client, n, row.id, row.text)
        put(client, 100, ROWS[3].id, "")
        with QdrantStore(client, collection="docs", layout=layout, backend=OLD) as store:
            store.adopt()
            planned = plan(store, NEW)
            run(store, NEW, planned)
            open_slot(store, planned, force=True)
            with pytest.raises(MigrationError, match="1 row has .*no text"):
                finish(store, planned)
            put(client, 200, "late", "written by an application of the old model")
            with pytest.raises(MigrationError, match="1 row has no vector"):
                finish(store, planned, give_up_textless=True)
