"""What goes into a store and what comes out of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from samespace.errors import InvalidInput, SamespaceError, excerpt
from samespace.names import check_id, check_key, is_unstorable

if TYPE_CHECKING:
    from samespace.guard import Canary
    from samespace.index import Index
    from samespace.layout import Layout
    from samespace.space import EmbeddingSpace

Metadata = dict[str, Any]
"""JSON object: strings, booleans, integers within int64, finite floats, None, lists, objects."""

MAX_DEPTH: Final = 16
"""Deepest nesting of metadata; Elasticsearch's ``flattened`` allows 20."""
INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
EXACT_FLOAT: Final = 1e16
"""From here on the shortest form of a float has an exponent, which stores read as an integer."""
PLAIN_KEY: Final = 64
"""Characters of a key whose bytes nobody has to count."""


@dataclass(frozen=True, slots=True)
class Parent:
    """The document that a chunk was cut from.

    ``ordinal`` counts the chunks from 0; ``span`` is ``(start, end)`` in characters of the
    parent's text, end exclusive.
    """

    id: str
    ordinal: int | None = None
    span: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """One text to store and find again.

    ``id`` is any string of 1 to 512 UTF-8 bytes. ``embed_text`` is what is embedded where that is
    not ``text`` itself. ``vector``, shape ``(dimensions,)``, is filled when reading with
    ``with_vectors=True``; it takes no part in comparison.
    """

    id: str
    text: str
    metadata: Metadata = field(default_factory=dict)
    parent: Parent | None = None
    embed_text: str | None = None
    vector: NDArray[np.float32] | None = field(default=None, compare=False)

    @property
    def embedded_text(self) -> str:
        """The text that the document's vector is made from."""
        return self.text if self.embed_text is None else self.embed_text


@dataclass(frozen=True, slots=True)
class Hit:
    """A search result. ``score`` is the cosine similarity in [-1, 1] on every store."""

    document: Document
    score: float
    vector: NDArray[np.float32] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A document that was not stored, and why.

    Of the error its message is kept, not where it was raised: those frames hold the texts of a batch.
    """

    id: str
    error: SamespaceError

    def __post_init__(self) -> None:
        self.error.__traceback__ = self.error.__context__ = self.error.__cause__ = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteReport:
    """What a write did.

    ``written`` and ``skipped`` count documents, ``tokens`` is what the backend reported for the
    call (0 if it reports none), ``truncated`` lists ids whose text the backend cut, ``pending``
    counts rows that this call left without a vector in some slot of the collection.
    """

    written: int = 0
    skipped: int = 0
    rejected: tuple[Rejected, ...] = ()
    tokens: int = 0
    truncated: tuple[str, ...] = ()
    pending: int = 0

    def __add__(self, other: WriteReport) -> WriteReport:
        return WriteReport(
            written=self.written + other.written,
            skipped=self.skipped + other.skipped,
            rejected=self.rejected + other.rejected,
            tokens=self.tokens + other.tokens,
            truncated=self.truncated + other.truncated,
            pending=self.pending + other.pending,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotInfo:
    """One slot of a collection. ``pending`` counts its rows without a vector.

    ``documents_cosine`` and ``queries_cosine`` say how alike the asking handle's backend embeds the
    canary texts to what filled the slot: the lowest of their cosines, None while it has not.
    ``canary`` is what its backend made of known texts, where that was recorded.
    """

    name: str
    space: EmbeddingSpace
    state: str
    pending: int
    has_canary: bool
    provenance: Mapping[str, str]
    documents_cosine: float | None = None
    queries_cosine: float | None = None
    canary: Canary | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionInfo:
    """What a collection is.

    ``space`` is the asking handle's, ``index`` what it would index with; ``index_built`` speaks of
    its slot.
    """

    name: str
    space: EmbeddingSpace
    slots: tuple[SlotInfo, ...]
    rows: int
    index: Index
    index_built: bool
    provenance: Mapping[str, str]
    layout: Layout | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionedRow:
    """A row as it was read, whose slot may be filled.

    ``version`` is what the row was when it was read: ``fill`` writes only if it still is.
    ``vector`` is the row's vector in the slot that was asked for, if one was. ``key`` is what the store
    itself calls a row whose id is another row's, so that the id does not lead to it; empty of any other.
    ``native_id`` is what the store calls the row where nothing keeps documents' ids unique, so that two rows
    of one id differ by it; empty where an id leads to one row.
    """

    document: Document
    version: bytes
    vector: NDArray[np.float32] | None = field(default=None, compare=False)
    key: str = ""
    native_id: str = ""

    @property
    def place(self) -> tuple[str, str, str]:
        """What tells a row from all others, also from those that have its id."""
        return self.document.id, self.native_id, self.key


@dataclass(frozen=True, slots=True, kw_only=True)
class FillReport:
    """``filled`` counts rows written, ``changed`` rows that were no longer what had been read."""

    filled: int
    changed: int


def check_document(document: Document, *, allow_blank: bool = False) -> None:
    """:class:`InvalidInput` if the document cannot be stored as it is; metadata aside."""
    if not isinstance(document, Document):
        raise InvalidInput(f"expected a Document, not {excerpt(document)}")
    check_id(document.id)
    _check_text(document.text, what="text", allow_blank=allow_blank)
    if document.embed_text is not None:
        _check_text(document.embed_text, what="embed_text", allow_blank=False)
    if document.parent is not None:
        _check_parent(document.parent)


def _check_text(text: object, *, what: str, allow_blank: bool) -> None:
    if not isinstance(text, str):
        raise InvalidInput(f"{what} is {excerpt(text)}; pass a string")
    if is_unstorable(text):
        raise InvalidInput(f"{what} has a NUL or a lone surrogate, which no store keeps; remove it")
    if not allow_blank and (not text or text.isspace()):
        raise InvalidInput(f"{what} is blank, so there is nothing to embed; leave the document out")


def _check_parent(parent: Parent) -> None:
    if not isinstance(parent, Parent):
        raise InvalidInput(f"parent is {excerpt(parent)}; pass a Parent")
    check_id(parent.id, what="parent.id")
    span = (0, 0) if parent.span is None else parent.span
    if not isinstance(span, Sequence) or len(span) != 2:
        raise InvalidInput(f"parent.span is {excerpt(span)}; pass (start, end)")
    numbers = (0 if parent.ordinal is None else parent.ordinal, *span)
    if any(type(n) is not int or not 0 <= n < 2**31 for n in numbers):
        raise InvalidInput("parent.ordinal and parent.span are whole numbers from 0 to 2**31 - 1")
    if span[0] > span[1]:
        raise InvalidInput(f"parent.span is {excerpt(span)}; pass (start, end)")


def encode_metadata(metadata: object) -> bytes:
    """Metadata as JSON that reads back equal, or :class:`InvalidInput` naming the offending path."""
    if type(metadata) is not dict:
        raise InvalidInput(f"metadata is {excerpt(metadata)}; pass a dict")
    return dumps_tight(metadata if _is_plain(metadata) else _checked_object(metadata, ()))


def dumps_tight(value: object) -> bytes:
    """JSON that may be kept: what orjson returns has the kilobytes behind it that it had begun with."""
    return bytes(memoryview(orjson.dumps(value)))


def encode_value(value: object, *, what: str) -> bytes:
    """One value of metadata as JSON, or :class:`InvalidInput` if metadata cannot have it."""
    return orjson.dumps(_checked(value, (what,)))


def decode_metadata(data: bytes | bytearray | memoryview | str) -> Metadata:
    """The inverse of :func:`encode_metadata`."""
    decoded: Metadata = orjson.loads(data)
    return decoded


def _is_plain(metadata: dict[Any, Any]) -> bool:
    """Whether metadata is short and flat, as most is: then it needs no closer look."""
    for key, value in metadata.items():
        if type(key) is not str or not 0 < len(key) <= PLAIN_KEY or not _is_plain_text(key):
            return False
        kind = type(value)
        if kind is str:
            if not _is_plain_text(value):
                return False
        elif kind is int:
            if not INT64_MIN <= value <= INT64_MAX:
                return False
        elif kind is not bool and value is not None:
            return False
    return True


def _is_plain_text(text: str) -> bool:
    return text.isascii() and "\x00" not in text


Path = tuple[str | int, ...]


def _checked_object(values: dict[str, Any], path: Path) -> dict[str, Any]:
    if len(path) >= MAX_DEPTH:
        raise InvalidInput(
            f"metadata is nested deeper than {MAX_DEPTH} at {_show(path)}; flatten it"
        )
    for key in values:
        check_key(key)
    return {key: _checked(value, (*path, key)) for key, value in values.items()}


def _checked(value: object, path: Path) -> object:
    kind = type(value)
    if kind is str:
        if is_unstorable(value):  # type: ignore[arg-type]
            raise InvalidInput(f"metadata {_show(path)} has a NUL or a lone surrogate; remove it")
        return value
    if kind is int:
        if not INT64_MIN <= value <= INT64_MAX:  # type: ignore[operator]
            raise InvalidInput(f"metadata {_show(path)} is an integer beyond int64; use a string")
        return value
    if kind is bool or value is None:
        return value
    return _checked_rarer(value, path)


def _checked_rarer(value: object, path: Path) -> object:
    if type(value) is float:
        if not math.isfinite(value):
            raise InvalidInput(f"metadata {_show(path)} is {value}, which JSON lacks; use None")
        return value if abs(value) < EXACT_FLOAT else orjson.Fragment(f"{value:.1f}")
    if type(value) is dict:
        return _checked_object(value, path)
    if type(value) is list:
        if len(path) >= MAX_DEPTH:
            raise InvalidInput(f"metadata is nested deeper than {MAX_DEPTH} at {_show(path)}")
        return [_checked(item, (*path, place)) for place, item in enumerate(value)]
    raise InvalidInput(
        f"metadata {_show(path)} is a {type(value).__name__}, which JSON lacks; "
        "convert it to str, int, float, bool, None, list or dict"
    )


def _show(path: Path) -> str:
    return excerpt(".".join(map(str, path)))
