"""Vectors made anew: each by its own row's text, and each document once."""

from __future__ import annotations

import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient
from qdrant_client.models import Distance, PointStruct, PointVectors, VectorParams
from tests.contract.ingesting import ChunkBackend, Place, postgres_place

from samespace import Document, HashingBackend, Layout, Parent, QdrantStore
from samespace.migrate import MigrationRun, asking, plan, sampling, verify
from samespace.testing.backends import UNLIKE, TaskBackend
from samespace.testing.corpus import texts

OLD, NEW = HashingBackend(64), HashingBackend(128)


@pytest.mark.parametrize("size", [1, 8])
def test_rows_of_one_id_have_each_the_vector_of_its_own_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(asking, "BATCH", size)
    path, bodies = str(tmp_path / "q"), texts(8)
    with closing(QdrantClient(path=path)) as client:
        place = VectorParams(size=64, distance=Distance.COSINE)
        client.create_collection("docs", vectors_config={"v": place})
        made = zip(bodies, OLD.embed_documents(bodies), strict=True)
        points = [
            PointStruct(id=n, payload={"doc": f"d{n // 2}", "body": body}, vector={"v": v.tolist()})
            for n, (body, v) in enumerate(made)
        ]
        client.upsert("docs", points)
    layout = Layout(id="doc", text="body", slot="v")
    with QdrantStore(path, collection="docs", layout=layout, backend=OLD) as store:
        store.adopt()
        planned = plan(store, NEW)
        assert MigrationRun(store, NEW, planned).run().complete
        found = verify(store, NEW, planned, repetitions=1, sample="all")
    check = found.collections[0].check("sample")
    assert (check.passed, check.figures["judged"], check.figures["shared"]) == (True, 8, 4)
    assert "4 ids are of several rows" in check.sentence
    with closing(QdrantClient(path=path)) as client:
        filled: Any = client.retrieve("docs", range(8), with_vectors=[NEW.space.id])
        assert np.allclose(
            [point.vector[NEW.space.id] for point in filled],
            NEW.embed_documents(bodies),
            atol=1e-6,
        )
        swapped = filled[0].vector[NEW.space.id]
        client.update_vectors("docs", [PointVectors(id=1, vector={NEW.space.id: swapped})])
    with QdrantStore(path, collection="docs", layout=layout, backend=OLD) as store:
        check = verify(store, NEW, planned, sample="all").collections[0].check("sample")
    assert (check.passed, check.figures["ids"]) == (False, ["d0"])


@pytest.mark.parametrize("sample", ["all", 60])
def test_chunks_are_embedded_once_in_whatever_order_they_are_read(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, sample: Any
) -> None:
    monkeypatch.setattr(asking, "BATCH", 10)
    monkeypatch.setattr(sampling, "BATCH_SIZE", 10)
    place: Place = postgres_place(request)
    model = ChunkBackend()
    rows = [
        Document(str(uuid.uuid5(uuid.NAMESPACE_OID, text)), text, parent=Parent(f"p{n % 6}", n))
        for n, text in enumerate(texts(60))
    ]
    with place.open(TaskBackend(UNLIKE, seed=1)) as store:
        store.upsert([*rows, Document("alone", "of no document")])
        planned = plan(store, model)
        MigrationRun(store, model, planned, late_chunking=True).run()
        model.together.clear()
        found = verify(store, model, planned, repetitions=1, sample=sample)
    check = found.collections[0].check("sample")
    assert check.passed, check.sentence
    assert check.figures["judged"] == (len(rows) + 1 if sample == "all" else sample)
    assert sum(map(len, model.together)) <= len(rows) * (1 if sample == "all" else 2)
