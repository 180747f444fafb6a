"""Vectors of a random sample of rows, made anew and compared with those that are stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from samespace.audit.auditing import BATCH_SIZE, is_still
from samespace.audit.remaking import BLANK, Remade, remade
from samespace.audit.rows import Rows, may_be_unit
from samespace.audit.verdicts import Finding, Verdict, judge
from samespace.documents import Document, SlotInfo, VersionedRow
from samespace.ingest.embedder import Embedder
from samespace.ingest.target import unique
from samespace.migrate.asking import Slot
from samespace.migrate.evidence import Sampled


class Sampling:
    """Embeds the texts of rows again; those of one document together where the slot's were."""

    def __init__(
        self, rows: Rows, embedder: Embedder, slot: SlotInfo, *, is_late: bool, agreement: float
    ) -> None:
        self._rows, self._embedder, self._is_late = rows, embedder, is_late
        self._may_be_unit = may_be_unit(slot)
        self._found = Sampled(threshold=agreement)

    async def run(self, drawn: Sequence[Document]) -> Sampled:
        """What became of each."""
        self._found.drawn = len(drawn)
        for start in range(0, len(drawn), BATCH_SIZE):
            await self._take(drawn[start : start + BATCH_SIZE])
        return self._found

    async def run_through(self, slot: Slot) -> Sampled:
        """What became of every row of a slot, a page at a time."""
        after: str | None = None
        while True:
            rows, after = await slot.page(after)
            self._found.drawn += len(rows)
            await self._take(rows)
            if after is None:
                return self._found

    async def _take(self, part: Sequence[Document]) -> None:
        parents = unique(row.parent.id for row in part if row.parent is not None)
        chunks = await self._rows.chunks_of(parents) if self._is_late else {}
        made = await remade(self._embedder, part, chunks)
        self._note_refused(part, made)
        foreign = {each.id for each in self._judged(part, made)}
        changed = await self._changed([row for row in part if row.id in foreign])
        self._found.changed += len(changed)
        for id in sorted(foreign - changed):
            self._found.foreign.add(id)

    def _note_refused(self, part: Sequence[Document], made: Remade) -> None:
        for row in part:
            reason = made.refused.get(row.id)
            if reason == BLANK:
                self._found.blank += 1
            elif row.id not in made.vectors:
                self._found.refused[row.id] = reason or "it answered nothing"
            elif row.id in made.cut:
                self._found.cut.add(row.id)

    def _judged(self, part: Sequence[Document], made: Remade) -> Iterator[Finding]:
        """The rows whose vector is another."""
        for row in part:
            own = made.vectors.get(row.id)
            if own is None or row.vector is None:
                continue
            finding = judge(
                row.id, row.vector, own, self._rows.space,
                threshold=self._found.threshold, may_be_unit=self._may_be_unit,
            )  # fmt: skip
            self._found.cosines.append(finding.cosine or 0.0)
            if finding.verdict is Verdict.FOREIGN:
                yield finding

    async def _changed(self, rows: Sequence[Document]) -> set[str]:
        """Those of these rows that were written since they were read, or went away."""
        now: dict[str, list[VersionedRow]] = {}
        for found in await self._rows.of([row.id for row in rows]):
            now.setdefault(found.document.id, []).append(found)
        reached = [row.id for row in rows if row.id not in self._rows.twins]
        gone = set(reached) - await self._rows.present(reached)
        return gone | {
            row.id
            for row in rows
            if row.id in now and not any(is_still(row, each) for each in now[row.id])
        }
