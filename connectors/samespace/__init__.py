"""Vector-store connectors that keep every vector of a collection in one embedding space.

Importing this module imports no driver: each public name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from samespace.audit.identify import identify as identify
    from samespace.backends.caching import CachingBackend as CachingBackend
    from samespace.backends.caching_async import AsyncCachingBackend as AsyncCachingBackend
    from samespace.backends.callable import CallableBackend as CallableBackend
    from samespace.backends.callable_async import AsyncCallableBackend as AsyncCallableBackend
    from samespace.backends.hashing import HashingBackend as HashingBackend
    from samespace.backends.http.limits import Limits as Limits
    from samespace.backends.jina_api.client import JinaAPIBackend as JinaAPIBackend
    from samespace.backends.jina_api.client_async import AsyncJinaAPIBackend as AsyncJinaAPIBackend
    from samespace.backends.jina_local.client import JinaLocalBackend as JinaLocalBackend
    from samespace.backends.jina_local.client_async import (
        AsyncJinaLocalBackend as AsyncJinaLocalBackend,
    )
    from samespace.backends.openai_compatible.client import (
        OpenAICompatibleBackend as OpenAICompatibleBackend,
    )
    from samespace.backends.openai_compatible.client_async import (
        AsyncOpenAICompatibleBackend as AsyncOpenAICompatibleBackend,
    )
    from samespace.backends.sentence_transformer.client import (
        SentenceTransformerBackend as SentenceTransformerBackend,
    )
    from samespace.backends.sentence_transformer.client_async import (
        AsyncSentenceTransformerBackend as AsyncSentenceTransformerBackend,
    )
    from samespace.documents import (
        CollectionInfo as CollectionInfo,
    )
    from samespace.documents import (
        Document as Document,
    )
    from samespace.documents import (
        Hit as Hit,
    )
    from samespace.documents import (
        Parent as Parent,
    )
    from samespace.documents import (
        Rejected as Rejected,
    )
    from samespace.documents import (
        WriteReport as WriteReport,
    )
    from samespace.errors import SamespaceError as SamespaceError
    from samespace.filters import everything as everything
    from samespace.filters import field as field
    from samespace.index import Index as Index
    from samespace.ingest.chunking import Chunker as Chunker
    from samespace.ingest.chunking import TextChunker as TextChunker
    from samespace.ingest.job import IngestJob as IngestJob
    from samespace.ingest.report import IngestReport as IngestReport
    from samespace.layout import Layout as Layout
    from samespace.layout import TextQuery as TextQuery
    from samespace.opening import open_backend as open_backend
    from samespace.opening import open_store as open_store
    from samespace.protocols import (
        AsyncEmbeddingBackend as AsyncEmbeddingBackend,
    )
    from samespace.protocols import (
        AsyncVectorStore as AsyncVectorStore,
    )
    from samespace.protocols import (
        EmbeddingBackend as EmbeddingBackend,
    )
    from samespace.protocols import (
        VectorStore as VectorStore,
    )
    from samespace.space import EmbeddingSpace as EmbeddingSpace
    from samespace.stores.elasticsearch.hook import IngestHook as IngestHook
    from samespace.stores.elasticsearch.hook_async import AsyncIngestHook as AsyncIngestHook
    from samespace.stores.elasticsearch.store import (
        ElasticsearchStore as ElasticsearchStore,
    )
    from samespace.stores.elasticsearch.store_async import (
        AsyncElasticsearchStore as AsyncElasticsearchStore,
    )
    from samespace.stores.pgvector.store import PgVectorStore as PgVectorStore
    from samespace.stores.pgvector.store_async import AsyncPgVectorStore as AsyncPgVectorStore
    from samespace.stores.qdrant.store import QdrantStore as QdrantStore
    from samespace.stores.qdrant.store_async import AsyncQdrantStore as AsyncQdrantStore

__version__ = "0.1.0"

_HOMES: Final = {
    "backends.caching": ("CachingBackend",),
    "backends.caching_async": ("AsyncCachingBackend",),
    "audit.identify": ("identify",),
    "backends.callable": ("CallableBackend",),
    "backends.callable_async": ("AsyncCallableBackend",),
    "backends.hashing": ("HashingBackend",),
    "backends.jina_api.client": ("JinaAPIBackend",),
    "backends.jina_api.client_async": ("AsyncJinaAPIBackend",),
    "backends.jina_local.client": ("JinaLocalBackend",),
    "backends.jina_local.client_async": ("AsyncJinaLocalBackend",),
    "backends.http.limits": ("Limits",),
    "backends.openai_compatible.client": ("OpenAICompatibleBackend",),
    "backends.openai_compatible.client_async": ("AsyncOpenAICompatibleBackend",),
    "backends.sentence_transformer.client": ("SentenceTransformerBackend",),
    "backends.sentence_transformer.client_async": ("AsyncSentenceTransformerBackend",),
    "documents": ("CollectionInfo", "Document", "Hit", "Parent", "Rejected", "WriteReport"),
    "errors": ("SamespaceError",),
    "filters": ("everything", "field"),
    "index": ("Index",),
    "ingest.chunking": ("Chunker", "TextChunker"),
    "ingest.job": ("IngestJob",),
    "ingest.report": ("IngestReport",),
    "layout": ("Layout", "TextQuery"),
    "opening": ("open_backend", "open_store"),
    "protocols": (
        "AsyncEmbeddingBackend",
        "AsyncVectorStore",
        "EmbeddingBackend",
        "VectorStore",
    ),
    "space": ("EmbeddingSpace",),
    "stores.elasticsearch.hook": ("IngestHook",),
    "stores.elasticsearch.hook_async": ("AsyncIngestHook",),
    "stores.elasticsearch.store": ("ElasticsearchStore",),
    "stores.elasticsearch.store_async": ("AsyncElasticsearchStore",),
    "stores.pgvector.store": ("PgVectorStore",),
    "stores.pgvector.store_async": ("AsyncPgVectorStore",),
    "stores.qdrant.store": ("QdrantStore",),
    "stores.qdrant.store_async": ("AsyncQdrantStore",),
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [*sorted(_HOME_OF), "__version__"]  # noqa: PLE0604  all of them are strings


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
