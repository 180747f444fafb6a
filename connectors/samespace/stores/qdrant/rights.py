"""The least rights on a collection, as the claims of a token; no I/O."""

from __future__ import annotations

import json
from typing import Any

from samespace.rights import Part

LOCAL = "-- the client's local mode has no rights but those of the folder's files"


def grants(collection: str, part: Part) -> str:
    """The claims of a JWT for a reader, writer or migrator, to be signed with the server's API key.

    The server must have ``service.jwt_rbac``. Adding a vector's name and changing the record take the right
    to manage, which Qdrant has for the whole server alone.
    """
    access: Any = "m"
    if part != "migrator":
        access = [{"collection": collection, "access": "r" if part == "reader" else "rw"}]
    return json.dumps({"access": access}, ensure_ascii=False, indent=2)
