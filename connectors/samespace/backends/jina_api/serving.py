"""The API's contract as a server keeps it: what a request may say, refusals, vectors as they are sent."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from samespace.backends.jina_api.late import room_of
from samespace.models import Model, find_model
from samespace.protocols import Matrix

PATH: Final = "/v1/embeddings"
_COMMON: Final = frozenset({"model", "input", "embedding_type", "truncate"})
_TYPES: Final = ("float", "base64", "binary", "ubinary")
_SWITCHES: Final = ("normalized", "truncate", "late_chunking")

Json = dict[str, Any]


class Refusal(Exception):
    """An error answer: its status, its body, and headers of its own."""

    def __init__(self, status: int, body: Json, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body
        self.headers = dict(headers or {})


def error_body(code: str, detail: str = "refused", *, nested: bool = False) -> Json:
    """An error in the one or the other form that the API has."""
    said = {"code": code, "request_id": "req-0"}
    return {"detail": {"message": detail, **said}} if nested else {"detail": detail, **said}


def invalid(field: str, message: str, *, type: str = "value_error") -> Refusal:
    """The 422 that a wrong parameter gets."""
    complaint = {"field": field, "message": message, "type": type, "input": None}
    return Refusal(422, {"detail": "Validation error", "errors": [complaint]})


def too_long(detail: str) -> Refusal:
    """The 400 for texts that the model has no room for."""
    return Refusal(400, error_body("INPUT_TOKEN_LIMIT_EXCEEDED", detail))


def unknown_model() -> Refusal:
    """The 400 for a model that is not served."""
    return Refusal(400, error_body("INPUT_MODEL_NOT_FOUND", "Model not found"))


def bearer(authorization: str | None) -> str:
    """The key in a header ``Authorization``; :class:`Refusal` if there is none."""
    if not authorization:
        raise Refusal(401, error_body("AUTH_MISSING_API_KEY", "API key is missing"))
    scheme, _, key = authorization.partition(" ")
    key = key.strip(" ")
    if scheme.lower() != "bearer" or not key:
        raise Refusal(401, error_body("AUTH_INVALID_FORMAT", "Use: Bearer <key>"))
    return key


def wrong_key() -> Refusal:
    """The 401 for a key that is none."""
    return Refusal(401, error_body("AUTH_INVALID_API_KEY", "API key is invalid"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for, all of it valid for the model."""

    model: Model
    named: str
    """The model as the client calls it, which is what it is told."""
    texts: list[str]
    task: str | None
    dimensions: int
    normalized: bool
    truncate: bool
    late_chunking: bool
    embedding_type: str


def parsed(body: bytes) -> Json:
    """A body as an object; :class:`Refusal` for anything else."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict):
        raise invalid("body", "Input should be a JSON object")
    return request


def model_of(request: Json) -> Model:
    """The model that a request names."""
    name = request.get("model")
    model = find_model(name) if isinstance(name, str) else None
    if model is None:
        raise unknown_model()
    return model


def requested(body: Json, *, most: int) -> Request:
    """What is asked for, with at most so many texts; :class:`Refusal` for what the model does not know."""
    model = model_of(body)
    _check_names(body, model)
    _check_values(body, model)
    return Request(
        model=model,
        named=body["model"],
        texts=texts_of(body, most),
        task=body.get("task", model.default_task),
        dimensions=body.get("dimensions", model.dimensions),
        normalized=body.get("normalized", True),
        truncate=body.get("truncate", False),
        late_chunking=body.get("late_chunking", False),
        embedding_type=body.get("embedding_type", "float"),
    )


def _check_names(body: Json, model: Model) -> None:
    known = {
        *_COMMON,
        *(["task"] if model.tasks else []),
        *(["dimensions"] if model.takes_dimensions else []),
        *(["normalized"] if model.takes_normalized else []),
        *(["late_chunking"] if model.late_chunking else []),
    }
    for name in body:
        if name not in known:
            raise invalid(name, "Extra inputs are not permitted", type="extra_forbidden")


def _check_values(body: Json, model: Model) -> None:
    if "task" in body and body["task"] not in model.tasks:
        raise invalid("task", f"Input should be one of {', '.join(model.tasks)}", type="enum")
    size = body.get("dimensions", model.dimensions)
    if type(size) is not int or not model.min_dimensions <= size <= model.dimensions:
        bounds = f"{model.min_dimensions} to {model.dimensions}"
        raise invalid("dimensions", f"Input should be {bounds}", type="out_of_range")
    for name in _SWITCHES:
        if type(body.get(name, False)) is not bool:
            raise invalid(name, "Input should be a boolean", type="bool_type")
    if body.get("embedding_type", "float") not in _TYPES:
        raise invalid("embedding_type", f"Input should be one of {', '.join(_TYPES)}", type="enum")


def texts_of(body: Json, most: int) -> list[str]:
    """The texts of a request, alone or in a list, as such or as ``{"text": …}``; at most so many."""
    given = body.get("input")
    items: Sequence[Any] = given if isinstance(given, list) else [given]
    if not items:
        raise invalid("input", "List should have at least 1 item", type="too_short")
    if len(items) > most:
        raise invalid("input", f"List should have at most {most} items", type="too_long")
    texts: list[Any] = [item.get("text") if isinstance(item, dict) else item for item in items]
    for place, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise invalid(f"input.{place}", "Input should be a text", type="string_type")
    return texts


def room_for(request: Request, context: int | None = None) -> int:
    """Tokens for a text, or for all together with late chunking; ``context``: in place of the model's."""
    context = context or request.model.context
    return min(context, room_of(request.model)) if request.late_chunking else context


def answered(request: Request, embeddings: Sequence[Any], tokens: int) -> Json:
    """The answer to a request, its embeddings being in the form that it wants."""
    items = [
        {"object": "embedding", "index": place, "embedding": each}
        for place, each in enumerate(embeddings)
    ]
    return {
        "model": request.named,
        "object": "list",
        "usage": {"total_tokens": tokens},
        "data": items,
    }


def shown(vectors: Matrix, embedding_type: str) -> list[Any]:
    """Each vector as the request wants it: numbers, base64, or sign bits."""
    if embedding_type == "base64":
        return [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    if embedding_type == "float":
        return list(vectors.tolist())
    packed = np.packbits(vectors > 0, axis=1).astype(int)
    return list((packed - 128 if embedding_type == "binary" else packed).tolist())
