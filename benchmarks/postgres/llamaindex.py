"""LlamaIndex's ``PGVectorStore``, in the environment of the peers."""

from __future__ import annotations

from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.vector_stores.postgres import PGVectorStore
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, create_engine, text

from benchmarks.serving import Answer, latencies, rate, serve
from benchmarks.workload import Workload


class LlamaIndex:
    """As its documentation shows, with its defaults; it adds, it does not upsert."""

    def __init__(self, conninfo: str, given: Workload) -> None:
        self.given = given
        self.rows = len(given.ids)
        parts = conninfo_to_dict(conninfo)
        self.url = URL.create(
            "postgresql+psycopg2",
            username=str(parts["user"]),
            database=str(parts["dbname"]),
            query={"host": str(parts["host"])},
        )
        self.async_url = self.url.set(drivername="postgresql+asyncpg")
        self.engine = create_engine(self.url)

    def _open(self) -> PGVectorStore:
        return PGVectorStore.from_params(
            connection_string=self.url,
            async_connection_string=self.async_url,
            table_name="llamaindex",
            embed_dim=self.given.vectors.shape[1],
        )

    def load(self) -> Answer:
        """Add without an index over the vectors."""
        with self.engine.begin() as connection:
            connection.execute(text("DROP TABLE IF EXISTS data_llamaindex"))
        given = self.given
        parts = zip(given.ids, given.texts, given.metadata, given.vectors.tolist(), strict=True)
        nodes = [
            TextNode(id_=id, text=body, metadata=metadata, embedding=vector)
            for id, body, metadata, vector in parts
        ]
        store = self._open()
        return rate(lambda: store.add(nodes), self.rows)

    def index(self) -> Answer:
        """The index that it makes when asked for one, outside every clock."""
        with self.engine.begin() as connection:
            connection.execute(
                text(
                    "CREATE INDEX IF NOT EXISTS llamaindex_hnsw ON data_llamaindex "
                    "USING hnsw (embedding vector_cosine_ops) WITH (m = 16, ef_construction = 64)"
                )
            )
        return {}

    def search(self) -> Answer:
        """The ten nearest rows, with text and metadata."""
        store = self._open()
        return latencies(
            lambda vector: store.query(
                VectorStoreQuery(query_embedding=vector, similarity_top_k=10)
            ),
            self.given.queries.tolist(),
        )


if __name__ == "__main__":
    serve(LlamaIndex)
