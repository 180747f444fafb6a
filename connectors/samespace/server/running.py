"""A server process: where it listens, and how it ends."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import FrameType
from typing import Final, cast

import uvicorn

from samespace.errors import InvalidInput, excerpt
from samespace.server.app import MOST_BYTES, MOST_IN_FLIGHT, MOST_ITEMS, Service
from samespace.server.connections import KEEP_ALIVE, Connection, watched
from samespace.server.keys import ENVIRONMENT
from samespace.server.servable import HasServable

_ENDING: Final = (signal.SIGINT, signal.SIGTERM)
_BACKLOG: Final = 512


def serve(
    backend: HasServable,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    keys: Iterable[str] = (),
    open_to_all: bool = False,
    most_items: int = MOST_ITEMS,
    most_bytes: int = MOST_BYTES,
    most_in_flight: int = MOST_IN_FLIGHT,
    on_listening: Callable[[str], None] | None = None,
) -> None:
    """Serve a backend's model over HTTP until SIGTERM or SIGINT; requests under way are answered first.

    The options are those of :func:`~samespace.server.create_app`; ``on_listening`` is called with the
    server's URL, ``http://host:port``, once it listens. ``port`` 0 takes a free one. Without ``keys`` it
    serves this machine alone, unless it is ``open_to_all``.

    It does not wait for weights that are still being loaded when it is told to end: their thread goes on
    while the process lives. A program that ends then should do so by :func:`os._exit`, as the command does,
    for torch aborts a process whose interpreter ends under it.

    :class:`~samespace.errors.InvalidInput` if it may not, or cannot, listen there; the error of the
    weights if they cannot be loaded.
    """
    service = Service(
        backend,
        keys=keys,
        most_items=most_items,
        most_bytes=most_bytes,
        most_in_flight=most_in_flight,
    )
    if not (service.has_keys or open_to_all or _is_own(host)):
        raise InvalidInput(
            f"without keys anybody who reaches {excerpt(host)} could use this server; put keys into "
            f"{ENVIRONMENT} or into a file for --api-key-file (keys=), or say --open (open_to_all=True)"
        )
    with _listening(host, port) as listener:
        server = _Server(service)
        if on_listening is not None:
            on_listening(_url(listener))
        server.run(sockets=[listener])
    if service.loaded.done() and (error := service.loaded.exception()):
        raise error


class _Server(uvicorn.Server):
    """Ends when it is told to, and when the weights cannot be loaded."""

    def __init__(self, service: Service) -> None:
        super().__init__(
            uvicorn.Config(
                watched(service.app()),
                access_log=False,
                http=Connection,
                lifespan="on",
                log_config=None,
                log_level="warning",
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE,
                ws="none",
            )
        )
        self._ending: asyncio.AbstractEventLoop | None = None
        service.loaded.add_done_callback(self._loaded)

    def _loaded(self, loaded: Future[None]) -> None:
        if loaded.exception():
            self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  the base's names
        """End; waiting for no client if it is ending already."""
        self.should_exit = True
        if self._ending is not None:
            self._ending.call_soon_threadsafe(self._cut)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what is under way, then end what computes."""
        self._ending = asyncio.get_running_loop()
        await super().shutdown(sockets)

    def _cut(self) -> None:
        for connection in list(self.server_state.connections):
            cast("Connection", connection).cut()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As the base has it, but what was asked for has happened then: no signal is raised again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _ENDING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _is_own(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        raise InvalidInput(
            f"cannot listen on {excerpt(host)}, port {port}: {getattr(error, 'strerror', None) or error}; "
            "pass another --host or --port"
        ) from None


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
