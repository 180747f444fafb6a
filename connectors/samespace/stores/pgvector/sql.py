"""Every statement on a collection's table: pure functions of a :class:`Table`."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import orjson
from numpy.typing import NDArray
from psycopg import sql

from samespace.documents import Document, Parent, VersionedRow
from samespace.errors import InvalidInput, excerpt
from samespace.filters import Filter, Scalar, Target
from samespace.index import AUTO_ROWS, Index
from samespace.layout import TextQuery
from samespace.names import bounded
from samespace.protocols import Shard
from samespace.space import EmbeddingSpace
from samespace.stores.pgvector.binary import (
    BYTEA_OID,
    JSONB_OID,
    Array,
    Json,
    array,
    dump_json,
    integers,
    texts,
    vectors,
)
from samespace.stores.pgvector.conditions import (
    Parameters,
    bound_ids,
    id_condition,
    json_column,
    parent_condition,
    plain,
    scope_condition,
    where_clause,
)
from samespace.stores.pgvector.table import (
    OWN_COLUMNS,
    Name,
    Table,
    Text,
    raw,
    source_name,
)
from samespace.stores.sources import source_of

FLOAT_INDEX_DIMENSIONS: Final = 896
"""Above this an HNSW tuple of float32 fills a page of 8 kB; half precision holds two and more."""
FLOAT_LIMIT: Final = 2000
"""pgvector's limit for an index over ``vector``."""
HALF_INDEX_DIMENSIONS: Final = 4000
"""pgvector's limit for an index over ``halfvec``."""
CANDIDATES: Final = 2
"""Candidates re-scored for each hit wanted of a half-precision index (recall@10 0.98 measured)."""
DEFAULT_EF_SEARCH: Final = 40
MAX_EF_SEARCH: Final = 1000
"""pgvector's default and its limit for ``hnsw.ef_search``."""
AUTO_INDEX_ROWS: Final = AUTO_ROWS
SHOWN_IDS: Final = 5
"""Of rows with a fault of one kind so many are named."""
FILLFACTOR: Final = 50
"""Room in each page for a second version of its rows, so that filling a slot is a HOT update."""

Statement = tuple[sql.Composed, Parameters]
_OPERATORS: Final = {"vector_l2_ops": "<->", "vector_ip_ops": "<#>"}

CATALOG: Final = sql.SQL("""
SELECT c.oid::text,
  (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
  (SELECT t.oid FROM pg_extension e JOIN pg_type t ON t.typnamespace = e.extnamespace
    WHERE e.extname = 'vector' AND t.typname = 'vector'),
  (SELECT t.typnamespace::regnamespace::text FROM pg_extension e
    JOIN pg_type t ON t.typnamespace = e.extnamespace
    WHERE e.extname = 'vector' AND t.typname = 'vector' AND NOT pg_type_is_visible(t.oid)),
  (SELECT jsonb_object_agg(attname, format_type(atttypid, atttypmod))::text FROM pg_attribute
    WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
  (SELECT jsonb_agg(jsonb_build_array(x.relname, i.indisvalid, o.opcname,
      pg_get_indexdef(i.indexrelid, 1, true), a.amname, i.indpred IS NOT NULL))::text
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am a ON a.oid = x.relam
    JOIN pg_opclass o ON o.oid = i.indclass[0] WHERE i.indrelid = c.oid),
  current_setting('random_page_cost')::float8 <= 1.1,
  has_schema_privilege(c.relnamespace, 'USAGE'), has_any_column_privilege(c.oid, 'SELECT'),
  has_schema_privilege(r.relnamespace, 'USAGE'), has_table_privilege(r.oid, 'SELECT')
FROM (SELECT 1) AS one
LEFT JOIN (SELECT c.oid, c.relnamespace FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
) AS c ON TRUE
LEFT JOIN (SELECT c.oid, c.relnamespace FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = %(registry)s AND c.relname = 'collections') AS r ON TRUE
""")
"""Parameters: schema, name, registry. One row, the fields of :class:`Catalog`."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """What the catalog says of a table, of the registry, and of what the role may do there.

    ``columns`` and ``indexes`` are JSON. Whether the role may do something with what is not there is None.
    """

    oid: str | None
    version: str | None
    vector_oid: int | None
    hidden: str | None
    columns: str | None
    indexes: str | None
    cheap_pages: bool
    may_enter_schema: bool | None
    may_read_table: bool | None
    may_enter_registry: bool | None
    may_read_records: bool | None

    @property
    def types(self) -> dict[str, str]:
        """The columns with their types; empty without a table."""
        found: dict[str, str] = orjson.loads(self.columns) if self.columns else {}
        return found


IS_WORKED_ON: Final = sql.SQL("""
SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
  WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND l.granted
    AND l.mode = 'ShareUpdateExclusiveLock' AND l.pid IS DISTINCT FROM pg_backend_pid())
""")
"""Whether another session builds an index of a table concurrently, or vacuums it: one can at a time."""

UNIQUE_KEY: Final = sql.SQL("""
SELECT c.relkind NOT IN ('r', 'p') OR coalesce((SELECT bool_and(i.indimmediate) FROM pg_index i
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
  WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indnkeyatts = 1
    AND i.indpred IS NULL AND a.attnotnull AND a.attname = %(id)s), FALSE)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(name)s
""")
"""Whether ON CONFLICT finds a row by its key; of a view only its server knows."""


def registry_table(registry: str) -> sql.Composable:
    """The table that holds every collection's record."""
    return Name(registry, "collections")


def read_record(registry: str) -> sql.Composed:
    """Parameters: schema, table, scope."""
    return sql.SQL(
        "SELECT record::text FROM {} WHERE schema_name = %s AND table_name = %s AND scope = %s"
    ).format(registry_table(registry))


def write_record(registry: str) -> sql.Composed:
    """Parameters: schema, table, scope, record."""
    return sql.SQL(
        "INSERT INTO {} (schema_name, table_name, scope, record) VALUES (%s, %s, %s, %b) "
        "ON CONFLICT (schema_name, table_name, scope) DO UPDATE SET record = EXCLUDED.record"
    ).format(registry_table(registry))


def read_neighbours(registry: str) -> sql.Composed:
    """Scopes and records of other collections in a table. Parameters: schema, table, scope."""
    return sql.SQL(
        "SELECT scope, record::text FROM {} "
        "WHERE schema_name = %s AND table_name = %s AND scope <> %s"
    ).format(registry_table(registry))


def delete_record(registry: str) -> sql.Composed:
    """Parameters: schema, table, scope."""
    return sql.SQL(
        "DELETE FROM {} WHERE schema_name = %s AND table_name = %s AND scope = %s"
    ).format(registry_table(registry))


def create_registry(registry: str) -> sql.Composed:
    """The registry's table; its schema is made before."""
    return sql.SQL(
        "CREATE TABLE IF NOT EXISTS {} (schema_name text NOT NULL, table_name text NOT NULL, "
        "scope text NOT NULL DEFAULT '', record jsonb NOT NULL, "
        "PRIMARY KEY (schema_name, table_name, scope))"
    ).format(registry_table(registry))


def create_schema(schema: str) -> sql.Composed:
    """A schema."""
    return sql.SQL("CREATE SCHEMA {}").format(Name(schema))


def create_table(table: Table, space: EmbeddingSpace) -> list[sql.Composed]:
    """A table of ours with its one slot."""
    columns = [
        sql.SQL('id text COLLATE "C" PRIMARY KEY, text text NOT NULL, metadata jsonb NOT NULL'),
        sql.SQL("embed_text text, parent_id text, ordinal int, span_start int, span_end int"),
        *_slot_columns(space),
    ]
    create = sql.SQL("CREATE TABLE {} ({}) WITH (fillfactor = {})").format(
        table.qualified, sql.SQL(", ").join(columns), sql.Literal(FILLFACTOR)
    )
    chunks = sql.SQL("CREATE INDEX ON {} (parent_id) WHERE parent_id IS NOT NULL")
    return [create, chunks.format(table.qualified)]


def _slot_columns(space: EmbeddingSpace) -> list[sql.Composable]:
    vector = sql.SQL("{} vector({})").format(Name(space.id), sql.Literal(space.dimensions))
    source = sql.SQL("{} bytea").format(Name(source_name(space.id)))
    return [vector, source, *([_norm_check(space)] if space.normalized else [])]


def _norm_check(space: EmbeddingSpace) -> sql.Composable:
    return sql.SQL("CONSTRAINT {} CHECK (abs(vector_norm({}) - 1) < 1e-3)").format(
        Name(bounded(space.id, "__norm")), Name(space.id)
    )


def _is_off_unit_norm(slot: sql.Composable) -> sql.Composed:
    return sql.SQL("abs(vector_norm({}) - 1) >= 1e-3").format(slot)


def drop_table(table: Table) -> sql.Composed:
    """The whole table."""
    return sql.SQL("DROP TABLE {}").format(table.qualified)


def embedded_text(table: Table, row: str | None = None) -> sql.Composable:
    """What is embedded, as an SQL expression over a row; where it is NULL there is no text: ''."""
    text = table.layout.text
    prefix = sql.SQL("{}.").format(Name(row)) if row else sql.SQL("")
    if isinstance(text, TextQuery):
        return sql.SQL("coalesce(({})::text, '')").format(_evaluated(table, text, row))
    if not isinstance(text, str):
        return sql.SQL("NULL::text")
    if table.own:
        return sql.SQL("coalesce({0}embed_text, {0}text)").format(prefix)
    return sql.SQL("coalesce({}{}::text, '')").format(prefix, Name(text))


def _evaluated(table: Table, text: TextQuery, row: str | None) -> sql.Composable:
    """The query of a text; in a statement that has the row under another name than the table's."""
    if row is None:
        return raw(text.expression)
    return sql.SQL("SELECT ({}) FROM (SELECT {}.*) AS {}").format(
        raw(text.expression), Name(row), Name(table.name)
    )


def try_text(table: Table) -> sql.Composed:
    """What the trigger will do for the text of a row, done for one; nothing is read of it."""
    return sql.SQL("SELECT {} FROM {} AS t LIMIT 1").format(
        embedded_text(table, "t"), table.qualified
    )


def source_expression(table: Table, row: str | None = None) -> sql.Composable:
    """:func:`~samespace.stores.sources.source_of` a row, computed by the server."""
    prefix = sql.SQL("{}.").format(Name(row)) if row else sql.SQL("")
    return sql.SQL(
        "substr(sha256(convert_to({}{}::text, 'UTF8') || '\\x00'::bytea "
        "|| convert_to({}, 'UTF8')), 1, 16)"
    ).format(prefix, Name(table.layout.id), embedded_text(table, row))


# Reading


def _columns(table: Table) -> list[sql.Composable]:
    """id, text, metadata, embed_text, parent, ordinal, span_start, span_end: always eight."""
    layout = table.layout
    nothing = sql.SQL("NULL")
    text = Name("text") if table.own else embedded_text(table)
    parent = sql.SQL("{}::text").format(Name(layout.parent)) if layout.parent else nothing
    order = sql.SQL("{}::bigint").format(Name(layout.order)) if layout.order else nothing
    ours = [Name(name) if table.own else nothing for name in OWN_COLUMNS]
    return [
        sql.SQL("{}::text").format(Name(layout.id)),
        text,
        _metadata(table),
        ours[0],
        parent,
        order,
        *ours[3:],
    ]


def _metadata(table: Table) -> sql.Composable:
    if isinstance(table.layout.metadata, str):
        return sql.SQL("{}::text").format(Name(table.layout.metadata))
    pairs = [
        sql.SQL("{}, {}").format(Text(name), Name(name)) for name in table.layout.metadata_columns
    ]
    return sql.SQL("jsonb_build_object({})::text").format(sql.SQL(", ").join(pairs))


def _selected(table: Table, *more: sql.Composable) -> sql.Composable:
    return sql.SQL(", ").join([*_columns(table), *more])


class Way(StrEnum):
    """How the nearest rows are looked for."""

    PLAIN = "plain"
    """As the server is set up: enough for few hits of a whole table, if it knows what pages cost."""
    TUNED = "tuned"
    """With :meth:`Search.settings`, so that a filter does not end the walk through the graph."""
    EXACT = "exact"
    """Without the graph: every row is compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """The ``limit`` nearest rows to ``%(query)s`` in one slot, each with its cosine distance."""

    table: Table
    slot: str
    space: EmbeddingSpace
    opclass: str
    """The operator class of the index over the slot; empty without one."""
    cheap_pages: bool
    """Whether the server takes pages out of order for nearly as cheap as others (SSDs, caches)."""
    limit: int
    where: Filter | None
    with_vectors: bool

    @property
    def half(self) -> bool:
        """Whether the index holds half-precision vectors, so that candidates are re-scored."""
        return self.opclass.startswith("halfvec_cosine")

    @property
    def effort(self) -> int:
        """Candidates that the walk through the graph keeps (``hnsw.ef_search``)."""
        return min(MAX_EF_SEARCH, (CANDIDATES if self.half else 1) * self.limit)

    def ways(self) -> tuple[Way, ...]:
        """What to try in turn, until one finds as many rows as are wanted."""
        if not self.opclass:
            return (Way.EXACT,)  # there may be an index by now, which alone could end too early
        whole = self.where is None and self.table.layout.scope is None
        if whole and self.cheap_pages and self.effort <= DEFAULT_EF_SEARCH:
            return (Way.PLAIN, Way.TUNED, Way.EXACT)
        return (Way.TUNED, Way.EXACT)

    def settings(self) -> sql.Composed:
        """What a search wants of the server, until its transaction ends.

        A plan for any value of a filter would never weigh an exact scan of the few rows that pass.
        """
        return sql.SQL(
            "SELECT set_config('hnsw.ef_search', {}, true), "
            "set_config('hnsw.iterative_scan', 'relaxed_order', true), "
            "set_config('random_page_cost', '1.1', true), "
            "set_config('plan_cache_mode', 'force_custom_plan', true)"
        ).format(sql.Literal(str(max(DEFAULT_EF_SEARCH, self.effort))))

    def statement(self, way: Way) -> Statement:
        """The search itself."""
        parameters = Parameters()
        present = sql.SQL("{} IS NOT NULL").format(Name(self.slot))
        clause = where_clause(self.table, parameters, self.where, present)
        more = [sql.SQL('{} AS "$distance"').format(self._distance)]
        more += [vector_bytes(self.slot)] if self.with_vectors else []
        if self.half and way is not Way.EXACT:
            return self._rescored(more, clause), parameters
        order = sql.SQL("({}) + 0").format(self._distance) if way is Way.EXACT else self._order
        return sql.SQL("SELECT {} FROM {}{} ORDER BY {} LIMIT {}").format(
            _selected(self.table, *more), self.table.qualified, clause, order, self._literal_limit
        ), parameters

    @property
    def _literal_limit(self) -> sql.Literal:
        return sql.Literal(self.limit)

    @property
    def _query(self) -> sql.Composed:
        return sql.SQL("%(query)b::vector({})").format(sql.Literal(self.space.dimensions))

    @property
    def _distance(self) -> sql.Composed:
        return sql.SQL("{} <=> {}").format(Name(self.slot), self._query)

    @property
    def _order(self) -> sql.Composed:
        """The index's own operator, where unit vectors make it rank as the cosine does."""
        operator = _OPERATORS.get(self.opclass, "<=>") if self.space.normalized else "<=>"
        key = float_expression(self.table, self.slot, self.space.dimensions)
        return sql.SQL("{} {} {}").format(key, raw(operator), self._query)

    def _rescored(self, more: Sequence[sql.Composable], clause: sql.Composable) -> sql.Composed:
        """Candidates by the half-precision index, then the nearest of them in full precision."""
        size = self.space.dimensions
        return sql.SQL(
            "SELECT * FROM (SELECT {} FROM {}{} ORDER BY {} <=> {} LIMIT {}) AS candidates "
            'ORDER BY "$distance" LIMIT {}'
        ).format(
            _selected(self.table, *more),
            self.table.qualified,
            clause,
            half_expression(self.slot, size),
            sql.SQL("{}::halfvec({})").format(self._query, sql.Literal(size)),
            sql.Literal(CANDIDATES * self.limit),
            self._literal_limit,
        )


def float_expression(table: Table, slot: str, dimensions: int) -> sql.Composable:
    """A slot's vectors as they are indexed: with their size, where the column has none."""
    if table.columns.get(slot) != "vector":
        return Name(slot)
    return sql.SQL("({}::vector({}))").format(Name(slot), sql.Literal(dimensions))


def vector_bytes(slot: str) -> sql.Composed:
    """A slot's vectors in their binary form, whatever a connection makes of their type."""
    return sql.SQL("vector_send({}::vector)").format(Name(slot))


def half_expression(slot: str, dimensions: int) -> sql.Composable:
    """A slot's vectors in half precision, as they are indexed."""
    return sql.SQL("({}::halfvec({}))").format(Name(slot), sql.Literal(dimensions))


def sizes(table: Table, dimensions: int) -> Statement:
    """The sizes that vectors of the slot have other than this one: size, number, ids of a few rows."""
    parameters = Parameters()
    clause = where_clause(table, parameters, None, _is_of_another_size(table, dimensions))
    return sql.SQL(
        "SELECT vector_dims({slot}), count(*), (array_agg({id}::text))[1:{shown}] FROM {table}{clause} "
        "GROUP BY 1 ORDER BY 2 DESC, 1"
    ).format(
        slot=Name(table.layout.slot),
        id=Name(table.layout.id),
        shown=sql.Literal(SHOWN_IDS),
        table=table.qualified,
        clause=clause,
    ), parameters


def _is_of_another_size(table: Table, dimensions: int) -> sql.Composed:
    return sql.SQL("vector_dims({}) <> {}").format(Name(table.layout.slot), sql.Literal(dimensions))


def emptying(table: Table, dimensions: int, *, obligatory: bool) -> str:
    """What takes the vectors of another size away, for an administrator to read and run.

    ``obligatory`` says whether the column is NOT NULL.
    """
    mine = [*pinned_columns(table), _is_of_another_size(table, dimensions)]
    update = sql.SQL("UPDATE {} SET {} = NULL WHERE {}").format(
        table.qualified, Name(table.layout.slot), sql.SQL(" AND ").join(mine)
    )
    permit = sql.SQL("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL").format(
        table.qualified, Name(table.layout.slot)
    )
    parts = [permit, update] if obligatory else [update]
    return sql.SQL("; ").join(parts).as_string(None).replace("%%", "%")


def off_unit_norm(table: Table) -> Statement:
    """Id and norm of a row whose vector is not of unit norm, if there is one."""
    parameters = Parameters()
    slot = Name(table.layout.slot)
    clause = where_clause(table, parameters, None, _is_off_unit_norm(slot))
    return sql.SQL("SELECT {}::text, vector_norm({}) FROM {}{} LIMIT 1").format(
        Name(table.layout.id), slot, table.qualified, clause
    ), parameters


def get(table: Table, ids: Sequence[str], slot: str | None) -> Statement:
    """Rows by id, in no order; with the slot's vectors where one is named."""
    parameters = Parameters()
    more = [vector_bytes(slot)] if slot else []
    clause = where_clause(table, parameters, None, id_condition(table, ids, parameters))
    return _select(table, more, clause), parameters


def _select(table: Table, more: Sequence[sql.Composable], clause: sql.Composable) -> sql.Composed:
    return sql.SQL("SELECT {} FROM {}{}").format(_selected(table, *more), table.qualified, clause)


def scan(
    table: Table, where: Filter | None, *, after: str | None, limit: int, slot: str | None
) -> Statement:
    """The next rows in key order."""
    parameters = Parameters()
    more = [vector_bytes(slot)] if slot else []
    clause = where_clause(table, parameters, where, *_after(table, after, parameters))
    return _ordered(_select(table, more, clause), table, limit), parameters


def _after(table: Table, after: str | None, parameters: Parameters) -> list[sql.Composable]:
    if after is None:
        return []
    if not table.has_id(after):
        raise InvalidInput(
            f"the cursor {excerpt(after)} is no {table.id_type}, the type of the keys here; "
            "pass what the last call returned"
        )
    bound = parameters.bind(after, sql.SQL("text"))
    key = sql.SQL("{} > {}::{}").format(Name(table.layout.id), bound, raw(table.id_type))
    return [key]


def _ordered(statement: sql.Composable, table: Table, limit: int) -> sql.Composed:
    # Qualified, or it would be the key's text, which the selected column of that name is.
    key = Name(table.name, table.layout.id)
    return sql.SQL("{} ORDER BY {} LIMIT {}").format(statement, key, sql.Literal(limit))


def count(table: Table, where: Filter | None) -> Statement:
    """How many rows pass."""
    parameters = Parameters()
    clause = where_clause(table, parameters, where)
    return sql.SQL("SELECT count(*) FROM {}{}").format(table.qualified, clause), parameters


def count_pending(table: Table, slots: Sequence[str], ids: Sequence[str] | None) -> Statement:
    """Rows without a vector in some of these slots, among ``ids`` or all."""
    parameters = Parameters()
    empty = [sql.SQL("{} IS NULL").format(Name(slot)) for slot in slots]
    among = [id_condition(table, ids, parameters)] if ids is not None else []
    clause = where_clause(table, parameters, None, sql.SQL(" OR ").join(empty), *among)
    return sql.SQL("SELECT count(*) FROM {}{}").format(table.qualified, clause), parameters


def count_unfilled(table: Table, slot: str, space: EmbeddingSpace) -> Statement:
    """How many rows :func:`pending` lists."""
    parameters = Parameters()
    clause = where_clause(table, parameters, None, _unfilled(table, slot, space))
    return sql.SQL("SELECT count(*) FROM {}{}").format(table.qualified, clause), parameters


def count_alone(table: Table, slot: str, other: str, space: EmbeddingSpace) -> Statement:
    """How many rows have a vector in ``slot``, and are pending in ``other``, which is of ``space``."""
    parameters = Parameters()
    present = sql.SQL("{} IS NOT NULL").format(Name(slot))
    clause = where_clause(table, parameters, None, present, _unfilled(table, other, space))
    return sql.SQL("SELECT count(*) FROM {}{}").format(table.qualified, clause), parameters


def lock_out_writers(table: Table) -> sql.Composed:
    """Until the transaction ends nobody else writes rows; reading goes on."""
    return sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(table.qualified)


def has_rows(table: Table, rows: int) -> Statement:
    """One row if the collection has at least ``rows`` rows; reads no more than that."""
    parameters = Parameters()
    clause = where_clause(table, parameters, None)
    statement = sql.SQL("SELECT 1 FROM {}{} OFFSET {} LIMIT 1").format(
        table.qualified, clause, sql.Literal(rows - 1)
    )
    return statement, parameters


def existing(table: Table, ids: Sequence[str]) -> Statement:
    """Which of these ids are stored."""
    parameters = Parameters()
    clause = where_clause(table, parameters, None, id_condition(table, ids, parameters))
    statement = sql.SQL("SELECT {}::text FROM {}{}").format(
        Name(table.layout.id), table.qualified, clause
    )
    return statement, parameters


def values(
    table: Table,
    target: Target,
    path: Sequence[str],
    where: Filter | None,
    *,
    limit: int,
    after: Json | None,
) -> Statement:
    """The distinct elements of a field in JSON order, each with its number of rows."""
    parameters = Parameters()
    value = _value(table, target, path, parameters)
    clause = where_clause(table, parameters, where)
    later = parameters.bind(after) if after is not None else None
    beyond = sql.SQL(" AND element > {}").format(later) if later else sql.SQL("")
    # In ORDER BY a bare name would be the text that is selected, and 10 would come before 9.
    statement = sql.SQL(
        "SELECT element::text, count(DISTINCT key) FROM (SELECT {} AS key, {} AS value FROM {}{}) "
        "AS rows, LATERAL jsonb_array_elements(CASE jsonb_typeof(value) WHEN 'array' THEN value "
        "ELSE jsonb_build_array(value) END) AS elements(element) "
        "WHERE element <> 'null'{} GROUP BY element ORDER BY elements.element LIMIT {}"
    ).format(Name(table.layout.id), value, table.qualified, clause, beyond, sql.Literal(limit))
    return statement, parameters


def _value(
    table: Table, target: Target, path: Sequence[str], parameters: Parameters
) -> sql.Composable:
    if target is not Target.METADATA:
        column = table.layout.id if target is Target.ID else table.layout.parent
        if column is None:
            return sql.SQL("NULL::jsonb")
        return sql.SQL("to_jsonb({}::text)").format(Name(column))
    if isinstance(table.layout.metadata, str):
        start: sql.Composable = json_column(table)
        rest = path
    elif path[0] in table.layout.metadata_columns:
        start, rest = sql.SQL("to_jsonb({})").format(Name(path[0])), path[1:]
    else:
        return sql.SQL("NULL::jsonb")
    keys = [parameters.bind(key, sql.SQL("text")) for key in rest]
    return sql.SQL("({})").format(sql.SQL(" -> ").join([start, *keys]))


# Writing

Row = tuple[Document, bytes, Sequence[NDArray[np.float32] | None]]
"""Document, metadata as JSON, and a vector or None for each slot that is written."""
ROWS_PER_STATEMENT: Final = 64
"""Rows that go in one statement, column by column (50 to 100 measured fastest at 1,024 dimensions)."""


def insert(
    table: Table, slots: Sequence[str], *, overwrite: bool, present: Sequence[str] = ()
) -> sql.Composed:
    """Insert rows, or replace them; without ``overwrite`` a stored row stays.

    Answers the ids of the rows that were written. ``slots`` are those that get vectors, ``present``
    the metadata keys where metadata is in columns; parameters are :func:`insert_parameters`.
    """
    given = [key for key in present if key not in table.owned]
    fields = _written(table, slots)
    fields |= {key: sql.SQL("p.{}").format(Name(key)) for key in given}
    placed = fields | _pinned_values(table, without=fields)
    columns = [*_ROW_COLUMNS, *(column for n in range(len(slots)) for column in _slot_arrays(n))]
    return sql.SQL(
        "INSERT INTO {} AS t ({}) SELECT {} FROM {}{} ON CONFLICT ({}) {} RETURNING {}"
    ).format(
        table.qualified,
        sql.SQL(", ").join([Name(name) for name in placed]),
        sql.SQL(", ").join(placed.values()),
        _unnested(columns),
        _populated(table),
        Name(table.layout.id),
        _replacing(table, fields) if overwrite else sql.SQL("DO NOTHING"),
        sql.SQL("t.{}::text").format(Name(table.layout.id)),
    )


_ROW_COLUMNS: Final = (
    ("id", "text"),
    ("text", "text"),
    ("metadata", "jsonb"),
    ("embed_text", "text"),
    ("parent", "text"),
    ("ordinal", "int"),
    ("span_start", "int"),
    ("span_end", "int"),
)


def _slot_arrays(place: int) -> tuple[tuple[str, str], tuple[str, str]]:
    return (f"vector_{place}", "vector"), (f"source_{place}", "bytea")


def _unnested(columns: Sequence[tuple[str, str]], *, prefix: str = "") -> sql.Composed:
    """``unnest(…) AS r(…)``: rows from one array a column, in their order."""
    arrays = [
        sql.SQL("{}::{}[]").format(sql.Placeholder(name, "b"), raw(kind)) for name, kind in columns
    ]
    names = [Name(prefix + name) for name, _ in columns]
    return sql.SQL("unnest({}) AS r({})").format(
        sql.SQL(", ").join(arrays), sql.SQL(", ").join(names)
    )


def _populated(table: Table) -> sql.Composable:
    """Metadata in the types of the columns it is spread over."""
    if not table.layout.metadata_columns:
        return sql.SQL("")
    return sql.SQL(", jsonb_populate_record(NULL::{}, r.metadata) AS p").format(table.qualified)


def _written(table: Table, slots: Sequence[str]) -> dict[str, sql.Composable]:
    """The columns that an upsert writes, each with its value of ``r``; metadata columns aside."""
    layout = table.layout
    fields: dict[str, sql.Composable] = {layout.id: _cast("r.id", table.id_type)}
    if isinstance(layout.text, str):
        fields[layout.text] = sql.SQL("r.text")
    if isinstance(layout.metadata, str):
        fields[layout.metadata] = _cast("r.metadata", table.columns[layout.metadata])
    for name, column in (("parent", layout.parent), ("ordinal", layout.order)):
        if column is not None and layout.parent is not None:
            fields[column] = _cast(f"r.{name}::text", table.kind(column))
    if table.own:
        for name in ("embed_text", "span_start", "span_end"):
            fields[name] = sql.SQL("r.{}").format(Name(name))
    for place, slot in enumerate(slots):
        fields[slot] = sql.SQL("r.{}").format(Name(f"vector_{place}"))
        if table.has_source(slot):
            fields[source_name(slot)] = sql.SQL("r.{}").format(Name(f"source_{place}"))
    return fields


def _cast(value: str, kind: str) -> sql.Composed:
    return sql.SQL("{}::{}").format(raw(value), raw(kind))


def _pinned_values(table: Table, *, without: Container[str]) -> dict[str, sql.Composable]:
    """What puts a new row into the layout's scope; a stored one keeps what it has."""
    return {
        column: typed_values(table, column, values[:1])
        for column, values in table.scope.items()
        if column not in without
    }


def _replacing(table: Table, columns: Collection[str]) -> sql.Composable:
    changed = [
        sql.SQL("{0} = EXCLUDED.{0}").format(Name(name))
        for name in columns
        if name != table.layout.id
    ]
    absent = [
        sql.SQL("{} = DEFAULT").format(Name(name))
        for name in table.changed((), merge=False)
        if name not in columns
    ]
    update = sql.SQL("DO UPDATE SET {}").format(sql.SQL(", ").join(changed + absent))
    if table.layout.scope is None:
        return update
    mine = [sql.SQL("t.{}").format(part) for part in pinned_columns(table)]
    return sql.SQL("{} WHERE {}").format(update, sql.SQL(" AND ").join(mine))


def insert_parameters(rows: Sequence[Row], vector_oid: int) -> dict[str, Array]:
    """The columns of some rows for :func:`insert`; each source follows from id, text and vector."""
    documents = [document for document, _, _ in rows]
    parents = [document.parent or _NO_PARENT for document in documents]
    spans = [parent.span or (None, None) for parent in parents]
    columns = {
        "id": texts(document.id for document in documents),
        "text": texts(document.text for document in documents),
        "metadata": array(JSONB_OID, [dump_json(metadata) for _, metadata, _ in rows]),
        "embed_text": texts(document.embed_text for document in documents),
        "parent": texts(parent.id or None for parent in parents),
        "ordinal": integers(parent.ordinal for parent in parents),
        "span_start": integers(start for start, _ in spans),
        "span_end": integers(end for _, end in spans),
    }
    made = [source_of(document.id, document.embedded_text) for document in documents]
    for place, column in enumerate(zip(*(row[2] for row in rows), strict=True)):
        columns[f"vector_{place}"] = vectors(vector_oid, column)
        present = zip(made, column, strict=True)
        sources = [None if vector is None else source for source, vector in present]
        columns[f"source_{place}"] = array(BYTEA_OID, sources)
    return columns


_NO_PARENT: Final = Parent("")


def delete(
    table: Table,
    slot: str,
    *,
    ids: Sequence[str] | None,
    where: Filter | None,
    parent: str | None,
) -> Statement:
    """Delete what passes every selector, while the table has the slot."""
    parameters = Parameters()
    more = [id_condition(table, ids, parameters)] if ids is not None else []
    more += [parent_condition(table, parent, parameters)] if parent is not None else []
    clause = where_clause(table, parameters, where, *more)
    statement = sql.SQL("{} DELETE FROM {} AS t USING locked WHERE t.{} = locked.{}")
    key = Name(table.layout.id)
    locked = _locked(table, slot, clause, "UPDATE")
    return statement.format(locked, table.qualified, key, key), parameters


def _locked(table: Table, slot: str, clause: sql.Composable, strength: str) -> sql.Composed:
    """The keys of the rows that pass, locked in the order in which every writer here locks rows.

    Otherwise two statements that share two rows could each wait for the other. The slot is named
    so that the server refuses a handle that outlived it.
    """
    return sql.SQL(
        "WITH locked AS (SELECT {0}, {1} IS NULL FROM {2}{3} "
        'ORDER BY {0}::text COLLATE "C" FOR {4})'
    ).format(Name(table.layout.id), Name(slot), table.qualified, clause, sql.SQL(strength))


def update_metadata(
    table: Table, slot: str, keys: Collection[str], where: Filter, *, merge: bool
) -> Statement:
    """Set or merge metadata (``%(patch)b`` with these keys) of the rows that pass."""
    parameters = Parameters()
    clause = where_clause(table, parameters, where)
    changes = _metadata_changes(table, keys, sql.SQL("%(patch)b::jsonb"), merge=merge)
    statement = sql.SQL("{} UPDATE {} AS t SET {} FROM locked WHERE t.{} = locked.{}")
    key = Name(table.layout.id)
    locked = _locked(table, slot, clause, "NO KEY UPDATE")
    return statement.format(locked, table.qualified, changes, key, key), parameters


def update_metadata_of(
    table: Table, slot: str, patches: Mapping[str, bytes], keys: Collection[str], *, merge: bool
) -> Statement:
    """Set or merge metadata of the rows with these ids; all patches have the same keys."""
    parameters = Parameters()
    ids = table.canonical_ids(list(patches))
    clause = where_clause(table, parameters, None, id_condition(table, ids, parameters))
    dumped = array(JSONB_OID, [dump_json(patches[id]) for id in ids])
    given = sql.SQL('unnest({}, {}) AS given("given id", "given patch")').format(
        bound_ids(table, ids, parameters), parameters.bind(dumped, sql.SQL("jsonb[]"))
    )
    changes = _metadata_changes(table, keys, sql.SQL('given."given patch"'), merge=merge)
    statement = sql.SQL(
        '{} UPDATE {} AS t SET {} FROM locked JOIN {} ON locked.{} = given."given id" '
        "WHERE t.{} = locked.{}"
    )
    key = Name(table.layout.id)
    locked = _locked(table, slot, clause, "NO KEY UPDATE")
    return statement.format(locked, table.qualified, changes, given, key, key, key), parameters


def _metadata_changes(
    table: Table, keys: Collection[str], patch: sql.Composable, *, merge: bool
) -> sql.Composable:
    """What is assigned to the columns of metadata, of one patch with these keys."""
    layout = table.layout
    if isinstance(layout.metadata, str):
        value = sql.SQL("({}{})::{}").format(
            _json_object(table) if merge else sql.SQL(""),
            patch,
            raw(table.columns[layout.metadata]),
        )
        return sql.SQL("{} = {}").format(Name(layout.metadata), value)
    record = sql.SQL("(jsonb_populate_record(NULL::{}, {}))").format(table.qualified, patch)
    pairs = [
        sql.SQL("{0} = {1}.{0}" if name in keys else "{0} = DEFAULT").format(Name(name), record)
        for name in table.changed(keys, merge=merge)
    ]
    return sql.SQL(", ").join(pairs)


def _json_object(table: Table) -> sql.Composable:
    """What metadata is merged into; JSON that is no object has no keys to keep."""
    return sql.SQL("CASE jsonb_typeof({0}) WHEN 'object' THEN {0} ELSE '{{}}' END || ").format(
        json_column(table)
    )


# Slots


def add_columns(table: Table, space: EmbeddingSpace, others: Sequence[str]) -> sql.Composed:
    """The slot, its source, its check; sources of the other slots; none of them obligatory.

    The slot may be there already, made by another collection in the table.
    """
    parts = [] if space.id in table.columns else _new_columns(space)
    for slot in others:
        parts.append(sql.SQL("ALTER COLUMN {} DROP NOT NULL").format(Name(slot)))
        if not table.has_source(slot):
            parts.append(sql.SQL("ADD COLUMN {} bytea").format(Name(source_name(slot))))
    return sql.SQL("ALTER TABLE {} {}").format(table.qualified, sql.SQL(", ").join(parts))


def _new_columns(space: EmbeddingSpace) -> list[sql.Composable]:
    parts: list[sql.Composable] = [
        sql.SQL("ADD COLUMN {} vector({})").format(Name(space.id), sql.Literal(space.dimensions)),
        sql.SQL("ADD COLUMN {} bytea").format(Name(source_name(space.id))),
    ]
    if space.normalized:
        parts.append(sql.SQL("ADD {} NOT VALID").format(_norm_check(space)))
    return parts


OBLIGATORY: Final = sql.SQL("""
SELECT a.attname::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND a.attname = ANY(%(slots)s) AND a.attnotnull
""")
"""Those of some columns that may not be NULL."""

WAS_OBLIGATORY: Final = "samespace: the vector's column was NOT NULL"
"""The comment on a source that :func:`add_columns` has made beside such a column."""

COMMENT: Final = sql.SQL("""
SELECT col_description(c.oid, a.attnum) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND a.attname = %(column)s
""")


def note_obligatory(table: Table, slot: str) -> sql.Composed:
    """Note in the table itself that a slot's column was NOT NULL; the note goes with the source."""
    return sql.SQL("COMMENT ON COLUMN {} IS {}").format(
        Name(table.schema, table.name, source_name(slot)), sql.Literal(WAS_OBLIGATORY)
    )


def drop_source(table: Table, slot: str) -> sql.Composed:
    """The source beside a slot that others made."""
    return sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(table.qualified, Name(source_name(slot)))


def require_vectors(table: Table, slot: str) -> sql.Composed:
    """NOT NULL on a slot's column."""
    return sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET NOT NULL").format(
        table.qualified, Name(slot)
    )


def count_empty(table: Table, slot: str) -> sql.Composed:
    """The rows of the table, whosoever they are, that have no vector in a slot."""
    return sql.SQL("SELECT count(*) FROM {} WHERE {} IS NULL").format(table.qualified, Name(slot))


def drop_columns(table: Table, slot: str) -> sql.Composed:
    """The slot and its source, with the check and the index on them."""
    parts = [sql.SQL("DROP COLUMN {}").format(Name(slot))]
    if table.has_source(slot):
        parts.append(sql.SQL("DROP COLUMN {}").format(Name(source_name(slot))))
    return sql.SQL("ALTER TABLE {} {}").format(table.qualified, sql.SQL(", ").join(parts))


def empty_columns(table: Table, slot: str) -> Statement:
    """The slot and its source, in this collection's rows of a table that has others too."""
    parameters = Parameters()
    names = [slot, *([source_name(slot)] if table.has_source(slot) else [])]
    changes = sql.SQL(", ").join([sql.SQL("{} = NULL").format(Name(name)) for name in names])
    clause = where_clause(table, parameters, None)
    return sql.SQL("UPDATE {} SET {}{}").format(table.qualified, changes, clause), parameters


def trigger_name(table: Table) -> str:
    """The name of a collection's trigger, and of its function in the registry's schema.

    Two collections may have names that read the same once joined, so a hash tells them apart.
    """
    digest = _digest(orjson.dumps([table.schema, table.name, table.scope_key]))
    return bounded(f"{table.name}_{digest}", "__sources")


def scope_suffix(table: Table) -> str:
    """What tells names of one collection from those of others in its table; empty if it is alone."""
    key = table.scope_key
    return "_" + _digest(key.encode()) if key else ""


def _digest(identity: bytes) -> str:
    return hashlib.sha256(identity).hexdigest()[:8]


def create_trigger(table: Table, registry: str, slots: Sequence[str]) -> list[sql.Composed]:
    """Empty the slots that a change of text leaves behind, whoever makes it."""
    name = trigger_name(table)
    function = sql.SQL("CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql AS {}")
    body = _trigger_body(table, slots).as_string(None)
    trigger = sql.SQL(
        "CREATE OR REPLACE TRIGGER {} BEFORE UPDATE ON {} FOR EACH ROW EXECUTE FUNCTION {}()"
    )
    return [
        function.format(Name(registry, name), sql.Literal(body)),
        trigger.format(Name(name), table.qualified, Name(registry, name)),
    ]


def _trigger_body(table: Table, slots: Sequence[str]) -> sql.Composed:
    key = Name(table.layout.id)
    assigned = sql.SQL("\n").join([_emptied(slot) for slot in slots])
    return sql.SQL(
        "BEGIN IF ({old} IS DISTINCT FROM {new} OR OLD.{key} IS DISTINCT FROM NEW.{key}){mine} THEN\n"
        "{assigned}\nEND IF; RETURN NEW; END"
    ).format(
        old=embedded_text(table, "old"),
        new=embedded_text(table, "new"),
        key=key,
        mine=_was_mine(table),
        assigned=assigned,
    )


def _was_mine(table: Table) -> sql.Composable:
    """Other collections of the table have triggers of their own, or want none."""
    return sql.SQL("").join([sql.SQL(" AND OLD.{}").format(part) for part in pinned_columns(table)])


def pinned_columns(table: Table) -> list[sql.Composable]:
    """The layout's scope with its values written out, one condition a column."""
    return [
        sql.SQL("{} IN ({})").format(Name(column), typed_values(table, column, values))
        for column, values in table.scope.items()
    ]


def typed_values(table: Table, column: str, values: Sequence[Scalar]) -> sql.Composable:
    """Values as literals of a column's type, without its length, which would cut them."""
    kind = raw(table.kind(column))
    literals = [sql.SQL("{}::text::{}").format(Text(plain(value)), kind) for value in values]
    return sql.SQL(", ").join(literals)


def _emptied(slot: str) -> sql.Composed:
    """A source that stays cannot be of the new text; a vector that changed is somebody's own.

    Compared as stored: a session that changes the row need not find the operators of ``vector``.
    """
    return sql.SQL(
        "IF NEW.{source} IS NOT DISTINCT FROM OLD.{source} THEN "
        "IF record_image_eq(ROW(NEW.{slot}), ROW(OLD.{slot})) THEN NEW.{slot} := NULL; END IF; "
        "NEW.{source} := NULL; END IF;"
    ).format(source=Name(source_name(slot)), slot=Name(slot))


def trigger_body(table: Table, slots: Sequence[str]) -> str:
    """The source of the function that :func:`create_trigger` makes, as the catalog has it."""
    return _trigger_body(table, slots).as_string(None).replace("%%", "%")


TRIGGER: Final = sql.SQL("""
SELECT p.prosrc FROM pg_trigger t
JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace r ON r.oid = p.pronamespace
WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND r.nspname = %(registry)s
  AND t.tgname = %(trigger)s AND t.tgenabled IN ('O', 'A')
""")
"""The function of a collection's trigger, if it runs; parameters are :func:`trigger_parameters`."""


def trigger_parameters(table: Table, registry: str) -> dict[str, str]:
    """The parameters of :data:`TRIGGER`."""
    return {
        "schema": table.schema, "name": table.name,
        "registry": registry, "trigger": trigger_name(table),
    }  # fmt: skip


HEIR: Final = sql.SQL("""
SELECT o.rolname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_roles o ON o.oid = c.relowner
WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND o.rolname <> current_user
  AND pg_has_role(o.oid, 'MEMBER') AND has_schema_privilege(o.oid, %(registry)s, 'CREATE')
""")
"""Whose the table is, if it is another's to whom this role may give the function of its trigger."""


def give_function(table: Table, registry: str, heir: str) -> sql.Composed:
    """The function of a trigger to the table's owner, who is to go on with it."""
    function = Name(registry, trigger_name(table))
    return sql.SQL("ALTER FUNCTION {}() OWNER TO {}").format(function, Name(heir))


def drop_trigger(table: Table, registry: str) -> sql.Composed:
    """The function, and the trigger that runs it."""
    return sql.SQL("DROP FUNCTION IF EXISTS {}() CASCADE").format(
        Name(registry, trigger_name(table))
    )


def version_expression(table: Table, row: str | None = None) -> sql.Composable:
    """What a row was made of: the hash of its text, or its transaction where text is elsewhere."""
    if table.external_text:
        prefix = sql.SQL("{}.").format(Name(row)) if row else sql.SQL("")
        return sql.SQL("convert_to({}xmin::text, 'UTF8')").format(prefix)
    return source_expression(table, row)


def filled_version(table: Table, slot: str, row: str | None = None) -> sql.Composable:
    """What a row was made of, and its vector; never what :func:`version_expression` says."""
    vector = Name(row, slot) if row else Name(slot)
    return sql.SQL("sha256({} || vector_send({}::vector))").format(
        version_expression(table, row), vector
    )


def _unfilled(table: Table, slot: str, space: EmbeddingSpace) -> sql.Composable:
    if table.is_foreign(slot, space) or not table.has_source(slot):
        return sql.SQL("{} IS NULL").format(Name(slot))
    return sql.SQL("{} IS NULL OR {} IS NULL").format(Name(slot), Name(source_name(slot)))


def pending(
    table: Table,
    slot: str,
    space: EmbeddingSpace,
    *,
    limit: int,
    after: str | None,
    shard: Shard | None,
    where: Filter | None,
    vectors_of: str | None,
) -> Statement:
    """The next rows in key order whose slot is to be filled, each with its version."""
    parameters = Parameters()
    more = [*_after(table, after, parameters), *_part(table, shard)]
    clause = where_clause(table, parameters, where, _unfilled(table, slot, space), *more)
    return _versioned(table, clause, limit, vectors_of), parameters


def filled(
    table: Table,
    slot: str,
    *,
    limit: int,
    after: str | None,
    shard: Shard | None,
    where: Filter | None,
) -> Statement:
    """The next rows in key order that have a vector in a slot, each with that and its version."""
    parameters = Parameters()
    more = [*_after(table, after, parameters), *_part(table, shard)]
    clause = where_clause(table, parameters, where, _present(slot), *more)
    selected = _select(table, [filled_version(table, slot), vector_bytes(slot)], clause)
    return _ordered(selected, table, limit), parameters


def sample(table: Table, slot: str, where: Filter | None, *, size: int) -> Statement:
    """The keys of rows that have a vector in a slot, each set of ``size`` as likely as another."""
    parameters = Parameters()
    statement = sql.SQL("SELECT {}::text FROM {}{} ORDER BY random() LIMIT {}").format(
        Name(table.layout.id),
        table.qualified,
        where_clause(table, parameters, where, _present(slot)),
        sql.Literal(size),
    )
    return statement, parameters


def _present(slot: str) -> sql.Composed:
    return sql.SQL("{} IS NOT NULL").format(Name(slot))


def _part(table: Table, shard: Shard | None) -> list[sql.Composable]:
    if shard is None:
        return []
    part, parts = (sql.Literal(number) for number in shard)
    hashed = sql.SQL("(hashtextextended({}::text, 0) & 2147483647) %% {} = {}")
    return [hashed.format(Name(table.layout.id), parts, part)]


def stale(table: Table, slot: str, *, limit: int, after: str | None) -> Statement:
    """The next rows in key order whose vector was made from another text than they have."""
    parameters = Parameters()
    source = Name(source_name(slot))
    present = sql.SQL("{} IS NOT NULL AND {} IS NOT NULL AND {} IS DISTINCT FROM {}").format(
        Name(slot), source, source, source_expression(table)
    )
    clause = where_clause(table, parameters, None, present, *_after(table, after, parameters))
    return _versioned(table, clause, limit, None), parameters


def _versioned(
    table: Table, clause: sql.Composable, limit: int, vectors_of: str | None
) -> sql.Composed:
    more = [version_expression(table), *(_with_source(table, vectors_of) if vectors_of else [])]
    return _ordered(_select(table, more, clause), table, limit)


def _with_source(table: Table, slot: str) -> list[sql.Composable]:
    """A slot's vectors and what they were made from, NULL where it keeps no sources."""
    kept = table.has_source(slot)
    return [vector_bytes(slot), Name(source_name(slot)) if kept else sql.SQL("NULL::bytea")]


def fill(table: Table, slot: str) -> Statement:
    """Write vectors into the rows that are what was read and that nobody else has filled.

    A row that :func:`filled` read is written over while it is that row.
    Answers as many rows as were filled; the rows' own parameters are :func:`fill_parameters`.
    """
    # The prefix keeps these apart from the columns that a TextQuery may name.
    changes = [sql.SQL('{} = locked."$vector"').format(Name(slot))]
    unfilled = [sql.SQL("t.{} IS NULL").format(Name(slot))]
    if table.has_source(slot):
        source = Name(source_name(slot))
        changes.append(sql.SQL('{} = locked."$source"').format(source))
        unfilled.append(sql.SQL('t.{} IS DISTINCT FROM r."$source"').format(source))
    parameters = Parameters()
    scope = scope_condition(table, parameters)
    key = sql.SQL("t.{}").format(Name(table.layout.id))
    statement = sql.SQL(
        'WITH locked AS (SELECT {key} AS "$key", r."$vector", r."$source" FROM {rows} '
        'JOIN {table} AS t ON {key} = {id} WHERE (({version} = r."$version" AND ({unfilled})) '
        'OR {whole} = r."$version"){mine} '
        'ORDER BY {key}::text COLLATE "C" FOR NO KEY UPDATE OF t) '
        'UPDATE {table} AS t SET {changes} FROM locked WHERE {key} = locked."$key" RETURNING 1'
    ).format(
        key=key,
        rows=_unnested(_FILL_COLUMNS, prefix="$"),
        table=table.qualified,
        id=_cast('r."$id"', table.id_type),
        version=version_expression(table, "t"),
        whole=filled_version(table, slot, "t"),
        unfilled=sql.SQL(" OR ").join(unfilled),
        mine=sql.SQL(" AND ({})").format(scope) if scope is not None else sql.SQL(""),
        changes=sql.SQL(", ").join(changes),
    )
    return statement, parameters


_FILL_COLUMNS: Final = (
    ("id", "text"),
    ("version", "bytea"),
    ("vector", "vector"),
    ("source", "bytea"),
)


def fill_parameters(
    rows: Sequence[tuple[VersionedRow, NDArray[np.float32]]], vector_oid: int
) -> dict[str, Array]:
    """The columns of some rows and their vectors for :func:`fill`."""
    documents = [row.document for row, _ in rows]
    made = [source_of(document.id, document.embedded_text) for document in documents]
    return {
        "id": texts(document.id for document in documents),
        "version": array(BYTEA_OID, [row.version for row, _ in rows]),
        "vector": vectors(vector_oid, [vector for _, vector in rows]),
        "source": array(BYTEA_OID, made),
    }


# Indexes


def uses_half(space: EmbeddingSpace, index: Index) -> bool:
    """Whether the slot is indexed in half precision and re-scored in full."""
    return index.quantization == "half" or space.dimensions > FLOAT_INDEX_DIMENSIONS


def index_name(table: Table, slot: str) -> str:
    """The name of a slot's index."""
    return bounded(f"{table.name}_{slot}{scope_suffix(table)}", "__hnsw")


def create_index(
    table: Table, slot: str, space: EmbeddingSpace, index: Index, *, concurrently: bool
) -> sql.Composed:
    """The HNSW index over a slot; of this collection's rows alone where the table has others."""
    half = uses_half(space, index)
    indexed = half_expression(slot, space.dimensions) if half else None
    mine = sql.SQL(" AND ").join(pinned_columns(table))
    return sql.SQL(
        "CREATE INDEX {}{} ON {} USING hnsw ({} {}) WITH (m = {}, ef_construction = {}){}{}"
    ).format(
        sql.SQL("CONCURRENTLY " if concurrently else ""),
        Name(index_name(table, slot)),
        table.qualified,
        indexed or float_expression(table, slot, space.dimensions),
        sql.SQL("halfvec_cosine_ops" if half else "vector_cosine_ops"),
        sql.Literal(index.m),
        sql.Literal(index.ef_construction),
        sql.SQL(" WHERE " if table.layout.scope is not None else ""),
        mine,
    )


def metadata_index_name(table: Table) -> str:
    """The name of the index that filters use."""
    return bounded(table.name, "__metadata")


def create_metadata_index(table: Table, *, concurrently: bool) -> sql.Composed:
    """The GIN index that serves equality on metadata."""
    return sql.SQL("CREATE INDEX {}{} ON {} USING gin (metadata jsonb_path_ops)").format(
        sql.SQL("CONCURRENTLY " if concurrently else ""),
        Name(metadata_index_name(table)),
        table.qualified,
    )


def drop_index(table: Table, name: str) -> sql.Composed:
    """An index, without locking out readers."""
    return sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(Name(table.schema, name))
