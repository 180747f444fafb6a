"""What a contract suite needs of a store's tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from samespace.documents import Document
from samespace.index import Index
from samespace.layout import Layout
from samespace.protocols import AnyBackend, AsyncVectorStore, Matrix
from samespace.space import EmbeddingSpace


class AsyncStoreHarness(Protocol):
    """Opens collections, and does to them what a stranger with the raw driver could do."""

    def open(
        self,
        collection: str,
        *,
        backend: AnyBackend | None = None,
        mirrors: Sequence[AnyBackend] = (),
        space: EmbeddingSpace | None = None,
        layout: Layout | None = None,
        index: Index | None = None,
    ) -> AsyncVectorStore:
        """A handle on a collection of this test, whose whole name may end in the one given."""

    async def set_text(self, collection: str, id: str, text: str) -> None:
        """Change a row's text behind our back."""

    async def set_record(self, collection: str, record: object) -> None:
        """Replace the collection's record by any JSON value, or remove it: None."""

    async def get_record(self, collection: str) -> Any:
        """The collection's record as JSON."""

    async def make_foreign(
        self, documents: Sequence[Document], vectors: Matrix
    ) -> tuple[str, Layout]:
        """A collection that somebody else made, with integers for ids, and where things are."""

    async def dump(self, collection: str) -> object:
        """All that is stored of a collection, to be compared."""
