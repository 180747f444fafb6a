# Generated from transport_async.py by tools/generate_sync.py; change that file, not this one.
"""Requests to Qdrant: over REST, over gRPC or in local mode, each repeated while that may help."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import stamina
from qdrant_client import QdrantClient, grpc, models

from samespace.errors import InvalidInput, SamespaceError, StoreUnavailable, excerpt
from samespace.stores.qdrant import packing
from samespace.stores.qdrant.faults import (
    DRIVER,
    Behind,
    Busy,
    Missing,
    NoVector,
    behind,
    translate,
)
from samespace.stores.qdrant.requests import WHOLE, Point, PointId, Read, Search
from samespace.stores.running import T, in_thread

Kind = Literal["rest", "grpc", "local"]
MEMORY: Final = ":memory:"
GRPC_PORT: Final = 6334
_ATTEMPTS: Final = 6
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_FORMS: Final = "write qdrant://host:6333 or qdrant+https://host, http:// or https://"
_SCHEMES: Final = {"http": "http", "https": "https", "qdrant": "http", "qdrant+https": "https"}
_OTHER_LOOP: Final = "this handle belongs to another event loop; open one in each"
_JSON: Final = {"Content-Type": "application/json"}
_HEADER: Final = re.compile("[!-~]*")
_locks: WeakKeyDictionary[QdrantClient, threading.Lock] = WeakKeyDictionary()
"""Of each client in local mode, which is not made for several threads."""


class Secret:
    """A key that no representation shows."""

    __slots__ = ("_value",)

    def __init__(self, value: str | None) -> None:
        self._value = value

    def revealed(self) -> str | None:
        """The key itself."""
        return self._value

    def check(self) -> None:
        """:class:`InvalidInput` for a key that no header can hold."""
        if self._value is None:
            return
        if not isinstance(self._value, str) or not _HEADER.fullmatch(self._value):
            raise InvalidInput(
                "the API key has a blank, a line end or a character beyond ASCII, or is no string; "
                "copy it again"
            )


class Transport:
    """One client of ours, made on first use, or the caller's own, which stays open.

    ``source`` is a URL, a folder, ``":memory:"`` or a client. ``timeout`` is in seconds, for each
    attempt. What failed without an answer, with 429 or with 5xx is tried again up to 6 times in
    all, after a pause that the server may name: every request sent here can be repeated.
    """

    def __init__(
        self,
        source: str | QdrantClient,
        *,
        grpc_port: int | None,
        api_key: Secret,
        timeout: float,
    ) -> None:
        self._client: QdrantClient | None = None
        self._options: dict[str, Any] = {}
        self._api_key = api_key
        self._opening = threading.Lock()
        self._owned = isinstance(source, str)
        api_key.check()
        _check_numbers(timeout, grpc_port)
        if isinstance(source, str):
            self._options = _options(source, grpc_port, timeout)
        elif isinstance(source, QdrantClient):
            if grpc_port is not None or api_key.revealed() is not None:
                raise InvalidInput(
                    "a client has its port and key already; leave grpc_port= and api_key= out"
                )
            self._client = source
        else:
            raise InvalidInput(
                f"cannot connect through {excerpt(type(source).__name__)}; pass a URL, a folder, "
                f'":memory:", or a client of the kind {QdrantClient.__name__}'
            )
        self.kind: Kind = _kind(
            self._options if self._client is None else self._client.init_options
        )
        self._timeout = timeout
        self._version: tuple[int, ...] | None = None
        self._closed = False

    def close(self) -> None:
        """Close the client if it is ours."""
        self._closed = True
        if self._owned and self._client is not None:
            client, self._client = self._client, None
            client.close()

    def is_made(self) -> bool:
        """Whether there is what to read; a folder of local mode is made by the first to open it."""
        folder = self._options.get("path")
        if self._client is not None or folder is None:
            return True
        return in_thread(lambda: _is_made(folder))

    def ask(self, request: Callable[[Any], T], *, reading: str | None = None) -> T:
        """What a request to the client answers, after as many attempts as may help.

        ``reading`` is the collection whose vectors it names: :class:`Behind` while one that is there
        cannot be read everywhere, though the server was told of it again.
        """
        self._check_usable()
        if self.kind == "local":
            return self._attempt(request, reading)
        try:
            return self._repeated(request, reading)
        except Behind as error:
            if reading is not None:
                self._tell_again(reading, error)
        return self._repeated(request, reading)

    def _repeated(self, request: Callable[[Any], T], reading: str | None) -> T:
        for attempt in stamina.retry_context(
            on=_pause,
            attempts=_ATTEMPTS,
            timeout=None,
            wait_initial=_FIRST_PAUSE,
            wait_max=_LONGEST_PAUSE,
            wait_jitter=_FIRST_PAUSE,
        ):
            with attempt:
                return self._attempt(request, reading)
        raise AssertionError("stamina ends with an answer or an exception")

    def _attempt(self, request: Callable[[Any], T], reading: str | None = None) -> T:
        """One attempt. The driver's exception is left behind: its request's headers hold the key."""
        fault: SamespaceError
        try:
            client = self._opened()
            if self.kind != "local":
                return request(client)
            with _locks.setdefault(client, threading.Lock()):
                return request(client)
        except SamespaceError:
            raise
        except DRIVER as error:
            fault = translate(error, local=self.kind == "local")
        if isinstance(fault, NoVector) and reading is not None:
            fault = self._explained(fault, reading)
        raise fault

    def _explained(self, fault: NoVector, collection: str) -> SamespaceError:
        """:class:`Behind` where the collection is configured with the vector."""
        name = fault.vector
        with suppress(SamespaceError):
            info = self._attempt(lambda client: client.get_collection(collection))
            vectors = info.config.params.vectors
            named = vectors if isinstance(vectors, dict) else {"": vectors}
            if name is not None and name in named:
                return behind(collection, name, named[name])
        return fault

    def _tell_again(self, collection: str, error: Behind) -> None:
        """Add a vector that there is, for segments that a rebuild has made without it; no harm otherwise.

        What has no right to do so waits for who has.
        """
        with suppress(SamespaceError):
            self._attempt(
                lambda client: client.create_vector_name(
                    collection, error.vector, error.config, wait=True
                )
            )

    def _opened(self) -> QdrantClient:
        """The client; of threads that come first together one makes it."""
        if self._client is None:
            with self._opening:
                if self._client is None:
                    self._client = self._made()
        return self._client

    def _made(self) -> QdrantClient:
        if self.kind == "local":
            return QdrantClient(**self._options)
        return QdrantClient(**self._options, api_key=self._api_key.revealed())

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreUnavailable("this store is closed; open another one")

    def version(self) -> tuple[int, ...]:
        """The server's version; local mode has what the newest one has."""
        if self.kind == "local":
            return (999,)
        if self._version is None:
            found = self.ask(lambda client: client.info()).version
            self._version = tuple(int(part) for part in re.findall(r"\d+", found)[:3])
        return self._version

    # Points

    def upserting(
        self,
        collection: str,
        points: Iterable[Point],
        *,
        mode: models.UpdateMode | None = None,
    ) -> Callable[[], object]:
        """What sends points to the place of those with their ids; with a mode, only where it says.

        The request is made by then: the call has nothing to do but wait for the server.
        """
        if self.kind == "rest":
            body = packing.json_points(points, mode)
            return partial(self._send, "PUT", "", collection, body)
        if self.kind == "grpc":
            message = packing.message_upsert(points, mode, collection)
            return partial(self._call, "Upsert", collection, message)
        listed = packing.local_points(points)
        return partial(self.ask, lambda client: client.upsert(collection, listed, update_mode=mode))

    def update_vectors(
        self, collection: str, points: Sequence[Point], condition: models.Filter
    ) -> None:
        """Give points the vectors, where a condition holds; of points that are gone nothing is said."""
        with suppress(Missing):  # the others have theirs
            self._update_vectors(collection, points, condition)

    def _update_vectors(
        self, collection: str, points: Sequence[Point], condition: models.Filter
    ) -> None:
        if self.kind == "rest":
            body = packing.json_vectors(points, condition)
            self._send("PUT", "/vectors", collection, body)
        elif self.kind == "grpc":
            message = grpc.UpdatePointVectors(
                collection_name=collection,
                wait=True,
                points=packing.message_vectors(points),
                update_filter=packing.message_filter(condition),
            )
            self._call("UpdateVectors", collection, message)
        else:
            vectors = packing.local_vectors(points)
            self.ask(
                lambda client: client.update_vectors(collection, vectors, update_filter=condition)
            )

    def operate(self, collection: str, operations: Sequence[models.SetPayloadOperation]) -> None:
        """Change payloads, one after another."""
        listed = list(operations)
        self.ask(lambda client: client.batch_update_points(collection, listed, wait=True))

    def index_payload(self, collection: str, key: str, kind: models.PayloadSchemaType) -> None:
        """Index a key of the payload; doing it again is no error."""
        self.ask(
            lambda client: client.create_payload_index(
                collection, key, field_schema=kind, wait=True
            )
        )

    def query(self, collection: str, searches: Sequence[Search]) -> list[list[Point]]:
        """The nearest points to each query, in one request."""
        if self.kind == "grpc":
            message = grpc.QueryBatchPoints(
                collection_name=collection,
                query_points=packing.message_searches(searches, collection),
            )
            found = self._call("QueryBatch", collection, message)
            return [[packing.point_of_message(hit) for hit in one.result] for one in found.result]
        if self.kind == "rest":
            body = packing.json_searches(searches)
            answers = self._send("POST", "/query/batch", collection, body)
            return [[packing.point_of_json(hit) for hit in one["points"]] for one in answers]
        requests = packing.local_searches(searches)
        answers = self.ask(lambda client: client.query_batch_points(collection, requests))
        return [[packing.point_of(hit) for hit in one.points] for one in answers]

    def retrieve(self, collection: str, ids: Sequence[PointId], read: Read = WHOLE) -> list[Point]:
        """The points of these ids that are there, in any order."""
        if not ids:
            return []
        if self.kind == "grpc":
            message = grpc.GetPoints(
                collection_name=collection,
                ids=packing.message_ids(ids),
                with_payload=packing.message_keys(read.keys),
                with_vectors=packing.message_selector(read.vectors),
            )
            found = self._call("Get", collection, message)
            return [packing.point_of_message(point) for point in found.result]
        if self.kind == "rest":
            answer = self._send("POST", "", collection, packing.json_ids(ids, read))
            return [packing.point_of_json(point) for point in answer]
        wanted = _wanted(read)
        records = self.ask(lambda client: client.retrieve(collection, list(ids), **wanted))
        return [packing.point_of(record) for record in records]

    def scroll(
        self,
        collection: str,
        condition: models.Filter,
        *,
        limit: int,
        start: PointId | None = None,
        read: Read = WHOLE,
    ) -> tuple[list[Point], PointId | None]:
        """The next points that pass, in the order of ids from ``start`` on, and where to go on."""
        if self.kind == "grpc":
            message = grpc.ScrollPoints(
                collection_name=collection,
                filter=packing.message_filter(condition),
                limit=limit,
                offset=None if start is None else packing.message_ids([start])[0],
                with_payload=packing.message_keys(read.keys),
                with_vectors=packing.message_selector(read.vectors),
            )
            found = self._call("Scroll", collection, message)
            following = found.next_page_offset if found.HasField("next_page_offset") else None
            points = [packing.point_of_message(point) for point in found.result]
            return points, None if following is None else packing.id_of_message(following)
        if self.kind == "rest":
            body = packing.json_scroll(condition, limit, start, read)
            answer = self._send("POST", "/scroll", collection, body)
            points = [packing.point_of_json(point) for point in answer["points"]]
            return points, answer.get("next_page_offset")
        wanted = _wanted(read)
        records, following = self.ask(
            lambda client: client.scroll(collection, condition, limit, offset=start, **wanted)
        )
        return [packing.point_of(record) for record in records], following

    def _send(self, method: str, path: str, collection: str, body: bytes) -> Any:
        """What the server answers over REST to a body that is JSON already."""
        answer: dict[str, Any] = self.ask(
            lambda client: client.http.client.request(
                type_=dict,
                method=method,
                url="/collections/{name}/points" + path,
                path_params={"name": collection},
                params={"wait": "true"} if method == "PUT" else {},
                headers=_JSON,
                content=body,
            ),
            reading=collection,
        )
        return answer["result"]

    def _call(self, method: str, collection: str, message: Any) -> Any:
        """What the server answers over gRPC."""
        return self.ask(
            lambda client: getattr(client.grpc_points, method)(message, timeout=self._timeout),
            reading=collection,
        )


def _check_numbers(timeout: float, grpc_port: int | None) -> None:
    if type(timeout) not in {int, float} or not 0 < timeout < math.inf:
        raise InvalidInput(f"timeout is {excerpt(timeout)}; pass seconds, more than 0")
    if grpc_port is not None and not (type(grpc_port) is int and 0 < grpc_port < 2**16):
        raise InvalidInput(f"grpc_port is {excerpt(grpc_port)}; pass a whole number to 65535")


def _wanted(read: Read) -> dict[str, Any]:
    """What the client's methods call it."""
    keys = True if read.keys is None else list(read.keys)
    return {"with_payload": keys, "with_vectors": list(read.vectors) or False}


def _pause(error: Exception) -> bool | float:
    """Whether to try again: no, yes, or yes after so many seconds."""
    if isinstance(error, Busy) and error.wait is not None:
        return error.wait
    return isinstance(error, StoreUnavailable)


def _options(source: str, grpc_port: int | None, timeout: float) -> dict[str, Any]:
    """What the client is made with; :class:`InvalidInput` for an address that is none."""
    if source == MEMORY:
        return {"location": MEMORY}
    scheme, separator, _ = source.partition("://")
    if not separator:
        return {"path": source, "force_disable_check_same_thread": True}
    if scheme not in _SCHEMES:
        raise InvalidInput(
            f"no Qdrant is known at {excerpt(scheme + '://')}; {_FORMS}, or name a folder, or "
            '":memory:"'
        )
    try:
        address = urlsplit(source)
        port = address.port
    except ValueError:
        address, port = None, None
    if address is None or not address.hostname:
        raise InvalidInput(f"the address cannot be read; {_FORMS}")
    if address.username or address.password or address.query:
        raise InvalidInput("a URL of Qdrant has no user, password or query; pass api_key=")
    host = f"[{address.hostname}]" if ":" in address.hostname else address.hostname
    known_port = port or (443 if _SCHEMES[scheme] == "https" else 6333)
    return {
        "url": f"{_SCHEMES[scheme]}://{host}:{known_port}{address.path}",
        "timeout": timeout,
        "prefer_grpc": grpc_port is not None,
        "grpc_port": grpc_port or GRPC_PORT,
        "check_compatibility": False,
    }


def _is_made(folder: str) -> bool:
    """Whether local mode was here; :class:`StoreUnavailable` where it cannot be."""
    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise StoreUnavailable(
            f"{excerpt(folder)} is no folder, which Qdrant's local mode needs; name another path"
        )
    return (place / "meta.json").exists()


def _kind(options: dict[str, Any]) -> Kind:
    if options.get("path") is not None or options.get("location") == MEMORY:
        return "local"
    return "grpc" if options.get("prefer_grpc") else "rest"
