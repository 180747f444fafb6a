"""What requests are made of and what follows from a fault, as pure functions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from samespace.errors import (
    BackendUnavailable,
    BadResponse,
    EmbeddingError,
    InvalidInput,
    RateLimited,
    TokenLimitExceeded,
    excerpt,
)
from samespace.names import check_texts_listed, is_unstorable
from samespace.protocols import Matrix

_NUMBER: Final = re.compile(r"-?\d+(\.\d*)?(e\d+)?")
LONGEST_WAIT: Final = 3600.0
"""Seconds: a ``Retry-After`` beyond an hour says no more than one of an hour."""

EVERY_TIME: Final = "at each attempt that attempts= and retry_seconds= permit"

Portion = Sequence[int]
"""Positions of the texts of one request, in their order."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Vectors of shape ``(n, dimensions)`` in the order of the texts, and what they cost."""

    vectors: Matrix
    tokens: int


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a request failed. ``retry``: the same may succeed later, not before ``wait`` seconds.

    ``halve``: half of the texts may succeed. ``of_text``: with a single text, that text is at fault.
    ``broken``: whatever is tried again in vain, one of several texts may be what the server fails on.
    ``of_encoding``: the same may be answered in another encoding.
    ``limited``: so many requests or tokens are too many for everybody; ``crowded``: so many at a
    time.
    """

    error: EmbeddingError
    retry: bool = False
    wait: float | None = None
    halve: bool = False
    of_text: bool = False
    broken: bool = False
    of_encoding: bool = False
    limited: bool = False
    crowded: bool = False

    @property
    def too_long(self) -> bool:
        """Whether a single text would be answered if it were cut."""
        return isinstance(self.error, TokenLimitExceeded)

    @property
    def of_count(self) -> bool:
        """Whether so many texts are too many for any one request."""
        return self.halve and not self.of_text and not self.retry

    @property
    def is_free(self) -> bool:
        """Whether the API refused before it did any work; otherwise that is not known."""
        return not isinstance(self.error, BackendUnavailable | BadResponse)


def is_temporary(status: int) -> bool:
    """Whether an answer says that the same may succeed later: an overload, a gateway, a restart."""
    return status in {408, 409, 425, 429} or (status >= 500 and status not in {501, 505})


def unavailable(status: int, message: str, *, wait: float | None) -> Fault:
    """For an answer that :func:`is_temporary` and no limit; what took too long may do in halves."""
    return Fault(
        BackendUnavailable(message),
        retry=True,
        wait=wait,
        halve=status in {504, 524},
        broken=status in {424, 500},
    )


class RequestFailed(Exception):
    """Carries a fault to where it is decided whether to try again; never leaves the client."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault.error))
        self.fault = fault


def check_texts(texts: Sequence[str]) -> None:
    """:class:`InvalidInput` names the first text that cannot be embedded."""
    check_texts_listed(texts)
    for place, text in enumerate(texts):
        if is_unstorable(text):
            raise InvalidInput(
                f"text {place} is {excerpt(text)}; pass a string without NUL or lone surrogate"
            )
        if not text or text.isspace():
            raise InvalidInput(f"text {place} is blank, so there is nothing to embed; leave it out")


def check_documents(documents: Sequence[Sequence[str]]) -> None:
    """:class:`InvalidInput` names the first document with a chunk that cannot be embedded."""
    for place, chunks in enumerate(documents):
        if isinstance(chunks, str):
            raise InvalidInput(
                f"document {place} is {excerpt(chunks)}; pass the list of its chunks, in their order"
            )
        try:
            check_texts(chunks)
        except InvalidInput as error:
            raise InvalidInput(f"document {place}: {error}") from None


def portions(
    costs: Sequence[int],
    doubtful: set[int],
    *,
    texts_per_request: int,
    tokens_per_request: int,
) -> tuple[list[Portion], list[Portion]]:
    """Positions of the texts of each request: of texts that may be too long, and of the others.

    The former go alone, so that no other shares a refusal; the latter by number and by ``costs``,
    tokens counted or estimated.
    """
    others: list[Portion] = []
    part: list[int] = []
    room = 0
    for place, cost in enumerate(costs):
        if place in doubtful:
            continue
        if not part or len(part) == texts_per_request or cost > room:
            part, room = [], tokens_per_request
            others.append(part)
        part.append(place)
        room -= cost
    return [[place] for place in sorted(doubtful)], others


def halves(part: Portion) -> tuple[Portion, Portion]:
    """The two halves of a portion of at least two texts, the longer one first."""
    middle = (len(part) + 1) // 2
    return part[:middle], part[middle:]


def wait_of(retry_after: str | None, *, now: datetime) -> float | None:
    """Seconds that a ``Retry-After`` asks for, as a number or an HTTP date; None if it says none.

    Never below 0 nor above :data:`LONGEST_WAIT`.
    """
    if retry_after is None:
        return None
    said = retry_after.strip()
    seconds = float(said) if _NUMBER.fullmatch(said) else _seconds_until(said, now)
    return min(max(seconds, 0.0), LONGEST_WAIT) if math.isfinite(seconds) else None


def _seconds_until(date: str, now: datetime) -> float:
    """NaN for what is no date."""
    try:
        then = parsedate_to_datetime(date)
        return (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() - now.timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return math.nan


def remaining_of(headers: Mapping[str, str]) -> tuple[int | None, int | None]:
    """The requests and tokens that an answer says are left; None where it says nothing of use."""
    requests, tokens = (
        headers.get(f"X-RateLimit-Remaining-{name}", "") for name in ("Requests", "Tokens")
    )
    return _whole(requests), _whole(tokens)


def _whole(number: str) -> int | None:
    text = number.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def pause_after(fault: Fault, *, count: int, left: float, backoff: float) -> float | None:
    """Seconds until a request of ``count`` texts is tried again; None: it is not.

    What asks for more than is ``left`` of the budget is not tried again: earlier would be refused.
    What asks for less than ``backoff`` waits for that, or it would be less patient than silence.
    """
    wait = fault.wait or 0.0
    if not fault.retry or (fault.halve and count > 1) or left <= 0 or wait > left:
        return None
    return max(wait, backoff)


def held(seconds: float) -> Fault:
    """For a request that was not sent: the server wants none for longer than its budget."""
    return Fault(
        RateLimited(
            f"the embedding server asks to wait {seconds:.1f} s more before anything is sent; try "
            "again then, or raise retry_seconds="
        )
    )


def closed() -> BackendUnavailable:
    """For whoever uses a backend that is closed."""
    return BackendUnavailable("this backend is closed; make another one")


def refused_texts(texts: Sequence[str], found: Mapping[int, EmbeddingError]) -> EmbeddingError:
    """One error for the texts that were refused, each position named."""
    first = min(found)
    return _refused_places(f"text {first}, {excerpt(texts[first])}", found)


def refused_documents(found: Mapping[int, EmbeddingError]) -> EmbeddingError:
    """One error for the documents that have a chunk which was refused, each position named."""
    return _refused_places(f"document {min(found)}", found)


def _refused_places(first: str, found: Mapping[int, EmbeddingError]) -> EmbeddingError:
    others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    kinds = {type(error) for error in found.values()}
    kind = kinds.pop() if len(kinds) == 1 else EmbeddingError
    return kind(f"{first}{others}: {found[min(found)]}", indices=sorted(found))
