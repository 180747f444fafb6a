"""Search notes in which a thing is named once and then only meant: with and without late chunking.

Cut into chunks, a note about noise no longer says which home it is about. With late chunking the
chunks of a document are embedded in sight of one another, each document in a request of its own; a
query is embedded as ever. Needs ``JINA_API_KEY``.
"""

import numpy as np
from numpy.typing import NDArray

from samespace import JinaAPIBackend

NOTES = [
    "On Monday Ada showed us the flat in Mill Lane, two rooms and a balcony.",
    "Trains pass under the windows, so sleep at night is short.",
    "On Tuesday Ada showed us a house at the harbour, small but with a garden.",
    "Nothing moves there after ten, so sleep at night is long.",
]
QUERY = "What is sleep at night like in the flat with two rooms?"


def show(title: str, vectors: NDArray[np.float32], query: NDArray[np.float32]) -> None:
    """Print the notes, the nearest first."""
    print(title)
    scores = vectors @ query
    for place in np.argsort(-scores):
        print(f"  {scores[place]:.4f}  {NOTES[place]}")


with JinaAPIBackend("jina-embeddings-v3") as backend:
    wanted = backend.embed_query(QUERY)
    alone = backend.embed_documents(NOTES)
    (together,) = backend.embed_chunks([NOTES])

show("each note alone", alone, wanted)
show("in sight of one another", together, wanted)
