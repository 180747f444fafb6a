"""Vectors of a random sample of rows, made anew and compared with those that are stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from samespace.audit.auditing import BATCH_SIZE, is_still
from samespace.audit.remaking import Chunks, Remade, is_blank, remade
from samespace.audit.rows import Rows, may_be_unit
from samespace.audit.verdicts import Verdict, judge
from samespace.documents import Document, SlotInfo, VersionedRow
from samespace.ingest.embedder import Embedder
from samespace.ingest.target import unique
from samespace.migrate.asking import Slot
from samespace.migrate.evidence import NAMED, Named, Sampled
from samespace.migrate.fingerprints import Fingerprints, fingerprint_of


class Sampling:
    """Embeds the texts of rows again; those of one document together where the slot's were."""

    def __init__(
        self, rows: Rows, embedder: Embedder, slot: SlotInfo, *, is_late: bool, agreement: float
    ) -> None:
        self._rows, self._embedder, self._is_late = rows, embedder, is_late
        self._may_be_unit = may_be_unit(slot)
        self._found = Sampled(threshold=agreement)
        self._done = Fingerprints()
        """Of documents whose chunks were looked at, in whatever order these come."""

    async def run(self, drawn: Sequence[Document]) -> Sampled:
        """What became of each."""
        # Chunks of one document follow one another: what is embedded together is so in few batches.
        rows = sorted(drawn, key=_document) if self._is_late else drawn
        for start in range(0, len(rows), BATCH_SIZE):
            await self._take(rows[start : start + BATCH_SIZE])
        return self._found

    async def run_through(self, slot: Slot) -> Sampled:
        """What became of every row of a slot, a page at a time."""
        after: str | None = None
        while True:
            rows, after = await slot.page(after)
            await (self._take_documents(slot, rows) if self._is_late else self._take(rows))
            if after is None:
                return self._found

    async def _take_documents(self, slot: Slot, page: Sequence[Document]) -> None:
        """All chunks of the documents that no page before had a chunk of, and rows without a document."""
        met = unique(row.parent.id for row in page if row.parent is not None)
        parents = [each for each in met if fingerprint_of(each) not in self._done]
        for each in parents:
            self._done.add(fingerprint_of(each))
        chunks = await self._rows.chunks_of(parents)
        alone = [row for row in page if row.parent is None]
        whole = (row for each in chunks.values() for row in each if row.vector is not None)
        await self._judge([*alone, *filter(slot.is_searched, whole)], chunks)

    async def _take(self, part: Sequence[Document]) -> None:
        parents = unique(row.parent.id for row in part if row.parent is not None)
        await self._judge(part, await self._rows.chunks_of(parents) if self._is_late else {})

    async def _judge(self, part: Sequence[Document], chunks: Chunks) -> None:
        self._found.drawn += len(part)
        await self._notice_shared(part)
        made = await remade(self._embedder, part, chunks)
        self._note_refused(part, made)
        foreign = list(self._foreign(part, made))
        left = await self._unchanged(foreign)
        self._found.changed += len(foreign) - len(left)
        for row in sorted(left, key=lambda each: each.id):
            self._found.foreign.add(row.id)

    async def _notice_shared(self, part: Sequence[Document]) -> None:
        """Which ids several rows have, of which one may be on another page."""
        if self._rows.names_natives:
            self._rows.see(await self._rows.of([row.id for row in part]))
            self._found.shared = Named(len(self._rows.shared), sorted(self._rows.shared)[:NAMED])

    def _note_refused(self, part: Sequence[Document], made: Remade) -> None:
        for row in part:
            if is_blank(row):
                self._found.blank += 1
            elif made.vector_of(row) is None:
                self._found.refused[row.id] = made.refused.get(row.id, "it answered nothing")
            elif row.id in made.cut:
                self._found.cut.add(row.id)

    def _foreign(self, part: Sequence[Document], made: Remade) -> Iterator[Document]:
        """The rows whose vector is another."""
        for row in part:
            own = made.vector_of(row)
            if own is None or row.vector is None:
                continue
            finding = judge(
                row.id, row.vector, own, self._rows.space,
                threshold=self._found.threshold, may_be_unit=self._may_be_unit,
            )  # fmt: skip
            self._found.cosines.append(finding.cosine or 0.0)
            if finding.verdict is Verdict.FOREIGN:
                yield row

    async def _unchanged(self, rows: Sequence[Document]) -> list[Document]:
        """Those of these rows that were not written since they were read, nor went away."""
        now: dict[str, list[VersionedRow]] = {}
        for found in await self._rows.of([row.id for row in rows]):
            now.setdefault(found.document.id, []).append(found)
        twins = self._rows.twins.keys()
        there = await self._rows.present([row.id for row in rows if row.id not in twins]) | twins
        return [row for row in rows if row.id in there and _may_be(row, now.get(row.id))]


def _may_be(row: Document, now: Sequence[VersionedRow] | None) -> bool:
    """Whether a row is one of those that its id leads to, or that leads nowhere."""
    return now is None or any(is_still(row, each) for each in now)


def _document(row: Document) -> str:
    return "" if row.parent is None else row.parent.id
