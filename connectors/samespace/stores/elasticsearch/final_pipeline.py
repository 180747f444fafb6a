"""The ingest pipeline that stops documents of other spaces on the server. Nothing here reaches it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from samespace.errors import command
from samespace.guard import SlotRecord, SpaceRecord
from samespace.stores.elasticsearch import dsl
from samespace.stores.elasticsearch.actions import SHORTEST_DYNAMIC
from samespace.stores.elasticsearch.conditions import Query, every, exists

SETTING: Final = "final_pipeline"
_NONE: Final = "_none"
_VECTORS: Final = "dense_vector"
_MEND: Final = (
    "write through samespace or its ingest hook, or call install_pipeline() if slots were added"
)

# Painless. A field in an object may be written with the objects or with dots in its name.
_NESTED: Final = """
def at(def map, String path) {
  if (map.containsKey(path)) { return map[path] }
  int dot = path.indexOf('.');
  if (dot < 0 || !(map[path.substring(0, dot)] instanceof Map)) { return null }
  return at(map[path.substring(0, dot)], path.substring(dot + 1))
}
boolean has(def map, String path) {
  if (map.containsKey(path)) { return true }
  int dot = path.indexOf('.');
  if (dot < 0 || !(map[path.substring(0, dot)] instanceof Map)) { return false }
  return has(map[path.substring(0, dot)], path.substring(dot + 1))
}
"""
_FITS: Final = """
int bytes(String text) {
  int pad = text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0;
  return text.length() / 4 * 3 - pad
}
boolean fits(def value, int dims) {
  if (value == null) { return true }
  if (value instanceof List) { return value.size() == dims }
  return value instanceof String && (bytes(value) == 4 * dims || bytes(value) == 2 * dims)
}
"""
_UNIT: Final = """
boolean unit(def value) {
  if (!(value instanceof List)) { return true }
  double sum = 0;
  for (def number : value) {
    if (!(number instanceof Number)) { return true }
    double each = number.doubleValue();
    sum += each * each;
  }
  return Math.abs(Math.sqrt(sum) - 1) < 1e-3
}
"""
_STRAY: Final = """
boolean isVector(def value, int least) {
  if (!(value instanceof List) || value.size() < least) { return false }
  for (def number : value) { if (!(number instanceof Number)) { return false } }
  return !(value[0] instanceof Integer || value[0] instanceof Long)
}
boolean stray(def map, String path, def known, int least) {
  for (def entry : map.entrySet()) {
    String name = path + entry.getKey();
    if (known.contains(name)) { continue }
    if (entry.getValue() instanceof Map) {
      if (stray(entry.getValue(), name + '.', known, least)) { return true }
    } else if (isVector(entry.getValue(), least)) { return true }
    if (entry.getValue() instanceof List) {
      for (def item : entry.getValue()) {
        if (item instanceof Map && stray(item, name + '.', known, least)) { return true }
      }
    }
  }
  return false
}
"""


def pipeline_name(index: str) -> str:
    """The name of an index's pipeline."""
    return f"samespace--{index}"


def pipeline_body(
    record: SpaceRecord, *, index: str, mapping: Mapping[str, Any], chained: str | None
) -> dict[str, Any]:
    """The pipeline of an index with this record: what comes before it, then the checks.

    A document passes with a vector of the right length in a slot, or if a slot is there and null,
    which says that it is to be filled later. Where the space is normalized and the engine does not
    look at norms, a list of numbers is to be of unit norm; one that comes as base64 is not read.
    ``chained`` was the index's final pipeline before.
    """
    before = [] if chained is None else [{"pipeline": {"name": chained}}]
    return {
        "description": "Stops documents without a vector of a space that this index holds",
        "_meta": {dsl.RECORD: {"chained": chained}},
        "processors": [*before, *_checks(record, index, mapping)],
    }


def _checks(
    record: SpaceRecord, index: str, mapping: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    names = [slot.name for slot in record.slots]
    yield from _slot_checks(record, index, mapping)
    mend = _mend(record)
    strays = [name for name, kind in _leaves(mapping) if kind == _VECTORS and name not in names]
    if strays:
        yield _fail(
            _on_fields(strays, "{}", _filled),
            f"a document for {index} has a vector in {', '.join(strays)}, which is no slot: {mend}",
        )
    if record.layout is not None:
        others = {name for name, kind in _leaves(mapping) if kind != _VECTORS}
        yield _dynamic_check({*names, *others}, index, mend)


def _slot_checks(
    record: SpaceRecord, index: str, mapping: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """What is asked of the slots themselves, however the other fields are mapped."""
    names = [slot.name for slot in record.slots]
    yield _fail(
        _on_fields(names, "!({})", _there),
        f"a document for {index} has no vector: {_mend(record)}; null in a slot says that it is to be "
        "filled later",
    )
    for slot in record.slots:
        yield _length_check(slot, index)
        if slot.space.normalized and _takes_any_norm(mapping, slot.name):
            yield _norm_check(slot, index)


def unfit(
    record: SpaceRecord, *, index: str, mapping: Mapping[str, Any]
) -> Iterator[tuple[Query, str, str]]:
    """Which stored documents the pipeline would refuse: a query, what they have, and what mends it."""
    yield (
        {"bool": {"must_not": [exists(slot.name) for slot in record.slots]}},
        "no vector in a slot",
        f"Fill them ({command('repair --pending', index)} --backend SPEC), or delete them",
    )
    for slot in record.slots:
        if slot.space.normalized and _takes_any_norm(mapping, slot.name):
            yield (
                every([exists(slot.name), _off_norm(slot.name)]),
                f"a vector in {slot.name} that is not of unit norm",
                f"Find them: {command('audit', index)} --all, which says how to repair them",
            )


def _off_norm(field: str) -> Query:
    source = "Math.abs(doc[params.field].magnitude - 1) >= 1e-3"
    return {"script": {"script": {"source": source, "params": {"field": field}}}}


def _mend(record: SpaceRecord) -> str:
    fields = ", ".join(f"{slot.name} ({slot.space})" for slot in record.slots)
    return f"the slots are {fields}; {_MEND}"


def _takes_any_norm(mapping: Mapping[str, Any], path: str) -> bool:
    """Whether the engine stores vectors there without a look at their norm."""
    found: Any = mapping
    for key in path.split("."):
        found = found.get("properties", {}).get(key, {})
    return bool(found) and found.get("similarity") != "dot_product"


def _norm_check(slot: SlotRecord, index: str) -> dict[str, Any]:
    nested = _NESTED if "." in slot.name else ""
    return _fail(
        f"{nested}{_UNIT}return !unit({_value(slot.name)})",
        f"a document for {index} has a vector in {slot.name} that is not of unit norm, and {slot.space} "
        "is normalized: divide it by its norm",
    )


def _length_check(slot: SlotRecord, index: str) -> dict[str, Any]:
    dimensions = slot.space.dimensions
    nested = _NESTED if "." in slot.name else ""
    return _fail(
        f"{nested}{_FITS}return !fits({_value(slot.name)}, {dimensions})",
        f"a document for {index} has something else in {slot.name} than a vector of {dimensions} "
        f"numbers, as {slot.space} has them",
    )


def _dynamic_check(known: set[str], index: str, mend: str) -> dict[str, Any]:
    """Refuse what Elasticsearch would map as vectors by itself; our own indexes map nothing."""
    listed = ", ".join(map(_quoted, sorted(known)))
    return _fail(
        f"{_STRAY}return stray(ctx, '', [{listed}], {SHORTEST_DYNAMIC})",
        f"a document for {index} has {SHORTEST_DYNAMIC} or more numbers in a field that is not mapped, "
        f"which would become a vector: {mend}",
    )


def _on_fields(names: Sequence[str], form: str, each: Callable[[str], str]) -> str:
    """A condition that is about some one of these fields."""
    condition = form.format(" || ".join(map(each, names)))
    return f"{_NESTED}return {condition}" if any("." in name for name in names) else condition


def _filled(name: str) -> str:
    return f"{_value(name)} != null"


def _there(name: str) -> str:
    quoted = _quoted(name)
    return f"has(ctx, {quoted})" if "." in name else f"ctx.containsKey({quoted})"


def _value(name: str) -> str:
    quoted = _quoted(name)
    return f"at(ctx, {quoted})" if "." in name else f"ctx[{quoted}]"


def _fail(condition: str, message: str) -> dict[str, Any]:
    return {"fail": {"if": condition.strip(), "message": message}}


def _quoted(text: str) -> str:
    """A string of Painless."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _leaves(mapping: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """All mapped fields that are no objects, with their types."""
    for name, each in mapping.get("properties", {}).items():
        if "properties" in each:
            yield from _leaves(each, f"{path}{name}.")
        else:
            yield f"{path}{name}", str(each.get("type", "object"))


def is_ours(body: Mapping[str, Any] | None) -> bool:
    """Whether a pipeline was made here."""
    return body is not None and dsl.RECORD in (body.get("_meta") or {})


def is_current(
    body: Mapping[str, Any] | None, record: SpaceRecord, *, index: str, mapping: Mapping[str, Any]
) -> bool:
    """Whether a pipeline is ours, asks of the slots what it should, and stops what it finds."""
    if body is None or not is_ours(body) or "on_failure" in body:
        return False
    chained = chained_in(body)
    before = [] if chained is None else [{"pipeline": {"name": chained}}]
    own = body["processors"][len(before) :]
    return (
        body["processors"][: len(before)] == before
        and all(map(_only_fails, own))
        and all(each in own for each in _slot_checks(record, index, mapping))
    )


def _only_fails(processor: Mapping[str, Any]) -> bool:
    """Whether a processor does nothing but refuse, so that none after it is left out."""
    return processor.keys() == {"fail"} and processor["fail"].keys() == {"if", "message"}


def chained_in(body: Mapping[str, Any]) -> str | None:
    """What the final pipeline was before ours, as ours says."""
    found = body["_meta"][dsl.RECORD]["chained"]
    return None if found is None else str(found)


def calls(name: str, target: str, pipelines: Mapping[str, Any]) -> bool:
    """Whether running one of these pipelines comes to run another, or is that."""
    seen: set[str] = set()
    left = [name]
    while left:
        each = left.pop()
        if each == target:
            return True
        if each not in seen:
            seen.add(each)
            left += _called(pipelines.get(each, {}))
    return False


def _called(body: Any) -> Iterator[str]:
    """The names of the pipelines that a part of one calls, conditions and failures included."""
    if isinstance(body, Mapping):
        called = body.get("pipeline")
        if isinstance(called, Mapping) and isinstance(called.get("name"), str):
            yield called["name"]
        body = list(body.values())
    if isinstance(body, list):
        for each in body:
            yield from _called(each)


def final_pipeline_in(settings: Mapping[str, Any]) -> str | None:
    """An index's final pipeline, as its settings say."""
    found = settings.get("index", {}).get(SETTING)
    return None if found in {None, _NONE} else str(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineChange:
    """What installing or removing the pipeline changes.

    ``before`` and ``after`` are the index's final pipeline, ``old`` and ``new`` the body of ours;
    None where there is none. ``applied`` is false of a dry run. As text it is a diff.
    """

    index: str
    name: str
    before: str | None
    after: str | None
    old: Mapping[str, Any] | None
    new: Mapping[str, Any] | None
    applied: bool

    @property
    def changes(self) -> bool:
        """Whether anything is, or would be, otherwise than before."""
        return self.before != self.after or self.old != self.new

    def __str__(self) -> str:
        return "\n".join(
            difflib.unified_diff(
                self._lines(self.before, self.old),
                self._lines(self.after, self.new),
                fromfile=f"{self.index} (before)",
                tofile=f"{self.index} (after)",
                lineterm="",
            )
        )

    def _lines(self, final: str | None, body: Mapping[str, Any] | None) -> list[str]:
        setting = f"index.{SETTING}: {final or _NONE}"
        if body is None:
            return [setting]
        shown = orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode()
        return [setting, f"_ingest/pipeline/{self.name}:", *shown.splitlines()]
