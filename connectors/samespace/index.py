"""How a slot is indexed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from samespace.errors import InvalidInput, excerpt

Kind = Literal["hnsw", "flat"]
Quantization = Literal["half", "int8", "binary"]
Build = Literal["auto", "immediate", "manual"]
AUTO_ROWS: Final = 10_000
"""From how many rows on ``"auto"`` builds an index, where the moment is for the library to choose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """The index that a store keeps over a slot; each store maps what it has, and refuses the rest.

    ``m`` is the number of links a node has in the graph, ``ef_construction`` the candidates
    weighed when one is inserted (HNSW, Malkov and Yashunin 2016). ``build``: ``"auto"`` lets the
    store choose the moment, ``"immediate"`` builds with the collection, ``"manual"`` leaves it to
    ``build_index()``.
    """

    kind: Kind = "hnsw"
    m: int = 16
    ef_construction: int = 64
    quantization: Quantization | None = None
    build: Build = "auto"

    def __post_init__(self) -> None:
        _check_choice("kind", self.kind, get_args(Kind))
        _check_choice("quantization", self.quantization, (None, *get_args(Quantization)))
        _check_choice("build", self.build, get_args(Build))
        for name, value in (("m", self.m), ("ef_construction", self.ef_construction)):
            if type(value) is not int or value < 2:
                raise InvalidInput(f"Index.{name} is {excerpt(value)}; pass a whole number from 2")

    def is_due(self, rows: int) -> bool:
        """Whether a slot of so many rows is to be indexed without being asked to."""
        if self.kind == "flat" or self.build == "manual":
            return False
        return self.build == "immediate" or rows >= AUTO_ROWS


def _check_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        choices = ", ".join(map(repr, allowed))
        raise InvalidInput(f"Index.{name} is {excerpt(value)}; choose one of {choices}")
