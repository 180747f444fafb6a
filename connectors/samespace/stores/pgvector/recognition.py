"""What a table that somebody else made is, as the catalog and a few rows describe it; no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from psycopg import sql

from samespace.errors import excerpt
from samespace.filters import Filter, equalities
from samespace.layout import Layout, TextQuery
from samespace.stores.pgvector.conditions import Parameters, scope_condition
from samespace.stores.pgvector.table import ID_TYPES, Name, Table, base_type, slots_made_here
from samespace.survey import (
    SAMPLED_ROWS,
    Choice,
    Column,
    Proposal,
    Survey,
    VectorSlot,
    guesses,
    lacking,
    records_of,
)

EXACT_ROWS: Final = 100_000
"""Tables that the planner takes for larger are not counted."""
MOST_COLLECTIONS: Final = 50
COLLECTIONS: Final = "langchain_pg_collection"
_TEXTS: Final = ("text", "character varying", "character", "citext")
_OBJECTS: Final = ("jsonb", "json")
_VECTORS: Final = re.compile(r"(?:\S+\.)?(vector|halfvec|sparsevec|bit)(?:\((\d+)\))?\Z")
_METRICS: Final = {
    "cosine": "cosine",
    "ip": "inner product",
    "l2": "l2",
    "l1": "l1",
    "hamming": "hamming",
    "jaccard": "jaccard",
}
_METADATA_NAMES: Final = ("metadata", "meta", "metadata_", "langchain_metadata", "cmetadata")

CATALOG: Final = sql.SQL("""
SELECT c.relkind::text, c.reltuples::float8,
  (SELECT coalesce(jsonb_agg(jsonb_build_array(attname, format_type(atttypid, atttypmod),
      attnotnull AND NOT atthasdef AND attidentity = '', attgenerated <> '' OR attidentity = 'a')
      ORDER BY attnum), '[]')::text
    FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
  (SELECT coalesce(jsonb_agg(jsonb_build_array(a.attname, i.indisprimary)
      ORDER BY i.indisprimary DESC, a.attnum), '[]')::text
    FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
      AND i.indnkeyatts = 1 AND i.indpred IS NULL AND a.attnotnull),
  (SELECT coalesce(jsonb_agg(jsonb_build_array(a.attname, o.opcname)), '[]')::text
    FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    JOIN pg_opclass o ON o.oid = i.indclass[0] JOIN pg_class x ON x.oid = i.indexrelid
    JOIN pg_am m ON m.oid = x.relam
    WHERE i.indrelid = c.oid AND i.indisvalid AND m.amname IN ('hnsw', 'ivfflat')),
  EXISTS (SELECT FROM pg_class s WHERE s.relnamespace = c.relnamespace
    AND s.relname = 'langchain_pg_collection'),
  (SELECT has_schema_privilege(s.oid, 'USAGE') AND has_table_privilege(r.oid, 'SELECT')
    FROM pg_class r JOIN pg_namespace s ON s.oid = r.relnamespace
    WHERE s.nspname = %(registry)s AND r.relname = 'collections'),
  has_schema_privilege(n.oid, 'USAGE'), has_any_column_privilege(c.oid, 'SELECT')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
""")
"""Parameters: schema, name, registry. One row, the fields of :class:`Catalog`, and whether the role may
use the schema and read the table; none without a table."""

CANDIDATES: Final = sql.SQL("""
SELECT DISTINCT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid
WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT a.attisdropped
  AND t.typname IN ('vector', 'halfvec', 'sparsevec') ORDER BY 1
""")
"""Tables of a schema that have vectors."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A column as the catalog has it.

    ``required`` where a row must bring its value, ``generated`` where it may not.
    """

    name: str
    kind: str
    required: bool
    generated: bool


@dataclass(frozen=True, slots=True)
class Shared:
    """One collection of a table that has several."""

    id: str
    name: str
    rows: int
    dimensions: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """What the catalog says of a table."""

    kind: str
    tuples: float
    columns: tuple[Declared, ...]
    keys: tuple[tuple[str, bool], ...]
    indexes: tuple[tuple[str, str], ...]
    has_collections: bool
    may_read_records: bool | None
    """None where there are none."""

    @property
    def is_counted(self) -> bool:
        """Whether counting is cheap; of a view or a table never analysed nobody knows."""
        return self.tuples < EXACT_ROWS

    @property
    def names(self) -> frozenset[str]:
        """Of all columns."""
        return frozenset(column.name for column in self.columns)

    def texts(self) -> list[str]:
        """Columns of text."""
        return [column.name for column in self.columns if base_type(column.kind) in _TEXTS]

    def vectors(self) -> list[str]:
        """Columns whose vectors can be measured."""
        found = [(column.name, _VECTORS.match(column.kind)) for column in self.columns]
        return [name for name, match in found if match and match[1] in {"vector", "halfvec"}]

    def shares_rows(self) -> bool:
        """Whether this is the table of all collections of LangChain's older ``PGVector``."""
        return self.has_collections and self.names >= {
            "collection_id", "embedding", "document", "cmetadata",
        }  # fmt: skip


def sampled(
    schema: str, name: str, catalog: Catalog, rows: int, scope: Filter | None
) -> tuple[sql.Composed, Parameters]:
    """For each column of text how many values there are and how long; for each of vectors its size.

    The first value is how many rows were looked at. A size is the one that most vectors have.
    """
    parameters = Parameters()
    table: dict[str, sql.Composable] = {
        "table": Name(schema, name),
        "rows": sql.Literal(rows),
        "within": _within(schema, name, catalog, scope, parameters),
    }
    of_texts = sql.SQL("count({0}), avg(length({0}))::float8")
    of_vectors = sql.SQL(
        "(SELECT mode() WITHIN GROUP (ORDER BY vector_dims({0})) FROM (SELECT {0} FROM {table} "
        "WHERE {0} IS NOT NULL AND {within} LIMIT {rows}) AS filled)"
    )
    texts: list[sql.Composable] = [Name(each) for each in catalog.texts()]
    measured = [
        *(of_texts.format(each) for each in texts),
        *(of_vectors.format(Name(each), **table) for each in catalog.vectors()),
    ]
    statement = sql.SQL(
        "SELECT {} FROM (SELECT {} FROM {table} WHERE {within} LIMIT {rows}) AS some_rows"
    ).format(
        sql.SQL(", ").join([sql.SQL("count(*)"), *measured]),
        sql.SQL(", ").join(texts or [sql.SQL("1")]),
        **table,
    )
    return statement, parameters


def _within(
    schema: str, name: str, catalog: Catalog, scope: Filter | None, parameters: Parameters
) -> sql.Composable:
    """The condition of a scope, if its columns are there; else that of all rows."""
    columns = {column.name: column.kind for column in catalog.columns}
    if scope is None or not equalities(scope).keys() <= columns.keys():
        return sql.SQL("TRUE")
    layout = Layout(id="id", text="text", slot="", metadata=(), scope=scope)
    table = Table(schema=schema, name=name, layout=layout, own=False, columns=columns)
    return scope_condition(table, parameters) or sql.SQL("TRUE")


def counted(schema: str, name: str) -> sql.Composed:
    """How many rows there are."""
    return sql.SQL("SELECT count(*) FROM {}").format(Name(schema, name))


def collections(schema: str, name: str) -> sql.Composed:
    """Id, name, rows and the size of most vectors of each collection in LangChain's one table."""
    return sql.SQL(
        "SELECT c.uuid::text, c.name::text, "
        "(SELECT count(*) FROM {rows} e WHERE e.collection_id = c.uuid), "
        "(SELECT mode() WITHIN GROUP (ORDER BY vector_dims(embedding)) FROM (SELECT embedding "
        "FROM {rows} e WHERE e.collection_id = c.uuid AND embedding IS NOT NULL LIMIT {sampled}) AS filled) "
        "FROM {collections} c ORDER BY 3 DESC, 2 LIMIT {most}"
    ).format(
        rows=Name(schema, name),
        collections=Name(schema, COLLECTIONS),
        most=sql.Literal(MOST_COLLECTIONS),
        sampled=sql.Literal(SAMPLED_ROWS),
    )


def all_records(registry: str) -> sql.Composed:
    """The records of all collections in a table. Parameters: schema, table."""
    return sql.SQL(
        "SELECT record::text FROM {} WHERE schema_name = %s AND table_name = %s ORDER BY scope"
    ).format(Name(registry, "collections"))


def survey_of(
    collection: str,
    catalog: Catalog,
    *,
    measured: Sequence[Any],
    rows: int,
    records: Sequence[object],
    shared: Sequence[Shared],
) -> Survey:
    """All that is known of a table, put together."""
    columns, sizes = _columns(catalog, measured)
    slots = tuple(_slots(catalog, sizes))
    key = _key(catalog)
    held, untrue = records_of(
        records, collection=collection, slots=slots, has=catalog.names.__contains__
    )
    is_lost = not records and bool(slots_made_here(catalog.names))
    proposals = [] if is_lost else _proposals(catalog, columns, slots, key, shared)
    return Survey(
        store="pgvector",
        collection=collection,
        columns=tuple(columns),
        slots=slots,
        rows=rows,
        rows_estimated=not catalog.is_counted,
        key=key.value if key else None,
        records=tuple(held),
        unique=None if catalog.kind in {"v", "m", "f"} else tuple(name for name, _ in catalog.keys),
        untrue=tuple(untrue),
        proposals=tuple(
            replace(each, reasons=(*each.reasons, *_cautions(catalog, each.layout)))
            for each in proposals
        ),
        lost_record=is_lost and catalog.may_read_records is not False,
        missing=() if proposals else tuple(lacking(columns, slots, key.value if key else None)),
    )


def _cautions(catalog: Catalog, layout: Layout) -> Iterator[str]:
    """What keeps documents from being inserted, so that rows can only be read and filled."""
    pinned = equalities(layout.scope) if layout.scope is not None else {}
    named = {*pinned, *(name for _, name in layout.names)}
    left = [
        column.name for column in catalog.columns if column.required and column.name not in named
    ]
    if left:
        yield f"no document can be inserted: rows need {_listed(left)}, which the layout does not name"
    if any(column.generated and column.name == layout.id for column in catalog.columns):
        yield f"no document can be inserted: the database alone makes keys in {excerpt(layout.id)}"
    if catalog.kind == "m":
        yield "no document can be written: it is a materialized view"


def _columns(
    catalog: Catalog, measured: Sequence[Any]
) -> tuple[list[Column], dict[str, int | None]]:
    total, *values = measured
    texts = catalog.texts()
    of_texts, of_vectors = values[: 2 * len(texts)], values[2 * len(texts) :]
    lengths = dict(zip(texts, zip(of_texts[::2], of_texts[1::2], strict=True), strict=True))
    sizes = dict(zip(catalog.vectors(), of_vectors, strict=True))
    columns = []
    for column in catalog.columns:
        count, length = lengths.get(column.name, (0, None))
        columns.append(
            Column(
                name=column.name,
                kind=column.kind,
                is_text=column.name in lengths,
                is_object=column.kind in _OBJECTS,
                filled=count / total if total else 0.0,
                length=length or 0.0,
            )
        )
    return columns, sizes


def _slots(catalog: Catalog, sizes: Mapping[str, int | None]) -> Iterator[VectorSlot]:
    indexed = dict(catalog.indexes)
    for column in catalog.columns:
        match = _VECTORS.match(column.kind)
        if match is None or (match[1] == "bit" and column.name not in indexed):
            continue
        fixed = int(match[2]) if match[2] else None
        yield VectorSlot(
            name=column.name,
            dimensions=fixed or sizes.get(column.name),
            metric=_metric(indexed.get(column.name)),
            element=match[1],
            indexed=column.name in indexed,
            is_sized=fixed is not None,
            unusable="" if match[1] == "vector" else _unusable(column.name, match[1], fixed),
        )


def _unusable(column: str, kind: str, size: int | None) -> str:
    """Why a column of vectors cannot be used, and what makes it usable."""
    why = f"it is of type {kind}, not vector"
    if kind == "bit":
        return why
    name = sql.Identifier(column).as_string(None)
    return f"{why}; ALTER TABLE … ALTER COLUMN {name} TYPE vector{f'({size})' if size else ''} changes that"


def _metric(opclass: str | None) -> str | None:
    """What an operator class such as ``vector_cosine_ops`` compares by."""
    return None if opclass is None else _METRICS.get(opclass.split("_")[-2], opclass)


def _key(catalog: Catalog) -> Choice | None:
    kinds = {column.name: base_type(column.kind) for column in catalog.columns}
    for name, primary in catalog.keys:
        if kinds[name] in ID_TYPES:
            why = "the primary key" if primary else "unique"
            return Choice(name, f"id {excerpt(name)}: {why}, of type {kinds[name]}")
    if catalog.kind in {"v", "m", "f"} and kinds.get("id") in ID_TYPES:
        return Choice("id", "id 'id': by its name; nothing says that it is unique")
    return None


def _proposals(
    catalog: Catalog,
    columns: Sequence[Column],
    slots: Sequence[VectorSlot],
    key: Choice | None,
    shared: Sequence[Shared],
) -> list[Proposal]:
    known = list(_known(catalog, slots, shared))
    if known or key is None:
        return known
    return guesses(
        [column for column in columns if not column.name.endswith("__source")],
        slots,
        key,
        lambda text: _metadata(catalog, {text, key.value}, slots),
    )


def _metadata(catalog: Catalog, taken: set[str], slots: Sequence[VectorSlot]) -> Choice:
    """One JSON column, or all plain columns by name."""
    objects = [column.name for column in catalog.columns if column.kind in _OBJECTS]
    vectors = {slot.name for slot in slots}
    plain = [
        column.name
        for column in catalog.columns
        if column.name not in taken | vectors
        and not column.generated
        and not column.name.endswith("__source")
        and column.kind not in {"bytea", "tsvector"}
        and not _VECTORS.match(column.kind)
    ]
    named = [name for name in objects if name in _METADATA_NAMES] or objects
    if not named or (len(named) > 1 and len(plain) > len(named)):
        return Choice(tuple(plain), f"metadata: {_listed(plain)}, column by column")
    beside = [name for name in plain if name != named[0]]
    left = f"; not in it: {_listed(beside)}" if beside else ""
    return Choice(named[0], f"metadata {excerpt(named[0])}: the column of JSON{left}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(excerpt, names)) or "none"


def _known(
    catalog: Catalog, slots: Sequence[VectorSlot], shared: Sequence[Shared]
) -> Iterator[Proposal]:
    """Layouts of known makers: their columns have these names."""
    if catalog.shares_rows():
        yield from (_langchain_pgvector(catalog, each) for each in shared)
        return
    usable = {slot.name: slot for slot in slots if not slot.unusable}
    for maker, layout, signs in _MAKERS:
        parts = {layout.id, layout.text, layout.metadata, layout.slot, *signs}
        if catalog.names >= parts and layout.slot in usable:
            reasons = (f"{maker} names its columns {_listed(sorted(map(str, parts)))}",)
            found = usable[layout.slot].dimensions
            yield Proposal(maker=maker, layout=layout, dimensions=found, reasons=reasons)
            return


_MAKERS: Final[Sequence[tuple[str, Layout, tuple[str, ...]]]] = (
    ("LangChain PGVectorStore", Layout.langchain_pgvectorstore(), ()),
    (
        "LlamaIndex PGVectorStore",
        Layout(id="id", text="text", slot="embedding", metadata="metadata_"),
        ("node_id",),
    ),
    (
        "Haystack PgvectorDocumentStore",
        Layout(id="id", text="content", slot="embedding", metadata="meta"),
        ("blob_data", "blob_meta", "blob_mime_type"),
    ),
)


def _langchain_pgvector(catalog: Catalog, shared: Shared) -> Proposal:
    layout = Layout.langchain_pgvector(collection_id=shared.id)
    reason = (
        f"LangChain's PGVector keeps all collections in this table; {excerpt(shared.name)} "
        f"({shared.rows} rows) has collection_id {shared.id}"
    )
    if "id" not in catalog.names:  # before langchain_postgres
        layout = replace(layout, id="uuid")
    return Proposal(
        maker="LangChain PGVector",
        layout=layout,
        dimensions=shared.dimensions,
        reasons=(reason,),
        title=shared.name,
    )


def with_title(layout: Layout, *, title: str, join: str) -> Layout | None:
    """A layout whose text is a title from the metadata, ``join`` and the text.

    A row without a title has its text alone.
    """
    if not isinstance(layout.text, str):
        return None
    column = isinstance(layout.metadata, str)
    of_json = sql.SQL("({})::jsonb->>{}").format(
        sql.Identifier(str(layout.metadata)), sql.Literal(title)
    )
    expression = sql.SQL("concat_ws({}, nullif({}, ''), {})").format(
        sql.Literal(join), of_json if column else sql.Identifier(title), sql.Identifier(layout.text)
    )
    return replace(layout, text=TextQuery(expression.as_string(None)))
