"""What a refusal prints is typed, and then there is nothing to refuse."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from elasticsearch import Elasticsearch
from psycopg.sql import SQL, Identifier
from tests.cli.running import Caller
from tests.places import STORES, Documents, Place, Points, Table, opened_place

from samespace import Document, EmbeddingSpace, HashingBackend, open_store
from samespace.guard import CANARY_TEXTS, UPGRADE, Canary, SlotRecord
from samespace.protocols import Matrix
from samespace.stores.qdrant.requests import RECORD
from samespace.testing.backends import DistortingBackend
from samespace.testing.corpus import texts

BACKEND = HashingBackend(64)
SLOT = BACKEND.space.id
SPEC = "hashing@64"
ROWS = [Document(str(n), text, {"lang": "en"}) for n, text in enumerate(texts(60))]
COMMAND = re.compile(
    r"samespace (?:[a-z-]+ )+--(?:store|collection) (?:'[^']*'|[^\s;,()])+"
    r"(?: --(?:scope|backend|candidate) (?:'[^']*'|[^\s;,)]+))*"
)


@pytest.fixture(params=STORES)
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    """A store that the environment names, as the printed commands suppose."""
    with opened_place(request.param, request, tmp_path) as place:
        monkeypatch.setenv("SAMESPACE_STORE", place.address)
        yield place


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(monkeypatch, capsys)


class Own:
    """A collection of ours, and what a stranger does to its record."""

    def __init__(self, place: Place, *, backend: Any = SPEC) -> None:
        self.place = place
        self.name = place.name.lower().replace(" ", "_").replace("-", "_").replace("%", "")
        with open_store(place.address, collection=self.name, backend=backend) as store:
            store.upsert(ROWS)

    def of(self, *words: str, backend: str = SPEC) -> tuple[str, ...]:
        return (*words, "--collection", self.name, "--backend", backend)

    def record(self) -> Any:
        if isinstance(self.place, Table):
            with psycopg.connect(self.place.conninfo) as connection:
                return connection.execute("SELECT record FROM samespace.collections").fetchall()[0][
                    0
                ]
        if isinstance(self.place, Points):
            with self.place.client() as client:
                return (client.get_collection(self.name).config.metadata or {})[RECORD]
        with Elasticsearch(self._server) as client:
            return client.indices.get_mapping(index=self.name)[self.name]["mappings"]["_meta"][
                RECORD
            ]

    def set_record(self, record: object) -> None:
        """Any JSON in the place of the record; None removes it."""
        if isinstance(self.place, Table):
            with psycopg.connect(self.place.conninfo) as connection:
                if record is None:
                    connection.execute("DROP SCHEMA samespace CASCADE")  # as a partial restore does
                else:
                    connection.execute(
                        "UPDATE samespace.collections SET record = %s", (json.dumps(record),)
                    )
        elif isinstance(self.place, Points):
            with self.place.client() as client:
                client.update_collection(self.name, metadata={RECORD: record})
        else:
            with Elasticsearch(self._server) as client:
                meta = {} if record is None else {RECORD: record}
                client.indices.put_mapping(index=self.name, meta=meta)

    def remove(self) -> None:
        """Leave nothing on a server that others use."""
        if isinstance(self.place, Documents):
            with Elasticsearch(self._server) as client:
                client.indices.delete(index=self.name)

    @property
    def _server(self) -> str:
        assert isinstance(self.place, Documents)
        return self.place.url


class Adopted(Own):
    """A collection that others made, and that was adopted."""

    def __init__(self, place: Place, call: Caller) -> None:
        self.place = place
        self.name = place.name
        place.make(ROWS, BACKEND.embed_documents([row.text for row in ROWS]))
        code, _, said = call("adopt", *self.of(), "--yes")
        assert code == 0, said


@pytest.fixture
def own(place: Place) -> Iterator[Own]:
    made = Own(place)
    yield made
    made.remove()


def printed(said: str) -> list[str]:
    """The commands in a message, as they are."""
    return COMMAND.findall(" ".join(said.split()))


def follow(call: Caller, said: str, start: str, *more: str) -> str:
    """Type the printed command that starts so, with our backend where it asks for one; what it says."""
    found = next(each for each in printed(said) if each.startswith(start))
    found = found.replace("--backend SPEC", f"--backend {SPEC}")
    code, told, wrong = call(*shlex.split(found)[1:], *more)
    assert code == 0, (found, told, wrong)
    return told


def refused(call: Caller, *arguments: str, code: int = 3) -> str:
    """What a command says that is refused."""
    ended, told, said = call(*arguments)
    assert ended == code, (told, said)
    return said


def is_searched(call: Caller, own: Own) -> None:
    code, told, said = call(*own.of("search", ROWS[7].text, "--json", "--limit", "1"))
    assert code == 0, said
    assert [hit["id"] for hit in json.loads(told)] == ["7"]


def test_another_space_is_followed_by_the_backend_of_the_stored_one(call: Caller, own: Own) -> None:
    said = refused(call, *own.of("search", "x", backend="hashing@128"))
    (spec,) = re.findall(r"--backend (\S+)", said)
    code, told, _ = call(*own.of("search", ROWS[7].text, "--json", "--limit", "1", backend=spec))
    assert code == 0
    assert [hit["id"] for hit in json.loads(told)] == ["7"]


def without_slots(record: Any) -> Any:
    return {**record, "slots": []}


def of_a_slot_that_is_not_there(record: Any) -> Any:
    (slot,) = record["slots"]
    return {**record, "slots": [{**slot, "name": "elsewhere"}]}


SPOILED: dict[str, Callable[[Any], Any]] = {
    "lost": lambda record: None,
    "no JSON of ours": lambda record: "a record",
    "without slots": without_slots,
    "of a slot that is not there": of_a_slot_that_is_not_there,
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_record_that_is_no_use_is_written_anew(
    call: Caller, own: Own, tmp_path: Path, how: str
) -> None:
    before = own.record()
    own.set_record(SPOILED[how](before))
    (tmp_path / "rows.jsonl").write_text('{"id": "new", "text": "a new text"}\n')
    writing = own.of("ingest", str(tmp_path / "rows.jsonl"))
    said = refused(call, *writing)
    follow(call, said, "samespace guard repair-record", "--backend", SPEC)
    assert [slot["name"] for slot in own.record()["slots"]] == [SLOT]
    assert call(*writing)[0] == 0
    is_searched(call, own)


def test_a_newer_record_stays_as_it_is_until_the_library_is_upgraded(
    call: Caller, own: Own, tmp_path: Path
) -> None:
    newer = {**own.record(), "format": 99}
    own.set_record(newer)
    (tmp_path / "rows.jsonl").write_text('{"id": "new", "text": "a new text"}\n')
    for asked in (("search", "x"), ("ingest", str(tmp_path / "rows.jsonl"))):
        said = refused(call, *own.of(*asked))
        assert (UPGRADE in said, printed(said)) == (True, [])
    refused(call, "guard", "repair-record", "--collection", own.name)
    assert own.record() == newer


def test_the_printed_upgrade_is_one_that_pip_takes() -> None:
    python, *rest = shlex.split(UPGRADE)
    assert python == "python"
    offline = ["--dry-run", "--no-index", "--no-deps"]
    run = subprocess.run(
        [sys.executable, *rest, *offline], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "samespace" in run.stdout


def forged(record: Any) -> Any:
    """The record with a canary that nobody's backend embeds so."""
    (slot,) = record["slots"]
    space = EmbeddingSpace.from_dict(slot["space"])
    canary = SlotRecord(
        name="", space=space, canary=canary_of(DistortingBackend(BACKEND, documents=backwards))
    ).to_dict()["canary"]
    return {**record, "slots": [{**slot, "canary": canary}]}


def backwards(made: Matrix) -> Matrix:
    return made[:, ::-1].copy()


def canary_of(backend: Any) -> Canary:
    made = backend.embed_documents(CANARY_TEXTS), backend.embed_queries(CANARY_TEXTS)
    return Canary(*(each.astype(np.float16) for each in made))


@pytest.mark.parametrize("whose", ["ours", "adopted"])
def test_a_canary_that_the_rows_contradict_is_written_anew(
    call: Caller, place: Place, tmp_path: Path, whose: str
) -> None:
    own = Own(place) if whose == "ours" else Adopted(place, call)
    before = own.record()
    own.set_record(forged(before))
    (tmp_path / "rows.jsonl").write_text('{"id": "99", "text": "a new text"}\n')
    said = refused(call, *own.of("ingest", str(tmp_path / "rows.jsonl")))
    follow(call, said, "samespace guard repair-record")
    assert own.record() == before
    is_searched(call, own)
    own.remove()


def test_a_backend_that_the_rows_contradict_is_not_recorded(call: Caller, place: Place) -> None:
    wrong = DistortingBackend(BACKEND, documents=backwards, queries=backwards)
    own = Own(place, backend=wrong)
    before = own.record()
    said = refused(call, *own.of("search", "x"))
    asked = next(each for each in printed(said) if "repair-record" in each)
    said = refused(call, *shlex.split(asked)[1:-1], SPEC)
    assert own.record() == before
    assert "DistortingBackend" in follow(call, said, "samespace info")
    with open_store(place.address, collection=own.name, backend=wrong) as store:
        assert store.search(ROWS[7].text, limit=1)[0].document.id == "7"
    own.remove()


def test_a_slot_that_is_being_filled_leads_to_the_one_that_is_ready(call: Caller, own: Own) -> None:
    filling = HashingBackend(32).space
    with open_store(own.place.address, collection=own.name, backend=SPEC) as store:
        store.add_slot(filling)
    said = refused(call, *own.of("search", "x", backend="hashing@32"))
    told = follow(call, said, "samespace info")
    assert [str(space) in told for space in (filling, BACKEND.space)] == [True, True]
    is_searched(call, own)


def test_an_adopted_collection_that_was_altered_is_adopted_again(
    call: Caller, place: Place
) -> None:
    own = Adopted(place, call)
    (slot,) = (record := own.record())["slots"]
    own.set_record({**record, "slots": [{**slot, "name": "elsewhere"}]})
    said = refused(call, *own.of("search", "x"))
    follow(call, said, "samespace adopt", "--yes")
    is_searched(call, own)
    own.remove()


def test_a_collection_of_others_is_identified_then_adopted(call: Caller, place: Place) -> None:
    place.make(ROWS, BACKEND.embed_documents([row.text for row in ROWS]))
    asked = ("search", ROWS[7].text, "--collection", place.name, "--backend", SPEC)
    said = refused(call, *asked)
    told = follow(call, said, "samespace identify")
    (line,) = [each.strip() for each in told.splitlines() if "samespace adopt" in each]
    assert call(*shlex.split(line)[1:], "--yes")[0] == 0
    code, told, _ = call(*asked, "--json", "--limit", "1")
    assert (code, [hit["id"] for hit in json.loads(told)]) == (0, ["7"])


def test_what_is_no_collection_is_made_by_the_printed_command(
    call: Caller, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILES").mkdir()
    (tmp_path / "FILES" / "one.txt").write_text("a text of one file")
    name = f"no_{place.name.lower().replace(' ', '_').replace('-', '_').replace('%', '')}"
    asked = ("search", "a text", "--collection", name)
    said = refused(call, *asked, code=1)
    command = next(each for each in printed(said.replace(" FILES", "")))
    assert call(*shlex.split(command.replace("ingest", "ingest FILES"))[1:])[0] == 0
    assert call(*asked)[0] == 0
    call("drop", "--collection", name, "--yes")


def test_foreign_vectors_are_repaired_by_the_command_that_the_audit_prints(
    call: Caller, own: Own
) -> None:
    backwards = DistortingBackend(BACKEND, documents=lambda made: made[:, ::-1].copy())
    wrong = ROWS[3:9]
    with open_store(own.place.address, collection=own.name, space=BACKEND.space) as store:
        made = backwards.embed_documents([row.text for row in wrong])
        store.upsert_vectors(wrong, made, space=BACKEND.space)
    code, told, _ = call(*own.of("audit", "--all", "--max-share", "0"))
    assert (code, "foreign: 6 (10.00%)" in told) == (1, True)
    line = told.rpartition("to repair them: ")[2]
    code, _, said = call(*shlex.split(line)[1:], "--yes")
    assert code == 0, said
    assert call(*own.of("audit", "--all", "--max-share", "0"))[0] == 0
    is_searched(call, own)


def test_rows_without_a_vector_are_filled_before_the_guard_is_installed(
    call: Caller, own: Own
) -> None:
    """PostgreSQL and Qdrant take them; Elasticsearch says what to do first."""
    with open_store(own.place.address, collection=own.name, space=BACKEND.space) as store:
        store.upsert_vectors([Document("later", "to be filled")], [None], space=BACKEND.space)
    install = ("guard", "install", "--collection", own.name)
    if isinstance(own.place, Documents):
        said = refused(call, *install, code=1)
        follow(call, said, "samespace repair", "--yes")
    assert call(*install)[0] == 0
    assert call("guard", "remove", "--collection", own.name)[0] == 0


@pytest.mark.parametrize("place", ["PostgreSQL"], indirect=True)  # where a check can be added
def test_rows_that_a_check_would_refuse_are_named_and_mended(call: Caller, place: Table) -> None:
    place.make(ROWS, BACKEND.embed_documents([row.text for row in ROWS]))
    named = ("--collection", place.name)
    assert call("adopt", *named, "--backend", SPEC, "--yes")[0] == 0
    with psycopg.connect(place.conninfo) as connection:
        table = Identifier(place.name.replace("%", "%%"))
        connection.execute(SQL("UPDATE {} SET v = v * v WHERE key IN (3, 5)").format(table), ())
    said = refused(call, "guard", "install", *named, code=1)
    assert said.startswith("samespace: 2 rows of collection")
    told = follow(call, said, "samespace audit", "--backend", SPEC, "--all")
    code, _, wrong = call(*shlex.split(told.rpartition("to repair them: ")[2])[1:], "--yes")
    assert code == 0, wrong
    assert call("guard", "install", *named)[0] == 0
