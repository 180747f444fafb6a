# Generated from survey_async.py by tools/generate_sync.py; change that file, not this one.
"""Looking at a table that somebody else made, without changing anything there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from psycopg import sql

from samespace.errors import StoreRejected, excerpt
from samespace.filters import Filter
from samespace.names import check_identifier
from samespace.stores.pgvector import diagnosis, recognition
from samespace.stores.pgvector.conditions import Parameters
from samespace.stores.pgvector.connections import Connections, Tuples
from samespace.stores.pgvector.recognition import Catalog, Declared, Shared
from samespace.survey import SAMPLED_ROWS, Survey, not_found


def survey(
    source: str,
    *,
    collection: str,
    schema: str = "public",
    registry: str = "samespace",
    scope: Filter | None = None,
) -> Survey:
    """What a table or a view is; :class:`~samespace.errors.CollectionNotFound` names what there is."""
    names = {"schema": schema, "name": collection, "registry": registry}
    for what, name in names.items():
        check_identifier(name, what=what if what != "name" else "collection")
    connections = Connections(source, adapt=lambda _: None)
    try:
        with connections.lend() as cursor:
            catalog = _catalog(cursor, names)
            return _surveyed(cursor, catalog, names, registry, scope)
    finally:
        connections.close()


def _catalog(cursor: Tuples, names: Mapping[str, str]) -> Catalog:
    cursor.execute(recognition.CATALOG, names, prepare=False)
    row = cursor.fetchone()
    if row is None:
        cursor.execute(recognition.CANDIDATES, names, prepare=False)
        tables = [name for (name,) in cursor.fetchall()]
        raise not_found(names["name"], f"schema {names['schema']!r}", tables)
    *found, may_enter, may_read = row
    lacking = diagnosis.grants(
        names["schema"], names["name"], may_enter=may_enter, may_read=may_read
    )
    if lacking:
        raise StoreRejected(
            f"this role may not read {excerpt(names['name'])}; have {lacking} run for it"
        )
    kind, tuples, columns, keys, indexes, has_collections, may_read_records = found
    return Catalog(
        kind=kind,
        tuples=tuples,
        columns=tuple(Declared(*column) for column in orjson.loads(columns)),
        keys=tuple((name, primary) for name, primary in orjson.loads(keys)),
        indexes=tuple((name, opclass) for name, opclass in orjson.loads(indexes)),
        has_collections=has_collections,
        may_read_records=may_read_records,
    )


def _surveyed(
    cursor: Tuples,
    catalog: Catalog,
    names: Mapping[str, str],
    registry: str,
    scope: Filter | None,
) -> Survey:
    schema, name = names["schema"], names["name"]
    measuring = recognition.sampled(schema, name, catalog, SAMPLED_ROWS, scope)
    ((*measured,),) = _rows(cursor, *measuring)
    ((rows,),) = (
        _rows(cursor, recognition.counted(schema, name))
        if catalog.is_counted
        else [(int(catalog.tuples),)]
    )
    shared = _rows(cursor, recognition.collections(schema, name)) if catalog.shares_rows() else []
    records = (
        _rows(cursor, recognition.all_records(registry), (schema, name))
        if catalog.may_read_records
        else []
    )
    return recognition.survey_of(
        name,
        catalog,
        measured=measured,
        rows=rows,
        records=[orjson.loads(record) for (record,) in records],
        shared=[Shared(*each) for each in shared],
    )


def _rows(
    cursor: Tuples, statement: sql.Composed, values: tuple[Any, ...] | Parameters = ()
) -> list[tuple[Any, ...]]:
    cursor.execute(statement, values, prepare=False)
    return cursor.fetchall()
