"""The command line on each of the stores: one address is all that differs."""

from __future__ import annotations

import json
import re
import tomllib
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient
from tests.cli.running import run

from samespace import doctor
from samespace.stores.qdrant.requests import RECORD

STORES = ("embedded", "qdrant", "elasticsearch")
ROOT = Path(__file__).resolve().parents[2]
EXTRAS = {**doctor.STORES, **doctor.OTHERS}


@pytest.fixture
def address(request: pytest.FixtureRequest, tmp_path: Path, pytestconfig: pytest.Config) -> str:
    """Where a store is: the embedded server, a folder of Qdrant's, a node of Elasticsearch."""
    if request.param == "qdrant":
        request.getfixturevalue("qdrant_local")
        return f"qdrant:{tmp_path / 'qdrant'}"
    if request.param == "elasticsearch":
        url: str = request.getfixturevalue("elasticsearch")
        return url.replace("http://", "elasticsearch://")
    return str(request.param)


@pytest.fixture
def collection() -> str:
    return f"c{uuid.uuid4().hex[:12]}"


def examined(home: Path, *arguments: str) -> tuple[int, bool, dict[str, list[str]]]:
    """The exit code of ``doctor --json``, whether the store is usable, what is said by level."""
    done = run(home, "doctor", *arguments, "--json")
    assert done.stderr == ""
    answer: dict[str, Any] = json.loads(done.stdout)
    said: dict[str, list[str]] = {}
    for finding in answer["findings"]:
        said.setdefault(finding["level"], []).append(f"{finding['what']} {finding['mend']}")
    return done.returncode, answer["usable"], said


@pytest.mark.parametrize("address", STORES, indirect=True)
def test_the_life_of_a_collection(
    home: Path, tmp_path: Path, address: str, collection: str
) -> None:
    (tmp_path / "rows.jsonl").write_text(
        '{"id": "x", "text": "blue plums", "lang": "en", "year": 2020}\n'
        '{"id": "y", "text": "blaue Pflaumen", "lang": "de", "year": 2021}\n'
    )
    place = ("--store", address, "--collection", collection)
    done = run(home, "ingest", "rows.jsonl", *place, "--json", cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["written"]) == (0, 2), done.stderr
    again = run(home, "ingest", "rows.jsonl", *place, "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["unchanged"] == 2
    found = run(home, "search", "plums", *place, "--where", "year<2021", "--json")
    assert [hit["id"] for hit in json.loads(found.stdout)] == ["x"]
    told = json.loads(run(home, "info", *place, "--json").stdout)
    assert (told["rows"], told["space"]["model"]) == (2, "samespace-hashing")
    code, usable, said = examined(home, *place)
    assert (code, usable) == (0, True)
    assert f"collection '{collection}' (made by samespace): 2 documents" in " ".join(said["ok"])
    assert any(" answers" in each or " opens" in each for each in said["ok"])
    refused = run(home, "search", "plums", *place, "--backend", "hashing@256")
    assert refused.returncode == 3
    dropped = run(home, "drop", *place, "--yes", "--json")
    assert json.loads(dropped.stdout) == {"name": collection, "rows": 2}


@pytest.mark.parametrize("address", STORES, indirect=True)
def test_a_collection_that_is_not_there_is_said_with_what_makes_it(
    home: Path, address: str, collection: str
) -> None:
    place = ("--store", address, "--collection", collection)
    for command in (("search", "x"), ("info",), ("drop", "--yes")):
        done = run(home, *command, *place)
        assert done.returncode == 1
        assert f"samespace ingest FILES --collection {collection}" in done.stderr
        assert "create()" not in done.stderr
    code, usable, said = examined(home, *place)
    assert (code, usable) == (1, False)
    (problem,) = said["problem"]
    assert f"there is no collection '{collection}'" in problem
    assert f"samespace ingest FILES --collection {collection}" in problem


@pytest.mark.parametrize(
    ("address", "mend"),
    [
        ("qdrant://user:geheim@127.0.0.1:1", "QDRANT_API_KEY"),
        ("elasticsearch://elastic:geheim@127.0.0.1:1", "ELASTIC_PASSWORD"),
        ("mysql://user:geheim@127.0.0.1", "qdrant::memory:"),
        ("postgresql://user:geheim@127.0.0.1/db", "PGPASSWORD"),
    ],
)
@pytest.mark.parametrize("command", [("search", "x"), ("info",), ("doctor",)])
def test_an_address_with_a_secret_is_refused_in_one_line(
    home: Path, command: tuple[str, ...], address: str, mend: str
) -> None:
    done = run(home, *command, "--store", address)
    assert done.returncode == 2
    assert mend in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "geheim" not in done.stderr + done.stdout


@pytest.mark.parametrize("url", ["qdrant://127.0.0.1:1", "elasticsearch://127.0.0.1:1"])
def test_a_server_that_does_not_answer_is_a_problem(home: Path, url: str) -> None:
    code, usable, said = examined(home, "--store", url)
    assert (code, usable) == (1, False)
    assert len(said["problem"]) == 1
    assert "cannot be reached" in said["problem"][0]
    assert "host and port" in said["problem"][0]


def test_what_is_another_server_is_said_to_be_one(home: Path, elasticsearch: str) -> None:
    url = elasticsearch.replace("http://", "qdrant://")
    for command in (("doctor",), ("info",), ("search", "x")):
        done = run(home, *command, "--store", url)
        assert done.returncode == 1
        assert "what answers is not Qdrant" in done.stdout + done.stderr


def test_a_key_in_the_environment_is_shown_nowhere(home: Path) -> None:
    key = "sentinel_4711"
    environment = {
        "QDRANT_API_KEY": key, "ELASTIC_API_KEY": key, "JINA_API_KEY": key,
        "PYTHONWARNINGS": "error:Api key is used:UserWarning",
    }  # fmt: skip
    for url in ("qdrant+https://127.0.0.1:1", "elasticsearch+https://127.0.0.1:1"):
        done = run(home, "doctor", "--store", url, environment=environment, alone=True)
        assert done.returncode == 1
        assert "JINA_API_KEY is set" in done.stdout
        assert key not in done.stdout + done.stderr


def test_a_warning_of_a_driver_is_one_line(home: Path) -> None:
    environment = {"QDRANT_API_KEY": "sentinel_4711"}
    unsafe = ("doctor", "--store", "qdrant://127.0.0.1:1")
    done = run(home, *unsafe, environment=environment, alone=True)
    assert done.stderr == "samespace: warning: Api key is used with an insecure connection.\n"


def test_without_a_store_the_installation_is_examined(home: Path) -> None:
    code, usable, said = examined(home)
    assert (code, usable) == (0, True)
    for extra, names in EXTRAS.items():
        versions = ", ".join(f"{name} {version(name)}" for name in names)
        assert f"{extra}: {versions} " in said["ok"]
    assert f"data in {home / 'postgres'}" in " ".join(said["ok"])
    assert "JINA_API_KEY is not set" in " ".join(said["note"])


WITHOUT = """
import importlib.metadata as metadata
there = metadata.version
def version(name):
    if name in {names}: raise metadata.PackageNotFoundError(name)
    return there(name)
metadata.version = version
"""


@pytest.mark.parametrize(
    ("names", "notes"),
    [
        (
            {"transformers", "uvicorn"},
            {"local": "transformers is", "server": "uvicorn is"},
        ),
        (
            {"sentence-transformers", "torch"},
            {"local": "torch is", "sentence-transformers": "sentence-transformers, torch are"},
        ),
    ],
)
def test_a_missing_extra_is_named_with_what_installs_it(
    home: Path, names: set[str], notes: dict[str, str]
) -> None:
    done = run(home, "doctor", "--json", before=WITHOUT.replace("{names}", repr(names)))
    assert done.returncode == 0, done.stderr
    found = {(each["what"], each["mend"]) for each in json.loads(done.stdout)["findings"]}
    for extra, what in notes.items():
        mend = f'for it, run pip install "samespace[{extra}]"'
        assert (f"{extra}: {what} not installed", mend) in found


def test_an_examination_names_what_the_extras_bring() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for extra, names in EXTRAS.items():
        brought = {re.split(r"[\[<>=]", each)[0] for each in extras[extra]}
        assert brought >= set(names)


def test_a_missing_driver_is_named_with_the_extra_that_brings_it(home: Path) -> None:
    hidden = "import sys; sys.modules['qdrant_client'] = None\n"
    for command in (("info",), ("doctor",)):
        done = run(home, *command, "--store", "qdrant::memory:", before=hidden)
        assert done.returncode == 2
        assert 'pip install "samespace[qdrant]"' in done.stderr


def test_an_examination_is_read_line_by_line(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "not_there"
    done = run(home, "doctor", "--store", f"qdrant:{folder}")
    assert done.returncode == 0
    first, *_ = done.stdout.splitlines()
    assert first.startswith("ok       Qdrant's local mode makes its folder on first use")
    assert "         -> for Jina's models, put a key into it" in done.stdout.splitlines()


def test_a_folder_that_is_not_there_is_made_by_no_reader(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mistyped"
    for command in (("search", "x"), ("info",), ("drop", "--yes"), ("doctor",)):
        done = run(home, *command, "--store", f"qdrant:{folder}", "--collection", "notes")
        assert done.returncode == 1
        assert "there is no collection 'notes'" in done.stdout + done.stderr
    assert not folder.exists()


def test_a_file_in_place_of_a_folder_is_a_problem(home: Path, tmp_path: Path) -> None:
    place = tmp_path / "notes.txt"
    place.write_text("some text")
    code, _, said = examined(home, "--store", f"qdrant:{place}")
    done = run(home, "ingest", str(place), "--store", f"qdrant:{place}")
    assert (code, done.returncode) == (1, 1)
    assert all("is no folder" in each for each in (said["problem"][0], done.stderr))


def test_the_store_may_be_named_in_the_environment(home: Path, tmp_path: Path) -> None:
    environment = {"SAMESPACE_STORE": f"qdrant:{tmp_path / 'there'}"}
    (tmp_path / "a.txt").write_text("some text")
    done = run(home, "ingest", "a.txt", "-c", "named", cwd=tmp_path, environment=environment)
    assert done.returncode == 0, done.stderr
    told = run(home, "doctor", "-c", "named", environment=environment)
    assert "Qdrant's local mode opens" in told.stdout
    assert "collection 'named'" in told.stdout


@pytest.mark.parametrize("address", STORES, indirect=True)
def test_what_raw_writers_may_do_is_told_and_narrowed(
    home: Path, tmp_path: Path, address: str, collection: str
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"id": "x", "text": "blue plums"}\n')
    place = ("--store", address, "--collection", collection)
    assert run(home, "ingest", "rows.jsonl", *place, cwd=tmp_path).returncode == 0
    told = json.loads(run(home, "guard", "check", *place, "--json").stdout)
    assert {row["act"]: row["outcome"] for row in told}["another space's slot"].startswith(
        "refused"
    )
    shown = run(home, "guard", "check", *place)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "un-normalised vector" in shown.stdout
    dry = run(home, "guard", "install", *place, "--dry-run")
    assert ("final_pipeline" in dry.stdout) == address.startswith("elasticsearch")
    assert ("nothing to change" in dry.stdout) != address.startswith("elasticsearch")
    assert ("nothing to change: Qdrant" in dry.stdout) == address.startswith("qdrant")
    printed = run(home, "guard", "install", *place, "--ddl").stdout
    assert ("PUT _ingest/pipeline/" in printed) == bool(printed) == address.startswith("elastic")
    installed = json.loads(run(home, "guard", "install", *place, "--json").stdout)
    assert bool(installed) == address.startswith("elasticsearch")
    printed = run(home, "guard", "remove", *place, "--ddl").stdout
    assert ("/_settings" in printed) == address.startswith("elasticsearch")
    assert run(home, "guard", "remove", *place).returncode == 0
    assert run(home, "drop", *place, "--yes").returncode == 0


def test_a_lost_record_is_written_anew(
    qdrant_local: None, home: Path, tmp_path: Path, collection: str
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"id": "x", "text": "blue plums"}\n')
    place = ("--store", f"qdrant:{tmp_path / 'qdrant'}", "--collection", collection)
    assert run(home, "ingest", "rows.jsonl", *place, cwd=tmp_path).returncode == 0
    client = QdrantClient(path=str(tmp_path / "qdrant"))
    client.update_collection(collection, metadata={RECORD: None})
    client.close()
    done = run(home, "guard", "repair-record", *place, "--backend", "hashing", "--json")
    (slot,) = json.loads(done.stdout)
    assert (slot["state"], slot["pending"], slot["has_canary"]) == ("ready", 0, True)
    assert run(home, "info", *place).returncode == 0
