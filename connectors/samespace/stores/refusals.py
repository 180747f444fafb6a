"""What a store's adapter says of rows, to the code that sends them."""

from __future__ import annotations

from samespace.errors import StoreError, StoreRejected
from samespace.vectors import NORM_TOLERANCE


class RowsRefused(StoreRejected):
    """The store refused a batch because of what is in a row of it."""


def check_cosine(score: float, *, metric: str) -> None:
    """:class:`StoreRejected` for an inner product, or what a distance makes of one, that is no cosine."""
    if abs(score) > 1.0 + NORM_TOLERANCE:
        raise StoreRejected(
            f"a row's score is {score:.6g}, which is no cosine: vectors there are not of unit norm, and they "
            f"are compared by {metric}, so the order of the hits is wrong; bring them to unit norm, or copy "
            "them to where they are compared by cosine"
        )


class Gone(StoreError):
    """A collection or a slot that a request names is not there (any more)."""
