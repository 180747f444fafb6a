"""What the facts about each store mean: versions and rights that no test server has, too."""

from __future__ import annotations

from dataclasses import replace

import pytest

from samespace.findings import Finding, Level
from samespace.stores.elasticsearch import diagnosis as elasticsearch
from samespace.stores.pgvector import diagnosis as pgvector
from samespace.stores.qdrant import diagnosis as qdrant

POSTGRES = pgvector.Facts(
    server="18.4",
    installed="0.8.5",
    hidden=None,
    available="0.8.5",
    may_install=True,
    may_create_schemas=True,
    has_schema=True,
    may_use_schema=True,
    may_create_tables=True,
    has_registry=True,
    may_read_records=True,
    may_write_records=True,
    may_make_records=True,
    may_read_rows=True,
    may_write_rows=True,
)
QDRANT = qdrant.Facts(server="1.18.3", collections=2, may_manage=True)
RIGHTS = {"read": True, "write": True, "create": True}
ELASTICSEARCH = elasticsearch.Facts(version="9.3.0", licence=("basic", "active"), rights=RIGHTS)


def of_postgres(facts: pgvector.Facts) -> list[Finding]:
    found = pgvector.findings(
        facts, client="3.3.9", schema="odd %name", registry="samespace", collection="notes"
    )
    return list(found)


def of_elasticsearch(
    facts: elasticsearch.Facts, *, client: str = "9.5.1", collection: str | None = "notes"
) -> list[Finding]:
    return list(elasticsearch.findings(facts, client=client, collection=collection))


def amiss(found: list[Finding]) -> list[tuple[Level, str]]:
    """Everything that is not as it should be, each with what mends it."""
    return [(each.level, f"{each.what}; {each.mend}") for each in found if each.level != Level.OK]


def test_nothing_is_amiss_where_all_is_well() -> None:
    assert amiss(of_postgres(POSTGRES)) == []
    assert amiss(list(qdrant.findings(QDRANT, client="1.20"))) == []
    assert amiss(of_elasticsearch(ELASTICSEARCH)) == []


@pytest.mark.parametrize(
    ("facts", "level", "said"),
    [
        (replace(POSTGRES, installed="0.7.4"), Level.PROBLEM, "too old: 0.8.0"),
        (
            replace(POSTGRES, installed="0.8.3"),
            Level.WARNING,
            "; run ALTER EXTENSION vector UPDATE",
        ),
        (
            replace(POSTGRES, installed="0.8.3", available="0.8.3"),
            Level.WARNING,
            "; install pgvector 0.8.4",
        ),
        (
            replace(POSTGRES, installed=None, available=None),
            Level.PROBLEM,
            "the server lacks pgvector",
        ),
        (replace(POSTGRES, installed=None, available="0.7.0"), Level.PROBLEM, "too old"),
        (
            replace(POSTGRES, installed=None, may_install=False),
            Level.PROBLEM,
            "run CREATE EXTENSION vector",
        ),
        (replace(POSTGRES, hidden="extensions"), Level.PROBLEM, "search_path = public, extensions"),
        (
            replace(POSTGRES, has_schema=False, may_create_schemas=False),
            Level.PROBLEM,
            'have CREATE SCHEMA "odd %name"',
        ),
        (
            replace(POSTGRES, may_use_schema=False),
            Level.PROBLEM,
            'GRANT USAGE ON SCHEMA "odd %name"',
        ),
        (replace(POSTGRES, may_create_tables=False), Level.WARNING, "not create any"),
        (
            replace(POSTGRES, has_registry=False, may_create_schemas=False),
            Level.WARNING,
            "with CREATE on the database",
        ),
        (
            replace(POSTGRES, may_read_records=False),
            Level.PROBLEM,
            'GRANT SELECT ON "samespace"."collections"',
        ),
        (replace(POSTGRES, may_write_records=False), Level.WARNING, "GRANT INSERT, UPDATE"),
        (replace(POSTGRES, may_make_records=False), Level.WARNING, "GRANT CREATE ON SCHEMA"),
        (replace(POSTGRES, may_read_rows=False), Level.PROBLEM, 'SELECT ON "odd %name"."notes"'),
        (replace(POSTGRES, may_write_rows=False), Level.WARNING, "GRANT INSERT, UPDATE, DELETE"),
    ],
)
def test_what_postgresql_lacks_is_found(facts: pgvector.Facts, level: Level, said: str) -> None:
    ((found_level, found),) = amiss(of_postgres(facts))
    assert found_level is level
    assert said in found


def test_what_the_first_collection_makes_is_no_fault() -> None:
    bare = replace(POSTGRES, installed=None, has_schema=False, has_registry=False)
    found = of_postgres(bare)
    assert amiss(found) == []
    assert sum("first collection" in each.what for each in found) == 3


@pytest.mark.parametrize(
    ("server", "levels"),
    [
        ("1.15.5", [Level.PROBLEM]),
        ("1.16.0", [Level.WARNING, Level.WARNING]),
        ("1.17.1", [Level.WARNING]),
        ("1.18.0", []),
        ("2.0.0-dev", []),
    ],
)
def test_what_a_version_of_qdrant_lacks_is_found(server: str, levels: list[Level]) -> None:
    found = amiss(list(qdrant.findings(replace(QDRANT, server=server), client="1.20")))
    assert [level for level, _ in found] == levels
    assert all("install Qdrant 1.18" in said for _, said in found)


def test_a_key_of_qdrant_that_only_reads_is_found() -> None:
    found = amiss(list(qdrant.findings(replace(QDRANT, may_manage=False), client="1.20")))
    assert [level for level, _ in found] == [Level.WARNING]
    assert "QDRANT_API_KEY" in found[0][1]


def test_local_mode_says_what_it_is() -> None:
    found = amiss(list(qdrant.findings(replace(QDRANT, server=None), client="1.20")))
    assert [level for level, _ in found] == [Level.NOTE]
    assert "qdrant://host:6333" in found[0][1]


@pytest.mark.parametrize(
    ("version", "levels"),
    [
        ("8.15.0", [Level.WARNING, Level.NOTE]),
        ("8.18.3", [Level.NOTE]),
        ("9.2.1-SNAPSHOT", [Level.NOTE]),
        ("9.3.0", []),
    ],
)
def test_what_a_version_of_elasticsearch_lacks_is_found(version: str, levels: list[Level]) -> None:
    found = amiss(of_elasticsearch(replace(ELASTICSEARCH, version=version), client="8.19.0"))
    assert [level for level, _ in found] == levels


def test_a_version_that_is_not_told_is_not_made_up() -> None:
    found = of_elasticsearch(replace(ELASTICSEARCH, version=None))
    assert found[0].what == "Elasticsearch answers (client elasticsearch 9.5.1)"
    ((level, said),) = amiss(found)
    assert level is Level.WARNING
    assert "monitor on the cluster" in said


def test_a_newer_client_than_its_server_is_found() -> None:
    found = amiss(of_elasticsearch(replace(ELASTICSEARCH, version="8.19.5"), client="9.5.1"))
    assert found[0][0] is Level.PROBLEM
    assert 'pip install "elasticsearch[async]<9"' in found[0][1]


@pytest.mark.parametrize(
    ("licence", "level", "said"),
    [
        (("trial", "expired"), Level.WARNING, "the licence trial is expired"),
        (None, Level.NOTE, "tells no licence"),
    ],
)
def test_a_licence_that_is_no_good_is_found(
    licence: tuple[str, str] | None, level: Level, said: str
) -> None:
    ((found_level, found),) = amiss(of_elasticsearch(replace(ELASTICSEARCH, licence=licence)))
    assert found_level is level
    assert said in found


@pytest.mark.parametrize(
    ("lacking", "collection", "level", "said"),
    [
        (["create"], "notes", Level.WARNING, "create_index and manage on notes and notes--*"),
        (
            ["write", "create"],
            "notes",
            Level.WARNING,
            "may not write and create collection 'notes'",
        ),
        (list(RIGHTS), "notes", Level.PROBLEM, "given read, view_index_metadata, write"),
        (list(RIGHTS), None, Level.WARNING, "add --collection NAME"),
    ],
)
def test_rights_that_a_login_lacks_are_found(
    lacking: list[str], collection: str | None, level: Level, said: str
) -> None:
    facts = replace(ELASTICSEARCH, rights={**RIGHTS, **dict.fromkeys(lacking, False)})
    ((found_level, found),) = amiss(of_elasticsearch(facts, collection=collection))
    assert found_level is level
    assert said in found


def test_a_server_without_logins_is_noted() -> None:
    ((level, said),) = amiss(of_elasticsearch(replace(ELASTICSEARCH, rights=None)))
    assert level is Level.NOTE
    assert "xpack.security.enabled" in said


def test_a_right_counts_if_every_name_has_it() -> None:
    body = elasticsearch.asked("notes")
    (asked,) = body["index"]
    assert asked["names"] == ["notes", "notes--*"]
    every = dict.fromkeys(asked["privileges"], True)
    answer = {"index": {"notes": every, "notes--*": {**every, "manage": False}}}
    assert elasticsearch.rights_of(answer) == {"read": True, "write": True, "create": False}
