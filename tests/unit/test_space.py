"""Embedding spaces: identity, canonical names, comparison and derivation."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samespace.errors import InvalidInput
from samespace.names import IDENTIFIER_BYTES
from samespace.space import (
    MAX_DIMENSIONS,
    Difference,
    EmbeddingSpace,
    Verdict,
    compare,
    derive,
    differences,
)

V3 = EmbeddingSpace(model="jina-embeddings-v3", dimensions=1024, task="retrieval.passage")
V2 = EmbeddingSpace(model="jina-embeddings-v2-base-en", dimensions=768)
GOLDEN = {
    V3: "jina_embeddings_v3_1024_retrieval_passage_57295f19",
    EmbeddingSpace(
        model="jina-embeddings-v3", dimensions=768, task="retrieval.passage"
    ): "jina_embeddings_v3_768_retrieval_passage_e6851538",
    V2: "jina_embeddings_v2_base_en_768_generic_d11150d5",
    EmbeddingSpace(
        model="jina-embeddings-v3", dimensions=1024, task="retrieval.passage", normalized=False
    ): "jina_embeddings_v3_1024_retrieval_passage_raw_f70db057",
}

_WORDS = st.text(min_size=1, max_size=100).filter(lambda text: "\x00" not in text)
SPACES = st.builds(
    EmbeddingSpace,
    model=_WORDS.map("own/".__add__),
    dimensions=st.integers(1, MAX_DIMENSIONS),
    task=st.none() | _WORDS,
    normalized=st.booleans(),
    variant=st.just("") | _WORDS,
)


def v3(**changes: Any) -> EmbeddingSpace:
    return EmbeddingSpace(**{**V3.to_dict(), **changes})


# Identity


@pytest.mark.parametrize(("space", "id"), GOLDEN.items(), ids=str)
def test_ids_never_change(space: EmbeddingSpace, id: str) -> None:
    assert space.id == id


def test_the_digits_of_an_id_are_those_of_the_canonical_json() -> None:
    text = (
        '{"dimensions":1024,"model":"jina-embeddings-v3","normalized":true,'
        '"task":"retrieval.passage","variant":""}'
    )
    assert V3.id.endswith(hashlib.sha256(text.encode()).hexdigest()[:8])


@given(SPACES)
def test_an_id_is_an_identifier_in_every_store(space: EmbeddingSpace) -> None:
    assert len(space.id.encode()) <= IDENTIFIER_BYTES
    assert set(space.id) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")


@pytest.mark.parametrize(
    "changes",
    [{"dimensions": 512}, {"task": None}, {"normalized": False}, {"variant": "tuned"}],
    ids=str,
)
def test_every_field_changes_the_id(changes: dict[str, Any]) -> None:
    assert v3(**changes) != V3
    assert v3(**changes).id != V3.id


def test_aliases_and_default_tasks_are_resolved() -> None:
    omni = EmbeddingSpace(model="jina-embeddings-v5-omni-small", dimensions=1024)
    assert omni.model == "jina-embeddings-v5-text-small"
    assert omni.task == "text-matching"
    assert EmbeddingSpace(model="jinaai/jina-embeddings-v3", dimensions=8).model == V3.model


def test_two_names_of_one_space_are_equal() -> None:
    omni, text = (
        EmbeddingSpace(model=f"jina-embeddings-v5-{kind}-nano", dimensions=768, task=task)
        for kind, task in (("omni", "separation"), ("text", "clustering"))
    )
    assert omni == text
    assert omni.id == text.id
    assert hash(omni) == hash(text)


@pytest.mark.parametrize(
    ("model", "task", "query_task"),
    [
        ("jina-embeddings-v3", "retrieval.passage", "retrieval.query"),
        ("jina-embeddings-v3", "text-matching", "text-matching"),
        ("jina-embeddings-v3", None, None),
        ("jina-embeddings-v4", None, "text-matching"),
        ("jina-embeddings-v4", "code.passage", "code.query"),
        ("jina-code-embeddings-0.5b", "nl2code.passage", "nl2code.query"),
        ("jina-clip-v2", None, "retrieval.query"),
        ("jina-clip-v1", None, None),
        ("somebody/else", "search.passage", "search.query"),
        ("somebody/else", "search", "search"),
    ],
)
def test_queries_follow_from_documents(
    model: str, task: str | None, query_task: str | None
) -> None:
    sizes = {"jina-clip-v1": 768}
    space = EmbeddingSpace(model=model, dimensions=sizes.get(model, 64), task=task)
    assert space.query_task == query_task


# Specs and fields


def test_a_spec_names_a_space() -> None:
    assert EmbeddingSpace.parse("jina-embeddings-v3@1024:retrieval.passage") == V3
    assert EmbeddingSpace.parse("jina-embeddings-v2-base-en") == V2
    assert EmbeddingSpace.parse(str(V3)) == V3


@given(SPACES)
def test_a_space_in_print_is_read_back_equal_or_not_at_all(space: EmbeddingSpace) -> None:
    try:
        parsed = EmbeddingSpace.parse(str(space))
    except InvalidInput:
        return
    assert parsed == space


@given(
    model=st.text("abcXYZ019-_./", min_size=1).map("own/".__add__),
    dimensions=st.integers(1, MAX_DIMENSIONS),
    task=st.none() | st.text("abcXYZ019-_.", min_size=1),
)
def test_a_plain_space_is_read_back(model: str, dimensions: int, task: str | None) -> None:
    space = EmbeddingSpace(model=model, dimensions=dimensions, task=task)
    assert EmbeddingSpace.parse(str(space)) == space


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "@3",
        "model",
        "model@",
        "model@x",
        "model@-1",
        "model@1.5",
        "model@16001",
        "model@" + "9" * 5000,
        "model@٣",
        "jina-embeddings-v3@0",
        "jina-embeddings-v3@1025",
        "a@1:b:c",
        "a@1:b c",
        "a@1:",
        "a@1@2",
    ],
)
def test_a_bad_spec_is_refused(spec: str) -> None:
    with pytest.raises(InvalidInput):
        EmbeddingSpace.parse(spec)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": ""},
        {"model": None},
        {"model": []},
        {"model": "a\x00b"},
        {"model": "a\ud800b"},
        {"dimensions": 0},
        {"dimensions": -1},
        {"dimensions": True},
        {"dimensions": 3.0},
        {"dimensions": "3"},
        {"dimensions": 16_001},
        {"dimensions": 1025},
        {"task": ""},
        {"task": 0},
        {"task": []},
        {"task": "retrieval.query"},
        {"task": "no-such-task"},
        {"task": "text-matching\x00"},
        {"normalized": 1},
        {"normalized": None},
        {"variant": None},
        {"variant": "\udfff"},
        {"model": "jina-embeddings-v2-base-en", "dimensions": 512},
        {"model": "jina-embeddings-v2-base-en", "dimensions": 768, "task": "text-matching"},
        {"model": "jina-clip-v2", "dimensions": 63},
        {"model": "unknown", "task": 0},
        {"colour": "red"},
    ],
    ids=ascii,
)
def test_what_cannot_be_a_space_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        EmbeddingSpace.from_dict({"model": "jina-embeddings-v3", "dimensions": 1024, **fields})


@pytest.mark.parametrize("values", [{}, {"model": "m"}, None, [], "m@3"], ids=repr)
def test_what_is_no_space_at_all_is_refused(values: Any) -> None:
    with pytest.raises(InvalidInput):
        EmbeddingSpace.from_dict(values)


def test_a_refusal_names_what_the_model_takes() -> None:
    with pytest.raises(InvalidInput, match="has 1 to 1024 dimensions, not 2000"):
        v3(dimensions=2000)
    with pytest.raises(InvalidInput, match="exactly 768"):
        EmbeddingSpace(model=V2.model, dimensions=1024)
    with pytest.raises(InvalidInput, match="text-matching, classification, separation"):
        v3(task="retrieval.query")


@given(SPACES)
def test_fields_survive_a_round_trip(space: EmbeddingSpace) -> None:
    assert EmbeddingSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space


def test_a_space_in_print_quotes_at_most_80_characters_of_a_variant() -> None:
    space = v3(variant="prompt\n" * 100, normalized=False)
    assert str(space).startswith(f"{V3} un-normalised variant 'prompt\\n")
    assert len(str(space)) < 160


# Comparison


@pytest.mark.parametrize(
    ("offered", "verdict"),
    [
        (V3, Verdict.EQUAL),
        (v3(dimensions=256), Verdict.DERIVABLE),
        (v3(dimensions=100), Verdict.DERIVABLE),
        (v3(dimensions=256, normalized=False), Verdict.INCOMPATIBLE),
        (v3(normalized=False), Verdict.INCOMPATIBLE),
        (v3(task=None), Verdict.INCOMPATIBLE),
        (v3(task="text-matching"), Verdict.INCOMPATIBLE),
        (v3(variant="tuned"), Verdict.INCOMPATIBLE),
        (v3(dimensions=256, variant="tuned"), Verdict.INCOMPATIBLE),
        (V2, Verdict.INCOMPATIBLE),
    ],
    ids=str,
)
def test_what_an_offered_space_is_to_v3(offered: EmbeddingSpace, verdict: Verdict) -> None:
    assert compare(V3, offered) is verdict


def test_more_dimensions_are_never_derivable() -> None:
    assert compare(v3(dimensions=256), V3) is Verdict.INCOMPATIBLE


def test_vectors_of_equal_size_have_nothing_in_common() -> None:
    assert compare(V2, v3(dimensions=768)) is Verdict.INCOMPATIBLE


def test_un_normalised_vectors_can_be_normalised() -> None:
    assert compare(v3(normalized=False), V3) is Verdict.DERIVABLE
    assert compare(v3(normalized=False), v3(dimensions=64)) is Verdict.DERIVABLE
    assert compare(v3(normalized=False), v3(dimensions=64, normalized=False)) is Verdict.DERIVABLE


def test_an_unknown_model_is_not_taken_for_a_matryoshka_one() -> None:
    long, short = (EmbeddingSpace(model="own", dimensions=size) for size in (64, 32))
    assert compare(long, short) is Verdict.INCOMPATIBLE


@given(SPACES, SPACES)
def test_equal_means_no_differences(stored: EmbeddingSpace, offered: EmbeddingSpace) -> None:
    equal = compare(stored, offered) is Verdict.EQUAL
    assert equal == (not differences(stored, offered)) == (stored == offered)


def test_differences_come_in_the_order_of_declaration() -> None:
    assert differences(V3, V2) == (
        Difference("model", V3.model, V2.model),
        Difference("dimensions", 1024, 768),
        Difference("task", "retrieval.passage", None),
    )


# Derivation


def some_vectors(*, normalized: bool) -> np.ndarray[Any, np.dtype[np.float32]]:
    vectors = np.random.default_rng(1).standard_normal((3, 1024)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if normalized else vectors


def test_nothing_is_derived_from_zeros() -> None:
    vectors = np.eye(3, 1024, k=100, dtype=np.float32)
    vectors[0, 0] = 1
    with pytest.raises(InvalidInput, match="vector 1 is zero"):
        derive(vectors, stored=V3, offered=v3(dimensions=64))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.ones(1024, np.float32), r"shape \(1024,\)"),
        (np.ones((2, 512), np.float32), r"shape \(2, 512\)"),
        ([[1.0]], "a matrix of numbers"),
        (np.array([[1.0] * 1024, [np.nan] * 1024]), "vector 1 .* not finite"),
    ],
    ids=["one vector", "of another size", "a list", "NaN"],
)
def test_nothing_is_derived_from_what_is_no_vectors_of_the_space(wrong: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        derive(wrong, stored=V3, offered=v3(dimensions=64))


def test_derived_vectors_are_normalised_prefixes() -> None:
    vectors = some_vectors(normalized=True)
    derived = derive(vectors, stored=V3, offered=v3(dimensions=256))
    assert derived.shape == (3, 256)
    assert derived.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(derived, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(derived[0] / derived[0, 0], vectors[0, :256] / vectors[0, 0], 1e-4)


def test_shortening_in_two_steps_is_shortening_in_one() -> None:
    vectors = some_vectors(normalized=True)
    half = derive(vectors, stored=V3, offered=v3(dimensions=512))
    twice = derive(half, stored=v3(dimensions=512), offered=v3(dimensions=64))
    np.testing.assert_allclose(
        twice, derive(vectors, stored=V3, offered=v3(dimensions=64)), atol=1e-6
    )


def test_un_normalised_vectors_stay_so() -> None:
    vectors = some_vectors(normalized=False)
    raw = v3(normalized=False)
    derived = derive(vectors, stored=raw, offered=v3(dimensions=8, normalized=False))
    np.testing.assert_array_equal(derived, vectors[:, :8])


def test_what_is_not_derivable_is_refused() -> None:
    with pytest.raises(InvalidInput, match="cannot be derived from"):
        derive(some_vectors(normalized=True), stored=V3, offered=V2)
