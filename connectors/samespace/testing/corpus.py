"""The documents, filters and hostile values that the contract is tried on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from functools import reduce
from operator import or_
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from samespace import filters
from samespace.documents import INT64_MAX, INT64_MIN, MAX_DEPTH, Document, Metadata, Parent
from samespace.embedding import make_canary
from samespace.filters import Filter, everything, field, matches
from samespace.protocols import Vector
from samespace.testing.backends import UNLIKE, V3, TaskBackend

_TOPICS: Final = (
    "a lighthouse on the northern coast",
    "how to bake bread with a sour starter",
    "the screen of the telephone is too dim",
    "repairing a bicycle with a broken chain",
    "old maps in the library",
    "a garden in the rain",
    "the orchestra tunes before the concert",
    "ice on the mountain road",
)


def texts(count: int) -> list[str]:
    """Distinct short texts that share words with one another."""
    return [f"{_TOPICS[n % len(_TOPICS)]}, part {n}" for n in range(count)]


def documents(count: int, *, prefix: str = "d") -> list[Document]:
    """Distinct documents ``d0``, ``d1``, … with ``lang`` and ``year``."""
    return [
        Document(f"{prefix}{n}", text, {"lang": ("en", "de")[n % 2], "year": 2000 + n})
        for n, text in enumerate(texts(count))
    ]


def nested(depth: int) -> Metadata:
    """Metadata of ``depth`` objects, one in the other."""
    value: Metadata = {"end": True}
    for _ in range(depth - 1):
        value = {"in": value}
    return value


METADATA: Final[Mapping[str, Metadata]] = MappingProxyType(
    {
        "nothing": {},
        "scalars": {"text": "x", "yes": True, "no": False, "none": None, "one": 1, "half": 0.5},
        "a bool is no number": {"true": True, "one": 1, "list": [True, 1, False, 0]},
        "int64": {"most": INT64_MAX, "least": INT64_MIN, "near": 2**53 + 1},
        "floats": {"huge": 1e300, "tiny": 5e-324, "third": 1 / 3, "whole": 3.0, "minus": -1e16},
        "floats of 17 digits": {
            "sum": 0.1 + 0.2,
            "in": {"list": [-0.9736640168902517, 0.18219916586263518, 5.441278356014001e275]},
            "below int64": 2.0**63 - 1024,
            "denormal": 7.417e-309,
        },
        "a float that looks whole": {"value": 1e17, "million": 1e6, "around": 123456789012345680.0},
        "empty values": {"text": "", "list": [], "object": {}, "nested": {"list": [[], {}]}},
        "lists of lists": {"nested": {"list": [1, [2, {"deep": "ü"}]]}},
        "lists": {"tags": ["a", "b", "a"], "mixed": [1, "1", None, 1.5, {"k": [None]}]},
        "nested objects": {"address": {"city": "Åre", "geo": {"lat": 63.4, "lon": -13.08}}},
        "deep": nested(MAX_DEPTH),
        "unicode": {"ключ": "значение", "🗝": "🚪", "e\u0301": "\u00e9", "\ufeff": "\uffff"},
        "odd keys": {"a.b": 1, "a": {"b": 2}, "$ne": 1, "a..": 0, "%s": 1, "'": 2},
        "control characters": {"tab\t": "\x01\x1f\x7f", "line\n": "a\r\nb\u2028c"},
        "names of ours": {"id": "x", "text": "y", "metadata": {"id": 1}, "_id": 2, "parent_id": 3},
        "a long key": {"k" * 256: 1},
        "a long value": {"value": "ö" * 40_000},
        "looks like JSON": {
            "json": '{"a": 1}',
            "null": "null",
            "number": "1e5",
            "date": "2020-01-01",
        },
    }
)
"""Metadata that must come back equal, type by type."""

HOSTILE: Final = (
    "'; DROP TABLE documents; --",
    '" OR 1=1 --',
    "%s %(id)s %% {} {0} $1 :name",
    "\\'\\\"\\x00\\u0000",
    "*",
    "_all",
    "../../etc/passwd",
    "a/b?c=d#e&f",
    "<script>alert(1)</script>",
    "{{7*7}} ${7*7} #{7*7}",
    '{"match_all": {}}',
    "NULL",
    "null",
    "NaN",
    "true",
    "0",
    "-1",
    "1e309",
    " leading and trailing ",
    "line\nbreak\r\n\ttab",
    "\x01\x02\x1b[31m\x7f",
    "\u202eright to left\u202c",
    "e\u0301 and \u00e9",
    "\ufeffmark \ufffe \uffff",
    "👩\u200d👩\u200d👧 \U0010ffff",
    "\ufb01 \u1e9e \u0130 \u0131",
)
"""Strings that must come back exactly, wherever they are put."""

LONGEST_ID: Final = "ü" * 256
"""An id of 512 bytes."""

BAD_DOCUMENTS: Final[Mapping[str, Document]] = MappingProxyType(
    {
        "empty text": Document("bad", ""),
        "blank text": Document("bad", " \t\n\u2003"),
        "text with NUL": Document("bad", "a\x00b"),
        "text with a lone surrogate": Document("bad", "a\ud800b"),
        "text that is no string": Document("bad", 7),  # type: ignore[arg-type]
        "text that is bytes": Document("bad", b"text"),  # type: ignore[arg-type]
        "no text": Document("bad", None),  # type: ignore[arg-type]
        "blank embed_text": Document("bad", "text", embed_text="  "),
        "embed_text with NUL": Document("bad", "text", embed_text="\x00"),
        "metadata that is a list": Document("bad", "text", []),  # type: ignore[arg-type]
        "no metadata": Document("bad", "text", None),  # type: ignore[arg-type]
        "NaN": Document("bad", "text", {"n": float("nan")}),
        "infinity in a list": Document("bad", "text", {"n": [float("-inf")]}),
        "an integer beyond int64": Document("bad", "text", {"n": INT64_MAX + 1}),
        "an integer below int64": Document("bad", "text", {"n": [{"m": INT64_MIN - 1}]}),
        "a set": Document("bad", "text", {"n": {1}}),
        "a tuple": Document("bad", "text", {"n": (1, 2)}),
        "bytes": Document("bad", "text", {"n": b"x"}),
        "a datetime": Document("bad", "text", {"n": datetime(2020, 1, 1, tzinfo=UTC)}),
        "an object of no JSON type": Document("bad", "text", {"n": object()}),
        "a key that is no string": Document("bad", "text", {1: "x"}),  # type: ignore[dict-item]
        "an empty key": Document("bad", "text", {"": 1}),
        "a key with NUL": Document("bad", "text", {"a": {"\x00": 1}}),
        "a key with a lone surrogate": Document("bad", "text", {"\udfff": 1}),
        "a key of 257 bytes": Document("bad", "text", {"k" * 257: 1}),
        "a value with NUL": Document("bad", "text", {"a": ["\x00"]}),
        "a value with a lone surrogate": Document("bad", "text", {"a": "\udc00"}),
        "metadata too deep": Document("bad", "text", nested(MAX_DEPTH + 1)),
        "a parent with an empty id": Document("bad", "text", parent=Parent("")),
        "a parent's id with NUL": Document("bad", "text", parent=Parent("\x00")),
        "a parent that is a string": Document("bad", "text", parent="p"),  # type: ignore[arg-type]
        "a negative ordinal": Document("bad", "text", parent=Parent("p", ordinal=-1)),
        "a span backwards": Document("bad", "text", parent=Parent("p", span=(5, 2))),
        "a span of one": Document("bad", "text", parent=Parent("p", span=(5,))),  # type: ignore[arg-type]
    }
)
"""Documents with the id ``bad`` that must be rejected, and nothing else with them."""

BAD_IDS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "empty": "",
        "with NUL": "a\x00",
        "with a lone surrogate": "\ud83d",
        "of 513 bytes": LONGEST_ID + "x",
        "a number": 7,
        "None": None,
    }
)
"""Ids that no document may have."""

BAD_COLLECTION_NAMES: Final = (
    "",
    "Upper",
    "1st",
    "_private",
    "with space",
    "with-dash",
    "per%cent",
    "../up",
    "a/b",
    "a;b",
    'quo"te',
    "nul\x00",
    "ünder",
    "*",
    "a" * 49,
)
"""Names that no collection of ours may have."""

BAD_VECTORS: Final[Mapping[str, Callable[[Vector], Any]]] = MappingProxyType(
    {
        "one dimension too few": lambda good: good[:-1],
        "one dimension too many": lambda good: np.append(good, np.float32(0)),
        "NaN": lambda good: np.where(np.arange(len(good)) == 3, np.nan, good),
        "infinity": lambda good: np.where(np.arange(len(good)) == 3, -np.inf, good),
        "not finite in float32": lambda good: np.where(
            np.arange(len(good)) == 3, 1e39, good.astype(float)
        ),
        "zero": lambda good: good * 0,
        "not of unit norm": lambda good: good * 1.01,
        "words": lambda good: ["x"] * len(good),
        "truth values": lambda good: good > 0,
        "a matrix": lambda good: [good],
        "nothing in it": lambda _: [],
    }
)
"""What each makes of a good vector is none of its space, as a document's or as a query's."""

_ZONE: Final = timezone(timedelta(hours=2))

_FIELDS: Final[tuple[Metadata, ...]] = (
    {},
    {"lang": "en"},
    {"lang": "de"},
    {"lang": "DE"},
    {"lang": ""},
    {"lang": None},
    {"lang": []},
    {"lang": [None]},
    {"lang": ["en", "de"]},
    {"lang": ["en", None]},
    {"lang": ["fr"]},
    {"lang": 7},
    {"lang": True},
    {"lang": {"code": "en"}},
    {"lang": [["de"]]},
    {"year": 2020},
    {"year": 2020.0},
    {"year": 2020.5},
    {"year": "2020"},
    {"year": [2019, 2021]},
    {"year": [1990, None, "x"]},
    {"year": INT64_MAX},
    {"year": 2**62},
    {"year": -1},
    {"year": -1e300},
    {"year": 0},
    {"year": False},
    {"year": True},
    {"year": 1},
    {"lang": "en", "year": 2020, "flag": True},
    {"lang": "de", "year": 2021, "flag": False},
    {"flag": [True, False]},
    {"flag": "true"},
    {"flag": None},
    {"a.b": 1},
    {"a": {"b": 1}},
    {"a": {"b": None, "c": []}},
    {"a": {"b": [1, 2]}},
    {"a": [{"b": 1}]},
    {"a": {"b": ["Bern", 3]}},
    {"a": {}},
    {"a": "b"},
    {"day": "2020-01-01"},
    {"day": "2020-01-01T00:00:00Z"},
    {"day": "2020-01-01T01:30:00+02:00"},
    {"day": "2019-12-31T23:59:59.999999"},
    {"day": ["2018-05-05", "2022-05-05 12:00"]},
    {"day": "2021-02-29"},
    {"day": "2024-02-29"},
    {"day": "2024-01-01T12:00:00.5+02:00"},
    {"day": "9999-12-31"},
    {"day": "yesterday"},
    {"day": 2020},
    {"name": "O'Neil %s"},
    {"name": '"quoted" \\ back'},
    {"name": "日本語"},
    {"name": "ü%_"},
)

FILTER_DOCUMENTS: Final = tuple(
    Document(
        f"f{n:02}",
        f"{text} in corpus",
        metadata,
        parent=Parent(f"p{n % 3}", n) if n % 4 == 0 else None,
    )
    for n, (text, metadata) in enumerate(zip(texts(len(_FIELDS)), _FIELDS, strict=True))
)
"""What filters are tried on: every kind of value at a few fields, and chunks of three parents."""


def _deepest() -> Filter:
    """Nested as far as filters go, nothing of it to be flattened."""
    where = field("lang") == "en"
    while where.depth < filters.MAX_DEPTH - 2:
        where = ~((field("year") == 2000 + where.depth) | where)
    return where


FILTERS: Final[Mapping[str, Filter]] = MappingProxyType(
    {
        "equal text": field("lang") == "en",
        "equal text is case-sensitive": field("lang") == "DE",
        "equal empty text": field("lang") == "",
        "equal number": field("year") == 2020,
        "equal float": field("year") == 2020.0,
        "equal fraction": field("year") == 2020.5,
        "equal largest integer": field("year") == INT64_MAX,
        "equal large integer": field("year") == 2**62,
        "equal huge float": field("year") == -1e300,
        "one is not true": field("year") == 1,
        "true is not one": field("year") == True,  # noqa: E712  the value, not its truth
        "zero is not false": field("year") == 0,
        "false is not zero": field("year") == False,  # noqa: E712  the value, not its truth
        "text is not a number": field("year") == "2020",
        "text is not a bool": field("flag") == "true",
        "equal bool": field("flag") == True,  # noqa: E712  the value, not its truth
        "equal None": field("lang") == None,  # noqa: E711  a filter, not an identity
        "unequal None": field("lang") != None,  # noqa: E711  a filter, not an identity
        "unequal text": field("lang") != "en",
        "unequal number": field("year") != 2020,
        "unequal bool": field("flag") != True,  # noqa: E712  the value, not its truth
        "unequal huge float": field("year") != -1e300,
        "not equal": ~(field("lang") == "en"),
        "not unequal": ~(field("lang") != "en"),
        "exists": field("lang").exists(),
        "not exists": ~field("lang").exists(),
        "exists nested": field("a", "b").exists(),
        "exists object": field("a").exists(),
        "exists nowhere": field("nowhere").exists(),
        "contains": field("lang").contains("de"),
        "contains number": field("year").contains(2021),
        "in texts": field("lang").in_(["de", "fr"]),
        "in mixed": field("lang").in_(["fr", 7, True]),
        "in nothing": field("lang").in_([]),
        "not in nothing": ~field("lang").in_([]),
        "in nothing as an alternative to what is excluded": ~field("lang").exists()
        & (field("lang").exists() | field.parent.in_([])),
        "in with None": field("lang").in_(["de", None]),
        "in None alone": field("flag").in_([None]),
        "less": field("year") < 2020,
        "at most": field("year") <= 2020,
        "greater": field("year") > 2020,
        "at least": field("year") >= 2020,
        "less than a float": field("year") < 2020.25,
        "greater than nearly everything": field("year") > INT64_MAX - 1,
        "not less": ~(field("year") < 2020),
        "between": (field("year") >= 2019) & (field("year") <= 2020),
        "below zero": field("year") < 0,
        "before an instant": field("day") < datetime(2020, 1, 1, tzinfo=UTC),
        "at an instant or before": field("day") <= "2020-01-01T00:00:00Z",
        "after an instant": field("day") > datetime(2020, 1, 1, tzinfo=UTC),
        "at an instant or after": field("day") >= "2020-01-01",
        "after a naive instant": field("day") > datetime(2019, 12, 31, 23, 0),  # noqa: DTZ001  naive is UTC
        "in another zone": field("day") >= datetime(2020, 1, 1, 1, 30, tzinfo=_ZONE),
        "on a leap day or after": field("day") >= "2024-02-29",
        "at half a second or before": field("day") <= "2024-01-01T10:00:00.5Z",
        "after a day": field("day") >= date(2021, 1, 1),
        "instants do not match numbers": field("year") > datetime(1, 1, 1, tzinfo=UTC),
        "numbers do not match instants": field("day") > 0,
        "a key with a dot": field("a.b") == 1,
        "a nested key": field("a", "b") == 1,
        "a nested key that is null": field("a", "b") == None,  # noqa: E711  a filter
        "a nested key of a list": field("a", "b") == 2,
        "a nested key unequal": field("a", "b") != 1,
        "a nested key that is greater": field("a", "b") > 2,
        "a path through text": field("a", "b", "c").exists(),
        "an unknown key": field("nowhere") == "x",
        "an unknown key is None": field("nowhere") == None,  # noqa: E711  a filter
        "quotes and percent signs": field("name") == "O'Neil %s",
        "backslashes": field("name") == '"quoted" \\ back',
        "unicode": field("name") == "日本語",
        "signs of a pattern": field("name") == "ü%_",
        "a hostile key": field("x'; DROP TABLE t; --").exists(),
        "a hostile path": field("%s", '"', "{}") == "%(x)s",
        "id": field.id == "f03",
        "id among": field.id.in_(["f01", "f02", "missing"]),
        "not id": field.id != "f03",
        "id exists": field.id.exists(),
        "parent": field.parent == "p1",
        "parent among": field.parent.in_(["p0", "p2"]),
        "not parent": field.parent != "p1",
        "not that parent": ~(field.parent == "p1"),
        "no parent": field.parent == None,  # noqa: E711  a filter
        "some parent": field.parent.exists(),
        "and": (field("lang") == "en") & (field("year") == 2020),
        "or": (field("lang") == "fr") | (field("year") > 2020),
        "not or": ~((field("lang") == "en") | field("year").exists()),
        "or of nots": ~field("lang").exists() | ~(field("flag") == True),  # noqa: E712  a filter
        "not not": ~~(field("lang") == "en"),
        "what contradicts itself": field("lang").exists() & ~field("lang").exists(),
        "all alternatives but one": ((field("lang") == "en") | (field("lang") == "de"))
        & ~(field("lang") == "en"),
        "id and metadata": (field.id != "f29") & (field("flag") == True),  # noqa: E712  a filter
        "everything": everything,
        "nothing": ~everything,
        "everything and": everything & (field("lang") == "de"),
        "a long chain": reduce(or_, [field("year") == 2020 + n for n in range(1000)]),
        "as deep as can be": _deepest(),
    }
)
"""Every operator, on every kind of value that it may meet."""


def matching(where: Filter) -> set[str]:
    """The ids of :data:`FILTER_DOCUMENTS` that pass, by the reference in Python."""
    return {
        document.id
        for document in FILTER_DOCUMENTS
        if matches(
            where,
            id=document.id,
            metadata=document.metadata,
            parent=document.parent.id if document.parent else None,
        )
    }


Call = dict[str, Any]
"""The arguments of one call, by name."""

_UNSTORABLE: Final = ("a\x00b", "x\udfff")
_NO_LIMITS: Final = (0, -1, 10_001, 2.5, True, "10", None)
_NO_FILTERS: Final = ({"lang": "en"}, "lang = 'en'", 0, ["x"], field("lang"))
_NO_SHARDS: Final = ((1, 1), (-1, 2), (0, 0), (0,), (0, 1, 2), "01", 3, (0.5, 2), (False, True))
_NO_SPACES: Final = ("jina-embeddings-v3@64", {"model": "jina-embeddings-v3"}, 7)
_NO_SCORES: Final = ("0.5", float("nan"), float("inf"), True, [0.5])
_NO_QUERIES: Final = ("", " \n", *_UNSTORABLE, b"text", 7, None)
_NO_LISTS: Final = ("ab", 7, None)
_NO_CHANGES: Final = (
    *_NO_LISTS,
    ["a"],
    {"a": 1},
    {"a": None},
    {"a": [("k", 1)]},
    {"a": {"k": float("inf")}},
    {"a": {1: "x"}},
    {1: {"k": 2}},
    *({text: {"k": 1}} for text in _UNSTORABLE),
)


def _searches() -> Iterator[tuple[str, Call]]:
    ready = TaskBackend().embed_query("text")
    good: dict[str, Call] = {
        "search": {"query": "text"},
        "search_many": {"queries": ["text"]},
        "search_vector": {"vector": ready, "space": V3},
    }
    for method, call in good.items():
        yield from ((method, {**call, "limit": limit}) for limit in _NO_LIMITS)
        yield from ((method, {**call, "where": where}) for where in _NO_FILTERS)
        yield from ((method, {**call, "min_score": score}) for score in _NO_SCORES)
    yield from (("search", {"query": query}) for query in _NO_QUERIES)
    yield from (("search_many", {"queries": ["text", query]}) for query in _NO_QUERIES)
    yield from (("search_many", {"queries": queries}) for queries in _NO_LISTS)
    yield from (("search_vector", {"vector": ready, "space": space}) for space in _NO_SPACES)
    for spoil in BAD_VECTORS.values():
        yield "search_vector", {"vector": spoil(ready), "space": V3}


def _reads() -> Iterator[tuple[str, Call]]:
    yield from (("get", {"ids": ids}) for ids in (*_NO_LISTS, ["a", 7], [None]))
    yield from (("get", {"ids": ["a", text]}) for text in _UNSTORABLE)
    yield from (("count", {"where": where}) for where in _NO_FILTERS)
    yield from (("scan", {"where": where}) for where in _NO_FILTERS)
    yield from (("scan", {"batch_size": size}) for size in _NO_LIMITS)
    yield from (("values", {"field": name}) for name in ("", 7, None, *_UNSTORABLE))
    yield from (("values", {"field": "k", "limit": limit}) for limit in _NO_LIMITS)
    yield from (("values", {"field": "k", "where": where}) for where in _NO_FILTERS)
    yield from (("values", {"field": "k", "after": value}) for value in (*_UNSTORABLE, {1}))


def _writes() -> Iterator[tuple[str, Call]]:
    made = TaskBackend().embed_documents(["text"])
    one = [Document("a", "text")]
    yield from (("upsert", {"documents": documents}) for documents in (*_NO_LISTS, one[0]))
    yield "upsert", {"documents": one, "on_conflict": "ignore"}
    yield "upsert", {"documents": one, "on_error": "ignore"}
    ready = {"documents": one, "vectors": made, "space": V3}
    yield from (("upsert_vectors", {**ready, "space": space}) for space in _NO_SPACES)
    yield from (("upsert_vectors", {**ready, "documents": few}) for few in (None, one[0]))
    for vectors in (*_NO_LISTS, made[0], made[0, 0], made[np.newaxis]):
        yield "upsert_vectors", {**ready, "vectors": vectors}
    yield from (("update_metadata", {"changes": changes}) for changes in _NO_CHANGES)
    yield from (("update_metadata", {"changes": {}, "where": where}) for where in _NO_FILTERS)
    yield "update_metadata", {"changes": ["k"], "where": everything}
    yield "delete", {}
    yield from (("delete", {"ids": ids}) for ids in ("ab", 7, ["a", 7]))
    yield from (("delete", {"where": where}) for where in _NO_FILTERS)
    yield from (("delete", {"parent": parent}) for parent in (7, ["p"], *_UNSTORABLE))
    yield from (("delete", {"ids": ["a", text]}) for text in _UNSTORABLE)


def _slots() -> Iterator[tuple[str, Call]]:
    page: Call = {"space": V3, "limit": 1}
    for space in _NO_SPACES:
        yield from (
            (method, {"space": space}) for method in ("add_slot", "drop_slot", "build_index")
        )
        yield "mark", {"space": space, "state": "ready"}
        yield "fill", {"space": space, "rows": [], "vectors": np.ones((0, 64), np.float32)}
        yield from ((method, {**page, "space": space}) for method in ("pending", "stale"))
        yield "pending", {**page, "with_vectors_of": space}
    yield from (("mark", {"space": V3, "state": state}) for state in ("open", "", None, 1))
    for method, cursor in (("pending", "after"), ("stale", "since")):
        yield from ((method, {**page, "limit": limit}) for limit in _NO_LIMITS)
        yield from ((method, {**page, cursor: text}) for text in (7, *_UNSTORABLE))
    yield from (("pending", {**page, "where": where}) for where in _NO_FILTERS)
    yield from (("pending", {**page, "shard": shard}) for shard in _NO_SHARDS)
    vectors = TaskBackend().embed_documents(["text"])
    yield from (("fill", {"space": V3, "rows": [], "vectors": v}) for v in (None, 7, vectors))
    yield from (
        ("fill", {"space": V3, "rows": rows, "vectors": vectors}) for rows in ("a", ["a"], 7)
    )
    canary = make_canary(TaskBackend(replace(V3, dimensions=32)))
    yield "add_slot", {"space": UNLIKE, "canary": canary}


def bad_calls() -> dict[str, list[Call]]:
    """Calls that every store refuses before it sends anything, by method."""
    found: dict[str, list[Call]] = {}
    for method, call in (*_searches(), *_reads(), *_writes(), *_slots()):
        found.setdefault(method, []).append(call)
    return found
