# Generated from client_async.py by tools/generate_sync.py; change that file, not this one.
"""Asking the API: requests in portions, several at once, retries within a budget, halving."""

from __future__ import annotations

import math
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Literal, Self, TypeVar

import httpx
import numpy as np
import stamina

from samespace.backends.jina_api import late, wire
from samespace.backends.jina_api.call import Budget, Call, Question
from samespace.backends.jina_api.gate import (
    Gate,
    Held,
    Session,
    Sockets,
    Stopped,
    TooLate,
    each,
    in_thread,
)
from samespace.backends.jina_api.limiter import Limiter, Ticket
from samespace.backends.jina_api.limits import Limits
from samespace.backends.jina_api.options import (
    Key,
    Patience,
    address_of,
    check_limits,
    check_on_too_long,
)
from samespace.backends.jina_api.tokens import TokenCounter
from samespace.backends.jina_api.wire import Answer, Fault, Portion, RequestFailed
from samespace.errors import BadResponse, EmbeddingError, excerpt
from samespace.models import MODELS, Model
from samespace.protocols import Matrix, Usage, Vector
from samespace.space import EmbeddingSpace
from samespace.vectors import embedded

LONGEST_PAUSE: Final = 30.0
"""Seconds between two attempts where the API does not say how long to wait."""

T = TypeVar("T")
_NOTHING: Final = Usage(0)
_OTHER_LOOP: Final = "this backend belongs to another event loop; make one in each"
_JSON: Final = {"Content-Type": "application/json", "Accept": "application/json"}


class HTTPBackend:
    """What backends have in common that ask a server over HTTP, whichever it is.

    A subclass says what is sent and what an answer means: :meth:`_body`, :meth:`_decoded`,
    :meth:`_fault`, :meth:`_instead`, :meth:`_bad`, :meth:`_unreachable`, :meth:`_most_bytes`.
    """

    is_async: ClassVar[bool] = False

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
        self._usage = ContextVar("usage", default=_NOTHING)
        self._sessions: dict[int, Session] = {}
        self._closed = False

    def _body(self, question: Question) -> bytes:
        """The JSON of one request."""
        raise NotImplementedError

    def _decoded(self, content: bytes, count: int) -> Answer:
        """The vectors of an answer 200; :class:`BadResponse` if it has no right ones."""
        raise NotImplementedError

    def _fault(self, status: int, said: bytes, *, wait: float | None) -> Fault:
        """What any other answer means."""
        raise NotImplementedError

    def _instead(self, question: Question, fault: Fault) -> Question | None:
        """What to ask in place of a question that was refused; None if there is nothing."""
        raise NotImplementedError

    def _bad(self, reason: str) -> BadResponse:
        """For an answer that cannot be used."""
        raise NotImplementedError

    def _unreachable(self, reason: str) -> Fault:
        """For a request that got no whole answer."""
        raise NotImplementedError

    def _most_bytes(self, count: int) -> int:
        """How long a true answer for ``count`` texts can be."""
        raise NotImplementedError

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
        session = self._sessions.pop(os.getpid(), None)
        if session is not None:
            session.gate.close()
            session.sockets.close()
            session.client.close()

    def usage(self) -> Usage:
        """The tokens of this thread's (or task's) last call, as the API counted them.

        With ``on_too_long="truncate"`` also the positions of the texts that were cut.
        """
        return self._usage.get()

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``, embedded as the space's task."""
        self._check_usable()
        wire.check_texts(texts)
        counts = in_thread(partial(self._tokens.counted, texts))
        return self._embed(texts, counts, self._space.task)

    def embed_queries(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``, embedded as the space's queries are."""
        self._check_usable()
        wire.check_texts(texts)
        return self._embed(texts, self._tokens.estimated(texts), self._space.query_task)

    def embed_query(self, text: str) -> Vector:
        """One query's vector, shape ``(dimensions,)``."""
        vector: Vector = self.embed_queries([text])[0]
        return vector

    def _embed(self, texts: Sequence[str], counts: list[int], task: str | None) -> Matrix:
        context = self._context or math.inf
        vectors = np.empty((len(texts), self._space.dimensions), dtype=np.float32)
        doubtful, others = wire.portions(
            [self._tokens.likely(count) for count in counts],
            {i for i, count in enumerate(counts) if self._tokens.safe(count) > context},
            texts_per_request=self._limits.texts_per_request,
            tokens_per_request=self._limits.tokens_at_once,
        )
        call = Call(self._session(), task)
        work = partial(self._settle, call, texts, counts, vectors)
        try:
            for parts in (doubtful, others):
                self._each(work, parts, call)
                if call.refused:
                    raise wire.refused_texts(texts, call.refused)
        finally:
            self._usage.set(call.usage())
        return embedded(vectors, self._space, count=len(texts))

    def _each(self, work: Callable[[T], None], parts: Sequence[T], call: Call[Session]) -> None:
        each(work, parts, session=call.session, stop=call.stop)

    def _settle(
        self,
        call: Call[Session],
        texts: Sequence[str],
        counts: list[int],
        vectors: Matrix,
        part: Portion,
    ) -> None:
        """Put a portion's answers in their places, or note the texts of it that were refused."""
        waiting = deque([part])
        while waiting:
            part = waiting.popleft()
            tokens = sum(counts[place] for place in part)
            question = Question([texts[place] for place in part], tokens, call.task)
            found = self._ask(question, call)
            if isinstance(found, Fault) and (other := self._instead(question, found)):
                found = self._ask(other, call)
                call.cut += part if other.truncate and isinstance(found, Answer) else ()
            if isinstance(found, Answer):
                vectors[part] = found.vectors
                call.paid.append(found.tokens)
            elif found.halve and len(part) > 1:
                waiting.extendleft(reversed(wire.halves(part)))
            elif found.of_text:
                call.refused[part[0]] = found.error
            else:
                raise found.error

    def _check_usable(self) -> None:
        self._usage.set(_NOTHING)
        if self._closed:
            raise wire.closed()

    def _ask(self, question: Question, call: Call[Session]) -> Answer | Fault:
        """One request's answer, or why there is none after every permitted retry.

        A fault is returned, not raised, so that no driver's exception becomes a cause: its frames
        hold the request's headers.
        """
        body = self._body(question)
        budget = Budget(self._patience.retry_seconds)
        try:
            for attempt in stamina.retry_context(
                on=partial(self._again, budget, len(question.texts)),
                attempts=self._patience.attempts,
                timeout=None,
                wait_initial=self._patience.retry_wait,
                wait_max=LONGEST_PAUSE,
            ):
                budget.backoff = _jittered(attempt.next_wait, self._patience.retry_wait)
                with attempt:
                    return self._attempt(body, question, budget, call)
        except RequestFailed as failed:
            return failed.fault
        raise AssertionError("stamina ends with an answer or an exception")

    def _again(self, budget: Budget, count: int, error: Exception) -> bool | float:
        """Whether to try again. The pause is made at the gate, where it can be ended: 0 here."""
        if not isinstance(error, RequestFailed):
            return False
        pause = wire.pause_after(error.fault, count=count, left=budget.left, backoff=budget.backoff)
        budget.pause = pause or 0.0
        return False if pause is None else 0.0

    def _attempt(
        self, body: bytes, question: Question, budget: Budget, call: Call[Session]
    ) -> Answer:
        """Wait for the turn, ask, and leave; :class:`RequestFailed` for anything but vectors."""
        gate = call.session.gate
        try:
            gate.pause(budget.pause, call.stop)
            while True:
                tokens = self._tokens.likely(question.tokens)
                ticket = gate.enter(tokens, most=budget.left, stop=call.stop)
                budget.begin()
                with suppress(TooLate):
                    return self._exchange(body, question, budget, call, ticket)
        except Held as held:
            fault = wire.held(held.seconds)
        except Stopped:
            fault = Fault(wire.closed())
        raise RequestFailed(fault)

    def _exchange(
        self,
        body: bytes,
        question: Question,
        budget: Budget,
        call: Call[Session],
        ticket: Ticket,
    ) -> Answer:
        """One request and its answer."""
        gate = call.session.gate
        fault, tokens = Fault(wire.closed()), None
        try:
            found = self._answered(body, len(question.texts), call, ticket)
            if isinstance(found, Answer):
                tokens = found.tokens or None
                if tokens and not question.truncate:
                    self._tokens.learn(question.tokens, tokens)
                return found
            fault = found
            tokens = 0 if fault.is_free else None
            if fault.limited and fault.wait is None:
                gate.hold(budget.backoff)
        except TooLate:
            tokens = 0
            raise
        finally:
            gate.leave(ticket, tokens, crowded=fault.crowded)
        raise RequestFailed(fault)

    def _answered(
        self, body: bytes, count: int, call: Call[Session], ticket: Ticket
    ) -> Answer | Fault:
        try:
            status, headers, content = self._post(body, count, call, ticket)
            if status == 200:
                return self._read(content, count)
            said = self._key.hidden_in(content)
            wait = wire.wait_of(headers.get("Retry-After"), now=datetime.now(UTC))
            return self._fault(status, said, wait=wait)
        except BadResponse as error:
            return Fault(error.with_traceback(None))
        except httpx.DecodingError as error:
            return Fault(self._bad(f"it cannot be decoded ({excerpt(str(error))})"))
        except httpx.HTTPError as error:
            return self._unreachable(f"{type(error).__name__}: {error}")
        except RuntimeError:
            if not self._closed:  # httpx says so of a client that was closed meanwhile
                raise
            return Fault(wire.closed())

    def _read(self, content: bytes, count: int) -> Answer:
        """The vectors of an answer, or a :class:`BadResponse` that quotes it, but never the key."""
        with suppress(BadResponse):
            return self._decoded(content, count)
        return self._decoded(self._key.hidden_in(content), count)

    def _post(
        self, body: bytes, count: int, call: Call[Session], ticket: Ticket
    ) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and whole body, within the time and the size that an answer can have."""
        session = call.session
        end = time.monotonic() + self._patience.timeout
        most = self._most_bytes(count)
        content = bytearray()
        with session.client.stream(
            "POST",
            self._address,
            content=body,
            headers=_JSON,
            auth=self._key,
            extensions=session.sockets.extensions(
                partial(session.gate.check, call.stop), partial(_hear, session.gate, ticket)
            ),
        ) as response:
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > most:
                    raise self._bad(f"it is longer than {most} bytes for {count} text(s)")
                if time.monotonic() > end:
                    raise httpx.ReadTimeout(f"no whole answer in {self._patience.timeout:g} s")
        return response.status_code, response.headers, bytes(content)

    def _session(self) -> Session:
        """This process's session; after a fork another one, with connections of its own."""
        process = os.getpid()
        session = self._sessions.get(process)
        if session is None:
            client = httpx.Client(
                timeout=httpx.Timeout(self._patience.timeout, pool=None),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            )
            gate = Gate(Limiter(self._limits))
            made = Session(client, gate, Sockets())
            session = self._sessions.setdefault(process, made)
        if self._closed:  # meanwhile, so that nobody would close this one
            raise wire.closed()
        return session


class JinaAPIBackend(HTTPBackend):
    """Jina's models through their API: documents embedded as ``task``, queries as its twin.

    ``task`` is the documents' and is left aside for models without tasks; ``dimensions`` defaults
    to the model's own. The key comes from ``api_key`` or ``JINA_API_KEY``, the address from
    ``base_url``, ``JINA_BASE_URL`` or the vendor; the key is shown nowhere.

    ``limits`` (:class:`~samespace.Limits`) are what the key's account is allowed. A call is cut into
    requests of so many texts and tokens, asked for several at once, at the pace that is allowed to
    all threads or tasks of this backend together; what an answer says is left, or how long to wait,
    holds for all of them.

    How long *one* call is patient is not the account's affair, hence beside ``limits``: ``timeout``
    is in seconds, to connect, to send, to wait for an answer and to read it, each. Limits, failures
    of the server and of the connection are tried again, up to ``attempts`` times in all, and no
    pause begins ``retry_seconds`` after the first. A pause is what ``Retry-After`` asks for, if it
    ends within those seconds; else ``retry_wait`` seconds, doubled each time up to 30, with jitter.

    A text that the model has no room for is refused: :class:`~samespace.errors.TokenLimitExceeded`
    names it. With ``on_too_long="truncate"`` the API cuts it, but only after it has refused the
    text uncut, so that :meth:`usage` names exactly those that were cut. Texts that may be too long
    are asked for first, so that a caller who then leaves them out pays for the others once. Other
    failures are another :class:`~samespace.errors.EmbeddingError`; one without ``indices`` concerns
    the whole call.

    Tokens are counted by the model's tokenizer if the package ``tokenizers`` is installed and there
    is a ``tokenizer`` (the path of a ``tokenizer.json``) or one in Hugging Face's cache on this
    machine; else they are estimated from the text's bytes, and corrected by what the API counts.

    Connections are made on first use. A sync handle serves any number of threads, also after a
    fork; an async one belongs to the event loop of its first use.
    """

    def __init__(
        self,
        model: str = "jina-embeddings-v3",
        *,
        dimensions: int | None = None,
        task: str | None = wire.DEFAULT_TASK,
        api_key: str | None = None,
        base_url: str | None = None,
        on_too_long: Literal["reject", "truncate"] = "reject",
        limits: Limits | None = None,
        tokenizer: str | Path | None = None,
        timeout: float = 60.0,
        attempts: int = 8,
        retry_seconds: float = 120.0,
        retry_wait: float = 0.5,
    ) -> None:
        key = Key(api_key)
        del api_key  # a traceback with locals must not show it
        key.check()
        self._truncates = check_on_too_long(on_too_long)
        space = wire.space_of(model, dimensions, task)
        super().__init__(
            space,
            address_of(base_url),
            key=key,
            limits=check_limits(limits),
            patience=Patience(
                timeout=timeout,
                attempts=attempts,
                retry_seconds=retry_seconds,
                retry_wait=retry_wait,
            ),
            tokens=TokenCounter(space.model, tokenizer),
            context=MODELS[space.model].context,
        )

    def provenance(self, *, late_chunking: bool = False) -> Mapping[str, str]:
        """What made the vectors: the API, its model, and whether texts were cut.

        ``late_chunking`` says that they come from :meth:`embed_chunks`.
        """
        return {
            "backend": "jina-api",
            "model": self._space.model,
            "truncation": "reported" if self._truncates else "never",
            "late_chunking": late.described() if late_chunking else "no",
        }

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special ones included; without a tokenizer rather too many."""
        wire.check_texts(texts)
        return [self._tokens.likely(count) for count in self._tokens.counted(texts)]

    def embed_chunks(self, documents: Sequence[Sequence[str]]) -> list[Matrix]:
        """One matrix a document, shape ``(len(chunks), dimensions)``: late chunking.

        A document's chunks, in their order, are one request and see one another and nothing else.
        Those of more than 8192 tokens together go in windows; each chunk's vector is of the window
        in which whole chunks of at least 512 tokens come before it, as far as there is room.
        :class:`~samespace.errors.InvalidInput` for a model without late chunking;
        :class:`~samespace.errors.TokenLimitExceeded` with the ``indices`` of documents that have a
        chunk longer than that, which is never cut.
        """
        self._check_usable()
        late.check_model(self._model)
        late.check_documents(documents)
        chunks = in_thread(lambda: [self._tokens.counted(each) for each in documents])
        found = [np.empty((len(each), self._space.dimensions), np.float32) for each in documents]
        call = Call(self._session(), self._space.task)
        work = partial(self._settle_document, call, documents, chunks, found)
        safe = [[self._tokens.safe(count) for count in counts] for counts in chunks]
        doubtful, others = late.order(safe, room=late.room_of(self._model))
        try:
            for places in (doubtful, others):
                self._each(work, places, call)
                if call.refused:
                    raise wire.refused_documents(call.refused)
        finally:
            self._usage.set(call.usage())
        return self._checked_documents(found)

    def _checked_documents(self, found: Sequence[Matrix]) -> list[Matrix]:
        """What was answered; :class:`BadResponse` names the documents with a chunk's bad vector."""
        good: list[Matrix] = []
        bad: dict[int, EmbeddingError] = {}
        for place, vectors in enumerate(found):
            try:
                good.append(embedded(vectors, self._space, count=len(vectors)))
            except BadResponse as error:
                bad[place] = error
        if bad:
            raise wire.refused_documents(bad)
        return good

    @property
    def _model(self) -> Model:
        return MODELS[self._space.model]

    def _settle_document(
        self,
        call: Call[Session],
        documents: Sequence[Sequence[str]],
        counts: list[list[int]],
        vectors: list[Matrix],
        place: int,
    ) -> None:
        """Put the vectors of a document's chunks in their places, or note that it was refused."""
        start, room = 0, late.room_of(self._model)
        overlap = late.overlap_of(exact=self._tokens.is_exact)
        while start < len(documents[place]):
            safe = [self._tokens.safe(count) for count in counts[place]]
            window = late.window_from(start, safe, room=room, overlap=overlap)
            chunks = list(documents[place][window.first : window.stop])
            tokens = sum(counts[place][window.first : window.stop])
            found = self._ask(Question(chunks, tokens, call.task, late_chunking=True), call)
            if isinstance(found, Answer):
                vectors[place][start : window.stop] = found.vectors[start - window.first :]
                call.paid.append(found.tokens)
                start = window.stop
            elif found.halve and not window.is_alone:
                room = sum(safe[window.first : window.stop]) // 2
            elif found.of_text:
                call.refused[place] = found.error
                return
            else:
                raise found.error

    def _body(self, question: Question) -> bytes:
        return wire.request_body(
            self._space,
            question.texts,
            question.task,
            truncate=question.truncate,
            late_chunking=question.late_chunking,
        )

    def _decoded(self, content: bytes, count: int) -> Answer:
        return wire.read_answer(content, self._space, count=count)

    def _fault(self, status: int, said: bytes, *, wait: float | None) -> Fault:
        return wire.fault_of(status, said, self._space, wait=wait)

    def _instead(self, question: Question, fault: Fault) -> Question | None:
        if self._truncates and fault.too_long and len(question.texts) == 1:
            return replace(question, truncate=True)
        return None

    def _bad(self, reason: str) -> BadResponse:
        return wire.bad(reason)

    def _unreachable(self, reason: str) -> Fault:
        return wire.unreachable(reason)

    def _most_bytes(self, count: int) -> int:
        return wire.most_bytes(self._space, count)


def _hear(gate: Gate, ticket: Ticket, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
    """What the head of an answer says to everyone, as soon as it is there."""
    said = httpx.Headers(list(headers))
    wait = wire.wait_of(said.get("Retry-After"), now=datetime.now(UTC))
    if wait and status >= 400:
        gate.hold(wait)
    requests, tokens = wire.remaining_of(said)
    gate.hear(ticket, requests=requests, tokens=tokens)


def _jittered(seconds: float, most: float) -> float:
    """With up to ``most`` more, so that processes that failed together do not return together."""
    return seconds + most * secrets.randbelow(1000) / 1000
