"""What goes to a server of OpenAI's shape and what comes back, as pure functions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from samespace.backends.http.answers import (
    Hide,
    Unusable,
    begins,
    check_model,
    first_text,
    heard_in,
    json_object,
    opened,
    plain_code,
    tokens_of,
    vectors_of,
)
from samespace.backends.http.exchange import EVERY_TIME, Answer, Fault, is_temporary, unavailable
from samespace.errors import (
    AuthenticationFailed,
    BackendUnavailable,
    BadResponse,
    EmbeddingError,
    InvalidInput,
    QuotaExhausted,
    RateLimited,
    TokenLimitExceeded,
    excerpt,
)
from samespace.models import find_model
from samespace.names import check_storable
from samespace.space import EmbeddingSpace

KEY: Final = "OPENAI_COMPATIBLE_API_KEY"
"""Not the variable of any vendor: its key would go to whichever server is named."""
SIDES: Final = ("documents", "queries")
OWN: Final = frozenset({"model", "input", "encoding_format", "dimensions"})
"""Parameters that the backend decides on."""

_DIGITS: Final = 28
"""Bytes of a number in JSON, with what is around it: the most that servers write."""
_TOO_LONG: Final = re.compile(
    r"context.{0,20}length|context_length|must have less than|too long|longer than|maximum length"
    r"|too large to process|too many.{0,9} tokens",
    re.IGNORECASE,
)
_TOO_MANY: Final = re.compile(
    r"(?<!physical )batch size|too many(?!.{0,9} tokens)|at most \d+ items", re.IGNORECASE
)
_BASE64: Final = re.compile(r"encoding_format|base64", re.IGNORECASE)


ENCODINGS: Final = ("base64", "float", None)
"""How vectors are asked for, each where a server refuses those before; at last not at all."""


@dataclass(frozen=True, slots=True)
class _Said:
    """What an error body says, whichever of its shapes it has."""

    code: str = ""
    detail: str = ""


# What is asked


def check_sides(value: object, *, name: str, kind: type, example: str) -> dict[str, Any]:
    """What is given for each side; :class:`InvalidInput` for anything else."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not set(value) <= set(SIDES):
        raise InvalidInput(f"{name} is {excerpt(value)}; pass {example}")
    for side, each in value.items():
        if not isinstance(each, kind):
            raise InvalidInput(f"{name} for {side} is {excerpt(each)}; pass {example}")
    return dict(value)


def check_prompts(prompts: Mapping[str, str]) -> None:
    """:class:`InvalidInput` for a prompt that no request can have in front of a text."""
    for side, prompt in prompts.items():
        check_storable(prompt, what=f"prompts for {side}")


def copied_parameters(parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Parameters as they are now, however deep.

    :class:`InvalidInput` for those that are not JSON or that the backend decides on.
    """
    copies: dict[str, dict[str, Any]] = {}
    for side, given in parameters.items():
        taken = sorted(OWN & set(given))
        if taken:
            raise InvalidInput(
                f"parameters for {side} have {', '.join(taken)}, which the backend sends itself; "
                "leave that out"
            )
        try:
            copies[side] = orjson.loads(json.dumps(dict(given), allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInput(
                f"parameters for {side} are no JSON ({excerpt(str(error))})"
            ) from None
    return copies


def check_directions(
    space: EmbeddingSpace, prompts: Mapping[str, Any], parameters: Mapping[str, Any]
) -> None:
    """:class:`InvalidInput` if queries would be embedded as documents are, and should not be."""
    alike = all(given.get("documents") == given.get("queries") for given in (prompts, parameters))
    if alike and space.query_task != space.task:
        raise InvalidInput(
            f"documents of {space} have another task than their queries, {space.query_task}, and "
            'nothing would tell the server: pass prompts={"documents": …, "queries": …}, or '
            'parameters={"documents": {"task": …}, "queries": {"task": …}} if it takes a task'
        )


def asks_for_dimensions(space: EmbeddingSpace, asked: bool | None) -> bool:
    """Whether a request says ``dimensions``: as told, else where the model has more of them."""
    if asked is not None and not isinstance(asked, bool):
        raise InvalidInput(f"ask_dimensions is {excerpt(asked)}; pass True, False or None")
    model = find_model(space.model)
    if asked is None:
        return model is not None and model.dimensions != space.dimensions
    return asked


def request_body(
    model: str,
    texts: Sequence[str],
    *,
    encoding: str | None,
    dimensions: int | None,
    parameters: Mapping[str, Any],
) -> bytes:
    """The JSON of one request."""
    body: dict[str, Any] = {**parameters, "model": model, "input": list(texts)}
    if encoding is not None:
        body["encoding_format"] = encoding
    if dimensions is not None:
        body["dimensions"] = dimensions
    return orjson.dumps(body)


def most_bytes(space: EmbeddingSpace, count: int) -> int:
    """How long a true answer for ``count`` texts can be; anything longer is none."""
    return 65_536 + count * (space.dimensions * _DIGITS + 512)


# What is answered


def read_answer(content: bytes, space: EmbeddingSpace, *, count: int, hide: Hide = str) -> Answer:
    """The vectors of an answer, in the order of the texts whatever the order of ``data``.

    In base64 or as numbers, whichever the server chose. :class:`BadResponse`, without ``indices``,
    if anything is not as it must be; then nothing of it is used.
    """
    try:
        answer = opened(content, error_in=_detail, hide=hide)
        check_model(answer.get("model"), space, hide=hide, known_only=True)
        vectors = vectors_of(answer.get("data"), space.dimensions, count=count, as_numbers=True)
    except Unusable as defect:
        raise bad(str(defect)) from None
    return Answer(vectors, tokens_of(answer.get("usage")))


def bad(reason: str) -> BadResponse:
    """For an answer that cannot be used, and why."""
    return BadResponse(
        f"the embedding server's answer cannot be used: {reason}; nothing of it was. Check "
        "base_url=, model= and space="
    )


# What is refused


def unreachable(reason: str) -> Fault:
    """For a request that got no whole answer: connection, TLS, proxy, time."""
    return Fault(
        BackendUnavailable(
            f"the embedding server did not answer ({excerpt(reason)}); check base_url= and that it "
            "runs, or allow more in timeout=, attempts= and retry_seconds="
        ),
        retry=True,
    )


def fault_of(
    status: int,
    content: bytes,
    space: EmbeddingSpace,
    *,
    wait: float | None,
    hide: Hide = str,
) -> Fault:
    """What an answer other than 200 means. ``wait`` is what its ``Retry-After`` asks for."""
    said = _said(content, hide)
    answers = f"the embedding server answers {status}"
    heard = heard_in(answers, hide(said.code), hide(said.detail), wait=wait)
    if status in {401, 403}:
        return Fault(AuthenticationFailed(f"{heard}: pass a key that may, in api_key= or {KEY}"))
    if status == 402 or said.code == "insufficient_quota":
        return Fault(QuotaExhausted(f"{heard}: top up the account, then run the same again"))
    if status == 429:
        message = (
            f"{heard} {EVERY_TIME}; raise attempts= and "
            "retry_seconds=, or ask for less at once: limits=Limits(in_flight=…)"
        )
        return Fault(RateLimited(message), retry=True, wait=wait, limited=True)
    if status == 500 and _TOO_LONG.search(said.detail):  # llama.cpp
        return _too_long(heard, space)
    if is_temporary(status) or status == 424:  # inference failed, in text-embeddings-inference
        message = f"{heard} {EVERY_TIME}; see the server's log"
        return unavailable(status, message, wait=wait)
    return _refused(status, said, heard, space)


def _refused(status: int, said: _Said, heard: str, space: EmbeddingSpace) -> Fault:
    if status < 400:
        return Fault(bad(f"{heard}, and neither vectors nor an error"))
    if status in {400, 413, 422} and _TOO_MANY.search(said.detail):
        return Fault(
            EmbeddingError(f"{heard}; lower texts_per_request= in limits=Limits(…)"), halve=True
        )
    if status == 413 or (status in {400, 422} and _TOO_LONG.search(f"{said.code} {said.detail}")):
        return _too_long(heard, space)
    if status in {400, 422} and _BASE64.search(said.detail):
        return Fault(
            EmbeddingError(f"{heard}: no encoding_format suits it, nor none; check base_url="),
            of_encoding=True,
        )
    mend = "base_url= and model=" if status == 404 else "model=, space= and parameters="
    return Fault(EmbeddingError(f"{heard}: it will refuse the same again; check {mend}"))


def _too_long(heard: str, space: EmbeddingSpace) -> Fault:
    message = (
        f"{heard}: the text is longer than {space.model} has room for on this server; cut it into "
        "passages (nothing was truncated)"
    )
    return Fault(TokenLimitExceeded(message), halve=True, of_text=True)


def _detail(content: bytes, hide: Hide) -> str:
    return hide(_said(content, hide).detail)


def _said(content: bytes, hide: Hide) -> _Said:
    """Read ``{error: {message, code}}``, ``{error: str}``, ``{message}``, ``{detail: …}``, or any."""
    body = json_object(content)
    if body is None:
        return _Said(detail=begins(content, hide))
    inner = next(
        (body[key] for key in ("error", "detail") if isinstance(body.get(key), dict)), body
    )
    detail = first_text(inner.get("message"), inner.get("detail"), inner.get("error"))
    complaint = _complaint(body.get("detail"))
    codes = (plain_code(inner.get(key)) for key in ("code", "type", "error_type"))
    return _Said(code=first_text(*codes), detail=complaint or detail)


def _complaint(listed: object) -> str:
    """The first of the complaints that a server lists about a request's parameters."""
    first = listed[0] if isinstance(listed, list) and listed else None
    if not isinstance(first, dict):
        return ""
    place = first.get("loc")
    named = [str(part) for part in place] if isinstance(place, list) else []
    return ": ".join(part for part in (".".join(named), first_text(first.get("msg"))) if part)
