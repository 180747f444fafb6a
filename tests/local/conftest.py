"""Checkpoints that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.local.checkpoints import make_checkpoint
from tests.local.naive import Naive
from tests.servers import untested

from samespace.backends.jina_local.client import JinaLocalBackend


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "v3")


@pytest.fixture(scope="session")
def local(checkpoint: Path) -> JinaLocalBackend:
    return JinaLocalBackend(checkpoint, device="cpu", token_budget=2000)


@pytest.fixture(scope="session")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For long texts: attention takes the square of their length in each layer."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "shallow", layers=1)


@pytest.fixture(scope="session")
def naive(checkpoint: Path) -> Naive:
    return Naive(checkpoint, "retrieval.passage")


@pytest.fixture
def gpu(pytestconfig: pytest.Config) -> str:
    if not torch.cuda.is_available():
        untested.leave_out(pytestconfig, "GPU", reason="torch sees none on this machine")
    return "cuda"
