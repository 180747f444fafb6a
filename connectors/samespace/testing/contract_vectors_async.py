"""The promises about vectors: what each backend must do, whatever makes its vectors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, ClassVar, Final, get_args

import numpy as np
import pytest

from samespace.embedding import (
    embed_proving_async,
    is_async,
    make_canary_async,
    require_any,
    uncached,
)
from samespace.errors import BackendUnavailable, EmbeddingError, InvalidInput
from samespace.guard import CANARY_THRESHOLD, Direction
from samespace.protocols import AsyncEmbeddingBackend, Matrix
from samespace.testing.answers import NO_TEXTS, ODD_TEXTS, TEXTS, apart, check_sound, farthest
from samespace.testing.gaps import DeclaresGaps
from samespace.testing.together import together_async
from samespace.vectors import cosines

DIRECTIONS: Final[tuple[Direction, ...]] = get_args(Direction)
AT_ONCE: Final = 6
MakesAsyncBackend = Callable[[], AsyncEmbeddingBackend]
Sent = Callable[[], int]


def of(backend: AsyncEmbeddingBackend, direction: Direction) -> Callable[..., Awaitable[Matrix]]:
    """The method that embeds in a direction."""
    return backend.embed_documents if direction == "documents" else backend.embed_queries


async def close_async(backend: AsyncEmbeddingBackend) -> None:
    """Close a backend that has something to close."""
    close: Any = getattr(backend, "close", None)
    if close is not None:
        await close()


class AsyncVectorsContract(DeclaresGaps):
    """One vector a text, of the space, whatever else is asked with it or at the same time."""

    is_async: ClassVar[bool] = True
    tolerance: ClassVar[float] = 1e-3
    """How far two vectors of one text may be apart, as a share of their length."""
    refuses: ClassVar[tuple[str, ...]] = ()
    """Which of :data:`~samespace.testing.answers.ODD_TEXTS` the backend says it refuses."""

    @pytest.fixture
    def sent(self) -> Sent:
        """How often the model has been asked by now; a subclass that can tell overrides it."""
        return int

    @pytest.fixture
    async def backend(self, make: MakesAsyncBackend) -> AsyncIterator[AsyncEmbeddingBackend]:
        backend = make()
        yield backend
        await close_async(backend)

    @pytest.fixture
    async def other(self, make: MakesAsyncBackend) -> AsyncIterator[AsyncEmbeddingBackend]:
        """A handle that was made in the same way."""
        other = make()
        yield other
        await close_async(other)

    def test_it_is_a_backend_of_its_kind(
        self, backend: AsyncEmbeddingBackend, other: AsyncEmbeddingBackend
    ) -> None:
        assert require_any(backend) is backend
        assert is_async(backend) == self.is_async
        assert backend.space == backend.space == other.space

    async def test_vectors_are_of_the_space(self, backend: AsyncEmbeddingBackend) -> None:
        for direction in DIRECTIONS:
            check_sound(await of(backend, direction)(TEXTS), backend.space, count=len(TEXTS))
        query = await backend.embed_query(TEXTS[0])
        assert query.shape == (backend.space.dimensions,)
        check_sound(query[np.newaxis], backend.space, count=1)

    async def test_one_query_is_as_the_queries(self, backend: AsyncEmbeddingBackend) -> None:
        alone = np.stack([await backend.embed_query(text) for text in TEXTS])
        assert farthest(alone, await backend.embed_queries(TEXTS)) <= self.tolerance

    async def test_rows_are_in_the_order_of_the_texts(self, backend: AsyncEmbeddingBackend) -> None:
        for direction in DIRECTIONS:
            found = await of(backend, direction)(TEXTS)
            turned = await of(backend, direction)(TEXTS[::-1])
            assert farthest(turned[::-1], found) <= self.tolerance
            for shift in range(1, len(TEXTS)):  # else any order would do
                assert apart(np.roll(found, shift, axis=0), found).min() > self.tolerance

    async def test_a_text_that_occurs_twice_has_its_vector_twice(
        self, backend: AsyncEmbeddingBackend
    ) -> None:
        order = [0, 1, 0, 2, 2, 0]
        for direction in DIRECTIONS:
            found = await of(backend, direction)([TEXTS[place] for place in order])
            assert farthest(found, (await of(backend, direction)(TEXTS))[order]) <= self.tolerance

    async def test_a_vector_does_not_depend_on_what_is_asked_with_it(
        self, backend: AsyncEmbeddingBackend, other: AsyncEmbeddingBackend
    ) -> None:
        for direction in DIRECTIONS:
            alone = np.concatenate([await of(backend, direction)([text]) for text in TEXTS])
            many = await of(other, direction)([*TEXTS, *(f"{text} Twice." for text in TEXTS)])
            assert farthest(many[: len(TEXTS)], alone) <= self.tolerance

    async def test_equal_calls_have_equal_answers(
        self, backend: AsyncEmbeddingBackend, other: AsyncEmbeddingBackend
    ) -> None:
        for direction in DIRECTIONS:
            first = await of(backend, direction)(TEXTS)
            for again in (backend, other):
                assert farthest(await of(again, direction)(TEXTS), first) <= self.tolerance

    async def test_texts_may_be_any_sequence(self, backend: AsyncEmbeddingBackend) -> None:
        listed = list(TEXTS)
        for direction in DIRECTIONS:
            found = await of(backend, direction)(listed)
            assert farthest(await of(backend, direction)(tuple(TEXTS)), found) <= self.tolerance
        assert listed == list(TEXTS)

    async def test_no_texts_have_no_vectors_and_ask_nothing(
        self, backend: AsyncEmbeddingBackend, sent: Sent
    ) -> None:
        before = sent()
        for direction in DIRECTIONS:
            check_sound(await of(backend, direction)([]), backend.space, count=0)
        assert sent() == before

    async def test_queries_are_no_documents_where_their_task_is_another(
        self, backend: AsyncEmbeddingBackend
    ) -> None:
        if backend.space.query_task == backend.space.task:
            pytest.skip(f"queries and documents of {backend.space} have one task")
        documents = await backend.embed_documents(TEXTS)
        assert apart(await backend.embed_queries(TEXTS), documents).min() > self.tolerance

    @pytest.mark.parametrize("kind", NO_TEXTS)
    async def test_what_is_no_list_of_strings_is_refused_before_anything_is_asked(
        self, backend: AsyncEmbeddingBackend, sent: Sent, kind: str
    ) -> None:
        before = sent()
        for direction in DIRECTIONS:
            with pytest.raises(InvalidInput):
                await of(backend, direction)(NO_TEXTS[kind])
        assert sent() == before

    @pytest.mark.parametrize("query", [None, 3, b"bytes", ["a"]])
    async def test_a_query_is_a_string(
        self, backend: AsyncEmbeddingBackend, sent: Sent, query: Any
    ) -> None:
        before = sent()
        with pytest.raises(InvalidInput):
            await backend.embed_query(query)
        assert sent() == before

    @pytest.mark.parametrize("kind", ODD_TEXTS)
    async def test_an_odd_text_is_embedded_or_refused(
        self, backend: AsyncEmbeddingBackend, sent: Sent, kind: str
    ) -> None:
        for direction in DIRECTIONS:
            before = sent()
            try:
                found = await of(backend, direction)([TEXTS[0], ODD_TEXTS[kind]])
            except InvalidInput:
                assert sent() == before
            except EmbeddingError as error:
                assert error.indices == (1,)
            else:
                assert kind not in self.refuses
                check_sound(found, backend.space, count=2)

    async def test_calls_at_once_are_as_one_by_one(
        self, backend: AsyncEmbeddingBackend, other: AsyncEmbeddingBackend
    ) -> None:
        calls = [
            (DIRECTIONS[n % 2], [f"{text} No. {n}" for text in TEXTS[: 1 + n % len(TEXTS)]])
            for n in range(AT_ONCE)
        ]

        def asking(direction: Direction, texts: Sequence[str]) -> Callable[[], Awaitable[Matrix]]:
            return lambda: of(backend, direction)(texts)

        found = await together_async([asking(*call) for call in calls])
        for (direction, texts), vectors in zip(calls, found, strict=True):
            assert isinstance(vectors, np.ndarray), vectors
            assert farthest(vectors, await of(other, direction)(texts)) <= self.tolerance

    async def test_its_canary_is_accepted_by_itself_and_by_another_handle(
        self, backend: AsyncEmbeddingBackend, other: AsyncEmbeddingBackend
    ) -> None:
        canary = await make_canary_async(backend)
        assert canary.fits(backend.space)
        assert uncached(backend).space == backend.space
        for asked in (backend, other):
            for direction in DIRECTIONS:
                _, answers = await embed_proving_async(asked, direction, TEXTS)
                kept = canary.of(direction).astype(np.float32)
                assert cosines(answers, kept).min() >= CANARY_THRESHOLD

    async def test_a_closed_backend_works_or_says_so(self, backend: AsyncEmbeddingBackend) -> None:
        before = await backend.embed_documents(TEXTS)
        for _ in range(2):
            await close_async(backend)
        for direction in DIRECTIONS:
            try:
                found = await of(backend, direction)(TEXTS)
            except BackendUnavailable as error:
                assert "closed" in str(error)
                assert error.indices == ()
            else:
                check_sound(found, backend.space, count=len(before))
