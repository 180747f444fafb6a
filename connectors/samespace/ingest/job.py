"""A job that brings a source into a store, and can be ended and run again at any moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from samespace.errors import InvalidInput, excerpt
from samespace.filters import Filter, field
from samespace.ingest.arguments import check_count
from samespace.ingest.checkpoint import CheckpointFile
from samespace.ingest.chunking import Chunker, check_chunker
from samespace.ingest.pipeline import Prune, Settings, open_pipeline
from samespace.ingest.report import Estimate, IngestReport
from samespace.ingest.running import served
from samespace.ingest.source import Files, Items, items_of
from samespace.ingest.target import AnyStore
from samespace.ingest.worker import GRACE, Worker, in_a_thread
from samespace.protocols import AnyBackend, ReportsUsage, SupportsLateChunking

BATCH_SIZE: Final = 500
"""How many documents or chunks are compared, embedded and written together."""


class IngestJob:
    """Brings a source's documents into a store, and can be ended and run again at any moment.

    ``source`` is a file or a folder, a list of them, or any iterable of documents that come in the
    same order each time; one that can be read once, like a generator, is for one run. With a
    ``chunker`` documents are cut into chunks; storing one again with fewer of them leaves none of the
    old ones. A document that was stored without a chunker stays beside its chunks, and chunks beside
    a document that is whole now: ``prune`` deletes what the source does not bring any more.
    ``late_chunking`` embeds a document's chunks in sight
    of one another, for which the backend must have ``embed_chunks``; a change of one chunk embeds its
    document again, and a collection that the job creates records it.

    Reading, embedding and writing go on beside one another, a batch at a time: about ``batch_size``
    documents or chunks, or 16 MiB of text. A backend that takes several calls at once, as those of
    an API do, embeds up to three batches at the same time, one with a budget. What has been read is
    never more than five batches ahead of what is stored. What is stored with the same text is not
    embedded again, and a change of metadata alone is written without embedding. A document that is
    refused does not hold up the others: the report names it.

    ``checkpoint`` is a path. The file there says how far the source is stored, is written after the
    store has acknowledged, and is removed once the job is complete: running the same job again goes
    on from there. For an iterable it needs ``identity``, a name for what it yields, and a chunker must
    have a ``__repr__`` that names its options. Where files have
    changed meanwhile, all are compared anew, and what is stored is not embedded again. A second job
    with the same checkpoint at the same time is refused.

    ``prune`` is a filter: rows that pass it and that the source no longer brings are deleted after a
    complete run; what of a source could not be read is not taken for gone, and where nobody can say
    which rows that had, as of a folder, none are deleted in that run. ``prune=True`` is for
    files: it concerns the rows that came from files at or below the job's paths. ``budget_tokens``
    ends the job before a batch is embedded once this run has spent so many, by the backend's count.
    ``on_progress`` is called with the report so far after each batch, in the job's thread.
    """

    def __init__(
        self,
        store: AnyStore,
        source: Any,
        *,
        identity: str | None = None,
        chunker: Chunker | None = None,
        late_chunking: bool = False,
        checkpoint: str | Path | None = None,
        batch_size: int = BATCH_SIZE,
        prune: Filter | bool | None = None,
        budget_tokens: int | None = None,
        on_progress: Callable[[IngestReport], object] | None = None,
    ) -> None:
        check_count(batch_size, what="batch_size")
        if budget_tokens is not None:
            check_count(budget_tokens, what="budget_tokens")
        if chunker is not None:
            check_chunker(chunker)
        if on_progress is not None and not callable(on_progress):
            raise InvalidInput(
                f"on_progress is {excerpt(on_progress)}; pass a function of a report"
            )
        items = items_of(source, identity=identity)
        self._on_progress = on_progress
        self._report = IngestReport()
        self._settings = Settings(
            store=store,
            backend=_checked_backend(
                store.backend, chunker, late_chunking=late_chunking, budget=budget_tokens
            ),
            items=items,
            chunker=chunker,
            together=late_chunking,
            checkpoint=_file_of(checkpoint, items, chunker),
            batch_size=batch_size,
            prune=_pruned(prune, items),
            budget=budget_tokens,
            tell=self._tell,
        )

    @property
    def report(self) -> IngestReport:
        """What the last run has done so far; also while it is running, and after an error."""
        return self._report

    def run(self) -> IngestReport:
        """Run the job in a loop and a thread of its own, while this thread reads the source.

        An async store is closed in the end, in the loop that it was used in, and so is an async
        backend: pass fresh ones. An error that concerns the whole job leaves a valid checkpoint and
        carries the report of what was written; since this thread reads the source, it is raised once
        the source has given the item that it is at. So do Ctrl-C and whatever else a signal's handler
        raises: what is being written is written, and nothing is left running, but for a call of a
        sync backend that does not end soon.
        """
        return served(lambda reading: self._run(reading, closing=self._settings.store.is_async))

    async def run_async(self) -> IngestReport:
        """:meth:`run` in the caller's loop; the source is read in a thread."""
        with in_a_thread("read", grace=GRACE) as reading:
            return await self._run(reading, closing=False)

    def estimate(self) -> Estimate:
        """Read the source, compare it with what is stored, and say what a run would embed.

        It begins where the checkpoint says. Nothing is written. As :meth:`run` it closes an async
        store and an async backend: a job on them runs afterwards with fresh ones.
        """
        return served(self._estimate)

    async def _run(self, reading: Worker, *, closing: bool) -> IngestReport:
        async with open_pipeline(self._settings, reading, closing=closing) as pipeline:
            try:
                await pipeline.run()
            finally:
                self._report = pipeline.report()
        return self._report

    async def _estimate(self, reading: Worker) -> Estimate:
        closing = self._settings.store.is_async
        async with open_pipeline(self._settings, reading, closing=closing) as pipeline:
            return await pipeline.estimate()

    def _tell(self, report: IngestReport) -> None:
        self._report = report
        if self._on_progress is not None:
            self._on_progress(report)


def _file_of(checkpoint: object, items: Items, chunker: Chunker | None) -> CheckpointFile | None:
    """Where a checkpoint is kept, of a job that it can tell from others."""
    if checkpoint is None:
        return None
    if not isinstance(checkpoint, str | Path):
        raise InvalidInput(f"checkpoint is {excerpt(checkpoint)}; pass the path of a file")
    if not items.identity:
        raise InvalidInput(
            "a checkpoint says which source it is of: pass identity=, a name for this iterable"
        )
    if chunker is not None and type(chunker).__repr__ is object.__repr__:
        raise InvalidInput(
            f"a checkpoint says how documents are cut, as repr(chunker): give {type(chunker).__name__} "
            "a __repr__ that names its options"
        )
    return CheckpointFile(Path(checkpoint))


def _pruned(prune: object, items: Items) -> Prune | None:
    if prune is None or prune is False:
        return None
    if isinstance(prune, Filter):
        return Prune(prune)
    if prune is not True:
        raise InvalidInput(f"prune is {excerpt(prune)}; pass a filter, or True for files")
    if not isinstance(items, Files):
        raise InvalidInput(
            "prune=True is for files; of another source say which rows it concerns: pass a filter"
        )
    return Prune(field("source").exists(), items.has)


def _checked_backend(
    backend: AnyBackend | None, chunker: Chunker | None, *, late_chunking: bool, budget: int | None
) -> AnyBackend:
    if backend is None:
        raise InvalidInput("the store has no backend to embed with: open it with backend=")
    if budget is not None and not isinstance(backend, ReportsUsage):
        raise InvalidInput(
            f"{type(backend).__name__} does not say what its calls cost, so budget_tokens would end "
            "nothing; leave it out, or open the store with another backend"
        )
    if late_chunking and chunker is None:
        raise InvalidInput("late_chunking=True embeds chunks: pass chunker=, say TextChunker()")
    if late_chunking and not isinstance(backend, SupportsLateChunking):
        raise InvalidInput(
            f"{type(backend).__name__} has no embed_chunks, which late_chunking=True needs; leave it "
            "out, or open the store with another backend"
        )
    return backend
