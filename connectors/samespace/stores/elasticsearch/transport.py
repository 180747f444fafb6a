# Generated from transport_async.py by tools/generate_sync.py; change that file, not this one.
"""Requests to Elasticsearch: sent again where that may help, their faults translated."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

import elastic_transport
import stamina
from elasticsearch import ApiError, Elasticsearch, UnsupportedProductError

from samespace.errors import InvalidInput, StoreRejected, StoreUnavailable, excerpt
from samespace.stores.elasticsearch import dsl
from samespace.stores.elasticsearch.dsl import Operation, Version
from samespace.stores.elasticsearch.faults import (
    BUSY,
    CONFLICT,
    Fault,
    RequestFailed,
    TooLarge,
    answered,
    fault_of,
    of_row,
)

ATTEMPTS: Final = 8
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 10.0
SEARCHES: Final = 100
"""Searches that are sent together."""
_SCHEMES: Final = {
    "http": ("http", 9200),
    "https": ("https", 443),
    "elasticsearch": ("http", 9200),
    "elasticsearch+https": ("https", 9200),
}
_OTHER_LOOP: Final = "this handle belongs to another event loop; open one in each"
_UNREADABLE: Final = (
    "the address cannot be read; write http://host:9200, https://host or elasticsearch://host, with "
    "special characters in a password percent-encoded"
)
_ITEMS: Final = (
    "errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by"
)
_OF_CLIENT: Final = (elastic_transport.TransportError, ApiError, UnsupportedProductError)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one operation of a bulk request.

    ``doubtful``: an earlier attempt may have done it without our hearing of it.
    """

    status: int
    error: Mapping[str, Any]
    doubtful: bool = False

    @property
    def done(self) -> bool:
        """Whether the operation was carried out."""
        return self.status < 300

    @property
    def conflicts(self) -> bool:
        """Whether the document is there already, or no longer what was read."""
        return self.status == CONFLICT

    @property
    def misses(self) -> bool:
        """Whether there is no such document."""
        return self.status == 404 and not self.is_gone

    @property
    def is_gone(self) -> bool:
        """Whether there is no such index or alias."""
        return self.error.get("type") == "index_not_found_exception"


IN_THE_WAY: Final = Outcome(CONFLICT, {})
"""Of a row that was seen to be there."""


class Access:
    """Address and credentials of a server; shown nowhere."""

    __slots__ = ("options",)

    def __init__(
        self,
        address: str | None,
        *,
        api_key: str | tuple[str, str] | None,
        basic_auth: str | tuple[str, str] | None,
        ca_certs: str | None,
        cloud_id: str | None,
    ) -> None:
        if (address is None) == (cloud_id is None):
            raise InvalidInput("pass the server's address, or cloud_id=, and not both")
        given = {
            "api_key": api_key,
            "basic_auth": basic_auth,
            "ca_certs": ca_certs,
            "cloud_id": cloud_id,
        }
        self.options: dict[str, Any] = {name: v for name, v in given.items() if v is not None}
        if address is not None:
            self.options = {**_parsed(address), **self.options}
        if "api_key" in self.options and "basic_auth" in self.options:
            raise InvalidInput("pass api_key= or a user with a password, not both")

    def __repr__(self) -> str:
        return "Access(…)"


class Transport:
    """Sends requests through the official client, whose own retries are off."""

    def __init__(self, source: Access | Elasticsearch, *, timeout: float) -> None:
        self._access = source if isinstance(source, Access) else None
        self._given = source if not isinstance(source, Access) else None
        self._timeout = timeout
        self._clients: dict[int, Elasticsearch] = {}
        self._version: Version | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    def close(self) -> None:
        """Close what is ours; a client that was passed stays open."""
        self._closed = True
        # A fork must not close its parent's connections.
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()

    def version(self) -> Version:
        """The server's version; asked for once."""
        if self._version is None:
            self._version = _numbers(self._told_version())
            if self._version < dsl.OLDEST:
                shown = ".".join(map(str, self._version))
                raise StoreRejected(
                    f"Elasticsearch {shown} is too old: 8.15 or newer is needed for what this store asks"
                )
        return self._version

    def _told_version(self) -> str:
        try:
            return str(self.ask("GET", "/")["version"]["number"])
        except StoreRejected:  # a node without its front page
            path = "/_nodes/_local?filter_path=nodes.*.version"
            nodes = self.ask("GET", path)["nodes"]
            return min(str(node["version"]) for node in nodes.values())

    def ask(self, method: str, path: str, body: object = None, *, lines: bool = False) -> Any:
        """The answer to a request whose repetition does no harm, as JSON.

        ``body`` is bytes (``lines`` of JSON) or JSON-ready.
        """
        data = body if body is None or isinstance(body, bytes) else dsl.encoded(body)
        end = time.monotonic() + self._timeout
        try:
            for attempt in self._attempts():
                with attempt:
                    return self._exchange(method, path, data, lines=lines, end=end)
        except RequestFailed as failed:
            fault = failed.fault
        else:
            raise AssertionError("stamina ends with an answer or an exception")
        raise fault.error

    def _attempts(self) -> Any:
        return stamina.retry_context(
            on=_may_be_repeated,
            attempts=ATTEMPTS,
            timeout=self._timeout,
            wait_initial=FIRST_PAUSE,
            wait_max=LONGEST_PAUSE,
            wait_jitter=FIRST_PAUSE,
        )

    def _exchange(
        self, method: str, path: str, data: bytes | None, *, lines: bool, end: float
    ) -> Any:
        """One request and its answer; :class:`RequestFailed` for anything else.

        The client's exception is no cause of ours: its frames hold the request's headers.
        """
        kind = "application/x-ndjson" if lines else "application/json"
        headers = {"accept": "application/json"}
        headers |= {"content-type": kind} if data is not None else {}
        left = max(0.05, end - time.monotonic())
        fault: Fault
        try:
            client = self._client().options(
                request_timeout=left, max_retries=0, retry_on_timeout=False
            )
            answer = client.perform_request(method, path, headers=headers, body=data)
        except _OF_CLIENT as error:
            fault = fault_of(error)
        else:
            return answer.body
        raise RequestFailed(fault)

    def _client(self) -> Elasticsearch:
        """The client that was passed, or this process's own."""
        if self._closed:
            raise StoreUnavailable("this store is closed; open another one")
        if self._given is not None:
            return self._given
        assert self._access is not None  # noqa: S101  the one or the other was passed
        process = os.getpid()
        if process not in self._clients:
            made = Elasticsearch(**self._access.options)
            return self._clients.setdefault(process, made)
        return self._clients[process]

    def searches(
        self, through: str, bodies: Sequence[Mapping[str, Any]]
    ) -> list[list[Mapping[str, Any]]]:
        """The hits of several searches, sent together."""
        found: list[list[Mapping[str, Any]]] = []
        header = {"allow_partial_search_results": False}
        for start in range(0, len(bodies), SEARCHES):
            part = bodies[start : start + SEARCHES]
            data = dsl.lines(line for body in part for line in (header, body))
            answers = self.ask("POST", f"/{through}/_msearch", data, lines=True)
            for answer in answers["responses"]:
                if "error" in answer:
                    raise answered(answer.get("status", 500), answer).error
                found.append(answer["hits"]["hits"])
        return found

    def bulk(self, path: str, operations: Iterable[Operation]) -> list[Outcome]:
        """What became of each operation, in order; what a busy server put off is sent again."""
        outcomes: list[Outcome] = []
        for chunk in dsl.chunks(operations):
            outcomes += self._chunk(path, chunk)
        return outcomes

    def _chunk(self, path: str, chunk: Sequence[Operation]) -> list[Outcome]:
        try:
            return self._chunk_whole(path, chunk)
        except TooLarge:
            if len(chunk) == 1:
                return [
                    Outcome(413, {"type": "too_large", "reason": "longer than the server reads"})
                ]
            middle = len(chunk) // 2
            first = self._chunk(path, chunk[:middle])
            return first + self._chunk(path, chunk[middle:])

    def _chunk_whole(self, path: str, chunk: Sequence[Operation]) -> list[Outcome]:
        batch = _Batch(chunk)
        target = f"{path}{'&' if '?' in path else '?'}filter_path={_ITEMS}"
        end = time.monotonic() + self._timeout
        fault: Fault | None = None
        try:
            for attempt in self._attempts():
                with attempt:
                    self._try(target, batch, end)
        except RequestFailed as failed:
            fault = failed.fault
        if fault is not None and not batch.is_answered:
            raise fault.error
        return [batch.outcomes[place] for place in range(len(chunk))]

    def _try(self, target: str, batch: _Batch, end: float) -> None:
        """Send what is left of a batch; :class:`RequestFailed` if something is left again."""
        try:
            answer = self._exchange("POST", target, batch.body(), lines=True, end=end)
        except RequestFailed as failed:
            batch.doubtful |= failed.fault.doubtful
            raise
        batch.take(answer["items"])
        if batch.left:
            busy = batch.outcomes[batch.left[0]]
            raise RequestFailed(Fault(of_row(busy.status, busy.error), again=True))


class _Batch:
    """Operations on their way: what became of each, and which are to be sent again."""

    __slots__ = ("_operations", "doubtful", "left", "outcomes")

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._operations = operations
        self.left = list(range(len(operations)))
        self.outcomes: dict[int, Outcome] = {}
        self.doubtful = False

    @property
    def is_answered(self) -> bool:
        """Whether the server has said something of each."""
        return len(self.outcomes) == len(self._operations)

    def body(self) -> bytes:
        """The request for what is left."""
        parts = (self._operations[place] for place in self.left)
        return b"".join(line for part in parts for line in (part.action, part.body))

    def take(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Note the answer to what was left; what the server was too busy for is left again."""
        for place, item in zip(self.left, items, strict=True):
            self.outcomes[place] = _outcome(item, doubtful=self.doubtful)
        self.left = [place for place in self.left if self.outcomes[place].status in BUSY]


def _outcome(item: Mapping[str, Any], *, doubtful: bool) -> Outcome:
    (answer,) = item.values()
    return Outcome(answer["status"], answer.get("error", {}), doubtful)


def _may_be_repeated(error: Exception) -> bool:
    return isinstance(error, RequestFailed) and error.fault.again


def _numbers(version: str) -> Version:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _parsed(address: str) -> dict[str, Any]:
    """An address for the client, its user and password apart; the text is never quoted."""
    parts, port = _split(address)
    if parts is None or not parts.hostname or parts.scheme not in _SCHEMES:
        raise InvalidInput(_UNREADABLE)
    scheme, usual = _SCHEMES[parts.scheme]
    host, port = parts.hostname, port or usual
    shown = f"[{host}]" if ":" in host else host
    found: dict[str, Any] = {"hosts": [f"{scheme}://{shown}:{port}{parts.path.rstrip('/')}"]}
    if parts.username is not None:
        found["basic_auth"] = (unquote(parts.username), unquote(parts.password or ""))
    return found


def _split(address: str) -> tuple[SplitResult | None, int | None]:
    """An address in its parts, and its port; none of it is quoted where that fails."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return None, None
    return parts, port


def access(
    source: object,
    *,
    api_key: str | tuple[str, str] | None,
    basic_auth: str | tuple[str, str] | None,
    ca_certs: str | None,
    cloud_id: str | None,
) -> Access | Elasticsearch:
    """What a transport is made of; :class:`InvalidInput` for anything that is no address or client."""
    if source is None or isinstance(source, str):
        return Access(
            source, api_key=api_key, basic_auth=basic_auth, ca_certs=ca_certs, cloud_id=cloud_id
        )
    if not isinstance(source, Elasticsearch):
        raise InvalidInput(
            f"cannot connect through {excerpt(type(source).__name__)}; pass an http:// or https:// URL, "
            "or a client: Elasticsearch for a sync store, Elasticsearch for an async one"
        )
    if any((api_key, basic_auth, ca_certs, cloud_id)):
        raise InvalidInput("a client has its credentials already; leave api_key= and the like out")
    return source
