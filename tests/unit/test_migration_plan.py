"""A plan as a value: hashed, read back, held to; what it takes, and what it warns of."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from samespace.documents import CollectionInfo, SlotInfo
from samespace.errors import InvalidInput, MigrationError
from samespace.forecast import SlotForecast
from samespace.index import Index
from samespace.layout import Layout
from samespace.migrate import MigrationPlan, PlannedCollection, PlannedSlot, check_holds
from samespace.migrate.advice import Use, advice
from samespace.migrate.estimating import Figure, Rates, Sample, estimate, tokens_by_size, total
from samespace.space import EmbeddingSpace
from samespace.stores.elasticsearch import forecast as elasticsearch
from samespace.stores.pgvector import forecast as pgvector
from samespace.stores.qdrant import forecast as qdrant

V2 = EmbeddingSpace(model="jina-embeddings-v2-base-en", dimensions=768)
V3 = EmbeddingSpace(model="jina-embeddings-v3", dimensions=1024, task="retrieval.passage")
FORECAST = SlotForecast(
    store="pgvector",
    disk_per_row=100,
    memory_per_row=10,
    sizes_from="a test",
    fills_per_second=100,
    rate_from="a test",
    builds_per_second=1000,
)
RATES = Rates(price=0.02, tokens_per_minute=60_000, share=0.5)


def taken(texts: int = 1000, tokens: tuple[int, ...] = (10, 20, 30), **changed: Any) -> Any:
    asked = {"rates": RATES, "forecast": FORECAST, "calls": True, **changed}
    return estimate(texts=texts, sample=Sample(tokens=tokens, counter="counted here"), **asked)


COLLECTION = PlannedCollection(
    name="manuals",
    store="pgvector",
    path="embed",
    reason="Vectors of another model cannot be compared.",
    source=PlannedSlot(name="embedding", space=V2),
    target=PlannedSlot(name=V3.id, space=V3),
    target_state="absent",
    layout=Layout(id="id", text="body", slot="embedding").to_dict(),
    where={"tenant": ["ä"]},
    rows=1000,
    pending=0,
    stale=None,
    estimate=taken(),
)
PLAN = MigrationPlan(
    version="0.1.0",
    use="search",
    target={"backend": "jina-api"},
    collections=(COLLECTION,),
    estimate=COLLECTION.estimate,
    warnings=tuple(advice(V2, V3, use="search", provenance={})),
)


def test_a_plan_survives_json() -> None:
    read = MigrationPlan.from_dict(json.loads(json.dumps(PLAN.to_dict())))
    assert (read, read.hash) == (PLAN, PLAN.hash)
    assert any("jina-embeddings-v2-base-en@768" in line for line in read.lines())


def edited(*path: str | int, to: object = None) -> dict[str, Any]:
    """The plan's JSON with one value replaced, or removed where that is None."""
    values: Any = json.loads(json.dumps(PLAN.to_dict()))
    place = values
    for step in path[:-1]:
        place = place[step]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return dict(values)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ([], "plan's it is"),
        (edited("format", to=2), "format 2"),
        (edited("use", to="sell"), "use is 'sell', not one of search"),
        (edited("collections", 0, "rows", to=-1), r"collections\[0\]\.rows"),
        (edited("collections", 0, "path"), r"lacks collections\[0\]\.path"),
        (edited("collections", 0, "source", "space", "task"), r"source\.space"),
        (edited("estimate", "tokens", "basis", to="guess"), r"estimate\.tokens"),
        (edited("estimate", "cost", "value", to=float("nan")), r"estimate\.cost"),
        (edited("target", "backend", to=1), r"target\.backend"),
        (edited("warnings", 0, to="x"), r"warnings\[0\]"),
        (edited("hash", to="0" * 64), "was edited"),
        (edited("collections", 0, "rows", to=999), "was edited"),
        (edited("collections", 0, "more", to=1), "was edited"),
    ],
)
def test_what_is_no_plan_is_refused_by_its_field(values: object, named: str) -> None:
    with pytest.raises(InvalidInput, match=named) as refusal:
        MigrationPlan.from_dict(values)
    assert "plan again" in str(refusal.value)


def collection(**changed: Any) -> CollectionInfo:
    slot = SlotInfo(
        name="embedding", space=V2, state="ready", pending=0, has_canary=False, provenance={}
    )
    known: dict[str, Any] = {
        "name": "manuals",
        "space": V2,
        "slots": (slot,),
        "rows": 1000,
        "index": Index(),
        "index_built": False,
        "provenance": {},
        "layout": Layout(id="id", text="body", slot="embedding"),
    }
    return CollectionInfo(**{**known, **changed})


def slot_of(space: EmbeddingSpace, **changed: Any) -> SlotInfo:
    return replace(collection().slots[0], space=space, **changed)


def test_a_plan_holds_for_what_was_planned_and_for_its_own_beginning() -> None:
    check_holds(COLLECTION, collection())
    begun = slot_of(V3, name=V3.id, state="filling", pending=10)
    check_holds(COLLECTION, collection(slots=(*collection().slots, begun)))


def test_a_plan_holds_for_its_slot_once_that_is_open_where_it_may_be() -> None:
    source = collection().slots[0]
    ready = slot_of(V3, name=V3.id)
    for planned in (COLLECTION, replace(COLLECTION, target_state="filling")):
        check_holds(planned, collection(slots=(source, ready)), opened=True)
    with pytest.raises(MigrationError, match="ready +absent"):
        check_holds(replace(COLLECTION, target_state="ready"), collection(), opened=True)
    with pytest.raises(MigrationError, match="none"):
        check_holds(COLLECTION, collection(slots=(ready,)), opened=True)


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (collection(slots=(slot_of(V3, name=V3.id),)), "none"),
        (collection(slots=(slot_of(V2, name="other"),)), "'other'"),
        (collection(layout=None), "ours"),
        (collection(slots=(*collection().slots, slot_of(V3, name=V3.id))), "absent +ready"),
    ],
)
def test_another_collection_than_planned_is_refused_with_a_diff(
    info: CollectionInfo, said: str
) -> None:
    with pytest.raises(MigrationError, match=said) as refusal:
        check_holds(COLLECTION, info)
    assert "planned" in str(refusal.value)


def test_the_interval_of_tokens_holds_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    population = random.gamma(2.0, 120.0, 5_000).astype(int) + 2
    held = 0
    for _ in range(400):
        drawn = tuple(int(each) for each in random.choice(population, 200, replace=False))
        figure = taken(len(population), drawn).tokens
        held += figure.low <= population.sum() <= figure.high
    assert held / 400 > 0.92


def test_a_sample_of_everything_is_the_truth() -> None:
    assert taken(3).tokens == Figure(value=60, basis="counted", source="all 3 texts, counted here")


def test_cost_and_time_follow_from_tokens_price_and_rates() -> None:
    found = taken()
    assert found.tokens.value == 20_000
    assert found.cost.value == pytest.approx(0.0004)
    assert found.seconds.value == pytest.approx(20_000 / 30_000 * 60 + 1)  # 40 s, and the index
    assert "embedding" in found.seconds.source
    assert taken(tokens=(1, 1)).seconds.value == pytest.approx(10 + 1)  # what is written is slower
    assert (found.disk_bytes.value, found.memory_bytes.value) == (100_000, 10_000)


def test_what_nobody_knows_is_not_made_up() -> None:
    found = taken(rates=Rates(), forecast=None)
    for figure in (found.cost, found.seconds, found.disk_bytes, found.memory_bytes):
        assert (figure.value, figure.basis) == (None, "unknown")
    assert taken(tokens=()).tokens.value is None
    assert taken(rates=Rates()).seconds.low == pytest.approx(11)


def test_deriving_costs_no_tokens() -> None:
    found = taken(calls=False)
    assert (found.tokens.value, found.cost.value, found.seconds.value) == (0, 0, 11)


def test_several_collections_are_one_budget() -> None:
    one = taken()
    both: Any = total([one, one])
    assert both.tokens.value == 40_000
    assert both.memory_bytes == one.memory_bytes  # one index after the other
    half = one.tokens.high - one.tokens.value
    assert both.tokens.high == pytest.approx(40_000 + half * 2**0.5)
    assert total([one, taken(rates=Rates())]).cost.value is None


@pytest.mark.parametrize(
    ("field", "value"),
    [("price", -1), ("price", True), ("tokens_per_minute", 0), ("share", 0), ("share", 1.1),
     ("texts_per_request", 1.5)],
)  # fmt: skip
def test_bad_rates_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=field):
        Rates(**{field: value})  # type: ignore[arg-type]


def test_texts_without_a_counter_are_estimated_on_the_safe_side() -> None:
    assert tokens_by_size(["", "abc", "日本"]) == [2, 3, 4]


def codes(
    source: EmbeddingSpace, target: EmbeddingSpace, use: Use = "search", **of: str
) -> set[str]:
    return {each.code for each in advice(source, target, use=use, provenance=of)}


def v2(language: str) -> EmbeddingSpace:
    return EmbeddingSpace(model=f"jina-embeddings-v2-base-{language}", dimensions=768)


def v3(task: str | None, dimensions: int = 1024) -> EmbeddingSpace:
    return EmbeddingSpace(model="jina-embeddings-v3", dimensions=dimensions, task=task)


def test_advice_follows_the_models_the_task_and_the_use() -> None:
    api = "jina-api"
    assert codes(v2("en"), V3, backend=api) == {"scores", "summaries"}
    assert codes(v2("en"), V3) == {"scores", "summaries", "licence"}
    assert codes(v2("de"), V3, backend=api) == {"scores", "bilingual"}
    assert codes(v2("code"), V3, backend=api) == {"scores", "code"}
    assert "same-dimensions" in codes(v2("en"), v3("retrieval.passage", 768))
    assert "text-matching-for-search" in codes(V2, v3("text-matching"))
    assert "task-for-use" in codes(V2, v3(None))
    assert codes(V3, V3) == set()


@pytest.mark.parametrize(
    ("use", "task"),
    [("search", "retrieval.passage"), ("similar", "text-matching"),
     ("classify", "classification"), ("cluster", "separation")],
)  # fmt: skip
def test_each_use_has_its_task(use: Use, task: str) -> None:
    assert not {"task-for-use", "text-matching-for-search"} & codes(V2, v3(task), use)
    assert codes(V2, v3(None), use) >= {"task-for-use"}


def test_an_index_of_pages_is_as_large_as_was_measured() -> None:
    measured = {512: 2_732, 768: 4_097, 896: 4_097, 960: 8_193, 1024: 8_193}
    for dimensions, size in measured.items():
        assert pgvector.index_bytes(4 * dimensions + 8, 16) == pytest.approx(size, abs=1)
    for dimensions, size in {768: 2_049, 1024: 2_732}.items():
        assert pgvector.index_bytes(2 * dimensions + 8, 16) == pytest.approx(size, abs=1)


@pytest.mark.parametrize("forecast", [pgvector.forecast, qdrant.forecast, elasticsearch.forecast])
def test_a_forecast_grows_with_the_space_and_names_what_others_feel(
    forecast: Callable[..., SlotForecast],
) -> None:
    large, small = (
        forecast(v3(None, size), collection(rows=20_000), Index()) for size in (1024, 64)
    )
    assert large.disk_per_row > small.disk_per_row >= 4 * 64
    assert large.memory_per_row > small.memory_per_row > 0
    assert large.notices
    assert large.fills_per_second > 0


def test_a_small_table_and_an_own_one_are_forecast_as_such() -> None:
    small = pgvector.forecast(V3, collection(rows=10), Index())
    assert (small.memory_per_row, small.builds_per_second) == (0, None)
    own, foreign = (
        pgvector.forecast(V3, collection(layout=layout), Index())
        for layout in (None, collection().layout)
    )
    assert own.fills_per_second > foreign.fills_per_second
    assert "not-null-dropped" in {notice.code for notice in foreign.notices}
    assert "not-null-dropped" not in {notice.code for notice in own.notices}


def test_a_plan_from_before_slots_were_told_apart_keeps_its_hash() -> None:
    written = PLAN.to_dict()
    assert "slot" not in written["collections"][0]["source"]
    known = replace(COLLECTION, source=replace(COLLECTION.source, slot="7f"))
    told = replace(PLAN, collections=(known,))
    assert MigrationPlan.from_dict(told.to_dict()) == told
    assert told.hash != PLAN.hash
