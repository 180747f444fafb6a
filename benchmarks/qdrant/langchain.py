"""LangChain's ``QdrantVectorStore``, in the environment of the peers."""

from __future__ import annotations

from langchain_qdrant import QdrantVectorStore

from benchmarks.qdrant.peer import VECTOR, Peer
from benchmarks.serving import serve


class Ready:
    """Hands out the vectors in the order in which their texts come."""

    def __init__(self, lists: list[list[float]]) -> None:
        self.lists = lists
        self.given = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        start, self.given = self.given, self.given + len(texts)
        return self.lists[start : self.given]

    def embed_query(self, text: str) -> list[float]:
        raise NotImplementedError


class LangChain(Peer):
    """With its defaults: REST, 64 points a request."""

    collection = "langchain"

    def write(self) -> None:
        store = QdrantVectorStore(
            self.client,
            self.collection,
            Ready(self.lists),
            vector_name=VECTOR,
            validate_embeddings=False,
            validate_collection_config=False,
        )
        store.add_texts(self.given.texts, self.given.metadata, self.given.ids)


if __name__ == "__main__":
    serve(LangChain)
