"""Where vectors of rows come from: what is derived, and what is first made in the other slot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from tests.migrate.following import Follower
from tests.migrate.test_running import SHORT, Shortening

from samespace import Layout, QdrantStore
from samespace.migrate import plan
from samespace.protocols import Matrix
from samespace.space import derive
from samespace.testing.backends import V3, TaskBackend

RAW = replace(V3, normalized=False)
CHANGED = "another text that was put in its place"


class Unscaled(TaskBackend):
    """One whose vectors are not of unit norm."""

    def __init__(self) -> None:
        super().__init__(RAW)

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        return super().embed_documents(texts) * 3

    def embed_queries(self, texts: Sequence[str]) -> Matrix:
        return super().embed_queries(texts) * 3


@contextmanager
def adopted(backend: TaskBackend, rows: int) -> Iterator[tuple[QdrantClient, QdrantStore]]:
    """Points that an application of a backend made, and a handle with that on them."""
    client = QdrantClient(":memory:")
    size = models.VectorParams(size=64, distance=models.Distance.COSINE)
    client.create_collection("docs", vectors_config={"v": size})
    texts = [f"text number {n}" for n in range(rows)]
    made = backend.embed_documents(texts).tolist()
    client.upsert(
        "docs",
        [
            models.PointStruct(id=n, payload={"doc": f"d{n}", "body": text}, vector={"v": made[n]})
            for n, text in enumerate(texts)
        ],
    )
    layout = Layout(id="doc", text="body", slot="v")
    with QdrantStore(client, collection="docs", layout=layout, backend=backend) as store:
        store.adopt()
        backend.documents.clear()
        yield client, store


@pytest.mark.usefixtures("qdrant_local")
@pytest.mark.parametrize(
    ("old", "new"), [(TaskBackend, lambda: Shortening(SHORT)), (Unscaled, TaskBackend)]
)
def test_what_was_changed_in_place_is_derived_from_what_is_made_of_it(
    old: Callable[[], TaskBackend], new: Callable[[], TaskBackend]
) -> None:
    backend = new()
    with adopted(old(), 5) as (client, store):
        made = plan(store, backend)
        assert made.collections[0].path == "derive"
        with Follower(store, backend, made, interval=0.1) as follower:
            follower.wait_until_idle()
            client.set_payload("docs", {"body": CHANGED}, points=[3])
            assert follower.wait_until_idle().complete
        assert store.backend.documents == [CHANGED]  # type: ignore[union-attr]
        found = {row.document.id: row.vector for row in store.filled(backend.space, limit=9)[0]}
    expected = derive(TaskBackend().embed_documents([CHANGED]), stored=V3, offered=backend.space)
    np.testing.assert_allclose(found["d3"], expected[0], atol=1e-5)  # type: ignore[arg-type]
