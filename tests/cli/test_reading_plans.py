"""What a command makes of the file that ``--plan`` names."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from samespace import HashingBackend, QdrantStore
from samespace.cli.options import read_plan
from samespace.errors import InvalidInput
from samespace.migrate import plan


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    with QdrantStore(":memory:", collection="notes", backend=HashingBackend(32)) as store:
        store.create()
        made = plan(store, HashingBackend(64))
    path = tmp_path / "plan.json"
    path.write_bytes(orjson.dumps(made.to_dict()))
    assert read_plan(path).to_dict() == made.to_dict()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"null", b'{"format": 1}'])
def test_what_is_no_plan_is_refused_with_what_mends_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="samespace migrate plan"):
        read_plan(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InvalidInput, match=path.name):
            read_plan(path)
