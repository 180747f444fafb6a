"""What collections are that others made: recognised by their makers, or by what is in them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch
from qdrant_client import QdrantClient, models
from tests.addresses import elasticsearch_address, postgres_address
from tests.contract.test_pgvector_layouts import MAKERS, Made, dump, run

from samespace import Layout
from samespace.errors import CollectionNotFound, InvalidInput
from samespace.filters import equalities
from samespace.opening import survey
from samespace.stores.pgvector.survey import survey as survey_table
from samespace.survey import Survey
from samespace.testing.backends import TaskBackend
from samespace.testing.corpus import texts

Mapping = dict[str, Any]
HOSTILE = ('a "b" %s', "c'; DROP TABLE x; --", "ä%%(x)s", "e\\f")


def look(made: Made, **options: Any) -> Survey:
    return survey(
        postgres_address(made.conninfo),
        collection=made.table,
        **{"schema": made.schema, "registry": made.registry, **options},
    )


# PostgreSQL


@pytest.fixture(params=MAKERS)
def made(request: pytest.FixtureRequest, postgres: str, schema: str) -> Iterator[Made]:
    made = MAKERS[request.param](postgres, schema)
    yield made
    if made.schema != schema:
        run(postgres, made.schema, "DROP SCHEMA {schema} CASCADE")


def test_a_table_is_recognised_and_left_as_it_is(made: Made) -> None:
    before = dump(made)
    found = look(made)
    best = found.proposals[0]
    columns = set(made.layout.metadata_columns)
    assert set(best.layout.metadata_columns) == columns
    assert (best.layout.id, best.layout.text, best.layout.slot, best.layout.scope) == (
        made.layout.id, made.layout.text, made.layout.slot, made.layout.scope,
    )  # fmt: skip
    assert best.dimensions == 64
    assert (found.rows, found.rows_estimated, found.records) == (
        made.ask("SELECT count(*) FROM {table}")[0][0], False, (),
    )  # fmt: skip
    assert best.reasons
    assert dump(made) == before


def test_each_collection_of_langchains_one_table_is_a_proposal(postgres: str, schema: str) -> None:
    made = MAKERS["PGVector"](postgres, schema)
    found = look(made)
    assert [(each.title, each.maker, each.dimensions) for each in found.proposals] == [
        ("mine", "LangChain PGVector", 64), ("other", "LangChain PGVector", 3),
    ]  # fmt: skip
    scopes = [each.layout.scope for each in found.proposals]
    assert [equalities(scope) for scope in scopes if scope is not None] == [
        {"collection_id": (str(uuid.UUID(int=1)),)}, {"collection_id": (str(uuid.UUID(int=2)),)},
    ]  # fmt: skip


def test_several_vectors_and_texts_are_several_proposals_best_first(
    postgres: str, schema: str
) -> None:
    made = """
    CREATE TABLE {schema}.t (key bigint PRIMARY KEY, title text, body text, abstract text,
      small vector(3), large vector(4), half halfvec(2), seen tsvector);
    INSERT INTO {schema}.t VALUES
      (1, 'short', repeat('long ', 50), repeat('middling ', 20), '[1,2,3]', '[1,2,3,4]', '[1,2]');
    CREATE INDEX ON {schema}.t USING hnsw (large vector_cosine_ops)
    """
    run(postgres, schema, made)
    found = survey_table(postgres, collection="t", schema=schema)
    assert [(each.layout.text, each.layout.slot) for each in found.proposals] == [
        ("body", "large"), ("body", "small"), ("abstract", "large"), ("abstract", "small"),
    ]  # fmt: skip
    slots = {slot.name: slot for slot in found.slots}
    assert (slots["large"].metric, slots["large"].indexed, slots["small"].indexed) == (
        "cosine", True, False,
    )  # fmt: skip
    assert "halfvec" in slots["half"].unusable
    assert found.proposals[0].layout.metadata == ("title", "abstract")


@pytest.mark.parametrize(
    ("columns", "missing"),
    [
        ("id bigint PRIMARY KEY, body text", "no vectors"),
        ("id bigint PRIMARY KEY, v vector(3)", "no column or field of texts"),
        ("id bigint, body text, v vector(3)", "no key"),
        ("id bigint PRIMARY KEY, body text, v halfvec(3)", "'v' cannot be used"),
    ],
)
def test_what_is_missing_is_said(postgres: str, schema: str, columns: str, missing: str) -> None:
    run(postgres, schema, f"CREATE TABLE {{schema}}.t ({columns})")
    found = survey_table(postgres, collection="t", schema=schema)
    assert found.proposals == ()
    assert missing in " ".join(found.missing)


def test_a_name_that_is_not_there_is_answered_with_those_that_are(made: Made) -> None:
    with pytest.raises(CollectionNotFound) as refusal:
        survey(postgres_address(made.conninfo), collection="nothing", schema=made.schema)
    assert made.table in str(refusal.value)
    assert "langchain_pg_collection" not in str(refusal.value)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_nothing_but_names(postgres: str, schema: str, name: str) -> None:
    with pytest.raises(CollectionNotFound):
        survey_table(postgres, collection=name, schema=schema)
    quoted = name.replace('"', '""')
    script = (
        f'CREATE TABLE {{schema}}."{quoted}" ("id {quoted}" text PRIMARY KEY, "text {quoted}" text, '
        f'"vector {quoted}" vector(2))'
    )
    run(postgres, schema, script)
    (proposal,) = survey_table(postgres, collection=name, schema=schema).proposals
    assert proposal.layout == Layout(
        id=f"id {name}", text=f"text {name}", slot=f"vector {name}", metadata=()
    )


def test_an_option_that_no_store_has_is_refused() -> None:
    with pytest.raises(InvalidInput, match="has no option schemas"):
        survey("embedded", collection="t", schemas="public")


def test_a_name_that_the_server_would_cut_is_refused(postgres: str) -> None:
    with pytest.raises(InvalidInput, match="63 bytes"):
        survey(postgres_address(postgres), collection="x" * 64)


# Qdrant


@pytest.fixture
def folder(tmp_path: Path, qdrant_local: None) -> str:
    return f"qdrant:{tmp_path / 'qdrant'}"


def fill(folder: str, vectors: Any, payloads: list[Mapping], name: str = "made-there") -> None:
    """A collection of these payloads, in a folder that nobody else has open."""
    client = QdrantClient(path=folder.removeprefix("qdrant:"))
    client.create_collection(name, vectors_config=vectors)
    made = TaskBackend().embed_documents(texts(len(payloads))).tolist()
    names = list(vectors) if isinstance(vectors, dict) else None
    points = [
        models.PointStruct(
            id=n, payload=payload, vector=dict.fromkeys(names, vector) if names else vector
        )
        for n, (payload, vector) in enumerate(zip(payloads, made, strict=True))
    ]
    if points:
        client.upsert(name, points)
    client.close()


SIZED = models.VectorParams(size=64, distance=models.Distance.COSINE)
ROWS = texts(5)
PAYLOADS: dict[str, tuple[list[Mapping], str, str, str]] = {
    "LangChain": (
        [{"page_content": text, "metadata": {"n": n}} for n, text in enumerate(ROWS)],
        "page_content", "metadata", "LangChain QdrantVectorStore",
    ),
    "Haystack": (
        [{"id": text[:8], "content": text, "meta": {}, "blob": None} for text in ROWS],
        "content", "meta", "Haystack QdrantDocumentStore",
    ),
    "a script": (
        [{"lang": "en", 'a "b" %s': text, "year": n} for n, text in enumerate(ROWS)],
        'a "b" %s', "*", "unknown",
    ),
    "a script with one object": (
        [{"about": {"n": n}, "words": text} for n, text in enumerate(ROWS)],
        "words", "about", "unknown",
    ),
}  # fmt: skip


@pytest.mark.parametrize("maker", PAYLOADS)
@pytest.mark.parametrize("slot", ["", "dense"])
def test_points_are_recognised_by_their_payloads(folder: str, maker: str, slot: str) -> None:
    payloads, text, metadata, said = PAYLOADS[maker]
    fill(folder, {slot: SIZED} if slot else SIZED, payloads)
    found = survey(folder, collection="made-there")
    (proposal, *_) = found.proposals
    assert (proposal.maker, proposal.dimensions) == (said, 64)
    assert proposal.layout == Layout(id="id", text=text, slot=slot, metadata=metadata)
    assert found.rows == len(payloads)


def test_points_without_what_is_needed_are_said_to_lack_it(folder: str) -> None:
    many = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    fill(folder, SIZED, [], "empty")
    fill(folder, SIZED, [{"n": 1}], "numbers")
    fill(folder, {"m": SIZED.model_copy(update={"multivector_config": many})}, [], "several")
    said = {
        name: " ".join(survey(folder, collection=name).missing)
        for name in ("empty", "numbers", "several")
    }
    assert "no points" in said["empty"]
    assert "several vectors each" in said["several"]
    assert "no column or field of texts" in said["numbers"]
    with pytest.raises(CollectionNotFound, match="'empty', 'numbers', 'several'"):
        survey(folder, collection="nothing")


# Elasticsearch


@pytest.fixture
def client(elasticsearch: str) -> Iterator[Elasticsearch]:
    with Elasticsearch(elasticsearch) as client:
        client.indices.delete(index=[NAME], ignore_unavailable=True)
        yield client
        client.indices.delete(index=[NAME], ignore_unavailable=True)


NAME = "made-there"
VECTOR: Mapping = {"type": "dense_vector", "dims": 64, "index": True, "similarity": "cosine"}
TEXT: Mapping = {"type": "text"}
DOCUMENTS: dict[str, tuple[Mapping, Mapping, Layout, str]] = {
    "LangChain": (
        {"vector": VECTOR},
        {"text": ROWS[0], "metadata": {"lang": "en"}},
        Layout.langchain_elasticsearch(),
        "LangChain ElasticsearchStore",
    ),
    "LangChain without metadata": (
        {"vector": VECTOR},
        {"text": ROWS[0]},
        Layout.langchain_elasticsearch(metadata=()),
        "LangChain ElasticsearchStore",
    ),
    "a script": (
        {"embedding": VECTOR, "heading": TEXT, "words": TEXT},
        {"heading": "short", "words": ROWS[0] * 5, "year": 2020},
        Layout(id="_id", text="words", slot="embedding", metadata=("heading", "year")),
        "unknown",
    ),
    "objects": (
        {"in": {"properties": {"vector": VECTOR, "words": TEXT}}},
        {"in": {"words": ROWS[0]}, "meta": {"lang": "en"}},
        Layout(id="_id", text="in.words", slot="in.vector", metadata="meta"),
        "unknown",
    ),
}


@pytest.mark.parametrize("maker", DOCUMENTS)
def test_an_index_is_recognised_by_its_mapping(
    client: Elasticsearch, elasticsearch: str, maker: str
) -> None:
    properties, row, layout, said = DOCUMENTS[maker]
    client.indices.create(index=NAME, mappings={"properties": properties})
    client.index(index=NAME, document=row, refresh=True)
    url = elasticsearch_address(elasticsearch)
    found = survey(url, collection=NAME)
    proposal = found.proposals[0]
    assert (proposal.maker, proposal.layout) == (said, layout)
    assert (found.rows, found.missing) == (1, ())
    with pytest.raises(CollectionNotFound, match="made-there"):
        survey(url, collection="nothing")


@pytest.mark.parametrize(
    ("properties", "missing"),
    [
        ({"body": TEXT}, "no vectors"),
        ({"v": VECTOR}, "no column or field of texts"),
        ({"body": TEXT, "v": {**VECTOR, "similarity": "l2_norm"}}, "l2_norm"),
        ({"body": TEXT, "v": {"type": "dense_vector", "dims": 8, "element_type": "byte"}}, "byte"),
        ({"body": TEXT, "v": {"type": "dense_vector", "dims": 8, "index": False}}, "not indexed"),
    ],
)
def test_what_an_index_lacks_is_said(
    client: Elasticsearch, elasticsearch: str, properties: Mapping, missing: str
) -> None:
    client.indices.create(index=NAME, mappings={"properties": properties})
    url = elasticsearch_address(elasticsearch)
    found = survey(url, collection=NAME)
    assert found.proposals == ()
    assert missing in " ".join(found.missing)
