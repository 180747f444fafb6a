"""Filters as SQL conditions with bound parameters.

A condition may be NULL, which means false; so that a plain ``@>`` can use its index, only a
negation turns NULL into a truth value.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import orjson
from psycopg import sql

from samespace.documents import EXACT_FLOAT, INT64_MIN
from samespace.errors import InvalidInput, excerpt
from samespace.filters import (
    ISO_8601,
    And,
    Compares,
    Differs,
    Everything,
    Exists,
    Filter,
    In,
    Not,
    Or,
    Scalar,
    Target,
    equalities,
)
from samespace.stores.pgvector.binary import Json
from samespace.stores.pgvector.table import Name, Table, raw

_TEXTS: Final = ("text", "character varying")
_NUMBERS: Final = ("smallint", "integer", "bigint", "numeric", "double precision", "real")
_EXACT_NUMBERS: Final = ("smallint", "integer", "bigint", "numeric")
_ISO: Final = f"^(?:{ISO_8601})$"
_ZONED: Final = "[T ].*(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?)$"
_BEYOND_JSON: Final = {
    "numeric": sql.SQL(" AND {0} NOT IN ('NaN', 'Infinity', '-Infinity')"),
    "timestamp with time zone": sql.SQL(
        " AND {0} >= '0001-01-01T00:00:00Z' AND {0} < '10000-01-01T00:00:00Z'"
    ),
}
"""Columns have values that are strings in JSON and no instants there: they have no order."""
_ORDERS: Final = {"<": sql.SQL("<"), "<=": sql.SQL("<="), ">": sql.SQL(">"), ">=": sql.SQL(">=")}


class Parameters(dict[str, Any]):
    """The values of one statement, by name."""

    def bind(self, value: object, cast: sql.Composable | None = None) -> sql.Composable:
        """A placeholder for ``value``, with its cast."""
        name = f"p{len(self)}"
        self[name] = value
        placeholder = sql.Placeholder(name)
        return sql.SQL("{}::{}").format(placeholder, cast) if cast else placeholder


def where_clause(
    table: Table, parameters: Parameters, where: Filter | None, *more: sql.Composable
) -> sql.Composable:
    """``WHERE`` with the layout's scope, the filter and ``more``; empty if there is nothing."""
    parts = [scope_condition(table, parameters), *more]
    parts += [condition(where, table, parameters)] if where is not None else []
    present = [sql.SQL("({})").format(part) for part in parts if part is not None]
    return sql.SQL(" WHERE ") + sql.SQL(" AND ").join(present) if present else sql.SQL("")


def scope_condition(table: Table, parameters: Parameters) -> sql.Composable | None:
    """The rows of this collection where several share a table."""
    if table.layout.scope is None:
        return None
    parts = [
        _is_any_of(Name(column), table.columns[column], [plain(v) for v in values], parameters)
        for column, values in equalities(table.layout.scope).items()
    ]
    return sql.SQL(" AND ").join(parts)


def id_condition(table: Table, ids: Sequence[str], parameters: Parameters) -> sql.Composable:
    """The rows with these ids; an id that no key can have matches nothing."""
    return _is_any_of(Name(table.layout.id), table.id_type, table.canonical_ids(ids), parameters)


def bound_ids(table: Table, ids: Sequence[str], parameters: Parameters) -> sql.Composable:
    """An array of ids that keys can have, in the type in which they are compared."""
    return _bound(table.id_type, ids, parameters)


def parent_condition(table: Table, parent: str, parameters: Parameters) -> sql.Composable:
    """The chunks of one document."""
    if table.layout.parent is None:
        raise InvalidInput("this collection has no parents: name their column in Layout.parent")
    column = Name(table.layout.parent)
    kind = table.kind(table.layout.parent)
    if kind in _TEXTS:
        return _is_any_of(column, kind, [parent], parameters)
    return sql.SQL("{}::text = {}").format(column, parameters.bind(parent, sql.SQL("text")))


def _is_any_of(
    column: sql.Composable, kind: str, texts: Sequence[str], parameters: Parameters
) -> sql.Composable:
    """Compared in the column's own type, so that its index is of use."""
    return sql.SQL("{} = ANY({})").format(column, _bound(kind, texts, parameters))


def _bound(kind: str, texts: Sequence[str], parameters: Parameters) -> sql.Composable:
    values = parameters.bind(list(texts), sql.SQL("text[]"))
    if kind.partition("(")[0] not in _TEXTS:
        values = sql.SQL("{}::{}[]").format(values, raw(kind))
    return values


def plain(value: Scalar) -> str:
    """A scope's value as PostgreSQL reads it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def condition(where: Filter, table: Table, parameters: Parameters) -> sql.Composable:
    """One filter as a condition."""
    match where:
        case Everything():
            return sql.SQL("TRUE")
        case And(parts):
            return _joined(" AND ", "TRUE", parts, table, parameters)
        case Or(parts):
            return _joined(" OR ", "FALSE", parts, table, parameters)
        case Not(part):
            inner = condition(part, table, parameters)
            return sql.SQL("NOT coalesce(({}), FALSE)").format(inner)
        case In() | Differs() | Exists() if where.target is not Target.METADATA:
            return _of_key(where, table, parameters)
        case In() | Differs() | Exists() | Compares():
            return _of_metadata(where, table, parameters)
    raise InvalidInput(f"{excerpt(where)} is not a filter; build one with field(…)")


def _joined(
    operator: str, empty: str, parts: Sequence[Filter], table: Table, parameters: Parameters
) -> sql.Composable:
    conditions = [sql.SQL("({})").format(condition(part, table, parameters)) for part in parts]
    return sql.SQL(operator).join(conditions) if conditions else sql.SQL(empty)


def _of_key(where: In | Differs | Exists, table: Table, parameters: Parameters) -> sql.Composable:
    """A condition on the id or the parent."""
    column = table.layout.id if where.target is Target.ID else table.layout.parent
    if column is None:
        return sql.SQL("FALSE")
    if isinstance(where, Exists):
        return sql.SQL("{} IS NOT NULL").format(Name(column))
    if isinstance(where, Differs):
        value = parameters.bind(where.value, sql.SQL("text"))
        return sql.SQL("{}::text <> {}").format(Name(column), value)
    texts = [str(value) for value in where.values]
    if where.target is Target.ID:
        return id_condition(table, texts, parameters)
    values = parameters.bind(texts, sql.SQL("text[]"))
    return sql.SQL("{}::text = ANY({})").format(Name(column), values)


def _of_metadata(
    where: In | Differs | Exists | Compares, table: Table, parameters: Parameters
) -> sql.Composable:
    if isinstance(table.layout.metadata, str):
        document = json_column(table)
        if isinstance(where, In):
            return _contains(document, where, parameters)
        return _of_json(_step(document, where.path, parameters), where, parameters)
    column, *rest = where.path
    if column not in table.layout.metadata_columns:
        return _of_json(sql.SQL("NULL::jsonb"), where, parameters)
    plain = None if rest else _of_column(column, table, where, parameters)
    if plain is not None:
        return plain
    value = _step(sql.SQL("to_jsonb({})").format(Name(column)), rest, parameters)
    return _of_json(value, where, parameters)


def json_column(table: Table) -> sql.Composable:
    """The metadata column as ``jsonb``."""
    name = str(table.layout.metadata)
    if table.columns[name] == "jsonb":
        return Name(name)
    return sql.SQL("{}::jsonb").format(Name(name))


def _step(value: sql.Composable, path: Sequence[str], parameters: Parameters) -> sql.Composable:
    keys = [parameters.bind(key, sql.SQL("text")) for key in path]
    return sql.SQL(" -> ").join([sql.SQL("({})").format(value), *keys])


def _contains(document: sql.Composable, where: In, parameters: Parameters) -> sql.Composable:
    """Containment, which a GIN index serves: of the scalar, or of a list that has it."""
    wanted: list[Json] = []
    for value in _spellings(where.values):
        for element in (value, [value]):
            nested: object = element
            for key in reversed(where.path):
                nested = {key: nested}
            wanted.append(_json(nested))
    array = parameters.bind([str(item, "utf-8") for item in wanted], sql.SQL("text[]"))
    return sql.SQL("({}) @> ANY({}::jsonb[])").format(document, array)


def _json(value: object) -> Json:
    return Json(orjson.dumps(value, default=_digits))


def _digits(value: object) -> orjson.Fragment:
    """All digits of a number, as metadata has it: an exponent would read as an integer."""
    return orjson.Fragment(format(value, "f"))


def _spellings(values: Sequence[Scalar]) -> list[object]:
    """Values with all forms of each float."""
    forms = [_forms(value) if isinstance(value, float) else [value] for value in values]
    return [form for several in forms for form in several]


def _forms(value: float) -> list[Decimal]:
    """A float as decimals: a large one exactly, as we write it, and shortened, as others do.

    To PostgreSQL, whose numbers are decimal, these are several numbers. Below 2**64 a shortened one
    is read as an integer, which equals no float but the exact one.
    """
    if abs(value) < EXACT_FLOAT:
        return [Decimal(repr(value))]
    if INT64_MIN <= value < 2**64:
        return [Decimal(value)]
    # 1e23 lies between two floats and PostgreSQL, which never shortens so far, has 16 digits of it.
    shortened = [form for form in (repr(value), f"{value:.15e}") if float(form) == value]
    return [Decimal(value), *map(Decimal, shortened)]


def _of_json(
    value: sql.Composable, where: In | Differs | Exists | Compares, parameters: Parameters
) -> sql.Composable:
    """A condition on a ``jsonb`` value, which is NULL where the field is missing."""
    if isinstance(where, Exists):
        return sql.SQL("NOT coalesce(({}) <@ '[null]', TRUE)").format(value)
    if isinstance(where, Differs):
        others = parameters.bind(_json([*_spellings([where.value]), None]))
        return sql.SQL("NOT (({}) <@ {})").format(value, others)
    if isinstance(where, In):
        array = parameters.bind(
            [
                str(_json(item), "utf-8")
                for value in _spellings(where.values)
                for item in (value, [value])
            ],
            sql.SQL("text[]"),
        )
        return sql.SQL("({}) @> ANY({}::jsonb[])").format(value, array)
    return _any_element(value, where, parameters)


def _any_element(value: sql.Composable, where: Compares, parameters: Parameters) -> sql.Composable:
    """A scalar is compared itself, a list element by element."""
    bound = _ordered(where, parameters)
    return sql.SQL(
        "CASE jsonb_typeof({value}) WHEN 'array' THEN EXISTS ("
        "SELECT FROM jsonb_array_elements({value}) AS item(value) WHERE {of_item}) "
        "ELSE {of_value} END"
    ).format(
        value=sql.SQL("({})").format(value),
        of_item=_holds(sql.SQL("item.value"), where, bound),
        of_value=_holds(sql.SQL("({})").format(value), where, bound),
    )


def _holds(value: sql.Composable, where: Compares, bound: sql.Composable) -> sql.Composable:
    order = _ORDERS[where.order]
    if not isinstance(where.value, datetime):
        return sql.SQL(
            "CASE WHEN jsonb_typeof({value}) = 'number' THEN ({value})::numeric {order} {bound} "
            "ELSE FALSE END"
        ).format(value=value, order=order, bound=bound)
    return sql.SQL(
        "CASE WHEN jsonb_typeof({value}) <> 'string' THEN FALSE "
        "WHEN {text} !~ {iso} THEN FALSE "
        "WHEN {text} ~ {zoned} THEN ({text})::timestamptz {order} {bound} "
        "ELSE ({text})::timestamp AT TIME ZONE 'UTC' {order} {bound} END"
    ).format(
        value=value,
        text=sql.SQL("({} #>> '{{}}')").format(value),
        iso=sql.Literal(_ISO),
        zoned=sql.Literal(_ZONED),
        order=order,
        bound=bound,
    )


def _ordered(where: Compares, parameters: Parameters) -> sql.Composable:
    """What is compared with: of two forms of a number the one that makes them one number."""
    if isinstance(where.value, datetime):
        return parameters.bind(where.value, sql.SQL("timestamptz"))
    forms = _forms(where.value) if isinstance(where.value, float) else [Decimal(where.value)]
    furthest = min if where.order in {">=", "<"} else max
    return parameters.bind(furthest(forms), sql.SQL("numeric"))


def _of_column(
    column: str, table: Table, where: In | Differs | Exists | Compares, parameters: Parameters
) -> sql.Composable | None:
    """A condition in the column's own type, so that its index is of use; None if there is none."""
    kind = table.kind(column)
    if isinstance(where, In):
        return _of_plain_column(Name(column), kind, where, parameters)
    if isinstance(where, Compares):
        return _of_ordered_column(Name(column), kind, where, parameters)
    return None


def _of_plain_column(
    column: sql.Composable, kind: str, where: In, parameters: Parameters
) -> sql.Composable | None:
    if kind in _TEXTS:
        texts = [value for value in where.values if isinstance(value, str)]
        return _is_any_of(column, kind, texts, parameters)
    if kind in _EXACT_NUMBERS:
        numbers = [
            Decimal(value) if isinstance(value, int) else value
            for value in _spellings(where.values)
            if not isinstance(value, bool | str)
        ]
        values = parameters.bind(numbers, sql.SQL("numeric[]"))
        return sql.SQL("{} = ANY({})").format(column, values)
    if kind == "boolean":
        booleans = [value for value in where.values if isinstance(value, bool)]
        return sql.SQL("{} = ANY({})").format(
            column, parameters.bind(booleans, sql.SQL("boolean[]"))
        )
    return None


def _of_ordered_column(
    column: sql.Composable, kind: str, where: Compares, parameters: Parameters
) -> sql.Composable | None:
    instants = isinstance(where.value, datetime)
    if (kind in _NUMBERS and instants) or kind == "boolean":
        return sql.SQL("FALSE")
    if kind in _EXACT_NUMBERS or (instants and kind == "timestamp with time zone"):
        bound = _ordered(where, parameters)
        return sql.SQL("{0} {1} {2}{3}").format(
            column, _ORDERS[where.order], bound, _BEYOND_JSON.get(kind, sql.SQL("")).format(column)
        )
    return None
