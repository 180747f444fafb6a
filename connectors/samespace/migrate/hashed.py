"""Files of JSON that a person may read and nobody edits: each with the hash of what it says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from samespace.errors import InvalidInput, excerpt
from samespace.space import EmbeddingSpace

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file is in the words of a refusal, and what makes it again."""

    name: str
    again: str


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON: sorted keys, no spaces, UTF-8."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def hashed(content: Mapping[str, Any]) -> dict[str, Any]:
    """What it says, and the hash of that."""
    return {**content, "hash": digest(content)}


class Fields:
    """The fields of one object in such a file; each is what was asked for, or refused by its name."""

    def __init__(self, values: object, kind: Kind, place: str = "") -> None:
        self._kind, self._place = kind, place
        if not isinstance(values, Mapping):
            raise self._not(place or "it", values, "an object of JSON")
        self.values: Mapping[str, Any] = values

    def check_format(self, known: int) -> None:
        """:class:`InvalidInput` for a file of another format."""
        found = self.number("format")
        if found != known:
            raise InvalidInput(
                f"{self._kind.name} has format {found}, and this version reads {known}; "
                f"{self._kind.again}, or use the version of samespace that made it"
            )

    def check_hash(self) -> None:
        """:class:`InvalidInput` where what it says has another hash."""
        said = digest({key: value for key, value in self.values.items() if key != "hash"})
        found = self.text("hash")
        if found != said:
            raise InvalidInput(
                f"{self._kind.name} was edited after it was made: its hash is {excerpt(found)}, and "
                f"what it says has {said[:12]}…; {self._kind.again}"
            )

    def text(self, name: str) -> str:
        """A string."""
        return self._of(name, str, "a string")

    def number(self, name: str) -> int:
        """A whole number from 0 on."""
        found = self._of(name, int, "a whole number")
        if isinstance(found, bool) or found < 0:
            raise self._not(self.at(name), found, "a whole number from 0 on")
        return found

    def real(self, name: str) -> float:
        """A number."""
        found = self.value(name)
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise self._not(self.at(name), found, "a number")
        return float(found)

    def mapping(self, name: str) -> dict[str, Any]:
        """An object, whatever is in it."""
        return self._of(name, dict, "an object of JSON")

    def texts(self, name: str) -> dict[str, str]:
        """An object of strings."""
        inner = self.inner(name)
        return {each: inner.text(each) for each in inner.values}

    def inner(self, name: str) -> Fields:
        """The fields of an object."""
        return Fields(self.value(name), self._kind, self.at(name))

    def items(self, name: str) -> list[Fields]:
        """The fields of each object in a list."""
        found = self._of(name, list, "a list")
        return [
            Fields(each, self._kind, f"{self.at(name)}[{place}]")
            for place, each in enumerate(found)
        ]

    def optional(self, name: str, read: Callable[[str], T]) -> T | None:
        """What ``read`` reads, or None where that is there."""
        return None if self.value(name) is None else read(name)

    def one_of(self, name: str, allowed: Sequence[T]) -> T:
        """One of these values."""
        found = self.value(name)
        for each in allowed:
            if type(found) is type(each) and found == each:
                return each
        raise self._not(self.at(name), found, f"one of {', '.join(map(str, allowed))}")

    def space(self, name: str) -> EmbeddingSpace:
        """An embedding space."""
        try:
            return EmbeddingSpace.from_dict(self.mapping(name))
        except InvalidInput as error:
            raise InvalidInput(
                f"{self._kind.name}'s {self.at(name)}: {error}; {self._kind.again}"
            ) from None

    def value(self, name: str) -> object:
        """Whatever is there."""
        if name not in self.values:
            raise InvalidInput(f"{self._kind.name} lacks {self.at(name)}; {self._kind.again}")
        return self.values[name]

    def refuse(self, name: str, what: str) -> InvalidInput:
        """The refusal of a field that is not ``what``."""
        return self._not(self.at(name), self.value(name), what)

    def at(self, name: str) -> str:
        """Where a field is in the file."""
        return f"{self._place}.{name}" if self._place else name

    def _of(self, name: str, kind: type[T], what: str) -> T:
        found = self.value(name)
        if not isinstance(found, kind):
            raise self._not(self.at(name), found, what)
        return found

    def _not(self, place: str, found: object, what: str) -> InvalidInput:
        return InvalidInput(
            f"{self._kind.name}'s {place} is {excerpt(found)}, not {what}; {self._kind.again}"
        )
