"""The client by hand, over REST: ``PointStruct`` with vectors as lists."""

from __future__ import annotations

from qdrant_client import models

from benchmarks.qdrant.peer import VECTOR, Peer
from benchmarks.serving import serve

BATCH = 128
"""As ours sends."""


class Raw(Peer):
    """As the client's documentation shows."""

    collection = "by_hand"

    def write(self) -> None:
        for start in range(0, self.rows, BATCH):
            places = range(start, min(start + BATCH, self.rows))
            points = [self._point(place) for place in places]
            self.client.upsert(self.collection, points=points, wait=True)

    def _point(self, place: int) -> models.PointStruct:
        given = self.given
        payload = {"text": given.texts[place], "metadata": given.metadata[place]}
        vector = {VECTOR: self.lists[place]}
        return models.PointStruct(id=given.ids[place], payload=payload, vector=vector)


if __name__ == "__main__":
    serve(Raw)
