"""The least rights of a role on a collection's table, as statements for who may grant them; no I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from psycopg import sql

from samespace.rights import Part
from samespace.stores.pgvector.sql import registry_table, trigger_name
from samespace.stores.pgvector.table import Name, Table

OWNER: Final = sql.SQL("""
SELECT r.rolname, r.rolsuper,
  (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'vector'),
  EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = %(registry)s AND p.proname = %(trigger)s)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.oid = c.relowner
WHERE n.nspname = %(schema)s AND c.relname = %(name)s
""")
"""One row: what :class:`Ownership` has. Parameters are those of the collection's trigger."""
_ON_ROWS: Final = {
    "reader": "SELECT",
    "writer": "SELECT, INSERT, UPDATE, DELETE",
}


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who owns a collection's table, and what else there is to own or to use."""

    owner: str
    is_superuser: bool
    home: str
    """The schema of pgvector."""
    has_trigger: bool
    """Whether there is a function that empties slots."""


def grants(table: Table, registry: str, part: Part, *, to: str, owned: Ownership) -> str:
    """The statements that let the role ``to`` be a reader, writer or migrator of a collection.

    Adding a slot with its trigger and index is its owner's: a migrator becomes a member of that role, or,
    where it is a superuser, the owner itself.
    """
    role, records = sql.Identifier(to), registry_table(registry)
    schemas = [sql.Identifier(name) for name in dict.fromkeys([table.schema, registry, owned.home])]
    statements = [
        sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(sql.SQL(", ").join(schemas), role),
        sql.SQL("GRANT SELECT ON {} TO {}").format(records, role),
    ]
    if part == "migrator":
        statements += _owning(table, registry, role, owned)
    else:
        rows = sql.SQL(_ON_ROWS[part])
        statements.append(sql.SQL("GRANT {} ON {} TO {}").format(rows, table.qualified, role))
    return "\n".join(f"{_text(each)};" for each in statements)


def _owning(
    table: Table, registry: str, role: sql.Identifier, owned: Ownership
) -> Iterator[sql.Composed]:
    yield sql.SQL("GRANT INSERT, UPDATE ON {} TO {}").format(registry_table(registry), role)
    schemas = sql.Identifier(table.schema), sql.Identifier(registry)
    yield sql.SQL("GRANT CREATE ON SCHEMA {}, {} TO {}").format(*schemas, role)
    if not owned.is_superuser:
        yield sql.SQL("GRANT {} TO {}").format(sql.Identifier(owned.owner), role)
        return
    yield sql.SQL("ALTER TABLE {} OWNER TO {}").format(table.qualified, role)
    if owned.has_trigger:
        function = Name(registry, trigger_name(table))
        yield sql.SQL("ALTER FUNCTION {}() OWNER TO {}").format(function, role)


def _text(statement: sql.Composed) -> str:
    return statement.as_string(None).replace("%%", "%")
