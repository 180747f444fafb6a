"""Every field of a recorded space, right and wrong in every way, against every use of a handle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from samespace import Document, VectorStore
from samespace.errors import SpaceMismatch, SpaceUnknown
from samespace.guard import FORMAT
from samespace.testing.backends import V3, TaskBackend
from samespace.testing.corpus import documents
from samespace.testing.harness import StoreHarness

ROWS = documents(4)
DIFFERENT: dict[str, Any] = {
    "model": "another-model",
    "dimensions": 32,
    "task": "text-matching",
    "normalized": False,
    "variant": "fine-tuned",
}
CORRUPT: dict[str, list[Any]] = {
    "model": [None, 7, "", ["jina-embeddings-v3"]],
    "dimensions": [None, 0, -1, 64.5, "64", True],
    "task": [7, "", "retrieval.query", ["retrieval.passage"]],
    "normalized": [None, 1, "true"],
    "variant": [None, 7, {}],
}
USES: dict[str, Callable[[VectorStore], object]] = {
    "open": lambda store: store.info(),
    "write": lambda store: store.upsert([Document(ROWS[0].id, "text")]),
    "query": lambda store: store.search("a garden"),
    "scan": lambda store: list(store.scan()),
}
Record = dict[str, Any]
Case = tuple[str, Record, type[Exception] | None]


def spoiled(record: Record, field: str) -> Iterator[Case]:
    """The record with one field of its space equal, different, missing, corrupt and newer."""

    def having(**changes: Any) -> Record:
        changed = deepcopy(record)
        slot = changed["slots"][0]
        slot["space"] |= changes
        if slot["space"].get("dimensions") != V3.dimensions:
            slot["canary"] = None  # of the other size
        return changed

    yield "equal", having(), None
    yield "different", having(**{field: DIFFERENT[field]}), SpaceMismatch
    missing = having()
    del missing["slots"][0]["space"][field]
    yield "missing", missing, SpaceUnknown
    for value in CORRUPT[field]:
        yield f"corrupt {value!r}", having(**{field: value}), SpaceUnknown
    yield "newer field", having(**{f"{field}_2": DIFFERENT[field]}), SpaceUnknown
    yield "newer format", {**having(), "format": FORMAT + 1}, SpaceUnknown


@pytest.fixture(params=["own", "adopted"])
def collection(harness: StoreHarness, request: pytest.FixtureRequest) -> str:
    """A collection of :data:`V3` with a record."""
    if request.param == "own":
        with harness.open("matrix", backend=TaskBackend()) as store:
            store.upsert(ROWS)
        return "matrix"
    vectors = TaskBackend().embed_documents([row.text for row in ROWS])
    numbered = [replace(row, id=str(number)) for number, row in enumerate(ROWS)]
    name, layout = harness.make_foreign(numbered, vectors)
    with harness.open(name, backend=TaskBackend(), layout=layout) as store:
        store.adopt()
    return name


def test_every_mismatch_is_refused_and_nothing_else(harness: StoreHarness, collection: str) -> None:
    record = harness.get_record(collection)
    rows = harness.dump(collection)
    wrong = []
    for field in DIFFERENT:
        for case, spoilt, expected in spoiled(record, field):
            harness.set_record(collection, spoilt)
            with harness.open(collection, backend=TaskBackend()) as store:
                for use in [use for use in USES if expected is not None or use != "write"]:
                    found = outcome(USES[use], store)
                    if found is not expected:
                        wrong.append(f"{field} {case}, {use}: {found}")
            assert harness.get_record(collection) == spoilt
    harness.set_record(collection, record)
    assert wrong == []
    assert harness.dump(collection) == rows
    with harness.open(collection, backend=TaskBackend()) as store:
        document = next(iter(store.scan()))
        assert store.upsert([document]).written == 1


def outcome(use: Callable[[VectorStore], object], store: VectorStore) -> type[Exception] | None:
    try:
        use(store)
    except Exception as error:  # noqa: BLE001  the outcome is what the test judges
        return type(error) if not isinstance(error, SpaceUnknown) else SpaceUnknown
    return None
