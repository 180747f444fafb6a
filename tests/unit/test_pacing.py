"""A budget is not gone beyond, and is used up as far as it is sure to be enough."""

from __future__ import annotations

import pytest

from samespace.migrate.pacing import Budget, BudgetSpent, most_tokens
from samespace.testing.backends import TaskBackend


def test_no_text_has_more_tokens_than_the_bound_says() -> None:
    assert most_tokens(["", "a b", "日本"]) == [2, 5, 8]


async def test_a_budget_says_how_many_texts_it_is_enough_for() -> None:
    budget = Budget(20, TaskBackend(), lambda: 6)
    assert await budget.fitting(["abc", None, "abc", "defgh", "i"]) == 4
    assert await budget.fitting([]) == 0
    with pytest.raises(BudgetSpent):
        await budget.fitting(["a text that is too long", "a"])
    with pytest.raises(BudgetSpent):
        await budget.check(["abc", "defghi", "i"])


async def test_without_a_budget_all_is_embedded() -> None:
    assert await Budget(None, TaskBackend()).fitting(["a"] * 3) == 3


async def test_texts_that_are_embedded_together_are_all_paid_for() -> None:
    budget = Budget(20, TaskBackend(), lambda: 6)
    await budget.check(["abcde", "abcde", "abcde"])
    await budget.check_together(["abcde", "abcde"])
    with pytest.raises(BudgetSpent):
        await budget.check_together(["abcde", "abcde", "abcde"])


async def test_what_costs_nothing_is_done_also_when_more_was_spent_than_was_to_be() -> None:
    budget = Budget(20, TaskBackend(), lambda: 21)
    assert await budget.fitting([None, None, "a"]) == 2
    await budget.check_together([])
