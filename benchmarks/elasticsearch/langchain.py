"""LangChain's ``ElasticsearchStore``, in the environment of the peers."""

from __future__ import annotations

from langchain_elasticsearch import DenseVectorStrategy, ElasticsearchStore

from benchmarks.elasticsearch.peer import SECONDS, Peer
from benchmarks.serving import serve


class LangChain(Peer):
    """With its defaults, but one refresh at the end instead of one every 500 rows."""

    index = "langchain"
    field = "vector"

    def write(self) -> None:
        given = self.given
        store = ElasticsearchStore(
            self.index,
            es_url=self.address,
            es_params={"request_timeout": SECONDS},
            strategy=DenseVectorStrategy(),
            num_dimensions=given.vectors.shape[1],
        )
        store.add_embeddings(
            zip(given.texts, self.lists, strict=True),
            given.metadata,
            given.ids,
            refresh_indices=False,
        )


if __name__ == "__main__":
    serve(LangChain)
