"""Filters as queries: flat, so that no server finds them too deep, and without any text of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from samespace.filters import And, Everything, Filter, Not, Or

Query = dict[str, Any]
Leaf = Callable[[Any], Query]
"""What one comparison is as a query."""

EVERYTHING: Final[Query] = {"match_all": {}}
NOTHING: Final[Query] = {"match_none": {}}
MOST_TERMS: Final = 65_536
"""Values that one ``terms`` query may have."""


def condition(where: Filter | None, leaf: Leaf) -> Query:
    """A filter as one query; None is everything."""
    return EVERYTHING if where is None else _compiled(where, leaf, negated=False)


def _compiled(where: Filter, leaf: Leaf, *, negated: bool) -> Query:
    """A filter, or its negation: that is carried down to the comparisons, so that nesting halves."""
    if isinstance(where, Not):
        return _compiled(where.part, leaf, negated=not negated)
    if isinstance(where, And | Or):
        parts = [_compiled(part, leaf, negated=negated) for part in where.parts]
        return every(parts) if isinstance(where, And) != negated else either(parts)
    found = EVERYTHING if isinstance(where, Everything) else leaf(where)
    return neither(found) if negated else found


def terms(field: str, values: Iterable[str]) -> Query:
    """True where a keyword field has one of these values."""
    listed = list(dict.fromkeys(values))
    if not listed:
        return NOTHING
    parts = [listed[start : start + MOST_TERMS] for start in range(0, len(listed), MOST_TERMS)]
    queries: list[Query] = [{"terms": {field: part}} for part in parts]
    return queries[0] if len(queries) == 1 else {"bool": {"should": queries}}


def exists(field: str) -> Query:
    """True where a field has a value."""
    return {"exists": {"field": field}}


def neither(*queries: Query) -> Query:
    """True where none of the queries is."""
    if EVERYTHING in queries:
        return NOTHING
    left = [query for query in queries if query != NOTHING]
    if len(left) == 1 and _clauses(left[0]).keys() == {"must_not"}:
        excluded: Sequence[Query] = left[0]["bool"]["must_not"]
        return either(excluded)
    return {"bool": {"must_not": left}} if left else EVERYTHING


def every(queries: Sequence[Query]) -> Query:
    """True where all queries are: one level, with the deepest alternative in it, where that can be."""
    if NOTHING in queries:
        return NOTHING
    clauses: dict[str, list[Query]] = {"filter": [], "must_not": [], "should": []}
    for query in sorted(queries, key=_depth, reverse=True):
        inner = _clauses(query)
        if not inner or (inner.get("should") and clauses["should"]):
            clauses["filter"] += [query] if query != EVERYTHING else []
        else:
            for name, parts in inner.items():
                clauses[name] += parts
    return _bool(clauses)


def either(queries: Sequence[Query]) -> Query:
    """True where any query is; values of one field are looked for together."""
    if EVERYTHING in queries:
        return EVERYTHING
    values: dict[str, list[str]] = {}
    others = []
    for query in _alternatives(queries):
        if "terms" in query:
            ((field, found),) = query["terms"].items()
            values.setdefault(field, []).extend(found)
        elif query != NOTHING:
            others.append(query)
    parts = [*(terms(field, found) for field, found in values.items()), *others]
    if not parts:
        return NOTHING
    return parts[0] if len(parts) == 1 else {"bool": {"should": list(_alternatives(parts))}}


def _alternatives(queries: Iterable[Query]) -> Iterator[Query]:
    for query in queries:
        inner = _clauses(query)
        yield from inner["should"] if inner.keys() == {"should"} else (query,)


def _bool(clauses: dict[str, list[Query]]) -> Query:
    kept = {name: parts for name, parts in clauses.items() if parts}
    if not kept:
        return EVERYTHING
    if kept.keys() == {"filter"} and len(kept["filter"]) == 1:
        return kept["filter"][0]
    minimum = {"minimum_should_match": 1} if "should" in kept and len(kept) > 1 else {}
    return {"bool": {**kept, **minimum}}


def _clauses(query: Query) -> dict[str, list[Query]]:
    """The lists of a query of clauses; empty for any other."""
    inner: Query = query.get("bool", {})
    return {name: parts for name, parts in inner.items() if name != "minimum_should_match"}


def _depth(query: Query) -> int:
    inner = [part for parts in _clauses(query).values() for part in parts]
    return 1 + max(map(_depth, inner), default=0)
