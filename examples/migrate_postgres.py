"""Move a collection in PostgreSQL from jina-embeddings-v2 to v3 while it is in use.

``python examples/migrate_postgres.py [--url postgresql://…]``; needs ``JINA_API_KEY``.

The vectors of v3 go into a second column of the same rows: until ``finish`` what searches and writes with
v2 goes on as ever.
"""

import argparse

from samespace import Document, JinaAPIBackend, PgVectorStore
from samespace.migrate import finish, open_slot, plan, run, verify

NOTES = [
    "Turn the wheel on the left until the display is bright.",
    "An empty battery is full again after two hours.",
    "The bell rings twice when the battery is nearly empty.",
    "Hold the wheel for three seconds to switch the light off.",
    "Screws of the left pedal turn the other way.",
    "Oil the chain after every ride in the rain.",
    "The brakes squeal while the pads are new.",
    "Fold the handlebar before you put it into the bag.",
    "The warranty is of two years, and of one for the battery.",
    "Spare parts are sent within three days.",
    "A flat tyre is covered once in the first year.",
    "Store it dry, and not below the freezing point.",
]
QUESTION = "how long until the battery is full"

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--url", default="embedded")
parser.add_argument("--collection", default="notes")
given = parser.parse_args()

v2, v3 = JinaAPIBackend("jina-embeddings-v2-base-en"), JinaAPIBackend("jina-embeddings-v3")
with v2, v3, PgVectorStore(given.url, collection=given.collection, backend=v2) as store:
    store.upsert(Document(f"n{number}", text) for number, text in enumerate(NOTES))

    planned = plan(store, v3)
    print(*planned.lines(), sep="\n")

    print(*run(store, v3, planned).lines(), sep="\n")
    store.upsert([Document("n1", "An empty battery is full again after one hour.")])
    print(*run(store, v3, planned).lines(), sep="\n")  # with follow=True it would go on by itself

    verified = verify(store, v3, planned, queries=[QUESTION, "does it ring", "can it get wet"])
    print(*verified.lines(), sep="\n")
    open_slot(store, planned, verified)

    with store.in_space(v3.space, backend=v3) as new:
        for title, handle in (("v2", store), ("v3", new)):
            best = handle.search(QUESTION, limit=1)[0]
            print(f"{title}: {best.score:.4f}  {best.document.text}")

    for change in finish(store, planned):
        print(*change.lines(), sep="\n")
