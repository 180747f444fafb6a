"""Qdrant: ours over gRPC, LangChain's and Haystack's stores, and the official client by hand."""

from __future__ import annotations

from collections.abc import Iterator

from tests.servers import qdrant
from tests.servers.untested import NotHere, any_of

from benchmarks.contest import (
    HERE,
    OURS,
    PEERS,
    Contest,
    LeftOut,
    Line,
    Options,
    Process,
    beside,
    loading,
    overlapped,
)

ROWS = 10_000
REST, GRPC = "REST lists by hand", "gRPC lists by hand"
CONTESTANTS = {
    OURS: (HERE, "benchmarks.qdrant.ours"),
    REST: (HERE, "benchmarks.qdrant.raw"),
    GRPC: (HERE, "benchmarks.qdrant.raw_grpc"),
    "LangChain": (PEERS, "benchmarks.qdrant.langchain"),
    "Haystack": (PEERS, "benchmarks.qdrant.haystack"),
}


def lines(options: Options) -> Iterator[Line | LeftOut]:
    """All figures: into a sink, and into a real server."""
    with Process(HERE, "benchmarks.qdrant.sink") as sink:
        yield from loading(CONTESTANTS, sink.answer(), options, "encode", {REST: 3})
    try:
        with any_of(qdrant.given, qdrant.container) as server:
            address = f"{server.url},{server.grpc_port}"
            yield from loading(CONTESTANTS, address, options, "flat", {})
            yield from loading(CONTESTANTS, address, options, "hnsw", {})
            with Contest({OURS: CONTESTANTS[OURS]}, address, options) as contest:
                yield from overlapped(contest, [])
                yield from beside(contest, "built", 1.25)
    except NotHere as error:
        yield LeftOut("ingest into a real server", str(error))
