"""A Qdrant server, which there is in a container only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.servers import containers
from tests.servers.untested import environment


@dataclass(frozen=True, slots=True)
class QdrantServer:
    """Where a server answers: ``url`` over REST, and the same host's ``grpc_port`` over gRPC."""

    url: str
    grpc_port: int


@contextmanager
def given() -> Iterator[QdrantServer]:
    """The server that the environment names."""
    url = environment("SAMESPACE_TEST_QDRANT")
    yield QdrantServer(url, int(os.environ.get("SAMESPACE_TEST_QDRANT_GRPC", "6334")))


@contextmanager
def container() -> Iterator[QdrantServer]:
    """A server in a container."""
    with containers.running("qdrant", 6333, 6334, ready="/readyz") as (rest, grpc):
        yield QdrantServer(f"http://{rest}", int(grpc.rpartition(":")[2]))
