"""What one more slot would need in a collection, and what others may notice of it; no I/O."""

from __future__ import annotations

from typing import Final

from samespace.documents import CollectionInfo
from samespace.forecast import Notice, SlotForecast
from samespace.index import Index
from samespace.space import EmbeddingSpace

OVERHEAD: Final = 1.5
"""For links, versions and segments that are being optimised (Qdrant's guide to capacity planning)."""
_BYTES: Final = {None: 0.0, "half": 0.0, "int8": 1.0, "binary": 0.125}
"""Of a component in the quantised copy beside the vectors."""
FILLS: Final = 4_445.0
"""Rows a second in place, Qdrant 1.19 on two cores."""
_NOTICES: Final = (
    Notice(
        "text-in-place",
        "Changing text and vector in place is two requests of set_payload and update_vectors: between them "
        "a row's text is not its vector's, and in the new slot it is stale until the next sweep.",
    ),
    Notice(
        "new-vector-name",
        "Points come back with one more vector to who asks for all of them (with_vectors=True).",
    ),
)


def forecast(space: EmbeddingSpace, info: CollectionInfo, index: Index) -> SlotForecast:
    """What a slot of ``space`` would need in the collection that ``info`` describes."""
    del info  # every collection is alike in this
    vector = (2 if index.quantization == "half" else 4) * space.dimensions
    copy = _BYTES[index.quantization] * space.dimensions
    size = round((vector + copy) * OVERHEAD)
    return SlotForecast(
        store="qdrant",
        disk_per_row=size,
        memory_per_row=size,
        sizes_from="Qdrant's own rule: bytes of the vectors times 1.5",
        fills_per_second=FILLS,
        rate_from="a collection on a server, measured on two cores",
        notices=_NOTICES,
    )
