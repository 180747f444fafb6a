"""Processes that may be killed, each forked from one that has imported what they need.

A process of its own costs one to three seconds before it does anything, most of them for drivers.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final, TextIO

CONTEXT: Final = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([
    "tests.faults.auditing",
    "tests.faults.ingesting",
    "tests.faults.migrating",
    "tests.faults.racing",
    *(
        f"samespace.stores.{name}.{module}"
        for name in ("pgvector", "qdrant", "elasticsearch")
        for module in ("store", "store_async")
    ),
])  # fmt: skip


class Forked:
    """A process that calls ``main(**asked)``; what it prints is read from ``said`` as it comes."""

    def __init__(self, main: Callable[..., None], **asked: Any) -> None:
        said, saying = CONTEXT.Pipe(duplex=False)
        errors, failing = CONTEXT.Pipe(duplex=False)
        self._process = CONTEXT.Process(target=_run, args=(saying, failing, main, asked))
        self._process.start()
        saying.close()
        failing.close()
        self.said, self._errors = _text(said), _text(errors)

    def end(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def last_words(self) -> tuple[int, str, str]:
        """Its exit code once it has ended, what it said since it was last read, and its errors."""
        with self.said, self._errors:
            said, errors = self.said.read(), self._errors.read()
        self._process.join()
        code = self._process.exitcode
        assert code is not None
        return code, said, errors


def _text(pipe: Connection) -> TextIO:
    """A pipe's end as a text file, whose own it is."""
    with pipe:
        return os.fdopen(os.dup(pipe.fileno()), encoding="utf-8")


def _run(
    saying: Connection, failing: Connection, main: Callable[..., None], asked: dict[str, Any]
) -> None:
    for pipe, standard in ((saying, 1), (failing, 2)):
        os.dup2(pipe.fileno(), standard)
        pipe.close()
    main(**asked)
