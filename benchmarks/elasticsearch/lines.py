"""Elasticsearch: ours, LangChain's and Haystack's stores, and the official client by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.servers import elasticsearch as search
from tests.servers.elasticsearch import Node
from tests.servers.untested import NotHere, any_of

from benchmarks.contest import HERE, OURS, PEERS, Contest, LeftOut, Line, Options, Process, faster

ROWS = 10_000
HEAP = "2g"
RAW, LANGCHAIN, HAYSTACK = "helpers.bulk by hand", "LangChain", "Haystack"
CONTESTANTS = {
    OURS: (HERE, "benchmarks.elasticsearch.ours"),
    RAW: (HERE, "benchmarks.elasticsearch.raw"),
    LANGCHAIN: (PEERS, "benchmarks.elasticsearch.langchain"),
    HAYSTACK: (PEERS, "benchmarks.elasticsearch.haystack"),
}
SHOWN = {"encode": "encode and send", "flat": "ingest", "hnsw": "ingest"}
RIVALS = (LANGCHAIN, HAYSTACK, RAW)


def lines(options: Options) -> Iterator[Line | LeftOut]:
    """All figures: into a sink, and into a real server."""
    with Process(HERE, "benchmarks.elasticsearch.sink") as sink:
        yield from _compared(sink.answer(), options, "encode", "no server", {LANGCHAIN: 12})
    try:
        with any_of(search.given, search.container, _node) as url:
            yield from _compared(url, options, "flat", "none", {LANGCHAIN: 5})
            yield from _compared(url, options, "hnsw", "inside", {LANGCHAIN: 1.4})
    except NotHere as error:
        yield LeftOut("ingest into a real server", str(error))


@contextmanager
def _node() -> Iterator[str]:
    with Node(heap=HEAP) as node:
        yield node.url


def _compared(
    url: str, options: Options, task: str, index: str, bounds: dict[str, float]
) -> Iterator[Line]:
    tasks = dict.fromkeys(CONTESTANTS, task)
    with Contest(CONTESTANTS, url, options) as contest:
        contest.warm_up(tasks)
        rates = contest.rates(tasks)
    for rival in RIVALS:
        yield faster(SHOWN[task], index, rates, rival, bounds.get(rival))
