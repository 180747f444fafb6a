"""What a client is given beside the space: the key, the address, its limits and its patience."""

from __future__ import annotations

import os
from typing import Final

from samespace.backends.http.options import checked_address
from samespace.errors import InvalidInput, excerpt

KEY: Final = "JINA_API_KEY"
BASE_URL: Final = "JINA_BASE_URL"
VENDOR: Final = "https://api.jina.ai/v1"


def address_of(base_url: str | None) -> str:
    """The embeddings' address below ``base_url``, the environment's, or the vendor's.

    :class:`InvalidInput` unless it is http(s) with a host and nothing that could hide a secret.
    """
    given = (os.environ.get(BASE_URL) or VENDOR) if base_url is None else base_url
    return checked_address(given, named=f"base_url (or {BASE_URL})", variable=KEY, example=VENDOR)


def check_on_too_long(value: object) -> bool:
    """Whether too long a text is cut; :class:`InvalidInput` for anything else to do with it."""
    if value not in ("reject", "truncate"):
        raise InvalidInput(f'on_too_long is {excerpt(value)}; pass "reject" or "truncate"')
    return value == "truncate"
