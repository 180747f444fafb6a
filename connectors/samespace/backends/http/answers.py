"""What is inside an answer of any embedding server, as pure functions: vectors, tokens, words."""

from __future__ import annotations

import binascii
import json
import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import orjson

from samespace.errors import excerpt
from samespace.models import find_model
from samespace.protocols import Matrix, Vector
from samespace.space import EmbeddingSpace

FLOAT: Final = np.dtype("<f4")
"""The numbers of a vector in base64."""


Hide = Callable[[str], str]
"""Takes out of what a server said what may not be shown."""


class Unusable(Exception):
    """What is wrong with an answer; never leaves the client."""


def opened(content: bytes, *, error_in: Callable[[bytes, Hide], str], hide: Hide) -> dict[str, Any]:
    """The JSON object of an answer 200; :class:`Unusable` for another thing or an error in its place."""
    answer = json_object(content)
    if answer is None:
        raise Unusable(
            f"it is no JSON object: {excerpt(begins(content, hide)) if content else 'empty'}"
        )
    if "data" not in answer and (said := error_in(content, hide)):
        raise Unusable(f"it has an error in place of vectors: {excerpt(said)}")
    return answer


def check_model(
    name: object, space: EmbeddingSpace, *, hide: Hide, known_only: bool = False
) -> None:
    """:class:`Unusable` if an answer names another model than the space's.

    ``known_only``: a name that the registry does not know is the server's own for the model.
    """
    answering = find_model(name) if isinstance(name, str) else None
    if name is None or (known_only and not (answering and find_model(space.model))):
        return
    if answering is None or answering.name != space.model:
        shown = excerpt(hide(name if isinstance(name, str) else repr(name)))
        raise Unusable(f"it is of model {shown}, asked for {space.model}")


def vectors_of(data: object, dimensions: int, *, count: int, as_numbers: bool = False) -> Matrix:
    """The vectors of ``data``, shape ``(count, dimensions)``, each in the place that it names.

    They are in base64, or with ``as_numbers`` also lists of numbers; :class:`Unusable` otherwise.
    A null there, for a number or for all, is what JSON has for NaN; whose place is named later.
    """
    if not isinstance(data, list) or len(data) != count:
        found = len(data) if isinstance(data, list) else "no"
        raise Unusable(f"it has {found} vectors for {count} text(s)")
    vectors = np.empty((count, dimensions), dtype=FLOAT)
    for place, item in zip(_places(data), data, strict=True):
        encoded = item.get("embedding")
        if as_numbers and encoded is None:
            encoded = [None] * dimensions
        is_list = as_numbers and isinstance(encoded, list)
        vector = _numbers(encoded, place) if is_list else _decoded(encoded, place)
        if len(vector) != dimensions:
            raise Unusable(
                f"its vector {place} has {len(vector)} dimensions, asked for {dimensions}"
            )
        vectors[place] = vector
    return vectors


def _places(data: list[Any]) -> list[int]:
    places: list[Any] = [item.get("index") for item in data if isinstance(item, dict)]
    if any(type(place) is not int for place in places) or sorted(places) != [*range(len(data))]:
        raise Unusable(f"its indices are not 0 to {len(data) - 1}, each once")
    return places


def _decoded(encoded: object, place: int) -> Vector:
    try:
        raw = binascii.a2b_base64(encoded, strict_mode=True)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise Unusable(f"its vector {place} is no base64") from error
    if len(raw) % FLOAT.itemsize:
        raise Unusable(f"its vector {place} has {len(raw)} bytes, which are no whole numbers")
    return np.frombuffer(raw, dtype=FLOAT)


def _numbers(listed: list[Any], place: int) -> Vector:
    try:
        array = np.asarray([math.nan if each is None else each for each in listed])
    except ValueError:  # lists of several lengths
        array = np.asarray(None)
    if array.ndim != 1 or array.dtype.kind not in "fiu":
        raise Unusable(f"its vector {place} is no list of numbers")
    with np.errstate(over="ignore"):  # what is infinite then is refused with its place
        return array.astype(FLOAT)


def tokens_of(usage: object) -> int:
    """The tokens that an answer says it cost, all or those of the texts; 0 if it says none."""
    said = usage if isinstance(usage, dict) else {}
    counts = (said.get("total_tokens"), said.get("prompt_tokens"))
    return next((count for count in counts if type(count) is int and count > 0), 0)


def heard_in(answers: str, code: str, detail: str, *, wait: float | None) -> str:
    """A sentence on a refusal, which begins with who ``answers`` what status."""
    code = plain_code(code)
    said = f"{answers} {code}" if code else answers
    said += f", {excerpt(detail)}" if detail else ""
    return said + (f", and asks to wait {wait:g} s" if wait else "")


def plain_code(value: object) -> str:
    """A code that is a plain word, else the empty string: what else it is may not be shown."""
    text = value if isinstance(value, str) else ""
    return text if text.isascii() and text.replace("_", "").isalnum() and len(text) <= 64 else ""


def first_text(*values: object) -> str:
    """The first that is a string with something in it, else the empty one."""
    return next((value for value in values if isinstance(value, str) and value), "")


def json_object(content: bytes) -> dict[str, Any] | None:
    """The JSON object that this is; None if it is anything else."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        body = _with_nan(content)
    return body if isinstance(body, dict) else None


def _with_nan(content: bytes) -> object:
    """What Python's own writer makes of numbers that are not finite, which is no JSON."""
    if b"NaN" not in content and b"Infinity" not in content:
        return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def begins(content: bytes, hide: Hide) -> str:
    """How an answer that cannot be read begins, on one line."""
    text = hide(content.decode(errors="replace"))[:320]
    return " ".join(text.split())
