"""What one more slot would need in an index, and what others may notice of it; no I/O."""

from __future__ import annotations

from typing import Final

from samespace.documents import CollectionInfo
from samespace.forecast import Notice, SlotForecast
from samespace.index import Index
from samespace.space import EmbeddingSpace

FILLS: Final = 118.0
"""Rows a second in place, Elasticsearch 9.4 with int8_hnsw on two cores: an update indexes the whole
document again, with all its vectors."""
_NOTICES: Final = (
    Notice(
        "update-conflicts",
        "_update of an application that meets a fill answers 409, as it does when two of its own meet: "
        "send retry_on_conflict=3. Whole documents by index are not concerned.",
    ),
    Notice(
        "text-in-place",
        "A text that _update changes in place leaves the new slot stale until the next sweep.",
    ),
    Notice(
        "field-stays",
        "A mapped field cannot be removed: the old slot's values go, its space comes back at a merge.",
    ),
)


def forecast(space: EmbeddingSpace, info: CollectionInfo, index: Index) -> SlotForecast:
    """What a slot of ``space`` would need in the index that ``info`` describes."""
    del info  # every index is alike in this
    raw = (2 if index.quantization == "half" else 4) * space.dimensions
    copy = _copy(space.dimensions, index.quantization)
    links = 4 * index.m if index.kind == "hnsw" else 0
    return SlotForecast(
        store="elasticsearch",
        disk_per_row=raw + copy + links,
        memory_per_row=(copy or raw) + links,
        sizes_from="Elasticsearch's own rule for off-heap memory: vectors, or their quantised copy, and 4·m",
        fills_per_second=FILLS,
        rate_from="one shard, measured on two cores",
        notices=_NOTICES,
    )


def _copy(dimensions: int, quantization: str | None) -> int:
    """Bytes of a row in the quantised copy, which is beside the vectors."""
    sizes = {"int8": dimensions + 4, "binary": dimensions // 8 + 14}
    return sizes.get(quantization or "", 0)
