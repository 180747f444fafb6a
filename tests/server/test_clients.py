"""Clients that read nothing, come by halves, or say one size and send another."""

from __future__ import annotations

import json
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from tests.server.lexical import LexicalBackend
from tests.server.serving import KEY, TLS, Served, listens, served

from samespace.protocols import Matrix

HEAD = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"


class Digits(LexicalBackend):
    """Its vectors take 10 KB each on the wire, so that answers are larger than what a socket buffers."""

    def _means(self, texts: Any, *_: Any, **__: Any) -> Matrix:
        return np.random.default_rng(0).normal(size=(len(texts), 1024)).astype(np.float32)


@contextmanager
def connected(here: Served, *said: str) -> Iterator[socket.socket]:
    host, port = here.root.removeprefix("http://").split(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(60)
        client.connect((host, int(port)))
        client.sendall("".join(said).encode())
        yield client


@contextmanager
def stuck(here: Served) -> Iterator[socket.socket]:
    """A client that asks for 10 MB and reads the first line."""
    body = json.dumps({"model": "jina-embeddings-v3", "input": ["a"] * 1000})
    with connected(here, HEAD, f"Content-Length: {len(body)}\r\n\r\n", body) as client:
        assert client.recv(12) == b"HTTP/1.1 200"
        yield client


def test_a_key_may_have_spaces_before_it_and_must_be_there() -> None:
    with served(LexicalBackend()) as here:
        for header, status, code in (
            (f"bearer   {KEY}", 200, None),
            ("Bearer", 401, "AUTH_INVALID_FORMAT"),
            (f"Basic {KEY}", 401, "AUTH_INVALID_FORMAT"),
        ):
            answer = httpx.post(
                f"{here.url}/embeddings",
                json={"model": "jina-embeddings-v3", "input": "a"},
                headers={"Authorization": header},
                verify=TLS,
            )
            assert (answer.status_code, answer.json().get("code")) == (status, code)


def test_an_answer_has_its_place_until_the_client_has_it() -> None:
    with served(Digits(), most_in_flight=1) as here:
        with stuck(here):
            assert here.post().status_code == 429
            assert here.post(input="a query").status_code == 200
        while here.post().status_code == 429:
            pass
        assert here.post().status_code == 200


def test_who_reads_nothing_loses_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samespace.server.sending.SENDING", 0.01)
    with served(Digits(), most_in_flight=1) as here, stuck(here):
        while here.post().status_code == 429:
            pass
        assert here.post().status_code == 200


def test_an_answer_in_parts_is_whole() -> None:
    with served(Digits()) as here:
        answer = here.post(input=["a"] * 1000)
    assert len(answer.content) == int(answer.headers["Content-Length"]) > 10**7
    assert len(answer.json()["data"]) == 1000


def test_a_body_in_chunks_needs_a_place_whatever_size_it_says() -> None:
    both = "Content-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n"
    with (
        served(LexicalBackend(), most_in_flight=1) as here,
        connected(here, HEAD, both) as first,
        connected(here, HEAD, both) as second,
    ):
        answered, _, _ = select.select([first, second], [], [], 30)
        assert [client.recv(12) for client in answered] == [b"HTTP/1.1 429"]


PROCESS = """
import resource
from tests.server.test_clients import Digits
from samespace.server import connections, serve

connections.ASKING, connections.STANDING, files = {asking}, {standing}, {files}
if files:
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
serve(Digits(), port=0, keys=("key-of-a-test",), on_listening=lambda url: print(url, flush=True))
print("ended", flush=True)
"""


@contextmanager
def process(
    *, asking: float = 1e6, standing: float = 1e6, files: int = 0
) -> Iterator[tuple[subprocess.Popen[str], Served]]:
    """A server that waits so many seconds for its clients, and may have so many files open."""
    script, pipe = PROCESS.format(asking=asking, standing=standing, files=files), subprocess.PIPE
    errors = subprocess.DEVNULL if files else pipe  # asyncio says a lot of what it cannot open
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=pipe, stderr=errors, text=True
    ) as made:
        assert made.stdout
        here = Served(made.stdout.readline().strip())
        try:
            while here.get("/ready").status_code != 200:
                pass
            yield made, here
        finally:
            made.kill()


def test_halves_of_heads_do_not_take_all_files_for_ever() -> None:
    with process(asking=1.5, files=64) as (_, here), ExitStack() as clients:
        for _ in range(80):
            clients.enter_context(connected(here, "POST /v1/embeddings HTTP/1.1\r\nHost: x\r\n"))
        answer = httpx.get(f"{here.root}/health", verify=TLS, timeout=60)
        assert answer.status_code == 200


def test_a_connection_on_which_nothing_more_is_asked_is_closed() -> None:
    with process(asking=0.1) as (_, here):
        with connected(here, HEAD) as never:
            assert ended(never)
        with connected(here, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n") as once:
            assert once.recv(15) == b"HTTP/1.1 200 OK"
            assert ended(once)


def ended(client: socket.socket) -> bool:
    """Whether the server lets go of a client in a time that is long enough."""
    try:
        while client.recv(1000):
            pass
    except ConnectionResetError:
        pass
    return True


def test_it_ends_though_a_client_reads_nothing() -> None:
    with process(standing=0.5) as (server, here), stuck(here):
        server.send_signal(signal.SIGTERM)
        said, told = server.communicate(timeout=60)
    assert (server.returncode, said, told) == (0, "ended\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_twice_it_waits_for_no_client(number: signal.Signals) -> None:
    with process() as (server, here), stuck(here):
        server.send_signal(number)
        while listens(here):
            pass
        server.send_signal(number)
        said, told = server.communicate(timeout=60)
    assert (server.returncode, said, told) == (0, "ended\n", "")
