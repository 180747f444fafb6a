"""What faults are made on."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from samespace.stores.pgvector import embedded


@pytest.fixture
def folder() -> Iterator[Path]:
    """The data folder of a server that may be killed."""
    parent = Path(tempfile.mkdtemp(prefix="samespace-faults-"))
    parent.chmod(0o755)  # the server's account must get through
    yield parent / "postgres"
    embedded.stop(parent / "postgres", force=True)
    shutil.rmtree(parent)
