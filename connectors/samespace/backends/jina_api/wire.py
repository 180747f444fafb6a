"""What goes to the API and what comes back, as pure functions: bodies, vectors, refusals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from samespace.backends.http.answers import (
    FLOAT,
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
from samespace.models import MODELS, find_model
from samespace.space import EmbeddingSpace

DEFAULT_TASK: Final = "retrieval.passage"
_NO_BALANCE: Final = {"AUTHZ_INSUFFICIENT_BALANCE", "AUTHZ_RESOURCE_LIMIT_EXCEEDED"}
_TOO_LONG: Final = "INPUT_TOKEN_LIMIT_EXCEEDED"
_CROWDED: Final = "RATE_CONCURRENCY_LIMIT_EXCEEDED"


@dataclass(frozen=True, slots=True)
class _Said:
    """What an error body says, whichever of its shapes it has."""

    code: str = ""
    detail: str = ""
    too_many: bool = False
    of_text: bool = False


# What is asked


def space_of(model: str, dimensions: int | None, task: str | None) -> EmbeddingSpace:
    """The space that the API's vectors will live in; :class:`InvalidInput` names what it has."""
    known = find_model(model) if isinstance(model, str) else None
    if known is None:
        raise InvalidInput(
            f"model {excerpt(model)} is not one that this version knows: {', '.join(MODELS)}"
        )
    has_tasks = any(not name.endswith(".query") for name in known.tasks)
    return EmbeddingSpace(
        model=known.name,
        dimensions=known.dimensions if dimensions is None else dimensions,
        task=None if task == DEFAULT_TASK and not has_tasks else task,
    )


def request_body(
    space: EmbeddingSpace,
    texts: Sequence[str],
    task: str | None,
    *,
    truncate: bool = False,
    late_chunking: bool = False,
) -> bytes:
    """The JSON of one request, with the parameters that the space's model knows and no others.

    ``normalized`` and ``truncate`` are always said where they can be: the API's own defaults are
    documented both ways, and a text that was cut unasked would be found by nobody.
    """
    model = MODELS[space.model]
    body: dict[str, Any] = {
        "model": space.model,
        "input": list(texts),
        "embedding_type": "base64",
        "truncate": truncate,
    }
    if late_chunking:
        body["late_chunking"] = True
    if task is not None:
        body["task"] = task
    if model.takes_dimensions:
        body["dimensions"] = space.dimensions
    if model.takes_normalized:
        body["normalized"] = space.normalized
    return orjson.dumps(body)


def most_bytes(space: EmbeddingSpace, count: int) -> int:
    """How long a true answer for ``count`` texts can be; anything longer is none."""
    base64 = 4 * math.ceil(space.dimensions * FLOAT.itemsize / 3)
    return 65_536 + count * (base64 + 512)


# What is answered


def read_answer(content: bytes, space: EmbeddingSpace, *, count: int, hide: Hide = str) -> Answer:
    """The vectors of an answer, in the order of the texts whatever the order of ``data``.

    :class:`BadResponse`, without ``indices``, if anything is not as it must be; then nothing of it
    is used. That the numbers are vectors of the space is for :func:`samespace.vectors.embedded`.
    """
    try:
        answer = opened(content, error_in=_detail, hide=hide)
        check_model(answer.get("model"), space, hide=hide)
        vectors = vectors_of(answer.get("data"), space.dimensions, count=count)
    except Unusable as defect:
        raise bad(str(defect)) from None
    return Answer(vectors, tokens_of(answer.get("usage")))


def bad(reason: str) -> BadResponse:
    """For an answer that cannot be used, and why."""
    return BadResponse(
        f"the embedding API's answer cannot be used: {reason}; nothing of it was. If base_url= (or "
        "JINA_BASE_URL) is right, try again"
    )


# What is refused


def unreachable(reason: str) -> Fault:
    """For a request that got no whole answer: connection, TLS, proxy, time."""
    return Fault(
        BackendUnavailable(
            f"the embedding API did not answer ({excerpt(reason)}); check base_url= (or "
            "JINA_BASE_URL) and the network, or allow more in timeout=, attempts= and retry_seconds="
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
    answers = f"the embedding API answers {status}"
    heard = heard_in(answers, hide(said.code), hide(said.detail), wait=wait)
    if status in {401, 402, 403}:
        return Fault(_forbidden(status, said.code, heard))
    if status == 429:
        crowded = said.code == _CROWDED
        return Fault(_limited(heard), retry=True, wait=wait, crowded=crowded, limited=not crowded)
    if is_temporary(status):
        message = f"{heard} {EVERY_TIME}; try again later"
        return unavailable(status, message, wait=wait)
    if status == 413 or said.code == _TOO_LONG:
        return Fault(_too_long(heard, space), halve=True, of_text=True)
    if said.too_many:
        message = f"{heard}; lower texts_per_request= in limits=Limits(…)"
        return Fault(EmbeddingError(message), halve=True)
    if said.of_text:
        message = f"{heard}: the API refuses the text; change it or leave it out"
        return Fault(EmbeddingError(message), halve=True, of_text=True)
    return Fault(_refused(status, heard))


def _forbidden(status: int, code: str, heard: str) -> EmbeddingError:
    if status == 402 or code in _NO_BALANCE:
        return QuotaExhausted(
            f"{heard}: the key has no balance left; top it up, then run the same again"
        )
    if status == 401:
        return AuthenticationFailed(
            f"{heard}: the key was refused; put a valid one into JINA_API_KEY or api_key="
        )
    return AuthenticationFailed(
        f"{heard}: the key may not do this; use one that has the right, in JINA_API_KEY or api_key="
    )


def _limited(heard: str) -> RateLimited:
    return RateLimited(
        f"{heard} {EVERY_TIME}; wait for the limit's window, raise "
        "attempts= and retry_seconds=, or give the key's limits: "
        "limits=Limits(requests_per_minute=…, tokens_per_minute=…)"
    )


def _too_long(heard: str, space: EmbeddingSpace) -> TokenLimitExceeded:
    context = MODELS[space.model].context
    return TokenLimitExceeded(
        f"{heard}: the text is longer than the {context} tokens of {space.model}; cut it into "
        "passages (nothing was truncated)"
    )


def _refused(status: int, heard: str) -> EmbeddingError:
    if status < 400:
        return bad(f"{heard}, and neither vectors nor an error")
    mend = "base_url= and model=" if status == 404 else "model=, dimensions= and task="
    return EmbeddingError(f"{heard}: it will refuse the same again; check {mend}")


def _detail(content: bytes, hide: Hide) -> str:
    return hide(_said(content, hide).detail)


def _said(content: bytes, hide: Hide) -> _Said:
    """Read ``{detail, code}``, ``{detail: {message, code}}``, the 422 form, or anything at all."""
    body = json_object(content)
    if body is None:
        return _Said(detail=begins(content, hide))
    inner = body["detail"] if isinstance(body.get("detail"), dict) else body
    errors = body.get("errors")
    listed = errors if isinstance(errors, list) else []
    complaints = [each for each in listed if isinstance(each, dict)]
    detail = first_text(inner.get("detail"), inner.get("message"), inner.get("error"))
    if complaints:
        named = [
            first_text(each.get(key)) for each in complaints[:1] for key in ("field", "message")
        ]
        detail = ": ".join(part for part in named if part) or detail
    return _Said(
        code=plain_code(inner.get("code")),
        detail=detail,
        too_many=any(map(_is_too_many, complaints)),
        of_text=any(map(_is_of_text, complaints)),
    )


def _is_too_many(complaint: Mapping[str, Any]) -> bool:
    """Whether a complaint of a 422 is that the list of inputs is too long."""
    field = first_text(complaint.get("field")).rpartition(".")[2]
    return field == "input" and complaint.get("type") == "too_long"


def _is_of_text(complaint: Mapping[str, Any]) -> bool:
    """Whether a complaint of a 422 is about one of the inputs, like ``input.3``."""
    names = first_text(complaint.get("field")).split(".")
    return any(before == "input" and place.isdigit() for before, place in itertools.pairwise(names))
