"""A budget is not gone beyond, and is used up as far as it is sure to be enough."""

from __future__ import annotations

import pytest

from samespace.migrate.pacing import Budget, BudgetSpent, most_tokens
from samespace.testing.backends import TaskBackend


def test_no_text_has_more_tokens_than_the_bound_says() -> None:
    assert most_tokens(["", "a b", "日本"]) == [2, 5, 8]


def test_a_budget_says_how_many_texts_it_is_enough_for() -> None:
    budget = Budget(20, TaskBackend(), lambda: 6)
    assert budget.fitting(["abc", None, "abc", "defgh", "i"]) == 4
    assert budget.fitting([]) == 0
    with pytest.raises(BudgetSpent):
        budget.fitting(["a text that is too long", "a"])
    with pytest.raises(BudgetSpent):
        budget.check(["abc", "defghi", "i"])


def test_without_a_budget_all_is_embedded() -> None:
    assert Budget(None, TaskBackend()).fitting(["a"] * 3) == 3
