"""What a client is given beside the space: a key, an address, its limits and its patience."""

from __future__ import annotations

import math
import os
import re
import ssl
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NoReturn
from urllib.parse import urlsplit

import httpx

from samespace.backends.http.limits import Limits
from samespace.errors import AuthenticationFailed, InvalidInput, excerpt

_SHORT_KEY: Final = 8


class Key(httpx.Auth):
    """The API key, ``given`` or of the environment, as httpx's authentication.

    It enters a request's header and nothing else: a closure holds it, no attribute and no local of
    a frame that raises; it is not pickled. ``variable`` is the environment's.
    """

    def __init__(self, given: str | None, *, variable: str) -> None:
        value = os.environ.get(variable, "") if given is None else given
        self._reveal: Callable[[], str] = lambda: value
        self._variable = variable

    def check(self, *, needed: bool = True) -> None:
        """:class:`AuthenticationFailed` without a key, :class:`InvalidInput` if no header fits it."""
        if not isinstance(self._reveal(), str):
            raise InvalidInput("api_key= is no string; pass the key as one")
        if not self._reveal() and not needed:
            return
        if not self._reveal():
            raise AuthenticationFailed(f"no API key: set {self._variable}, or pass api_key=")
        if not _fits_a_header(self._reveal()):
            raise InvalidInput(
                f"the API key ({self._variable} or api_key=) has a blank, a line end or a character "
                "beyond ASCII; copy it anew"
            )

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Put the key into the request, if there is one."""
        if self._reveal():
            request.headers["Authorization"] = f"Bearer {self._reveal()}"
        yield request

    def hide(self, text: str) -> str:
        """What a server or a driver said, without the key if that quotes it, escaped or not.

        A key so short that words have it by chance is hidden where it stands alone.
        """
        key = self._reveal()
        if not key:
            return text
        pattern = "".join(rf"(?:\\?{re.escape(each)}|\\u(?i:{ord(each):04x}))" for each in key)
        if len(key) < _SHORT_KEY:
            pattern = rf"(?<!\w){pattern}(?!\w)"
        return re.sub(pattern, "***", text)

    def __repr__(self) -> str:
        return "Key(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an API key is not pickled; make the backend anew in each process")


def _fits_a_header(key: object) -> bool:
    return isinstance(key, str) and key.isascii() and key.isprintable() and " " not in key


def checked_address(given: object, *, named: str, variable: str, example: str) -> str:
    """The embeddings' address below what was ``named`` so, with its key in the ``variable``.

    :class:`InvalidInput` unless it is http(s) with a host and nothing that could hide a secret.
    """
    if isinstance(given, str) and any(mark in given for mark in "@?#"):
        raise InvalidInput(
            f"{named} has credentials, a query or a fragment; leave only scheme, host and path, and "
            f"give the key by {variable} or api_key="
        )
    if not isinstance(given, str) or not _is_address(given):
        raise InvalidInput(f"{named} {excerpt(given)} is no address; write it like {example}")
    return f"{given.rstrip('/')}/embeddings"


def _is_address(url: object) -> bool:
    """Whether httpx can use it as an http(s) URL."""
    if not isinstance(url, str) or not url.isprintable() or " " in url:
        return False
    try:
        address = httpx.URL(url)
        address.raw_host.decode().encode("idna")  # as resolvers do: a label has 1 to 63 characters
        parts = urlsplit(url)
        return (
            bool(address.host)
            and parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and parts.port != 0
        )
    except (ValueError, httpx.InvalidURL):  # a port beyond 65535, or UnicodeError, is a ValueError
        return False


def certificates() -> ssl.SSLContext:
    """Whom clients trust, as httpx has it; read once, which takes as long as several requests."""
    return _certificates(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@lru_cache(maxsize=4)
def _certificates(*_read_from: str | None) -> ssl.SSLContext:
    return httpx.create_ssl_context()


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long one caller waits for an answer; see the backend."""

    timeout: float
    attempts: int
    retry_seconds: float
    retry_wait: float

    def __post_init__(self) -> None:
        if type(self.attempts) is not int or self.attempts < 1:
            raise InvalidInput(
                f"attempts is {excerpt(self.attempts)}; pass a whole number from 1 on"
            )
        for name in ("timeout", "retry_seconds", "retry_wait"):
            value = getattr(self, name)
            if type(value) not in {int, float} or not 0 <= value < math.inf:
                raise InvalidInput(f"{name} is {excerpt(value)}; pass seconds from 0 on")
        if not self.timeout:
            raise InvalidInput("timeout is 0, in which nothing can be answered; pass more seconds")


def check_limits(limits: object) -> Limits:
    """:class:`InvalidInput` for anything but :class:`Limits`."""
    if limits is None:
        return Limits()
    if not isinstance(limits, Limits):
        raise InvalidInput(
            f"limits is {excerpt(limits)}; pass Limits(requests_per_minute=…, tokens_per_minute=…)"
        )
    return limits
