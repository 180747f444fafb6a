"""What Elasticsearch and its client say went wrong, as this library's errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import elastic_transport
from elasticsearch import ApiError, UnsupportedProductError

from samespace.errors import SamespaceError, StoreError, StoreRejected, StoreUnavailable, excerpt
from samespace.stores.elasticsearch import dsl
from samespace.stores.refusals import Gone, RowsRefused

BUSY: Final = frozenset({408, 429, 502, 503, 504})
"""Answers that another attempt may change."""
UNSURE: Final = BUSY - {408, 429}
"""Those after which it may have been done all the same."""
CONFLICT: Final = 409
_VERSIONS: Final = (
    "the client and the server do not speak one version: a 9.x server takes clients 8.15 to 9.x, an "
    "8.x server takes a client below 9; install a matching elasticsearch package"
)


class Taken(StoreRejected):
    """There is an index of this name by now."""


class Overtaken(StoreRejected):
    """Somebody else has changed the record since it was read."""


class Forbidden(StoreRejected):
    """The user may not do this."""


class Missing(StoreRejected):
    """What a request names is not there, and is no index."""


class TooLarge(StoreRejected):
    """A request is longer than the server reads."""


class Expired(StoreUnavailable):
    """A snapshot that was being read is no longer kept."""


@dataclass(frozen=True, slots=True)
class Fault:
    """An error, and whether the same request may be sent again.

    ``doubtful``: it is not known whether the server did what was asked. ``crowded``: it had no room
    for as much as was sent.
    """

    error: SamespaceError
    again: bool = False
    doubtful: bool = False
    crowded: bool = False


class RequestFailed(Exception):
    """Carries a fault to where it is decided whether to try again."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault.error))
        self.fault = fault


def fault_of(error: Exception) -> Fault:
    """What an exception of the client means; of a connection's, the text is read, never quoted."""
    if isinstance(error, UnsupportedProductError):
        return Fault(StoreRejected("what answers is not Elasticsearch 8 or 9; check the address"))
    if isinstance(error, ApiError):
        return answered(error.meta.status, error.body)
    if isinstance(error, elastic_transport.ConnectionTimeout):
        return Fault(
            StoreUnavailable(
                "Elasticsearch did not answer in time; check the server, or raise timeout="
            ),
            again=True,
            doubtful=True,
        )
    if isinstance(error, elastic_transport.TlsError):
        return Fault(
            StoreRejected(
                "no secure connection to Elasticsearch; check https:// and the port, and name its "
                "certificate's authority by ca_certs= or ELASTIC_CA_CERTS where that is private"
            )
        )
    if isinstance(error, elastic_transport.ConnectionError):
        return Fault(
            StoreUnavailable(
                "Elasticsearch cannot be reached, or closed the connection; check that it runs, host "
                "and port"
            ),
            again=True,
            doubtful=True,
        )
    return Fault(
        StoreRejected(
            f"what answers is not Elasticsearch, or a proxy before it ({type(error).__name__}); check "
            "the address"
        )
    )


_ABSENT: Final[Mapping[str, type[StoreError]]] = {
    "index_not_found_exception": Gone,
    "aliases_not_found_exception": Gone,
    "search_context_missing_exception": Expired,
    "search_phase_execution_exception": Expired,
    "resource_not_found_exception": Missing,
    "": Missing,
}
"""What is not there, by the kind of an answer with 404."""


def answered(status: int, body: object) -> Fault:
    """What an answer of this status means."""
    kind, reason = said(body)
    shown = f"Elasticsearch says: {excerpt(reason)} ({status} {kind})".replace(" )", ")")
    if status in BUSY:
        return Fault(
            StoreUnavailable(f"{shown}; try again"),
            again=True,
            doubtful=status in UNSURE,
            crowded=status == 429,
        )
    if status == 401:
        return Fault(
            StoreRejected(
                "Elasticsearch refuses the login; check api_key= or ELASTIC_API_KEY, basic_auth= or "
                "ELASTIC_PASSWORD"
            )
        )
    if status == 403:
        return Fault(Forbidden(f"{shown}; {_mend_forbidden(kind, reason)}"))
    if status == 404 and kind in _ABSENT:
        return Fault(_ABSENT[kind](shown))
    if kind == "resource_already_exists_exception":
        return Fault(Taken(shown))
    if "existing mapper" in reason and f"[{dsl.CHANGES}." in reason:
        return Fault(Overtaken(shown))
    if status == 413:
        return Fault(
            TooLarge("a request is longer than Elasticsearch reads; raise http.max_content_length")
        )
    if "media_type_header" in kind or "compatible-with" in reason:
        return Fault(StoreRejected(_VERSIONS))
    return Fault(StoreRejected(shown))


def of_documents(answer: Mapping[str, Any]) -> Fault | None:
    """What went wrong with one of the documents that were asked for by their ids."""
    for found in answer["docs"]:
        if "error" in found:  # which has no status of its own
            not_started = said(found)[0] == "no_shard_available_action_exception"
            return answered(503 if not_started else 404, found)
    return None


def of_searches(answer: Mapping[str, Any]) -> Fault | None:
    """What went wrong with one of several searches."""
    for found in answer["responses"]:
        if "error" in found:
            return answered(found.get("status", 500), found)
    return None


def _mend_forbidden(kind: str, reason: str) -> str:
    if kind == "cluster_block_exception":
        return "the index is blocked for this: free disk space, or lift the block in its settings"
    if "license" in reason:
        return "this needs another license of Elasticsearch"
    return "connect as a user that has this right"


def of_row(status: int, error: Mapping[str, Any], id: str | None = None) -> SamespaceError:
    """Why an operation of a bulk request, on the row with this id, was not done."""
    kind, reason = said({"error": error})
    row = "a row" if id is None else f"row {excerpt(id)}"
    if status in BUSY:
        return StoreUnavailable(f"Elasticsearch says: {excerpt(reason)} ({status}); try again")
    if kind == "index_not_found_exception":
        return Gone(f"Elasticsearch says: {excerpt(reason)}")
    if kind == "strict_dynamic_mapping_exception":
        return RowsRefused(
            f"{row} has a field that the collection's mapping does not take: {excerpt(reason)}; name "
            "known ones"
        )
    if status in {401, 403}:
        return answered(status, {"error": error}).error
    return RowsRefused(f"Elasticsearch refuses {row}: {excerpt(reason)} ({kind})")


def said(body: object) -> tuple[str, str]:
    """Type and reason of an error, the innermost that says what was wrong with a value."""
    error = body.get("error") if isinstance(body, Mapping) else None
    failures = body.get("failures") if isinstance(body, Mapping) else None
    if error is None and isinstance(failures, list) and failures:  # of rows found by a query
        error = failures[0].get("cause")
    if not isinstance(error, Mapping):
        return "", str(error or "no reason given")
    cause = error.get("caused_by")
    kind, reason = str(error.get("type", "")), str(error.get("reason", ""))
    if isinstance(cause, Mapping) and "parsing" in kind:
        return kind, str(cause.get("reason") or reason)
    roots = error.get("root_cause")
    if isinstance(roots, list) and roots and isinstance(roots[0], Mapping) and "phase" in kind:
        root = roots[0]
        return str(root.get("type", kind)), str(root.get("reason", reason))
    return kind, reason
