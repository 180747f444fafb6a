"""The least rights on an index, as the request for an API key; no I/O."""

from __future__ import annotations

import json
from typing import Final

from samespace.rights import Part
from samespace.stores.elasticsearch.diagnosis import PRIVILEGES, names_of

_ACTS: Final[dict[Part, tuple[str, ...]]] = {
    "reader": ("read",),
    "writer": ("read", "write"),
    "migrator": ("read", "write", "create"),
}


def grants(collection: str, part: Part, *, to: str, guarded: bool = False) -> str:
    """The body of ``POST /_security/api_key`` for a reader, writer or migrator named ``to``.

    ``monitor`` tells the server's version. ``guarded`` says that the index has a pipeline which names its
    slots (``samespace guard install``): a migrator changes that too.
    """
    cluster = ["monitor", *(["manage_pipeline"] if guarded and part == "migrator" else [])]
    privileges = [each for act in _ACTS[part] for each in PRIVILEGES[act]]
    index = {"names": names_of(collection), "privileges": privileges}
    body = {"name": to, "role_descriptors": {to: {"cluster": cluster, "indices": [index]}}}
    return json.dumps(body, ensure_ascii=False, indent=2)
