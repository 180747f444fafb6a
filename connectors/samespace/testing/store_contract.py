# Generated from store_contract_async.py by tools/generate_sync.py; change that file, not this one.
"""Every promise that a store makes, as one class: subclass it with a fixture ``harness``."""

from __future__ import annotations

from samespace.testing.contract_documents import DocumentsContract
from samespace.testing.contract_guard import (
    AdoptedContract,
    GuardContract,
    SlotsContract,
)
from samespace.testing.contract_search import SearchContract


class VectorStoreContract(
    DocumentsContract,
    SearchContract,
    GuardContract,
    SlotsContract,
    AdoptedContract,
):
    """The design's promises on documents, search, guard, slots and adopted collections.

    A subclass gives a fixture ``harness`` that returns an
    :class:`~samespace.testing.harness.StoreHarness` with nothing in it.
    """
