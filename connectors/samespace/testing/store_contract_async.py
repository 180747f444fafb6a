"""Every promise that a store makes, as one class: subclass it with a fixture ``harness``."""

from __future__ import annotations

from samespace.testing.contract_adopted_async import AsyncAdoptedContract
from samespace.testing.contract_concurrency_async import AsyncConcurrencyContract
from samespace.testing.contract_documents_async import AsyncDocumentsContract
from samespace.testing.contract_embedding_async import AsyncEmbeddingContract
from samespace.testing.contract_filters_async import AsyncFiltersContract
from samespace.testing.contract_guard_async import AsyncGuardContract
from samespace.testing.contract_input_async import AsyncInputContract
from samespace.testing.contract_mirrors_async import AsyncMirrorsContract
from samespace.testing.contract_search_async import AsyncSearchContract
from samespace.testing.contract_slots_async import AsyncSlotsContract


class AsyncVectorStoreContract(
    AsyncDocumentsContract,
    AsyncInputContract,
    AsyncSearchContract,
    AsyncFiltersContract,
    AsyncEmbeddingContract,
    AsyncGuardContract,
    AsyncSlotsContract,
    AsyncMirrorsContract,
    AsyncAdoptedContract,
    AsyncConcurrencyContract,
):
    """What every store promises, each part a class of its own.

    A subclass gives a fixture ``harness`` that returns an
    :class:`~samespace.testing.harness_async.AsyncStoreHarness` with nothing in it. A promise that
    the store does not keep is declared in ``gaps``: the name of a test → a
    :class:`~samespace.testing.gaps.Gap`.
    """
