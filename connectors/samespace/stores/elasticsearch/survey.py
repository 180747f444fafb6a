# Generated from survey_async.py by tools/generate_sync.py; change that file, not this one.
"""Looking at an index that somebody else made, without changing anything there."""

from __future__ import annotations

from contextlib import suppress
from typing import Final
from urllib.parse import quote

from samespace.errors import CollectionNotFound, InvalidInput, StoreRejected, excerpt
from samespace.stores.elasticsearch import dsl, recognition
from samespace.stores.elasticsearch.shape import shows_a_part
from samespace.stores.elasticsearch.transport import Transport, access
from samespace.stores.refusals import Gone
from samespace.survey import SAMPLED_ROWS, Survey, not_found

SECONDS: Final = 60.0
"""For each request, with all that it is sent again."""


def survey(
    source: str | None = None,
    *,
    collection: str,
    api_key: str | tuple[str, str] | None = None,
    basic_auth: str | tuple[str, str] | None = None,
    ca_certs: str | None = None,
    cloud_id: str | None = None,
) -> Survey:
    """What an index is; :class:`~samespace.errors.CollectionNotFound` names what there is."""
    dsl.check_name(collection)
    given = access(
        source, api_key=api_key, basic_auth=basic_auth, ca_certs=ca_certs, cloud_id=cloud_id
    )
    del source, api_key, basic_auth, cloud_id  # a traceback with locals must not show them
    if isinstance(given, InvalidInput):
        raise given
    transport = Transport(given, timeout=SECONDS)
    try:
        return _surveyed(transport, collection)
    finally:
        transport.close()


def _surveyed(transport: Transport, collection: str) -> Survey:
    transport.version()
    try:
        found = transport.ask("GET", f"/{quote(collection)}")
    except Gone:
        raise _missing(transport, collection) from None
    if len(found) != 1 or next(iter(found.values())).get("data_stream"):
        raise InvalidInput(
            f"{excerpt(collection)} stands for several indices, or for a data stream; name one index as "
            "the collection"
        )
    (index,) = found.values()
    mapping = index["mappings"]
    is_partial = shows_a_part(index["aliases"].get(collection) or {})
    left_out = {"excludes": recognition.vectors_of(mapping)}
    body = {"size": SAMPLED_ROWS, "_source": left_out, "track_total_hits": True}
    answer = transport.ask("POST", f"/{quote(collection)}/_search", body)
    sources = [hit.get("_source", {}) for hit in answer["hits"]["hits"]]
    rows = answer["hits"]["total"]["value"]
    return recognition.survey_of(
        collection, mapping, sources=sources, rows=rows, is_partial=is_partial
    )


def _missing(transport: Transport, collection: str) -> CollectionNotFound:
    names: list[str] = []
    with suppress(StoreRejected):  # a key may be for one index alone
        mappings = transport.ask("GET", "/*,-.*/_mapping")
        names = sorted(
            name
            for name, index in mappings.items()
            if recognition.vectors_of(index.get("mappings", {}))
        )
    return not_found(collection, "Elasticsearch", names)
