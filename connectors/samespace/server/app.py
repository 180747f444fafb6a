"""The HTTP side: who may ask, for how much, and what is answered."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import traceback
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as Http
from starlette.responses import Response
from starlette.routing import Route

from samespace.backends.jina_api.serving import (
    PATH,
    Json,
    Refusal,
    Request,
    answered,
    error_body,
    invalid,
    model_of,
    parsed,
    requested,
    shown,
    too_long,
    unknown_model,
)
from samespace.errors import EmbeddingError, InvalidInput, TokenLimitExceeded, excerpt
from samespace.protocols import Matrix
from samespace.server.keys import Keys
from samespace.server.lanes import Computed, Job, Lane
from samespace.server.sending import Answer, Place, Places
from samespace.server.servable import HasServable

_LOG: Final = logging.getLogger("samespace.server")
MOST_ITEMS: Final = 2048
MOST_BYTES: Final = 16 * 2**20
MOST_IN_FLIGHT: Final = 64
_GONE: Final = 499
"""A status for nobody: the client has left."""
READING: Final = 60.0
"""Seconds that a body may take to arrive: a client that is cut off must not keep its place for ever."""
SMALL: Final = 64 * 2**10
"""Bytes of a body that may be a query's, however it is escaped; so many are buffered for any connection."""
_CODES: Final = {404: "RESOURCE_NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}


class Service:
    """One model and what is asked of it. Its app belongs to one event loop, and is started once."""

    def __init__(
        self,
        backend: HasServable,
        *,
        keys: Iterable[str] = (),
        most_items: int = MOST_ITEMS,
        most_bytes: int = MOST_BYTES,
        most_in_flight: int = MOST_IN_FLIGHT,
    ) -> None:
        if not isinstance(backend, HasServable):
            raise InvalidInput(
                f"{type(backend).__name__} cannot be served; pass a JinaLocalBackend"
            )
        self._servable = backend.servable
        self._keys = Keys(keys)
        self._most_items = _at_least_one(most_items, "most_items")
        self._most_bytes = _at_least_one(most_bytes, "most_bytes")
        most = _at_least_one(most_in_flight, "most_in_flight")
        self._query_places, self._other_places = Places(most), Places(most)
        self._queries = Lane(self._servable, "queries", urgent=True)
        self._others = Lane(self._servable, "batches")
        self.loaded: Future[None] = Future()
        """Done when the weights are there, or cannot be."""

    @property
    def has_keys(self) -> bool:
        """Whether it asks for one."""
        return len(self._keys) > 0

    def app(self) -> Starlette:
        """What an ASGI server runs."""
        app = Starlette(
            routes=[
                Route(PATH, self._embeddings, methods=["POST"]),
                Route("/health", self._health),
                Route("/ready", self._ready),
            ],
            exception_handlers={HTTPException: _no_such, Exception: _failed},
            lifespan=self._lifespan,
        )
        app.router.redirect_slashes = False
        return app

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        # a daemon, for which an end does not wait: weights may take minutes
        threading.Thread(target=self._load, name="samespace-load", daemon=True).start()
        try:
            yield
        finally:
            for lane in (self._queries, self._others):  # in a thread: clients may yet leave
                await asyncio.to_thread(lane.close)

    def _load(self) -> None:
        tasks = self._servable.model.tasks
        pair = ("retrieval.passage", "retrieval.query")
        try:
            self._servable.load([*pair, *(task for task in tasks if task not in pair), None])
        except Exception as error:  # noqa: BLE001  it is told to whoever asks
            self.loaded.set_exception(error)
        else:
            self.loaded.set_result(None)

    # What is answered

    async def _health(self, _http: Http) -> Response:
        return _json({"status": "alive"})

    async def _ready(self, _http: Http) -> Response:
        try:
            self._check_ready()
        except Refusal as refusal:
            return _refused(refusal)
        return _json({"status": "ready", "model": self._servable.model.name})

    async def _embeddings(self, http: Http) -> Response:
        try:
            self._keys.check(http.headers.get("authorization"))
            self._check_ready()
            with Place() as place:
                body = await self._read(http, place)
                return Answer(await self._answered(http, body, place), place.pop_all())
        except Refusal as refusal:
            return _refused(refusal)
        except ClientDisconnect:
            return Response(status_code=_GONE)

    def _check_ready(self) -> None:
        if not self.loaded.done():
            detail, again = "The model is being loaded", {"Retry-After": "1"}
        elif self.loaded.exception():
            detail, again = "The model cannot be loaded; the server's log says why", {}
        else:
            return
        raise Refusal(503, error_body("SERVICE_UNAVAILABLE", detail), again)

    async def _answered(self, http: Http, body: bytes, place: Place) -> bytes:
        """The answer's body, unless the client goes away before it; then its work ends at the next batch."""
        left = threading.Event()
        work = asyncio.create_task(self._worked(body, left, place))
        gone = asyncio.create_task(_gone(http))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ClientDisconnect
            if error := work.exception():
                raise _refusal_of(error)
            return work.result()
        finally:
            left.set()
            work.cancel()
            gone.cancel()

    async def _read(self, http: Http, place: Place) -> bytes:
        """A body, which needs a place before it is read unless it is a small one."""
        if _is_small(http):
            return await _read_in_time(http, min(SMALL, self._most_bytes))
        place.take(self._other_places)
        return await _read_in_time(http, self._most_bytes)

    async def _worked(self, body: bytes, left: threading.Event, place: Place) -> bytes:
        request = await asyncio.to_thread(self._request, body)
        job = Job(request, left)
        place.take(self._query_places if job.is_query else self._other_places)
        (self._queries if job.is_query else self._others).put(job)
        computed = await asyncio.wrap_future(job.computed)
        return await asyncio.to_thread(_encoded, request, computed)

    def _request(self, body: bytes) -> Request:
        said = parsed(body)
        if model_of(said).name != self._servable.model.name:
            raise unknown_model()
        return requested(said, most=self._most_items)


def create_app(
    backend: HasServable,
    *,
    keys: Iterable[str] = (),
    most_items: int = MOST_ITEMS,
    most_bytes: int = MOST_BYTES,
    most_in_flight: int = MOST_IN_FLIGHT,
) -> Starlette:
    """An ASGI app that embeds with a backend's model by the contract of Jina's API.

    ``POST /v1/embeddings`` takes that API's parameters for the one model that is served: every task and
    none, every size, all forms. ``GET /health`` answers while the process lives, ``GET /ready`` with 503
    until the weights are loaded, which begins when the app is started.

    With ``keys`` a request must carry one of them as its bearer token; **without any, everybody who
    reaches the app may use it**. A request may have ``most_items`` texts (else 422) and ``most_bytes``
    (else 413), and ``most_in_flight`` of them may be under way (else 429). Single short texts have a way of
    their own past whatever else is computed, and as many places of their own; small requests with the
    same task that wait at the same time are computed together.

    :class:`~samespace.errors.InvalidInput` for a backend whose model cannot be served.
    """
    service = Service(
        backend,
        keys=keys,
        most_items=most_items,
        most_bytes=most_bytes,
        most_in_flight=most_in_flight,
    )
    service.loaded.add_done_callback(_tell)
    return service.app()


def _tell(loaded: Future[None]) -> None:
    if error := loaded.exception():
        _LOG.error("the weights cannot be loaded: %s", error)


def _at_least_one(count: object, name: str) -> int:
    if type(count) is not int or count < 1:
        raise InvalidInput(f"{name} is {excerpt(count)}; pass a whole number of at least 1")
    return count


def _is_small(http: Http) -> bool:
    """Whether a body says so, and cannot be larger: in chunks it could, whatever else is said."""
    said = http.headers.get("content-length", "")
    return said.isdecimal() and int(said) <= SMALL and "transfer-encoding" not in http.headers


async def _read_in_time(http: Http, most: int) -> bytes:
    try:
        async with asyncio.timeout(READING):
            return await _read(http, most)
    except TimeoutError:
        body = error_body("REQUEST_TIMEOUT", f"The body took longer than {READING:g} s")
        raise Refusal(408, body, {"Connection": "close"}) from None


async def _read(http: Http, most: int) -> bytes:
    """The body, of which no more is read than may be used."""
    said = http.headers.get("content-length", "")
    read = bytearray()
    if not (said.isdecimal() and int(said) > most):
        async for part in http.stream():
            read += part
            if len(read) > most:
                break
        else:
            return bytes(read)
    detail = f"The body may have {most} bytes"
    raise Refusal(413, error_body("REQUEST_TOO_LARGE", detail), {"Connection": "close"})


async def _gone(http: Http) -> None:
    """Wait until the client is."""
    while (await http.receive())["type"] != "http.disconnect":
        pass


def _encoded(request: Request, computed: Computed) -> bytes:
    embeddings = _shown(_sized(request, computed.means), request.embedding_type)
    answer = answered(request, embeddings, computed.tokens)
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _shown(vectors: Matrix, embedding_type: str) -> Sequence[Any]:
    """Each vector as the request wants it; numbers as an array, since lists of them take the GIL for long."""
    if embedding_type == "float":
        return list(np.ascontiguousarray(vectors, np.float32))
    return shown(vectors, embedding_type)


def _sized(request: Request, means: Matrix) -> Matrix:
    """The first dimensions, of unit norm if that is wanted."""
    vectors = means[:, : request.dimensions]
    if request.normalized:
        with np.errstate(divide="ignore", invalid="ignore"):  # found by the check that follows
            vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(vectors).all():
        raise EmbeddingError("the model made numbers that are not finite; try another dtype")
    return vectors


# What is refused


def _refusal_of(error: BaseException) -> Refusal:
    """What a client is told of what went wrong; all of it only if it is the client's own fault."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, TokenLimitExceeded):
        return too_long(str(error))
    if isinstance(error, InvalidInput):
        return invalid("input", str(error))
    number = uuid.uuid4().hex
    said = str(error) if isinstance(error, EmbeddingError) else _place_of(error)
    _LOG.error("request %s failed: %s: %s", number, type(error).__name__, said)
    return Refusal(500, {**error_body("INTERNAL_ERROR", "It failed"), "request_id": number})


def _place_of(error: BaseException) -> str:
    """Where an error comes from; not its words, in which there may be a text."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return " > ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)


async def _no_such(_http: Http, error: Exception) -> Response:
    """For another address or method."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    detail = error.detail if isinstance(error, HTTPException) else ""
    headers = error.headers if isinstance(error, HTTPException) else None
    return _refused(Refusal(status, error_body(_CODES.get(status, "REFUSED"), detail), headers))


async def _failed(_http: Http, error: Exception) -> Response:
    return _refused(_refusal_of(error))


def _refused(refusal: Refusal) -> Response:
    return _json(refusal.body, refusal.status, refusal.headers)


def _json(body: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    said = json.dumps(body)  # which can say whatever a client has called its parameters
    return Response(said, status, headers=dict(headers or {}), media_type="application/json")
