"""What a store's adapter says of rows, to the code that sends them."""

from __future__ import annotations

from samespace.errors import StoreRejected


class RowsRefused(StoreRejected):
    """The store refused a batch because of what is in a row of it."""
