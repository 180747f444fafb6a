"""From a collection that nobody knows anything of to one that is guarded, by two commands."""

from __future__ import annotations

import json
import re
import shlex
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest
from tests.addresses import postgres_address
from tests.cli.running import KEY, Caller, run
from tests.contract.test_pgvector_layouts import MAKERS
from tests.places import STORES, Place, Table, database, dump_database, opened_place

from samespace import Document, EmbeddingSpace, HashingBackend, JinaAPIBackend, open_store
from samespace.models import find_model
from samespace.opening import survey
from samespace.protocols import Matrix
from samespace.testing.corpus import texts
from samespace.testing.jina_server import JinaServer
from samespace.testing.jina_vectors import LexicalModel

BACKEND = HashingBackend(64)
QUERY = "how to repair a bicycle"
ROWS = [
    Document(str(n), text, {"lang": ("de", "en")[n % 2], "title": f"Part {n}"})
    for n, text in enumerate(texts(60))
]
VECTORS = BACKEND.embed_documents([row.text for row in ROWS])


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with opened_place(request.param, request, tmp_path) as place:
        yield place


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(monkeypatch, capsys)


everywhere = pytest.mark.parametrize("place", STORES, indirect=True)
in_postgres = pytest.mark.parametrize("place", ["PostgreSQL"], indirect=True)


def of(place: Place) -> tuple[str, ...]:
    return ("--store", place.address, "--collection", place.name)


def others() -> Matrix:
    """Vectors of another model."""
    model = find_model("jina-embeddings-v4")
    assert model is not None
    shown = [row.text for row in ROWS]
    return LexicalModel(model).embed(shown, task="retrieval.passage", dimensions=64)


@everywhere
def test_the_printed_command_adopts_and_nothing_but_the_record_changes(
    place: Place, call: Caller
) -> None:
    place.make(ROWS, VECTORS)
    before = place.dump()
    code, _, said = call("search", QUERY, *of(place), "--backend", "hashing@64")
    assert code == 3
    assert "samespace identify" in said
    assert "samespace adopt" in said
    code, told, _ = call("identify", *of(place))
    assert code == 0, told
    (command,) = [line for line in told.splitlines() if line.startswith("  samespace adopt")]
    assert place.dump() == before
    code, told, said = call(*shlex.split(command)[1:], "--yes")
    assert code == 0, said
    assert place.dump() == before

    code, told, _ = call(
        "search", QUERY, *of(place), "--backend", "hashing@64", "--json", "--limit", "10"
    )
    hits = json.loads(told)
    scores = VECTORS @ BACKEND.embed_query(QUERY)
    assert np.allclose([hit["score"] for hit in hits], np.sort(scores)[::-1][:10], atol=1e-5)
    assert np.allclose(
        [hit["score"] for hit in hits], [scores[int(hit["id"])] for hit in hits], atol=1e-5
    )
    code, told, _ = call("info", *of(place), "--json")
    assert json.loads(told)["layout"]["text"] == "body"
    assert call("adopt", *of(place), "--backend", "hashing@64")[0] == 0
    assert call("adopt", *of(place), "--backend", "hashing@32")[0] == 3
    with open_store(place.address, collection=place.name, backend="hashing@64") as store:
        store.upsert([Document("1000", "a new text", dict(ROWS[0].metadata))])
        assert store.search("a new text", limit=1)[0].document.id == "1000"
        assert store.delete(ids=["1000"]) == 1
    if isinstance(place, Table):
        with psycopg.connect(place.conninfo) as connection:
            (kind,) = connection.execute(
                "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attname = 'key'"
            ).fetchall()[0]
            assert kind == "bigint"


@everywhere
def test_what_the_sample_contradicts_is_refused_and_nothing_recorded(
    place: Place, call: Caller
) -> None:
    place.make(ROWS, others())
    code, _, said = call("adopt", *of(place), "--backend", "hashing@64", "--yes")
    assert code == 3
    assert "no candidate made these vectors" in said
    assert "--unproved" in said
    assert survey(place.address, collection=place.name).records == ()
    code, told, _ = call("identify", *of(place))
    assert code == 1
    assert "none of these: no candidate made these vectors" in told
    assert "samespace adopt" not in told
    assert call("adopt", *of(place), "--backend", "hashing@64", "--yes", "--unproved")[0] == 0
    assert len(survey(place.address, collection=place.name).records) == 1


@in_postgres
def test_nobody_to_ask_is_no_consent(place: Place) -> None:
    place.make(ROWS, VECTORS)
    done = run(Path("/nowhere"), "adopt", *of(place), "--backend", "hashing@64")
    assert done.returncode == 2
    assert "nobody answered, so nothing was adopted" in done.stderr
    assert survey(place.address, collection=place.name).records == ()


@in_postgres
def test_rows_of_another_size_are_named_and_no_command_is_printed_that_fails(
    place: Table, call: Caller
) -> None:
    place.make(ROWS, VECTORS)
    with psycopg.connect(place.conninfo) as connection:
        connection.execute('ALTER TABLE "Chunks 100%" ALTER v TYPE vector')
        connection.execute("""UPDATE "Chunks 100%" SET v = '[1,0]' WHERE key IN (7, 8)""")
        connection.execute("""UPDATE "Chunks 100%" SET v = '[1,0,0]' WHERE key = 9""")
    code, told, _ = call("identify", *of(place))
    assert code == 0
    assert "identified: the vectors are those of" in told
    assert "2 rows of 2 dimensions ('7', '8'); 1 row of 3 dimensions ('9')" in told
    assert "samespace adopt" not in told
    code, _, said = call("adopt", *of(place), "--backend", "hashing@64", "--yes")
    assert code != 0
    assert "2 rows of 2 dimensions ('7', '8'); 1 row of 3 dimensions ('9')" in said
    (mend,) = re.findall(r"UPDATE .* <> 64", told)
    with psycopg.connect(place.conninfo) as connection:
        connection.execute(mend)
    code, told, _ = call("identify", *of(place))
    (command,) = [line for line in told.splitlines() if line.startswith("  samespace adopt")]
    assert call(*shlex.split(command)[1:], "--yes")[0] == 0


@in_postgres
def test_parts_of_the_layout_can_be_named(place: Place, call: Caller) -> None:
    place.make(ROWS, BACKEND.embed_documents([str(row.metadata["title"]) for row in ROWS]))
    assert call("identify", *of(place), "--text", "body")[0] == 1
    parts = ("--text", "title", "--metadata", "lang")
    code, told, _ = call("adopt", *of(place), "--backend", "hashing@64", *parts, "--yes", "--json")
    layout = json.loads(told)["layout"]
    assert (code, layout["text"], layout["id"]) == (0, "title", "key")
    assert layout["metadata"] == ["lang"]
    assert call("identify", *of(place), "--slot", "nothing")[0] == 2


@in_postgres
def test_a_record_says_which_size_is_looked_for(place: Table, call: Caller) -> None:
    place.make(ROWS, VECTORS)
    with psycopg.connect(place.conninfo) as connection:
        connection.execute('ALTER TABLE "Chunks 100%" ALTER v TYPE vector')
    assert call("adopt", *of(place), "--backend", "hashing@64", "--yes")[0] == 0
    with psycopg.connect(place.conninfo) as connection:
        connection.execute('UPDATE "Chunks 100%" SET v = NULL')
    code, told, _ = call("identify", *of(place), "--json")
    assert (code, json.loads(told)["candidates"]) == (1, ["hashing@64"])


@in_postgres
def test_a_key_has_jinas_models_of_that_size_asked(
    place: Place, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    with JinaServer(keys=[KEY]) as server:
        monkeypatch.setenv("JINA_API_KEY", KEY)
        monkeypatch.setenv("JINA_BASE_URL", server.url)
        with JinaAPIBackend(dimensions=64, task=None) as jina:
            place.make(ROWS, jina.embed_documents([row.text for row in ROWS]))
        code, told, _ = call("identify", *of(place), "--json")
        named = json.loads(told)
        assert code == 0
        assert named["space"] == EmbeddingSpace.parse("jina-embeddings-v3@64").to_dict()
        spec = named["candidates"][named["candidate"]]
        assert spec == "jina:jina-embeddings-v3@64:generic"
        assert {"hashing@64", "jina:jina-embeddings-v3@64:retrieval.passage"} <= {
            *named["candidates"]
        }
        assert call("adopt", *of(place), "--backend", spec, "--yes")[0] == 0
        assert call("search", QUERY, *of(place), "--backend", spec)[0] == 0
        assert call("search", QUERY, *of(place), "--backend", "jina@64")[0] == 3


def test_collections_in_one_table_are_adopted_each_for_itself(postgres: str, call: Caller) -> None:
    with database(postgres) as conninfo:
        made = MAKERS["PGVector"](conninfo, "public")
        with psycopg.connect(conninfo) as connection:
            spoken = [(row.text, row.id) for row in made.documents]
            for text, id in spoken:
                literal = str(BACKEND.embed_documents([text])[0].tolist())
                statement = "UPDATE langchain_pg_embedding SET embedding = %s WHERE id = %s"
                connection.execute(statement, (literal, id))
        before = dump_database(conninfo)
        place = ("--store", postgres_address(conninfo), "--collection", made.table)
        code, _, said = call("identify", *place)
        mine, other = uuid.UUID(int=1), uuid.UUID(int=2)
        assert code == 2
        assert f"collection_id={mine}" in said
        assert f"collection_id={other}" in said
        code, told, _ = call("identify", *place, "--scope", f"collection_id={mine}")
        assert code == 0
        (command,) = [line for line in told.splitlines() if line.startswith("  samespace adopt")]
        assert call(*shlex.split(command)[1:], "--yes")[0] == 0
        assert dump_database(conninfo) == before
        code, told, _ = call("search", QUERY, *place, "--backend", "hashing@64", "--json")
        assert code == 0
        assert {hit["id"] for hit in json.loads(told)} <= {row.id for row in made.documents}
        assert json.loads(call("info", *place, "--json")[1])["rows"] == len(made.documents)
        with psycopg.connect(conninfo) as connection:
            statement = (
                "UPDATE langchain_pg_embedding SET embedding = '[1,0,0]' WHERE collection_id = %s"
            )
            connection.execute(statement, (other,))
        theirs = ("--scope", f"collection_id={other}", "--unproved", "--yes")
        assert call("adopt", *place, "--backend", "hashing@3", *theirs)[0] == 0
        code, _, said = call("search", QUERY, *place, "--backend", "hashing@64")
        assert code == 3
        assert "2 collections" in said
        assert "--scope" in said
        code, told, _ = call("info", *place, "--scope", f"collection_id={other}", "--json")
        assert (code, json.loads(told)["rows"]) == (0, 5)
        chosen = ("--scope", f"collection_id={mine}", "--json")
        code, told, _ = call("search", QUERY, *place, "--backend", "hashing@64", *chosen)
        assert {hit["id"] for hit in json.loads(told)} <= {row.id for row in made.documents}
        assert call("info", *place, "--scope", f"collection_id={uuid.UUID(int=3)}")[0] == 3
        assert call("info", *place, "--scope", "collection_id")[0] == 2
