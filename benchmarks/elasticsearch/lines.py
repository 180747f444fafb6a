"""Elasticsearch: ours, LangChain's and Haystack's stores, and the official client by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.servers import elasticsearch as search
from tests.servers.elasticsearch import Node
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
HEAP = "2g"
RAW, LANGCHAIN, HAYSTACK = "helpers.bulk by hand", "LangChain", "Haystack"
CONTESTANTS = {
    OURS: (HERE, "benchmarks.elasticsearch.ours"),
    RAW: (HERE, "benchmarks.elasticsearch.raw"),
    LANGCHAIN: (PEERS, "benchmarks.elasticsearch.langchain"),
    HAYSTACK: (PEERS, "benchmarks.elasticsearch.haystack"),
}


def lines(options: Options) -> Iterator[Line | LeftOut]:
    """All figures: into a sink, and into a real server."""
    with Process(HERE, "benchmarks.elasticsearch.sink") as sink:
        yield from loading(CONTESTANTS, sink.answer(), options, "encode", {LANGCHAIN: 12})
    try:
        with any_of(search.given, search.container, _node) as url:
            yield from loading(CONTESTANTS, url, options, "flat", {LANGCHAIN: 5})
            yield from loading(CONTESTANTS, url, options, "hnsw", {LANGCHAIN: 1.4})
            with Contest({OURS: CONTESTANTS[OURS]}, url, options) as contest:
                yield from overlapped(contest, [])
                yield from beside(contest, "built", 1.25)
    except NotHere as error:
        yield LeftOut("ingest into a real server", str(error))


@contextmanager
def _node() -> Iterator[str]:
    with Node(heap=HEAP) as node:
        yield node.url
