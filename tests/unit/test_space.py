"""Embedding spaces: identity, canonical names, comparison and derivation."""

from __future__ import annotations

import numpy as np
import pytest

from samespace.errors import InvalidInput
from samespace.space import EmbeddingSpace, Verdict, compare, derive, differences

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


@pytest.mark.parametrize(("space", "id"), GOLDEN.items(), ids=str)
def test_ids_never_change(space: EmbeddingSpace, id: str) -> None:
    assert space.id == id


def test_an_id_is_an_identifier_in_every_store() -> None:
    space = EmbeddingSpace(model="My Model/é" * 30, dimensions=12, variant="x")
    assert len(space.id.encode()) <= 63
    assert set(space.id) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")


def test_aliases_and_default_tasks_are_resolved() -> None:
    omni = EmbeddingSpace(model="jina-embeddings-v5-omni-small", dimensions=1024)
    assert omni.model == "jina-embeddings-v5-text-small"
    assert omni.task == "text-matching"
    assert EmbeddingSpace(model="jinaai/jina-embeddings-v3", dimensions=8).model == V3.model


@pytest.mark.parametrize(
    ("task", "query_task"),
    [("retrieval.passage", "retrieval.query"), ("text-matching", "text-matching"), (None, None)],
)
def test_queries_follow_from_documents(task: str | None, query_task: str | None) -> None:
    space = EmbeddingSpace(model="jina-embeddings-v3", dimensions=64, task=task)
    assert space.query_task == query_task


def test_a_spec_names_a_space() -> None:
    assert EmbeddingSpace.parse("jina-embeddings-v3@1024:retrieval.passage") == V3
    assert EmbeddingSpace.parse("jina-embeddings-v2-base-en") == V2
    assert EmbeddingSpace.parse(str(V3)) == V3


@pytest.mark.parametrize("spec", ["", "@3", "model", "model@x", "jina-embeddings-v3@0", "a@1:b:c"])
def test_a_bad_spec_is_refused(spec: str) -> None:
    with pytest.raises(InvalidInput):
        EmbeddingSpace.parse(spec)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": ""},
        {"model": "a\x00b"},
        {"dimensions": 0},
        {"dimensions": True},
        {"dimensions": 16_001},
        {"task": ""},
        {"task": "retrieval.query"},
        {"task": "no-such-task"},
        {"normalized": 1},
        {"model": "jina-embeddings-v2-base-en", "dimensions": 512},
    ],
    ids=str,
)
def test_what_cannot_be_a_space_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        EmbeddingSpace.from_dict({"model": "jina-embeddings-v3", "dimensions": 1024, **fields})


def test_fields_survive_a_round_trip() -> None:
    assert EmbeddingSpace.from_dict(V3.to_dict()) == V3


def test_fewer_dimensions_of_a_matryoshka_model_are_derivable() -> None:
    shorter = EmbeddingSpace(model=V3.model, dimensions=256, task=V3.task)
    assert compare(V3, V3) is Verdict.EQUAL
    assert compare(V3, shorter) is Verdict.DERIVABLE
    assert compare(shorter, V3) is Verdict.INCOMPATIBLE
    assert compare(V3, V2) is Verdict.INCOMPATIBLE
    assert [d.field for d in differences(V3, V2)] == ["model", "dimensions", "task"]


def test_derived_vectors_are_normalised_prefixes() -> None:
    shorter = EmbeddingSpace(model=V3.model, dimensions=256, task=V3.task)
    vectors = np.random.default_rng(1).standard_normal((3, 1024)).astype(np.float32)
    derived = derive(vectors, stored=V3, offered=shorter)
    assert derived.shape == (3, 256)
    assert derived.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(derived, axis=1), 1, atol=1e-6)
    with pytest.raises(InvalidInput):
        derive(vectors, stored=V3, offered=V2)
