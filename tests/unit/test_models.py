"""What is known of each model, against the published facts."""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

import pytest

from samespace.models import MODELS, Model, documents_task, find_model, queries_task

V3_TASKS = {
    "retrieval.query",
    "retrieval.passage",
    "text-matching",
    "classification",
    "separation",
}
V4_TASKS = {
    "text-matching",
    "retrieval.query",
    "retrieval.passage",
    "code.query",
    "code.passage",
}
V5_TASKS = {
    "retrieval.query",
    "retrieval.passage",
    "text-matching",
    "clustering",
    "classification",
}
CODE_TASKS = {
    f"{pair}.{side}"
    for pair in ("nl2code", "qa", "code2code", "code2nl", "code2completion")
    for side in ("query", "passage")
}
APACHE, NON_COMMERCIAL, QWEN = "Apache-2.0", "CC BY-NC 4.0", "Qwen Research"


class Facts(NamedTuple):
    dimensions: int
    smallest: int
    context: int
    tasks: set[str]
    default_task: str | None
    late_chunking: bool
    revision: str
    licence: str


def v2(revision: str) -> Facts:
    return Facts(768, 768, 8192, set(), None, False, revision, APACHE)


FACTS = {
    "jina-embeddings-v2-base-en": v2("322d4d7e"),
    "jina-embeddings-v2-base-code": v2("516f4baf"),
    "jina-embeddings-v2-base-de": v2("3f9eede8"),
    "jina-embeddings-v2-base-es": v2("8e2d780d"),
    "jina-embeddings-v2-base-zh": v2("c1ff9086"),
    "jina-embeddings-v3": Facts(1024, 1, 8192, V3_TASKS, None, True, "ab036b02", NON_COMMERCIAL),
    "jina-embeddings-v4": Facts(2048, 1, 32768, V4_TASKS, "text-matching", True, "853c867b", QWEN),
    "jina-code-embeddings-0.5b": Facts(
        896, 1, 32768, CODE_TASKS, None, False, "4db23513", NON_COMMERCIAL
    ),
    "jina-code-embeddings-1.5b": Facts(
        1536, 1, 32768, CODE_TASKS, None, False, "39aeb4fb", NON_COMMERCIAL
    ),
    "jina-embeddings-v5-text-small": Facts(
        1024, 1, 32768, V5_TASKS, "text-matching", False, "dd76d535", NON_COMMERCIAL
    ),
    "jina-embeddings-v5-text-nano": Facts(
        768, 1, 8192, V5_TASKS, "text-matching", False, "8a7f00aa", NON_COMMERCIAL
    ),
    "jina-clip-v1": Facts(768, 768, 8192, set(), None, False, "ceb3e44c", APACHE),
    "jina-clip-v2": Facts(
        1024, 64, 8192, {"retrieval.query"}, None, False, "e10d47f5", NON_COMMERCIAL
    ),
}
EVERY_MODEL = pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)


@pytest.mark.parametrize(("name", "facts"), FACTS.items(), ids=FACTS)
def test_the_data_agree_with_the_facts(name: str, facts: Facts) -> None:
    model = MODELS[name]
    assert (
        Facts(
            model.dimensions,
            model.min_dimensions,
            model.context,
            set(model.tasks),
            model.default_task,
            model.late_chunking,
            model.revision,
            model.licence,
        )
        == facts
    )


def test_no_model_is_missing_and_none_invented() -> None:
    assert set(MODELS) == set(FACTS)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("jina-embeddings-v5-omni-small", "jina-embeddings-v5-text-small"),
        ("jina-embeddings-v5-omni-nano", "jina-embeddings-v5-text-nano"),
        ("jina-embeddings-v3-hf", "jina-embeddings-v3"),
        ("jinaai/jina-embeddings-v3", "jina-embeddings-v3"),
        ("jinaai/jina-embeddings-v3-hf", "jina-embeddings-v3"),
        ("jina-clip-v2", "jina-clip-v2"),
    ],
)
def test_every_name_of_a_model_finds_it(alias: str, name: str) -> None:
    assert find_model(alias) is MODELS[name]


@pytest.mark.parametrize(
    "name", ["", "jina-embeddings", "JINA-EMBEDDINGS-V3", "own/jina-embeddings-v3"]
)
def test_other_names_find_nothing(name: str) -> None:
    assert find_model(name) is None


def test_no_two_models_share_a_name() -> None:
    names = list(chain.from_iterable((model.name, *model.aliases) for model in MODELS.values()))
    assert len(names) == len(set(names))


def test_768_is_crowded() -> None:
    native = {model.name for model in MODELS.values() if model.dimensions == 768}
    assert len(native) == 7
    assert {"jina-clip-v1", "jina-embeddings-v5-text-nano"} < native


@EVERY_MODEL
def test_matryoshka_sizes_rise_and_stay_below_the_native_one(model: Model) -> None:
    sizes = (*model.matryoshka, model.dimensions)
    assert list(sizes) == sorted(set(sizes))
    assert model.min_dimensions <= sizes[0]
    assert not model.matryoshka or model.min_dimensions < model.dimensions


def test_the_sizes_that_v3_and_clip_v2_were_trained_at() -> None:
    assert MODELS["jina-embeddings-v3"].matryoshka == (32, 64, 128, 256, 512, 768)
    assert MODELS["jina-clip-v2"].matryoshka == (64, 128, 256, 512, 768)
    assert MODELS["jina-embeddings-v4"].matryoshka[0] == 128


@EVERY_MODEL
def test_every_task_that_is_named_exists(model: Model) -> None:
    named = {model.default_task, model.query_task, *model.task_aliases.values(), *model.prompts}
    assert named - {None} <= set(model.tasks)
    assert not set(model.task_aliases) & set(model.tasks)


@EVERY_MODEL
def test_queries_of_every_documents_task_have_a_task(model: Model) -> None:
    for task in model.tasks:
        assert queries_task(model, documents_task(model, task)) in model.tasks


@EVERY_MODEL
def test_the_parameters_of_requests_follow_the_service(model: Model) -> None:
    takes_dimensions = model.min_dimensions < model.dimensions
    assert model.takes_dimensions == takes_dimensions
    ignores_normalized = model.name.startswith(("jina-embeddings-v4", "jina-code"))
    assert model.takes_normalized != ignores_normalized


@pytest.mark.parametrize(
    ("model", "task", "canonical"),
    [
        ("jina-embeddings-v3", "clustering", "separation"),
        ("jina-embeddings-v3", None, None),
        ("jina-embeddings-v4", None, "text-matching"),
        ("jina-embeddings-v5-text-small", "separation", "clustering"),
        ("jina-embeddings-v5-text-small", None, "text-matching"),
        ("jina-clip-v2", None, None),
        ("unknown", None, None),
        ("unknown", "clustering", "clustering"),
    ],
)
def test_documents_tasks_are_canonical(model: str, task: str | None, canonical: str | None) -> None:
    assert documents_task(find_model(model), task) == canonical


def test_only_v3s_retrieval_has_prompts() -> None:
    assert MODELS["jina-embeddings-v3"].prompts == {
        "retrieval.query": "Represent the query for retrieving evidence documents: ",
        "retrieval.passage": "Represent the document for retrieval: ",
    }


@pytest.mark.parametrize("mapping", ["prompts", "task_aliases"])
def test_the_data_cannot_be_changed(mapping: str) -> None:
    with pytest.raises(TypeError):
        getattr(MODELS["jina-embeddings-v3"], mapping)["new"] = "entry"
