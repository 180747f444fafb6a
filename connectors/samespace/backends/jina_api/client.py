# Generated from client_async.py by tools/generate_sync.py; change that file, not this one.
"""Asking the API: requests in portions, retries within a budget, refused texts found by halving."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import ClassVar, Final, Self

import httpx
import numpy as np
import stamina

from samespace.backends.jina_api import wire
from samespace.backends.jina_api.options import Key, Limits, address_of
from samespace.backends.jina_api.wire import Answer, Fault, Portion, RequestFailed
from samespace.errors import BackendUnavailable, BadResponse, EmbeddingError
from samespace.models import MODELS
from samespace.protocols import Matrix, Usage, Vector
from samespace.space import EmbeddingSpace
from samespace.vectors import embedded

LONGEST_PAUSE: Final = 30.0
"""Seconds between two attempts where the API does not say how long to wait."""

_NOTHING: Final = Usage(0)
_OTHER_LOOP: Final = "this backend belongs to another event loop; make one in each"
_JSON: Final = {"Content-Type": "application/json", "Accept": "application/json"}


class JinaAPIBackend:
    """Jina's models through their API: documents embedded as ``task``, queries as its twin.

    ``task`` is the documents' and is left aside for models without tasks; ``dimensions`` defaults
    to the model's own. The key comes from ``api_key`` or ``JINA_API_KEY``, the address from
    ``base_url``, ``JINA_BASE_URL`` or the vendor; the key is shown nowhere.

    A call is cut into requests of at most ``texts_per_request`` texts and about
    ``tokens_per_request`` tokens. ``timeout`` is in seconds: to connect, to send, to wait for an
    answer and to read it, each. Limits, failures of the server and of the connection are tried
    again, up to ``attempts`` times in all, and no pause begins ``retry_seconds`` after the first. A
    pause is what ``Retry-After`` asks for, if it ends within those seconds; else ``retry_wait``
    seconds, doubled each time up to 30, with jitter.

    A text that the model has no room for is never truncated:
    :class:`~samespace.errors.TokenLimitExceeded` names it. Texts that may be too long are asked for
    first, so that a caller who then leaves them out pays for the others once. Other failures are
    another :class:`~samespace.errors.EmbeddingError`; one without ``indices`` concerns the whole
    call.

    Connections are made on first use. A sync handle serves any number of threads, also after a
    fork; an async one belongs to the event loop of its first use.
    """

    is_async: ClassVar[bool] = False

    def __init__(
        self,
        model: str = "jina-embeddings-v3",
        *,
        dimensions: int | None = None,
        task: str | None = wire.DEFAULT_TASK,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout: float = 60.0,
        texts_per_request: int = 512,
        tokens_per_request: int = 50_000,
        attempts: int = 8,
        retry_seconds: float = 120.0,
        retry_wait: float = 0.5,
    ) -> None:
        self._key = Key(api_key)
        del api_key  # a traceback with locals must not show it
        self._key.check()
        self._space = wire.space_of(model, dimensions, task)
        self._address = address_of(base_url)
        self._limits = Limits(
            timeout=timeout,
            texts_per_request=texts_per_request,
            tokens_per_request=tokens_per_request,
            attempts=attempts,
            retry_seconds=retry_seconds,
            retry_wait=retry_wait,
        )
        self._usage = ContextVar("usage", default=_NOTHING)
        self._clients: dict[int, httpx.Client] = {}
        self._closed = False

    @property
    def space(self) -> EmbeddingSpace:
        """The space of the vectors: model, dimensions and the documents' task."""
        return self._space

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._space)!r}, address={self._address!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back every connection; the backend is of no use afterwards."""
        self._closed = True
        # A fork must not close its parent's connections.
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()

    def usage(self) -> Usage:
        """The tokens of this thread's (or task's) last call, as the API counted them."""
        return self._usage.get()

    def provenance(self) -> Mapping[str, str]:
        """What made the vectors: the API, its model, no text truncated or seen beside others."""
        return {
            "backend": "jina-api",
            "model": self._space.model,
            "truncation": "never",
            "late_chunking": "no",
        }

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``, embedded as the space's task."""
        return self._embed(texts, self._space.task)

    def embed_queries(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``, embedded as the space's queries are."""
        return self._embed(texts, self._space.query_task)

    def embed_query(self, text: str) -> Vector:
        """One query's vector, shape ``(dimensions,)``."""
        vector: Vector = self.embed_queries([text])[0]
        return vector

    def _embed(self, texts: Sequence[str], task: str | None) -> Matrix:
        wire.check_texts(texts)
        self._check_usable()
        self._usage.set(_NOTHING)
        vectors = np.empty((len(texts), self._space.dimensions), dtype=np.float32)
        doubtful, others = wire.portions(
            texts,
            texts_per_request=self._limits.texts_per_request,
            tokens_per_request=self._limits.tokens_per_request,
            context=MODELS[self._space.model].context,
        )
        self._fill(vectors, texts, doubtful, task)
        self._fill(vectors, texts, others, task)
        return embedded(vectors, self._space, count=len(texts))

    def _fill(
        self, vectors: Matrix, texts: Sequence[str], parts: Sequence[Portion], task: str | None
    ) -> None:
        """Put the answers for some portions in their places, or name the texts that were refused."""
        waiting = deque(parts)
        refused: dict[int, EmbeddingError] = {}
        while waiting:
            part = waiting.popleft()
            found = self._ask([texts[place] for place in part], task)
            if isinstance(found, Answer):
                vectors[part] = found.vectors
                self._usage.set(Usage(self._usage.get().tokens + found.tokens))
            elif found.halve and len(part) > 1:
                waiting.extendleft(reversed(wire.halves(part)))
            elif found.of_text:
                refused[part[0]] = found.error
            else:
                raise found.error
        if refused:
            raise wire.too_long_texts(texts, refused)

    def _check_usable(self) -> None:
        if self._closed:
            raise BackendUnavailable("this backend is closed; make another one")

    def _ask(self, texts: Sequence[str], task: str | None) -> Answer | Fault:
        """One portion's answer, or why there is none after every permitted retry.

        A fault is returned, not raised, so that no driver's exception becomes a cause: its frames
        hold the request's headers.
        """
        body = wire.request_body(self._space, texts, task)
        try:
            for attempt in stamina.retry_context(
                on=self._pause_after(len(texts)),
                attempts=self._limits.attempts,
                timeout=None,
                wait_initial=self._limits.retry_wait,
                wait_max=LONGEST_PAUSE,
                wait_jitter=self._limits.retry_wait,
            ):
                with attempt:
                    return self._exchange(body, len(texts))
        except RequestFailed as failed:
            return failed.fault
        raise AssertionError("stamina ends with an answer or an exception")

    def _pause_after(self, count: int) -> Callable[[Exception], bool | float]:
        """Whether to try again after a fault: no, yes, or yes after so many seconds.

        What asks for more than is left of the budget is not tried again: earlier would be refused.
        """
        end = time.monotonic() + self._limits.retry_seconds

        def pause(error: Exception) -> bool | float:
            if not isinstance(error, RequestFailed) or not error.fault.retry:
                return False
            if error.fault.halve and count > 1:
                return False
            wait, left = error.fault.wait, end - time.monotonic()
            return left > 0 if wait is None else wait <= left and wait

        return pause

    def _exchange(self, body: bytes, count: int) -> Answer:
        """One request and its answer; :class:`RequestFailed` for anything but vectors."""
        fault: Fault
        try:
            status, headers, content = self._post(body, count)
            if status == 200:
                return self._read(content, count)
            said = self._key.hidden_in(content)
            wait = wire.wait_of(headers.get("Retry-After"), now=datetime.now(UTC))
            fault = wire.fault_of(status, said, self._space, wait=wait)
        except BadResponse as error:
            fault = Fault(error.with_traceback(None))
        except httpx.DecodingError as error:
            fault = Fault(wire.undecodable(str(error)))
        except httpx.HTTPError as error:
            fault = wire.unreachable(f"{type(error).__name__}: {error}")
        raise RequestFailed(fault)

    def _read(self, content: bytes, count: int) -> Answer:
        """The vectors of an answer, or a :class:`BadResponse` that quotes it, but never the key."""
        with suppress(BadResponse):
            return wire.read_answer(content, self._space, count=count)
        return wire.read_answer(self._key.hidden_in(content), self._space, count=count)

    def _post(self, body: bytes, count: int) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and whole body, within the time and the size that an answer can have."""
        end = time.monotonic() + self._limits.timeout
        most = wire.most_bytes(self._space, count)
        content = bytearray()
        with self._client().stream(
            "POST", self._address, content=body, headers=_JSON, auth=self._key
        ) as response:
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > most:
                    raise wire.too_long_an_answer(self._space, count)
                if time.monotonic() > end:
                    raise httpx.ReadTimeout(f"no whole answer in {self._limits.timeout:g} s")
        return response.status_code, response.headers, bytes(content)

    def _client(self) -> httpx.Client:
        """This process's client; after a fork another one, with connections of its own."""
        process = os.getpid()
        if process not in self._clients:
            client = httpx.Client(timeout=self._limits.timeout)
            return self._clients.setdefault(process, client)
        return self._clients[process]
