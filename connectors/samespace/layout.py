"""Where things are in a collection: ours, and those that somebody else made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from samespace import filters
from samespace.errors import InvalidInput, excerpt
from samespace.filters import Filter, field
from samespace.names import check_part

TextLookup = Callable[[Sequence[str]], Sequence[str]]
"""Texts by id, for text that lives outside the collection; one per id, in order."""


@dataclass(frozen=True, slots=True)
class TextQuery:
    """A text made by the store: an SQL expression over the row's columns.

    It is put into statements as it stands, so it must come from your code, never from a user.
    """

    expression: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where id, text, metadata and vectors are in a collection.

    ``id``: the key column (payload key, ``_id``); its native type is kept. ``text``: a column or
    field, a :class:`TextQuery`, or a function of ids. ``slot``: where today's vectors are
    ("" is Qdrant's unnamed vector). ``metadata``: one JSON column; or columns by name, in which those
    that another part of the layout names are read-only; ``()`` where the table has none.
    ``parent`` and ``order``: which rows are chunks of one document, and in which order.
    ``scope``: the rows concerned, where several collections share a table; equalities only.
    """

    id: str
    text: str | TextQuery | TextLookup
    slot: str
    metadata: str | Sequence[str] = "metadata"
    parent: str | None = None
    order: str | None = None
    scope: Filter | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.text, str | TextQuery) and not callable(self.text):
            raise InvalidInput(
                f"Layout.text is {excerpt(self.text)}; name a column or pass a function"
            )
        if not isinstance(self.metadata, str):
            object.__setattr__(self, "metadata", tuple(self.metadata))
        for part, name in self.names:
            check_part(name, what=part)
        if self.slot in self.metadata_columns:
            raise InvalidInput(
                f"Layout.metadata names {excerpt(self.slot)}, which holds the vectors; leave it out, "
                "and read with with_vectors=True"
            )
        if self.scope is not None:
            filters.equalities(self.scope)

    @property
    def names(self) -> list[tuple[str, str]]:
        """The columns or fields that are named, each with what names it (``"Layout.id"``)."""
        optional = {"parent": self.parent, "order": self.order, "slot": self.slot or None}
        named = [(f"Layout.{part}", name) for part, name in optional.items() if name is not None]
        named.append(("Layout.id", self.id))
        if isinstance(self.text, str):
            named.append(("Layout.text", self.text))
        columns = (self.metadata,) if isinstance(self.metadata, str) else self.metadata
        return [*named, *(("Layout.metadata", column) for column in columns)]

    @property
    def metadata_columns(self) -> tuple[str, ...]:
        """The columns that metadata is spread over; empty where it is one JSON column."""
        return () if isinstance(self.metadata, str) else tuple(self.metadata)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; a text that is no column is recorded as external (None)."""
        return {
            "id": self.id,
            "text": self.text if isinstance(self.text, str) else None,
            "slot": self.slot,
            "metadata": self.metadata if isinstance(self.metadata, str) else list(self.metadata),
            "parent": self.parent,
            "order": self.order,
            "scope": filters.to_json(self.scope) if self.scope is not None else None,
        }

    @classmethod
    def from_dict(
        cls, values: dict[str, Any], *, text: TextQuery | TextLookup | None = None
    ) -> Layout:
        """Read what :meth:`to_dict` wrote; ``text`` replaces an external one.

        :class:`InvalidInput` if the text is external and not passed.
        """
        try:
            recorded = text if values["text"] is None else values["text"]
            if recorded is not None:
                return cls(**{**values, "text": recorded, "scope": _scope(values.get("scope"))})
        except (AttributeError, KeyError, TypeError) as error:
            raise InvalidInput(f"not a layout: {excerpt(values)}; pass layout= again") from error
        raise InvalidInput(
            "this collection's text lives elsewhere: pass layout= with the same text function"
        )

    @classmethod
    def langchain_pgvectorstore(
        cls,
        *,
        metadata: str | Sequence[str] = "langchain_metadata",
        id: str = "langchain_id",
        text: str = "content",
        slot: str = "embedding",
    ) -> Layout:
        """A table made by LangChain's ``PGVectorStore`` with its default column names."""
        return cls(id=id, text=text, slot=slot, metadata=metadata)

    @classmethod
    def langchain_pgvector(cls, *, collection_id: str) -> Layout:
        """One collection of the table ``langchain_pg_embedding`` of LangChain's older ``PGVector``.

        ``collection_id`` is the ``uuid`` of its row in ``langchain_pg_collection``.
        """
        return cls(
            id="id",
            text="document",
            slot="embedding",
            metadata="cmetadata",
            scope=field("collection_id") == collection_id,
        )

    @classmethod
    def langchain_qdrant(
        cls, *, slot: str = "", text: str = "page_content", metadata: str = "metadata"
    ) -> Layout:
        """A collection made by LangChain's ``QdrantVectorStore``; ``slot`` is its ``vector_name``."""
        return cls(id="id", text=text, slot=slot, metadata=metadata)

    @classmethod
    def langchain_elasticsearch(
        cls,
        *,
        text: str = "text",
        slot: str = "vector",
        metadata: str | Sequence[str] = "metadata",
    ) -> Layout:
        """An index made by LangChain's ``ElasticsearchStore``.

        Pass ``metadata=()`` for one whose documents have none: it lacks that field.
        """
        return cls(id="_id", text=text, slot=slot, metadata=metadata)


def _scope(recorded: dict[str, list[Any]] | None) -> Filter | None:
    return filters.of_json(recorded) if recorded else None
