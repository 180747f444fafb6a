"""Ingestion jobs whose store is not heard: run again, they end like a clean run."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.contract.ingesting import Bars
from tests.faults.test_lost_answers import PLACES, Place
from tests.servers.cutting import Wire

from samespace import Document, IngestJob, VectorStore, everything
from samespace.errors import StoreUnavailable
from samespace.testing.backends import TaskBackend

BATCH = 20
CUTS = [
    pytest.param(5, id="small"),
    pytest.param(100, id="full", marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    return PLACES[request.param](request)


def documents(version: int) -> list[Document]:
    """Each version has other texts, other metadata and other numbers of chunks."""
    return [
        Document(
            f"d{n}",
            "".join(
                f"text {n} {n % 4 and version} part {part}|"
                for part in range((n + version) % 3 + 1)
            ),
            {"n": n, "version": version},
        )
        for n in range(60)
    ]


def stored(store: VectorStore) -> dict[str, Any]:
    rows = list(store.scan(with_vectors=True))
    assert len({row.id for row in rows}) == len(rows)
    return {row.id: (row, [round(float(x), 3) + 0.0 for x in row.vector]) for row in rows}  # type: ignore[union-attr]


def run(store: VectorStore, source: Sequence[Document], point: Path) -> None:
    IngestJob(
        store, source, identity="numbers", checkpoint=point, chunker=Bars(), batch_size=BATCH
    ).run()


@pytest.mark.parametrize("cuts", CUTS)
def test_a_job_whose_answers_are_lost_ends_like_a_clean_one(
    place: Place, tmp_path: Path, cuts: int
) -> None:
    chance, lost = random.Random(cuts), 0  # noqa: S311  repeatable, not secret
    with place.open(backend=TaskBackend()) as store, Wire(place.connect) as wire:
        wanted = []
        for version in (0, 1):
            run(store, documents(version), tmp_path / "clean")
            wanted.append(stored(store))
            store.delete(where=everything)
        run(store, documents(1), tmp_path / "clean")
        for cut in range(cuts):
            with place.open(wire.port, backend=TaskBackend()) as through:
                wire.cut(chance.randint(0, 30))
                try:
                    run(through, documents(cut % 2), tmp_path / "point")
                except StoreUnavailable:  # where the store's handle does not ask again by itself
                    run(through, documents(cut % 2), tmp_path / "point")
            lost += wire.is_cut
            assert stored(store) == wanted[cut % 2]
    assert lost
