"""What a migration's commands print can be run as it stands, with the plan, store and backend given here."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.addresses import postgres_address
from tests.audit.poisoning import documents
from tests.cli.running import Caller
from tests.places import database

from samespace import HashingBackend, open_store
from samespace.cli import app
from samespace.cli.printed import as_typed
from samespace.migrate.walking import RUN, typed
from samespace.models import find_model
from samespace.space import EmbeddingSpace


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(monkeypatch, capsys)


def test_refusals_print_the_plan_the_store_and_the_backend_of_this_command(
    postgres: str, call: Caller, tmp_path: Path
) -> None:
    out = tmp_path / "the plan.json"
    with database(postgres) as info:
        at = ("--store", postgres_address(info))
        with open_store(at[1], collection="notes", backend=HashingBackend(64)) as store:
            store.upsert(documents(20))
        new = ("--backend", "hashing@128")
        assert call("migrate", "plan", *at, "-c", "notes", *new, "--out", str(out))[0] == 0
        place = shlex.join(["--plan", str(out), *at])
        given = ("--plan", str(out), *at)
        code, shown, _ = call("migrate", "status", *given)
        assert (code, f"run {place} --backend hashing@128" in shown) == (0, True), shown
        code, _, told = call("migrate", "open", *given, "--force")
        assert (code, f"run {place} --backend hashing@128" in told) == (1, True), told
        assert call("migrate", "run", *given, *new)[0] == 0
        code, _, told = call("migrate", "finish", *given, "--yes")
        assert (code, f"samespace migrate open {place} --veri" in told) == (1, True), told
        with open_store(at[1], collection="notes", backend=HashingBackend(128)) as store:
            store.drop_slot(HashingBackend(64).space)
        code, _, told = call("migrate", "verify", *given, *new)
        again = f"samespace migrate plan {shlex.join(at)} --collection notes --backend hashing@128"
        assert (code, again in told) == (1, True), told


def test_a_store_of_the_environment_is_left_there(
    call: Caller, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SAMESPACE_STORE", f"qdrant:{tmp_path / 'points'}")
    with open_store(
        f"qdrant:{tmp_path / 'points'}", collection="notes", backend="hashing@64"
    ) as store:
        store.upsert(documents(3))
    out = str(tmp_path / "plan.json")
    assert call("migrate", "plan", "-c", "notes", "--backend", "hashing@32", "--out", out)[0] == 0
    _, _, told = call("migrate", "open", "--plan", out, "--force")
    assert f"--plan {out} --backend hashing@32" in told


def test_a_login_is_not_printed() -> None:
    given = ["--plan", "p.json", "--store", "postgresql://me:secret@there/db"]
    command, words = typer.main.get_command(app), ["migrate", "run"]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    for backend in (
        "openai:https://me:secret@there/v1#m@8",
        "openai:https://there/v1?key=secret#m@8",
    ):
        made: Any = command.make_context("run", [*given, "--backend", backend])
        assert as_typed(RUN, made) == RUN.replace("PLAN", "p")


def test_texts_go_to_the_provider_that_made_a_space_or_to_none() -> None:
    model = find_model("jina-embeddings-v3")
    assert model is not None
    space = EmbeddingSpace(model=model.name, dimensions=1024, task="retrieval.passage")
    assert "--backend jina:" in typed(RUN, space, {"backend": "jina-api"})
    for other in (None, {}, {"backend": "openai-compatible"}):
        assert typed(RUN, space, other) == RUN
    assert "--backend hashing@64" in typed(RUN, HashingBackend(64).space)
