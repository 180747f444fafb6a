"""LangChain's ``PGVectorStore``, in the environment of the peers."""

from __future__ import annotations

import asyncio

from langchain_postgres import PGEngine, PGVectorStore
from langchain_postgres.v2.indexes import HNSWIndex
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL

from benchmarks.pacing import Pace
from benchmarks.serving import Answer, Clock, latencies, rate, serve
from benchmarks.workload import Workload

TABLE = "langchain"


class NoModel:
    """Vectors are ready; nothing is embedded."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise NotImplementedError

    def embed_query(self, text: str) -> list[float]:
        raise NotImplementedError


class Paced:
    """Hands out the vectors in the order in which their texts come, at an embedder's pace."""

    def __init__(self, lists: list[list[float]]) -> None:
        self.pace = Pace()
        self._lists = lists
        self._given = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.pace.take(len(texts))
        start, self._given = self._given, self._given + len(texts)
        return self._lists[start : self._given]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """In a thread, as LangChain has it done for those who have no such method."""
        return await asyncio.to_thread(self.embed_documents, texts)

    def embed_query(self, text: str) -> list[float]:
        raise NotImplementedError


class LangChain:
    """As its documentation shows, with its defaults."""

    def __init__(self, conninfo: str, given: Workload) -> None:
        self.given = given
        self.rows = len(given.ids)
        self.lists = given.vectors.tolist()
        parts = conninfo_to_dict(conninfo)
        self.url = URL.create(
            "postgresql+psycopg",
            username=str(parts["user"]),
            database=str(parts["dbname"]),
            query={"host": str(parts["host"])},
        )
        self.engine = PGEngine.from_connection_string(self.url)

    def _empty(self) -> PGVectorStore:
        self.engine.init_vectorstore_table(
            TABLE, self.given.vectors.shape[1], overwrite_existing=True
        )
        return self._open()

    def _open(self, embeddings: object = None) -> PGVectorStore:
        return PGVectorStore.create_sync(self.engine, embeddings or NoModel(), TABLE)

    def _add(self, store: PGVectorStore) -> None:
        store.add_embeddings(self.given.texts, self.lists, self.given.metadata, self.given.ids)

    def load(self) -> Answer:
        """Upsert without an index over the vectors."""
        store = self._empty()
        return rate(lambda: self._add(store), self.rows)

    def job(self) -> Answer:
        """Embed and write, without an index over the vectors."""
        self._empty()
        embeddings, clock = Paced(self.lists), Clock()
        store = self._open(embeddings)
        with clock.running():
            store.add_texts(self.given.texts, self.given.metadata, self.given.ids)
        return {"share": embeddings.pace.seconds / clock.seconds}

    def load_in_place(self) -> Answer:
        """Upsert with the index there from the start."""
        store = self._empty()
        store.apply_vector_index(HNSWIndex(name="langchain_hnsw"))
        return rate(lambda: self._add(store), self.rows)

    def index(self) -> Answer:
        """Its default index, outside every clock."""
        store = self._open()
        if not store.is_valid_index("langchain_hnsw"):
            store.apply_vector_index(HNSWIndex(name="langchain_hnsw"))
        return {}

    def search(self) -> Answer:
        """The ten nearest rows, with text and metadata."""
        store = self._open()
        return latencies(
            lambda vector: store.similarity_search_by_vector(vector, k=10),
            self.given.queries.tolist(),
        )


if __name__ == "__main__":
    serve(LangChain)
