"""Asking a server: requests in portions, several at once, retries within a budget, halving."""

from __future__ import annotations

import asyncio
import math
import os
import secrets
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import ClassVar, Final, Self, TypeVar

import httpx
import numpy as np
import stamina

from samespace.backends.http import exchange
from samespace.backends.http.call import ATTEMPTS_IN_SEARCH, Budget, Call, Question, Search
from samespace.backends.http.exchange import Answer, Fault, Portion, RequestFailed
from samespace.backends.http.gate import (
    AsyncGate,
    AsyncSession,
    AsyncSockets,
    Held,
    Stopped,
    TooLate,
    each_async,
    in_thread_async,
)
from samespace.backends.http.limiter import Limiter, Ticket
from samespace.backends.http.limits import Limits
from samespace.backends.http.options import Key, Patience, certificates
from samespace.backends.http.tokens import TokenCounter
from samespace.errors import BadResponse, InvalidInput, excerpt
from samespace.protocols import Matrix, Usage, Vector
from samespace.space import EmbeddingSpace
from samespace.vectors import embedded

_FOR_ALL: Final = {429, 503}
"""Statuses whose ``Retry-After`` is about the server, not about the one request."""
LONGEST_PAUSE: Final = 30.0
"""Seconds between two attempts where the API does not say how long to wait."""

LONGEST_CONNECT: Final = 10.0
"""Seconds to connect: what is not there says nothing, and nobody can be called back meanwhile."""

CALLS: Final = 4
"""Calls at once where requests at once have no limit."""

T = TypeVar("T")
_NOTHING: Final = Usage(0)
_OTHER_LOOP: Final = "this backend belongs to another event loop; make one in each"
_JSON: Final = {"Content-Type": "application/json", "Accept": "application/json"}


class AsyncHTTPBackend(ABC):
    """What backends have in common that ask a server over HTTP, whichever it is.

    A subclass says what is sent and what an answer means: :meth:`_body`, :meth:`_decoded`,
    :meth:`_fault`, :meth:`_instead`, :meth:`_bad`, :meth:`_unreachable`, :meth:`_most_bytes`.
    """

    is_async: ClassVar[bool] = True

    def __init__(
        self,
        space: EmbeddingSpace,
        address: str,
        *,
        key: Key,
        limits: Limits,
        patience: Patience,
        tokens: TokenCounter,
        context: int | None,
    ) -> None:
        self._space = space
        self._address = address
        self._key = key
        self._limits = limits
        self._patience = patience
        self._tokens = tokens
        self._context = context
        self._most_texts = limits.texts_per_request  # fewer where the server takes fewer
        self._usage = ContextVar("usage", default=_NOTHING)
        self._sessions: dict[int, AsyncSession] = {}
        self._loop: asyncio.AbstractEventLoop | None = None  # async only
        self._closed = False

    @abstractmethod
    def _body(self, question: Question) -> bytes:
        """The JSON of one request."""

    @abstractmethod
    def _decoded(self, content: bytes, count: int) -> Answer:
        """The vectors of an answer 200; :class:`BadResponse` if it has no right ones."""

    @abstractmethod
    def _fault(self, status: int, content: bytes, *, wait: float | None) -> Fault:
        """What any other answer means; like a :class:`BadResponse` it quotes all but the key."""

    @abstractmethod
    def _instead(self, question: Question, fault: Fault) -> Question | None:
        """What to ask in place of a question that was refused; None if there is nothing."""

    @abstractmethod
    def _bad(self, reason: str) -> BadResponse:
        """For an answer that cannot be used."""

    @abstractmethod
    def _unreachable(self, reason: str) -> Fault:
        """For a request that got no whole answer."""

    @abstractmethod
    def _most_bytes(self, count: int) -> int:
        """How long a true answer for ``count`` texts can be."""

    @property
    def space(self) -> EmbeddingSpace:
        """The space of the vectors: model, dimensions and the documents' task."""
        return self._space

    @property
    def calls_at_once(self) -> int:
        """As many as there may be requests at once, for a call may be no more than one."""
        return self._limits.in_flight or CALLS

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._space)!r}, address={self._address!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give back every connection; the backend is of no use afterwards."""
        if self._loop not in {None, asyncio.get_running_loop()}:  # async only
            raise InvalidInput(_OTHER_LOOP)  # async only
        self._closed = True
        # A fork must not close its parent's connections.
        session = self._sessions.pop(os.getpid(), None)
        if session is not None:
            session.gate.close()
            session.sockets.close()
            await session.client.aclose()

    def usage(self) -> Usage:
        """The tokens of this thread's (or task's) last call, as the API counted them.

        They are our own count or estimate where its answers do not say. With
        ``on_too_long="truncate"`` also the positions of the texts that were cut.
        """
        return self._usage.get()

    async def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``, embedded as the space's task."""
        self._check_usable()
        exchange.check_texts(texts)
        counts = await in_thread_async(partial(self._tokens.counted, texts))
        return await self._embed(texts, counts, self._space.task)

    async def embed_queries(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``, embedded as the space's queries are."""
        self._check_usable()
        exchange.check_texts(texts)
        return await self._embed(texts, self._tokens.estimated(texts), self._space.query_task)

    async def embed_query(self, text: str) -> Vector:
        """One query's vector, shape ``(dimensions,)``."""
        vector: Vector = (await self.embed_queries([text]))[0]
        return vector

    async def _embed(self, texts: Sequence[str], counts: list[int], task: str | None) -> Matrix:
        context = self._context or math.inf
        vectors = np.empty((len(texts), self._space.dimensions), dtype=np.float32)
        doubtful, others = exchange.portions(
            [self._tokens.likely(count) for count in counts],
            {i for i, count in enumerate(counts) if self._tokens.safe(count) > context},
            texts_per_request=self._most_texts,
            tokens_per_request=self._limits.tokens_at_once,
        )
        call = Call(self._session(), task)
        work = partial(self._settle, call, texts, counts, vectors)
        try:
            for parts in (doubtful, others):
                await self._each(work, parts, call)
                if call.refused:
                    raise exchange.refused_texts(texts, call.refused)
        finally:
            self._usage.set(call.usage())
        return embedded(vectors, self._space, count=len(texts))

    async def _each(
        self, work: Callable[[T], Awaitable[None]], parts: Sequence[T], call: Call[AsyncSession]
    ) -> None:
        await each_async(work, parts, session=call.session, stop=call.stop)

    async def _settle(
        self,
        call: Call[AsyncSession],
        texts: Sequence[str],
        counts: list[int],
        vectors: Matrix,
        part: Portion,
    ) -> None:
        """Put a portion's answers in their places, or note the texts of it that were refused."""
        waiting, search = deque([part]), Search()
        while waiting:
            part = waiting.popleft()
            if len(part) > self._most_texts:  # as was learned meanwhile
                waiting.extendleft(reversed(exchange.halves(part)))
                continue
            tokens = sum(counts[place] for place in part)
            question = Question([texts[place] for place in part], tokens, call.task)
            found = await self._ask(question, call, in_search=search.begun)
            while isinstance(found, Fault) and (other := self._instead(question, found)):
                question = other
                found = await self._ask(question, call, in_search=search.begun)
            call.cut += part if question.truncate and isinstance(found, Answer) else ()
            if isinstance(found, Answer):
                vectors[part] = found.vectors
                call.paid.append(found.tokens)
                search.answer()
            elif (found.halve or found.broken) and len(part) > 1:
                waiting.extendleft(reversed(exchange.halves(part)))
                search.begun |= found.broken
                if found.of_count:
                    self._most_texts = min(self._most_texts, len(waiting[0]))
            elif found.of_text:
                call.refused[part[0]] = found.error
            elif not (found.broken and search.blame(part[0], found.error)):
                raise found.error
        call.refused.update(search.end())

    def _check_usable(self) -> None:
        self._usage.set(_NOTHING)
        if self._closed:
            raise exchange.closed()
        loop = asyncio.get_running_loop()  # async only
        self._loop = self._loop or loop  # async only
        if self._loop is not loop:  # async only
            raise InvalidInput(_OTHER_LOOP)  # async only

    async def _ask(
        self, question: Question, call: Call[AsyncSession], *, in_search: bool = False
    ) -> Answer | Fault:
        """One request's answer, or why there is none after every permitted retry.

        A fault is returned, not raised, so that no driver's exception becomes a cause: its frames
        hold the request's headers.
        """
        body = self._body(question)
        budget = Budget(self._patience.retry_seconds)
        attempts = self._patience.attempts
        try:
            async for attempt in stamina.retry_context(
                on=partial(self._again, budget, len(question.texts)),
                attempts=min(attempts, ATTEMPTS_IN_SEARCH) if in_search else attempts,
                timeout=None,
                wait_initial=self._patience.retry_wait,
                wait_max=LONGEST_PAUSE,
            ):
                budget.backoff = _jittered(attempt.next_wait, self._patience.retry_wait)
                with attempt:
                    return await self._attempt(body, question, budget, call)
        except RequestFailed as failed:
            return failed.fault
        raise AssertionError("stamina ends with an answer or an exception")

    def _again(self, budget: Budget, count: int, error: Exception) -> bool | float:
        """Whether to try again. The pause is made at the gate, where it can be ended: 0 here."""
        if not isinstance(error, RequestFailed):
            return False
        pause = exchange.pause_after(
            error.fault, count=count, left=budget.left, backoff=budget.backoff
        )
        budget.pause = pause or 0.0
        return False if pause is None else 0.0

    async def _attempt(
        self, body: bytes, question: Question, budget: Budget, call: Call[AsyncSession]
    ) -> Answer:
        """Wait for the turn, ask, and leave; :class:`RequestFailed` for anything but vectors."""
        gate = call.session.gate
        try:
            await gate.pause(budget.pause, call.stop)
            while True:
                tokens = self._tokens.likely(question.tokens)
                ticket = await gate.enter(tokens, most=budget.left, stop=call.stop)
                budget.begin()
                with suppress(TooLate):
                    return await self._exchange(body, question, budget, call, ticket)
        except Held as held:
            fault = exchange.held(held.seconds)
        except Stopped:
            fault = Fault(exchange.closed())
        raise RequestFailed(fault)

    async def _exchange(
        self,
        body: bytes,
        question: Question,
        budget: Budget,
        call: Call[AsyncSession],
        ticket: Ticket,
    ) -> Answer:
        """One request and its answer."""
        gate = call.session.gate
        fault, tokens = Fault(exchange.closed()), None
        try:
            found = await self._answered(body, len(question.texts), call, ticket)
            if isinstance(found, Answer):
                tokens = found.tokens or None
                if tokens and not question.truncate:
                    self._tokens.learn(question.tokens, tokens)
                return found if tokens else replace(found, tokens=ticket.tokens)
            fault = found
            tokens = 0 if fault.is_free else None
            if fault.limited and not fault.wait:
                gate.hold(budget.backoff)
        except TooLate:
            tokens = 0
            raise
        finally:
            gate.leave(ticket, tokens, crowded=fault.crowded)
        raise RequestFailed(fault)

    async def _answered(
        self, body: bytes, count: int, call: Call[AsyncSession], ticket: Ticket
    ) -> Answer | Fault:
        try:
            status, headers, content = await self._post(body, count, call, ticket)
            if status == 200:
                return self._decoded(content, count)
            wait = exchange.wait_of(headers.get("Retry-After"), now=datetime.now(UTC))
            return self._fault(status, content, wait=wait)
        except BadResponse as error:
            error.__context__ = None  # frames of both hold what was answered, which may be the key
            return Fault(error.with_traceback(None))
        except httpx.DecodingError as error:
            return Fault(self._bad(f"it cannot be decoded ({excerpt(self._key.hide(str(error)))})"))
        except httpx.HTTPError as error:
            if self._closed or call.stop.asked:
                return Fault(exchange.closed())
            return self._unreachable(self._key.hide(f"{type(error).__name__}: {error}"))
        except RuntimeError:
            if not self._closed:  # httpx says so of a client that was closed meanwhile
                raise
            return Fault(exchange.closed())

    async def _post(
        self, body: bytes, count: int, call: Call[AsyncSession], ticket: Ticket
    ) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and whole body, within the time and the size that an answer can have."""
        session = call.session
        most = self._most_bytes(count)
        content = bytearray()
        async with session.client.stream(
            "POST",
            self._address,
            content=body,
            headers=_JSON,
            auth=self._key,
            extensions=session.sockets.extensions(
                partial(session.gate.check, call.stop), partial(_hear, session.gate, ticket)
            ),
        ) as response:
            end = time.monotonic() + self._patience.timeout
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > most:
                    raise self._bad(f"it is longer than {most} bytes for {count} text(s)")
                if time.monotonic() > end:
                    raise httpx.ReadTimeout(f"no whole answer in {self._patience.timeout:g} s")
        return response.status_code, response.headers, bytes(content)

    def _session(self) -> AsyncSession:
        """This process's session; after a fork another one, with connections of its own."""
        process = os.getpid()
        session = self._sessions.get(process)
        if session is None:
            timeout = self._patience.timeout
            client = httpx.AsyncClient(
                verify=certificates(),
                timeout=httpx.Timeout(timeout, connect=min(timeout, LONGEST_CONNECT), pool=None),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            )
            gate = AsyncGate(Limiter(self._limits))
            made = AsyncSession(client, gate, AsyncSockets())
            session = self._sessions.setdefault(process, made)
        if self._closed:  # meanwhile, so that nobody would close this one
            raise exchange.closed()
        return session


def _hear(
    gate: AsyncGate, ticket: Ticket, status: int, headers: Sequence[tuple[bytes, bytes]]
) -> None:
    """What the head of an answer says to everyone, as soon as it is there."""
    said = httpx.Headers(list(headers))
    wait = exchange.wait_of(said.get("Retry-After"), now=datetime.now(UTC))
    if wait and status in _FOR_ALL:
        gate.hold(wait)
    requests, tokens = exchange.remaining_of(said)
    gate.hear(ticket, requests=requests, tokens=tokens)


def _jittered(seconds: float, most: float) -> float:
    """With up to ``most`` more, so that processes that failed together do not return together."""
    return seconds + most * secrets.randbelow(1000) / 1000
