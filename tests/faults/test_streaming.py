"""A source larger than memory: what is pulled is stored, and is let go."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.faults.streaming import JOB_BATCH

from samespace import Document, Index, PgVectorStore
from samespace.ingest.pipeline import IN_FLIGHT
from samespace.protocols import Matrix
from samespace.stores.base import BATCH_DOCUMENTS
from samespace.testing.backends import TaskBackend

ROOT = Path(__file__).parents[2]
MEBIBYTE = 2**20


@pytest.mark.parametrize(
    "size", [12_000, pytest.param(1_000_000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])]
)
@pytest.mark.parametrize("kind", ["sync", "async", "job"])
def test_a_stream_takes_the_memory_of_a_batch(
    postgres: str, schema: str, kind: str, size: int
) -> None:
    asked = {"kind": kind, "conninfo": postgres, "schema": schema, "size": size}
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.streaming", json.dumps(asked)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
    )
    seen = json.loads(done.stdout)
    assert (seen["written"], seen["stored"]) == (size, size)
    # One batch is written while the next one is read; a job has more and smaller ones in flight.
    most = JOB_BATCH * (IN_FLIGHT + 1) if kind == "job" else 2 * BATCH_DOCUMENTS
    assert 0 < seen["furthest_ahead"] <= most
    assert seen["growth"] <= 64 * MEBIBYTE


class Hasty(TaskBackend):
    """Embeds how texts begin, since some are long."""

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        return super().embed_documents([text[:100] for text in texts])


def test_large_texts_make_small_batches(postgres: str, schema: str) -> None:
    pulled: list[int] = []

    with PgVectorStore(
        postgres,
        collection="streamed",
        backend=Hasty(),
        index=Index(kind="flat"),
        schema=schema,
        registry=f"{schema}_registry",
    ) as store:
        store.create()

        def source() -> Iterator[Document]:
            for number in range(12):
                pulled.append(number - store.count())
                yield Document(str(number), "word " * MEBIBYTE)

        store.upsert(source())
        assert store.count() == 12
    assert max(pulled) * 5 * MEBIBYTE <= 2 * (16 * MEBIBYTE + 5 * MEBIBYTE)
