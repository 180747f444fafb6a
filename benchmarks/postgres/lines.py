"""PostgreSQL: ours, LangChain's and LlamaIndex's stores, and psycopg by hand."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psycopg

from benchmarks.contest import (
    HERE,
    OURS,
    PEERS,
    Contest,
    Line,
    Options,
    beside,
    faster,
    overlapped,
    quicker,
)
from samespace.stores.pgvector import embedded

ROWS = 20_000
RAW, LANGCHAIN, LLAMAINDEX = "psycopg by hand", "LangChain", "LlamaIndex"
CONTESTANTS = {
    OURS: (HERE, "benchmarks.postgres.ours"),
    RAW: (HERE, "benchmarks.postgres.raw"),
    LANGCHAIN: (PEERS, "benchmarks.postgres.langchain"),
    LLAMAINDEX: (PEERS, "benchmarks.postgres.llamaindex"),
}


def lines(options: Options) -> Iterator[Line]:
    """All figures, on an embedded server."""
    with tempfile.TemporaryDirectory(prefix="samespace-bench-") as folder:
        Path(folder).chmod(0o755)  # the server's account must get through
        with embedded.start(Path(folder) / "postgres") as lease:
            settle = partial(_flush, lease.conninfo)
            with Contest(CONTESTANTS, lease.conninfo, options, settle=settle) as contest:
                yield from _compared(contest)
                yield from _ours_alone(contest, options.rounds)


def _flush(conninfo: str) -> None:
    """Put on the disk what was written."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("CHECKPOINT")


def _compared(contest: Contest) -> Iterator[Line]:
    loads = contest.rates(dict.fromkeys(CONTESTANTS, "load"))
    yield faster("upsert", "none", loads, LANGCHAIN, 30)
    yield faster("upsert", "none", loads, LLAMAINDEX, 15)
    yield faster("upsert", "none", loads, RAW, 0.85)
    yield from overlapped(contest, [LANGCHAIN], 0.95)
    for name in (RAW, LANGCHAIN, LLAMAINDEX):
        contest.do(name, "index")
    indexed = contest.rates({OURS: "load_and_index", LANGCHAIN: "load_in_place"})
    yield faster("load + HNSW", "inside", indexed, LANGCHAIN, 10)
    times = contest.latencies(dict.fromkeys(CONTESTANTS, "search"))
    yield quicker("search", times, LANGCHAIN, 0.6)
    yield quicker("search", times, LLAMAINDEX, 0.6)
    yield quicker("search", times, RAW, 1.15)


def _ours_alone(contest: Contest, rounds: int) -> Iterator[Line]:
    recall = contest.do(OURS, "recall")["recall"]
    yield Line("recall@10, default search", "built", recall, "", "", None, recall, at_least=0.95)
    filtered = contest.do(OURS, "filtered")
    fewest = float(filtered["fewest"])
    yield Line("hits at 1 % selectivity", "built", fewest, "", "", None, fewest, at_least=10)
    share = filtered["recall"]
    yield Line("recall@10 at 1 %", "built", share, "", "", None, share, at_least=0.95)
    times = contest.do(OURS, "search_filtered")["milliseconds"]
    median = statistics.median(times)
    yield Line("search at 1 % selectivity, p50", "built", median, "ms", "", None, median)
    filled = statistics.median(contest.do(OURS, "fill")["rate"] for _ in range(rounds))
    yield Line("fill a second slot", "first one's", filled, "rows/s", "", None, filled, 5000)
    yield from beside(contest, "built", 1.25)
