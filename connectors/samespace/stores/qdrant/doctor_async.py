"""Examining a Qdrant server, or a folder of its local mode, without changing anything there."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

from samespace.errors import StoreRejected
from samespace.findings import Finding, Level
from samespace.stores.qdrant import diagnosis
from samespace.stores.qdrant.transport_async import AsyncTransport, Secret
from samespace.stores.refusals import Gone

SECONDS: Final = 5.0
"""For each attempt; a server that answers later is no use to ask."""
NOBODYS: Final = "samespace doctor asks whether it might"
"""No collection of ours can have this name, so that a change of it changes nothing."""


async def examine_async(
    source: str,
    *,
    collection: str | None = None,  # noqa: ARG001  a key's rights show without one
    api_key: str | None = None,
) -> list[Finding]:
    """What a server or a folder is, and what may be done there; an error if it cannot be reached."""
    key = Secret(api_key)
    del api_key  # a traceback with locals must not show it
    transport = AsyncTransport(source, grpc_port=None, api_key=key, timeout=SECONDS)
    client = f"qdrant-client {version('qdrant-client')}"
    try:
        if not await transport.is_made():
            return [
                Finding(Level.OK, f"Qdrant's local mode makes its folder on first use ({client})")
            ]
        facts = await _facts(transport)
    finally:
        await transport.close()
    return list(diagnosis.findings(facts, client=client))


async def _facts(transport: AsyncTransport) -> diagnosis.Facts:
    answer = await transport.ask(lambda client: client.get_collections())
    collections = len(answer.collections)
    if transport.kind == "local":
        return diagnosis.Facts(None, collections, may_manage=True)
    server = ".".join(map(str, await transport.version()))
    return diagnosis.Facts(server, collections, may_manage=await _may_manage(transport))


async def _may_manage(transport: AsyncTransport) -> bool:
    """Whether a change of a collection would be done, were there one: rights are looked at first."""
    try:
        await transport.ask(lambda client: client.update_collection(NOBODYS))
    except Gone:
        return True
    except StoreRejected:
        return False
    return True
