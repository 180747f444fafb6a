"""LangChain's cache of embeddings in front of a model that is exchanged.

``python langchain_cache.py PACKAGES FOLDER``, the packages being LangChain's; prints one JSON value.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

from samespace import CallableBackend, QdrantStore
from samespace.errors import SpaceMismatch
from samespace.testing.backends import V3, LyingBackend, TaskBackend
from samespace.testing.corpus import documents

ROWS = documents(3)


class Embeddings:
    """As LangChain calls it, and what stands behind it for now."""

    def __init__(self, model: TaskBackend) -> None:
        self.model = model

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [
            [float(number) for number in vector] for vector in self.model.embed_documents(texts)
        ]

    def embed_query(self, text: str) -> list[float]:
        return [float(number) for number in self.model.embed_query(text)]


def cached(embeddings: Embeddings) -> CallableBackend:
    """LangChain's cache of documents and queries, which has no word for this library."""
    kind = importlib.import_module("langchain_classic.embeddings").CacheBackedEmbeddings
    memory = importlib.import_module("langchain_core.stores").InMemoryByteStore()
    cache: Any = kind.from_bytes_store(
        embeddings, memory, namespace="v3", query_embedding_cache=True, key_encoder="sha256"
    )
    return CallableBackend(V3, cache.embed_documents, cache.embed_query)


def use(backend: CallableBackend, folder: str) -> list[str | None]:
    """How a write and a search are refused."""
    said: list[str | None] = []
    with QdrantStore(folder, collection="cached", backend=backend) as store:
        for call in (lambda: store.upsert(ROWS), lambda: store.search("text")):
            try:
                call()
                said.append(None)
            except SpaceMismatch as error:
                said.append(str(error))
    return said


def main(packages: str, folder: str) -> None:
    """Two handles on one model, and one on another."""
    sys.path.append(packages)  # behind this library's own, which it needs in other versions
    honest = TaskBackend()
    embeddings = Embeddings(honest)
    backend = cached(embeddings)
    said = [use(backend, folder), use(backend, folder)]
    embeddings.model = LyingBackend()
    said.append(use(backend, folder))
    asked = [len(honest.documents), len(honest.queries)]
    sys.stdout.write(json.dumps({"said": said, "asked": asked}))


if __name__ == "__main__":
    main(*sys.argv[1:])
