"""What a store does not promise, declared so that nobody has to find out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import FunctionType, MappingProxyType
from typing import ClassVar, Final, Literal

import pytest

Kind = Literal["notimpl", "notyet", "never"]
NO_GAPS: Final[Mapping[str, Gap]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Gap:
    """Why a store breaks one promise of the contract.

    ``"notimpl"``: the store could, this library does not. ``"notyet"``: the store has it announced.
    ``"never"``: it contradicts what the store is. A test with a gap of the first two kinds must
    fail, so that a gap which closes is noticed; one of the third is skipped.
    """

    kind: Kind
    reason: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"

    def marked(self, test: FunctionType) -> FunctionType:
        """A copy of a test with the mark that says so; the promise itself stays as it is."""
        copied = FunctionType(
            test.__code__, test.__globals__, test.__name__, test.__defaults__, test.__closure__
        )
        vars(copied).update(vars(test))
        copied.__kwdefaults__, copied.__doc__ = test.__kwdefaults__, test.__doc__
        if self.kind == "never":
            return pytest.mark.skip(reason=str(self))(copied)
        return pytest.mark.xfail(strict=True, reason=str(self))(copied)


class DeclaresGaps:
    """A part of the contract whose subclass may set ``gaps``: the name of a test → its gap."""

    gaps: ClassVar[Mapping[str, Gap]] = NO_GAPS

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, gap in cls.__dict__.get("gaps", NO_GAPS).items():
            if hasattr(cls, name):
                setattr(cls, name, gap.marked(getattr(cls, name)))

    def test_every_declared_gap_names_a_promise(self) -> None:
        assert [name for name in self.gaps if not hasattr(self, name)] == []
