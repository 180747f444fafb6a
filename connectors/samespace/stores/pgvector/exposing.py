"""What a slot means to those who are not this library; no I/O."""

from __future__ import annotations

from typing import Final

from psycopg.sql import Identifier

from samespace.errors import excerpt
from samespace.forecast import ClientChange

UNSEEN: Final = (
    "The trigger empties a vector in the transaction that changes its text. Unseen are texts that are "
    "elsewhere (Layout.text is no column) and what is written with triggers switched off "
    "(session_replication_role = replica)"
)
UNRECLAIMED: Final = (
    "The column's index is gone; its bytes stay in each row until that is written anew, all of them with "
    "VACUUM FULL, which locks the table, or pg_repack"
)


def client_changes(source: str, target: str) -> tuple[ClientChange, ...]:
    """What a client changes to go from one column to another."""
    before, after = _quoted(source), _quoted(target)
    return (
        ClientChange("the column in SQL", before, after),
        ClientChange(
            "LangChain's PGVectorStore",
            f"embedding_column={source!r}",
            f"embedding_column={target!r}",
        ),
    )


def _quoted(name: str) -> str:
    return Identifier(name).as_string(None) if name.isprintable() else excerpt(name)
