"""A slot whose rows are embedded in sight of the other chunks of their documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import Any, Final

from samespace.audit.remaking import BLANK, Remade, is_blank
from samespace.audit.rows import chunk_order
from samespace.audit.verdicts import cosine_of
from samespace.documents import Document, VersionedRow
from samespace.migrate.filling import Pair, SlotFilling
from samespace.migrate.fingerprints import Fingerprints, fingerprint_of, fingerprint_of_chunks
from samespace.migrate.making import Place, paired, refused_of
from samespace.migrate.reading import passing
from samespace.protocols import Vector

SAME: Final = 0.9999
"""Cosine above which a vector is the one that was made."""


class LateChunking(SlotFilling):
    """Fills whole documents: one chunk that changed has its siblings embedded again.

    So has one that becomes blank after a run has filled its document, or looked at all rows. Of one that
    is blank when a run begins nothing says whether its siblings were embedded since: it gets no vector
    that could tell.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._documents: set[str] = set()
        """Those whose chunks are being embedded."""
        self._documents_refused = Fingerprints()
        """Of all chunks of documents that were not, or not all, embedded."""
        self._has_looked = False
        """Whether this run has seen all chunks that had been blank before."""
        self._filled = Fingerprints()
        """Documents that were until then."""

    async def _anew(self, refused: Sequence[VersionedRow]) -> set[str]:
        """The ids of chunks whose document is no longer what was refused."""
        chunks = [row.document for row in refused if not is_blank(row.document)]
        parents = {chunk.parent.id for chunk in chunks if chunk.parent is not None}
        if not parents:
            return set()
        filled, pending = await self._rows.of_parents(self._space, sorted(parents))
        rows = _distinct((*filled, *pending))
        for parent in list(parents):
            of_it = [row.document for row in rows if _is_of(row, parent)]
            if fingerprint_of_chunks(of_it) in self._documents_refused:
                parents.discard(parent)
        return {chunk.id for chunk in chunks if chunk.parent and chunk.parent.id in parents}

    def _is_fresh(self, row: VersionedRow) -> bool:
        return self._unsourced is None or self._unsourced.is_fresh(row)

    async def _look_beyond(self) -> None:
        """Fill documents that are to be embedded again, though none of their rows may say so."""
        parents, limit = sorted(self._look.again), self._share.batch_size
        for start in range(0, len(parents), limit):
            rows = await self._one_of_each(parents[start : start + limit])
            await self._take(rows, are_pending=False)
        await self._in_flight.drain()
        self._has_looked, self._filled = True, Fingerprints()

    async def _one_of_each(self, parents: Sequence[str]) -> list[VersionedRow]:
        """A chunk of each of these documents; those with none that can be embedded are done with."""
        filled, pending = await self._rows.of_parents(self._space, parents)
        rows = passing(_distinct((*filled, *pending)), self._share.where)
        found = _by_parent(await self._wanted([row for row in rows if not is_blank(row.document)]))
        self._look.again -= set(parents) - found.keys()
        return [of_it[-1] for of_it in found.values()]

    async def _fill(self, rows: Sequence[VersionedRow], *, are_pending: bool) -> None:
        """Fill rows in sight of the other chunks of their documents, all of which get new vectors."""
        if self._unsourced is not None:
            await self._unsourced.look_beside(rows, are_pending=are_pending)
        alone = [row for row in rows if row.document.parent is None]
        if alone:
            await self._each(alone)
        documents = self._free(rows)
        self._documents.update(documents)
        # Rows of the others are found by whoever has those: refused or filled with them.
        self._look.found += sum(map(len, documents.values()))
        try:
            await self._fill_documents(documents, are_pending=are_pending)
        finally:
            self._documents.difference_update(documents)

    async def _fill_documents(
        self, documents: Mapping[str, set[str]], *, are_pending: bool
    ) -> None:
        """Each is embedded by itself; as many as have a batch of chunks are written at once.

        What was paid for is written, also where the next one cannot be embedded.
        """
        embedded: list[_Embedded] = []
        try:
            for parent, wanted in documents.items():
                if self._is_stopping():
                    break
                embedded += await self._embedded_of(parent, wanted, are_pending=are_pending)
                if sum(len(each.ids) for each in embedded) >= self._share.batch_size:
                    full, embedded = embedded, []
                    await self._write_documents(full, are_pending=are_pending)
        except Exception:
            await self._write_documents(embedded, are_pending=are_pending)
            raise
        await self._write_documents(embedded, are_pending=are_pending)

    async def _embedded_of(
        self, parent: str, wanted: set[str], *, are_pending: bool
    ) -> list[_Embedded]:
        """A document that is to be filled and can be embedded; none for any other."""
        read = await self._document(parent, wanted, are_pending=are_pending)
        return [] if read is None else await self._embed(read)

    def _free(self, rows: Sequence[VersionedRow]) -> dict[str, set[str]]:
        """The ids of rows by their documents, but for documents that another batch has."""
        found: dict[str, set[str]] = {}
        for row in rows:
            parent = row.document.parent
            if parent is not None and parent.id not in self._documents:
                found.setdefault(parent.id, set()).add(row.document.id)
        return dict(sorted(found.items()))

    async def _document(self, parent: str, wanted: set[str], *, are_pending: bool) -> _Read | None:
        """One document as it is now; None where it is not to be embedded."""
        filled, pending = await self._rows.of_parents(self._space, [parent])
        rows = _distinct((*filled, *pending))
        is_known = self._has_looked or fingerprint_of(parent) in self._filled
        if is_known and self._has_become_blank(rows, wanted):
            self._look.again.add(parent)
        wanted = wanted - await self._hopeless(rows, wanted)
        if not wanted:
            return None
        is_pending = not wanted.isdisjoint(row.document.id for row in pending)
        if not is_pending and (are_pending or not self._is_left(wanted, filled)):
            return None  # another batch has filled them
        last = wanted | {row.document.id for row in pending}
        read = _Read(parent=parent, rows=rows, wanted=wanted, last=last)
        if await self._is_unfit(read) or self._is_given_up(read):
            return None
        return read if await self._is_sourced(read) else None

    def _has_become_blank(self, rows: Sequence[VersionedRow], wanted: set[str]) -> bool:
        """Whether one of these chunks has a blank text that it had not, or was not there, before."""
        blank = (row for row in rows if row.document.id in wanted and is_blank(row.document))
        return not all(map(self._tally.has_refused, blank))

    async def _hopeless(self, rows: Sequence[VersionedRow], wanted: set[str]) -> set[str]:
        """Chunks for which their document is not embedded again: blank, or refused with all of it."""
        is_refused = fingerprint_of_chunks(_documents(rows)) in self._documents_refused
        found = {
            row.document.id
            for row in rows
            if row.document.id in wanted
            and (is_blank(row.document) or (is_refused and self._tally.has_refused(row)))
        }
        # Those that are refused already keep their reason.
        await self._note(Remade(refused=dict.fromkeys(found, BLANK)), rows, found)
        return found

    async def _is_unfit(self, read: _Read) -> bool:
        """Whether the chunks of a document cannot be embedded together, which then is noted."""
        reason = sharing(read.chunks) or overlapping(read.chunks)
        if reason:
            made = Remade(refused={chunk.id: reason for chunk in read.chunks})
            await self._note_document(made, read)
        return bool(reason)

    def _is_given_up(self, read: _Read) -> bool:
        """Whether the store did not write these chunks again and again; then no more is paid for them."""
        is_so = self._look.has_given_up(read.chunks, read.last)
        self._is_unfinished |= is_so
        return is_so

    async def _is_sourced(self, read: _Read) -> bool:
        """Whether a document may be filled now: :meth:`Unsourced.first`, whose rows it takes over."""
        doubtful = [row for row in read.rows if not self._is_fresh(row)]
        left = await self._after_unsourced(doubtful, partial(self._all_or_none, read.rows))
        read.rows = _distinct((*read.rows, *left))
        return {row.place for row in left} == {row.place for row in doubtful}

    async def _embed(self, read: _Read) -> list[_Embedded]:
        await self._check_together(read.rows)
        made = await self._making.make(read.rows, {read.parent: read.chunks})
        await self._note_document(made, read)
        return _Embedded.of(read, paired(passing(read.rows, self._share.where), made))

    async def _check_together(
        self, rows: Sequence[VersionedRow], beside: Sequence[int] = ()
    ) -> None:
        texts = [row.document.embedded_text for row in rows if not is_blank(row.document)]
        await self._budget.check_together(texts, beside)

    async def _all_or_none(
        self, rows: Sequence[VersionedRow], some: Sequence[VersionedRow], beside: Sequence[int]
    ) -> int:
        """All of some rows, where for each so many tokens are paid elsewhere before their document is."""
        await self._check_together(rows, beside)
        return len(some)

    def _is_left(self, wanted: set[str], filled: Sequence[VersionedRow]) -> bool:
        """Whether some stale rows are that still, though another batch may have had their document."""
        stale = [row for row in filled if row.document.id in wanted]
        is_left = not all(map(self._look.has_written, stale))
        # If others have written a vector of another text since, the store's log says so from here on.
        self._is_unfinished |= not is_left
        return is_left

    async def _note_document(self, made: Remade, read: _Read) -> None:
        """As :meth:`_note`; what is refused is looked at again once there are other chunks."""
        if not all(is_blank(row.document) for row, _ in refused_of(read.rows, made)):
            self._documents_refused.add(fingerprint_of_chunks(read.chunks))
        if not made.vectors:
            self._look.again.discard(read.parent)
        await self._note(made, passing(read.rows, self._share.where), read.wanted)

    async def _write_documents(self, documents: Sequence[_Embedded], *, are_pending: bool) -> None:
        """All chunks but one of each document that is looked for, and then those, as they are now.

        One is held back if others have come between, who may have embedded some in sight of fewer: then
        it is found again, and its document with it, however this run ends. So all hold back the same. If
        it has gone, or its text is again what its vector is of, only this run knows: one that ends then
        leaves the others in sight of what is not there.
        """
        parents = {each.read.parent for each in documents}
        self._look.again -= parents
        self._look.unended |= parents
        changed = await self._try(documents)
        await self._look_again(documents, are_written=not changed)
        ended = [each for each in documents if self._may_end(each)]
        for each in ended:
            each.is_ended = True
        if await self._try(ended):
            await self._look_again(ended, are_written=False)
        for each in documents:
            self._note_outcome(each, are_pending=are_pending)

    async def _try(self, documents: Sequence[_Embedded]) -> int:
        """Write what is to be written next; how many of these rows were no longer what had been read."""
        done = await self._write([pair for each in documents for pair in each.tried])
        return done.changed

    async def _look_again(self, documents: Sequence[_Embedded], *, are_written: bool) -> None:
        """All at once: a read makes a server show first what was written before it."""
        if not documents:
            return
        parents = [each.read.parent for each in documents]
        filled, pending = await self._rows.of_parents(self._space, parents)
        now = _by_parent((*filled, *pending))
        for each in documents:
            each.compare(_distinct(now.get(each.read.parent, ())), is_written=are_written)

    def _may_end(self, embedded: _Embedded) -> bool:
        """Whether a document is what was embedded, and nobody else has written into it.

        What was met with a conflict twice as it is, the store does not write.
        """
        if embedded.has_moved:
            return False
        return not embedded.left or self._look.has_left(embedded.read.chunks)

    def _note_outcome(self, embedded: _Embedded, *, are_pending: bool) -> None:
        read = embedded.read
        if embedded.is_ended:
            self._look.settled += len((read.wanted & embedded.ids) - embedded.left)
        if not embedded.is_ended or embedded.left:
            self._is_unfinished = True
            self._look.note_left(read.chunks, read.last, is_alone=not embedded.has_moved)
        elif not are_pending:
            self._look.note_written(row for row, _ in embedded.pairs)
        if embedded.is_ended and not embedded.has_moved:
            self._look.unended.discard(read.parent)
            if not self._has_looked:
                self._filled.add(fingerprint_of(read.parent))


def overlapping(chunks: Sequence[Document]) -> str:
    """Why chunks of a document cannot be embedded in sight of one another; empty if they can."""
    end, before = -1, ""
    for chunk in chunks:
        span = chunk.parent.span if chunk.parent else None
        if span is None:
            continue
        if span[0] < end:
            return (
                f"chunks {before!r} and {chunk.id!r} of its document overlap, so that embedding them in "
                "sight of one another would count that text twice; cut the document without overlap"
            )
        end, before = span[1], chunk.id
    return ""


def sharing(chunks: Sequence[Document]) -> str:
    """Why vectors of chunks of a document cannot be told apart; empty if they can."""
    ids = Counter(chunk.id for chunk in chunks)
    id, count = max(ids.items(), key=itemgetter(1))
    if count == 1:
        return ""
    return (
        f"{count} chunks of its document have the id {id!r}, so that their vectors could not be told apart "
        "where chunks are embedded in sight of one another; give each an id of its own"
    )


@dataclass(slots=True, kw_only=True)
class _Read:
    """A document as it was read: ``wanted`` are the chunks that were taken, ``last`` all to be filled."""

    parent: str
    rows: list[VersionedRow]
    wanted: set[str]
    last: set[str]

    @property
    def chunks(self) -> list[Document]:
        """Its chunks."""
        return _documents(self.rows)


@dataclass(slots=True, kw_only=True)
class _Embedded:
    """A document with its vectors: ``held`` is the chunk that is written once all ``others`` are.

    ``held`` is None where that row has gone. ``left`` are the chunks that were not written, and
    ``has_moved`` says that others wrote some of them, or the document's texts. ``is_ended`` says that
    ``held`` was tried.
    """

    read: _Read
    others: list[Pair]
    held: Pair | None
    left: set[str] = field(default_factory=set)
    has_moved: bool = False
    is_ended: bool = False

    @classmethod
    def of(cls, read: _Read, pairs: Sequence[Pair]) -> list[_Embedded]:
        """None at all where nothing that is looked for has a vector."""
        looked_for = [pair for pair in pairs if pair[0].document.id in read.last]
        if not looked_for:
            return []
        held = max(looked_for, key=lambda pair: pair[0].document.id)
        return [cls(read=read, others=[pair for pair in pairs if pair is not held], held=held)]

    @property
    def held_back(self) -> list[Pair]:
        """The held chunk, if its row is there."""
        return [] if self.held is None else [self.held]

    @property
    def tried(self) -> list[Pair]:
        """What is written now."""
        return self.held_back if self.is_ended else self.others

    @property
    def pairs(self) -> list[Pair]:
        """All that there is to write."""
        return [*self.others, *self.held_back]

    @property
    def ids(self) -> set[str]:
        """Those of its chunks that there are vectors to write of."""
        return {row.document.id for row, _ in self.pairs}

    def compare(self, rows: Sequence[VersionedRow], *, is_written: bool) -> None:
        """See how the document is now, and unless all was written, what became of what was tried.

        Another version that has not the vector which was made is one that others wrote.
        """
        now = {row.place: row for row in rows}
        tried = [] if is_written else self.tried
        left = [row for row, vector in tried if not _has(now.get(row.place), vector)]
        self.left |= {row.document.id for row in left}
        is_same = fingerprint_of_chunks(_documents(rows)) == fingerprint_of_chunks(self.read.chunks)
        self._hold(now)
        self.has_moved = not is_same or self.held is None or any(map(partial(_is_other, now), left))

    def _hold(self, now: Mapping[Place, VersionedRow]) -> None:
        """Whoever has filled this chunk since had read the document before, maybe with fewer chunks."""
        if self.held is not None:
            row, vector = self.held
            self.held = (now[row.place], vector) if row.place in now else None


def _has(row: VersionedRow | None, vector: Vector) -> bool:
    """Whether a row has a vector, but for what a store rounds."""
    cosine = None if row is None or row.vector is None else cosine_of(row.vector, vector)
    return cosine is not None and cosine > SAME


def _is_other(now: Mapping[Place, VersionedRow], row: VersionedRow) -> bool:
    """Whether a row is no longer the version that was read."""
    return row.place not in now or now[row.place].version != row.version


def _documents(rows: Iterable[VersionedRow]) -> list[Document]:
    return [row.document for row in rows]


def _distinct(rows: Iterable[VersionedRow]) -> list[VersionedRow]:
    """A document's rows in their order, each once, as it was read last."""
    return _in_order({row.place: row for row in rows}.values())


def _in_order(rows: Iterable[VersionedRow]) -> list[VersionedRow]:
    return sorted(rows, key=lambda row: chunk_order(row.document))


def _by_parent(rows: Iterable[VersionedRow]) -> dict[str, list[VersionedRow]]:
    found: dict[str, list[VersionedRow]] = {}
    for row in rows:
        if row.document.parent is not None:
            found.setdefault(row.document.parent.id, []).append(row)
    return found


def _is_of(row: VersionedRow, parent: str) -> bool:
    return row.document.parent is not None and row.document.parent.id == parent
