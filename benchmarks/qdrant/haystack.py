"""Haystack's ``QdrantDocumentStore``, in the environment of the peers."""

from __future__ import annotations

from haystack import Document
from haystack.document_stores.types import DuplicatePolicy
from haystack_integrations.document_stores.qdrant import QdrantDocumentStore

from benchmarks.qdrant.peer import INDEXED_AT_ONCE, SECONDS, Peer, graph, rest_of
from benchmarks.serving import serve
from benchmarks.workload import Workload


class Haystack(Peer):
    """With its defaults: REST, 100 points a request, a collection that it makes itself."""

    collection = "haystack"

    def __init__(self, address: str, given: Workload) -> None:
        super().__init__(address, given)
        rows = zip(given.ids, given.texts, given.metadata, self.lists, strict=True)
        self.documents = [
            Document(id=id, content=text, meta=metadata, embedding=vector)
            for id, text, metadata, vector in rows
        ]

    def create(self) -> None:
        self.store = QdrantDocumentStore(
            url=rest_of(self.address),
            index=self.collection,
            embedding_dim=self.given.vectors.shape[1],
            recreate_index=True,
            hnsw_config=graph(self.kind).model_dump(exclude_none=True),
            optimizers_config=INDEXED_AT_ONCE.model_dump(exclude_none=True),
            progress_bar=False,
            timeout=SECONDS,
        )
        self.store.count_documents()  # it makes the collection when it is first asked

    def write(self) -> None:
        self.store.write_documents(self.documents, DuplicatePolicy.OVERWRITE)


if __name__ == "__main__":
    serve(Haystack)
