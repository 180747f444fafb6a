"""The contract on Elasticsearch, through the sync and the async store."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import pytest
from elasticsearch import Elasticsearch

from samespace import AsyncElasticsearchStore, Document, ElasticsearchStore, Index, Layout
from samespace.protocols import AnyBackend, Matrix
from samespace.space import EmbeddingSpace
from samespace.testing.gaps import Gap
from samespace.testing.store_contract import VectorStoreContract
from samespace.testing.store_contract_async import AsyncVectorStoreContract

LAYOUT = Layout(id="_id", text="body", slot="embedding", metadata=("lang", "year"))
"""Where things are in the index that :meth:`Raw.make_foreign` makes."""
GAPS = {
    "test_an_id_that_no_key_can_be_is_rejected_alone": Gap("never", "an _id is any string"),
}


class Raw:
    """What a stranger with the client does to a collection's index."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = Elasticsearch(url)
        self.prefix = f"t{uuid.uuid4().hex[:8]}_"

    def named(self, collection: Any) -> Any:
        """The whole name of this test's collection; what is no name stays as it is."""
        good = isinstance(collection, str) and re.fullmatch("[a-z][a-z0-9_]{1,30}", collection)
        return f"{self.prefix}{collection}" if good else collection

    def set_text(self, collection: str, id: str, text: str) -> None:
        field = "body" if collection == "foreign" else "text"
        self.client.update(
            index=self.named(collection),
            id=id,
            doc={field: text},
            refresh=True,
            retry_on_conflict=9,
        )

    def set_record(self, collection: str, record: object) -> None:
        mapping = self._mapping(collection)
        others = {key: v for key, v in mapping.get("_meta", {}).items() if key != "samespace"}
        meta = others if record is None else {**others, "samespace": record}
        self.client.indices.put_mapping(index=self.named(collection), meta=meta)

    def get_record(self, collection: str) -> Any:
        return self._mapping(collection).get("_meta", {}).get("samespace")

    def _mapping(self, collection: str) -> Any:
        found = self.client.indices.get_mapping(index=self.named(collection))
        return found[self.named(collection)]["mappings"]

    def make_foreign(self, documents: Sequence[Document], vectors: Matrix) -> tuple[str, Layout]:
        name = self.named("foreign")
        self.client.indices.create(
            index=name,
            mappings={
                "_meta": {"owner": "somebody"},
                "properties": {
                    "body": {"type": "text"},
                    "lang": {"type": "keyword"},
                    "year": {"type": "integer"},
                    "embedding": {"type": "dense_vector", "dims": 64, "similarity": "cosine"},
                },
            },
        )
        for document, vector in zip(documents, vectors, strict=True):
            row = {"body": document.text, **document.metadata, "embedding": vector.tolist()}
            self.client.index(index=name, id=document.id, document=row)
        self.client.indices.refresh(index=name)
        return "foreign", LAYOUT

    def dump(self, collection: str) -> object:
        mapping = self._mapping(collection)
        found = self.client.search(
            index=self.named(collection),
            size=1000,
            seq_no_primary_term=True,
            source={"exclude_vectors": False},
            sort=["_seq_no"],
        )
        rows = [orjson.dumps(dict(hit)) for hit in found["hits"]["hits"]]
        aliases = self.client.indices.get_alias(index=self.named(collection))
        return mapping["properties"], dict(aliases), rows

    def clear(self) -> None:
        """Delete the collections of a test."""
        for name in self.client.indices.get(index=f"{self.prefix}*"):
            self.client.indices.delete(index=name)


class Harness(Raw):
    """Opens sync stores."""

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
        return ElasticsearchStore(
            self.url,
            collection=self.named(collection),
            backend=backend,  # type: ignore[arg-type]
            mirrors=mirrors,  # type: ignore[arg-type]
            space=space,
            layout=layout,
            index=index,
        )


class AsyncHarness:
    """Opens async stores; a stranger's doings block, which is of no harm here."""

    def __init__(self, raw: Raw) -> None:
        self.raw = raw

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
        return AsyncElasticsearchStore(
            self.raw.url,
            collection=self.raw.named(collection),
            backend=backend,
            mirrors=mirrors,
            space=space,
            layout=layout,
            index=index,
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


@pytest.fixture
def raw(elasticsearch: str) -> Iterator[Harness]:
    """A stranger with the client, who deletes what was made."""
    harness = Harness(elasticsearch)
    with harness.client:
        yield harness
        harness.clear()


class TestElasticsearchStore(VectorStoreContract):
    gaps = GAPS

    @pytest.fixture
    def harness(self, raw: Harness) -> Harness:
        return raw


class TestAsyncElasticsearchStore(AsyncVectorStoreContract):
    gaps = GAPS

    @pytest.fixture
    def harness(self, raw: Harness) -> AsyncHarness:
        return AsyncHarness(raw)
