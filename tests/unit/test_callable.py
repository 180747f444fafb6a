"""Functions as a backend: called as given, and not believed."""

from __future__ import annotations

import numpy as np
import pytest

from samespace import CallableBackend, EmbeddingSpace
from samespace.errors import BadResponse, InvalidInput

SPACE = EmbeddingSpace(model="own", dimensions=2)
V3 = EmbeddingSpace(model="jina-embeddings-v3", dimensions=2, task="retrieval.passage")


def test_documents_and_queries_go_to_their_own_functions() -> None:
    backend = CallableBackend(
        V3, lambda texts: [[1.0, 0.0] for _ in texts], lambda text: [0.0, 1.0]
    )
    assert backend.embed_documents(["a", "b"]).tolist() == [[1, 0], [1, 0]]
    assert backend.embed_queries(["a", "b"]).tolist() == [[0, 1], [0, 1]]
    assert backend.embed_query("a").tolist() == [0, 1]
    assert backend.embed_query("a").dtype == np.float32


def test_queries_are_embedded_as_documents_where_nothing_else_is_said() -> None:
    backend = CallableBackend(SPACE, lambda texts: [[0.6, 0.8] for _ in texts])
    assert backend.embed_query("a") == pytest.approx([0.6, 0.8])
    assert backend.embed_queries(["a", "b"]).shape == (2, 2)


def test_a_space_whose_queries_differ_needs_both() -> None:
    with pytest.raises(InvalidInput, match="embed_query"):
        CallableBackend(V3, lambda texts: [[1.0, 0.0] for _ in texts])


def test_a_ragged_answer_is_a_bad_one_for_queries_too() -> None:
    backend = CallableBackend(SPACE, lambda texts: [[1.0], [1.0, 0.0]])
    for ask in (backend.embed_query, backend.embed_documents, backend.embed_queries):
        with pytest.raises(BadResponse, match="regular array"):
            ask("ab")


def test_no_queries_ask_nothing() -> None:
    backend = CallableBackend(SPACE, lambda texts: [[1.0, 0.0] for _ in texts])
    assert backend.embed_queries([]).shape == (0, 2)


def test_no_texts_no_vectors() -> None:
    backend = CallableBackend(V3, lambda texts: np.empty((0, 2)), lambda text: [1.0, 0.0])
    assert backend.embed_documents([]).shape == (0, 2)
    assert backend.embed_queries([]).shape == (0, 2)


def test_what_the_functions_return_is_checked() -> None:
    backend = CallableBackend(V3, lambda texts: [[1.0, 0.0]], lambda text: [3.0, 4.0])
    with pytest.raises(BadResponse, match="2 vector"):
        backend.embed_documents(["a", "b"])
    with pytest.raises(BadResponse, match="norm 5"):
        backend.embed_query("a")


def test_what_the_functions_raise_passes_through() -> None:
    def fail(texts: object) -> list[list[float]]:
        raise LookupError("no such model")

    with pytest.raises(LookupError, match="no such model"):
        CallableBackend(SPACE, fail).embed_query("a")


def test_a_space_is_asked_for() -> None:
    with pytest.raises(InvalidInput, match="EmbeddingSpace"):
        CallableBackend("jina-embeddings-v3", lambda texts: [])  # type: ignore[arg-type]
