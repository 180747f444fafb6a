"""Plans of real collections on every store: nothing is written, and no model is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.audit.poisoning import documents
from tests.cli.running import Caller
from tests.contract.ingesting import (
    Place,
    awaitable,
    elasticsearch_place,
    postgres_place,
    qdrant_place,
)
from tests.contract.test_elasticsearch_contract import raw
from tests.contract.test_qdrant_contract import prefix
from tests.places import STORES as FOREIGN
from tests.places import Place as ForeignPlace
from tests.places import Table, opened_place

from samespace import AsyncQdrantStore, Document, HashingBackend, open_store
from samespace.errors import InvalidInput
from samespace.filters import everything, field
from samespace.guard import SlotState
from samespace.migrate import MigrationPlan, check_holds, plan
from samespace.migrate.estimating import Rates
from samespace.space import EmbeddingSpace
from samespace.testing.backends import UNLIKE, V3, TaskBackend

__all__ = ["prefix", "raw"]  # fixtures
STORES: dict[str, Callable[[pytest.FixtureRequest], Place]] = {
    "PostgreSQL": postgres_place,
    "Qdrant local": qdrant_place,
    "Elasticsearch": elasticsearch_place,
}
SHORT = EmbeddingSpace(model=V3.model, dimensions=32, task=V3.task)
LONG = EmbeddingSpace(model=V3.model, dimensions=128, task=V3.task)
ROWS = [Document(row.id, row.text, {"n": n % 2}) for n, row in enumerate(documents(40))]


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest) -> Place:
    return STORES[request.param](request)


@pytest.fixture
def one(request: pytest.FixtureRequest) -> Place:
    """For what does not depend on the store."""
    return qdrant_place(request)


class Silent(TaskBackend):
    """Counts tokens, and must not be asked for a vector."""

    def count_tokens(self, texts: Any) -> list[int]:
        return [len(text.split()) for text in texts]

    def _noted(self, texts: Any) -> list[str]:
        pytest.fail(f"a model was asked for {len(texts)} vectors")


def planned(place: Place, target: EmbeddingSpace, **asked: Any) -> MigrationPlan:
    with place.open(TaskBackend()) as store:
        before = store.info()
        found = plan(store, Silent(target), **asked)
        assert store.info() == before
        check_holds(found.collections[0], before)
    return MigrationPlan.from_dict(orjson.loads(orjson.dumps(found.to_dict())))


def test_the_cheapest_legal_path_is_chosen_and_no_model_called(place: Place) -> None:
    with place.open(TaskBackend()) as store:
        store.upsert(ROWS)
    found = {space: planned(place, space).collections[0] for space in (V3, SHORT, LONG, UNLIKE)}
    paths = {space: each.path for space, each in found.items()}
    assert paths == {V3: "nothing", SHORT: "derive", LONG: "embed", UNLIKE: "embed"}
    words = sum(len(row.text.split()) for row in ROWS)
    tokens = {space: each.estimate.tokens.value for space, each in found.items()}
    assert tokens == {V3: 0, SHORT: 0, LONG: words, UNLIKE: words}
    each = found[UNLIKE]
    assert (each.rows, each.pending, each.stale, each.target_state) == (40, 0, 0, "absent")
    assert (each.source.name, each.target.name) == (V3.id, UNLIKE.id)
    assert each.estimate.disk_bytes.value


def test_a_migration_under_way_is_planned_for_what_is_left(place: Place) -> None:
    with place.open(TaskBackend()) as store:
        store.upsert(ROWS)
        store.add_slot(UNLIKE)
        rows, _ = store.pending(UNLIKE, limit=30)
        vectors = TaskBackend(UNLIKE).embed_documents([row.document.text for row in rows])
        store.fill(UNLIKE, rows, vectors)
    found = planned(place, UNLIKE).collections[0]
    assert (found.target_state, found.estimate.texts.value) == ("filling", 10)
    with place.open(TaskBackend()) as store:
        store.mark(UNLIKE, SlotState.READY)
    assert planned(place, UNLIKE).collections[0].path == "nothing"


def test_a_plan_of_some_rows_counts_those(place: Place) -> None:
    with place.open(TaskBackend()) as store:
        store.upsert(ROWS)
    found = planned(place, UNLIKE, where=field("n") == 1).collections[0]
    assert (found.rows, found.estimate.texts.value, found.where) == (20, 20, {"n": [1]})
    words = sum(len(row.text.split()) for row in ROWS[1::2])
    assert found.estimate.tokens.value == words


def test_an_async_store_is_planned_for_and_closed(one: Place) -> None:
    with one.open(TaskBackend()) as store:
        store.upsert(ROWS)
    handle = AsyncQdrantStore(one.source, collection=one.collection, space=V3, **one.options)
    assert plan(handle, awaitable(TaskBackend(UNLIKE))).collections[0].rows == 40
    with one.open(TaskBackend()) as store:  # which a folder that is still held would refuse
        assert store.count() == 40


def test_several_collections_have_one_budget(one: Place) -> None:
    with one.open(TaskBackend()) as store:
        store.upsert(ROWS)
        found = plan([store, store], Silent(UNLIKE), rates=Rates(price=1.0))
    each = [collection.estimate.cost.value or 0 for collection in found.collections]
    assert found.estimate.cost.value == pytest.approx(sum(each)) != 0


def test_an_estimate_of_tokens_is_no_count(one: Place) -> None:
    class Estimating(Silent):
        counts_exactly = False

    with one.open(TaskBackend()) as store:
        store.upsert(ROWS)
        backends = (Silent(UNLIKE), Estimating(UNLIKE), HashingBackend(64))
        bases = [plan(store, backend).estimate.tokens.basis for backend in backends]
    assert bases == ["counted", "estimated", "estimated"]


def test_what_cannot_be_planned_is_refused_before_anything_is_read(one: Place) -> None:
    with one.open(TaskBackend()) as store:
        wrongs: list[dict[str, Any]] = [
            {"use": "sell"},
            {"where": field("n") > 1},
            {"where": everything},
            {"sample": 0},
            {"sample": True},
        ]
        for wrong in wrongs:
            with pytest.raises(InvalidInput, match=next(iter(wrong))):
                plan(store, Silent(UNLIKE), **wrong)
        with pytest.raises(InvalidInput, match="backend"):
            plan(store, None)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="no collection"):
        plan([], Silent(UNLIKE))


@pytest.fixture(params=FOREIGN)
def foreign(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ForeignPlace]:
    with opened_place(request.param, request, tmp_path) as place:
        yield place


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(monkeypatch, capsys)


def test_the_command_plans_an_adopted_collection_and_changes_nothing(
    foreign: ForeignPlace, call: Caller, tmp_path: Path
) -> None:
    backend = HashingBackend(64)
    rows = [Document(str(n), row.text, {"lang": "en"}) for n, row in enumerate(documents(20))]
    foreign.make(rows, backend.embed_documents([row.text for row in rows]))
    at = ("--store", foreign.address, "--collection", foreign.name)
    code, _, said = call("adopt", *at, "--backend", "hashing@64", "--yes")
    assert code == 0, said
    before, out = foreign.dump(), tmp_path / "plan.json"
    code, shown, said = call(
        "migrate", "plan", *at, "--backend", "hashing@128", "--price", "2", "--out", str(out)
    )
    assert code == 0, said
    assert foreign.dump() == before
    found = MigrationPlan.from_dict(orjson.loads(out.read_bytes()))
    assert found.lines() == shown.splitlines()
    [each] = found.collections
    assert (each.name, each.path, each.rows, each.source.name) == (foreign.name, "embed", 20, "v")
    assert each.layout is not None
    assert each.layout["text"] == "body"
    ddl = tmp_path / "slot.sql"
    code, _, said = call("migrate", "plan", *at, "--backend", "hashing@128", "--ddl", str(ddl))
    if isinstance(foreign, Table):
        assert code == 0, said
        assert f'ADD COLUMN "{each.target.name}" vector(128)' in ddl.read_text()
    else:
        assert (code, ddl.exists()) == (2, False)
        assert "PostgreSQL" in said
    assert foreign.dump() == before
    code, shown, said = call("grants", "reader", *at, "--to", "somebody")
    assert (code, foreign.dump()) == (0, before), said
    assert "somebody" in shown or "no rights" in shown


def test_the_command_plans_several_collections_of_a_folder(call: Caller, tmp_path: Path) -> None:
    address = f"qdrant:{tmp_path / 'points'}"
    for name in ("one", "two"):
        with open_store(address, collection=name, backend="hashing@64") as store:
            store.upsert(ROWS)
    at = ("--store", address, "-c", "one", "-c", "two", "--backend", "hashing@32", "--json")
    code, shown, said = call("migrate", "plan", *at)
    assert code == 0, said
    found = MigrationPlan.from_dict(orjson.loads(shown))
    assert [each.name for each in found.collections] == ["one", "two"]
    assert found.estimate.texts.value == 80
