"""The embedding stage: each text once, refused ones apart, chunks together where that is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from samespace.documents import Document, Rejected
from samespace.embedding import (
    Embedded,
    embed,
    embed_async,
    embed_chunks,
    embed_chunks_async,
    embed_documents,
    embed_documents_async,
    is_async,
    usage_of,
)
from samespace.errors import AuthenticationFailed, EmbeddingError, QuotaExhausted
from samespace.ingest.pieces import Plan, Unit, of_chunk
from samespace.ingest.target import unique
from samespace.ingest.worker import Worker
from samespace.protocols import AnyBackend, EmbeddingBackend, Usage, Vector


@dataclass(slots=True)
class Made:
    """What became of a plan's texts.

    ``refused`` are the documents of which nothing is stored, since a chunk was refused. ``texts`` are
    held for others that are in flight.
    """

    rows: list[tuple[Document, Vector]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    truncated: list[str] = field(default_factory=list)
    embedded: int = 0
    texts: list[str] = field(default_factory=list)

    def withhold(self, units: Iterable[Unit], plan: Plan) -> None:
        """Where a chunk was refused, leave its document as it was, and reject that instead."""
        reasons = {item.id: item.error for item in self.rejected}
        withheld: set[str] = set()
        for unit in units if reasons else ():
            bad = next((piece.id for piece in unit.pieces if piece.id in reasons), None)
            if unit.parent is not None and bad is not None:
                withheld |= {piece.id for piece in unit.pieces}
                self.refused.add(unit.parent)
                self.rejected.append(Rejected(unit.parent, of_chunk(bad, reasons[bad])))
        if withheld:
            self._take_out(withheld, plan)

    def _take_out(self, ids: Collection[str], plan: Plan) -> None:
        self.rows = [row for row in self.rows if row[0].id not in ids]
        self.rejected = [item for item in self.rejected if item.id not in ids]
        self.truncated = [id for id in self.truncated if id not in ids]
        plan.metadata = {id: each for id, each in plan.metadata.items() if id not in ids}


@dataclass(slots=True)
class Answers:
    """What came of texts that were asked for together: a vector or an error for each, by text."""

    vectors: dict[str, Vector]
    errors: dict[str, EmbeddingError]
    cut: set[str]


class Embedder:
    """Embeds what plans ask for: as many of them at once as there are workers, each text once."""

    def __init__(
        self,
        backend: AnyBackend,
        workers: Iterable[Worker],
        *,
        check_again: Callable[[Sequence[str]], Awaitable[object]] | None = None,
    ) -> None:
        """``check_again`` may raise for texts that are asked for again since others were refused."""
        self._backend: Any = backend
        self._free = list(workers)
        self._check_again = check_again
        self._in_flight: dict[str, asyncio.Future[Answers]] = {}
        self.spent = 0
        """Tokens, also of calls that failed."""

    async def embed(self, plan: Plan, *, partly: bool = False) -> Made:
        """Vectors for a plan's documents; the error that concerns all of them.

        ``partly`` leaves out documents whose text another call asks for that fails, and raises there alone.
        """
        made = Made(rows=list(plan.ready))
        try:
            await self._each(plan.embed, made, partly=partly)
            await self._together(plan.together, made)
        except BaseException:
            self.forget(made.texts)  # nobody will store them: whoever tries again asks anew
            raise
        return made

    async def embed_as_queries(self, texts: Sequence[str]) -> dict[str, Vector]:
        """The vectors that texts have as queries; those that are refused are left out."""
        call = _queries_async if is_async(self._backend) else _queries
        kept, vectors, _, _ = await self._accepted(call, texts)
        return {texts[place]: vector for place, vector in zip(kept, vectors, strict=True)}

    def forget(self, texts: Iterable[str]) -> None:
        """These are stored: whoever has one of them will find it there."""
        for text in texts:
            self._in_flight.pop(text, None)

    async def _each(self, documents: Sequence[Document], made: Made, *, partly: bool) -> None:
        texts = unique(document.embedded_text for document in documents)
        # Before anything is waited for: what is in flight may be stored meanwhile, and forgotten.
        others = {text: self._in_flight[text] for text in texts if text in self._in_flight}
        made.texts = [text for text in texts if text not in others]
        own = asyncio.get_running_loop().create_future()
        self._in_flight |= dict.fromkeys(made.texts, own)
        answers = await self._asked(made.texts, own)
        found = dict.fromkeys(made.texts, answers) | await _of_others(others, partly=partly)
        made.embedded += len(answers.vectors)
        _place([each for each in documents if each.embedded_text in found], found, made)

    async def _asked(self, texts: Sequence[str], own: asyncio.Future[Answers]) -> Answers:
        """What came of texts, or the error, told to those that wait for them, too."""
        try:
            own.set_result(await self._answers(texts))
            return own.result()
        except Exception as error:
            own.set_exception(error)
            own.exception()  # there may be nobody else who looks
            raise
        finally:
            own.cancel()  # where this was cancelled; else it is done

    async def _answers(self, texts: Sequence[str]) -> Answers:
        call = embed_documents_async if is_async(self._backend) else embed_documents
        kept, vectors, refused, cut = await self._accepted(call, texts, self._check_again)
        return Answers(
            vectors=dict(zip([texts[place] for place in kept], vectors, strict=True)),
            errors={texts[place]: error for place, error in refused.items()},
            cut={texts[place] for place in cut},
        )

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
        self,
        call: Callable[..., Any],
        inputs: Sequence[Any],
        check_again: Callable[[Sequence[Any]], Awaitable[object]] | None = None,
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
            if check_again is not None:
                await check_again([inputs[place] for place in kept])
        return [], [], refused, []

    async def _answer(self, call: Callable[..., Any], inputs: Sequence[Any]) -> tuple[Any, Usage]:
        """Vectors or the error, and what the call cost: a part of it may have been paid."""
        if not is_async(self._backend):
            return await self._in_thread(partial(_answered, call, self._backend, inputs))
        try:
            answered: tuple[Any, Usage] = await call(self._backend, inputs)
        except EmbeddingError as error:
            return error, usage_of(self._backend)
        return answered

    async def _in_thread(self, work: Callable[[], tuple[Any, Usage]]) -> tuple[Any, Usage]:
        worker = self._free.pop()
        try:
            return await worker.do(work)
        finally:
            self._free.append(worker)


async def _of_others(
    others: Mapping[str, asyncio.Future[Answers]], *, partly: bool
) -> dict[str, Answers]:
    """What came of texts that others have asked for."""
    found: dict[str, Answers] = {}
    for text, other in others.items():
        try:
            # Shielded: who is cancelled while waiting must not cancel what others wait for.
            found[text] = await asyncio.shield(other)
        except Exception:
            if not partly:  # else whoever asked has its error, and who waited asks anew
                raise
    return found


def _place(documents: Sequence[Document], found: Mapping[str, Answers], made: Made) -> None:
    """Give each document what came of its text."""
    for document in documents:
        text = document.embedded_text
        answers = found[text]
        if text in answers.errors:
            made.rejected.append(Rejected(document.id, answers.errors[text]))
            continue
        made.rows.append((document, answers.vectors[text]))
        if text in answers.cut:
            made.truncated.append(document.id)


def _queries(backend: EmbeddingBackend, texts: Sequence[str]) -> Embedded:
    return embed(backend, "queries", texts)


async def _queries_async(backend: AnyBackend, texts: Sequence[str]) -> Embedded:
    return await embed_async(backend, "queries", texts)


def _answered(
    call: Callable[..., tuple[Any, Usage]], backend: AnyBackend, inputs: Sequence[Any]
) -> tuple[Any, Usage]:
    try:
        return call(backend, inputs)
    except EmbeddingError as error:
        return error, usage_of(backend)
