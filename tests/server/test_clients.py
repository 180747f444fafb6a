"""Clients that read nothing, come by halves, or say one size and send another."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from tests.server.lexical import LexicalBackend
from tests.server.serving import KEY, Served, served

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
