"""What may be done with vectors of one space in a collection of another, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from samespace.errors import InvalidInput, excerpt
from samespace.space import EmbeddingSpace, Verdict, compare, differences

Use = Literal["write", "query"]
"""Storing an offered vector among the stored ones, or comparing it with them."""


@dataclass(frozen=True, slots=True)
class Legality:
    """A verdict and its reason, one or two sentences.

    Nothing but *equal* spaces is legal as it stands. *Derivable* says that no model has to be called:
    the reason tells which side's vectors are to be shortened or divided by their norm first.
    """

    verdict: Verdict
    reason: str

    @property
    def is_legal(self) -> bool:
        """Whether the offered vectors may be used as they are."""
        return self.verdict is Verdict.EQUAL


def legality(stored: EmbeddingSpace, offered: EmbeddingSpace, use: Use) -> Legality:
    """Whether vectors of ``offered`` may be written to, or asked of, vectors of ``stored``.

    :class:`InvalidInput` for a ``use`` that is neither.
    """
    if use not in get_args(Use):
        raise InvalidInput(f"use is {excerpt(use)}; pass one of {', '.join(get_args(Use))}")
    if stored == offered:
        return Legality(Verdict.EQUAL, f"Both are of {stored}.")
    if compare(offered, stored) is Verdict.DERIVABLE:
        return Legality(Verdict.DERIVABLE, _offered_first(stored, offered, use))
    if compare(stored, offered) is Verdict.DERIVABLE:
        return Legality(Verdict.DERIVABLE, _stored_first(stored, offered))
    return Legality(Verdict.INCOMPATIBLE, _nothing_in_common(stored, offered))


def _offered_first(stored: EmbeddingSpace, offered: EmbeddingSpace, use: Use) -> str:
    done = "written" if use == "write" else "searched with"
    return (
        f"The offered vectors may be {done} once they are {_change(offered, stored)}, without the model "
        f"(samespace.space.derive): a backend of {stored} does that."
    )


def _stored_first(stored: EmbeddingSpace, offered: EmbeddingSpace) -> str:
    return (
        "The offered vectors can be computed from the stored ones without the model "
        f"(samespace.space.derive): these are {_change(stored, offered)}."
    )


def _change(before: EmbeddingSpace, after: EmbeddingSpace) -> str:
    shortened = before.dimensions != after.dimensions
    changes = [f"shortened to {after.dimensions} components"] if shortened else []
    changes += ["divided by their norm"] if after.normalized else []
    return " and ".join(changes)


def _nothing_in_common(stored: EmbeddingSpace, offered: EmbeddingSpace) -> str:
    fields = [difference.field for difference in differences(stored, offered)]
    same_size = (
        " though the dimensions are equal" if stored.dimensions == offered.dimensions else ""
    )
    if "model" in fields:
        return f"Vectors of another model cannot be compared{same_size}."
    if "task" in fields:
        return (
            f"One model embeds a text differently as {_named(stored.task)} and as "
            f"{_named(offered.task)}, so such vectors cannot be compared{same_size}."
        )
    if "variant" in fields:
        return (
            "Another prompt, fine-tune or revision changes vectors, so they cannot be "
            f"compared{same_size}."
        )
    return _not_derivable(stored, offered)


def _named(task: str | None) -> str:
    return "a text without a task" if task is None else excerpt(task).strip("'")


def _not_derivable(stored: EmbeddingSpace, offered: EmbeddingSpace) -> str:
    if stored.normalized != offered.normalized:
        return "The one's vectors have lost their length and the other's are too short to follow."
    return (
        f"{stored.model} is not trained for being shortened, so one size says nothing of another."
    )
