"""Every command that a migration prints is one that the command line takes as it stands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import typer
from tests.audit.poisoning import documents
from tests.contract.ingesting import Place, postgres_place
from tests.migrate.evidence import passing

from samespace import Document, HashingBackend
from samespace.cli import app
from samespace.errors import SamespaceError
from samespace.migrate import (
    Check,
    MigrationPlan,
    Verification,
    abort,
    finish,
    open_slot,
    plan,
    run,
    status,
    verify,
)
from samespace.protocols import VectorStore
from samespace.testing.backends import UNLIKE, TaskBackend

ROWS = documents(12)
OLD, NEW = HashingBackend(64), HashingBackend(96)
TO_NEW, TO_OLD = "--backend hashing@96", "--backend hashing@64"
COMMAND = re.compile(r"samespace migrate [a-z]+(?: --[a-z-]+(?: (?!--)(?:'[^']*'|[\w@.:/-]+))?)*")


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    return postgres_place(request)


@pytest.fixture
def old(place: Place) -> Iterator[VectorStore]:
    with place.open(OLD) as store:
        store.upsert(ROWS)
        yield store


def commands(said: str) -> list[str]:
    """What is printed, each once it was parsed as a shell would have it parsed."""
    found = COMMAND.findall(" ".join(said.split()))
    for each in found:
        words = shlex.split(each)[1:]
        command = typer.main.get_command(app)
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        command.make_context("samespace", words)
    return found


def refused(work: Callable[[], object]) -> str:
    """The commands of a refusal, of which there is one at least."""
    with pytest.raises(SamespaceError) as refusal:
        work()
    found = commands(str(refusal.value))
    assert found, refusal.value
    return "; ".join(found)


def next_of(store: VectorStore, made: MigrationPlan) -> list[str]:
    return commands(status(store, made).lines()[0])


def test_what_is_asked_for_on_the_way_is_printed_with_the_target_s_backend(
    old: VectorStore,
) -> None:
    made = plan(old, NEW)
    right = passing(made)
    assert next_of(old, made)
    assert TO_NEW in refused(lambda: verify(old, NEW, made))
    assert TO_NEW in refused(lambda: open_slot(old, made, right))
    assert run(old, NEW, made).complete
    commands("\n".join(status(old, made).lines()))
    for wrong in (None, replace(right, plan="another"), replace(right, collections=())):
        assert TO_NEW in refused(lambda wrong=wrong: open_slot(old, made, wrong))  # type: ignore[misc]
    failed = Check(name="pending", passed=False, sentence="one is")
    failing = replace(right, collections=(replace(right.collections[0], checks=(failed,)),))
    assert refused(lambda: open_slot(old, made, failing)).count(TO_NEW) == 2
    assert "--verification" in refused(lambda: finish(old, made))
    edited = {**right.to_dict(), "version": "1"}
    refused(lambda: Verification.from_dict(edited))
    refused(lambda: MigrationPlan.from_dict({**made.to_dict(), "version": "1"}))


def test_what_rows_need_is_printed_with_what_embeds_them(old: VectorStore) -> None:
    made = plan(old, NEW)
    assert run(old, NEW, made).complete
    old.upsert([Document("d3", "written with the old model alone")])
    assert commands("\n".join(verify(old, NEW, made, repetitions=1).lines()))
    assert TO_NEW in refused(lambda: open_slot(old, made, passing(made)))
    open_slot(old, made, force=True)
    assert TO_NEW in refused(lambda: finish(old, made))
    old.in_space(NEW.space, backend=NEW).upsert([Document("d3", "with the new one alone")])
    assert f"{TO_NEW} --follow --old-{TO_OLD[2:]}" in refused(lambda: abort(old, made))


def test_what_is_no_longer_as_planned_is_planned_again(old: VectorStore) -> None:
    made = plan(old, NEW)
    assert run(old, NEW, made).complete
    ready = replace(made.collections[0], target_state="ready")
    wrong = replace(made, collections=(ready,))
    assert refused(lambda: verify(old, NEW, wrong)).startswith("samespace migrate plan")
    open_slot(old, made, force=True)
    finish(old, made)
    new = old.in_space(NEW.space)
    assert TO_OLD in refused(lambda: abort(new, made))


def test_a_backend_that_no_spec_names_is_left_to_who_types(place: Place) -> None:
    with place.open(OLD) as store:
        store.upsert(ROWS)
        made = plan(store, TaskBackend(UNLIKE))
        asked = refused(lambda: open_slot(store, made, None))
    assert "--backend SPEC" in asked
