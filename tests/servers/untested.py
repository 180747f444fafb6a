"""Which stores the tests ran on, and a loud word about those that could not be had."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager as Offer
from contextlib import ExitStack, contextmanager
from typing import Any, Final, NoReturn, TypeVar

import pytest

REQUIRED: Final = ("PostgreSQL", "Qdrant's local mode", "Elasticsearch")
"""Where a run of all tests with ``CI=true`` fails unless each was used."""
OPTIONAL: Final = ("Qdrant server (REST)", "Qdrant server (gRPC)")
"""What is named if it was not tested, and fails nothing."""

Server = TypeVar("Server")
_used = pytest.StashKey[set[str]]()
_untested = pytest.StashKey[dict[str, str]]()


class NotHere(Exception):
    """A server that cannot be had on this machine, and why."""


def prepare(config: pytest.Config) -> None:
    """Begin a run on no store at all."""
    config.stash[_used] = set()
    config.stash[_untested] = {}


def uses(config: pytest.Config, *stores: str) -> None:
    """Count these stores as tested; fixtures of servers do, other tests say so themselves."""
    config.stash[_used].update(stores)


def leave_out(config: pytest.Config, *stores: str, reason: object) -> NoReturn:
    """Skip the test that asked for these stores, and name them when the run ends."""
    config.stash[_untested].update(dict.fromkeys(stores, str(reason)))
    pytest.skip(f"no {' or '.join(stores)}: {reason}")


@contextmanager
def first_of(
    config: pytest.Config, stores: Sequence[str], *offers: Callable[[], Offer[Server]]
) -> Iterator[Server]:
    """The server of the first offer that can be had; where none can, these stores are left out."""
    with ExitStack() as running:
        try:
            server = running.enter_context(any_of(*offers))
        except NotHere as error:
            leave_out(config, *stores, reason=error)
        yield server


@contextmanager
def any_of(*offers: Callable[[], Offer[Server]]) -> Iterator[Server]:
    """The server of the first offer that can be had; :class:`NotHere` says why none can."""
    reasons: list[str] = []
    with ExitStack() as running:
        for offer in offers:
            try:
                server = running.enter_context(offer())
            except NotHere as error:
                reasons.append(str(error))
                continue
            yield server
            return
    raise NotHere("; ".join(reasons))


def environment(variable: str) -> str:
    """The value of a variable that names a server; :class:`NotHere` if it is not set."""
    if given := os.environ.get(variable):
        return given
    raise NotHere(f"{variable} is not set")


def take_over(config: pytest.Config, told: Mapping[str, Any]) -> None:
    """Count what a worker has used and left out; one that broke down has told nothing."""
    config.stash[_used].update(told.get("used", ()))
    config.stash[_untested].update(told.get("untested", {}))


def finish(session: pytest.Session) -> None:
    """Name what a run of all tests left out; fail it where ``CI=true`` asks for more.

    A worker, which has a part of the tests, tells who gave it that.
    """
    used, untested = session.config.stash[_used], session.config.stash[_untested]
    told: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if told is not None:
        told |= {"used": sorted(used), "untested": untested}
        return
    if not _is_whole(session):
        return
    for store in (*REQUIRED, *OPTIONAL):
        if store not in used:
            untested.setdefault(store, "no test asked for it")
    if os.environ.get("CI") == "true" and not used.issuperset(REQUIRED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def report(config: pytest.Config, reporter: pytest.TerminalReporter) -> None:
    """Name each store that was not tested."""
    for store, reason in config.stash[_untested].items():
        reporter.write_line(f"NOT TESTED: {store}: {reason}", red=True, bold=True)


def _is_whole(session: pytest.Session) -> bool:
    config = session.config
    everywhere = not config.args or config.args == ["tests"]
    return everywhere and not config.getoption("keyword") and session.testscollected > 0
