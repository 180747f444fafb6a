"""Adds to an archive and says so, a line for each record that is there, until it is killed.

``python archiving_process.py FOLDER NAME`` adds for ever; with ``BYTES`` as well no file may be longer, and
it ends once one cannot be.
"""

from __future__ import annotations

import itertools
import resource
import sys

import numpy as np

from samespace.errors import MigrationError
from samespace.migrate.archive import VectorArchive, document_key
from samespace.testing.backends import V3, TaskBackend


def main(folder: str, name: str) -> None:
    model = TaskBackend()
    with VectorArchive(folder, V3) as archive:
        for number in itertools.count():
            texts = [f"{name} {number} {place}" for place in range(7)]
            keys = [document_key(V3, text) for text in texts]
            archive.add(dict(zip(keys, model.embed_documents(texts), strict=True)))
            sys.stdout.write("".join(f"{text}\n" for text in texts))
            sys.stdout.flush()


def fill(folder: str, most: int) -> None:
    """Add until a file may not grow; then let it, and add once more."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with VectorArchive(folder, V3) as archive:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
        one = np.ones((V3.dimensions,), np.float32) / np.sqrt(V3.dimensions).astype(np.float32)
        try:
            for number in itertools.count():
                archive.add({document_key(V3, f"{number} {place}"): one for place in range(3)})
        except MigrationError as error:
            sys.stdout.write(f"{error}\n")
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        archive.add({document_key(V3, "after"): one})
        sys.stdout.write(f"{len(archive.find([document_key(V3, 'after')]))}\n")


if __name__ == "__main__":
    if len(sys.argv) > 3:
        fill(sys.argv[1], int(sys.argv[3]))
    else:
        main(*sys.argv[1:])
