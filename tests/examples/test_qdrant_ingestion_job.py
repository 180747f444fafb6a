"""The example that ingests a folder into Qdrant, as it is run."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

import orjson
import pytest

from samespace import HashingBackend, QdrantStore

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "qdrant_ingestion_job.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Some texts and some records, one of them without a text."""
    files = tmp_path / "files"
    files.mkdir()
    (files / "battery.txt").write_text("An empty battery is full again after two hours.\n")
    (files / "display.md").write_text("# Display\n\nTurn the wheel until the display is bright.\n")
    records = [{"id": "r1", "text": "The bell rings twice.", "lang": "en"}, {"id": "r2"}]
    (files / "records.jsonl").write_bytes(b"\n".join(map(orjson.dumps, records)))
    return files


def run(*arguments: object) -> list[str]:
    """The lines that the example prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLE, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_folder_is_ingested_and_searched(folder: Path, qdrant_local: None) -> None:
    first, refused, best, *_ = run(folder, "when is the battery full")
    assert first == "3 written, 0 unchanged, 0 removed"
    assert refused.startswith("refused: ")
    assert "battery" in best


def test_a_second_run_embeds_what_is_new(folder: Path, tmp_path: Path, qdrant_local: None) -> None:
    place = ("--url", tmp_path / "qdrant")
    run(folder, *place)
    (folder / "battery.txt").write_text("The battery is sealed.\n")
    assert run(folder, *place)[0] == "1 written, 2 unchanged, 0 removed"


def test_a_folder_is_ingested_into_a_server(folder: Path, qdrant: str, qdrant_grpc: int) -> None:
    name = f"t{uuid.uuid4().hex[:12]}"
    place = ("--url", qdrant, "--grpc-port", qdrant_grpc, "--collection", name)
    assert run(folder, "bell", *place)[0] == "3 written, 0 unchanged, 0 removed"
    assert run(folder, "bell", *place)[0] == "0 written, 3 unchanged, 0 removed"
    with QdrantStore(qdrant, collection=name, backend=HashingBackend()) as store:
        store.drop()
