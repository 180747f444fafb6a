"""A process that runs an ingestion job: ``main``, in a process of its own.

It prints a line for each call of the backend and each batch that was acknowledged, so that it can be
killed anywhere; how many texts were embedded is appended to a file, which outlives it. ``hold`` names
a seam and a count: there it prints ``held`` and waits to be killed.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.contract.ingesting import Bars, Place

from samespace import Document, IngestReport
from samespace.guard import CANARY_TEXTS
from samespace.ingest.checkpoint import CheckpointFile
from samespace.ingest.pipeline import Pipeline
from samespace.ingest.target import Target
from samespace.protocols import Matrix
from samespace.testing.backends import TaskBackend

BATCH = 50
SEAMS = ("embed", "write", "written", "checkpoint")


def sentences(number: int, version: int) -> list[str]:
    """The chunks of a document: of another number of them in each version."""
    count = (number + version) % 3 + 1
    return [f"document {number} version {version} part {part}|" for part in range(count)]


def documents(size: int, version: int, *, random_ids: bool = False) -> Iterator[Document]:
    for number in range(size):
        id = uuid.uuid4().hex if random_ids else f"d{number}"
        yield Document(id, "".join(sentences(number, version)), {"n": number})


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Holder:
    """Waits at the n-th time that a seam is passed."""

    def __init__(self, seam: str, times: int) -> None:
        self.seam, self.times = seam, times

    def at(self, seam: str) -> None:
        if seam != self.seam:
            return
        self.times -= 1
        if not self.times:
            say("held")
            threading.Event().wait()


class Appending(TaskBackend):
    """Notes how many texts it is asked for before it embeds them, by several calls at once."""

    calls_at_once = 3

    def __init__(self, log: Path, holder: Holder) -> None:
        super().__init__()
        self.log, self.holder = log, holder

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        own = [text for text in texts if text not in CANARY_TEXTS]
        if own:
            with self.log.open("a") as log:
                log.write(f"{len(own)}\n")
            say("embed")
            self.holder.at("embed")
        return super().embed_documents(texts)


def hold_at_seams(holder: Holder) -> None:
    """Around what a job calls."""
    write, save = Target.write, CheckpointFile.save

    async def held_write(self: Target, rows: Any) -> Any:
        if rows:
            holder.at("write")
        done = await write(self, rows)
        if rows:
            holder.at("written")
        return done

    def held_save(self: CheckpointFile, checkpoint: Any) -> None:
        holder.at("checkpoint")
        save(self, checkpoint)

    Target.write, CheckpointFile.save = held_write, held_save  # type: ignore[method-assign]


def acknowledge_before_writing() -> None:
    """The fault that a checkpoint is there to prevent."""
    store: Callable[..., Any] = Pipeline._store

    async def early(self: Pipeline, batch: Any, *others: Any) -> None:
        await self.writing.do(lambda: self._acknowledge(batch, ()))
        await store(self, batch, *others)

    Pipeline._store = early  # type: ignore[method-assign, assignment]


def end_as_the_command_does() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))


def main(
    place: dict[str, Any],
    folder: str,
    size: int,
    version: int,
    *,
    hold: tuple[str, int] = ("", 0),
    random_ids: bool = False,
    early: bool = False,
) -> None:
    holder = Holder(*hold)
    hold_at_seams(holder)
    end_as_the_command_does()
    if early:
        acknowledge_before_writing()

    def tell(report: IngestReport) -> None:
        say("batch")

    with Place(**place).job(
        Appending(Path(folder, "embedded"), holder),
        documents(size, version, random_ids=random_ids),
        identity="numbers",
        checkpoint=Path(folder, "point"),
        chunker=Bars(),
        batch_size=BATCH,
        on_progress=tell,
    ) as job:
        try:
            job.run()
        finally:
            left = [thread.name for thread in threading.enumerate() if "samespace" in thread.name]
            done = job.report.resumed_at + job.report.documents
            say(json.dumps({"left": left, "done": done, "stopped": job.report.stopped}))
