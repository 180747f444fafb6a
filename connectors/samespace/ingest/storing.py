"""Storing what was read: what is stored already is not embedded again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from samespace.documents import Document, Rejected, WriteReport
from samespace.errors import CollectionNotFound
from samespace.filters import field
from samespace.ingest.reading import Source
from samespace.protocols import VectorStore

BATCH_SIZE: Final = 500
"""How many documents are compared with what is stored in one request."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """What an ingest did.

    ``report`` counts as ``skipped`` the documents that were stored already as they are, and as
    ``rejected`` also what could not be read. ``removed`` counts passages that a file no longer has.
    """

    report: WriteReport
    removed: int


def ingest(sources: Iterable[Source], store: VectorStore) -> Ingested:
    """Store the documents of files: new and changed ones are embedded, the others left as they are.

    Once all are stored, passages of the same files that are no longer in them are deleted.
    """
    job = _Job(store)
    written = store.upsert(job.to_write(sources), on_error="report")
    removed = store.delete(ids=job.outdated) if job.outdated else 0
    read = WriteReport(skipped=job.unchanged, rejected=tuple(job.unread))
    return Ingested(read + written, removed)


class _Job:
    def __init__(self, store: VectorStore) -> None:
        self._store = store
        self.unchanged = 0
        self.unread: list[Rejected] = []
        self.outdated: list[str] = []

    def to_write(self, sources: Iterable[Source]) -> Iterator[Document]:
        for names, items in _batches(sources):
            documents = [item for item in items if isinstance(item, Document)]
            self.unread += [item for item in items if isinstance(item, Rejected)]
            ids = [document.id for document in documents]
            try:
                stored = self._stored(ids)
                self.outdated += self._others(names, ids)
            except CollectionNotFound:
                stored = {}
            changed = [document for document in documents if stored.get(document.id) != document]
            self.unchanged += len(documents) - len(changed)
            yield from changed

    def _stored(self, ids: list[str]) -> dict[str, Document]:
        """What is stored under these ids, with a vector of this space."""
        found = self._store.get(ids, with_vectors=True)
        return {document.id: document for document in found if document.vector is not None}

    def _others(self, names: list[str], ids: list[str]) -> list[str]:
        """Ids of the stored passages of these files beside those that were read."""
        others = field.parent.in_(names) & ~field.id.in_(ids)
        return [document.id for document in self._store.scan(where=others)] if names else []


def _batches(sources: Iterable[Source]) -> Iterator[tuple[list[str], list[Document | Rejected]]]:
    """The names of texts and the items of files; all passages of a text are in one batch."""
    names: list[str] = []
    items: list[Document | Rejected] = []
    for source in sources:
        names += [source.name] if source.is_text else []
        for item in source.items:
            items.append(item)
            if len(items) >= BATCH_SIZE and not source.is_text:
                yield names, items
                names, items = [], []
        if len(items) >= BATCH_SIZE:
            yield names, items
            names, items = [], []
    yield names, items
