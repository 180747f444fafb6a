"""``--keep-full``: a backend whose vectors of full size are kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from samespace.cli.options import opened_backend
from samespace.migrate import ArchivingBackend, VectorArchive
from samespace.opening import full_size
from samespace.protocols import EmbeddingBackend


@contextmanager
def archived_backend(
    spec: str, folder: Path, *, dimensions: int | None = None, share: float | None = None
) -> Iterator[EmbeddingBackend]:
    """The backend of a spec, by way of the full size of its model, which is kept in a folder.

    Of a model that cannot be shortened, or whose full size nobody knows, what is kept is of the size of
    the spec.
    """
    with opened_backend(spec, dimensions, share) as wanted:
        space = wanted.space
    larger = full_size(spec, space)
    with (
        opened_backend(larger, dimensions if larger == spec else None, share) as full,
        VectorArchive(folder, full.space) as archive,
    ):
        yield ArchivingBackend(full, archive, space)
