# Generated from transport_async.py by tools/generate_sync.py; change that file, not this one.
"""Requests to Elasticsearch: sent again where that may help, their faults translated."""

from __future__ import annotations

import base64
import itertools
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import elastic_transport
import stamina
from elasticsearch import ApiError, Elasticsearch, UnsupportedProductError

from samespace.errors import InvalidInput, StoreRejected, StoreUnavailable, excerpt
from samespace.stores.elasticsearch import dsl
from samespace.stores.elasticsearch.dsl import Operation, Version
from samespace.stores.elasticsearch.faults import (
    BUSY,
    CONFLICT,
    UNSURE,
    Fault,
    Forbidden,
    RequestFailed,
    TooLarge,
    fault_of,
    of_row,
    of_searches,
)

ATTEMPTS: Final = 8
ATTEMPTS_TO_MEET: Final = 5
"""Of a server that has answered nothing yet: it is elsewhere rather than on its way back."""
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 10.0
ASSUMED: Final = "9.2"
"""What a server is taken for that does not say: vectors go as lists, and are asked for by name."""
SEARCHES: Final = 100
"""Searches that are sent together."""
_SCHEMES: Final = {
    "http": ("http", 9200),
    "https": ("https", 443),
    "elasticsearch": ("http", 9200),
    "elasticsearch+https": ("https", 443),
}
_OTHER_LOOP: Final = "this handle belongs to another event loop; open one in each"
_UNREADABLE: Final = (
    "the address cannot be read; write elasticsearch://host:9200 or "
    "elasticsearch+https://host, http:// or https://, with special characters in a password "
    "percent-encoded"
)
_REFUSED: Final = (
    "the client of Elasticsearch refuses the address or the options; check the host's name, cloud_id= "
    "and ca_certs="
)
_NO_HEADER: Final = (
    "credentials are text, or a pair of texts, and what is sent as it stands is of printable ASCII; "
    "pass api_key= and basic_auth= as they were given out, without a line's end"
)
_IN_CLIENT: Final = "a client has its credentials already; leave api_key= and the like out"
_ITEMS: Final = (
    "errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by"
)
JSON: Final = "application/json"
"""Of lines of it too, which the server allows; the client would copy ``x-ndjson`` twice."""
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
IN_MOTION: Final = Outcome(429, {"reason": "the row is changed by others all the time"})
TOO_LARGE: Final = Outcome(413, {"reason": "it is longer than http.max_content_length"})


class Access:
    """Address and credentials of a server, as the client takes them; shown nowhere."""

    __slots__ = ("options",)

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options

    def __repr__(self) -> str:
        return "Access(…)"

    def client(self) -> Elasticsearch | None:
        """A client; None if it refuses the options, since the frames of its exception hold them."""
        with suppress(TypeError, ValueError):
            return Elasticsearch(**self.options)
        return None


class Transport:
    """Sends requests through the official client, whose own retries are off."""

    def __init__(self, source: Access | Elasticsearch, *, timeout: float) -> None:
        self._access = source if isinstance(source, Access) else None
        self._given = source if not isinstance(source, Access) else None
        self._timeout = timeout
        self._clients: dict[int, Elasticsearch] = {}
        self._version: Version | None = None
        self._met = False
        self.told: str | None = None
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
        """The server's version; asked for once. ``told`` is what the server said, if it did."""
        if self._version is None:
            self.told = self._told_version()
            self._version = _numbers(self.told or ASSUMED)
            if self._version < dsl.OLDEST:
                shown = ".".join(map(str, self._version))
                raise StoreRejected(
                    f"Elasticsearch {shown} is too old: 8.15 or newer is needed for what this store asks"
                )
        return self._version

    def _told_version(self) -> str | None:
        try:
            return str(self.ask("GET", "/")["version"]["number"])
        except Forbidden:  # reading an index gives no right to look at the cluster
            return None
        except StoreRejected:  # a node without its front page
            path = "/_nodes/_local?filter_path=nodes.*.version"
            nodes = self.ask("GET", path)["nodes"]
            return min(str(node["version"]) for node in nodes.values())

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        fault_in: Callable[[Any], Fault | None] | None = None,
    ) -> Any:
        """The answer to a request whose repetition does no harm, as JSON.

        ``body`` is bytes (JSON, or lines of it) or JSON-ready. ``fault_in`` finds what went wrong
        with a part of an answer that is none as a whole.
        """
        data = body if body is None or isinstance(body, bytes) else dsl.encoded(body)
        end = time.monotonic() + self._timeout
        try:
            for attempt in self._attempts(ATTEMPTS):
                with attempt:
                    return self._exchange(method, path, data, end=end, fault_in=fault_in)
        except RequestFailed as failed:
            fault = failed.fault
        else:
            raise AssertionError("stamina ends with an answer or an exception")
        raise fault.error

    def _attempts(self, most: int | None) -> Any:
        return stamina.retry_context(
            on=self._repeats(),
            attempts=most,
            timeout=self._timeout,
            wait_initial=FIRST_PAUSE,
            wait_max=LONGEST_PAUSE,
            wait_jitter=FIRST_PAUSE,
        )

    def _repeats(self) -> Callable[[Exception], bool]:
        """Whether a request is sent again after an error, asked once for each of its attempts."""
        tried = itertools.count(1)

        def repeats(error: Exception) -> bool:
            attempts = next(tried)
            may = isinstance(error, RequestFailed) and error.fault.again
            return may and (self._met or attempts < ATTEMPTS_TO_MEET)

        return repeats

    def _exchange(
        self,
        method: str,
        path: str,
        data: bytes | None,
        *,
        end: float,
        fault_in: Callable[[Any], Fault | None] | None = None,
    ) -> Any:
        """One request and its answer; :class:`RequestFailed` for anything else.

        The client's exception is no cause of ours: its frames hold the request's headers.
        """
        headers = {"accept": JSON}
        headers |= {"content-type": JSON} if data is not None else {}
        left = max(0.05, end - time.monotonic())
        fault: Fault | None
        try:
            client = self._client().options(
                request_timeout=left, max_retries=0, retry_on_timeout=False
            )
            answer = client.perform_request(method, path, headers=headers, body=data)
        except _OF_CLIENT as error:
            self._met |= isinstance(error, ApiError)
            fault = fault_of(error)
        else:
            self._met = True
            fault = None if fault_in is None else fault_in(answer.body)
            if fault is None:
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
            made = self._access.client()
            if made is None:
                raise InvalidInput(_REFUSED)
            return self._clients.setdefault(process, made)
        return self._clients[process]

    def searches(
        self, through: str, bodies: Sequence[Mapping[str, Any]]
    ) -> list[list[Mapping[str, Any]]]:
        """The hits of several searches, sent together."""
        found: list[list[Mapping[str, Any]]] = []
        for part in dsl.chunks(map(dsl.search, bodies), most=SEARCHES):
            data = dsl.lines(part)
            answers = self.ask("POST", f"/{through}/_msearch", data, fault_in=of_searches)
            found += [answer["hits"]["hits"] for answer in answers["responses"]]
        return found

    def bulk(self, path: str, operations: Iterable[Operation]) -> list[Outcome]:
        """What became of each operation, in order; what a busy server put off is sent again."""
        outcomes: list[Outcome] = []
        for chunk in dsl.chunks(operations):
            outcomes += self._chunk(path, chunk)
        return outcomes

    def _chunk(self, path: str, chunk: Sequence[Operation]) -> list[Outcome]:
        batch = _Batch(chunk)
        target = f"{path}{'&' if '?' in path else '?'}filter_path={_ITEMS}"
        end = time.monotonic() + self._timeout
        fault: Fault | None = None
        try:
            for attempt in self._attempts(None):  # each gets some of it done
                with attempt:
                    self._try(target, batch, end)
        except RequestFailed as failed:
            fault = failed.fault
        if fault is not None and not batch.is_answered:
            raise fault.error
        return [batch.outcomes[place] for place in range(len(chunk))]

    def _try(self, target: str, batch: _Batch, end: float) -> None:
        """Send what is left of a batch; :class:`RequestFailed` if something has to wait."""
        while batch.left:
            try:
                answer = self._exchange("POST", target, batch.body(), end=end)
            except RequestFailed as failed:
                if not batch.shrinks_for(failed.fault):
                    raise
            else:
                batch.take(answer["items"])


class _Batch:
    """Operations on their way: what became of each, and which are to be sent again."""

    __slots__ = ("_doubtful", "_operations", "_window", "left", "outcomes")

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._operations = operations
        self._window = len(operations)
        self._doubtful = False
        self.left = list(range(len(operations)))
        self.outcomes: dict[int, Outcome] = {}

    @property
    def is_answered(self) -> bool:
        """Whether the server has said something of each."""
        return len(self.outcomes) == len(self._operations)

    def body(self) -> bytes:
        """The next request."""
        return dsl.lines(self._operations[place] for place in self.left[: self._window])

    def take(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Note an answer; :class:`RequestFailed` if the server was too busy for some of it."""
        sent = self.left[: self._window]
        for place, item in zip(sent, items, strict=True):
            self.outcomes[place] = _outcome(item, doubtful=self._doubtful)
        busy = [place for place in sent if self.outcomes[place].status in BUSY]
        self.left = [*busy, *self.left[len(sent) :]]
        if busy:
            self._doubtful |= any(self.outcomes[place].status in UNSURE for place in busy)
            first = self.outcomes[busy[0]]
            raise RequestFailed(Fault(of_row(first.status, first.error), again=True))

    def shrinks_for(self, fault: Fault) -> bool:
        """Send less from now on, where there was too much in a request; whether to do so at once."""
        self._doubtful |= fault.doubtful
        too_large = isinstance(fault.error, TooLarge)
        if too_large and self._window == 1:
            self.outcomes[self.left.pop(0)] = TOO_LARGE
        elif too_large or fault.crowded:
            self._window = max(1, self._window // 2)
        return too_large


def _outcome(item: Mapping[str, Any], *, doubtful: bool) -> Outcome:
    (answer,) = item.values()
    return Outcome(answer["status"], answer.get("error", {}), doubtful)


def _numbers(version: str) -> Version:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def access(
    source: object,
    *,
    api_key: str | tuple[str, str] | None,
    basic_auth: str | tuple[str, str] | None,
    ca_certs: str | None,
    cloud_id: str | None,
) -> Access | Elasticsearch | InvalidInput:
    """What a transport is made of, or the error that says why there is none.

    That is for the caller to raise when it has forgotten the arguments: a traceback with locals must
    not show them.
    """
    given = {"api_key": api_key, "basic_auth": basic_auth, "cloud_id": cloud_id}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if isinstance(source, Elasticsearch):
        return InvalidInput(_IN_CLIENT) if options or ca_certs else source
    if source is not None and not isinstance(source, str):
        return InvalidInput(
            f"cannot connect through {excerpt(type(source).__name__)}; pass an http:// or https:// URL, "
            "or a client: Elasticsearch for a sync store, Elasticsearch for an async one"
        )
    if (source is None) == (cloud_id is None):
        return InvalidInput("pass the server's address, or cloud_id=, and not both")
    parsed = _parsed(source) if source is not None else {}
    if parsed is None:
        return InvalidInput(_UNREADABLE)
    options = {**parsed, **options, **({"ca_certs": ca_certs} if ca_certs else {})}
    if "api_key" in options and "basic_auth" in options:
        return InvalidInput("pass api_key= or a user with a password, not both")
    if ca_certs is not None and not Path(ca_certs).exists():
        return InvalidInput(f"ca_certs names {excerpt(ca_certs)}, which is not there")
    for name in options.keys() & {"api_key", "basic_auth"}:
        options[name] = _spelt(options[name])
        if options[name] is None:
            return InvalidInput(_NO_HEADER)
    return Access(options)


def _spelt(credentials: object) -> str | None:
    """Credentials as a header has them, a pair in base64; None if they cannot be in one."""
    if isinstance(credentials, str):
        return credentials if credentials.isascii() and credentials.isprintable() else None
    if not isinstance(credentials, tuple | list):
        return None
    if [type(part) for part in credentials] != [str, str]:
        return None
    return base64.b64encode(":".join(credentials).encode()).decode()


def _parsed(address: str) -> dict[str, Any] | None:
    """An address for the client, its user and password apart; None if it cannot be read."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or parts.scheme not in _SCHEMES:
        return None
    scheme, usual = _SCHEMES[parts.scheme]
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    found: dict[str, Any] = {
        "hosts": [f"{scheme}://{host}:{port or usual}{parts.path.rstrip('/')}"]
    }
    if parts.username is not None:
        found["basic_auth"] = (unquote(parts.username), unquote(parts.password or ""))
    return found
