"""Store a few texts in the embedded PostgreSQL and find one of them again."""

from samespace import Document, HashingBackend, PgVectorStore, field

HINTS = [
    Document(
        "display-1", "Turn the wheel on the left until the display is bright.", {"lang": "en"}
    ),
    Document("battery-1", "An empty battery is full again after two hours.", {"lang": "en"}),
    Document("battery-2", "Der leere Akku ist nach zwei Stunden wieder voll.", {"lang": "de"}),
]

with PgVectorStore("embedded", collection="quickstart", backend=HashingBackend()) as store:
    store.upsert(HINTS)
    for hit in store.search("how long until the battery is full", where=field("lang") == "en"):
        print(f"{hit.score:.3f}  {hit.document.id}  {hit.document.text}")
