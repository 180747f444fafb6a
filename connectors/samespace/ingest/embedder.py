"""The embedding stage: each text once, refused ones apart, chunks together where that is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from samespace.documents import Document, Rejected
from samespace.embedding import (
    embed_chunks,
    embed_chunks_async,
    embed_documents,
    embed_documents_async,
    is_async,
    usage_of,
)
from samespace.errors import AuthenticationFailed, EmbeddingError, QuotaExhausted
from samespace.ingest.pieces import Plan
from samespace.ingest.target import unique
from samespace.ingest.worker import Worker
from samespace.protocols import AnyBackend, Usage, Vector


@dataclass(slots=True)
class Made:
    """What became of a plan's texts.

    ``refused`` are the documents that were to be embedded together and were not. ``texts`` are held
    for others that are in flight.
    """

    rows: list[tuple[Document, Vector]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    truncated: list[str] = field(default_factory=list)
    tokens: int = 0
    embedded: int = 0
    texts: list[str] = field(default_factory=list)


class Embedder:
    """Embeds what plans ask for, one after the other."""

    def __init__(self, backend: AnyBackend, worker: Worker) -> None:
        self._backend: Any = backend
        self._worker = worker
        self._in_flight: dict[str, Vector] = {}
        self.spent = 0
        """Tokens, also of calls that failed."""

    async def embed(self, plan: Plan) -> Made:
        """Vectors for a plan's documents; the error that concerns all of them."""
        made = Made(rows=list(plan.ready))
        spent = self.spent
        await self._each(plan.embed, made)
        await self._together(plan.together, made)
        made.tokens = self.spent - spent
        return made

    def forget(self, texts: Iterable[str]) -> None:
        """These are stored: whoever has one of them will find it there."""
        for text in texts:
            self._in_flight.pop(text, None)

    async def _each(self, documents: Sequence[Document], made: Made) -> None:
        texts = unique(document.embedded_text for document in documents)
        held = {text: self._in_flight[text] for text in texts if text in self._in_flight}
        new = [text for text in texts if text not in held]
        call = embed_documents_async if is_async(self._backend) else embed_documents
        kept, vectors, refused, cut = await self._accepted(call, new)
        made.texts = [new[place] for place in kept]
        found = dict(zip(made.texts, vectors, strict=True))
        self._in_flight |= found
        held |= found  # of what is in flight, some may have been stored meanwhile
        made.embedded += len(kept)
        errors = {new[place]: error for place, error in refused.items()}
        truncated = {new[place] for place in cut}
        for document in documents:
            text = document.embedded_text
            if text in errors:
                made.rejected.append(Rejected(document.id, errors[text]))
            else:
                made.rows.append((document, held[text]))
                made.truncated += [document.id] if text in truncated else []

    async def _together(self, documents: Sequence[tuple[Document, ...]], made: Made) -> None:
        chunks = [[piece.embedded_text for piece in pieces] for pieces in documents]
        call = embed_chunks_async if is_async(self._backend) else embed_chunks
        kept, matrices, refused, _ = await self._accepted(call, chunks)
        for place, matrix in zip(kept, matrices, strict=True):
            made.rows += zip(documents[place], matrix, strict=True)
            made.embedded += len(matrix)
        for place, error in refused.items():
            parent = documents[place][0].parent
            named = parent.id if parent else documents[place][0].id
            made.rejected.append(Rejected(named, error))
            made.refused.add(named)

    async def _accepted(
        self, call: Callable[..., Any], inputs: Sequence[Any]
    ) -> tuple[list[int], Sequence[Any], dict[int, EmbeddingError], list[int]]:
        """Places of what was embedded, its vectors, the refused places with why, those that were cut."""
        kept, refused = list(range(len(inputs))), dict[int, EmbeddingError]()
        while kept:
            answer, usage = await self._answer(call, [inputs[place] for place in kept])
            self.spent += usage.tokens
            if not isinstance(answer, EmbeddingError):
                return kept, answer, refused, [kept[i] for i in usage.truncated if i < len(kept)]
            named = {kept[i] for i in answer.indices if 0 <= i < len(kept)}
            if not named or isinstance(answer, AuthenticationFailed | QuotaExhausted):
                raise answer
            refused |= dict.fromkeys(sorted(named), answer)
            kept = [place for place in kept if place not in named]
        return [], [], refused, []

    async def _answer(self, call: Callable[..., Any], inputs: Sequence[Any]) -> tuple[Any, Usage]:
        """Vectors or the error, and what the call cost: a part of it may have been paid."""
        if not is_async(self._backend):
            return await self._worker.do(partial(_answered, call, self._backend, inputs))
        try:
            answered: tuple[Any, Usage] = await call(self._backend, inputs)
        except EmbeddingError as error:
            return error, usage_of(self._backend)
        return answered


def _answered(
    call: Callable[..., tuple[Any, Usage]], backend: AnyBackend, inputs: Sequence[Any]
) -> tuple[Any, Usage]:
    try:
        return call(backend, inputs)
    except EmbeddingError as error:
        return error, usage_of(backend)
