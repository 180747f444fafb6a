# Generated from store_contract_async.py by tools/generate_sync.py; change that file, not this one.
"""Every promise that a store makes, as one class: subclass it with a fixture ``harness``."""

from __future__ import annotations

from samespace.testing.contract_adopted import AdoptedContract
from samespace.testing.contract_concurrency import ConcurrencyContract
from samespace.testing.contract_documents import DocumentsContract
from samespace.testing.contract_embedding import EmbeddingContract
from samespace.testing.contract_filters import FiltersContract
from samespace.testing.contract_guard import GuardContract
from samespace.testing.contract_input import InputContract
from samespace.testing.contract_mirrors import MirrorsContract
from samespace.testing.contract_search import SearchContract
from samespace.testing.contract_slots import SlotsContract


class VectorStoreContract(
    DocumentsContract,
    InputContract,
    SearchContract,
    FiltersContract,
    EmbeddingContract,
    GuardContract,
    SlotsContract,
    MirrorsContract,
    AdoptedContract,
    ConcurrencyContract,
):
    """What every store promises, each part a class of its own.

    A subclass gives a fixture ``harness`` that returns an
    :class:`~samespace.testing.harness.StoreHarness` with nothing in it. A promise that
    the store does not keep is declared in ``gaps``: the name of a test → a
    :class:`~samespace.testing.gaps.Gap`.
    """
