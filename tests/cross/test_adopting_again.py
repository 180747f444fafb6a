"""What is adopted, and what a record says of it, stays true; or is said and can be mended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from elasticsearch import Elasticsearch
from tests.cli.running import Caller
from tests.places import STORES, Place, Points, Table, opened_place

from samespace import Document, HashingBackend, Layout, open_store
from samespace.errors import SpaceUnknown
from samespace.opening import survey
from samespace.testing.corpus import texts

BACKEND = HashingBackend(64)
ROWS = [
    Document(str(n), text, {"lang": ("de", "en")[n % 2], "title": f"Part {n}"})
    for n, text in enumerate(texts(30))
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
in_elasticsearch = pytest.mark.parametrize("place", ["Elasticsearch"], indirect=True)


def of(place: Place) -> tuple[str, ...]:
    return ("--store", place.address, "--collection", place.name)


def opened(place: Place, **options: Any) -> Any:
    return open_store(place.address, collection=place.name, **{"backend": BACKEND, **options})


def proposed(place: Place) -> Layout:
    return survey(place.address, collection=place.name).proposals[0].layout


def forget(place: Place) -> None:
    """Take the record away, as a restore without it does."""
    if isinstance(place, Table):
        with psycopg.connect(place.conninfo) as connection:
            connection.execute("DELETE FROM samespace.collections")
    elif isinstance(place, Points):
        with place.client() as client:
            client.update_collection(place.name, metadata={"samespace": None})
    else:
        with Elasticsearch(place.url) as client:  # type: ignore[attr-defined]
            client.indices.put_mapping(index=place.name, meta={})


@everywhere
def test_a_collection_of_ours_without_its_record_is_nobody_elses(
    place: Place, call: Caller
) -> None:
    place.name = (
        f"ours_{place.name[-8:]}".lower().replace(" ", "_").replace("%", "").replace("-", "_")
    )
    with opened(place) as store:
        store.upsert(ROWS[:5])
    forget(place)
    for words in (("identify",), ("adopt", "--backend", "hashing@64", "--text", "text", "--yes")):
        code, _, said = call(*words, *of(place))
        assert (code, "guard repair-record" in said) == (3, True)
    theirs = Layout(id="id", text="text", slot=BACKEND.space.id, metadata=())
    if not isinstance(place, (Table, Points)):
        theirs = replace(theirs, id="_id")
    with opened(place, layout=theirs) as store, pytest.raises(SpaceUnknown, match="repair-record"):
        store.adopt()
    with opened(place) as store:
        store.repair_record()
        assert store.get(["3"]) == [ROWS[3]]
