"""What a collection is, as its own description says; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from qdrant_client import models

from samespace.errors import InvalidInput, excerpt
from samespace.guard import SlotRecord, SpaceRecord
from samespace.index import Index
from samespace.layout import Layout
from samespace.names import is_unstorable
from samespace.space import EmbeddingSpace
from samespace.stores.qdrant.adopted import AdoptedRows
from samespace.stores.qdrant.requests import INDEXES, METADATA, TEXT, OwnRows
from samespace.stores.refusals import check_cosine

DEFERRED: Final = 0
"""The indexing threshold, in kilobytes, at which nothing is indexed."""
AT_ONCE: Final = 1
"""The least one: every segment of a kilobyte of vectors is indexed."""
USUAL: Final = 10_000
"""What a server has unless it is told otherwise."""
OVERSAMPLING: Final[Mapping[str, float]] = {"int8": 2.0, "binary": 8.0}
"""How many times the limit is weighed by quantised vectors before the whole ones decide."""
_NAME_CHARACTERS: Final = 255
Rows = OwnRows | AdoptedRows
Metric = models.Distance


@dataclass(frozen=True, slots=True)
class VectorShape:
    """One named vector: how long, compared how, and kept how."""

    size: int
    metric: Metric
    quantization: str | None = None
    is_multiple: bool = False
    in_graph: bool = True

    @classmethod
    def of(cls, params: models.VectorParams) -> VectorShape:
        """As the server describes it."""
        hnsw = params.hnsw_config
        return cls(
            size=params.size,
            metric=params.distance,
            quantization=_quantization(params.quantization_config),
            is_multiple=params.multivector_config is not None,
            in_graph=hnsw is None or hnsw.m != 0,
        )

    def score(self, given: float) -> float:
        """The cosine that a score of the server's is; of unit vectors where the metric needs that."""
        cosine = 1.0 - given * given / 2 if self.metric is Metric.EUCLID else given
        if self.metric is not Metric.COSINE:
            check_cosine(cosine, metric=self.metric.value)
        return max(-1.0, min(1.0, cosine))

    def search_params(self) -> models.SearchParams:
        """How to search: what is quantised is weighed more widely, and by the whole vectors."""
        if self.quantization is None:
            return models.SearchParams(exact=None if self.in_graph else True)
        return models.SearchParams(
            quantization=models.QuantizationSearchParams(
                rescore=True, oversampling=OVERSAMPLING[self.quantization]
            )
        )


@dataclass(frozen=True, slots=True)
class State:
    """What is known of a collection."""

    exists: bool
    record: SpaceRecord | None
    rows: Rows
    vectors: Mapping[str, VectorShape]
    others: tuple[str, ...]
    """Vectors that are not dense, of which nothing is read or written here."""
    threshold: int | None
    indexed: int
    settled: bool
    """Whether no optimiser is at work."""
    failed: bool
    """Whether an optimiser, or a write, has failed for good."""
    indexes_payload: bool
    """Whether all that filters on a collection of ours look at is indexed."""
    read_at: float
    ready: list[SlotRecord] = field(default_factory=list)
    """The handle's slot, once it was found fit for searches."""

    @property
    def layout(self) -> Layout | None:
        """Where things are, unless they are as we put them."""
        return self.rows.layout

    @property
    def is_built(self) -> bool:
        """Whether there is a graph, and no more of it to come for what is there."""
        return self.indexed > 0 and self.settled and self.threshold != DEFERRED


def check_name(name: object) -> str:
    """Return ``name`` if it can name a collection of Qdrant that somebody made."""
    if not isinstance(name, str) or not name or is_unstorable(name) or len(name) > _NAME_CHARACTERS:
        raise InvalidInput(
            f"collection {excerpt(name)} cannot be one of Qdrant: it is empty, has a NUL, or more "
            f"than {_NAME_CHARACTERS} characters"
        )
    return name


def absent(read_at: float) -> State:
    """What is known where there is no such collection."""
    nothing: Mapping[str, VectorShape] = MappingProxyType({})
    return State(
        exists=False, record=None, rows=OwnRows(), vectors=nothing, others=(), threshold=None,
        indexed=0, settled=True, failed=False, indexes_payload=True, read_at=read_at,
    )  # fmt: skip


def described(
    info: models.CollectionInfo, record: SpaceRecord | None, rows: Rows, read_at: float
) -> State:
    """What the server's description says."""
    params = info.config.params
    vectors = dense(params.vectors)
    multiple = [name for name, shape in vectors.items() if shape.is_multiple]
    return State(
        exists=True,
        record=record,
        rows=rows,
        vectors=MappingProxyType(vectors),
        others=(*multiple, *(params.sparse_vectors or {})),
        threshold=info.config.optimizer_config.indexing_threshold,
        indexed=info.indexed_vectors_count or 0,
        settled=info.status is models.CollectionStatus.GREEN,
        failed=info.status is models.CollectionStatus.RED,
        indexes_payload=INDEXES.keys() <= info.payload_schema.keys(),
        read_at=read_at,
    )


def dense(vectors: Any) -> dict[str, VectorShape]:
    """The dense vectors by name; that of a collection with but one may have none."""
    named = vectors if isinstance(vectors, dict) else {} if vectors is None else {"": vectors}
    return {name: VectorShape.of(params) for name, params in named.items()}


def rows_of(record: SpaceRecord | None, claimed: Layout | None) -> Rows:
    """How documents are kept: as the record says, or as is claimed where there is none."""
    if record is None:
        return OwnRows() if claimed is None else AdoptedRows(claimed)
    if record.layout is None:
        return OwnRows()
    text = None if claimed is None or isinstance(claimed.text, str) else claimed.text
    return AdoptedRows(Layout.from_dict(dict(record.layout), text=text))


def is_made_here(layout: Layout, space: EmbeddingSpace) -> bool:
    """Whether a layout describes a collection of ours, which has lost its record."""
    return (layout.slot, layout.text, layout.metadata) == (space.id, TEXT, METADATA)


def check_slot(state: State, layout: Layout, space: EmbeddingSpace) -> None:
    """:class:`InvalidInput` if the layout's slot is not there, or cannot hold the space's vectors."""
    shape = state.vectors.get(layout.slot)
    named = excerpt(layout.slot)
    if shape is None or shape.is_multiple:
        known = ", ".join(map(excerpt, state.vectors)) or "none"
        raise InvalidInput(
            f"Layout.slot names the vector {named}, which the collection does not have as one dense "
            f"vector a point; it has {known} ('' is the unnamed one)"
        )
    if shape.size != space.dimensions:
        raise InvalidInput(
            f"vector {named} has {shape.size} dimensions and {space} has {space.dimensions} "
            "dimensions; name the space of the stored vectors"
        )
    if shape.metric is Metric.MANHATTAN or (
        shape.metric is not Metric.COSINE and not space.normalized
    ):
        raise InvalidInput(
            f"vector {named} is compared by {shape.metric.value}, from which no cosine follows"
            f"{'' if shape.metric is Metric.MANHATTAN else ' unless the space is normalized'}; copy "
            "the points into a collection that compares by Cosine"
        )


def vector_params(space: EmbeddingSpace, index: Index) -> models.VectorParams:
    """A slot as it is created with a collection."""
    return models.VectorParams(
        size=space.dimensions,
        distance=Metric.COSINE,
        hnsw_config=_hnsw(index),
        quantization_config=_quantized(index),
        datatype=models.Datatype.FLOAT16 if index.quantization == "half" else None,
    )


def dense_config(space: EmbeddingSpace, index: Index) -> models.DenseVectorNameConfig:
    """A slot as it is added to a collection; its index is given by :func:`vector_diff`."""
    half = models.VectorStorageDatatype.FLOAT16 if index.quantization == "half" else None
    return models.DenseVectorNameConfig(
        dense=models.DenseVectorConfig(size=space.dimensions, distance=Metric.COSINE, datatype=half)
    )


def vector_diff(index: Index) -> models.VectorParamsDiff:
    """How a slot that was added is indexed."""
    return models.VectorParamsDiff(hnsw_config=_hnsw(index), quantization_config=_quantized(index))


def threshold_of(index: Index) -> int | None:
    """The indexing threshold that a collection begins with; None for the server's own."""
    if index.kind == "flat" or index.build == "auto":
        return None
    return DEFERRED if index.build == "manual" else AT_ONCE


def _hnsw(index: Index) -> models.HnswConfigDiff:
    if index.kind == "flat":
        return models.HnswConfigDiff(m=0)
    return models.HnswConfigDiff(m=index.m, ef_construct=max(4, index.ef_construction))


def _quantized(index: Index) -> Any:
    if index.quantization == "int8":
        return models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
        )
    if index.quantization == "binary":
        return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
    return None


def _quantization(config: Any) -> str | None:
    """What a vector is quantised to, in the words of :class:`Index`; other kinds count as binary."""
    if config is None:
        return None
    return "int8" if isinstance(config, models.ScalarQuantization) else "binary"
