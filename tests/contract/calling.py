"""Calling sync and async backends alike, so that one test serves both."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from samespace.protocols import Matrix, Usage


class Caller:
    """Either client, called as if it were sync; what is async runs in a loop of its own."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self._runner = asyncio.Runner()

    def run(self, name: str, *arguments: Any) -> Any:
        async def call() -> Any:
            value = getattr(self.backend, name)(*arguments)
            return await value if asyncio.iscoroutine(value) else value

        if not self.backend.is_async:
            return getattr(self.backend, name)(*arguments)
        return self._runner.run(call())

    def documents(self, texts: Sequence[str]) -> Matrix:
        vectors: Matrix = self.run("embed_documents", texts)
        return vectors

    def queries(self, texts: Sequence[str]) -> Matrix:
        vectors: Matrix = self.run("embed_queries", texts)
        return vectors

    def query(self, text: str) -> Matrix:
        vector: Matrix = self.run("embed_query", text)
        return vector

    def chunks(self, documents: Sequence[Sequence[str]]) -> list[Matrix]:
        found: list[Matrix] = self.run("embed_chunks", documents)
        return found

    def usage(self) -> Usage:
        usage: Usage = self.run("usage")
        return usage

    def shut(self) -> None:
        self.run("close")

    def close(self) -> None:
        self.shut()
        self._runner.close()
