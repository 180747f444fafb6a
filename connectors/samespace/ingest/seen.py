"""Which ids a source brought, marked on disk: a source may have more than memory holds."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from samespace.errors import InvalidInput, excerpt
from samespace.ingest.pieces import ALL_ROWS

_MAKE: Final = (
    "CREATE TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY) WITHOUT ROWID",
)
_CLEAR: Final = ("DELETE FROM seen", "DELETE FROM kept")
_MARK: Final = "INSERT OR IGNORE INTO seen VALUES (?)"
_KEEP: Final = "INSERT OR IGNORE INTO kept VALUES (?)"
_IS_SEEN: Final = "SELECT 1 FROM seen WHERE id = ?"
_IS_KEPT: Final = "SELECT 1 FROM kept WHERE name = ?"


class SeenIds:
    """A file of marks; without a path a temporary one. They survive the process that made them.

    An id is marked where the source brought it; a name, where something of it could not be read, so
    that nobody can say which of its rows are still there.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._folder = None if path else tempfile.TemporaryDirectory(prefix="samespace-seen-")
        place = path or Path(self._folder.name if self._folder else "", "seen")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(place, check_same_thread=False)
            for statement in _MAKE:
                self._database.execute(statement)
        except (OSError, sqlite3.Error) as error:
            raise InvalidInput(
                f"cannot mark ids in {excerpt(str(place))}: {error}; remove the file, or pass "
                "another checkpoint="
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._database.close()
        if self._folder is not None:
            self._folder.cleanup()

    def clear(self) -> None:
        """Forget all marks."""
        with self._database:
            for statement in _CLEAR:
                self._database.execute(statement)

    def mark(self, ids: Iterable[str], *, kept: Iterable[str] = ()) -> None:
        """Mark ids, and names all of whose rows stay; on disk once this returns."""
        with self._database:
            self._database.executemany(_MARK, ((id,) for id in ids))
            self._database.executemany(_KEEP, ((name,) for name in kept))

    def unseen(self, rows: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
        """Of rows, each an id and the names that it belongs to, the ids of those without a mark."""
        return [
            id
            for id, names in rows
            if not self._has(_IS_SEEN, id) and not any(self._has(_IS_KEPT, name) for name in names)
        ]

    @property
    def keeps_all(self) -> bool:
        """Whether nobody can say of any row that it is gone."""
        return self._has(_IS_KEPT, ALL_ROWS)

    def _has(self, query: str, value: str) -> bool:
        return self._database.execute(query, (value,)).fetchone() is not None

    def remove(self) -> None:
        """Remove the file, once its marks are of no use."""
        self._database.close()
        if self._path is not None:
            for suffix in ("", "-journal"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
