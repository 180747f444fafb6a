"""What a slot means to those who are not this library; no I/O."""

from __future__ import annotations

import json
import re
from typing import Final

from samespace.forecast import ClientChange
from samespace.stores.elasticsearch.dsl import alias_of, is_name

UNSEEN: Final = (
    "A sweep refreshes first, and compares each text with what its vector was made from. Unseen are a text "
    "that was changed and changed back between two sweeps with the other model's vector of the text "
    "between, and, without --old-backend, texts changed in place under an adopted slot's vector"
)
UNRECLAIMED: Final = (
    "The field stays in the mapping, without values, until the index is made anew; the space comes back "
    "when segments are merged (POST INDEX/_forcemerge does it at once)"
)


_OWN: Final = re.compile(r"\A[a-z0-9_]+_[0-9a-f]{8}\Z")
"""What the id of a space, which names a slot of ours, looks like."""


def client_changes(collection: str, source: str, target: str) -> tuple[ClientChange, ...]:
    """What a client changes to go from one field to another."""
    return (
        ClientChange("knn", _pair("field", source), _pair("field", target)),
        ClientChange(
            "the documents that it writes", f"{_text(source)}: […]", f"{_text(target)}: […]"
        ),
        ClientChange(
            "LangChain's ElasticsearchStore",
            f"vector_query_field={source!r}",
            f"vector_query_field={target!r}",
        ),
        *_aliases(collection, source, target),
    )


def _aliases(collection: str, source: str, target: str) -> tuple[ClientChange, ...]:
    """The names that slots of ours are asked through; an adopted field has none."""
    names = alias_of(collection, source), alias_of(collection, target)
    if not (_OWN.search(source) and _OWN.search(target) and all(map(is_name, names))):
        return ()
    return (ClientChange(f"the alias, where it is not {_text(collection)} that it asks", *names),)


def _pair(name: str, value: str) -> str:
    return f"{_text(name)}: {_text(value)}"


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=not value.isprintable())
