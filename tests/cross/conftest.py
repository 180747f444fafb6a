"""Every store by one fixture, for what must be alike on all of them."""

from __future__ import annotations

from typing import Any

import pytest
from tests.contract.pgvector import Harness
from tests.contract.test_elasticsearch_contract import raw
from tests.contract.test_qdrant_contract import Harness as QdrantHarness
from tests.contract.test_qdrant_contract import memory, prefix, raw_client
from tests.strangers import ElasticsearchStranger, PostgresStranger, QdrantStranger, Stranger

from samespace.testing.harness import StoreHarness

__all__ = ["memory", "prefix", "raw", "raw_client"]  # fixtures
STORES = ("PostgreSQL", "Qdrant local", "Qdrant REST", "Qdrant gRPC", "Elasticsearch")


def make_harness(store: str, request: pytest.FixtureRequest) -> StoreHarness:
    """A harness of a store, or a skip that names the store at the end."""
    ask = request.getfixturevalue
    if store == "PostgreSQL":
        return Harness(ask("postgres"), ask("schema"))
    if store == "Qdrant local":
        return QdrantHarness(ask("memory"))
    if store == "Elasticsearch":
        harness: StoreHarness = ask("raw")
        return harness
    options = {"grpc_port": ask("qdrant_grpc")} if store == "Qdrant gRPC" else {}
    return QdrantHarness(ask("raw_client"), ask("prefix"), source=ask("qdrant"), **options)


@pytest.fixture(params=STORES)
def harness(request: pytest.FixtureRequest) -> StoreHarness:
    """Each store in turn, with nothing in it."""
    return make_harness(request.param, request)


def stranger_of(harness: Any, collection: str) -> Stranger:
    """Somebody with the driver of a harness's store, in one of its collections."""
    if isinstance(harness, Harness):
        return PostgresStranger(harness.conninfo, harness.schema, collection)
    if isinstance(harness, QdrantHarness):
        return QdrantStranger(harness.client, harness.name(collection))
    return ElasticsearchStranger(harness.url, harness.named(collection))
