"""Dimensions before money: what a sample keeps of its ranking at smaller sizes and precisions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from samespace.documents import CollectionInfo
from samespace.embedding import embed_async, require_any
from samespace.errors import InvalidInput, excerpt
from samespace.filters import Filter, check_filter
from samespace.forecast import SlotForecast
from samespace.guard import Direction
from samespace.index import Index, Quantization
from samespace.ingest.running import served
from samespace.ingest.target import AnyStore
from samespace.ingest.worker import GRACE, in_a_thread
from samespace.migrate.estimating import shown_size
from samespace.migrate.reading import Rows
from samespace.models import find_model
from samespace.protocols import AnyBackend, ForecastsSlots, Matrix
from samespace.space import EmbeddingSpace, derive

Precision = Literal["float", "half", "binary"]
SIZES: Final = (1024, 896, 768, 512, 256, 128)
NEAREST: Final = 10
LEAST: Final = NEAREST + 2
"""Documents below which every ranking would have most of them."""
MOST_QUERIES: Final = 500
MOST_DOCUMENTS: Final = 10_000
BATCH: Final = 200
_ALIKE: Final = 1e-6
"""Similarities that float32 does not tell apart."""
_SENTENCE: Final = re.compile(r"(?<=[.!?。!?])\s|\n")
_QUANTIZATION: Final[dict[Precision, Quantization | None]] = {
    "float": None,
    "half": "half",
    "binary": "binary",
}
_BAR: Final = 20
Weigh = Callable[[EmbeddingSpace, Quantization | None], SlotForecast | None]
"""What a slot of a space needs in a store with such an index; None where the store has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DimensionRow:
    """One size and precision.

    ``overlap`` is the share of the ten nearest documents at full size that are among the ten nearest here, on
    average. ``disk_per_row`` and ``memory_per_row`` are bytes with the index, None where the store has
    no such index.
    """

    dimensions: int
    precision: Precision
    overlap: float
    disk_per_row: int | None
    memory_per_row: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DimensionReport:
    """What a dry run found: ``space`` is the full size, ``tokens`` what it cost (0 if nobody says)."""

    space: EmbeddingSpace
    documents: int
    queries: int
    own_queries: bool
    tokens: int
    rows: tuple[DimensionRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "rows": [asdict(row) for row in self.rows]}

    def lines(self) -> list[str]:
        """The comparison for a terminal, a line each."""
        asked = "queries that were given" if self.own_queries else "first sentences of these"
        head = f"{'size':>6}  {'precision':<9}  overlap@{NEAREST}  {'':<{_BAR}}  disk a row  memory a row"
        done = f"dry run: {self.documents:,} documents of {self.space}, {self.queries:,} {asked}"
        return [f"{done}, {self.tokens:,} tokens spent", head, *map(_line, self.rows)]


def _line(row: DimensionRow) -> str:
    bar = "#" * round(_BAR * row.overlap)
    disk, memory = (
        "not there" if size is None else shown_size(size)
        for size in (row.disk_per_row, row.memory_per_row)
    )
    return (
        f"{row.dimensions:>6}  {row.precision:<9}  {row.overlap:>10.3f}  {bar:<{_BAR}}  {disk:>10}  "
        f"{memory:>12}"
    )


def dry_run(
    store: AnyStore,
    backend: AnyBackend,
    *,
    documents: int,
    queries: Sequence[str] | None = None,
    where: Filter | None = None,
) -> DimensionReport:
    """:func:`compare_dimensions` of so many rows of a collection, drawn at random, with its sizes.

    The rows are drawn from those with a vector of the handle's space. Nothing is written; an async store
    is closed in the end.
    """
    if type(documents) is not int or not LEAST <= documents <= MOST_DOCUMENTS:
        raise InvalidInput(
            f"documents (--dry-run) is {excerpt(documents)}; pass a whole number from {LEAST} to "
            f"{MOST_DOCUMENTS:,}"
        )
    passed = check_filter(where)
    info, texts = served(lambda _: _drawn(store, documents, passed))
    return compare_dimensions(texts, backend, queries=queries, weigh=weighing(store, info))


async def _drawn(
    store: AnyStore, documents: int, where: Filter | None
) -> tuple[CollectionInfo, list[str]]:
    with in_a_thread("dry run", grace=GRACE) as thread:
        rows = Rows(store, thread)
        try:
            info = await rows.info()
            drawn = await rows.sample(store.space, documents, where)
        finally:
            if store.is_async and rows.is_open:
                await rows.close()
    return info, [row.document.embedded_text for row in drawn]


def compare_dimensions(
    texts: Sequence[str],
    backend: AnyBackend,
    *,
    queries: Sequence[str] | None = None,
    weigh: Weigh | None = None,
) -> DimensionReport:
    """How much of the ranking at full size smaller sizes and precisions keep, by embedding each text once.

    ``backend`` is of the largest size that is compared: its vectors are shortened, which for a model that
    is trained for it gives those of the smaller size. ``queries`` are real ones; without them the first
    sentence of each of at most 500 documents asks for the others. *half* is float16 on both
    sides, *binary* the signs of both sides; where documents are equally near at the border of the ten, each
    counts by its chance to be among them. No index is built, so what an approximate one misses comes
    on top.

    :class:`InvalidInput` for fewer than 12 texts that can be embedded.
    """
    documents = _embeddable(texts)
    if len(documents) < LEAST:
        raise InvalidInput(
            f"there are {len(documents)} texts that can be embedded; a comparison of the nearest "
            f"{NEAREST} needs {LEAST} and more (--dry-run)"
        )
    if require_any(backend) is None:
        raise InvalidInput("there is no backend to compare sizes of: pass one")
    asked = None if queries is None else _embeddable(queries)
    if asked is not None and not asked:
        raise InvalidInput("queries has no text that can be embedded; leave it out, or pass some")
    return served(lambda _: _compared(documents, backend, asked, weigh))


def _embeddable(texts: Sequence[str]) -> list[str]:
    for text in texts:
        if not isinstance(text, str):
            raise InvalidInput(f"a text is {excerpt(text)}; pass strings")
    return [text for text in texts if text.strip()]


def first_sentence(text: str) -> str:
    """The first sentence or line of a text."""
    return _SENTENCE.split(text.strip(), maxsplit=1)[0]


async def _compared(
    documents: Sequence[str],
    backend: AnyBackend,
    queries: Sequence[str] | None,
    weigh: Weigh | None,
) -> DimensionReport:
    asked = queries or [first_sentence(text) for text in documents[:MOST_QUERIES]]
    asked = asked[:MOST_QUERIES]
    passages, paid = await _embedded(backend, "documents", documents)
    questions, paid_too = await _embedded(backend, "queries", asked)
    return DimensionReport(
        space=backend.space,
        documents=len(documents),
        queries=len(asked),
        own_queries=queries is not None,
        tokens=paid + paid_too,
        rows=tuple(
            _rows(questions, passages, backend.space, hide_own=queries is None, weigh=weigh)
        ),
    )


def _rows(
    questions: Matrix,
    passages: Matrix,
    space: EmbeddingSpace,
    *,
    hide_own: bool,
    weigh: Weigh | None,
) -> Iterator[DimensionRow]:
    truth = _similarities(questions, passages, "float", hide_own=hide_own)
    for size in sizes_of(space):
        shorter = replace(space, dimensions=size)
        asked, held = (
            derive(each, stored=space, offered=shorter) for each in (questions, passages)
        )
        for precision in get_args(Precision):
            found = _similarities(asked, held, precision, hide_own=hide_own)
            weight = None if weigh is None else weigh(shorter, _QUANTIZATION[precision])
            yield DimensionRow(
                dimensions=size,
                precision=precision,
                overlap=round(overlap(truth, found), 4),
                disk_per_row=None if weight is None else weight.disk_per_row,
                memory_per_row=None if weight is None else weight.memory_per_row,
            )


async def _embedded(
    backend: AnyBackend, direction: Direction, texts: Sequence[str]
) -> tuple[Matrix, int]:
    """Vectors, and the tokens that they cost."""
    parts, tokens = [], 0
    for start in range(0, len(texts), BATCH):
        vectors, usage = await embed_async(backend, direction, texts[start : start + BATCH])
        parts.append(vectors)
        tokens += usage.tokens
    return np.concatenate(parts), tokens


def sizes_of(space: EmbeddingSpace) -> list[int]:
    """The sizes to compare, the full one first: those that its model is trained for, if that is known."""
    model = find_model(space.model)
    if model is None or model.min_dimensions == model.dimensions:
        return [space.dimensions]
    least, trained = model.min_dimensions, model.matryoshka or SIZES
    smaller = [size for size in SIZES if least <= size < space.dimensions and size in trained]
    return [space.dimensions, *smaller]


def _similarities(
    questions: Matrix, passages: Matrix, precision: Precision, *, hide_own: bool
) -> NDArray[np.float32]:
    """Shape ``(queries, documents)``; a query that is a document's own sentence does not see that."""
    a, b = (_at(each, precision) for each in (questions, passages))
    found: NDArray[np.float32] = a @ b.T
    if hide_own:
        np.fill_diagonal(found, -np.inf)
    return found


def _at(vectors: Matrix, precision: Precision) -> Matrix:
    """Vectors as a precision keeps them, of unit norm, so that products are cosines."""
    if precision == "binary":
        return np.asarray(np.where(vectors >= 0, 1, -1) / np.sqrt(vectors.shape[1]), np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    kept = unit.astype(np.float16) if precision == "half" else unit
    return np.asarray(kept, np.float32)


def overlap(truth: NDArray[np.float32], found: NDArray[np.float32], count: int = NEAREST) -> float:
    """The share of the ``count`` nearest by ``truth`` among those by ``found``, on average.

    Both have shape ``(queries, documents)``. What is as near as the last of the true ones is one of them;
    at the border of the found ones each counts by its chance to be taken.
    """
    right = truth >= _border(truth, count) - _ALIKE
    border = _border(found, count)
    above, tied = found > border + _ALIKE, np.abs(found - border) <= _ALIKE
    room = count - above.sum(axis=1)
    hits = (right & above).sum(axis=1) + (right & tied).sum(axis=1) * room / tied.sum(axis=1)
    return float(np.mean(hits / count))


def _border(similarities: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """The ``count``-th largest of each row, shape ``(queries, 1)``."""
    return np.partition(similarities, -count, axis=1)[:, [-count]]


def weighing(store: object, info: CollectionInfo) -> Weigh | None:
    """How a store weighs slots; None for one that cannot."""
    if not isinstance(store, ForecastsSlots):
        return None

    def weigh(space: EmbeddingSpace, quantization: Quantization | None) -> SlotForecast | None:
        try:
            return store.forecast(space, info, Index(quantization=quantization))
        except InvalidInput:  # the store has no such index
            return None

    return weigh
