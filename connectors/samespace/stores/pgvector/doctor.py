# Generated from doctor_async.py by tools/generate_sync.py; change that file, not this one.
"""Examining a PostgreSQL server, without changing anything there."""

from __future__ import annotations

import psycopg

from samespace.findings import Finding
from samespace.stores.pgvector import diagnosis
from samespace.stores.pgvector.connections import Connections


def examine(
    source: str,
    *,
    collection: str | None = None,
    schema: str = "public",
    registry: str = "samespace",
) -> list[Finding]:
    """What a server is, and what its user may do there; an error if it cannot be reached."""
    connections = Connections(source, adapt=lambda _: None)
    names = {"schema": schema, "registry": registry, "collection": collection}
    try:
        with connections.lend() as cursor:
            cursor.execute(diagnosis.FACTS, names, prepare=False)
            row = cursor.fetchone()
    finally:
        connections.close()
    assert row is not None  # noqa: S101  the statement selects from one row
    found = diagnosis.findings(
        diagnosis.Facts(*row),
        client=psycopg.__version__,
        schema=schema,
        registry=registry,
        collection=collection,
    )
    return list(found)
