"""The contract on Qdrant, through the sync and the async store: local mode, REST and gRPC."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from samespace import AsyncQdrantStore, Document, EmbeddingSpace, Index, Layout, QdrantStore
from samespace.protocols import AnyBackend, Matrix
from samespace.stores.qdrant.requests import RECORD, point_id
from samespace.testing.gaps import Gap
from samespace.testing.store_contract import VectorStoreContract
from samespace.testing.store_contract_async import AsyncVectorStoreContract

HAS_SERVER = "SAMESPACE_TEST_QDRANT" in os.environ
"""Without one the closing lines say so; 1,500 skipped tests would say no more."""
FOREIGN = "foreign"
LAYOUT = Layout(id="id", text="body", slot="", metadata=("lang", "year"))
"""Where things are in the collection that :meth:`Raw.make_foreign` makes."""
NO_INDEX = Gap("never", "local mode compares all vectors one by one and has no index")
LOCAL_GAPS = {
    "test_every_index_finds_the_same_or_is_refused_by_name": NO_INDEX,
    "test_a_built_index_finds_what_was_found_before": NO_INDEX,
}


class Raw:
    """What a stranger with Qdrant's client does to a collection."""

    def __init__(self, client: QdrantClient, prefix: str = "") -> None:
        self.client = client
        self.prefix = prefix

    def name(self, collection: str) -> str:
        """The collection's name in a server that other tests use too."""
        return f"{self.prefix}{collection}"

    def set_text(self, collection: str, id: str, text: str) -> None:
        foreign = collection == FOREIGN
        point: int | str = int(id) if foreign else point_id(id)
        self.client.set_payload(
            self.name(collection), {"body" if foreign else "text": text}, points=[point], wait=True
        )

    def set_record(self, collection: str, record: object) -> None:
        self.client.update_collection(self.name(collection), metadata={RECORD: record})

    def get_record(self, collection: str) -> Any:
        metadata = self.client.get_collection(self.name(collection)).config.metadata
        return (metadata or {}).get(RECORD)

    def make_foreign(self, documents: Sequence[Document], vectors: Matrix) -> tuple[str, Layout]:
        self.client.create_collection(
            self.name(FOREIGN),
            vectors_config=models.VectorParams(size=64, distance=models.Distance.COSINE),
            metadata={"owner": "somebody"},
        )
        points = [
            models.PointStruct(
                id=int(document.id),
                vector=vector.tolist(),
                payload={"body": document.text, **document.metadata},
            )
            for document, vector in zip(documents, vectors, strict=True)
        ]
        self.client.upsert(self.name(FOREIGN), points, wait=True)
        return FOREIGN, LAYOUT

    def dump(self, collection: str) -> object:
        name = self.name(collection)
        points, _ = self.client.scroll(name, limit=10_000, with_payload=True, with_vectors=True)
        config = self.client.get_collection(name).config
        others = {key: kept for key, kept in (config.metadata or {}).items() if key != RECORD}
        return config.params, others, points


class Harness(Raw):
    """Opens sync stores."""

    def __init__(
        self, client: QdrantClient, prefix: str = "", source: Any = None, **options: Any
    ) -> None:
        super().__init__(client, prefix)
        self.source = source or client
        self.options = options

    def open(
        self,
        collection: str,
        *,
        backend: AnyBackend | None = None,
        mirrors: Sequence[AnyBackend] = (),
        space: EmbeddingSpace | None = None,
        layout: Layout | None = None,
        index: Index | None = None,
    ) -> Any:
        return QdrantStore(
            self.source,
            collection=_prefixed(self.prefix, collection),
            backend=backend,  # type: ignore[arg-type]
            mirrors=mirrors,  # type: ignore[arg-type]
            space=space,
            layout=layout,
            index=index,
            **self.options,
        )


class AsyncHarness:
    """Opens async stores; a stranger's doings block, which is of no harm here."""

    def __init__(
        self, client: QdrantClient, prefix: str = "", source: Any = None, **options: Any
    ) -> None:
        self.raw = Raw(client, prefix)
        self.source = source
        self.options = options

    def open(
        self,
        collection: str,
        *,
        backend: AnyBackend | None = None,
        mirrors: Sequence[AnyBackend] = (),
        space: EmbeddingSpace | None = None,
        layout: Layout | None = None,
        index: Index | None = None,
    ) -> Any:
        return AsyncQdrantStore(
            self.source,
            collection=_prefixed(self.raw.prefix, collection),
            backend=backend,
            mirrors=mirrors,
            space=space,
            layout=layout,
            index=index,
            **self.options,
        )

    async def set_text(self, collection: str, id: str, text: str) -> None:
        self.raw.set_text(collection, id, text)

    async def set_record(self, collection: str, record: object) -> None:
        self.raw.set_record(collection, record)

    async def get_record(self, collection: str) -> Any:
        return self.raw.get_record(collection)

    async def make_foreign(
        self, documents: Sequence[Document], vectors: Matrix
    ) -> tuple[str, Layout]:
        return self.raw.make_foreign(documents, vectors)

    async def dump(self, collection: str) -> object:
        return self.raw.dump(collection)


def _prefixed(prefix: str, collection: Any) -> Any:
    """The name in the server; one that must be refused stays as it is."""
    is_good = isinstance(collection, str) and re.fullmatch("[a-z][a-z0-9_]*", collection)
    return f"{prefix}{collection}" if is_good else collection


@pytest.fixture
def memory(qdrant_local: None) -> Iterator[QdrantClient]:
    """A client in local mode with nothing in it."""
    client = QdrantClient(":memory:")
    yield client
    client.close()


@pytest.fixture
def async_memory(memory: QdrantClient) -> AsyncQdrantClient:
    """An async client of the same collections."""
    client = AsyncQdrantClient(":memory:")
    client._client.collections = memory._client.collections  # type: ignore[attr-defined]
    return client


class TestQdrantStoreInMemory(VectorStoreContract):
    gaps = LOCAL_GAPS

    @pytest.fixture
    def harness(self, memory: QdrantClient) -> Harness:
        return Harness(memory)


class TestAsyncQdrantStoreInMemory(AsyncVectorStoreContract):
    gaps = LOCAL_GAPS

    @pytest.fixture
    def harness(self, memory: QdrantClient, async_memory: AsyncQdrantClient) -> AsyncHarness:
        return AsyncHarness(memory, source=async_memory)


@pytest.fixture
def prefix(qdrant: str) -> Iterator[str]:
    """What the names of one test's collections begin with; they are dropped afterwards."""
    name = f"t{uuid.uuid4().hex[:12]}_"
    yield name
    client = QdrantClient(qdrant, check_compatibility=False)
    for collection in client.get_collections().collections:
        if collection.name.startswith(name):
            client.delete_collection(collection.name)
    client.close()


@pytest.fixture
def raw_client(qdrant: str) -> Iterator[QdrantClient]:
    """A stranger's own client of the server."""
    client = QdrantClient(qdrant, check_compatibility=False)
    yield client
    client.close()


class TestQdrantStoreOverRest(VectorStoreContract):
    __test__ = HAS_SERVER

    @pytest.fixture
    def harness(self, qdrant: str, raw_client: QdrantClient, prefix: str) -> Harness:
        return Harness(raw_client, prefix, source=qdrant)


class TestAsyncQdrantStoreOverRest(AsyncVectorStoreContract):
    __test__ = HAS_SERVER

    @pytest.fixture
    def harness(self, qdrant: str, raw_client: QdrantClient, prefix: str) -> AsyncHarness:
        return AsyncHarness(raw_client, prefix, source=qdrant)


class TestQdrantStoreOverGrpc(VectorStoreContract):
    __test__ = HAS_SERVER

    @pytest.fixture
    def harness(
        self, qdrant: str, qdrant_grpc: int, raw_client: QdrantClient, prefix: str
    ) -> Harness:
        return Harness(raw_client, prefix, source=qdrant, grpc_port=qdrant_grpc)


class TestAsyncQdrantStoreOverGrpc(AsyncVectorStoreContract):
    __test__ = HAS_SERVER

    @pytest.fixture
    def harness(
        self, qdrant: str, qdrant_grpc: int, raw_client: QdrantClient, prefix: str
    ) -> AsyncHarness:
        return AsyncHarness(raw_client, prefix, source=qdrant, grpc_port=qdrant_grpc)
