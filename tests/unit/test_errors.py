"""The error tree: as drawn, picklable, and quoting little of what it was given."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samespace import errors
from samespace.documents import Rejected, WriteReport
from samespace.errors import (
    EXCERPT_LENGTH,
    EmbeddingError,
    InvalidInput,
    PartialWrite,
    SamespaceError,
    SpaceMismatch,
    excerpt,
)
from samespace.space import EmbeddingSpace, differences

STORED = EmbeddingSpace(model="jina-embeddings-v3", dimensions=1024, task="retrieval.passage")
OFFERED = EmbeddingSpace(model="jina-embeddings-v2-base-en", dimensions=768)
REPORT = WriteReport(
    written=2, rejected=(Rejected("a" * 200, InvalidInput("text is blank")),), tokens=7
)

_DRAWN = re.compile(r"^    (?P<stem>[│ ]*)(?P<branch>[├└]── )?(?P<name>[A-Z]\w+)", re.MULTILINE)


def drawn_tree() -> set[tuple[str, str]]:
    """Child and parent, as the module's docstring draws them."""
    pairs, ancestors = set(), ["Exception"]
    for line in _DRAWN.finditer(errors.__doc__ or ""):
        depth = 1 + (len(line["stem"] + line["branch"]) // 4 if line["branch"] else 0)
        ancestors[depth:] = [line["name"]]
        pairs.add((line["name"], ancestors[depth - 1]))
    return pairs


def real_tree() -> set[tuple[str, str]]:
    """Child and parent of every error of the module; InvalidInput is a ValueError besides."""
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, SamespaceError)
    ]
    return {(kind.__name__, kind.__bases__[0].__name__) for kind in kinds}


def one_of_each() -> list[SamespaceError]:
    """An instance of every error."""
    special: dict[type[SamespaceError], SamespaceError] = {
        PartialWrite: PartialWrite(REPORT),
        SpaceMismatch: SpaceMismatch(
            "the spaces differ",
            stored=STORED,
            offered=OFFERED,
            differences=differences(STORED, OFFERED),
        ),
    }
    made = []
    for name, _ in sorted(real_tree()):
        kind: type[SamespaceError] = getattr(errors, name)
        plain = {"indices": (1, 4)} if issubclass(kind, EmbeddingError) else {}
        made.append(special.get(kind) or kind("what, where and how to mend it", **plain))
    return made


EVERY_ERROR = pytest.mark.parametrize("error", one_of_each(), ids=lambda e: type(e).__name__)


def test_the_drawn_tree_is_the_real_one() -> None:
    assert drawn_tree() == real_tree()
    assert len(drawn_tree()) == 20


def test_a_wrong_argument_is_a_value_error_too() -> None:
    assert issubclass(InvalidInput, ValueError)


# Pickling


def state(error: SamespaceError) -> dict[str, Any]:
    return {**error.__dict__, "report": repr(error.report)}


@EVERY_ERROR
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_can_be_pickled(error: SamespaceError, protocol: int) -> None:
    again = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301  our own bytes
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert state(again) == state(error)


@EVERY_ERROR
def test_every_error_can_be_copied(error: SamespaceError) -> None:
    for again in (copy.copy(error), copy.deepcopy(error)):
        assert str(again) == str(error)
        assert state(again) == state(error)


def test_the_report_of_a_cut_short_write_travels_along() -> None:
    error = errors.StoreUnavailable("the server went away")
    error.report = WriteReport(written=3)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
    assert again.report == WriteReport(written=3)
    assert errors.StoreUnavailable("another").report is None


def test_a_mismatch_carries_its_spaces_and_differences() -> None:
    error = next(e for e in one_of_each() if isinstance(e, SpaceMismatch))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
    assert (again.stored, again.offered) == (STORED, OFFERED)
    assert [d.field for d in again.differences] == ["model", "dimensions", "task"]


def test_an_embedding_error_names_the_texts() -> None:
    error = errors.TokenLimitExceeded("too long", indices=[3, 5])
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
    assert error.indices == again.indices == (3, 5)
    assert EmbeddingError("no").indices == ()


# Messages


def test_a_partial_write_says_how_many_and_which_first() -> None:
    error = PartialWrite(REPORT)
    assert error.report is REPORT
    assert str(error).startswith("1 document(s) refused, 2 written; first: 'aaaa")
    assert "text is blank" in str(error)
    assert 'on_error="report"' in str(error)


def test_a_partial_write_quotes_little_of_an_id() -> None:
    assert "a" * EXCERPT_LENGTH not in str(PartialWrite(REPORT))


ANYTHING = st.recursive(
    st.none() | st.integers() | st.floats() | st.binary() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(ANYTHING)
def test_an_excerpt_is_short_and_on_one_line(value: object) -> None:
    shown = excerpt(value)
    assert len(shown) <= EXCERPT_LENGTH
    assert shown.isprintable()
    shown.encode()  # no lone surrogate is left


@given(st.text(max_size=10))
def test_a_short_value_is_shown_whole(value: str) -> None:
    shown = excerpt(value)
    assert shown == repr(value)


def test_a_long_value_ends_in_an_ellipsis() -> None:
    assert excerpt("x" * 78) == repr("x" * 78)
    assert excerpt("x" * 79) == "'" + "x" * 77 + "…'"
    assert excerpt("x" * 10_000_000) == excerpt("x" * 79)
