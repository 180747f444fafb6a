"""A local server that takes what it is sent, so that a client's own work is all that is measured."""

from __future__ import annotations

import json
import socketserver
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus

Reply = tuple[HTTPStatus, bytes]
Answering = Callable[[str, str, bytes], Reply]
"""Method, path and body go in."""


class Connection(socketserver.StreamRequestHandler):
    """Just as much of HTTP/1.1 as the clients speak."""

    server: Server
    disable_nagle_algorithm = True
    rbufsize = 2**20

    def handle(self) -> None:
        while line := self.rfile.readline():
            method, path, _ = line.decode().split(" ", 2)
            body = self.rfile.read(self._length())
            status, reply = self.server.answering(method, path, body)
            head = f"HTTP/1.1 {status} {status.phrase}\r\n{self.server.headers}"
            self.wfile.write(f"{head}content-length: {len(reply)}\r\n\r\n".encode())
            if method != "HEAD":
                self.wfile.write(reply)

    def _length(self) -> int:
        length = 0
        while (header := self.rfile.readline().rstrip()) != b"":
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return length


class Server(socketserver.ThreadingTCPServer):
    """A thread for each connection; ``headers`` of every answer end in a line break."""

    daemon_threads = True

    def __init__(self, answering: Answering, headers: str) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.answering = answering
        self.headers = headers


def start(answering: Answering, headers: str) -> int:
    """Answer beside, and return the port."""
    server = Server(answering, headers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1])


def until_stdin_ends(address: str) -> None:
    """Say where it answers, and wait."""
    print(json.dumps(address), flush=True)
    sys.stdin.read()
