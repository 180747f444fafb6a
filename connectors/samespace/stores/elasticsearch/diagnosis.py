"""What the facts about an Elasticsearch server mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from samespace.errors import excerpt
from samespace.findings import Finding, Level, numbers_of
from samespace.stores.elasticsearch.dsl import RESCORES, TAKES_BASE64, Version

PRIVILEGES: Final[Mapping[str, tuple[str, ...]]] = {
    "read": ("read", "view_index_metadata"),
    "write": ("write", "maintenance"),
    "create": ("create_index", "manage"),
}
"""What a role must have on an index, by what it may do then."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says of itself, and of what its caller may do there."""

    version: str | None
    """None where the server does not tell this login."""
    licence: tuple[str, str] | None
    """Type and status; None where the server does not tell."""
    rights: Mapping[str, bool] | None
    """By the keys of :data:`PRIVILEGES`; None where rights are not asked for."""


def names_of(collection: str | None) -> list[str]:
    """The names that a collection is asked for by; of all, if none is named."""
    return ["*"] if collection is None else [collection, f"{collection}--*"]


def asked(collection: str | None) -> dict[str, Any]:
    """The body that asks for the rights on a collection."""
    privileges = [each for group in PRIVILEGES.values() for each in group]
    return {"index": [{"names": names_of(collection), "privileges": privileges}]}


def rights_of(answer: Mapping[str, Any]) -> dict[str, bool]:
    """What the answer to :func:`asked` permits on every name."""
    names = answer["index"].values()
    return {
        act: all(name[each] for name in names for each in group)
        for act, group in PRIVILEGES.items()
    }


def findings(facts: Facts, *, client: str, collection: str | None) -> Iterator[Finding]:
    """What there is to say of a server that answers."""
    named = "Elasticsearch" if facts.version is None else f"Elasticsearch {facts.version}"
    yield Finding(Level.OK, f"{named} answers (client elasticsearch {client})")
    if facts.version is None:
        yield Finding(
            Level.WARNING, "the server does not tell this login its version, and is taken for one before 9.3",
            "have its role given monitor on the cluster",
        )  # fmt: skip
    else:
        yield from _versions(facts.version, client)
    yield _licence(facts.licence)
    yield _rights(facts.rights, collection)


def _versions(shown: str, client: str) -> Iterator[Finding]:
    version: Version = numbers_of(shown)[:2]
    major = numbers_of(client)[0]
    if major > version[0]:
        what = f"a client {major}.x does not speak to a server {shown}"
        yield Finding(Level.PROBLEM, what, 'run pip install "elasticsearch[async]<9"')
    if version < RESCORES:
        what = f"Elasticsearch {shown} has no quantized index that is compared by full vectors"
        yield Finding(Level.WARNING, what, "leave Index.quantization out, or install 8.18 or newer")
    if version < TAKES_BASE64:
        what = (
            f"to Elasticsearch {shown} vectors are sent as numbers, not as base64: that is slower"
        )
        yield Finding(Level.NOTE, what, "for faster ingestion, install 9.3 or newer")


def _licence(licence: tuple[str, str] | None) -> Finding:
    if licence is None:
        return Finding(
            Level.NOTE, "the server tells no licence; nothing here needs more than basic"
        )
    kind, status = licence
    if status != "active":
        mend = "renew it, or run POST /_license/start_basic?acknowledge=true"
        return Finding(Level.WARNING, f"the licence {kind} is {status}", mend)
    return Finding(Level.OK, f"licence {kind}; nothing here needs more than basic")


def _rights(rights: Mapping[str, bool] | None, collection: str | None) -> Finding:
    if rights is None:
        return Finding(
            Level.NOTE, "the server asks nobody for a login, or does not tell of rights",
            "if others reach it, set xpack.security.enabled",
        )  # fmt: skip
    lacking = [act for act in PRIVILEGES if not rights[act]]
    place = "every index" if collection is None else f"collection {excerpt(collection)}"
    if not lacking:
        return Finding(Level.OK, f"this login may read, write and create {place}")
    what = f"this login may not {_listed(lacking)} {place}"
    if collection is None:
        return Finding(Level.WARNING, what, "to ask for one, add --collection NAME")
    missing = _listed([each for act in lacking for each in PRIVILEGES[act]])
    level = Level.PROBLEM if "read" in lacking else Level.WARNING
    return Finding(level, what, f"have its role given {missing} on {_listed(names_of(collection))}")


def _listed(words: Sequence[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last
