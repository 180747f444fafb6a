"""A hub with v3's repository on a port of its own, which may stop in the middle of a file."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from samespace.backends.jina_local.checkpoint import REPOSITORY, REVISION

COMMIT = REVISION + "0" * (40 - len(REVISION))


class Hub(ThreadingHTTPServer):
    """Serves the files of a folder; of ``stops_at`` nothing but the headers."""

    daemon_threads = True

    def __init__(self, folder: Path, stops_at: str | None) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.folder, self.stops_at = folder, stops_at
        self.stopped, self.ends = threading.Event(), threading.Event()

    @property
    def files(self) -> list[str]:
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return [str(path.relative_to(self.folder)) for path in found]


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        api, files = f"/api/models/{REPOSITORY}/", f"/{REPOSITORY}/resolve/{COMMIT}/"
        path = self.path.partition("?")[0]
        if path == f"{api}commits/main":
            said = {"title": "", "message": "", "authors": [], "date": "2026-01-01T00:00:00.000Z"}
            self._json([{"id": COMMIT, **said}])
        elif path == f"{api}revision/{COMMIT}":
            siblings = [{"rfilename": name} for name in self.server.files]
            self._json({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings})
        elif path.startswith(files):
            self._file(path.removeprefix(files))
        else:
            self.send_error(404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _json(self, said: Any) -> None:
        self._send(json.dumps(said).encode(), {})

    def _file(self, name: str) -> None:
        content = (self.server.folder / name).read_bytes()
        headers = {"ETag": f'"{hash(content)}"', "X-Repo-Commit": COMMIT}
        self._send(content, headers, stops=name == self.server.stops_at)

    def _send(self, content: bytes, headers: dict[str, str], *, stops: bool = False) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if stops:
            self.wfile.flush()
            self.server.stopped.set()
            self.server.ends.wait()
        else:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def hub(folder: Path, *, stops_at: str | None = None) -> Iterator[Hub]:
    with Hub(folder, stops_at) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            made.ends.set()
            made.shutdown()
            thread.join()
