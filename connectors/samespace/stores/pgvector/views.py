"""A view of a table in which one slot stands under another's name; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from psycopg import sql

from samespace.errors import InvalidInput, StoreRejected, excerpt
from samespace.names import bounded
from samespace.stores.pgvector.sql import pinned_columns, scope_suffix
from samespace.stores.pgvector.table import Name, Table, source_name

CHECKS_CALLERS: Final = 15_00_00
"""PostgreSQL from 15 on has views that ask for the rights, and the row security, of who uses them."""
_RIGHTS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")

FACTS: Final = sql.SQL("""
SELECT current_setting('server_version_num')::int, c.relrowsecurity,
  ARRAY(SELECT a.attname::text FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
  EXISTS (SELECT FROM pg_roles WHERE rolname = %(role)s),
  ARRAY(SELECT right_ FROM pg_roles r, unnest(%(rights)s::text[]) WITH ORDINALITY AS u(right_, place)
    WHERE r.rolname = %(role)s AND has_table_privilege(r.oid, c.oid, right_) ORDER BY place)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(name)s
""")
"""One row, the fields of :class:`Facts`; parameters are :func:`facts_parameters`."""

DEPENDENTS: Final = sql.SQL("""
WITH RECURSIVE tables AS (
  SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = %(schema)s AND c.relname = %(name)s
  UNION SELECT i.inhrelid FROM tables t JOIN pg_inherits i ON i.inhparent = t.oid
), views AS (
  SELECT r.ev_class AS oid, 1 AS depth FROM tables t
  JOIN pg_attribute a ON a.attrelid = t.oid AND a.attname::text = ANY(%(columns)s::text[])
  JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid
    AND d.refobjsubid = a.attnum AND d.classid = 'pg_rewrite'::regclass
  JOIN pg_rewrite r ON r.oid = d.objid AND r.rulename = '_RETURN'
  UNION SELECT r.ev_class, v.depth + 1 FROM views v
  JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = v.oid
    AND d.classid = 'pg_rewrite'::regclass
  JOIN pg_rewrite r ON r.oid = d.objid AND r.rulename = '_RETURN' AND r.ev_class <> v.oid
  WHERE v.depth < 100
)
SELECT n.nspname::text, c.relname::text, c.relkind::text
FROM views v JOIN pg_class c ON c.oid = v.oid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('v', 'm') GROUP BY 1, 2, 3 ORDER BY max(v.depth) DESC, 1, 2
""")
"""Schema, name and kind of the views of some columns, those first that no other is of."""

OBSTACLES: Final = sql.SQL("""
WITH RECURSIVE tables AS (
  SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = %(schema)s AND c.relname = %(name)s
  UNION SELECT i.inhrelid FROM tables t JOIN pg_inherits i ON i.inhparent = t.oid
)
SELECT DISTINCT CASE WHEN g.oid IS NULL THEN pg_describe_object(d.classid, d.objid, d.objsubid)
  ELSE pg_describe_object('pg_class'::regclass, g.adrelid, g.adnum) END
FROM tables t
JOIN pg_attribute a ON a.attrelid = t.oid AND a.attname::text = ANY(%(columns)s::text[])
JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid
  AND d.refobjsubid = a.attnum AND d.deptype = 'n'
LEFT JOIN pg_attrdef g ON d.classid = 'pg_attrdef'::regclass AND g.oid = d.objid
WHERE NOT EXISTS (SELECT FROM pg_depend o WHERE o.classid = d.classid AND o.objid = d.objid
  AND o.refclassid = d.refclassid AND o.refobjid = d.refobjid AND o.refobjsubid = d.refobjsubid
  AND o.deptype = 'a')
AND NOT EXISTS (SELECT FROM pg_rewrite r JOIN pg_class v ON v.oid = r.ev_class
  WHERE d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid AND r.rulename = '_RETURN'
  AND v.relkind IN ('v', 'm'))
ORDER BY 1
""")
"""What else is of some columns and does not go with them, each as the server describes it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a view depends on: the server, the table's columns in their order, what a role may do there."""

    version: int
    has_row_security: bool
    columns: Sequence[str]
    has_role: bool
    rights: Sequence[str]


def facts_parameters(table: Table, role: str | None) -> Mapping[str, object]:
    """The parameters of :data:`FACTS`."""
    return {
        "schema": table.schema, "name": table.name, "role": role or "", "rights": list(_RIGHTS),
    }  # fmt: skip


def check(table: Table, facts: Facts, *, schema: str, role: str | None) -> None:
    """Refuse a view that would hide the table itself, or let anybody do what the table forbids."""
    if schema == table.schema:
        raise InvalidInput(
            f"schema {excerpt(schema)} has the table itself; name another one for the view, which comes "
            "before it in the application's search_path"
        )
    if role is not None and not facts.has_role:
        raise InvalidInput(
            f"there is no role {excerpt(role)}; name the one that the application is"
        )
    if role is not None and not facts.rights:
        raise InvalidInput(
            f"role {excerpt(role)} may do nothing with table {excerpt(table.name)}, so it can do nothing "
            "with a view of it; grant it what the application needs on the table first"
        )
    if facts.has_row_security and facts.version < CHECKS_CALLERS:
        raise StoreRejected(
            f"table {excerpt(table.name)} has row security, which a view goes around before PostgreSQL 15; "
            "have the application name the new column instead"
        )


def statements(
    table: Table,
    facts: Facts,
    *,
    old: str,
    new: str,
    sources: Sequence[str],
    scopes: Sequence[Table],
    schema: str,
    role: str | None,
) -> list[str]:
    """The schema, the view in it with its way back, and the rights of ``role``: those on the table.

    ``sources`` are columns that no application knows. ``scopes`` are the table's collections that have
    the new slot, each with its scope; rows of others are not shown, and cannot be written.
    """
    place = Name(schema, table.name)
    made = [
        sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Name(schema)),
        _view(table, facts, place, _columns(facts.columns, old, new, sources), _rows(scopes)),
    ]
    if role is not None:
        rights = sql.SQL(", ").join([sql.SQL(right) for right in _RIGHTS if right in facts.rights])
        made.append(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(Name(schema), Name(role)))
        made.append(sql.SQL("GRANT {} ON {} TO {}").format(rights, place, Name(role)))
    create, view, *granted = map(spelt, made)
    return [create, with_way_back(view, (schema, table.name)), *granted]


def dependents_parameters(table: Table, slot: str) -> Mapping[str, object]:
    """The parameters of :data:`DEPENDENTS` and :data:`OBSTACLES`: the columns that go with a slot."""
    return {
        "schema": table.schema, "name": table.name, "columns": [slot, *sources_of(table, [slot])],
    }  # fmt: skip


def drop(schema: str, name: str, kind: str) -> str:
    """The statement that drops a view."""
    what = sql.SQL("DROP MATERIALIZED VIEW {}" if kind == "m" else "DROP VIEW {}")
    return spelt(what.format(Name(schema, name)))


def with_way_back(statement: str, place: tuple[str, str]) -> str:
    """The statement that makes a view, and beside it what has to be run before its column can go."""
    undo = drop(*place, "v")
    if not undo.isprintable():  # a line of its own would be run
        return statement
    return f"-- before samespace migrate abort: {undo};\n{statement}"


def spelt(statement: sql.Composable) -> str:
    """A statement without parameters."""
    return statement.as_string(None).replace("%%", "%")


def _view(
    table: Table,
    facts: Facts,
    place: Name,
    columns: sql.Composable,
    rows: sql.Composable,
) -> sql.Composed:
    checks = sql.SQL(" WITH (security_invoker = true)")
    return sql.SQL("CREATE OR REPLACE VIEW {}{} AS SELECT {} FROM {}{}").format(
        place,
        checks if facts.version >= CHECKS_CALLERS else sql.SQL(""),
        columns,
        table.qualified,
        rows,
    )


def _columns(columns: Sequence[str], old: str, new: str, sources: Sequence[str]) -> sql.Composable:
    """All that the application knows, in the order that it knows, the old name for the new slot."""
    hidden = {new, *sources}
    return sql.SQL(", ").join(
        [
            sql.SQL("{} AS {}").format(Name(new), Name(old)) if column == old else Name(column)
            for column in columns
            if column not in hidden
        ]
    )


def _rows(scopes: Sequence[Table]) -> sql.Composable:
    """Which rows are shown, in a table that has several collections; all of them in one that has not."""
    conditions = [
        sql.SQL("({})").format(sql.SQL(" AND ").join(pinned_columns(each))) for each in scopes
    ]
    if not conditions:
        return sql.SQL("")
    return sql.SQL(" WHERE {} WITH LOCAL CHECK OPTION").format(sql.SQL(" OR ").join(conditions))


def create_index(table: Table, slot: str, opclass: str) -> str:
    """The index over a slot as it stands, for queries that know nothing of one in half precision."""
    mine = pinned_columns(table)
    name = bounded(f"{table.name}_{slot}{scope_suffix(table)}", "__plain")
    statement = sql.SQL("CREATE INDEX CONCURRENTLY IF NOT EXISTS {} ON {} USING hnsw ({} {}){}{}")
    return spelt(
        statement.format(
            Name(name), table.qualified, Name(slot), sql.SQL(opclass),
            sql.SQL(" WHERE " if mine else ""), sql.SQL(" AND ").join(mine),
        )
    )  # fmt: skip


def sources_of(table: Table, slots: Sequence[str]) -> list[str]:
    """The columns beside slots."""
    return [source_name(slot) for slot in slots if table.has_source(slot)]
