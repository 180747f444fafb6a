"""Every promise that a store makes, as one class: subclass it with a fixture ``harness``."""

from __future__ import annotations

from samespace.testing.contract_documents_async import AsyncDocumentsContract
from samespace.testing.contract_guard_async import (
    AsyncAdoptedContract,
    AsyncGuardContract,
    AsyncSlotsContract,
)
from samespace.testing.contract_search_async import AsyncSearchContract


class AsyncVectorStoreContract(
    AsyncDocumentsContract,
    AsyncSearchContract,
    AsyncGuardContract,
    AsyncSlotsContract,
    AsyncAdoptedContract,
):
    """The design's promises on documents, search, guard, slots and adopted collections.

    A subclass gives a fixture ``harness`` that returns an
    :class:`~samespace.testing.harness_async.AsyncStoreHarness` with nothing in it.
    """
