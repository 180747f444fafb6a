"""A server of embeddings in a thread, on a port of its own."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

from samespace.server import HasServable, create_app

KEY = "key-of-a-test"
TLS = ssl.create_default_context()
"""Made once: httpx would read all certificates anew for each request."""


@dataclass(frozen=True)
class Served:
    """Where a server is, as a test server says it."""

    root: str

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.root}{path}", verify=TLS)

    def post(self, *, key: str = KEY, **body: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        asked = {"model": "jina-embeddings-v3", "input": ["one", "two"], **body}
        return httpx.post(
            f"{self.url}/embeddings", json=asked, headers=headers, verify=TLS, timeout=60
        )


@contextmanager
def served(backend: HasServable, *, wait: bool = True, **options: Any) -> Iterator[Served]:
    """An app of these options; ``wait``: until it is ready."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(backend, **{"keys": (KEY,), **options})
    config = uvicorn.Config(app, lifespan="on", log_config=None, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        here = Served(f"http://127.0.0.1:{listener.getsockname()[1]}")
        while wait and here.get("/ready").status_code != 200:
            pass
        yield here
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def listens(here: Served) -> bool:
    """Whether a server still takes connections."""
    host, port = here.root.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port))).close()
    except ConnectionError:
        return False
    return True
