"""Putting the pipeline that stops other spaces before an index, and taking it away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from samespace.errors import CollectionNotFound, excerpt
from samespace.guard import SpaceRecord
from samespace.stores.elasticsearch import dsl
from samespace.stores.elasticsearch.actions import index_named
from samespace.stores.elasticsearch.faults import Missing
from samespace.stores.elasticsearch.final_pipeline import (
    SETTING,
    PipelineChange,
    chained_in,
    final_pipeline_in,
    is_current,
    is_ours,
    pipeline_body,
    pipeline_name,
)
from samespace.stores.elasticsearch.transport_async import AsyncTransport
from samespace.stores.refusals import Gone

_OURS: Final = ("description", "_meta", "processors")


@dataclass(frozen=True, slots=True)
class FoundIndex:
    """An index as the server describes it; ``name`` is its own where an alias was asked for."""

    name: str
    mapping: Mapping[str, Any]
    aliases: frozenset[str]
    final_pipeline: str | None
    record: SpaceRecord | None


async def read_index(transport: AsyncTransport, named: str) -> FoundIndex:
    """The index that is written to under a name; :class:`CollectionNotFound` if there is none."""
    dsl.check_name(named)
    try:
        answer = await transport.ask("GET", f"/{quote(named)}")
    except Gone as error:
        raise CollectionNotFound(
            f"there is no index {excerpt(named)} in Elasticsearch; check the name, or create the "
            "collection with the store first"
        ) from error
    name, index = index_named(answer, named)
    return FoundIndex(
        name=name,
        mapping=index["mappings"],
        aliases=frozenset(index["aliases"]),
        final_pipeline=final_pipeline_in(index["settings"]),
        record=dsl.record_of(index["mappings"], collection=named),
    )


async def install(
    transport: AsyncTransport, index: FoundIndex, record: SpaceRecord, *, dry_run: bool
) -> PipelineChange:
    """Make our pipeline the index's final one; one that was there before is run first."""
    name, before = pipeline_name(index.name), index.final_pipeline
    final = await _read_pipeline(transport, before) if before is not None else None
    old = final if before == name else await _read_pipeline(transport, name)
    chained = chained_in(final) if final is not None and is_ours(final) else before
    new = pipeline_body(
        record,
        index=index.name,
        mapping=index.mapping,
        chained=None if chained == name else chained,
    )
    change = PipelineChange(
        index=index.name, name=name, before=before, after=name, old=old, new=new,
        applied=not dry_run,
    )  # fmt: skip
    if not dry_run and old != new:
        await transport.ask("PUT", f"/_ingest/pipeline/{quote(name)}", new)
    if not dry_run and before != name:
        await _set_final(transport, index.name, name)
    return change


async def uninstall(
    transport: AsyncTransport, index: FoundIndex, *, dry_run: bool
) -> PipelineChange:
    """Give the index the final pipeline back that it had; nothing where ours is not its final one."""
    name, before = pipeline_name(index.name), index.final_pipeline
    old = await _read_pipeline(transport, name)
    installed = before == name
    after = before
    if installed:
        after = chained_in(old) if old is not None and is_ours(old) else None
    change = PipelineChange(
        index=index.name, name=name, before=before, after=after, old=old,
        new=None if installed else old, applied=not dry_run,
    )  # fmt: skip
    if installed and not dry_run:
        await _set_final(transport, index.name, after)
        await _delete_pipeline(transport, name)
    return change


async def is_guarded(transport: AsyncTransport, index: FoundIndex, record: SpaceRecord) -> bool:
    """Whether our pipeline is the index's final one, and asks of the slots what it should."""
    if index.final_pipeline != pipeline_name(index.name):
        return False
    body = await _read_pipeline(transport, index.final_pipeline)
    return is_current(body, record, index=index.name, mapping=index.mapping)


async def refresh_pipeline(transport: AsyncTransport, collection: str) -> None:
    """Rewrite the pipeline of an index whose slots have changed, if it has ours."""
    index = await read_index(transport, collection)
    if index.record is not None and index.final_pipeline == pipeline_name(index.name):
        await install(transport, index, index.record, dry_run=False)


async def forget_pipeline(transport: AsyncTransport, index: FoundIndex) -> None:
    """Remove the pipeline of an index that is gone, if it had ours."""
    if index.final_pipeline == pipeline_name(index.name):
        await _delete_pipeline(transport, index.final_pipeline)


async def _read_pipeline(transport: AsyncTransport, name: str) -> dict[str, Any] | None:
    try:
        answer = await transport.ask("GET", f"/_ingest/pipeline/{quote(name)}")
    except Missing:
        return None
    return {key: value for key, value in answer[name].items() if key in _OURS}


async def _set_final(transport: AsyncTransport, index: str, name: str | None) -> None:
    await transport.ask("PUT", f"/{quote(index)}/_settings", {f"index.{SETTING}": name})


async def _delete_pipeline(transport: AsyncTransport, name: str) -> None:
    try:
        await transport.ask("DELETE", f"/_ingest/pipeline/{quote(name)}")
    except Missing:
        return
