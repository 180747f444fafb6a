"""The contract on backends with one fault each: the test that is about it fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from samespace.backends.hashing import HashingBackend
from samespace.protocols import EmbeddingBackend, Matrix, Usage, Vector
from samespace.testing.backend_contract import EmbeddingBackendContract
from samespace.testing.backends import DistortingBackend, LyingBackend, TaskBackend

SUITE = EmbeddingBackendContract()


class Faulty(TaskBackend):
    """Honest, but for what a subclass changes."""

    def embed_chunks(self, documents: Sequence[Sequence[str]]) -> list[Matrix]:
        return [self.embed_documents(chunks) for chunks in documents]


class DroppingRepeats(TaskBackend):
    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        return super().embed_documents(list(dict.fromkeys(texts)))


class OfItsNeighbours(TaskBackend):
    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        found = super().embed_documents(texts)
        return self._unit(found + 0.1 * found.mean(axis=0, keepdims=True)) if len(texts) else found


class SearchingAsDocuments(TaskBackend):
    def embed_queries(self, texts: Sequence[str]) -> Matrix:
        return self.embed_documents(texts)


class TakingAnything(TaskBackend):
    def embed_documents(self, texts: Any) -> Matrix:
        return super().embed_documents([str(text) for text in texts or ()])


class Miscounting(TaskBackend):
    counts_exactly = True

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]


class AddingUp(TaskBackend):
    def usage(self) -> Usage:
        return Usage(sum(map(len, self.documents + self.queries)))


class Secretive(TaskBackend):
    def provenance(self) -> dict[str, Any]:
        return {"dimensions": 64}


class Chatty(TaskBackend):
    """Its queries one by one are not its queries together."""

    def embed_query(self, text: str) -> Vector:
        vector: Vector = self.embed_documents([text])[0]
        return vector


def turned(vectors: Matrix) -> Matrix:
    return vectors[::-1] if len(vectors) > 1 else vectors


def of_float64(vectors: Matrix) -> Any:
    return vectors.astype(np.float64)


@pytest.mark.parametrize(
    ("make", "test"),
    [
        (lambda: DistortingBackend(TaskBackend(), documents=of_float64), "vectors_are_of_the_space"),
        (lambda: DistortingBackend(TaskBackend(), queries=lambda v: v * 2), "vectors_are_of_the_space"),
        (lambda: DistortingBackend(TaskBackend(), documents=np.ravel), "vectors_are_of_the_space"),
        (lambda: DistortingBackend(TaskBackend(), queries=np.ones_like), "rows_are_in_the_order"),
        (Chatty, "one_query_is_as_the_queries"),
        (DroppingRepeats, "a_text_that_occurs_twice"),
        (lambda: DistortingBackend(TaskBackend(), documents=turned), "does_not_depend"),
        (OfItsNeighbours, "does_not_depend"),
        (SearchingAsDocuments, "queries_are_no_documents"),
        (Miscounting, "exact_counts"),
        (AddingUp, "usage_is_of_the_last_call"),
        (Secretive, "provenance_is_text"),
        (Faulty, "chunks_see_their_document"),
    ],
)  # fmt: skip
def test_a_fault_is_found(make: Callable[[], EmbeddingBackend], test: str) -> None:
    with pytest.raises(AssertionError):
        run(test, make(), make())


def test_what_takes_anything_is_found() -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        SUITE.test_what_is_no_list_of_strings_is_refused_before_anything_is_asked(
            TakingAnything(), int, "a number in a list"
        )


def test_what_refuses_late_is_found() -> None:
    sent = iter(range(9))
    with pytest.raises(AssertionError):
        SUITE.test_a_query_is_a_string(HashingBackend(), lambda: next(sent), None)


def test_a_canary_of_another_model_is_found() -> None:
    with pytest.raises(AssertionError):
        run("its_canary_is_accepted", TaskBackend(), LyingBackend())


def test_what_cannot_do_more_than_embed_is_not_asked_for_more() -> None:
    with pytest.raises(pytest.skip.Exception, match="TaskBackend has not what CountsTokens has"):
        run("tokens_are_counted", TaskBackend(), TaskBackend())


def run(part: str, backend: EmbeddingBackend, other: EmbeddingBackend) -> None:
    """The one test whose name has these words."""
    (name,) = [each for each in dir(SUITE) if each.startswith("test_") and part in each]
    test = getattr(SUITE, name)
    given = {"backend": backend, "other": other, "sent": int}
    names = test.__code__.co_varnames[1 : test.__code__.co_argcount]
    test(**{each: given[each] for each in names})
