"""Hostile strings come back from wherever they are put, and vectors that are none are refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import reduce
from operator import and_, or_

import pytest
from tests.cross.hostile import STRINGS

from samespace import Document, Layout, Parent, VectorStore
from samespace.errors import CollectionNotFound, InvalidInput, StoreRejected
from samespace.filters import Filter, field
from samespace.testing.backends import V3, TaskBackend
from samespace.testing.corpus import BAD_VECTORS, documents
from samespace.testing.harness import StoreHarness
from samespace.vectors import as_vector

SAMPLES = [
    pytest.param(STRINGS[::8], id="small"),
    pytest.param(STRINGS, id="full", marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
]


def spread(text: str) -> Document:
    """A document with the string in every place that takes any."""
    return Document(
        text,
        f"x {text}",
        {text: text, "in": {text: [text, [text]]}, "is": text},
        parent=Parent(text, 0, (0, 1)),
        embed_text=f"y {text}",
    )


def conditions(text: str) -> tuple[Filter, ...]:
    """Each true of the string's own document and of no other."""
    return (
        field("is") == text,
        field("is").in_([text]),
        field(text) == text,
        field("in", text).contains(text),
        field.id == text,
        field.parent == text,
    )


@pytest.fixture
def bystander(harness: StoreHarness) -> Iterator[None]:
    """A second collection, which stays as it is to the byte."""
    with harness.open("bystander", backend=TaskBackend()) as store:
        store.upsert(documents(12))
    before = harness.dump("bystander"), harness.get_record("bystander")
    yield
    assert (harness.dump("bystander"), harness.get_record("bystander")) == before


@pytest.fixture
def store(harness: StoreHarness, bystander: None) -> Iterator[VectorStore]:
    with harness.open("hostile", backend=TaskBackend()) as store:
        yield store


def test_there_are_enough_of_them() -> None:
    assert len(STRINGS) >= 600


def test_each_comes_back_from_every_place(store: VectorStore) -> None:
    rows = [spread(text) for text in STRINGS]
    assert store.upsert(rows).written == len(rows)
    assert store.get(STRINGS) == rows
    assert {row.id for row in store.scan()} == {*STRINGS}
    assert dict(store.values("is", limit=10_000)) == dict.fromkeys(STRINGS, 1)
    assert dict(store.values(field.parent, limit=10_000)) == dict.fromkeys(STRINGS, 1)
    queries = [f"q {text}" for text in STRINGS[::5]]
    assert len(store.search_many(queries, limit=1)) == len(queries)
    assert store.delete(ids=STRINGS[::2]) == len(STRINGS[::2])
    assert {row.id for row in store.scan()} == {*STRINGS[1::2]}


@pytest.mark.parametrize("sample", SAMPLES)
def test_metadata_that_is_changed_to_them_comes_back(
    store: VectorStore, sample: tuple[str, ...]
) -> None:
    """Qdrant's local mode looks at every row for each change."""
    store.upsert(spread(text) for text in sample)
    changes = {text: {text: [text]} for text in sample}
    assert store.update_metadata(changes) == len(sample)
    assert [row.metadata for row in store.get(sample)] == list(changes.values())


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_filter_with_one_finds_its_own_document(
    store: VectorStore, sample: tuple[str, ...]
) -> None:
    store.upsert(spread(text) for text in sample)
    for text in sample:
        for joined in (reduce(and_, conditions(text)), reduce(or_, conditions(text))):
            assert [row.id for row in store.scan(where=joined)] == [text]
    assert [store.delete(parent=text) for text in sample[:20]] == [1] * len(sample[:20])


@pytest.mark.usefixtures("bystander")
def test_none_of_them_names_a_collection_of_ours(harness: StoreHarness) -> None:
    names = [text for text in STRINGS if not text.isidentifier()]
    assert len(names) >= 600
    for name in names:
        with pytest.raises(InvalidInput):
            harness.open(name, backend=TaskBackend())


@pytest.mark.usefixtures("bystander")
def test_as_the_name_of_somebodys_collection_none_reaches_another(harness: StoreHarness) -> None:
    layout = Layout(id="_id", text="text", slot="embedding", metadata=())
    for name in STRINGS[::24]:
        with suppress(InvalidInput):
            store = harness.open(name, space=V3, layout=layout)
            with store, pytest.raises((CollectionNotFound, InvalidInput, StoreRejected)):
                store.count()


@pytest.mark.parametrize("fault", BAD_VECTORS)
def test_a_bad_vector_is_refused_in_the_same_words_everywhere(
    store: VectorStore, harness: StoreHarness, fault: str
) -> None:
    bad = BAD_VECTORS[fault](TaskBackend().embed_query("text"))
    with pytest.raises(InvalidInput) as expected:
        as_vector(bad, V3)
    store.upsert(documents(3))
    before = harness.dump("hostile")
    rejected = store.upsert_vectors(
        [Document("bad", "text"), Document("worse", "text")],
        [bad, bad],
        space=V3,
        on_error="report",
    ).rejected
    assert [type(each.error) for each in rejected] == [InvalidInput] * 2
    with pytest.raises(InvalidInput) as refused:
        store.search_vector(bad, space=V3)
    assert str(refused.value) == str(expected.value)
    assert harness.dump("hostile") == before
