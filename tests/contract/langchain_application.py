"""An application on LangChain that knows nothing of samespace, in an interpreter of its own.

Run as a script with one JSON argument; prints one JSON value. It imports nothing of this project.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any


class Vectors:
    """LangChain's ``Embeddings``, looked up: the texts are known beforehand."""

    def __init__(self, known: dict[str, list[float]]) -> None:
        self.known = known

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.known[text] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.known[text]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.embed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        return self.embed_query(text)


def pgvectorstore(url: str, schema: str, table: str, known: dict[str, list[float]]) -> Any:
    """The store of a table, which is made if it is not there."""
    postgres = importlib.import_module("langchain_postgres")
    engine = postgres.PGEngine.from_connection_string(url.replace("+psycopg", "+asyncpg"))
    arguments = {"table_name": table, "schema_name": schema}
    try:
        return postgres.PGVectorStore.create_sync(
            engine, embedding_service=Vectors(known), **arguments
        )
    except ValueError:
        size = len(next(iter(known.values())))
        engine.init_vectorstore_table(vector_size=size, **arguments)
    return postgres.PGVectorStore.create_sync(engine, embedding_service=Vectors(known), **arguments)


def pgvector(url: str, schema: str, collection: str, known: dict[str, list[float]]) -> Any:
    """The store of a collection, which is made if it is not there; its tables too."""
    postgres = importlib.import_module("langchain_postgres")
    return postgres.PGVector(
        embeddings=Vectors(known),
        collection_name=collection,
        connection=f"{url}&options=-csearch_path%3D{schema}%2Cpublic",
        use_jsonb=True,
    )


def qdrant(folder: str, _: str, collection: str, known: dict[str, list[float]]) -> Any:
    """The store of a collection in a folder of local mode, which is made if it is not there."""
    client = importlib.import_module("qdrant_client").QdrantClient(path=folder)
    models = importlib.import_module("qdrant_client.models")
    if not client.collection_exists(collection):
        size = models.VectorParams(
            size=len(next(iter(known.values()))), distance=models.Distance.COSINE
        )
        client.create_collection(collection, vectors_config=size)
    store = importlib.import_module("langchain_qdrant").QdrantVectorStore
    interface = importlib.import_module("langchain_core.embeddings").Embeddings
    embedding = type("Embedding", (Vectors, interface), {})(known)  # it looks at the type
    return store(client=client, collection_name=collection, embedding=embedding)


def elasticsearch(url: str, _: str, index: str, known: dict[str, list[float]]) -> Any:
    """The store of an index, which is made by the first that is added to it."""
    langchain = importlib.import_module("langchain_elasticsearch")
    return langchain.ElasticsearchStore(index_name=index, embedding=Vectors(known), es_url=url)


STORES = {
    "PGVectorStore": pgvectorstore,
    "PGVector": pgvector,
    "QdrantVectorStore": qdrant,
    "ElasticsearchStore": elasticsearch,
}


def work(store: Any, jobs: list[dict[str, Any]]) -> list[Any]:
    """Each job's result."""
    documents = importlib.import_module("langchain_core.documents")
    results: list[Any] = []
    for job in jobs:
        if "add" in job:
            added = [
                documents.Document(id=id, page_content=text, metadata=metadata)
                for id, text, metadata in job["add"]
            ]
            results.append(store.add_documents(added, ids=[document.id for document in added]))
        elif "delete" in job:
            results.append(store.delete(ids=job["delete"]))
        else:
            found = store.similarity_search_with_score(job["search"], k=job["k"])
            results.append([[hit.id, hit.page_content, hit.metadata, d] for hit, d in found])
    return results


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    store = STORES[asked["kind"]](asked["url"], asked["schema"], asked["name"], asked["known"])
    sys.stdout.write(json.dumps(work(store, asked["jobs"])))
