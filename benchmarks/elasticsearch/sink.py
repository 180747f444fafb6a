"""An Elasticsearch that keeps nothing but what its indices were created with."""

from __future__ import annotations

from http import HTTPStatus

import orjson

from benchmarks import sink

HEADERS = "content-type: application/json\r\nx-elastic-product: Elasticsearch\r\n"
VERSION = orjson.dumps({"version": {"number": "9.4.3", "build_flavor": "default"}, "tagline": ""})
ITEM = b'{"index":{"_id":"","status":201}}'
DONE = b'{"acknowledged":true}'
MISSING = b'{"error":{"type":"index_not_found_exception"},"status":404}'


class Indices:
    """Answers as if all that was sent were kept."""

    def __init__(self) -> None:
        self.known: dict[str, object] = {}

    def answer(self, method: str, path: str, body: bytes) -> sink.Reply:
        name, _, action = path.partition("?")[0].strip("/").partition("/")
        if "_bulk" in (name, action):
            return HTTPStatus.OK, _stored(body.count(b"\n") // 2)
        if not name:
            return HTTPStatus.OK, VERSION
        if method == "PUT":
            self.known[name] = {"aliases": {}, "mappings": {}, "settings": {}, **orjson.loads(body)}
        if method == "DELETE":
            self.known.pop(name, None)
        if action or method in {"DELETE", "PUT"}:
            return HTTPStatus.OK, DONE
        if name not in self.known:
            return HTTPStatus.NOT_FOUND, MISSING
        return HTTPStatus.OK, orjson.dumps({name: self.known[name]})


def _stored(count: int) -> bytes:
    items = b",".join([ITEM] * count)
    return b'{"took":1,"errors":false,"items":[' + items + b"]}"


if __name__ == "__main__":
    port = sink.start(Indices().answer, HEADERS)
    sink.until_stdin_ends(f"http://127.0.0.1:{port}")
