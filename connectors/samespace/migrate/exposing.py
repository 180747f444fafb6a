"""What applications change to go on with the target's slots."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import asdict, dataclass
from typing import Any

from samespace.errors import InvalidInput, excerpt
from samespace.forecast import ClientChange
from samespace.ingest.target import AnyStore
from samespace.migrate.plan import MigrationPlan
from samespace.migrate.reading import Finished
from samespace.migrate.walking import Here, Stores, walked
from samespace.protocols import AsyncExposesSlots, DescribesSlots, ExposesSlots


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """What an application changes to go on with the target's slot of one collection.

    ``statements`` are those of a view of the table with that slot under the old one's name, if one was
    asked for: then it is the application's ``search_path`` alone that changes.
    """

    collection: str
    changes: tuple[ClientChange, ...]
    statements: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For a terminal; with statements they can be run as they stand, all else being comments."""
        name = excerpt(self.collection).strip("'")
        what, before = (
            max((len(getattr(each, part)) for each in self.changes), default=0)
            for part in ("what", "before")
        )
        lines = [f"{name}:" if self.changes else f"{name}: nothing changes"] + [
            f"  {each.what:<{what}}  {each.before:<{before}}  →  {each.after}"
            for each in self.changes
        ]
        if not self.statements:
            return lines
        return [f"-- {line}" for line in lines] + [f"{each};" for each in self.statements]


def expose(
    stores: Stores, plan: MigrationPlan, *, schema: str | None = None, role: str | None = None
) -> tuple[Exposure, ...]:
    """What applications change to search and write the target's slots; nothing is changed.

    ``stores`` is a handle on each collection. What embeds, and how the slot is named in requests of the
    store's own clients; the way back is the same the other way round, until :func:`finish`. On PostgreSQL
    ``schema`` asks for the statements of a view in that schema, for an application that cannot be changed
    but by its ``search_path``; ``role`` is whom the application is there. An async store is closed in the
    end.

    :class:`InvalidInput` for a store without such views, and a role without a schema;
    :class:`MigrationError` for a view before the new slot is there, and once the old one is dropped.
    """
    if role is not None and schema is None:
        raise InvalidInput(
            "role (--role) is who uses the view; pass the schema (--schema) for it, too"
        )

    def work(here: Here) -> Awaitable[Exposure]:
        return _exposed(here, plan, schema=schema, role=role)

    return tuple(walked(stores, plan, lambda way: way.each(work)))


async def _exposed(
    here: Here, plan: MigrationPlan, *, schema: str | None, role: str | None
) -> Exposure:
    source, target = here.planned.source, here.planned.target
    if source == target:
        return Exposure(collection=here.planned.name, changes=())
    own = ClientChange("what embeds", str(source.space), str(target.space))
    named = _named(here.store, source.name, target.name)
    statements: list[str] = []
    if schema is not None:
        seen = _here_in_source(here)
        await _check_both(here, plan)
        statements = await seen.do("view", target.space, schema=schema, role=role)
    return Exposure(
        collection=here.planned.name, changes=(own, *named), statements=tuple(statements)
    )


async def _check_both(here: Here, plan: MigrationPlan) -> None:
    """:class:`MigrationError` unless there are both slots, as a view takes."""
    found = await here.look()
    if plan.is_finished(here.planned, found.info):
        raise Finished.of(here.planned)
    found.require_target()
    found.check_holds()


def _named(store: AnyStore, source: str, target: str) -> tuple[ClientChange, ...]:
    return store.client_changes(source, target) if isinstance(store, DescribesSlots) else ()


def _here_in_source(here: Here) -> Here:
    """By a handle of the space that applications use so far, whose slot's name the view has."""
    if not isinstance(here.store, ExposesSlots | AsyncExposesSlots):
        raise InvalidInput(
            "schema (--schema) is for PostgreSQL, which has views; elsewhere the application names the new "
            "slot itself"
        )
    return here.in_space(here.planned.source.space)
