"""Embedding spaces: which vectors may be compared with which."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from samespace.errors import InvalidInput, excerpt
from samespace.models import HASHING, MODELS, Model, documents_task, find_model, queries_task
from samespace.names import is_unstorable

MAX_DIMENSIONS: Final = 16_000
"""pgvector's limit for the type ``vector``, the widest of the stores'."""

_READABLE_BYTES: Final = 54
_NUMBERS = re.compile(r"(?<=_)[0-9]{1,9}(?=_)")
_NOT_PLAIN = re.compile(r"[^a-z0-9]+")
_SPEC = re.compile(r"(?P<model>[^@:]+)(?:@(?P<dimensions>[0-9]{1,9}))?(?::(?P<task>[^:@\s]+))?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingSpace:
    """Where a vector lives. Two vectors may be compared if and only if their spaces are equal.

    ``model`` and ``task`` are canonical once constructed: aliases and a model's default task are
    resolved. ``task`` is what *documents* are embedded as (None = generic); queries follow from it
    (:attr:`query_task`). ``variant`` names anything else that changes vectors: a prompt, a
    fine-tune, a revision of the weights that matters.
    """

    model: str
    dimensions: int
    task: str | None = None
    normalized: bool = True
    variant: str = ""

    def __post_init__(self) -> None:
        _check_types(self)
        model = find_model(self.model)
        object.__setattr__(self, "model", model.name if model else self.model)
        object.__setattr__(self, "task", documents_task(model, self.task))
        if model:
            _check_against(model, self)

    @property
    def id(self) -> str:
        """The name of this space's slot in every store: at most 63 bytes of ``[a-z0-9_]``.

        ``<model>_<dimensions>_<task or "generic">[_raw]_<8 hex digits>``; the digits begin the
        SHA-256 of the canonical JSON of all fields. It never changes.
        """
        return _id(self)

    @property
    def query_task(self) -> str | None:
        """What queries are embedded as: ``X.passage`` → ``X.query``; a symmetric task → itself."""
        return queries_task(find_model(self.model), self.task)

    def to_dict(self) -> dict[str, Any]:
        """The five fields, JSON-ready; the inverse of :meth:`from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields_: dict[str, Any]) -> EmbeddingSpace:
        """Read what :meth:`to_dict` wrote; :class:`InvalidInput` if it is anything else.

        No field may be missing: that one was left out is not to say that it has its default.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(fields_, Mapping) or fields_.keys() != names:
            raise InvalidInput(f"not an embedding space: {excerpt(fields_)}")
        return cls(**fields_)

    @classmethod
    def parse(cls, spec: str) -> EmbeddingSpace:
        """Read a spec ``MODEL@DIMENSIONS:TASK``; dimensions may be left out for a known model."""
        match = _SPEC.match(spec)
        model = find_model(match["model"]) if match else None
        native = model.dimensions if model else 0
        dimensions = int(match["dimensions"] or native) if match else 0
        if not match or not dimensions:
            raise InvalidInput(
                f"{excerpt(spec)} is not a space: write MODEL@DIMENSIONS:TASK, for example "
                "jina-embeddings-v3@1024:retrieval.passage"
            )
        return cls(model=match["model"], dimensions=dimensions, task=match["task"])

    def __str__(self) -> str:
        task = f":{self.task}" if self.task else ""
        raw = "" if self.normalized else " un-normalised"
        variant = f" variant {excerpt(self.variant)}" if self.variant else ""
        return f"{self.model}@{self.dimensions}{task}{raw}{variant}"


@lru_cache(maxsize=256)  # a store asks for it with every row
def _id(space: EmbeddingSpace) -> str:
    raw = "" if space.normalized else "_raw"
    readable = f"{space.model}_{space.dimensions}_{space.task or 'generic'}{raw}".lower()
    stem = _NOT_PLAIN.sub("_", readable)[:_READABLE_BYTES]
    canonical = json.dumps(
        asdict(space), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()
    return f"{stem}_{hashlib.sha256(canonical).hexdigest()[:8]}"


def _check_types(space: EmbeddingSpace) -> None:
    texts = {
        "model": space.model,
        "task": "" if space.task is None else space.task,
        "variant": space.variant,
    }
    for name, value in texts.items():
        if not isinstance(value, str) or is_unstorable(value):
            raise InvalidInput(f"space.{name} is {excerpt(value)}; pass a plain string")
    if not space.model:
        raise InvalidInput("space.model is empty; name the embedding model")
    if space.task == "":
        raise InvalidInput("space.task is empty; pass None for an embedding without a task")
    if type(space.dimensions) is not int or not 1 <= space.dimensions <= MAX_DIMENSIONS:
        raise InvalidInput(
            f"space.dimensions is {excerpt(space.dimensions)}; pass 1 to {MAX_DIMENSIONS}"
        )
    if type(space.normalized) is not bool:
        raise InvalidInput(f"space.normalized is {excerpt(space.normalized)}; pass True or False")


def _check_against(model: Model, space: EmbeddingSpace) -> None:
    if not model.min_dimensions <= space.dimensions <= model.dimensions:
        sizes = (
            f"{model.min_dimensions} to {model.dimensions}"
            if model.min_dimensions < model.dimensions
            else f"exactly {model.dimensions}"
        )
        raise InvalidInput(
            f"{model.name} has {sizes} dimensions, not {space.dimensions}; pass one of those"
        )
    if space.task is not None and space.task not in _document_tasks(model):
        known = ", ".join(_document_tasks(model)) or "none: leave task out"
        raise InvalidInput(
            f"{model.name} cannot embed documents as {excerpt(space.task)}; tasks for documents: "
            f"{known} (queries get theirs by themselves)"
        )


def spaces_named(slot: str) -> list[EmbeddingSpace]:
    """The spaces of known models whose :attr:`~EmbeddingSpace.id` is ``slot``: one, or none.

    The library's own lexical hash is among the models. None for a model that is not in the registry,
    and for a space with a variant.
    """
    sizes = {int(digits) for digits in _NUMBERS.findall(slot)}
    known = [
        space
        for model in MODELS.values()
        for size in sizes
        if model.min_dimensions <= size <= model.dimensions
        for space in _spaces_of(model, size)
    ]
    known += [
        EmbeddingSpace(model=HASHING, dimensions=size)
        for size in sizes
        if 1 <= size <= MAX_DIMENSIONS
    ]
    return [space for space in known if space.id == slot]


def _spaces_of(model: Model, dimensions: int) -> list[EmbeddingSpace]:
    """Every space of a model at a size, but for variants."""
    tasks = {documents_task(model, task) for task in (None, *_document_tasks(model))}
    return [
        EmbeddingSpace(model=model.name, dimensions=dimensions, task=task, normalized=normalized)
        for task in sorted(tasks, key=str)
        for normalized in (True, False)
    ]


def _document_tasks(model: Model) -> tuple[str, ...]:
    return tuple(task for task in model.tasks if not task.endswith(".query"))


class Verdict(StrEnum):
    """What two spaces are to one another."""

    EQUAL = "equal"
    DERIVABLE = "derivable"
    """The offered space's vectors follow from the stored ones without calling a model."""
    INCOMPATIBLE = "incompatible"


@dataclass(frozen=True, slots=True)
class Difference:
    """One field in which two spaces differ."""

    field: str
    stored: object
    offered: object


def differences(stored: EmbeddingSpace, offered: EmbeddingSpace) -> tuple[Difference, ...]:
    """The fields in which two spaces differ, in the order of declaration."""
    return tuple(
        Difference(field.name, getattr(stored, field.name), getattr(offered, field.name))
        for field in fields(EmbeddingSpace)
        if getattr(stored, field.name) != getattr(offered, field.name)
    )


def compare(stored: EmbeddingSpace, offered: EmbeddingSpace) -> Verdict:
    """Whether ``offered`` equals ``stored``, can be derived from it, or has nothing to do with it.

    Derivable: the same model, task and variant, with fewer dimensions where the model is trained
    for truncation (Matryoshka), or normalised where the stored vectors are not.
    """
    if stored == offered:
        return Verdict.EQUAL
    same_source = (stored.model, stored.task, stored.variant) == (
        offered.model,
        offered.task,
        offered.variant,
    )
    keeps_norm = offered.normalized or not stored.normalized
    if same_source and keeps_norm and _can_shorten(stored, offered.dimensions):
        return Verdict.DERIVABLE
    return Verdict.INCOMPATIBLE


def _can_shorten(stored: EmbeddingSpace, dimensions: int) -> bool:
    if dimensions == stored.dimensions:
        return True
    model = find_model(stored.model)
    return (
        model is not None
        and model.min_dimensions < model.dimensions
        and dimensions < stored.dimensions
    )


def derive(
    vectors: NDArray[np.float32], *, stored: EmbeddingSpace, offered: EmbeddingSpace
) -> NDArray[np.float32]:
    """Turn ``(n, stored.dimensions)`` vectors into ``(n, offered.dimensions)`` ones.

    Truncate, then normalise again where the offered space is normalised (Matryoshka
    representation learning, Kusupati et al. 2022). :class:`InvalidInput` unless derivable, for
    anything but such vectors of finite numbers, and where nothing but zeros would be left of one.
    """
    if compare(stored, offered) is Verdict.INCOMPATIBLE:
        raise InvalidInput(f"vectors of {offered} cannot be derived from {stored}; embed again")
    _check_stored(vectors, stored)
    shortened = vectors[:, : offered.dimensions]
    if not offered.normalized:
        return shortened
    norms = np.linalg.norm(shortened, axis=1, keepdims=True)
    if not norms.all():
        raise InvalidInput(
            f"vector {int(np.argmin(norms))} is zero in its first {offered.dimensions} components, so "
            "nothing can be derived from it; embed its text again"
        )
    return np.asarray(shortened / norms, dtype=np.float32)


def _check_stored(vectors: NDArray[np.float32], stored: EmbeddingSpace) -> None:
    """:class:`InvalidInput` unless these are vectors of a space, one a row."""
    is_matrix = isinstance(vectors, np.ndarray) and vectors.dtype.kind in "fiu"
    if not is_matrix or vectors.ndim != 2 or vectors.shape[1] != stored.dimensions:
        given = f"of shape {vectors.shape}" if is_matrix else excerpt(vectors)
        raise InvalidInput(
            f"vectors are {given}; pass a matrix of numbers of shape (n, {stored.dimensions}), the "
            f"vectors of {stored}"
        )
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise InvalidInput(
            f"vector {int(np.argmin(finite))} has components that are not finite; embed its text again"
        )
