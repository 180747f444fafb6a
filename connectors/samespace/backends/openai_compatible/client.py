# Generated from client_async.py by tools/generate_sync.py; change that file, not this one.
"""Asking a server of OpenAI's shape: base64 until it refuses that, prompts in front of the texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from samespace.backends.http.call import Question
from samespace.backends.http.client import HTTPBackend
from samespace.backends.http.exchange import Answer, Fault, check_texts
from samespace.backends.http.gate import in_thread
from samespace.backends.http.limits import Limits
from samespace.backends.http.options import Key, Patience, check_limits, checked_address
from samespace.backends.http.tokens import TokenCounter
from samespace.backends.openai_compatible import wire
from samespace.errors import BadResponse, InvalidInput, excerpt
from samespace.models import find_model
from samespace.names import is_unstorable
from samespace.protocols import Matrix
from samespace.space import EmbeddingSpace

_ADDRESS: Final = "http://localhost:8080/v1"
_PROMPTS: Final = '{"documents": "passage: ", "queries": "query: "}'
_PARAMETERS: Final = '{"documents": {"task": "retrieval.passage"}, "queries": {"task": …}}'


class OpenAICompatibleBackend(HTTPBackend):
    """A model behind ``POST base_url/embeddings``: text-embeddings-inference, vLLM, infinity, ….

    ``model`` is what the server calls it, ``space`` where its vectors live, as you declare it. The
    protocol has no task: ``prompts`` ({"documents": …, "queries": …}) are put in front of the texts,
    and ``parameters``, by the same names, are further fields of a request, for servers with a task
    of their own. A prompt changes vectors: unless it is the one that the model's task stands for,
    name it in the space's ``variant``. Whether the server itself truncates long texts is
    the server's setting; switch that off there.

    ``dimensions`` are asked for where a known model has more than the space, or as
    ``ask_dimensions`` says. Vectors come in base64 until the server refuses that, then as numbers; a
    server that takes no ``encoding_format`` at all is sent none. What it takes is remembered, and so
    is how many texts at once, where it refuses more. The key, if there is any, comes from ``api_key``
    or ``OPENAI_COMPATIBLE_API_KEY``, and is shown nowhere. ``limits``, ``tokenizer``,
    ``timeout``, ``attempts``, ``retry_seconds`` and ``retry_wait`` are those of
    :class:`~samespace.JinaAPIBackend`; so are the errors, and what threads, tasks and forks may
    do with a handle.
    """

    def __init__(
        self,
        base_url: str,
        *,
        model: str,
        space: EmbeddingSpace,
        prompts: Mapping[str, str] | None = None,
        parameters: Mapping[str, Mapping[str, Any]] | None = None,
        ask_dimensions: bool | None = None,
        api_key: str | None = None,
        limits: Limits | None = None,
        tokenizer: str | Path | None = None,
        timeout: float = 60.0,
        attempts: int = 8,
        retry_seconds: float = 120.0,
        retry_wait: float = 0.5,
    ) -> None:
        key = Key(api_key, variable=wire.KEY)
        del api_key  # a traceback with locals must not show it
        key.check(needed=False)
        _check_names(model, space)
        self._model = model
        self._prompts = wire.check_sides(prompts, name="prompts", kind=str, example=_PROMPTS)
        self._parameters = wire.check_sides(
            parameters, name="parameters", kind=Mapping, example=_PARAMETERS
        )
        wire.check_prompts(self._prompts)
        self._parameters = wire.copied_parameters(self._parameters)
        wire.check_directions(space, self._prompts, self._parameters)
        asks = wire.asks_for_dimensions(space, ask_dimensions)
        self._dimensions = space.dimensions if asks else None
        self._encoding = 0  # of wire.ENCODINGS
        known = find_model(space.model)
        super().__init__(
            space,
            checked_address(base_url, named="base_url", variable=wire.KEY, example=_ADDRESS),
            key=key,
            limits=check_limits(limits),
            patience=Patience(
                timeout=timeout,
                attempts=attempts,
                retry_seconds=retry_seconds,
                retry_wait=retry_wait,
            ),
            tokens=TokenCounter(space.model, tokenizer),
            context=known.context if known else None,
        )

    def provenance(self) -> Mapping[str, str]:
        """What made the vectors: the protocol and the server's name of the model."""
        return {
            "backend": "openai-compatible",
            "model": self._model,
            "truncation": "as the server is set",
        }

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as a document, its prompt and special ones included.

        Without a tokenizer rather too many.
        """
        check_texts(texts)
        counts = self._tokens.counted(self._prompted(texts, "documents"))
        return [self._tokens.likely(count) for count in counts]

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``, with the documents' prompt."""
        return self._embed_as(texts, "documents")

    def embed_queries(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``, with the queries' prompt."""
        return self._embed_as(texts, "queries")

    def _embed_as(self, texts: Sequence[str], side: str) -> Matrix:
        self._check_usable()
        check_texts(texts)
        prompted = self._prompted(texts, side)
        counts = in_thread(partial(self._tokens.counted, prompted))
        return self._embed(texts, counts, side)

    def _prompted(self, texts: Sequence[str], side: str | None) -> list[str]:
        prompt = self._prompts.get(side or "", "")
        return [prompt + text for text in texts]

    def _body(self, question: Question) -> bytes:
        return wire.request_body(
            self._model,
            self._prompted(question.texts, question.task),
            encoding=wire.ENCODINGS[max(self._encoding, question.encoding)],
            dimensions=self._dimensions,
            parameters=self._parameters.get(question.task or "", {}),
        )

    def _decoded(self, content: bytes, count: int) -> Answer:
        return wire.read_answer(content, self._space, count=count, hide=self._key.hide)

    def _fault(self, status: int, content: bytes, *, wait: float | None) -> Fault:
        return wire.fault_of(status, content, self._space, wait=wait, hide=self._key.hide)

    def _instead(self, question: Question, fault: Fault) -> Question | None:
        """The same in the next encoding, where a server does not take this one."""
        following = question.encoding + 1
        if not fault.of_encoding or following == len(wire.ENCODINGS):
            return None
        self._encoding = max(self._encoding, following)
        return replace(question, encoding=following)

    def _bad(self, reason: str) -> BadResponse:
        return wire.bad(reason)

    def _unreachable(self, reason: str) -> Fault:
        return wire.unreachable(reason)

    def _most_bytes(self, count: int) -> int:
        return wire.most_bytes(self._space, count)


def _check_names(model: object, space: object) -> None:
    if not isinstance(model, str) or not model or is_unstorable(model):
        raise InvalidInput(f"model is {excerpt(model)}; pass the name that the server has for it")
    if not isinstance(space, EmbeddingSpace):
        raise InvalidInput(
            f"space is {excerpt(space)}; pass the EmbeddingSpace that the server's vectors live in"
        )
