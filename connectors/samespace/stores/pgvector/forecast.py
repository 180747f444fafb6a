"""What one more slot would need in a table, and what others may notice of it; no I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from samespace.documents import CollectionInfo
from samespace.forecast import Notice, SlotForecast
from samespace.index import Index
from samespace.space import EmbeddingSpace
from samespace.stores.pgvector.sql import uses_half

PAGE: Final = 8_168
"""Bytes of a page of 8 kB that tuples may use."""
_ELEMENT: Final = 72
"""Bytes of a graph element before its vector: heap tids, level, link to its neighbours."""
_LINK: Final = 6
_ITEM: Final = 4
_IN_MEMORY: Final = 16
"""Bytes of a link while the graph is built: pointer, distance, flag."""
_SOURCE: Final = 17

OWN_FILLS: Final = 10_738.0
FOREIGN_FILLS: Final = 501.0
"""Rows a second with an HNSW index of 768 dimensions in place, two cores, PostgreSQL 18 and
pgvector 0.8: with room in the pages (fillfactor 45) each fill is a HOT update; without, each enters
the old index again."""
BUILDS: Final = 1_092.0
"""Rows a second of an index of 1,024 dimensions that fits in ``maintenance_work_mem``; else 255."""


def forecast(space: EmbeddingSpace, info: CollectionInfo, index: Index) -> SlotForecast:
    """What a slot of ``space`` would need in the table that ``info`` describes."""
    half, own = uses_half(space, index), info.layout is None
    value = (2 if half else 4) * space.dimensions + 8
    indexed = index.is_due(info.rows) or (index.kind == "hnsw" and index.build == "manual")
    built = index_bytes(value, index.m) if indexed else 0
    precision = "half" if half else "single"
    return SlotForecast(
        store="pgvector",
        disk_per_row=4 * space.dimensions + 8 + _SOURCE + built,
        memory_per_row=value + 2 * index.m * _IN_MEMORY if indexed else 0,
        sizes_from=(
            f"pgvector's layout of pages, with an HNSW index in {precision} precision"
            if indexed
            else "the size of a vector; an index is not built for so few rows"
        ),
        fills_per_second=OWN_FILLS if own else FOREIGN_FILLS,
        rate_from=f"{'a table of ours' if own else 'an adopted table'}, measured on two cores",
        builds_per_second=BUILDS if indexed else None,
        notices=tuple(_notices(space, half=half and indexed, own=own)),
    )


def index_bytes(vector: int, m: int) -> int:
    """Bytes of an HNSW index for each row, of vectors that take ``vector`` bytes.

    An element and its neighbours are two tuples that stay in one page, so what counts is how many pairs
    fit in. Measured: 512 dimensions 2,732; 768 and 896 4,097; 1,024 8,193; in half precision
    768 2,049; 1,024 2,732.
    """
    element = _aligned(_ELEMENT + vector)
    neighbours = _aligned(4 + 2 * m * _LINK)
    return -(-8_192 // max(1, PAGE // (element + neighbours + 2 * _ITEM)))


def _aligned(size: int) -> int:
    return -(-size // 8) * 8


def _notices(space: EmbeddingSpace, *, half: bool, own: bool) -> Iterator[Notice]:
    if half and space.dimensions > 896:
        yield Notice(
            "half-precision-index",
            f"A float index of {space.dimensions} dimensions would fill a page a row, so the index is in "
            "half precision; hits are scored again in full.",
        )
    yield Notice(
        "prepared-select-star",
        "After the column is added a prepared SELECT * or RETURNING * of an open connection fails (0A000, "
        "cached plan must not change result type) until it is prepared again; named columns do not.",
    )
    yield Notice(
        "copy-without-columns",
        "COPY and INSERT without a list of columns count columns: COPY then fails (missing data for "
        "column). Name the columns.",
    )
    yield Notice(
        "lock-timeout",
        "Adding the column and the trigger waits for open transactions, and readers wait behind it: it is "
        "tried under a short lock_timeout, again and again, until what is idle in a transaction ends.",
    )
    if not own:
        yield Notice(
            "not-null-dropped",
            "NOT NULL is dropped from the present vectors' column, since a text that changes empties it.",
        )
