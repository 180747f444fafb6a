"""Vectors that follow from those of another slot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from samespace.audit.remaking import BLANK, Chunks, Remade
from samespace.documents import VersionedRow
from samespace.migrate.making import ByModel
from samespace.migrate.tallying import Tally
from samespace.protocols import Vector
from samespace.space import EmbeddingSpace, derive
from samespace.vectors import LONGEST, SHORTEST, stack

UNDERIVABLE: Final = (
    "nothing can be derived from its vector in the source's slot, which is not finite, or zero as far as "
    "the target's dimensions go; write the row again with the source's model"
)
UNMADE: Final = (
    "there is no vector that is known to be of its text in the source's slot, which others made, and nothing "
    "makes one; follow with a handle that has the source's backend, or write the row again with the "
    "source's model"
)
UNEMBEDDED: Final = (
    "there is no vector of its text in the source's slot to derive from, and the source's model refuses that "
    "text; change it"
)


class Derived:
    """Vectors that follow from another slot's; rows without a fresh one there are embedded.

    So are those of whose vector there nothing would be left. Without a model the first wait until there
    is one to derive from, unless there will be none, and the others are refused.
    """

    def __init__(
        self,
        source: EmbeddingSpace,
        target: EmbeddingSpace,
        model: ByModel | None,
        *,
        is_kept: bool,
        tally: Tally,
    ) -> None:
        """``is_kept`` says whether a vector in the other slot can become one of its row's text again.

        ``tally`` says what the model of the other slot refuses.
        """
        self._source, self._target, self._model = source, target, model
        self._is_kept, self._tally = is_kept, tally

    @property
    def derives_from(self) -> EmbeddingSpace:
        """Whose vectors are shortened, or brought to unit norm."""
        return self._source

    def asks_for(self, row: VersionedRow) -> bool:
        """Where there is a model, and nothing to derive from."""
        return self._model is not None and not self._is_derivable(row)

    async def make(self, rows: Sequence[VersionedRow], chunks: Chunks) -> Remade:
        """Derive where that is possible."""
        given = [row for row in rows if self._is_derivable(row)]
        others = [row for row in rows if not self._is_derivable(row)]
        result = Remade()
        if others and self._model is not None:
            result = await self._model.make(others, chunks)
        elif others:
            for row, reason in self._hopeless(others):
                result.refuse(row.document, reason)
        for row, vector in self._derived(given):
            result.put(row.document, vector)
        return result

    def _derived(self, rows: Sequence[VersionedRow]) -> Iterator[tuple[VersionedRow, Vector]]:
        if not rows:
            return
        vectors = stack(
            [row.vector for row in rows if row.vector is not None], self._source.dimensions
        )
        made = derive(vectors, stored=self._source, offered=self._target)
        yield from zip(rows, made, strict=True)

    def _is_derivable(self, row: VersionedRow) -> bool:
        """Whether there is a vector, of which something is left in the target's dimensions."""
        if row.vector is None:
            return False
        wide = np.asarray(row.vector, np.float64)  # no square overflows
        left = wide[: self._target.dimensions]
        return bool(np.isfinite(wide @ wide)) and SHORTEST**2 <= float(left @ left) <= LONGEST**2

    def _hopeless(self, rows: Sequence[VersionedRow]) -> Iterator[tuple[VersionedRow, str]]:
        """The rows that will not have a vector to derive from, each with the reason."""
        for row in rows:
            if row.vector is not None:
                yield row, UNDERIVABLE
            elif not row.document.embedded_text.strip():
                yield row, BLANK
            elif self._tally.has_refused(row):
                yield row, UNEMBEDDED
            elif not self._is_kept:
                yield row, UNMADE
