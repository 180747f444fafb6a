"""What the facts about a PostgreSQL server mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from psycopg import sql

from samespace.errors import excerpt
from samespace.findings import Finding, Level, numbers_of

OLDEST_PGVECTOR: Final = (0, 8, 0)
SOUND_PGVECTOR: Final = (0, 8, 4)
"""From here on parallel builds, vacuum and graph repair have no known defect."""
_MISSING: Final = "run CREATE EXTENSION vector in the database, as a role that may, once"

FACTS: Final = sql.SQL("""
SELECT current_setting('server_version'),
  (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
  (SELECT t.typnamespace::regnamespace::text FROM pg_extension e
    JOIN pg_type t ON t.typnamespace = e.extnamespace
    WHERE e.extname = 'vector' AND t.typname = 'vector' AND NOT pg_type_is_visible(t.oid)),
  (SELECT default_version FROM pg_available_extensions WHERE name = 'vector'),
  (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
    OR (may_create.database AND EXISTS (SELECT FROM pg_available_extension_versions
      WHERE name = 'vector' AND trusted)),
  may_create.database,
  schema.oid IS NOT NULL,
  coalesce(has_schema_privilege(schema.oid, 'USAGE'), FALSE),
  coalesce(has_schema_privilege(schema.oid, 'CREATE'), FALSE),
  registry.oid IS NOT NULL,
  coalesce(has_schema_privilege(registry.schema, 'USAGE')
    AND has_table_privilege(registry.oid, 'SELECT'), FALSE),
  coalesce(has_schema_privilege(registry.schema, 'USAGE')
    AND has_table_privilege(registry.oid, 'INSERT')
    AND has_table_privilege(registry.oid, 'UPDATE'), FALSE),
  coalesce(has_schema_privilege(registry.schema, 'CREATE')
    AND has_table_privilege(registry.oid, 'DELETE'), FALSE),
  has_table_privilege(mine.oid, 'SELECT'),
  has_table_privilege(mine.oid, 'INSERT') AND has_table_privilege(mine.oid, 'UPDATE')
    AND has_table_privilege(mine.oid, 'DELETE')
FROM (SELECT has_database_privilege(current_database(), 'CREATE')) AS may_create (database)
LEFT JOIN pg_namespace AS schema ON schema.nspname = %(schema)s
LEFT JOIN (SELECT c.oid, n.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = %(registry)s AND c.relname = 'collections') AS registry (oid, schema) ON TRUE
LEFT JOIN pg_class AS mine
  ON mine.relnamespace = schema.oid AND mine.relname = %(collection)s
  AND mine.relkind IN ('r', 'p', 'v', 'm', 'f')
""")
"""Parameters: schema, registry, collection. The answer is one row, the fields of :class:`Facts`."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a database says of itself, and of what its user may do there."""

    server: str
    installed: str | None
    """The version of pgvector in this database."""
    hidden: str | None
    """The schema of pgvector where this role does not look into it."""
    available: str | None
    """The version that could be installed."""
    may_install: bool
    may_create_schemas: bool
    has_schema: bool
    may_use_schema: bool
    may_create_tables: bool
    has_registry: bool
    may_read_records: bool
    may_write_records: bool
    may_make_records: bool
    """Whether collections can be made and dropped, as far as the registry goes."""
    may_read_rows: bool | None
    """None where no collection was named, or there is none."""
    may_write_rows: bool | None


def findings(
    facts: Facts, *, client: str, schema: str, registry: str, collection: str | None
) -> Iterator[Finding]:
    """What there is to say of a server that answers."""
    yield Finding(Level.OK, f"PostgreSQL {facts.server} answers (client psycopg {client})")
    yield _extension(facts)
    if facts.hidden is not None:
        yield hidden(facts.hidden)
    yield _records(facts, registry)
    yield _schema(facts, schema)
    if facts.may_read_rows is not None:
        yield _rows(facts, schema, collection or "")


def _extension(facts: Facts) -> Finding:
    if facts.installed is not None:
        return version(facts.installed, facts.available)
    if facts.available is None:
        return Finding(
            Level.PROBLEM,
            "the server lacks pgvector",
            "install pgvector 0.8.4 or newer on the server",
        )
    if numbers_of(facts.available) < OLDEST_PGVECTOR:
        return version(facts.available)
    if not facts.may_install:
        what = f"pgvector {facts.available} is not installed in this database"
        return Finding(Level.PROBLEM, f"{what}, and this role may not install it", _MISSING)
    what = f"pgvector {facts.available} is installed with the first collection"
    return Finding(Level.OK, what)


def version(installed: str, available: str | None = None) -> Finding:
    """What to think of a version of pgvector, where ``available`` could be installed."""
    newer = available and numbers_of(available) > numbers_of(installed)
    update = "run ALTER EXTENSION vector UPDATE"
    mend = update if newer else f"install pgvector 0.8.4 or newer on the server, and {update}"
    if numbers_of(installed) < OLDEST_PGVECTOR:
        what = f"pgvector {installed} is too old: 0.8.0 or newer is needed for filtered search"
        return Finding(Level.PROBLEM, what, mend)
    if numbers_of(installed) < SOUND_PGVECTOR:
        what = f"pgvector {installed} has known defects in its indexes, mended in 0.8.4"
        return Finding(Level.WARNING, what, mend)
    return Finding(Level.OK, f"pgvector {installed}")


def hidden(schema: str) -> Finding:
    """What to say where pgvector is in a schema (its name as quoted) that this role overlooks."""
    return Finding(
        Level.PROBLEM,
        f"the extension vector is in schema {schema}, which is not in this role's search_path",
        f"run ALTER ROLE … SET search_path = public, {schema} (and GRANT USAGE ON SCHEMA {schema} if "
        "it lacks that)",
    )


def _schema(facts: Facts, schema: str) -> Finding:
    shown = sql.Identifier(schema).as_string(None)
    if not facts.has_schema:
        if facts.may_create_schemas:
            return Finding(Level.OK, f"schema {shown} is made with the first collection")
        return Finding(
            Level.PROBLEM, f"there is no schema {shown}, and this role may not make it",
            f"have CREATE SCHEMA {shown} run, and GRANT USAGE, CREATE ON SCHEMA {shown}",
        )  # fmt: skip
    if not facts.may_use_schema:
        return Finding(
            Level.PROBLEM, f"this role may not use schema {shown}",
            f"have GRANT USAGE ON SCHEMA {shown} run for it",
        )  # fmt: skip
    if not facts.may_create_tables:
        return Finding(
            Level.WARNING, f"this role may open collections in schema {shown}, and not create any",
            f"have GRANT CREATE ON SCHEMA {shown} run for it",
        )  # fmt: skip
    return Finding(Level.OK, f"this role may create collections in schema {shown}")


def _records(facts: Facts, registry: str) -> Finding:
    table = sql.Identifier(registry, "collections").as_string(None)
    schema = sql.Identifier(registry).as_string(None)
    if not facts.has_registry:
        if facts.may_create_schemas:
            return Finding(
                Level.OK, f"the records' table {table} is made with the first collection"
            )
        return Finding(
            Level.WARNING,
            f"there is no table {table} for records, and this role may not make its schema",
            "have the first collection created by a role with CREATE on the database",
        )
    if not facts.may_read_records:
        return Finding(
            Level.PROBLEM, f"this role may not read the collections' records in {table}",
            f"have GRANT USAGE ON SCHEMA {schema} and GRANT SELECT ON {table} run for it",
        )  # fmt: skip
    if not facts.may_write_records:
        return Finding(
            Level.WARNING, f"this role may read records in {table}, and not write them: it may not "
            "create, adopt or mark",
            f"have GRANT INSERT, UPDATE ON {table} run for it",
        )  # fmt: skip
    if not facts.may_make_records:
        return Finding(
            Level.WARNING, f"this role may change records in {table}, and not create collections",
            f"have GRANT CREATE ON SCHEMA {schema} and GRANT DELETE ON {table} run for it",
        )  # fmt: skip
    return Finding(Level.OK, f"this role may read and write records in {table}")


def _rows(facts: Facts, schema: str, collection: str) -> Finding:
    table = sql.Identifier(schema, collection).as_string(None)
    if not facts.may_read_rows:
        return Finding(
            Level.PROBLEM, f"this role may not read collection {excerpt(collection)}",
            f"have GRANT SELECT ON {table} run for it",
        )  # fmt: skip
    if not facts.may_write_rows:
        return Finding(
            Level.WARNING, f"this role may read collection {excerpt(collection)}, and not write to it",
            f"have GRANT INSERT, UPDATE, DELETE ON {table} run for it",
        )  # fmt: skip
    return Finding(
        Level.OK, f"this role may read collection {excerpt(collection)}, and write to it"
    )


def grants(schema: str, table: str, *, may_enter: bool, may_read: bool) -> str:
    """What a role lacks for reading a table, as statements; empty if it lacks nothing."""
    entering = sql.SQL("GRANT USAGE ON SCHEMA {}").format(sql.Identifier(schema))
    reading = sql.SQL("GRANT SELECT ON {}").format(sql.Identifier(schema, table))
    lacking = ((entering, may_enter), (reading, may_read))
    return " and ".join(right.as_string(None) for right, is_held in lacking if not is_held)


def sized_rows(dimensions: int, rows: int, ids: Sequence[str | None]) -> str:
    """Some rows with vectors of one size, with their number and some of their ids."""
    shown = ", ".join(excerpt(id) for id in ids) + (", …" if rows > len(ids) else "")
    return f"{rows} row{'s' if rows != 1 else ''} of {dimensions} dimensions ({shown})"
