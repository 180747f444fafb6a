"""A process that audits: ``main``, in a process of its own.

It prints a line for each call of the backend and each batch that was noted, so that it can be killed
anywhere; how many texts were embedded is appended to a file, which outlives it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.contract.ingesting import Place
from tests.faults.ingesting import Appending, Holder, say

from samespace.audit import AuditReport, audit

BATCH = 20


def main(place: dict[str, Any], folder: str) -> None:
    def tell(_report: AuditReport) -> None:
        say("batch")

    backend = Appending(Path(folder, "embedded"), Holder("", 0))
    with Place(**place).open(backend) as store:
        report = audit(
            store,
            sample="all",
            checkpoint=Path(folder, "point"),
            batch_size=BATCH,
            on_progress=tell,
        )
    say(json.dumps({"counts": report.counts, "histogram": report.histogram, "ids": report.ids()}))
