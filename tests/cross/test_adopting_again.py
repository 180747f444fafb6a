"""What is adopted, and what a record says of it, stays true; or is said and can be mended."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from elasticsearch import Elasticsearch
from psycopg.sql import SQL, Identifier
from tests.cli.running import Caller
from tests.places import STORES, Place, Points, Table, opened_place

from samespace import Document, HashingBackend, Layout, open_store
from samespace.errors import InvalidInput, SpaceError, SpaceUnknown, StoreRejected
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


@in_elasticsearch
def test_a_part_of_an_index_is_read_and_not_adopted(place: Any, call: Caller) -> None:
    place.make(ROWS, VECTORS)
    layout, alias = proposed(place), f"{place.name}-part"
    with Elasticsearch(place.url) as client:
        client.indices.put_alias(
            index=place.name, name=alias, filter={"term": {"lang.keyword": "de"}}
        )
    with opened(place, layout=layout) as store:
        assert store.count() == len(ROWS)
    place.name, whole = alias, place.name
    with opened(place, layout=layout) as store:
        assert store.count() == len(ROWS) // 2
        with pytest.raises(InvalidInput, match=f"a part of index '{whole}'"):
            store.adopt()
    code, told, _ = call("identify", *of(place))
    assert (code, "samespace adopt" in told, "name the index itself" in told) == (0, False, True)
    place.name = whole


ANOTHER = "has another layout: text 'title', given 'body'"
ALTERED = {
    "the slot is renamed": ("ALTER TABLE {} RENAME v TO w", "'v' is not there"),
    "the text is renamed": ("ALTER TABLE {} RENAME body TO words", "Layout.text is 'body'"),
    "the size is another": (
        "ALTER TABLE {} ALTER v TYPE vector(32) USING l2_normalize(subvector(v, 1, 32))",
        "'v' has 32 dimensions",
    ),
}


@in_postgres
@pytest.mark.parametrize("case", ALTERED)
def test_a_record_that_is_not_true_any_more_is_said_and_replaced(
    place: Any, call: Caller, case: str
) -> None:
    change, why = ALTERED[case]
    place.make(ROWS, VECTORS)
    backend = "hashing@64"
    assert call("adopt", *of(place), "--backend", backend, "--yes")[0] == 0
    with opened(place) as before:
        assert before.count() == len(ROWS)
        with psycopg.connect(place.conninfo) as connection:
            connection.execute(SQL(change).format(Identifier(place.name)))
        for work in (before.info, lambda: before.search("bicycle")):
            with pytest.raises(SpaceUnknown, match=why):
                work()
    for words in (("check",), ("info",), ("search", "bicycle", "--backend", backend)):
        code, _, said = call(*words, *of(place))
        assert (code > 0, why in said, "samespace adopt" in said) == (True, True, True)
    how = ("--unproved",) if "size" in case else ()
    backend = "hashing@32" if "size" in case else backend
    assert call("adopt", *of(place), "--backend", backend, "--yes", *how)[0] == 0
    assert call("search", "bicycle", *of(place), "--backend", backend)[0] == 0


@everywhere
def test_a_wrong_layout_is_not_overlooked_and_can_be_put_right(place: Place, call: Caller) -> None:
    place.make(ROWS, VECTORS)
    right = proposed(place)
    wrong = replace(right, text="title", metadata=("lang",))
    with opened(place, layout=wrong) as store:
        store.adopt()
        assert store.get(["3"])[0].text == "Part 3"
    with opened(place, layout=right) as store, pytest.raises(InvalidInput, match=ANOTHER):
        store.get(["3"])
    given = ("--text", "body", "--metadata", "lang", "--metadata", "title")
    code, told, _ = call("identify", *of(place), *given)
    assert (code, "not the layout that is recorded" in told) == (0, True)
    code, told, _ = call("adopt", *of(place), *given, "--backend", "hashing@64", "--yes")
    assert (code, "recorded anew" in told) == (0, True), told
    with opened(place) as store:
        assert store.get(["3"]) == [ROWS[3]]
    code, told, _ = call("adopt", *of(place), "--backend", "hashing@64")
    assert (code, "was adopted before" in told) == (0, True)
    nothing = replace(right, text="nothing")
    with opened(place, layout=nothing) as store, pytest.raises(InvalidInput, match="nothing"):
        store.adopt()


@in_postgres
def test_collections_of_several_sizes_share_a_column(place: Any, call: Caller) -> None:
    small = HashingBackend(32).embed_documents([row.text for row in ROWS])
    place.make(ROWS, VECTORS)
    with psycopg.connect(place.conninfo) as connection:
        table = Identifier(place.name)
        connection.execute(SQL("ALTER TABLE {} ALTER v TYPE vector").format(table))
        update = SQL("UPDATE {} SET v = %s WHERE key = %s AND lang = 'en'").format(
            Identifier(place.name.replace("%", "%%"))
        )
        connection.cursor().executemany(
            update, [(str(vector.tolist()), n) for n, vector in enumerate(small)]
        )
    _, told, _ = call("identify", *of(place))
    assert "rows of 64 dimensions" in told
    assert "--scope" in told
    assert "samespace adopt" not in told
    for lang, size in (("de", 64), ("en", 32)):
        code, told, _ = call("identify", *of(place), "--scope", f"lang={lang}")
        (command,) = [line for line in told.splitlines() if line.startswith("  samespace adopt")]
        code, told, said = call(*shlex.split(command)[1:], "--yes")
        assert code == 0, said
        (now,) = [line for line in told.splitlines() if line.startswith("now: ")]
        assert f"--backend hashing@{size} --scope lang={lang}" in now
        code, _, said = call(*shlex.split(now)[2:])
        assert code == 0, said
    whole = replace(proposed(place), scope=None)
    with opened(place, layout=whole) as store, pytest.raises((InvalidInput, SpaceError)):
        store.adopt()


@in_postgres
def test_where_adopting_would_be_refused_no_command_is_printed(place: Any, call: Caller) -> None:
    place.make(ROWS, VECTORS)
    for change, why in (
        ("UPDATE {} SET v = l2_normalize(v) * 3", "not of unit norm"),
        ("UPDATE {} SET v = l2_normalize(v)", ""),
        ("ALTER TABLE {} DROP COLUMN v", "has no vectors"),
    ):
        with psycopg.connect(place.conninfo) as connection:
            connection.execute(
                SQL(change.replace("* 3", "+ l2_normalize(v)")).format(Identifier(place.name))
            )
        _, told, said = call("identify", *of(place))
        assert (why in told + said, "samespace adopt" in told) == (True, not why)


@pytest.mark.parametrize("place", ["Qdrant"], indirect=True)
def test_scores_that_are_no_cosines_are_refused(place: Place) -> None:
    place.make(ROWS, VECTORS * np.float32(3))
    with (
        opened(place, layout=proposed(place)) as store,
        pytest.raises(InvalidInput, match="not compared by cosine"),
    ):
        store.search("bicycle")


@in_postgres
def test_rows_without_a_key_are_refused_by_name_and_what_cannot_be_written_is_said(
    place: Any, call: Caller
) -> None:
    place.make(ROWS, VECTORS)
    layout = proposed(place)
    with psycopg.connect(place.conninfo) as connection:
        table = Identifier(place.name)
        for change in (
            "ALTER TABLE {} DROP CONSTRAINT {}",
            "ALTER TABLE {} ALTER key DROP NOT NULL, ADD UNIQUE (key)",
            "ALTER TABLE {} ADD number bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
            "ALTER TABLE {} ADD owner text NOT NULL DEFAULT 'me'",
            "ALTER TABLE {} ALTER owner DROP DEFAULT",
            "UPDATE {} SET key = NULL WHERE key = 5",
        ):
            connection.execute(SQL(change).format(table, Identifier(f"{place.name}_pkey")))
    with opened(place, layout=layout) as store:
        for work in (lambda: list(store.scan()), lambda: store.sample(BACKEND.space, size=100)):
            with pytest.raises(StoreRejected, match="'key'.*NULL"):
                work()
    found = survey(place.address, collection=place.name)
    assert (found.key, found.unique) == ("number", ("number",))
    assert "no document can be inserted" not in " ".join(found.proposals[0].reasons)
