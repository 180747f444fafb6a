"""The pipeline's body is made of the record, and names are only names in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from samespace.guard import SlotRecord, SpaceRecord
from samespace.stores.elasticsearch.final_pipeline import (
    PipelineChange,
    chained_in,
    final_pipeline_in,
    is_ours,
    pipeline_body,
)
from samespace.testing.backends import UNLIKE, V3

RECORD = SpaceRecord(slots=(SlotRecord(name=V3.id, space=V3),))
VECTORS = {"type": "dense_vector", "similarity": "dot_product"}
MAPPING = {"properties": {V3.id: VECTORS, "text": {"type": "text"}}}


def conditions(record: SpaceRecord, mapping: dict[str, Any] = MAPPING) -> list[str]:
    body = pipeline_body(record, index="manuals", mapping=mapping, chained=None)
    return [processor["fail"]["if"] for processor in body["processors"]]


def test_a_pipeline_asks_for_one_of_the_slots_and_for_the_length_of_each() -> None:
    both = RECORD.with_slot(SlotRecord(name=UNLIKE.id, space=UNLIKE))
    first, *lengths = conditions(both)
    assert first == f"!(ctx.containsKey('{V3.id}') || ctx.containsKey('{UNLIKE.id}'))"
    assert [text.rsplit("return ", 1)[1] for text in lengths] == [
        f"!fits(ctx['{V3.id}'], 64)",
        f"!fits(ctx['{UNLIKE.id}'], 64)",
    ]


def test_the_norm_is_asked_for_where_the_engine_does_not_look_at_it() -> None:
    cosine = {"properties": {V3.id: {**VECTORS, "similarity": "cosine"}}}
    assert not any("!unit(" in condition for condition in conditions(RECORD))
    assert conditions(RECORD, cosine)[-1].endswith(f"return !unit(ctx['{V3.id}'])")
    raw = replace(V3, normalized=False)
    of_any_norm = SpaceRecord(slots=(SlotRecord(name=V3.id, space=raw),))
    assert not any("!unit(" in condition for condition in conditions(of_any_norm, cosine))


def test_a_mapped_vector_that_is_no_slot_is_refused() -> None:
    properties = {**MAPPING["properties"], "old": VECTORS, "in": {"properties": {"side": VECTORS}}}
    *_, last = conditions(RECORD, {"properties": properties})
    assert last.endswith("return ctx['old'] != null || at(ctx, 'in.side') != null")


def test_only_an_adopted_index_is_looked_through_for_what_would_be_mapped() -> None:
    adopted = replace(RECORD, layout={"id": "_id"})
    assert not any("stray(" in condition for condition in conditions(RECORD))
    assert conditions(adopted)[-1].endswith(f"stray(ctx, '', ['{V3.id}', 'text'], 128)")


def test_a_slots_name_cannot_end_its_string() -> None:
    odd = SpaceRecord(slots=(SlotRecord(name="it's \\", space=V3),))
    assert conditions(odd)[0] == "!(ctx.containsKey('it\\'s \\\\'))"


def test_the_pipeline_before_is_called_first_and_remembered() -> None:
    body = pipeline_body(RECORD, index="manuals", mapping=MAPPING, chained="theirs")
    assert body["processors"][0] == {"pipeline": {"name": "theirs"}}
    assert is_ours(body)
    assert chained_in(body) == "theirs"
    for foreign in (None, {}, {"_meta": None}, {"_meta": {"owner": "them"}}):
        assert not is_ours(foreign)


def test_an_index_without_a_final_pipeline_has_none() -> None:
    assert final_pipeline_in({"index": {}}) is None
    assert final_pipeline_in({"index": {"final_pipeline": "_none"}}) is None
    assert final_pipeline_in({"index": {"final_pipeline": "theirs"}}) == "theirs"


def test_a_change_is_shown_as_a_diff_and_nothing_as_nothing() -> None:
    body = pipeline_body(RECORD, index="manuals", mapping=MAPPING, chained=None)
    change = PipelineChange(
        index="manuals", name="samespace--manuals", before="theirs", after="samespace--manuals",
        old=None, new=body, applied=False,
    )  # fmt: skip
    shown = str(change).splitlines()
    assert "-index.final_pipeline: theirs" in shown
    assert "+index.final_pipeline: samespace--manuals" in shown
    same = replace(change, before=change.after, old=body)
    assert (same.changes, str(same)) == (False, "")
