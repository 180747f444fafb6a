"""Examining an Elasticsearch server, without changing anything there."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final

from samespace.errors import InvalidInput, StoreRejected
from samespace.findings import Finding
from samespace.stores.elasticsearch import diagnosis
from samespace.stores.elasticsearch.dsl import check_name
from samespace.stores.elasticsearch.transport_async import AsyncTransport, access

SECONDS: Final = 5.0
"""For each request, with all that it is sent again."""


async def examine_async(
    source: str,
    *,
    collection: str | None = None,
    api_key: str | None = None,
    basic_auth: tuple[str, str] | None = None,
    ca_certs: str | None = None,
) -> list[Finding]:
    """What a server is, and what its caller may do there; an error if it cannot be reached."""
    if collection is not None:
        check_name(collection)
    given = access(source, api_key=api_key, basic_auth=basic_auth, ca_certs=ca_certs, cloud_id=None)
    del source, api_key, basic_auth  # a traceback with locals must not show them
    if isinstance(given, InvalidInput):
        raise given
    transport = AsyncTransport(given, timeout=SECONDS)
    try:
        await transport.version()
        facts = diagnosis.Facts(
            transport.told,
            await _licence(transport),
            await _rights(transport, collection),
        )
    finally:
        await transport.close()
    return list(diagnosis.findings(facts, client=version("elasticsearch"), collection=collection))


async def _licence(transport: AsyncTransport) -> tuple[str, str] | None:
    told = await _told(transport, "GET", "/_license")
    return (told["license"]["type"], told["license"]["status"]) if told else None


async def _rights(transport: AsyncTransport, collection: str | None) -> dict[str, bool] | None:
    body = diagnosis.asked(collection)
    told = await _told(transport, "POST", "/_security/user/_has_privileges", body)
    return diagnosis.rights_of(told) if told else None


async def _told(transport: AsyncTransport, method: str, path: str, body: object = None) -> Any:
    """The answer; None from a server that lacks the module that would give it."""
    try:
        return await transport.ask(method, path, body)
    except StoreRejected:
        return None
