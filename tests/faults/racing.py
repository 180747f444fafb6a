"""Processes that do something to one collection at the same moment, round after round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from threading import BrokenBarrierError
from typing import Any, Literal

import psycopg
from elasticsearch import Elasticsearch
from psycopg.sql import SQL, Identifier
from qdrant_client import QdrantClient
from tests.faults.forking import CONTEXT

from samespace import ElasticsearchStore, EmbeddingSpace, PgVectorStore, QdrantStore
from samespace.errors import SamespaceError, SpaceMismatch
from samespace.stores.qdrant.requests import RECORD

RACERS = 16
PATIENCE = 240
"""Seconds until a barrier gives up, so that a process that died is a failure and no hang."""
Act = Literal["create", "drop"]
Part = tuple[Act, EmbeddingSpace]


@dataclass(frozen=True)
class Place:
    """Where a test's collection is, as another process can be told."""

    store: str
    address: str
    name: str

    def open(self, space: EmbeddingSpace) -> Any:
        """A handle."""
        if self.store == "PostgreSQL":
            return PgVectorStore(
                self.address,
                collection="raced",
                space=space,
                schema=f"{self.name}_made",
                registry=f"{self.name}_registry",
            )
        kind: Any = QdrantStore if self.store == "Qdrant REST" else ElasticsearchStore
        return kind(self.address, collection=f"{self.name}_raced", space=space)

    def slots(self) -> tuple[list[str], list[list[str]]]:
        """The physical slots, and those that each record names; no records without a collection."""
        return {
            "PostgreSQL": self._postgres_slots,
            "Qdrant REST": self._qdrant_slots,
            "Elasticsearch": self._elasticsearch_slots,
        }[self.store]()

    def _postgres_slots(self) -> tuple[list[str], list[list[str]]]:
        registry = f"{self.name}_registry"
        with psycopg.connect(self.address, autocommit=True) as connection:
            columns = connection.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 "
                "AND format_type(atttypid, atttypmod) LIKE 'vector%%'",
                (f"{self.name}_made.raced",),
            ).fetchall()
            query = "SELECT jsonb_path_query_array(record, '$.slots[*].name') FROM {}"
            records = connection.execute(
                SQL(query).format(Identifier(registry, "collections"))
            ).fetchall()
        return [row[0] for row in columns], [row[0] for row in records]

    def _qdrant_slots(self) -> tuple[list[str], list[list[str]]]:
        name = f"{self.name}_raced"
        client = QdrantClient(self.address, check_compatibility=False)
        try:
            if not client.collection_exists(name):
                return [], []
            config = client.get_collection(name).config
        finally:
            client.close()
        vectors: Any = config.params.vectors
        return list(vectors), [_named((config.metadata or {})[RECORD])]

    def _elasticsearch_slots(self) -> tuple[list[str], list[list[str]]]:
        name = f"{self.name}_raced"
        with Elasticsearch(self.address) as client:
            found = client.options(ignore_status=404).indices.get(index=name)
        if name not in found:
            return [], []
        mapping = found[name]["mappings"]
        vectors = [
            field
            for field, each in mapping["properties"].items()
            if each.get("type") == "dense_vector"
        ]
        return vectors, [_named(mapping["_meta"]["samespace"])]

    def forget(self) -> None:
        """Remove all that a round made."""
        if self.store == "PostgreSQL":
            with psycopg.connect(self.address, autocommit=True) as connection:
                connection.execute("SET client_min_messages = warning")
                for name in (f"{self.name}_made", f"{self.name}_registry"):
                    drop = SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(name))
                    connection.execute(drop)
        elif self.store == "Qdrant REST":
            client = QdrantClient(self.address, check_compatibility=False)
            client.delete_collection(f"{self.name}_raced")
            client.close()
        else:
            with Elasticsearch(self.address) as search:
                search.indices.delete(index=f"{self.name}_raced", ignore_unavailable=True)


def _named(record: Any) -> list[str]:
    return [slot["name"] for slot in record["slots"]]


def race(
    place: Place, part: Part, rounds: int, together: Barrier, answers: Queue[tuple[int, str]]
) -> None:
    """Play a part once a round, when all others do."""
    act, space = part
    with suppress(BrokenBarrierError):  # the test has failed, and says why
        for number in range(rounds):
            with place.open(space) as store:
                together.wait(PATIENCE)
                answers.put((number, _answer(store, act)))
            together.wait(PATIENCE)


def _answer(store: Any, act: Act) -> str:
    try:
        store.create() if act == "create" else store.drop()
    except SpaceMismatch:
        return "mismatch"
    except SamespaceError as error:
        return f"{type(error).__name__}: {error}"
    return str(store.space.id) if act == "create" else "dropped"


class Race:
    """Rounds of a race, one after the other."""

    def __init__(self, together: Barrier, answers: Queue[tuple[int, str]]) -> None:
        self._together, self._answers, self._number = together, answers, -1

    def run(self) -> Counter[str]:
        """Let a round be run; what each said."""
        self._number += 1
        self._together.wait(PATIENCE)
        heard = [self._answers.get(timeout=PATIENCE) for _ in range(RACERS)]
        assert {number for number, _ in heard} == {self._number}
        return Counter(said for _, said in heard)

    def end(self) -> None:
        """Let the next round be prepared."""
        self._together.wait(PATIENCE)


@contextmanager
def racing(place: Place, rounds: int, parts: Sequence[Part]) -> Iterator[Race]:
    """Processes that stop at a barrier before and after each round; so does the test."""
    together = CONTEXT.Barrier(RACERS + 1)
    answers: Queue[tuple[int, str]] = CONTEXT.Queue()
    processes = [
        CONTEXT.Process(
            target=race,
            args=(place, parts[number % len(parts)], rounds, together, answers),
            daemon=True,
        )
        for number in range(RACERS)
    ]
    for process in processes:
        process.start()
    try:
        yield Race(together, answers)
    finally:
        together.abort()
        for process in processes:
            process.join(PATIENCE)
        place.forget()
