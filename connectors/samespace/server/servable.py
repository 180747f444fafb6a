"""What a server needs of a model: any task of it, from one set of loaded weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from samespace.models import Model
from samespace.protocols import Matrix

Stop = Callable[[], bool]


class Found(Protocol):
    """What was found for texts."""

    @property
    def means(self) -> Matrix:
        """Shape ``(n, model.dimensions)``, not normalised."""

    @property
    def counts(self) -> Sequence[int]:
        """The tokens of each text that were embedded."""


class Servable(Protocol):
    """A model with all of its tasks. Any number of threads may use it.

    ``stop`` is asked between batches: if it says so, the work may end with any exception.
    """

    @property
    def model(self) -> Model:
        """Which model it is."""

    def load(self, tasks: Sequence[str | None]) -> None:
        """Get ready for these tasks, the first of them where there is no room for all."""

    def texts(
        self,
        texts: Sequence[str],
        task: str | None,
        *,
        cuts: bool,
        stop: Stop = bool,
        urgent: bool = False,
    ) -> Found:
        """Each text by itself; ``urgent`` goes before what is under way, where the device can do that.

        :class:`~samespace.errors.TokenLimitExceeded` names the texts that are too long, unless it cuts
        them.
        """

    def chunks(
        self, documents: Sequence[Sequence[str]], task: str | None, *, stop: Stop = bool
    ) -> tuple[list[Matrix], int]:
        """The chunks of each document in sight of one another, and all tokens."""

    def count_together(self, chunks: Sequence[str], task: str | None) -> int:
        """Tokens of the document that these are the chunks of."""


@runtime_checkable
class HasServable(Protocol):
    """A backend whose model can be served."""

    @property
    def servable(self) -> Servable:
        """Its model with all tasks."""
