# Generated from client_async.py by tools/generate_sync.py; change that file, not this one.
"""Jina's API: each model with its parameters, texts cut where that is asked for, late chunking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from samespace.backends.http import exchange
from samespace.backends.http.call import Call, Question
from samespace.backends.http.client import HTTPBackend
from samespace.backends.http.exchange import Answer, Fault
from samespace.backends.http.gate import Session, in_thread
from samespace.backends.http.limits import Limits
from samespace.backends.http.options import Key, Patience, check_limits
from samespace.backends.http.tokens import TokenCounter
from samespace.backends.jina_api import late, wire
from samespace.backends.jina_api.options import KEY, address_of, check_on_too_long
from samespace.errors import BadResponse, EmbeddingError
from samespace.models import MODELS, Model
from samespace.protocols import Matrix
from samespace.vectors import embedded


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
    is in seconds, to connect (10 at most), to send, to wait for an answer and to read it, each. Limits,
    failures of the server and of the connection are tried again, up to ``attempts`` times in all, and no
    pause begins ``retry_seconds`` after the first. A pause is ``retry_wait`` seconds, doubled each
    time up to 30, with jitter, or as long as ``Retry-After`` asks for, if that is longer; what asks
    for more than is left of those seconds is not tried again. Time in which a request waits for its
    turn, within what is allowed or said to be left, is no part of any of these.

    A text that the model has no room for is refused: :class:`~samespace.errors.TokenLimitExceeded`
    names it. With ``on_too_long="truncate"`` the API cuts it, but only after it has refused the
    text uncut, so that :meth:`usage` names exactly those that were cut. Texts that may be too long
    are asked for first, so that a caller who then leaves them out pays for the others once. A text on
    which the server itself fails at every attempt (500), while it answers others of its request, is
    named too. Other failures are another :class:`~samespace.errors.EmbeddingError`; one without
    ``indices`` concerns the whole call.

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
        key = Key(api_key, variable=KEY)
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

    def provenance(self) -> Mapping[str, str]:
        """What made the vectors: the API, its model, and whether texts were cut."""
        return {
            "backend": "jina-api",
            "model": self._space.model,
            "truncation": "reported" if self._truncates else "never",
        }

    @property
    def counts_exactly(self) -> bool:
        """Whether :meth:`count_tokens` found a tokenizer when it was last needed; else it estimates."""
        return self._tokens.is_exact

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special ones included; without a tokenizer rather too many."""
        exchange.check_texts(texts)
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
        exchange.check_documents(documents)
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
                    raise exchange.refused_documents(call.refused)
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
            raise exchange.refused_documents(bad)
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
        return wire.read_answer(content, self._space, count=count, hide=self._key.hide)

    def _fault(self, status: int, content: bytes, *, wait: float | None) -> Fault:
        return wire.fault_of(status, content, self._space, wait=wait, hide=self._key.hide)

    def _instead(self, question: Question, fault: Fault) -> Question | None:
        if (
            self._truncates
            and fault.too_long
            and len(question.texts) == 1
            and not question.truncate
        ):
            return replace(question, truncate=True)
        return None

    def _bad(self, reason: str) -> BadResponse:
        return wire.bad(reason)

    def _unreachable(self, reason: str) -> Fault:
        return wire.unreachable(reason)

    def _most_bytes(self, count: int) -> int:
        return wire.most_bytes(self._space, count)
