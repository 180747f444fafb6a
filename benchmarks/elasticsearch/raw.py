"""The client by hand: ``helpers.bulk`` with vectors as lists, in our index's other fields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from elasticsearch import helpers

from benchmarks.elasticsearch.peer import Peer
from benchmarks.serving import serve


class Raw(Peer):
    """As the client's documentation shows, with its defaults."""

    index = "by_hand"
    field = "vector"
    mapping: ClassVar[dict[str, Any]] = {
        "properties": {"text": {"type": "text", "index": False}, "metadata": {"type": "flattened"}}
    }

    def write(self) -> None:
        helpers.bulk(self.client, self._actions())

    def _actions(self) -> Iterator[dict[str, Any]]:
        given = self.given
        rows = zip(given.ids, given.texts, given.metadata, self.lists, strict=True)
        for id, text, metadata, vector in rows:
            source = {"text": text, "metadata": metadata, "vector": vector}
            yield {"_op_type": "index", "_index": self.index, "_id": id, "_source": source}


if __name__ == "__main__":
    serve(Raw)
