"""Putting the pipeline that stops other spaces before an index, and taking it away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import orjson

from samespace.errors import CollectionNotFound, InvalidInput, StoreRejected, excerpt
from samespace.guard import SpaceRecord
from samespace.stores.elasticsearch import dsl
from samespace.stores.elasticsearch.actions import index_named
from samespace.stores.elasticsearch.faults import Missing
from samespace.stores.elasticsearch.final_pipeline import (
    SETTING,
    PipelineChange,
    calls,
    chained_in,
    final_pipeline_in,
    is_current,
    is_ours,
    pipeline_body,
    pipeline_name,
    unfit,
)
from samespace.stores.elasticsearch.transport_async import AsyncTransport
from samespace.stores.refusals import Gone

_OURS: Final = ("description", "_meta", "processors", "on_failure")


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
    """Make our pipeline the index's final one; one that was there before is run first.

    :class:`StoreRejected`, and nothing is changed, where documents that are there would not pass.
    """
    name, before = pipeline_name(index.name), index.final_pipeline
    final = await _read_pipeline(transport, before) if before is not None else None
    old = final if before == name else await _read_pipeline(transport, name)
    if old is not None and not is_ours(old):
        raise InvalidInput(
            f"there is an ingest pipeline {excerpt(name)} that was not made here; delete it or give it "
            "another name, then install again"
        )
    if before != name:
        await _refuse_unfit(transport, index, record)
    chained = chained_in(final) if final is not None and is_ours(final) else before
    chained = None if chained == name else chained
    if chained is not None:
        await _refuse_cycle(transport, chained, name)
    new = pipeline_body(record, index=index.name, mapping=index.mapping, chained=chained)
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
    """Give the index the final pipeline back that it had, and delete ours unless another calls it."""
    name, before = pipeline_name(index.name), index.final_pipeline
    old = await _read_pipeline(transport, name)
    kept = await _is_kept(transport, name, old, is_final=before == name)
    after = before
    if before == name and not kept:
        after = chained_in(old) if old is not None else None
    change = PipelineChange(
        index=index.name, name=name, before=before, after=after, old=old,
        new=old if kept else None, applied=not dry_run,
    )  # fmt: skip
    if before != after and not dry_run:
        await _set_final(transport, index.name, after)
    if old is not None and not kept and not dry_run:
        await _delete_pipeline(transport, name)
    return change


async def _is_kept(
    transport: AsyncTransport, name: str, body: Mapping[str, Any] | None, *, is_final: bool
) -> bool:
    """Whether a pipeline of our name stays: somebody made it, or has another one call it."""
    if body is None:
        return False
    if not is_ours(body) or is_final:
        return not is_ours(body)
    others = await transport.ask("GET", "/_ingest/pipeline")
    call = orjson.dumps({"name": name})[1:-1]
    return any(call in orjson.dumps(each) for key, each in others.items() if key != name)


async def _refuse_cycle(transport: AsyncTransport, chained: str, name: str) -> None:
    """:class:`InvalidInput` where ours would call a pipeline that comes to call ours: no write would pass."""
    pipelines = await transport.ask("GET", "/_ingest/pipeline")
    if calls(chained, name, pipelines):
        raise InvalidInput(
            f"the final pipeline {excerpt(chained)} calls {excerpt(name)}, which would call it: no document "
            f"could be written. Nothing was changed; take that call out of {excerpt(chained)}, then "
            "install again: it is run first then, and ours after it"
        )


async def _refuse_unfit(transport: AsyncTransport, index: FoundIndex, record: SpaceRecord) -> None:
    """:class:`StoreRejected` where an update of a document that is there would be refused."""
    named = quote(index.name)
    await transport.ask("POST", f"/{named}/_refresh")
    for query, what, mend in unfit(record, index=index.name, mapping=index.mapping):
        asked = {"query": query, "size": 1, "_source": False, "track_total_hits": True}
        hits = (await transport.ask("POST", f"/{named}/_search", asked))["hits"]
        if hits["hits"]:
            raise StoreRejected(
                f"{hits['total']['value']} documents of index {excerpt(index.name)}, such as "
                f"{excerpt(hits['hits'][0]['_id'])}, have {what}; nothing was changed, as any update of "
                f"one would be refused from then on. {mend}; then install again"
            )


async def is_guarded(transport: AsyncTransport, index: FoundIndex, record: SpaceRecord) -> bool:
    """Whether our pipeline is the index's final one, and asks of the slots what it should."""
    if index.final_pipeline != pipeline_name(index.name):
        return False
    body = await _read_pipeline(transport, index.final_pipeline)
    return is_current(body, record, index=index.name, mapping=index.mapping)


async def refresh_pipeline(transport: AsyncTransport, collection: str) -> None:
    """Rewrite the pipeline of an index whose slots have changed, if it has ours."""
    index = await read_index(transport, collection)
    if index.record is not None and await _has_ours(transport, index):
        await install(transport, index, index.record, dry_run=False)


async def forget_pipeline(transport: AsyncTransport, index: FoundIndex) -> None:
    """Remove the pipeline of an index that is gone, if it had ours."""
    if await _has_ours(transport, index):
        await _delete_pipeline(transport, pipeline_name(index.name))


async def _has_ours(transport: AsyncTransport, index: FoundIndex) -> bool:
    """Whether the final pipeline of an index is ours, be it that it was lost."""
    name = pipeline_name(index.name)
    if index.final_pipeline != name:
        return False
    body = await _read_pipeline(transport, name)
    return body is None or is_ours(body)


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
