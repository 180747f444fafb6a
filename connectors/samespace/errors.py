"""Every error that samespace raises, as one tree.

::

    SamespaceError
    ├── InvalidInput              an argument or a document is wrong; nothing was sent
    ├── PartialWrite              some documents were refused; the others are stored
    ├── SpaceError
    │   ├── SpaceMismatch         two embedding spaces that must be equal differ
    │   ├── SpaceUnknown          the collection does not say which space it holds
    │   └── SlotNotReady          the space's slot is still being filled
    ├── CollectionNotFound
    ├── DocumentExists            ``on_conflict="fail"`` met a stored id
    ├── EmbeddingError            ``.indices`` names the texts concerned
    │   ├── AuthenticationFailed
    │   ├── QuotaExhausted
    │   ├── RateLimited
    │   ├── TokenLimitExceeded
    │   ├── BadResponse
    │   └── BackendUnavailable
    ├── StoreError
    │   ├── StoreUnavailable      not reachable now; trying again may help
    │   └── StoreRejected         reached, and it said no; trying again will not help
    └── MigrationError

Each can be pickled. A message says what is wrong, where, and what mends it; it quotes at most
80 characters of the user's text (:func:`excerpt`) and never a secret.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samespace.documents import WriteReport
    from samespace.space import Difference, EmbeddingSpace

EXCERPT_LENGTH = 80


def excerpt(value: object) -> str:
    """Quote at most 80 characters of a user's value, safe to print on one line."""
    shown = repr(value if not isinstance(value, str) else value[: EXCERPT_LENGTH + 1])
    return shown if len(shown) <= EXCERPT_LENGTH else shown[: EXCERPT_LENGTH - 2] + "…'"


def command(words: str, collection: str, scope: Sequence[str] = ()) -> str:
    """What to type for a collection; its store is ``--store``, or that of ``SAMESPACE_STORE``.

    ``scope`` has a condition, ``COLUMN=VALUE``, for each that tells it from others in its table.
    """
    shown = shlex.quote(collection)
    if len(collection) > EXCERPT_LENGTH or not shown.isprintable():
        shown = excerpt(collection)
    chosen = "".join(f" --scope {shlex.quote(each)}" for each in scope)
    return f"samespace {words} --collection {shown}{chosen}"


class SamespaceError(Exception):
    """The root of all errors of this library.

    ``report`` is set when a write was cut short by an error that concerns the whole call: it
    says what had been stored by then.
    """

    report: WriteReport | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(
    kind: type[SamespaceError], args: tuple[Any, ...], state: dict[str, Any]
) -> SamespaceError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class InvalidInput(SamespaceError, ValueError):
    """An argument or a document that cannot be used; nothing was sent for it."""


class PartialWrite(SamespaceError):
    """Some documents were refused; every other one is stored. ``report`` lists both."""

    report: WriteReport

    def __init__(self, report: WriteReport) -> None:
        super().__init__(report)
        self.report = report

    def __str__(self) -> str:
        first = self.report.rejected[0]
        return (
            f"{len(self.report.rejected)} document(s) refused, {self.report.written} written; "
            f"first: {excerpt(first.id)}: {first.error} "
            '(pass on_error="report" to get the report instead of this error)'
        )


class SpaceError(SamespaceError):
    """Something about embedding spaces prevents the operation."""


class SpaceMismatch(SpaceError):
    """The collection holds vectors of one space and was offered another.

    ``stored`` and ``offered`` are the two spaces, ``differences`` the fields in which they differ.
    """

    def __init__(
        self,
        message: str,
        *,
        stored: EmbeddingSpace,
        offered: EmbeddingSpace,
        differences: Sequence[Difference] = (),
    ) -> None:
        super().__init__(message)
        self.stored = stored
        self.offered = offered
        self.differences = tuple(differences)


class SpaceUnknown(SpaceError):
    """The collection does not say, or not readably, which embedding space it holds."""


class SlotNotReady(SpaceError):
    """The slot of this space is still being filled, so a search would miss documents."""


class CollectionNotFound(SamespaceError):
    """No collection of this name exists in the store."""


class DocumentExists(SamespaceError):
    """``on_conflict="fail"`` met an id that is stored already."""


class EmbeddingError(SamespaceError):
    """The backend could not embed. ``indices`` are the positions of the texts concerned.

    ``tokens`` is what the call cost that failed, where that is known.
    """

    tokens = 0

    def __init__(self, message: str, *, indices: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.indices = tuple(indices)


class AuthenticationFailed(EmbeddingError):
    """The key is missing or was refused."""


class QuotaExhausted(EmbeddingError):
    """The account has no balance left; trying again will not help."""


class RateLimited(EmbeddingError):
    """Still limited after every permitted retry."""


class TokenLimitExceeded(EmbeddingError):
    """A text is longer than the model's context."""


class BadResponse(EmbeddingError):
    """The backend answered, and the answer cannot be trusted."""


class BackendUnavailable(EmbeddingError):
    """The backend could not be reached, or failed, after every permitted retry."""


class StoreError(SamespaceError):
    """The store could not do what was asked."""


class StoreUnavailable(StoreError):
    """The store cannot be reached now; trying again may help."""


class StoreRejected(StoreError):
    """The store was reached and refused; trying again will not help."""


class MigrationError(SamespaceError):
    """A migration cannot go on as asked."""
