"""Answers of an embedding API that must not be believed, for every test that needs them."""

from __future__ import annotations

import base64
import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from samespace.testing.jina_server import Json

V2 = "jina-embeddings-v2-base-en"


def without(answer: Json, name: str) -> Json:
    return {key: value for key, value in answer.items() if key != name}


def with_numbers(answer: Json, number: float, *, row: int = 1) -> Json:
    """The answer with one component of one vector replaced."""
    item = answer["data"][row]
    vector = np.frombuffer(base64.b64decode(item["embedding"]), "<f4").copy()
    vector[3] = number
    item["embedding"] = base64.b64encode(vector.tobytes()).decode()
    return answer


BAD_BODIES: Final = {
    "empty": b"",
    "html": b"<html>welcome to the hotel</html>",
    "an error under 200": b'{"detail": "no balance", "code": "AUTHZ_INSUFFICIENT_BALANCE"}',
    "truncated JSON": b'{"model": "jina-embeddings-v3", "data": [{"index"',
    "ten megabytes": b" " * 10_000_000,
    "no JSON object": b"[1, 2, 3]",
    "NaN": b'{"data": [{"index": 0, "embedding": NaN}]}',
}
BAD_CHANGES: Final[dict[str, Callable[[Json], Json]]] = {
    "a vector too few": lambda answer: {**answer, "data": answer["data"][1:]},
    "a vector too many": lambda answer: {**answer, "data": answer["data"] + answer["data"][:1]},
    "an index twice": lambda answer: {**answer, "data": [answer["data"][0]] * 3},
    "no data": lambda answer: without(answer, "data"),
    "another model": lambda answer: {**answer, "model": V2},
    "null for a vector": lambda answer: {
        **answer, "data": [{**item, "embedding": None} for item in answer["data"]]
    },
    "numbers for base64": lambda answer: {
        **answer, "data": [{**item, "embedding": [0.0] * 1024} for item in answer["data"]]
    },
    "a dimension too few": lambda answer: {
        **answer,
        "data": [
            {**item, "embedding": base64.b64encode(
                base64.b64decode(item["embedding"])[:-4]).decode()}
            for item in answer["data"]
        ],
    },
    "an error beside vectors that are none": lambda answer: {
        "detail": "no balance", "code": "AUTHZ_INSUFFICIENT_BALANCE", "data": []
    },
    "not a number": lambda answer: with_numbers(answer, float("nan"), row=0),
    "infinity": lambda answer: with_numbers(answer, float("inf"), row=0),
    "no unit norm": lambda answer: with_numbers(answer, 0.9, row=0),
}  # fmt: skip


class Endless(http.server.BaseHTTPRequestHandler):
    """Answers without end: all at once, or below ``/slow`` a byte now and then."""

    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()
        pause, is_slow = threading.Event(), self.path.startswith("/slow")
        with contextlib.suppress(ConnectionError):
            while True:
                self.wfile.write(b" " if is_slow else b" " * 65_536)
                pause.wait(0.01 if is_slow else 0)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing to be read in the tests' output."""


@contextlib.contextmanager
def endless_server() -> Iterator[str]:
    """The URL of a server that answers without end."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless) as endless:
        threading.Thread(target=endless.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{endless.server_port}"
        endless.shutdown()
