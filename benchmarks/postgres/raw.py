"""psycopg by hand, on a table like ours: binary COPY into a staging table, prepared SQL."""

from __future__ import annotations

import struct

import numpy as np
import orjson
import psycopg
from psycopg.sql import SQL, Identifier

from benchmarks.serving import Answer, latencies, rate, serve
from benchmarks.workload import Workload
from samespace import EmbeddingSpace, PgVectorStore
from samespace.stores.pgvector.binary import VectorDumper
from samespace.stores.sources import source_of

BATCH = 1000


class Raw:
    """What an expert writes for this one job: the same columns, checks and answers."""

    def __init__(self, conninfo: str, given: Workload) -> None:
        self.given = given
        self.rows = len(given.ids)
        self.size = given.vectors.shape[1]
        self.space = EmbeddingSpace(model="benchmark", dimensions=self.size)
        with PgVectorStore(conninfo, collection="by_hand", space=self.space) as store:
            store.create()
        self.connection = psycopg.connect(conninfo, autocommit=True)
        self.connection.adapters.register_dumper(np.ndarray, VectorDumper)
        # As it is with us; see stores/pgvector/sql.py.
        self.connection.execute(
            "SELECT set_config('hnsw.ef_search', '40', false), "
            "set_config('hnsw.iterative_scan', 'relaxed_order', false)"
        )

    def load(self) -> Answer:
        """Upsert without an index over the vectors, 1,000 rows in a transaction."""
        self.connection.execute("TRUNCATE by_hand")
        return rate(self._load, self.rows)

    def _load(self) -> None:
        upsert = SQL(
            "INSERT INTO by_hand (id, text, metadata, {0}, {1}) SELECT * FROM staged "
            "ON CONFLICT (id) DO UPDATE SET text = EXCLUDED.text, metadata = EXCLUDED.metadata, "
            "{0} = EXCLUDED.{0}, {1} = EXCLUDED.{1}"
        ).format(Identifier(self.space.id), Identifier(f"{self.space.id}__source"))
        stage = SQL(
            "CREATE TEMP TABLE staged (id text, text text, metadata jsonb, v vector({}), s bytea) "
            "ON COMMIT DROP"
        ).format(self.size)
        for start in range(0, self.rows, BATCH):
            with self.connection.transaction(), self.connection.cursor() as cursor:
                cursor.execute(stage)
                with cursor.copy("COPY staged FROM STDIN (FORMAT BINARY)") as copy:
                    copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
                    for place in range(start, min(start + BATCH, self.rows)):
                        copy.write(self._packed(place))
                    copy.write(b"\xff\xff")
                cursor.execute(upsert)

    def _packed(self, place: int) -> bytes:
        given = self.given
        fields = (
            given.ids[place].encode(),
            given.texts[place].encode(),
            b"\x01" + orjson.dumps(given.metadata[place]),
            struct.pack(">HH", self.size, 0) + given.vectors[place].astype(">f4").tobytes(),
            source_of(given.ids[place], given.texts[place]),
        )
        return struct.pack(">H", len(fields)) + b"".join(
            struct.pack(">I", len(field)) + field for field in fields
        )

    def index(self) -> Answer:
        """The index that ours has, outside every clock."""
        self.connection.execute(
            SQL(
                "CREATE INDEX IF NOT EXISTS by_hand_hnsw ON by_hand "
                "USING hnsw (({}::halfvec({})) halfvec_cosine_ops) WITH (m = 16, ef_construction = 64)"
            ).format(Identifier(self.space.id), self.size)
        )
        return {}

    def search(self) -> Answer:
        """The ten nearest rows of twenty candidates, with text and metadata."""
        query = (
            SQL(
                "SELECT * FROM (SELECT id, text, metadata, {0} <=> %(q)b::vector({1}) AS distance "
                "FROM by_hand WHERE {0} IS NOT NULL "
                "ORDER BY ({0}::halfvec({1})) <=> %(q)b::vector({1})::halfvec({1}) LIMIT 20) AS found "
                "ORDER BY distance LIMIT 10"
            )
            .format(Identifier(self.space.id), self.size)
            .as_bytes(None)
        )
        cursor = self.connection.cursor(binary=True)
        return latencies(
            lambda vector: cursor.execute(query, {"q": vector}, prepare=True).fetchall(),
            list(self.given.queries),
        )


if __name__ == "__main__":
    serve(Raw)
