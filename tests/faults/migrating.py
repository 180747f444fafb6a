"""The command as a process that may be killed, and models that answer as the API's server does."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import ClassVar

from samespace import cli
from samespace.models import find_model
from samespace.protocols import Matrix, Vector
from samespace.space import EmbeddingSpace
from samespace.testing.jina_vectors import LexicalModel


def main(arguments: list[str], environment: Mapping[str, str]) -> None:
    """``samespace`` with these arguments."""
    os.environ.update(environment)
    sys.argv = ["samespace", *arguments]
    cli.main()


class Lexical:
    """What :class:`~samespace.testing.jina_server.JinaServer` embeds with, without being asked."""

    is_async: ClassVar[bool] = False

    def __init__(self, space: EmbeddingSpace) -> None:
        model = find_model(space.model)
        assert model is not None
        self._space, self._model = space, LexicalModel(model)

    @property
    def space(self) -> EmbeddingSpace:
        return self._space

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        return self._embed(texts, self._space.task)

    def embed_queries(self, texts: Sequence[str]) -> Matrix:
        return self._embed(texts, self._space.query_task)

    def embed_query(self, text: str) -> Vector:
        vector: Vector = self.embed_queries([text])[0]
        return vector

    def _embed(self, texts: Sequence[str], task: str | None) -> Matrix:
        return self._model.embed(texts, task=task, dimensions=self._space.dimensions)
