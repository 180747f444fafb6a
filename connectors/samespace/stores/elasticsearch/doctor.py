# Generated from doctor_async.py by tools/generate_sync.py; change that file, not this one.
"""Examining an Elasticsearch server, without changing anything there."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final

from samespace.errors import InvalidInput, StoreRejected
from samespace.findings import Finding
from samespace.stores.elasticsearch import diagnosis
from samespace.stores.elasticsearch.dsl import check_name
from samespace.stores.elasticsearch.transport import Transport, access

SECONDS: Final = 5.0
"""For each request, with all that it is sent again."""


def examine(
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
    transport = Transport(given, timeout=SECONDS)
    try:
        transport.version()
        facts = diagnosis.Facts(
            transport.told,
            _licence(transport),
            _rights(transport, collection),
        )
    finally:
        transport.close()
    return list(diagnosis.findings(facts, client=version("elasticsearch"), collection=collection))


def _licence(transport: Transport) -> tuple[str, str] | None:
    told = _told(transport, "GET", "/_license")
    return (told["license"]["type"], told["license"]["status"]) if told else None


def _rights(transport: Transport, collection: str | None) -> dict[str, bool] | None:
    body = diagnosis.asked(collection)
    told = _told(transport, "POST", "/_security/user/_has_privileges", body)
    return diagnosis.rights_of(told) if told else None


def _told(transport: Transport, method: str, path: str, body: object = None) -> Any:
    """The answer; None from a server that lacks the module that would give it."""
    try:
        return transport.ask(method, path, body)
    except StoreRejected:
        return None
