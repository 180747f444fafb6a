"""A process that verifies a migrated table: ``python -m tests.migrate.looking JSON``.

It prints what it found, and the most memory that it has held.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.faults.streaming import text_of

from samespace import Document, HashingBackend, Index, PgVectorStore
from samespace.embedding import make_canary
from samespace.migrate import MigrationPlan, Verification, plan, verify

OLD, NEW = HashingBackend(64), HashingBackend(96)


def make(store: PgVectorStore, size: int) -> MigrationPlan:
    """So many rows with both vectors."""
    store.create()
    planned = plan(store, NEW)
    store.add_slot(NEW.space, canary=make_canary(NEW))
    store.upsert(Document(f"{number:09}", text_of(number)) for number in range(size))
    return planned


def peak() -> int:
    """Bytes that this process has held at most."""
    status = Path("/proc/self/status").read_text()
    kilobytes = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kilobytes.split()[1]) * 1024


def seen(found: Verification) -> dict[str, Any]:
    (collection,) = found.collections
    return {
        "failing": [each.name for each in found.failures],
        "missing": collection.check("pending").figures["missing"],
        "judged": collection.check("sample").figures.get("judged"),
        "rows": collection.rows,
    }


def main(*, part: str, conninfo: str, schema: str, size: int, sample: int, path: str) -> None:
    """``make`` fills the table and writes the plan; ``verify`` looks, and again once all is pending."""
    options: dict[str, Any] = {"schema": schema, "registry": f"{schema}_registry"}
    options["index"] = Index(kind="flat")  # what is built takes none of this process's memory
    opened = PgVectorStore(conninfo, collection="moved", backend=OLD, mirrors=[NEW], **options)
    with opened as store:
        if part == "make":
            Path(path).write_text(json.dumps(make(store, size).to_dict()))
            return
        planned = MigrationPlan.from_dict(json.loads(Path(path).read_text()))
        first = seen(verify(store, NEW, planned, sample=sample, repetitions=1))
        store.drop_slot(NEW.space)
        store.add_slot(NEW.space, canary=make_canary(NEW))
        second = seen(verify(store, NEW, planned))
    print(json.dumps({"first": first, "second": second, "peak": peak()}))  # noqa: T201


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
