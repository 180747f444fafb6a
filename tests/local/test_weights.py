"""Where weights come from: the hub's cache, or the real ones, for whoever has them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.local.naive import engine_of
from tests.servers import untested

from samespace.backends.jina_local.checkpoint import REVISION
from samespace.backends.jina_local.client import JinaLocalBackend

GOLDEN = {
    None: (-3.1011, 0.8560, -0.2491),
    "retrieval.query": (-1.9765, 0.7356, -0.4414),
    "retrieval.passage": (-1.7028, 0.5688, -0.8541),
}
"""Components 1 to 3 of the first token's last state, by task, as the model's port documents them."""
SENTENCE = "Jina Embeddings V3 is great for semantic search."
WEIGHTS = "SAMESPACE_TEST_V3"
"""The folder of the real weights."""
ASK = (
    "import time; time.sleep = lambda seconds: None; "  # the hub's client waits before it asks again
    "from samespace import JinaLocalBackend; backend = JinaLocalBackend(device='cpu'); "
    "print(backend.embed_query('text').shape, backend.provenance()['revision'])"
)


def asked(cache: Path) -> subprocess.CompletedProcess[str]:
    """A process that looks into this cache, and at a hub that is not there."""
    hub = {"HF_HUB_CACHE": str(cache), "HF_ENDPOINT": "http://127.0.0.1:1"}
    command = [sys.executable, "-c", ASK]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **hub}
    )


def test_a_pinned_revision_is_found_in_the_cache(checkpoint: Path, tmp_path: Path) -> None:
    snapshots = tmp_path / "models--jinaai--jina-embeddings-v3-hf" / "snapshots"
    whole = REVISION + "0" * (40 - len(REVISION))
    shutil.copytree(checkpoint, snapshots / whole)
    done = asked(tmp_path)
    assert done.stdout == f"(1024,) {whole}\n", done.stderr


def test_a_hub_out_of_reach_is_said(tmp_path: Path) -> None:
    done = asked(tmp_path)
    assert done.returncode
    assert "BackendUnavailable" in done.stderr
    assert "pass a folder" in done.stderr


@pytest.fixture
def weights(pytestconfig: pytest.Config) -> Path:
    folder = os.environ.get(WEIGHTS)
    if folder is None:
        untested.leave_out(pytestconfig, "weights of v3", reason=f"{WEIGHTS} is not set")
    return Path(folder)


@pytest.mark.parametrize("task", GOLDEN, ids=str)
def test_the_real_weights_make_the_states_that_are_known(weights: Path, task: Any) -> None:
    engine = engine_of(JinaLocalBackend(weights, device="cpu", dtype="float32", weight_sets=1))
    ids = engine.tokens.of([SENTENCE], "")[0]
    assert len(ids) == 17
    model = engine.weights.of(task)
    model.set_attn_implementation("sdpa")
    with torch.inference_mode():
        states = model(input_ids=torch.from_numpy(ids.astype(np.int64))[None]).last_hidden_state
    assert states[0, 0, 1:4].tolist() == pytest.approx(GOLDEN[task], abs=2e-4)
