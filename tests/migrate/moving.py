"""A process that plans, runs and verifies a migration of many rows: ``main``, in a process of its own.

It prints how much memory it held at its most after each, beyond what it held before.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tests.contract.ingesting import Place
from tests.faults.ingesting import say

from samespace import HashingBackend, Index
from samespace.migrate import MigrationRun, plan, verify

OLD: Final = HashingBackend(16)
NEW: Final = HashingBackend(32)
FLAT: Final = Index(kind="flat")
"""No graph, which takes minutes of the server and nothing of the process."""


def most_resident() -> int:
    """Bytes of memory that this process has held at its most."""
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(line.split()[1])


def main(place: dict[str, Any]) -> None:
    flat = {"index": FLAT} if place["kind"] == "PgVectorStore" else {}
    with Place(**place).open(OLD, **flat) as store:
        store.count()  # which loads the driver
        before = most_resident()
        found = plan(store, NEW)
        grown = {"plan": most_resident() - before}
        done = MigrationRun(store, NEW, found).run()
        grown["run"] = most_resident() - before
        verify(store, NEW, found, sample=50, repetitions=1)
        grown["verify"] = most_resident() - before
    say(json.dumps({"grown": grown, "filled": done.filled, "complete": done.complete}))
