"""Haystack's ``ElasticsearchDocumentStore``, in the environment of the peers."""

from __future__ import annotations

from typing import Any, ClassVar

from haystack import Document
from haystack.document_stores.types import DuplicatePolicy
from haystack_integrations.document_stores.elasticsearch import ElasticsearchDocumentStore

from benchmarks.elasticsearch.peer import SECONDS, Peer
from benchmarks.serving import serve
from benchmarks.workload import Workload


class Haystack(Peer):
    """With its defaults, but one refresh at the end instead of waiting for one every 500 rows."""

    index = "haystack"
    field = "embedding"
    mapping: ClassVar[dict[str, Any]] = {
        "properties": {"content": {"type": "text"}},
        "dynamic_templates": [
            {
                "strings": {
                    "path_match": "*",
                    "match_mapping_type": "string",
                    "mapping": {"type": "keyword"},
                }
            }
        ],
    }

    def __init__(self, address: str, given: Workload) -> None:
        super().__init__(address, given)
        rows = zip(given.ids, given.texts, given.metadata, self.lists, strict=True)
        self.documents = [
            Document(id=id, content=text, meta=metadata, embedding=vector)
            for id, text, metadata, vector in rows
        ]

    def write(self) -> None:
        store = ElasticsearchDocumentStore(
            hosts=self.address, index=self.index, request_timeout=SECONDS
        )
        store.write_documents(self.documents, DuplicatePolicy.OVERWRITE, refresh=False)


if __name__ == "__main__":
    serve(Haystack)
