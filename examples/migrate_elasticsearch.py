"""Move an index that another program made, in Elasticsearch, from jina-embeddings-v2 to v3.

``python examples/migrate_elasticsearch.py [--url http://localhost:9200]``; needs ``JINA_API_KEY``.

The index has its own names for things. The vectors of v3 go into a second field of the same documents.
"""

import argparse

from elasticsearch import Elasticsearch
from elasticsearch.helpers import bulk

from samespace import ElasticsearchStore, JinaAPIBackend, Layout
from samespace.migrate import finish, open_slot, plan, run, verify

NOTES = [
    "Turn the wheel on the left until the display is bright.",
    "An empty battery is full again after two hours.",
    "The bell rings twice when the battery is nearly empty.",
    "Hold the wheel for three seconds to switch the light off.",
    "Screws of the left pedal turn the other way.",
    "Oil the chain after every ride in the rain.",
]
QUESTION = "how long until the battery is full"
FIELDS = {
    "body": {"type": "text"},
    "page": {"type": "integer"},
    "embedding": {"type": "dense_vector", "dims": 768, "similarity": "cosine"},
}

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--url", default="http://localhost:9200")
parser.add_argument("--collection", default="bike-notes")
given = parser.parse_args()


def make(client: Elasticsearch, v2: JinaAPIBackend) -> None:
    """What the other program did."""
    client.indices.create(index=given.collection, mappings={"properties": FIELDS})
    vectors = v2.embed_documents(NOTES).tolist()
    actions = (
        {"_id": f"n{number}", "body": text, "page": number // 2, "embedding": vector}
        for number, (text, vector) in enumerate(zip(NOTES, vectors, strict=True))
    )
    bulk(client, actions, index=given.collection, refresh=True)


layout = Layout(id="_id", text="body", slot="embedding", metadata=["page"])
v2, v3 = JinaAPIBackend("jina-embeddings-v2-base-en"), JinaAPIBackend("jina-embeddings-v3")
with (
    v2,
    v3,
    Elasticsearch(given.url) as client,
    ElasticsearchStore(client, collection=given.collection, backend=v2, layout=layout) as store,
):
    make(client, v2)
    store.adopt()  # compares known texts, and records whose vectors these are

    planned = plan(store, v3)
    print(*run(store, v3, planned).lines(), sep="\n")
    verified = verify(store, v3, planned)
    print(*verified.lines(), sep="\n")
    open_slot(store, planned, verified)

    with store.in_space(v3.space, backend=v3) as new:
        for title, handle in (("v2", store), ("v3", new)):
            best = handle.search(QUESTION, limit=1)[0]
            print(f"{title}: {best.score:.4f}  {best.document.id}  {best.document.text}")

    for change in finish(store, planned):
        print(*change.lines(), sep="\n")
