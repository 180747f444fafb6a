# Generated from survey_async.py by tools/generate_sync.py; change that file, not this one.
"""Looking at a collection that somebody else made, without changing anything there."""

from __future__ import annotations

from typing import Final

from qdrant_client import QdrantClient

from samespace.errors import CollectionNotFound
from samespace.stores.qdrant import collection as shape
from samespace.stores.qdrant import recognition
from samespace.stores.qdrant.transport import Secret, Transport
from samespace.stores.refusals import Gone
from samespace.survey import SAMPLED_ROWS, Survey, not_found

SECONDS: Final = 60.0
"""For each attempt."""


def survey(
    source: str | QdrantClient,
    *,
    collection: str,
    api_key: str | None = None,
) -> Survey:
    """What a collection is; :class:`~samespace.errors.CollectionNotFound` names what there is."""
    shape.check_name(collection)
    key = Secret(api_key)
    del api_key  # a traceback with locals must not show it
    transport = Transport(source, grpc_port=None, api_key=key, timeout=SECONDS)
    try:
        if not transport.is_made():
            raise not_found(collection, "this folder of Qdrant", [])
        return _surveyed(transport, collection)
    finally:
        transport.close()


def _surveyed(transport: Transport, collection: str) -> Survey:
    try:
        info = transport.ask(lambda client: client.get_collection(collection))
    except Gone:
        raise _missing(transport, collection) from None
    points, _ = transport.ask(
        lambda client: client.scroll(
            collection, limit=SAMPLED_ROWS, with_payload=True, with_vectors=False
        )
    )
    counted = transport.ask(lambda client: client.count(collection, exact=True))
    payloads = [point.payload or {} for point in points]
    return recognition.survey_of(collection, info, payloads=payloads, rows=counted.count)


def _missing(transport: Transport, collection: str) -> CollectionNotFound:
    answer = transport.ask(lambda client: client.get_collections())
    names = sorted(each.name for each in answer.collections)
    return not_found(collection, "this Qdrant", names)
