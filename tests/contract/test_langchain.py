"""LangChain itself, unmodified, on the tables that this library reads and gives a second slot."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
import pytest
from psycopg.conninfo import conninfo_to_dict
from tests.contract.test_pgvector_layouts import (
    BACKEND,
    CATALOG,
    MAKERS,
    NEW,
    Made,
    dump,
    run,
    texts,
)

from samespace import Layout
from samespace.testing.backends import UNLIKE, V3, TaskBackend

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".bench" / "bin" / "python"
SCRIPT = Path(__file__).with_name("langchain_application.py")
ROWS = 20
QUERY = "amber brook cedar"
KINDS = ("PGVectorStore", "PGVector")
SHAPE = {what: CATALOG[what] for what in ("columns", "indexes", "constraints", "triggers")}

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(
        not PYTHON.exists(), reason="LangChain is not installed: python tools/install.py peers"
    ),
]


def url_of(conninfo: str) -> str:
    """The same database as SQLAlchemy names it."""
    parts = {key: str(value) for key, value in conninfo_to_dict(conninfo).items()}
    user, password = quote(parts.pop("user")), parts.pop("password", "")
    login = f"{user}:{quote(password)}" if password else user
    return f"postgresql+psycopg://{login}@/{quote(parts.pop('dbname'))}?{urlencode(parts)}"


def langchain(made: Made, kind: str, jobs: Sequence[dict[str, Any]]) -> list[Any]:
    """What an application on LangChain gets for its jobs."""
    vectors = dict(zip(texts(), BACKEND.embed_documents(texts()).tolist(), strict=True))
    asked = {
        "kind": kind,
        "url": url_of(made.conninfo),
        "schema": made.schema,
        "name": made.table if kind == "PGVectorStore" else "mine",
        "known": {**vectors, QUERY: BACKEND.embed_query(QUERY).tolist()},
        "jobs": jobs,
    }
    done = subprocess.run(
        [PYTHON, SCRIPT, json.dumps(asked)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers


def unmade(conninfo: str, schema: str, kind: str) -> Made:
    """Where things will be, once LangChain has made them."""
    made = MAKERS[kind](conninfo, schema)
    run(conninfo, schema, "DROP SCHEMA {schema} CASCADE; CREATE SCHEMA {schema}")
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_their_tables_are_what_the_other_tests_make(postgres: str, schema: str, kind: str) -> None:
    made = MAKERS[kind](postgres, schema)
    tables = [made.table] if kind == "PGVectorStore" else [made.table, "langchain_pg_collection"]
    ours = [shape_of(replace(made, table=table)) for table in tables]
    run(postgres, schema, "DROP SCHEMA {schema} CASCADE; CREATE SCHEMA {schema}")
    langchain(made, kind, [])
    for table, shape in zip(tables, ours, strict=True):
        assert shape_of(replace(made, table=table)) == shape


def shape_of(made: Made) -> dict[str, list[str]]:
    """What the catalog says, without the numbers in the names of foreign keys' triggers."""
    shape = dump(made, SHAPE)
    shape["triggers"] = [(definition.split(" ", 4)[4],) for _, definition, _ in shape["triggers"]]
    return {what: sorted(map(repr, rows)) for what, rows in shape.items()}


def fill(store: Any) -> int:
    """How many rows got a vector in the new slot."""
    rows, _ = store.pending(UNLIKE, limit=100)
    vectors = NEW.embed_documents([row.document.text for row in rows])
    report = store.fill(UNLIKE, rows, vectors)
    assert report.changed == 0
    return int(report.filled)


@pytest.mark.parametrize("kind", KINDS)
def test_langchain_goes_on_beside_a_second_slot(postgres: str, schema: str, kind: str) -> None:
    made = unmade(postgres, schema, kind)
    spoken = texts()
    ids = [str(uuid.UUID(int=number + 1)) for number in range(ROWS + 3)]
    add: list[tuple[str, str, dict[str, Any]]] = [
        (id, spoken[n], {"n": n}) for n, id in enumerate(ids)
    ]
    search = {"search": QUERY, "k": ROWS}
    _, found = langchain(made, kind, [{"add": add[:ROWS]}, search])
    made = replace(made, layout=layout_of(made, kind))
    with made.open() as store:
        hits = store.search_vector(BACKEND.embed_query(QUERY), space=V3, limit=ROWS)
        assert [[hit.document.id, hit.document.text, hit.document.metadata] for hit in hits] == [
            answer[:3] for answer in found
        ]
        distances = [distance for *_, distance in found]
        assert np.allclose([1 - hit.score for hit in hits], distances, rtol=0, atol=1e-6)
        store.adopt()
        store.add_slot(UNLIKE)
        assert fill(store) == ROWS
        store.mark(UNLIKE, "ready")
        replaced = (ids[0], spoken[ROWS + 5], {"n": "replaced"})
        jobs: list[dict[str, Any]] = [
            search,
            {"add": [*add[ROWS:], replaced]},
            {"delete": [ids[1]]},
            search,
        ]
        again, _, _, after = langchain(made, kind, jobs)
        assert again == found
        assert ids[1] not in {id for id, *_ in after}
        assert fill(store) == 4
    wanted = {id: (text, metadata) for id, text, metadata in [*add, replaced] if id != ids[1]}
    for backend in (BACKEND, NEW):
        check_slot(made, backend, wanted)


def layout_of(made: Made, kind: str) -> Layout:
    """The layout with what LangChain has chosen itself: the collection's id."""
    if kind == "PGVectorStore":
        return made.layout
    statement = "SELECT uuid::text FROM {collections} WHERE name = 'mine'"
    collections = f'"{made.schema}".langchain_pg_collection'
    return Layout.langchain_pgvector(
        collection_id=made.ask(statement, collections=collections)[0][0]
    )


Rows = dict[str, tuple[str, dict[str, Any]]]


def check_slot(made: Made, backend: TaskBackend, wanted: Rows) -> None:
    """Every row is what was written, with the vector of its text."""
    with made.open(space=backend.space) as store:
        rows = {document.id: document for document in store.scan(with_vectors=True)}
        assert store.pending(backend.space, limit=100) == ([], None)
    assert {id: (row.text, row.metadata) for id, row in rows.items()} == wanted
    for row in rows.values():
        assert np.allclose(row.vector, backend.embed_documents([row.text])[0], atol=1e-5)
