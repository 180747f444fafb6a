"""The least rights of each part, as each store words them."""

from __future__ import annotations

import json

import pytest

from samespace import HashingBackend, QdrantStore
from samespace.errors import InvalidInput
from samespace.rights import Part, known_part
from samespace.stores.elasticsearch import rights as elasticsearch
from samespace.stores.pgvector import rights as pgvector
from samespace.stores.pgvector.table import Table, own_layout
from samespace.stores.qdrant import rights as qdrant

SPACE = HashingBackend(64).space


def printed(part: Part, *, is_superuser: bool = False, has_trigger: bool = True) -> list[str]:
    table = Table(schema="app", name='man"uals%', layout=own_layout(SPACE), own=True, columns={})
    owned = pgvector.Ownership("app owner", is_superuser, "ext", has_trigger)
    return pgvector.grants(table, "registry", part, to='r"; DROP', owned=owned).splitlines()


def test_names_are_quoted_and_a_superuser_takes_no_member() -> None:
    usage, records, rows = printed("reader")
    assert usage == 'GRANT USAGE ON SCHEMA "app", "registry", "ext" TO "r""; DROP";'
    assert records == 'GRANT SELECT ON "registry"."collections" TO "r""; DROP";'
    assert rows == 'GRANT SELECT ON "app"."man""uals%" TO "r""; DROP";'
    assert printed("migrator")[-1] == 'GRANT "app owner" TO "r""; DROP";'
    *_, table, function = printed("migrator", is_superuser=True)
    assert function.startswith('ALTER FUNCTION "registry"."man""uals%_')
    assert printed("migrator", is_superuser=True, has_trigger=False)[-1] == table
    assert table == 'ALTER TABLE "app"."man""uals%" OWNER TO "r""; DROP";'


def test_a_part_has_all_that_the_smaller_one_has() -> None:
    parts: tuple[Part, ...] = ("reader", "writer", "migrator")
    keys = [json.loads(elasticsearch.grants("docs", part, to="k")) for part in parts]
    indices = [key["role_descriptors"]["k"]["indices"][0] for key in keys]
    assert [index["names"] for index in indices] == [["docs", "docs--*"]] * 3
    reading, writing, migrating = (set(index["privileges"]) for index in indices)
    assert reading < writing < migrating
    guarded = json.loads(elasticsearch.grants("docs", "migrator", to="k", guarded=True))
    assert guarded["role_descriptors"]["k"]["cluster"] == ["monitor", "manage_pipeline"]
    claims = [json.loads(qdrant.grants("docs", part))["access"] for part in parts]
    assert claims == [
        [{"collection": "docs", "access": "r"}], [{"collection": "docs", "access": "rw"}], "m",
    ]  # fmt: skip


def test_what_is_no_part_or_no_name_is_refused() -> None:
    with pytest.raises(InvalidInput, match="reader, writer, migrator"):
        known_part("admin")
    with QdrantStore(":memory:", collection="docs", backend=HashingBackend(64)) as store:
        store.create()
        assert store.grants("reader", to="r") == qdrant.LOCAL
        with pytest.raises(InvalidInput, match="to"):
            store.grants("reader", to="")
