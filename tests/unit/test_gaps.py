"""Gaps that a store declares: counted, told with their reason, and noticed when they close."""

from __future__ import annotations

from typing import ClassVar

import pytest

from samespace.testing.gaps import DeclaresGaps, Gap

pytest_plugins = ["pytester"]

SUITE = """
import pytest
from samespace.testing.gaps import DeclaresGaps, Gap

class Contract(DeclaresGaps):
    def test_kept(self): assert True
    def test_broken(self): assert False

    @pytest.mark.parametrize("n", [1, 2])
    def test_broken_twice(self, n): assert n > 2

    @pytest.fixture
    def ready(self): raise RuntimeError("the store cannot")
    def test_that_cannot_begin(self, ready): assert False

class TestStore(Contract):
    gaps = {GAPS}
"""


def run(pytester: pytest.Pytester, gaps: str) -> pytest.RunResult:
    pytester.makepyfile(SUITE.replace("{GAPS}", gaps))
    return pytester.runpytest_inprocess("-p", "no:randomly", "-p", "no:asyncio", "-rxs")


def test_a_gap_is_told_and_does_not_fail(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """{
        "test_broken": Gap("notimpl", "nobody has asked for it"),
        "test_broken_twice": Gap("notyet", "announced for version 2"),
        "test_that_cannot_begin": Gap("notyet", "announced for version 3"),
        }""",
    )
    result.assert_outcomes(passed=2, xfailed=4)
    result.stdout.fnmatch_lines(["XFAIL*test_broken - notimpl: nobody has asked for it"])
    result.stdout.fnmatch_lines(["*2 passed, 4 xfailed*"])


@pytest.mark.parametrize("kind", ["notimpl", "notyet"])
def test_a_gap_that_has_closed_is_noticed(pytester: pytest.Pytester, kind: str) -> None:
    result = run(pytester, f'{{"test_kept": Gap("{kind}", "it was so once")}}')
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*XPASS(strict)*it was so once*"])


def test_what_is_never_promised_is_skipped_with_its_reason(pytester: pytest.Pytester) -> None:
    never = 'Gap("never", "the store has no order")'
    result = run(
        pytester,
        f'{{"test_broken": {never}, "test_broken_twice": {never}, "test_that_cannot_begin": {never}}}',
    )
    result.assert_outcomes(passed=2, skipped=4)
    result.stdout.fnmatch_lines(["SKIPPED*never: the store has no order"])
    result.stdout.fnmatch_lines(["*2 passed, 4 skipped*"])


def test_what_is_not_declared_fails(pytester: pytest.Pytester) -> None:
    run(pytester, "{}").assert_outcomes(passed=2, failed=3, errors=1)


def test_another_store_still_keeps_the_promise() -> None:
    class Promises(DeclaresGaps):
        def test_kept(self) -> None:
            raise AssertionError

    class Store(Promises):
        gaps: ClassVar = {"test_kept": Gap("never", "not this one")}

    assert [mark.name for mark in vars(Store.test_kept)["pytestmark"]] == ["skip"]
    assert not hasattr(Promises.test_kept, "pytestmark")


def test_a_gap_that_names_no_promise_fails(pytester: pytest.Pytester) -> None:
    result = run(pytester, '{"test_braken": Gap("never", "a slip of the pen")}')
    result.stdout.fnmatch_lines(["*test_braken*"])
    result.assert_outcomes(passed=1, failed=4, errors=1)
