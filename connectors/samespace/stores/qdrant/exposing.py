"""What a slot means to those who are not this library; no I/O."""

from __future__ import annotations

from typing import Final

from samespace.forecast import ClientChange

UNSEEN: Final = (
    "A sweep compares each text with what its vector was made from. Unseen are a text that was changed "
    "and changed back between two sweeps with the other model's vector of the text between, and, without "
    "--old-backend, texts changed in place under an adopted slot's vector"
)
UNRECLAIMED: Final = (
    "The space comes back when the optimizer writes the segments anew, which it does by itself"
)


def client_changes(source: str, target: str) -> tuple[ClientChange, ...]:
    """What a client changes to go from one named vector to another; ``""`` is the unnamed one."""
    return (
        ClientChange(
            "query_points", f"using={source!r}" if source else "no using=", f"using={target!r}"
        ),
        ClientChange(
            "the points that it writes",
            f"vector={{{source!r}: …}}" if source else "vector=…",
            f"vector={{{target!r}: …}}",
        ),
        ClientChange(
            "LangChain's QdrantVectorStore", f"vector_name={source!r}", f"vector_name={target!r}"
        ),
    )
