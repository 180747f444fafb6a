"""What a store's adapter says of rows, to the code that sends them."""

from __future__ import annotations

from samespace.errors import StoreError, StoreRejected


class RowsRefused(StoreRejected):
    """The store refused a batch because of what is in a row of it."""


class Gone(StoreError):
    """A collection or a slot that a request names is not there (any more)."""
