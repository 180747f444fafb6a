"""Two models of one size: the collection of the first refuses the second."""

from samespace import Document, EmbeddingSpace, HashingBackend, PgVectorStore
from samespace.errors import SpaceMismatch

with PgVectorStore("embedded", collection="guarded", backend=HashingBackend(768)) as store:
    store.upsert([Document("a", "Every vector here was made by one model.")])

other = EmbeddingSpace(model="jina-embeddings-v2-base-en", dimensions=768)
with PgVectorStore("embedded", collection="guarded", space=other) as store:
    try:
        store.search_vector([1.0] + [0.0] * 767, space=other)
    except SpaceMismatch as refusal:
        print(refusal)
