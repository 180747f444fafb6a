"""Ingest a folder of text, Markdown, HTML, CSV or JSON Lines files into Qdrant, and search it.

``python examples/qdrant_ingestion_job.py FOLDER [QUESTION] [--url http://localhost:6333]``

Run it again after a change: only passages that are new are embedded.
"""

import argparse
from pathlib import Path

from samespace import HashingBackend, IngestJob, QdrantStore

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("folder", type=Path)
parser.add_argument("question", nargs="?", default="how do I begin")
parser.add_argument("--url", default=":memory:", help="of a server; or a folder of local mode")
parser.add_argument("--grpc-port", type=int, help="send vectors over gRPC (6334)")
parser.add_argument("--collection", default="passages")
given = parser.parse_args()

with QdrantStore(
    given.url,
    collection=given.collection,
    backend=HashingBackend(),  # a model's: JinaAPIBackend(dimensions=1024)
    grpc_port=given.grpc_port,
) as store:
    done = IngestJob(store, given.folder).run()
    written, unchanged = done.write.written, done.write.skipped
    print(f"{written} written, {unchanged} unchanged, {done.removed} removed")
    for rejected in done.write.rejected:
        print(f"refused: {rejected.id}: {rejected.error}")
    for hit in store.search(given.question, limit=3):
        print(f"{hit.score:.3f}  {hit.document.id}  {hit.document.text[:60]}")
