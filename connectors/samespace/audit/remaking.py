"""The vectors that rows would have if their texts were embedded now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from samespace.documents import Document
from samespace.errors import InvalidInput
from samespace.ingest.embedder import Embedder, Made
from samespace.ingest.pieces import Plan
from samespace.ingest.pipeline import LATE
from samespace.protocols import AnyBackend, SupportsLateChunking, Vector

BLANK = "there is nothing to embed"
Chunks = Mapping[str, Sequence[Document]]
"""The chunks of documents, in their order, by the document's id."""


@dataclass(slots=True)
class Remade:
    """Vectors by the rows' ids, and for the others the reason; ``cut`` are of texts that were shortened.

    Where nothing keeps ids unique, several rows may have one: then their texts tell apart their vectors and
    their reasons.
    """

    vectors: dict[str, Vector] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    embedded: int = 0
    _by_text: dict[tuple[str, str], Vector] = field(default_factory=dict)
    _reasons: dict[tuple[str, str], str] = field(default_factory=dict)

    def put(self, row: Document, vector: Vector) -> None:
        """Keep a row's vector."""
        self.vectors[row.id] = vector
        self._by_text[row.id, row.embedded_text] = vector

    def vector_of(self, row: Document) -> Vector | None:
        """That of this row, and of no other with its id; None where it was refused."""
        return self._by_text.get((row.id, row.embedded_text))

    def refuse(self, row: Document, reason: str) -> None:
        """Say why a row has no vector."""
        self.refused[row.id] = reason
        self._reasons[row.id, row.embedded_text] = reason

    def reason_of(self, row: Document) -> str | None:
        """Why this row, and no other with its id, has no vector; None where nothing is said of it."""
        if self.vector_of(row) is not None:
            return None
        if self._reasons:
            return self._reasons.get((row.id, row.embedded_text))
        return self.refused.get(row.id)


def is_late(provenance: Mapping[str, str]) -> bool:
    """Whether a slot's vectors were made from chunks in sight of one another."""
    return LATE.items() <= dict(provenance).items()


def check_can_embed_chunks(backend: AnyBackend, collection: str) -> None:
    """:class:`InvalidInput` for a backend that embeds each chunk alone."""
    if not isinstance(backend, SupportsLateChunking):
        raise InvalidInput(
            f"the chunks of collection {collection!r} are embedded in sight of one another, and "
            f"{type(backend).__name__} has no embed_chunks, so that every row would look foreign; pass "
            "a backend that has it"
        )


async def remade(
    embedder: Embedder, rows: Sequence[Document], chunks: Chunks, *, partly: bool = False
) -> Remade:
    """Embed the texts of rows; those with a parent in ``chunks`` together with its chunks.

    ``partly`` is what :meth:`Embedder.embed` makes of it.
    """
    alone = [row for row in rows if row.parent is None or row.parent.id not in chunks]
    parents = dict.fromkeys(row.parent.id for row in rows if row.parent is not None)
    together = {parent: chunks[parent] for parent in parents if parent in chunks}
    result = Remade()
    for row in [*alone, *(chunk for each in together.values() for chunk in each)]:
        if is_blank(row):
            result.refuse(row, BLANK)
    plan = Plan(
        embed=[row for row in alone if not is_blank(row)],
        together=[
            tuple(chunk for chunk in each if not is_blank(chunk)) for each in together.values()
        ],
    )
    plan.together = [each for each in plan.together if each]
    made = await embedder.embed(plan, partly=partly)
    embedder.forget(made.texts)
    _sort(made, plan.embed, together, result)
    return result


def _sort(made: Made, alone: Sequence[Document], together: Chunks, result: Remade) -> None:
    for row, vector in made.rows:
        result.put(row, vector)
    result.embedded = made.embedded
    result.cut = set(made.truncated)
    reasons = {item.id: str(item.error) for item in made.rejected}
    chunks = [(parent, chunk) for parent, each in together.items() for chunk in each]
    for named, row in [*((row.id, row) for row in alone), *chunks]:
        if named in reasons and result.vector_of(row) is None:
            result.refuse(row, reasons[named])


def is_blank(row: Document) -> bool:
    """Whether a row has nothing to embed."""
    return not row.embedded_text or row.embedded_text.isspace()
