"""Weights that are fetched from a hub: all that are needed, and no longer than somebody waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.local.hub import COMMIT, Hub, hub

ASK = (
    "from samespace import JinaLocalBackend; backend = JinaLocalBackend(device='cpu'); "
    "print(backend.embed_query('text').shape, backend.provenance()['revision'])"
)
WAITS = {
    "sync": "from samespace import JinaLocalBackend as B; B(device='cpu').embed_query('text')",
    "async": "import asyncio; from samespace import AsyncJinaLocalBackend as B; "
    "asyncio.run(B(device='cpu').embed_query('text'))",
}


def started(script: str, there: Hub, cache: Path) -> subprocess.Popen[str]:
    """A process that has an empty cache, and a hub."""
    said = {"HF_HUB_CACHE": str(cache), "HF_ENDPOINT": f"http://127.0.0.1:{there.server_port}"}
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **said},
    )


def test_what_is_needed_is_fetched(checkpoint: Path, tmp_path: Path) -> None:
    with hub(checkpoint) as there, started(ASK, there, tmp_path) as process:
        said, told = process.communicate(timeout=100)
    assert said == f"(1024,) {COMMIT}\n", told


@pytest.mark.parametrize("kind", WAITS)
def test_ctrl_c_ends_a_program_that_fetches(checkpoint: Path, tmp_path: Path, kind: str) -> None:
    with (
        hub(checkpoint, stops_at="model.safetensors") as there,
        started(WAITS[kind], there, tmp_path) as process,
    ):
        assert there.stopped.wait(100)
        process.send_signal(signal.SIGINT)
        try:
            _, told = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGINT
    assert told.rstrip().endswith("KeyboardInterrupt")
