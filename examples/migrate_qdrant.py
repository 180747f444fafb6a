"""Move points that another program made, in Qdrant, from jina-embeddings-v2 to v3.

``python examples/migrate_qdrant.py [--url http://localhost:6333]``; needs ``JINA_API_KEY``.

The points have whole numbers as ids, their text under ``body`` and a vector ``dense``. That of v3 goes
beside it, under a name of its own.
"""

import argparse

from qdrant_client import QdrantClient, models

from samespace import JinaAPIBackend, Layout, QdrantStore
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

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--url", default=":memory:")
parser.add_argument("--collection", default="Bike-Notes")
given = parser.parse_args()


def make(client: QdrantClient, v2: JinaAPIBackend) -> None:
    """What the other program did."""
    size = models.VectorParams(size=768, distance=models.Distance.COSINE)
    client.create_collection(given.collection, vectors_config={"dense": size})
    vectors = v2.embed_documents(NOTES).tolist()
    points = [
        models.PointStruct(id=number, vector={"dense": vector}, payload={"body": text})
        for number, (text, vector) in enumerate(zip(NOTES, vectors, strict=True))
    ]
    client.upsert(given.collection, points)


layout = Layout(id="id", text="body", slot="dense", metadata=())
v2, v3 = JinaAPIBackend("jina-embeddings-v2-base-en"), JinaAPIBackend("jina-embeddings-v3")
client = QdrantClient(given.url)
make(client, v2)
with v2, v3, QdrantStore(client, collection=given.collection, backend=v2, layout=layout) as store:
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
client.close()
