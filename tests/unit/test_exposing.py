"""What a client changes to name another slot, for each store."""

from __future__ import annotations

import pytest

from samespace import AsyncQdrantStore, ElasticsearchStore, PgVectorStore, QdrantStore
from samespace.forecast import ClientChange
from samespace.protocols import DescribesSlots, NamesDependents, NamesKind, NamesObstacles
from samespace.space import EmbeddingSpace
from samespace.stores.elasticsearch import exposing as elasticsearch
from samespace.stores.pgvector import exposing as pgvector
from samespace.stores.qdrant import exposing as qdrant

V2 = EmbeddingSpace(model="jina-embeddings-v2-base-en", dimensions=768)
V3 = EmbeddingSpace(model="jina-embeddings-v3", dimensions=1024, task="retrieval.passage")


def test_a_column_is_named_as_sql_wants_it() -> None:
    first, *_ = pgvector.client_changes('em"bedding', V3.id)
    assert (first.before, first.after) == ('"em""bedding"', f'"{V3.id}"')
    hostile, *_ = pgvector.client_changes("a\x1b[2J", V3.id)
    assert hostile.before.isprintable()


def test_the_unnamed_vector_is_said_to_be_that() -> None:
    before = [each.before for each in qdrant.client_changes("", V3.id)]
    assert before == ["no using=", "vector=…", "vector_name=''"]
    assert f"using='{V3.id}'" in [each.after for each in qdrant.client_changes("old", V3.id)]


def test_a_field_and_the_alias_of_its_slot_change() -> None:
    changes = elasticsearch.client_changes("notes", V2.id, V3.id)
    assert changes[0].after == f'"field": "{V3.id}"'
    assert (changes[-1].before, changes[-1].after) == (f"notes--{V2.id}", f"notes--{V3.id}")
    assert '"notes"' in changes[-1].what  # which is asked as before, and leads back


def test_an_adopted_field_has_no_alias_to_name() -> None:
    changes = elasticsearch.client_changes("notes", "embedding", V3.id)
    assert changes[0].before == '"field": "embedding"'
    assert not [each for each in changes if "--" in each.before + each.after]


@pytest.mark.parametrize("kind", [PgVectorStore, QdrantStore, AsyncQdrantStore, ElasticsearchStore])
def test_every_store_says_what_its_slots_are_to_others(kind: type[DescribesSlots]) -> None:
    assert kind.unseen_changes
    assert kind.unreclaimed_space


class ThirdParty:
    """What a store of others has that was written to the protocols as they were."""

    unseen_changes = unreclaimed_space = ""

    def client_changes(self, source: str, target: str) -> tuple[ClientChange, ...]:
        return ()

    def dependents(self, space: EmbeddingSpace) -> list[str]:
        return []


def test_what_a_store_says_of_its_slots_asks_for_nothing_that_came_later() -> None:
    assert isinstance(ThirdParty(), DescribesSlots)
    assert isinstance(ThirdParty(), NamesDependents)
    assert not isinstance(ThirdParty(), NamesKind | NamesObstacles)
    for kind in (PgVectorStore, QdrantStore, AsyncQdrantStore, ElasticsearchStore):
        assert isinstance(kind.kind, str)
