"""A process that runs a migration: ``main``, in a process of its own, which may be killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from tests.contract.ingesting import Place
from tests.migrate.moving import NEW, OLD

from samespace import Index
from samespace.migrate import MigrationPlan, MigrationRun


def main(place: dict[str, Any], plan: str, build: Any) -> None:
    made = MigrationPlan.from_dict(orjson.loads(Path(plan).read_bytes()))
    with Place(**place).open(OLD, index=Index(build=build)) as store:
        MigrationRun(store, NEW, made).run()
