"""An audit that is killed goes on, says what an undisturbed one says, and embeds hardly anything again."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from tests.audit.poisoning import documents, every, poison
from tests.contract.ingesting import Place, elasticsearch_place, postgres_place, qdrant_place
from tests.contract.test_elasticsearch_contract import raw
from tests.faults import auditing
from tests.faults.auditing import BATCH
from tests.faults.forking import Forked

from samespace.audit.auditing import MOST_AT_ONCE
from samespace.testing.backends import V3, LyingBackend, TaskBackend

__all__ = ["raw"]  # a fixture
STORES: dict[str, Callable[[pytest.FixtureRequest], Place]] = {
    "PostgreSQL": postgres_place,
    "Qdrant local": qdrant_place,
    "Elasticsearch": elasticsearch_place,
}
FULL = [pytest.mark.soak, pytest.mark.timeout(3600)]


def begun(place: Place, folder: Path) -> Forked:
    return Forked(auditing.main, place=asdict(place), folder=str(folder))


def kill_after(process: Forked, lines: int) -> None:
    for _ in range(lines):
        assert process.said.readline(), process.last_words()
    process.end(signal.SIGKILL)
    process.last_words()


def finish(process: Forked) -> dict[str, Any]:
    code, said, errors = process.last_words()
    assert code == 0, errors
    told: dict[str, Any] = json.loads(said.splitlines()[-1])
    return told


@pytest.mark.parametrize(
    ("kind", "size", "kills"),
    [
        pytest.param("PostgreSQL", 300, 2, id="small"),
        *[pytest.param(kind, 3_000, 20, id=f"full {kind}", marks=FULL) for kind in STORES],
    ],
)
def test_a_killed_audit_goes_on_to_the_same_verdicts(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, size: int, kills: int
) -> None:
    assert 7 * kills < size / BATCH  # none is complete before it is killed
    place, rows = STORES[kind](request), documents(size)
    with place.open(TaskBackend()) as store:
        store.upsert(rows)
    poison(place, every(10, rows), LyingBackend(), slot=V3.id)
    (tmp_path / "clean").mkdir()
    undisturbed = finish(begun(place, tmp_path / "clean"))
    assert len(undisturbed["ids"]) == size // 10
    chance = random.Random(size)  # noqa: S311  repeatable, not secret
    for _ in range(kills):
        kill_after(begun(place, tmp_path), chance.randint(10, 14))  # two lines a batch
    assert finish(begun(place, tmp_path)) == undisturbed
    embedded = sum(map(int, (tmp_path / "embedded").read_text().split()))
    assert size <= embedded <= size + kills * MOST_AT_ONCE * BATCH
