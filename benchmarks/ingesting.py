"""samespace: an ingestion job whose backend takes its time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.pacing import Pace
from benchmarks.serving import Answer, Clock
from samespace import CallableBackend, Document, EmbeddingSpace, IngestJob, VectorStore


class Paced(CallableBackend):
    """Vectors that are ready, at an embedder's pace; a passage's number says which is its own."""

    def __init__(self, space: EmbeddingSpace, vectors: NDArray[np.float32]) -> None:
        super().__init__(space, self._made)
        self.pace = Pace()
        self._vectors = vectors

    def _made(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.pace.take(len(texts))
        return self._vectors[[_place(text) for text in texts]]


def _place(text: str) -> int:
    word, number = text.split(":", maxsplit=1)[0].split(" ", 1)
    return int(number) if word == "Passage" else len(text)


def run_job(store: VectorStore, documents: Iterable[Document], pace: Pace) -> Answer:
    """The embedder's share of the time that the job takes, and the stage that was busy longest."""
    clock = Clock()
    with clock.running():
        report = IngestJob(store, documents).run()
    if not report.complete or report.write.rejected:
        raise RuntimeError("the job left something out")
    return {"share": pace.seconds / clock.seconds, "limiter": report.limiter}
