"""``samespace migrate run`` says what it did not do, and notes only runs that have begun."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.addresses import postgres_address
from tests.cli.running import Caller
from tests.places import database

from samespace import Document, HashingBackend, open_store
from samespace.migrate import finish, open_slot, plan, read_notes
from samespace.testing.corpus import texts

OLD, NEW = HashingBackend(32), HashingBackend(64)
ROWS = [Document(str(number), text) for number, text in enumerate(texts(10))]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(monkeypatch, capsys)


def test_a_run_of_a_finished_plan_is_refused_and_leaves_no_note(
    postgres: str, call: Caller, tmp_path: Path
) -> None:
    with database(postgres) as conninfo:
        address, out = postgres_address(conninfo), tmp_path / "plan.json"
        names = ("notes", "more")
        stores = [open_store(address, collection=name, backend=OLD) for name in names]
        for store in stores:
            store.upsert(ROWS)
        made = plan(stores, NEW)
        out.write_text(json.dumps(made.to_dict()))
        asked = (
            "migrate",
            "run",
            "--plan",
            str(out),
            "--backend",
            "hashing@64",
            "--store",
            address,
        )
        assert call(*asked, "--batch-size", "0")[0] != 0
        assert read_notes(out, made.hash) == ()
        assert call(*asked)[0] == 0
        [note] = before = read_notes(out, made.hash)
        assert (note.complete, note.filled) == (True, 20)
        open_slot(stores, made, force=True)
        finish(stores[:1], made)
        code, said, _ = call(*asked)
        assert (code, "every row of the other collections" in said) == (0, True)
        before = read_notes(out, made.hash)
        finish(stores, made)
        code, said, told = call(*asked)
        assert (code, said) == (1, "")
        assert "this plan is finished" in told
        assert read_notes(out, made.hash) == before
        for store in stores:
            store.close()
