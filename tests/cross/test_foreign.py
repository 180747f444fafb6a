"""A collection that a script made: read as its own client reads it, and nothing in it altered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from tests.cross.conftest import stranger_of
from tests.cross.scripts import NAME, OTHERS, Script, script_of

from samespace import Document, VectorStore
from samespace.filters import Filter, field
from samespace.testing.backends import V3, TaskBackend
from samespace.testing.corpus import documents
from samespace.testing.harness import StoreHarness

ROWS = documents(60)
BACKEND = TaskBackend()
QUERY = BACKEND.embed_query("repairing a bicycle with a broken chain")
FILTERS: list[tuple[dict[str, Any] | None, Filter | None]] = [
    (None, None),
    ({"lang": "de"}, field("lang") == "de"),
    ({"year": 2007}, field("year") == 2007),
    ({"year": 2008, "lang": "en"}, (field("lang") == "en") & (field("year") == 2008)),
    ({"lang": "fr"}, field("lang").in_(["fr"])),
]
"""What the own client asks for, and what is asked of us."""


@pytest.fixture
def script(harness: StoreHarness) -> Iterator[Script]:
    """A collection of sixty rows, each with forty fields that are none of ours."""
    script = script_of(harness)
    script.make()
    others = {f"other_{n}": None for n in range(1, OTHERS)}
    vectors = BACKEND.embed_documents([row.text for row in ROWS])
    with closing(stranger_of(harness, NAME)) as stranger:
        for number, (row, vector) in enumerate(zip(ROWS, vectors, strict=True)):
            fields = {"body": row.text, **row.metadata, **others, "other_5": "kept"}
            stranger.put(number, fields, {script.layout.slot: vector})
    yield script
    script.clear()


def read(store: VectorStore) -> None:
    """Every way to read."""
    assert [row.text for row in store.get(["7", "5"], with_vectors=True)] == [
        ROWS[7].text,
        ROWS[5].text,
    ]
    assert {row.id for row in store.scan(batch_size=7)} == {str(n) for n in range(len(ROWS))}
    assert store.count(field("year") < 2010) == 10
    assert dict(store.values("lang")) == {"en": 30, "de": 30}
    assert store.search("old maps", where=field("lang") == "en")
    assert store.search_many(["old maps", "bread"], with_vectors=True)


def test_it_is_searched_as_its_own_client_does(harness: StoreHarness, script: Script) -> None:
    with (
        harness.open(NAME, space=V3, layout=script.layout) as store,
        closing(stranger_of(harness, NAME)) as stranger,
    ):
        for raw, where in FILTERS:
            theirs = stranger.nearest(script.layout.slot, QUERY, where=raw)
            ours = store.search_vector(QUERY, space=V3, where=where)
            assert [hit.document.id for hit in ours] == [key for key, _ in theirs]
            scores = [score for _, score in theirs]
            assert [hit.score for hit in ours] == pytest.approx(scores, abs=1e-5)
            assert all(
                hit.document == Document(hit.document.id, row.text, row.metadata)
                for hit in ours
                for row in [ROWS[int(hit.document.id)]]
            )


def test_reading_and_adopting_alter_nothing_in_it(harness: StoreHarness, script: Script) -> None:
    before = script.everything()
    with harness.open(NAME, backend=BACKEND, layout=script.layout) as store:
        read(store)
        assert script.everything() == before
        store.adopt()
        read(store)
    with harness.open(NAME, backend=BACKEND) as store:
        read(store)
        assert store.info().layout == script.layout
    assert script.everything() == before
    assert harness.get_record(NAME)["slots"][0]["name"] == script.layout.slot
