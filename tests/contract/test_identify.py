"""The space of a collection is found from its rows, on every store; nothing in it changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier
from tests.addresses import postgres_address
from tests.contract.test_pgvector_layouts import MAKERS
from tests.places import STORES, Place, Table, opened_place

from samespace import CallableBackend, Document, EmbeddingSpace, HashingBackend, Layout
from samespace.audit.identify import Identification, identify
from samespace.audit.judging import Verdict
from samespace.errors import AuthenticationFailed, InvalidInput
from samespace.layout import TextQuery
from samespace.models import find_model
from samespace.opening import open_store, survey
from samespace.protocols import Matrix
from samespace.testing.backends import V3, AwaitableBackend, RefusingBackend, TaskBackend
from samespace.testing.corpus import texts
from samespace.testing.jina_vectors import LexicalModel

SPACES = tuple(
    EmbeddingSpace.parse(spec)
    for spec in (
        "jina-embeddings-v3@64:retrieval.passage",
        "jina-embeddings-v3@64:text-matching",
        "jina-embeddings-v3@64",
        "jina-embeddings-v4@64:retrieval.passage",
        "jina-embeddings-v5-text-nano@64:retrieval.passage",
        "jina-clip-v2@64",
    )
)


class Counting(CallableBackend):
    """A backend that says how many calls and texts it was asked for."""

    def __init__(self, space: EmbeddingSpace) -> None:
        self.calls: list[int] = []
        model = find_model(space.model)
        assert model is not None
        lexical = LexicalModel(model)

        def embed(texts: Sequence[str]) -> Matrix:
            self.calls.append(len(texts))
            return lexical.embed(
                texts, task=space.task, dimensions=space.dimensions, normalized=space.normalized
            )

        super().__init__(space, embed, lambda text: embed([text])[0])


CANDIDATES = tuple(map(Counting, SPACES))


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with opened_place(request.param, request, tmp_path) as place:
        yield place


everywhere = pytest.mark.parametrize("place", STORES, indirect=True)
in_postgres = pytest.mark.parametrize("place", ["PostgreSQL"], indirect=True)
TRIALS = pytest.mark.parametrize(
    "trials", [2, pytest.param(100, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])]
)


def rows(count: int, **metadata: str) -> list[Document]:
    return [
        Document(str(n), text, {"lang": ("de", "en")[n % 2], **metadata})
        for n, text in enumerate(texts(count))
    ]


def embedded(backend: Any, documents: Sequence[Document]) -> Matrix:
    vectors: Matrix = backend.embed_documents([row.text for row in documents])
    return vectors


def found(place: Place, candidates: Sequence[Any] = CANDIDATES, **options: Any) -> Identification:
    return identify(place.address, collection=place.name, candidates=candidates, **options)


@everywhere
@TRIALS
def test_the_right_one_is_named_and_none_without_it(place: Place, trials: int) -> None:
    documents = rows(80)
    for trial in range(trials):
        true = trial % len(CANDIDATES)
        place.name = f"{place.name.rstrip('0123456789')}{trial}"
        place.make(documents, embedded(CANDIDATES[true], documents))
        before = place.dump()
        named = found(place)
        assert (named.verdict, named.candidate, named.space) == (
            Verdict.IDENTIFIED, true, SPACES[true],
        )  # fmt: skip
        assert named.rows == 50
        assert named.margin is not None
        assert named.margin > 0.04
        assert named.normalized
        others = [each for number, each in enumerate(CANDIDATES) if number != true]
        assert found(place, others).verdict is Verdict.NONE
        assert place.dump() == before


@everywhere
def test_one_call_for_each_candidate(place: Place) -> None:
    documents = rows(60)
    candidates = [Counting(space) for space in SPACES]
    place.make(documents, embedded(CANDIDATES[0], documents))
    named = found(place, candidates, sample=20)
    assert [len(each.calls) for each in candidates] == [1] * len(candidates)
    assert (named.layout.text, named.layout.slot) == ("body", "v")


@everywhere
def test_a_title_that_was_embedded_with_the_text_is_found(place: Place) -> None:
    documents = [
        Document(str(n), text, {"title": f"Chapter {n % 7}: beginnings"})
        for n, text in enumerate(texts(40))
    ]
    shown = [f"{row.metadata['title']}\n\n{row.text}" for row in documents]
    place.make(documents, CANDIDATES[0].embed_documents(shown))
    named = found(place)
    assert (named.verdict, named.space) == (Verdict.IDENTIFIED, SPACES[0])
    assert (named.rendering.title, named.rendering.join.isspace()) == ("title", True)
    if isinstance(place, Table):
        assert isinstance(named.layout.text, TextQuery)
        again = found(place, layout=named.layout)
        assert (again.verdict, str(again.rendering)) == (Verdict.IDENTIFIED, "text")
    else:
        assert "function of ids" in " ".join(named.notes)


@in_postgres
def test_a_larger_size_of_the_same_model_is_cut(place: Place) -> None:
    documents = rows(30)
    place.make(documents, embedded(CANDIDATES[0], documents))
    whole = Counting(EmbeddingSpace.parse("jina-embeddings-v3:retrieval.passage"))
    named = found(place, [whole, HashingBackend(128)])
    assert (named.candidate, named.space) == (0, SPACES[0])
    assert [each.failed for each in named.evidence] == ["", "has 128 dimensions"]


@in_postgres
def test_a_minority_of_others_asks_for_an_audit(place: Place) -> None:
    documents = rows(50)
    vectors = embedded(CANDIDATES[0], documents)
    vectors[:10] = embedded(CANDIDATES[3], documents[:10])
    place.make(documents, vectors)
    named = found(place)
    assert (named.verdict, named.evidence[0].agreeing) == (Verdict.IDENTIFIED, 0.8)
    assert "an audit of the collection is due" in " ".join(named.notes)


@in_postgres
def test_who_cannot_be_asked_is_told_and_counts_neither_way(place: Place) -> None:
    documents = rows(30)
    place.make(documents, embedded(CANDIDATES[1], documents))
    broken = RefusingBackend("", error=AuthenticationFailed("the key was refused"))
    named = found(place, [broken, *CANDIDATES])
    assert (named.verdict, named.candidate) == (Verdict.IDENTIFIED, 2)
    assert named.evidence[-1].failed == "the key was refused"
    alone = found(place, [broken])
    assert alone.verdict is Verdict.UNCLEAR


@everywhere
@pytest.mark.parametrize(
    ("documents", "why"),
    [
        (rows(2), "2 rows"),
        ([Document(str(n), " ", {"lang": ""}) for n in range(9)], "0 rows"),
        ([Document(str(n), "the same", {"lang": "de"}) for n in range(9)], "all alike"),
    ],
    ids=["few", "blank", "alike"],
)
def test_too_little_is_said_and_nobody_asked(
    place: Place, documents: list[Document], why: str
) -> None:
    vectors = np.eye(64, dtype=np.float32)[: len(documents)]
    place.make(documents, vectors)
    candidate = Counting(SPACES[0])
    named = found(place, [candidate])
    assert (named.verdict, candidate.calls) == (Verdict.UNCLEAR, [])
    assert why in named.reason


@in_postgres
def test_vectors_of_any_length_are_told(place: Place) -> None:
    documents = rows(20)
    place.make(documents, embedded(CANDIDATES[0], documents) * np.float32(3))
    named = found(place)
    assert (named.space, named.normalized) == (SPACES[0], False)
    assert "not of unit norm" in named.refused


@in_postgres
def test_a_store_that_is_lost_at_the_end_takes_no_answer_with_it(place: Place) -> None:
    assert isinstance(place, Table)
    documents = rows(40)
    place.make(documents, embedded(CANDIDATES[0], documents))
    table = Identifier(place.name)
    with psycopg.connect(place.conninfo) as busy:

        def locked(asked: Sequence[str]) -> Matrix:
            """The table is somebody else's from here on, for longer than this store waits."""
            busy.execute(SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(table))
            return CANDIDATES[0].embed_documents(asked)

        candidate = CallableBackend(SPACES[0], locked, CANDIDATES[0].embed_query)
        url = postgres_address(make_conninfo(place.conninfo, options="-clock_timeout=1"))
        named = identify(url, collection=place.name, candidates=[candidate])
    assert (named.verdict, named.space, named.refused) == (Verdict.IDENTIFIED, SPACES[0], "")
    assert "whether adopting is refused could not be looked at: " in named.notes[-1]


def test_a_collection_in_a_shared_table_is_chosen_by_its_scope(postgres: str, schema: str) -> None:
    made = MAKERS["PGVector"](postgres, schema)
    address = postgres_address(postgres)
    options: dict[str, Any] = {"schema": schema, "registry": made.registry}
    candidates = [TaskBackend(V3, seed=1), TaskBackend(SPACES[2], seed=2)]
    with pytest.raises(InvalidInput, match="collection_id=00000000") as refusal:
        identify(address, collection=made.table, candidates=candidates, **options)
    assert "mine" in str(refusal.value)
    named = identify(
        address, collection=made.table, candidates=candidates, layout=made.layout, **options
    )
    assert (named.verdict, named.space) == (Verdict.IDENTIFIED, V3)


@in_postgres
def test_bad_arguments_are_refused_before_anything_is_asked(place: Place) -> None:
    with pytest.raises(InvalidInput, match="no candidates"):
        found(place, [])
    with pytest.raises(InvalidInput, match="sample"):
        found(place, sample=0)
    with pytest.raises(InvalidInput, match="is async"):
        found(place, [AwaitableBackend(TaskBackend())])
    place.make(rows(5), np.eye(64, dtype=np.float32)[:5])
    with pytest.raises(InvalidInput, match="has the vectors 'v'"):
        found(place, layout=Layout(id="key", text="body", slot="w", metadata=()))


@in_postgres
def test_a_layout_of_what_is_not_there_is_refused(place: Place) -> None:
    place.make(rows(5), np.eye(64, dtype=np.float32)[:5])
    with pytest.raises(InvalidInput, match="Layout.text names column 'nothing'"):
        found(place, layout=Layout(id="key", text="nothing", slot="v", metadata=()))


@everywhere
def test_texts_that_are_elsewhere_come_from_a_function(place: Place) -> None:
    documents = rows(20)
    elsewhere = {row.id: f"{row.text}, as it was printed" for row in documents}
    place.make(documents, CANDIDATES[0].embed_documents(list(elsewhere.values())))
    seen = survey(place.address, collection=place.name).proposals[0].layout
    layout = replace(seen, text=lambda ids: [elsewhere[id] for id in ids])
    named = found(place, layout=layout)
    assert (named.verdict, named.space) == (Verdict.IDENTIFIED, SPACES[0])
    assert found(place).verdict is Verdict.NONE
    backend = CANDIDATES[0]
    with open_store(place.address, collection=place.name, backend=backend, layout=layout) as store:
        store.adopt()
        hit = store.search(elsewhere["7"], limit=1)[0]
        assert hit.document.text == elsewhere[hit.document.id]


@in_postgres
def test_the_answer_is_json(place: Place) -> None:
    documents = rows(20)
    place.make(documents, embedded(CANDIDATES[0], documents))
    told = found(place).to_dict()
    assert told["verdict"] == "identified"
    assert told["layout"]["text"] == "body"
    assert told["evidence"][0]["cosine"] == 1.0
