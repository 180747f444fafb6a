# Generated from contract_vectors_async.py by tools/generate_sync.py; change that file, not this one.
"""The promises about vectors: what each backend must do, whatever makes its vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Final, get_args

import numpy as np
import pytest

from samespace.embedding import (
    embed_proving,
    is_async,
    make_canary,
    require_sync,
    uncached,
)
from samespace.errors import BackendUnavailable, EmbeddingError, InvalidInput
from samespace.guard import CANARY_THRESHOLD, Direction
from samespace.protocols import EmbeddingBackend, Matrix
from samespace.testing.answers import NO_TEXTS, ODD_TEXTS, TEXTS, apart, check_sound, farthest
from samespace.testing.gaps import DeclaresGaps
from samespace.testing.together import together
from samespace.vectors import cosines

DIRECTIONS: Final[tuple[Direction, ...]] = get_args(Direction)
AT_ONCE: Final = 6
MakesAsyncBackend = Callable[[], EmbeddingBackend]
Sent = Callable[[], int]


def of(backend: EmbeddingBackend, direction: Direction) -> Callable[..., Matrix]:
    """The method that embeds in a direction."""
    return backend.embed_documents if direction == "documents" else backend.embed_queries


def close(backend: EmbeddingBackend) -> None:
    """Close a backend that has something to close."""
    close: Any = getattr(backend, "close", None)
    if close is not None:
        close()


class VectorsContract(DeclaresGaps):
    """One vector a text, of the space, whatever else is asked with it or at the same time."""

    is_async: ClassVar[bool] = False
    tolerance: ClassVar[float] = 1e-3
    """How far two vectors of one text may be apart, as a share of their length."""
    refuses: ClassVar[tuple[str, ...]] = ()
    """Which of :data:`~samespace.testing.answers.ODD_TEXTS` the backend says it refuses."""

    @pytest.fixture
    def sent(self) -> Sent:
        """How often the model has been asked by now; a subclass that can tell overrides it."""
        return int

    @pytest.fixture
    def backend(self, make: MakesAsyncBackend) -> Iterator[EmbeddingBackend]:
        backend = make()
        yield backend
        close(backend)

    @pytest.fixture
    def other(self, make: MakesAsyncBackend) -> Iterator[EmbeddingBackend]:
        """A handle that was made in the same way."""
        other = make()
        yield other
        close(other)

    def test_it_is_a_backend_of_its_kind(
        self, backend: EmbeddingBackend, other: EmbeddingBackend
    ) -> None:
        assert require_sync(backend) is backend
        assert is_async(backend) == self.is_async
        assert backend.space == backend.space == other.space

    def test_vectors_are_of_the_space(self, backend: EmbeddingBackend) -> None:
        for direction in DIRECTIONS:
            check_sound(of(backend, direction)(TEXTS), backend.space, count=len(TEXTS))
        query = backend.embed_query(TEXTS[0])
        assert query.shape == (backend.space.dimensions,)
        check_sound(query[np.newaxis], backend.space, count=1)

    def test_one_query_is_as_the_queries(self, backend: EmbeddingBackend) -> None:
        alone = np.stack([backend.embed_query(text) for text in TEXTS])
        assert farthest(alone, backend.embed_queries(TEXTS)) <= self.tolerance

    def test_rows_are_in_the_order_of_the_texts(self, backend: EmbeddingBackend) -> None:
        for direction in DIRECTIONS:
            found = of(backend, direction)(TEXTS)
            turned = of(backend, direction)(TEXTS[::-1])
            assert farthest(turned[::-1], found) <= self.tolerance
            for shift in range(1, len(TEXTS)):  # else any order would do
                assert apart(np.roll(found, shift, axis=0), found).min() > self.tolerance

    def test_a_text_that_occurs_twice_has_its_vector_twice(self, backend: EmbeddingBackend) -> None:
        order = [0, 1, 0, 2, 2, 0]
        for direction in DIRECTIONS:
            found = of(backend, direction)([TEXTS[place] for place in order])
            assert farthest(found, of(backend, direction)(TEXTS)[order]) <= self.tolerance

    def test_a_vector_does_not_depend_on_what_is_asked_with_it(
        self, backend: EmbeddingBackend, other: EmbeddingBackend
    ) -> None:
        for direction in DIRECTIONS:
            alone = np.concatenate([of(backend, direction)([text]) for text in TEXTS])
            many = of(other, direction)([*TEXTS, *(f"{text} Twice." for text in TEXTS)])
            assert farthest(many[: len(TEXTS)], alone) <= self.tolerance

    def test_equal_calls_have_equal_answers(
        self, backend: EmbeddingBackend, other: EmbeddingBackend
    ) -> None:
        for direction in DIRECTIONS:
            first = of(backend, direction)(TEXTS)
            for again in (backend, other):
                assert farthest(of(again, direction)(TEXTS), first) <= self.tolerance

    def test_texts_may_be_any_sequence(self, backend: EmbeddingBackend) -> None:
        listed = list(TEXTS)
        for direction in DIRECTIONS:
            found = of(backend, direction)(listed)
            assert farthest(of(backend, direction)(tuple(TEXTS)), found) <= self.tolerance
        assert listed == list(TEXTS)

    def test_no_texts_have_no_vectors_and_ask_nothing(
        self, backend: EmbeddingBackend, sent: Sent
    ) -> None:
        before = sent()
        for direction in DIRECTIONS:
            check_sound(of(backend, direction)([]), backend.space, count=0)
        assert sent() == before

    def test_queries_are_no_documents_where_their_task_is_another(
        self, backend: EmbeddingBackend
    ) -> None:
        if backend.space.query_task == backend.space.task:
            pytest.skip(f"queries and documents of {backend.space} have one task")
        documents = backend.embed_documents(TEXTS)
        assert apart(backend.embed_queries(TEXTS), documents).min() > self.tolerance

    @pytest.mark.parametrize("kind", NO_TEXTS)
    def test_what_is_no_list_of_strings_is_refused_before_anything_is_asked(
        self, backend: EmbeddingBackend, sent: Sent, kind: str
    ) -> None:
        before = sent()
        for direction in DIRECTIONS:
            with pytest.raises(InvalidInput):
                of(backend, direction)(NO_TEXTS[kind])
        assert sent() == before

    @pytest.mark.parametrize("query", [None, 3, b"bytes", ["a"]])
    def test_a_query_is_a_string(self, backend: EmbeddingBackend, sent: Sent, query: Any) -> None:
        before = sent()
        with pytest.raises(InvalidInput):
            backend.embed_query(query)
        assert sent() == before

    @pytest.mark.parametrize("kind", ODD_TEXTS)
    def test_an_odd_text_is_embedded_or_refused(
        self, backend: EmbeddingBackend, sent: Sent, kind: str
    ) -> None:
        for direction in DIRECTIONS:
            before = sent()
            try:
                found = of(backend, direction)([TEXTS[0], ODD_TEXTS[kind]])
            except InvalidInput:
                assert sent() == before
            except EmbeddingError as error:
                assert error.indices == (1,)
            else:
                assert kind not in self.refuses
                check_sound(found, backend.space, count=2)

    def test_calls_at_once_are_as_one_by_one(
        self, backend: EmbeddingBackend, other: EmbeddingBackend
    ) -> None:
        calls = [
            (DIRECTIONS[n % 2], [f"{text} No. {n}" for text in TEXTS[: 1 + n % len(TEXTS)]])
            for n in range(AT_ONCE)
        ]

        def asking(direction: Direction, texts: Sequence[str]) -> Callable[[], Matrix]:
            return lambda: of(backend, direction)(texts)

        found = together([asking(*call) for call in calls])
        for (direction, texts), vectors in zip(calls, found, strict=True):
            assert isinstance(vectors, np.ndarray), vectors
            assert farthest(vectors, of(other, direction)(texts)) <= self.tolerance

    def test_its_canary_is_accepted_by_itself_and_by_another_handle(
        self, backend: EmbeddingBackend, other: EmbeddingBackend
    ) -> None:
        canary = make_canary(backend)
        assert canary.fits(backend.space)
        assert uncached(backend).space == backend.space
        for asked in (backend, other):
            for direction in DIRECTIONS:
                _, answers = embed_proving(asked, direction, TEXTS)
                kept = canary.of(direction).astype(np.float32)
                assert cosines(answers, kept).min() >= CANARY_THRESHOLD

    def test_a_closed_backend_works_or_says_so(self, backend: EmbeddingBackend) -> None:
        before = backend.embed_documents(TEXTS)
        for _ in range(2):
            close(backend)
        for direction in DIRECTIONS:
            try:
                found = of(backend, direction)(TEXTS)
            except BackendUnavailable as error:
                assert "closed" in str(error)
                assert error.indices == ()
            else:
                check_sound(found, backend.space, count=len(before))
