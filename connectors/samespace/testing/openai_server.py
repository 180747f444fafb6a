"""A local server that embeds by OpenAI's protocol, as self-hosted ones do: no network, no model.

::

    with OpenAIServer(model="served") as server:
        backend = OpenAICompatibleBackend(server.url, model="served", space=…)

Its vectors are those of :class:`~samespace.testing.jina_server.JinaServer`, whose faults it can have
too. A field ``task`` is understood, as on-premises servers do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from samespace.models import find_model
from samespace.testing.jina_server import JinaServer, Json, Refusal, shown
from samespace.testing.jina_vectors import LexicalModel, count_tokens

_ENCODINGS: Final = ("float", "base64")


def openai_error(message: str, *, type: str = "invalid_request_error", code: Any = None) -> Json:
    """An error as OpenAI, vLLM and infinity send it."""
    return {"error": {"message": message, "type": type, "param": None, "code": code}}


class OpenAIServer(JinaServer):
    """OpenAI's protocol on a free port of the loopback interface.

    ``model`` is its name for the one model it has, whose vectors are those of ``embeds_as``. Without
    ``keys`` it asks for none. ``takes_base64=False`` refuses that encoding, ``takes_encoding=False`` any,
    ``always_float`` leaves it unheeded. The other limits are those of :class:`JinaServer`.
    """

    def __init__(
        self,
        *,
        model: str,
        embeds_as: str = "jina-embeddings-v3",
        keys: Iterable[str] = (),
        takes_base64: bool = True,
        takes_encoding: bool = True,
        always_float: bool = False,
        items_per_request: int = 2048,
        context: int = 8192,
        shuffled: bool = False,
    ) -> None:
        super().__init__(keys=keys, items_per_request=items_per_request, shuffled=shuffled)
        found = find_model(embeds_as)
        if found is None:
            raise ValueError(f"{embeds_as} is no known model")
        self._served = model
        self._model = found
        self._room = context
        self._takes_base64 = takes_base64
        self._takes_encoding = takes_encoding
        self._always_float = always_float

    def _check_key(self, authorization: str | None) -> None:
        scheme, _, key = (authorization or "").partition(" ")
        if self._keys and not (scheme == "Bearer" and key in self._keys):
            raise Refusal(401, openai_error("Incorrect API key provided", code="invalid_api_key"))

    def _embedded(self, request: Json) -> Json:
        encoding = self._checked_encoding(request)
        texts = self._checked_texts(request)
        self._check_parameters(request)
        vectors = LexicalModel(self._model).embed(
            texts,
            task=request.get("task", self._model.default_task),
            dimensions=request.get("dimensions", self._model.dimensions),
        )
        items = [
            {"object": "embedding", "index": place, "embedding": each}
            for place, each in enumerate(shown(vectors, encoding))
        ]
        tokens = sum(map(count_tokens, texts))
        return {
            "model": self._served,
            "object": "list",
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "data": items[::-1] if self._shuffled else items,
        }

    def _checked_encoding(self, request: Json) -> str:
        encoding: str = request.get("encoding_format", "float")
        is_refused = "encoding_format" in request and not self._takes_encoding
        if is_refused or encoding not in _ENCODINGS[: 1 + self._takes_base64]:
            raise Refusal(400, openai_error(f"encoding_format {encoding} is not supported"))
        return "float" if self._always_float else encoding

    def _check_parameters(self, request: Json) -> None:
        most = self._model.dimensions
        size = request.get("dimensions", most)
        if type(size) is not int or not 1 <= size <= most:
            raise Refusal(400, openai_error(f"dimensions should be 1 to {most}"))
        if request.get("task") not in {None, *self._model.tasks}:
            raise Refusal(400, openai_error(f"task should be one of {self._model.tasks}"))

    def _checked_texts(self, request: Json) -> list[str]:
        if request.get("model") != self._served:
            raise Refusal(404, openai_error("The model does not exist", code="model_not_found"))
        given = request.get("input")
        texts: Any = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not texts or not all(map(_is_text, texts)):
            raise Refusal(400, openai_error("input should be a text or a list of texts"))
        if len(texts) > self._items_per_request:
            most = f"maximum allowed batch size {self._items_per_request}"
            raise Refusal(422, {"error": f"batch size {len(texts)} > {most}", "type": "validation"})
        longest = max(map(count_tokens, texts))
        if longest > self._room:
            said = f"This model's maximum context length is {self._room} tokens, not {longest}"
            raise Refusal(400, openai_error(said, type="BadRequestError", code=400))
        return texts


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)
