"""Schedules on real stores: strangers write with the bare driver, fillers are the stores' own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import httpx
import numpy as np
from qdrant_client import QdrantClient
from tests.faults.applications import Application
from tests.faults.filling import NEW as NEW_BACKEND
from tests.faults.filling import OLD as OLD_BACKEND
from tests.migrate.memory_rows import NEW, NONE, OLD, Symbol, Symbols
from tests.strangers import Key, Row, Vectors

from samespace import QdrantStore
from samespace.documents import VersionedRow
from samespace.errors import SpaceError
from samespace.guard import SlotState
from samespace.protocols import Matrix, Vector
from samespace.testing.backends import TaskBackend

BACKENDS: Mapping[str, TaskBackend] = {OLD: OLD_BACKEND, NEW: NEW_BACKEND}
VECTORS: Mapping[Symbol, Vector] = {
    Symbol(model, text): backend.embed_documents([text])[0]
    for model, backend in BACKENDS.items()
    for text in "xyz"
}
KEYS = "abc"
PATIENCE = 60
"""Seconds that a request may take."""


class Killed(Exception):
    """Ends a fill in the middle of it."""


class Gate:
    """Lets requests through one by one, or kills who waits for it."""

    def __init__(self) -> None:
        self._arrivals: SimpleQueue[bool] = SimpleQueue()
        self._turn = threading.Semaphore(0)
        self._is_killed = False

    def enter(self) -> None:
        """Wait until it is one's turn."""
        self._arrivals.put(True)
        self._turn.acquire()
        if self._is_killed:
            raise Killed

    def leave(self) -> None:
        """Say that nobody will come any more."""
        self._arrivals.put(False)

    def has_arrived(self) -> bool:
        """Wait until somebody waits, or nobody will."""
        return self._arrivals.get(timeout=PATIENCE)

    def open(self, *, kill: bool = False) -> None:
        """Let who waits through."""
        self._is_killed = kill
        self._turn.release()


class GatedClient(QdrantClient):
    """Another client on the points of one in local mode, whose writes wait at a gate."""

    def __init__(self, shared: QdrantClient, gate: Gate) -> None:
        super().__init__(":memory:")
        self._client, self._gate = shared._client, gate

    def close(self, *_: Any, **__: Any) -> None:
        """The points are not this one's."""

    def set_payload(self, *arguments: Any, **options: Any) -> Any:
        self._gate.enter()
        return super().set_payload(*arguments, **options)

    def delete_vectors(self, *arguments: Any, **options: Any) -> Any:
        self._gate.enter()
        return super().delete_vectors(*arguments, **options)

    def update_vectors(self, *arguments: Any, **options: Any) -> Any:
        self._gate.enter()
        return super().update_vectors(*arguments, **options)

    def batch_update_points(self, *arguments: Any, **options: Any) -> Any:
        self._gate.enter()
        return super().batch_update_points(*arguments, **options)


READS = ("/scroll", "/count")


def gated_client(url: str, gate: Gate) -> QdrantClient:
    """A client of a server, whose writes wait at a gate."""
    client = QdrantClient(url, check_compatibility=False)

    def wait(request: httpx.Request, send: Callable[[httpx.Request], httpx.Response]) -> Any:
        if request.method != "GET" and not request.url.path.endswith(READS):
            gate.enter()
        return send(request)

    client.http.client.add_middleware(wait)
    return client


class GatedFill:
    """A fill of several requests, of which each waits for its turn."""

    def __init__(self, gate: Gate, fill: Callable[[], object]) -> None:
        self._gate, self._fault = gate, list[Exception]()
        self._thread = threading.Thread(target=self._run, args=(fill,))
        self._thread.start()
        self._waits = gate.has_arrived()

    def advance(self) -> GatedFill | None:
        """Let the next request through; None once there is no other."""
        if self._waits:
            self._gate.open()
            self._waits = self._gate.has_arrived()
        if self._waits:
            return self
        self._thread.join()
        for fault in self._fault:
            raise fault
        return None

    def kill(self) -> None:
        """Let it die where it is."""
        if self._waits:
            self._gate.open(kill=True)
        self._thread.join()

    def _run(self, fill: Callable[[], object]) -> None:
        try:
            fill()
        except Killed:
            pass
        except Exception as fault:  # noqa: BLE001  raised where it is waited for
            self._fault.append(fault)
        finally:
            self._gate.leave()


class WholeFill:
    """A fill that the server does at once."""

    def __init__(self, fill: Callable[[], object]) -> None:
        self._fill = fill

    def advance(self) -> None:
        """Do it."""
        self._fill()

    def kill(self) -> None:
        """It has not begun."""


@dataclass
class Place:
    """An application's collection, and clients of it whose requests wait, where a fill takes several.

    ``dropping`` are options for the handle that drops a slot.
    """

    application: Application
    gated: Callable[[Gate], QdrantClient] | None = None
    dropping: Mapping[str, Any] = field(default_factory=dict)


class StoredRows:
    """:class:`~tests.migrate.schedules.Rows` in a real store."""

    def __init__(self, place: Place) -> None:
        self.application, self.place = place.application, place
        self.application.add_slot()
        self.stranger: Any = self.application.stranger()
        self.store: Any = self.application.open(space=OLD_BACKEND.space)
        self.slots = {OLD: self.application.slot == OLD_BACKEND.space.id, NEW: True}
        self._names = {OLD: self.application.slot, NEW: NEW_BACKEND.space.id}
        self._keys = {key: self.application.as_key(number) for number, key in enumerate(KEYS)}
        self._called: dict[Key, str] = {key: name for name, key in self._keys.items()}
        self._answers: dict[str, Any] = {}

    def close(self) -> None:
        """Give back the connections."""
        self.store.close()
        self.stranger.close()

    @property
    def empties(self) -> bool:
        """A table that others made is theirs again once no slot of ours is left."""
        return self.application.empties and any(self.slots.values())

    # What strangers do

    def put(self, key: str, text: str, note: int, vectors: Symbols) -> None:
        self._answers.clear()
        self.stranger.put(self._keys[key], self._fields(text, note), self._vectors(vectors))

    def change(
        self, key: str, *, text: str | None = None, note: int | None = None, vectors: Symbols = NONE
    ) -> None:
        self._answers.clear()
        fields = self._fields(text, note)
        self.stranger.change(self._keys[key], fields, self._vectors(vectors))

    def delete(self, key: str) -> None:
        self._answers.clear()
        self.stranger.delete(self._keys[key])

    def _fields(self, text: str | None, note: int | None) -> dict[str, Any]:
        named = {self.application.text: text, self.application.metadata: note and {"note": note}}
        return {name: value for name, value in named.items() if value is not None}

    def _vectors(self, vectors: Symbols) -> Vectors:
        return {self._names[slot]: VECTORS[symbol] for slot, symbol in vectors.items()}

    # Slots

    def add_slot(self, slot: str) -> None:
        self._answers.clear()
        self.store.add_slot(BACKENDS[slot].space)
        self.stranger.close()
        self.stranger = self.application.stranger()
        self.slots[slot] = True

    def open_slot(self, slot: str) -> None:
        self.store.mark(BACKENDS[slot].space, SlotState.READY)

    def drop_slot(self, slot: str) -> None:
        self._answers.clear()
        (other,) = self.slots.keys() - {slot}
        space = BACKENDS[other].space
        with self.application.open(space=space, **self.place.dropping) as dropping:
            dropping.drop_slot(BACKENDS[slot].space)
        self.close()
        self.store = self.application.open(space=space)
        # A prepared SELECT * does not outlive a column.
        self.stranger = self.application.stranger()
        del self.slots[slot]

    # Reading

    def pending(self, slot: str) -> list[VersionedRow]:
        rows, cursor = self.store.pending(BACKENDS[slot].space, limit=100)
        assert cursor is None
        return list(rows)

    def stale(self, slot: str) -> list[VersionedRow]:
        rows, cursor = self.store.stale(BACKENDS[slot].space, limit=100)
        assert cursor is None
        return list(rows)

    def fresh(self, slot: str) -> dict[str, Symbol]:
        to_do = self._known(slot, lambda: (*self.pending(slot), *self.stale(slot)))
        others = {KEYS[int(row.document.id)] for row in to_do}
        return {key: found for key, found in self.vectors(slot).items() if key not in others}

    def texts(self) -> dict[str, tuple[str, int]]:
        text, note = self.application.text, self.application.metadata
        return {key: (fields[text], fields[note]["note"]) for key, (fields, _) in self._rows()}

    def vectors(self, slot: str) -> dict[str, Symbol]:
        name = self._names[slot]
        return {key: _symbol(found[name]) for key, (_, found) in self._rows() if name in found}

    def _rows(self) -> list[tuple[str, Row]]:
        names = [self._names[slot] for slot in self.slots]
        rows = self._known("rows", lambda: self.stranger.rows(names))
        return [(self._called[key], row) for key, row in rows.items()]

    def _known(self, what: str, ask: Callable[[], Any]) -> Any:
        """What was answered since the last change; checks ask often."""
        if what not in self._answers:
            self._answers[what] = ask()
        return self._answers[what]

    # Filling

    def begin(self, slot: str, rows: Sequence[VersionedRow]) -> GatedFill | WholeFill:
        backend = BACKENDS[slot]
        vectors = backend.embed_documents([row.document.embedded_text for row in rows])
        if self.place.gated is None:
            return WholeFill(lambda: _fill(self.store, backend, rows, vectors))
        gate = Gate()
        client = self.place.gated(gate)

        def fill() -> None:
            collection = self.application.options["collection"]
            with QdrantStore(client, collection=collection, space=backend.space) as store:
                _fill(store, backend, rows, vectors)
            client.close()

        return GatedFill(gate, fill)

    def advance(self, attempt: Any) -> Any:
        self._answers.clear()
        return attempt.advance()


def _fill(store: Any, backend: TaskBackend, rows: Sequence[VersionedRow], vectors: Matrix) -> None:
    with suppress(SpaceError):  # the slot is gone
        store.fill(backend.space, rows, vectors)


def _symbol(vector: Vector) -> Symbol:
    for symbol, known in VECTORS.items():
        if np.allclose(vector, known, atol=1e-5):
            return symbol
    return Symbol("nobody's", "?")
