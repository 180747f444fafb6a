# Generated from contract_abilities_async.py by tools/generate_sync.py; change that file, not this one.
"""The promises about what a backend may be able to do beyond embedding; what it cannot is skipped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

import numpy as np
import pytest

from samespace.embedding import embed_chunks
from samespace.errors import InvalidInput, TokenLimitExceeded
from samespace.protocols import (
    CountsTokens,
    EmbeddingBackend,
    Matrix,
    ReportsProvenance,
    ReportsUsage,
    SupportsLateChunking,
    TakesCallsAtOnce,
    TellsEstimates,
    Usage,
)
from samespace.testing.answers import NO_TEXTS, TEXTS, apart, check_sound, farthest
from samespace.testing.contract_vectors import AT_ONCE, Sent, VectorsContract
from samespace.testing.together import together

DOCUMENTS: Final = (TEXTS[:3], TEXTS[3:4], TEXTS[3:])
NO_DOCUMENTS: Final[tuple[Any, ...]] = (["one string"], [TEXTS, ["a", 3]], [TEXTS, None], [5])


def able(backend: object, ability: Any) -> Any:
    """The backend as one that has the ability; the test of one that lacks it ends here."""
    if not isinstance(backend, ability):
        pytest.skip(f"{type(backend).__name__} has not what {ability.__name__} has")
    return backend


class AbilitiesContract(VectorsContract):
    """Each part of :mod:`samespace.protocols` that a backend has, it has as a whole."""

    too_long: ClassVar[str] = ""
    """A text that the backend refuses for its length alone, if there is any."""

    # Tokens

    def test_tokens_are_counted_text_by_text(self, backend: EmbeddingBackend, sent: Sent) -> None:
        counting, before = able(backend, CountsTokens), sent()
        counts = counting.count_tokens(TEXTS)
        assert [type(count) for count in counts] == [int] * len(TEXTS)
        assert min(counts) > 0
        assert counting.count_tokens(TEXTS[::-1]) == counts[::-1]
        assert counting.count_tokens([]) == []
        assert counting.count_tokens([f"{TEXTS[0]} {TEXTS[1]}"]) > counts[:1]
        assert sent() == before

    def test_what_is_no_list_of_strings_has_no_tokens(self, backend: EmbeddingBackend) -> None:
        counting = able(backend, CountsTokens)
        for wrong in NO_TEXTS.values():
            with pytest.raises(InvalidInput):
                counting.count_tokens(wrong)

    def test_exact_counts_are_what_is_used(self, backend: EmbeddingBackend) -> None:
        counting, using = able(backend, CountsTokens), able(backend, ReportsUsage)
        backend.embed_documents(TEXTS)
        counts = counting.count_tokens(TEXTS)
        if not able(backend, TellsEstimates).counts_exactly:
            pytest.skip("it estimates")
        assert using.usage().tokens == sum(counts)

    def test_usage_is_of_the_last_call(self, backend: EmbeddingBackend) -> None:
        using = able(backend, ReportsUsage)
        assert using.usage() == Usage(0)
        backend.embed_documents(TEXTS)
        many = using.usage()
        backend.embed_query(f"{TEXTS[0]} Alone.")
        assert many.tokens > using.usage().tokens > 0
        assert many.truncated == using.usage().truncated == ()
        backend.embed_documents([])
        assert using.usage() == Usage(0)

    def test_what_is_refused_at_once_costs_nothing(self, backend: EmbeddingBackend) -> None:
        using, wrong = able(backend, ReportsUsage), ["a", None]
        calls: list[Callable[[], Any]] = [
            lambda: backend.embed_documents(wrong),  # type: ignore[arg-type]
            lambda: backend.embed_queries(wrong),  # type: ignore[arg-type]
        ]
        if isinstance(backend, SupportsLateChunking):
            calls.append(lambda: _chunks(backend, [wrong]))
        for number, call in enumerate(calls):
            backend.embed_documents([f"{TEXTS[0]} No. {number}"])
            with pytest.raises(InvalidInput):
                call()
            assert using.usage() == Usage(0)

    def test_usage_is_of_the_own_task_or_thread(
        self, backend: EmbeddingBackend, other: EmbeddingBackend
    ) -> None:
        using, alone = able(backend, ReportsUsage), able(other, ReportsUsage)

        def asking(count: int) -> Callable[[], Usage]:
            def ask() -> Usage:
                backend.embed_documents([f"{text} No. {count}" for text in TEXTS[:count]])
                found: Usage = using.usage()
                return found

            return ask

        backend.embed_documents(TEXTS)
        own = using.usage()
        counts = [1 + n % len(TEXTS) for n in range(AT_ONCE - 1)]
        found = together([asking(count) for count in counts])
        assert using.usage() == own
        for count, usage in zip(counts, found, strict=True):
            other.embed_documents([f"{text} No. {count}" for text in TEXTS[:count]])
            assert usage == alone.usage()

    def test_a_text_that_is_too_long_is_named(self, backend: EmbeddingBackend) -> None:
        if not self.too_long:
            pytest.skip("no text is too long for it")
        for ask in (backend.embed_documents, backend.embed_queries):
            with pytest.raises(TokenLimitExceeded) as refused:
                ask([TEXTS[0], self.too_long, TEXTS[1], self.too_long])
            assert refused.value.indices == (1, 3)
        with pytest.raises(TokenLimitExceeded) as refused:
            backend.embed_query(self.too_long)
        assert refused.value.indices == (0,)

    # Late chunking

    def test_chunks_have_a_matrix_a_document(self, backend: EmbeddingBackend) -> None:
        able(backend, SupportsLateChunking)
        for matrix, chunks in zip(_chunks(backend, DOCUMENTS), DOCUMENTS, strict=True):
            check_sound(matrix, backend.space, count=len(chunks))

    def test_chunks_see_their_document_and_no_other(self, backend: EmbeddingBackend) -> None:
        able(backend, SupportsLateChunking)
        together = _chunks(backend, DOCUMENTS)
        for matrix, chunks in zip(together, DOCUMENTS, strict=True):
            alone = _chunks(backend, [chunks])
            assert farthest(alone[0], matrix) <= self.tolerance
        apiece = np.concatenate(_chunks(backend, [[text] for text in DOCUMENTS[0]]))
        assert apart(together[0], apiece).min() > self.tolerance

    def test_a_document_without_chunks_has_no_vectors(
        self, backend: EmbeddingBackend, sent: Sent
    ) -> None:
        able(backend, SupportsLateChunking)
        before = sent()
        assert _chunks(backend, []) == []
        for matrix in _chunks(backend, [[], []]):
            check_sound(matrix, backend.space, count=0)
        assert sent() == before
        assert [len(each) for each in _chunks(backend, [[], TEXTS[:2], []])] == [0, 2, 0]

    def test_what_are_no_lists_of_chunks_is_refused_before_anything_is_asked(
        self, backend: EmbeddingBackend, sent: Sent
    ) -> None:
        able(backend, SupportsLateChunking)
        before = sent()
        for wrong in NO_DOCUMENTS:
            with pytest.raises(InvalidInput):
                _chunks(backend, wrong)
        assert sent() == before

    # What it says of itself

    def test_provenance_is_text_by_name(
        self, backend: EmbeddingBackend, other: EmbeddingBackend
    ) -> None:
        said = able(backend, ReportsProvenance).provenance()
        assert isinstance(said, Mapping)
        assert said
        assert {type(each) for pair in said.items() for each in pair} == {str}
        backend.embed_documents(TEXTS)
        assert dict(able(backend, ReportsProvenance).provenance()) == dict(said)
        assert dict(able(other, ReportsProvenance).provenance()) == dict(said)

    def test_calls_at_once_are_a_number(self, backend: EmbeddingBackend) -> None:
        calls = able(backend, TakesCallsAtOnce).calls_at_once
        assert type(calls) is int
        assert calls >= 1


def _chunks(backend: EmbeddingBackend, documents: Any) -> list[Matrix]:
    return embed_chunks(backend, documents)[0]
