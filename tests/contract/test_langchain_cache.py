"""The canary and LangChain's own cache of embeddings, unmodified."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.contract import langchain_cache
from tests.contract.test_langchain import PYTHON

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(
        not PYTHON.exists(), reason="LangChain is not installed: python tools/install.py peers"
    ),
]
WHERE = "import sysconfig; print(sysconfig.get_path('purelib'))"


@pytest.mark.usefixtures("qdrant_local")
def test_a_cache_does_not_answer_for_a_model_that_was_exchanged(tmp_path: Path) -> None:
    found = subprocess.run([PYTHON, "-c", WHERE], capture_output=True, text=True, check=True)
    command = [sys.executable, langchain_cache.__file__, found.stdout.strip(), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["asked"] == [len(langchain_cache.ROWS), 1]  # the second handle asked nothing
    first, second, exchanged = answer["said"]
    assert first == second == [None, None]
    assert all("suggests another model" in (said or "") for said in exchanged)
