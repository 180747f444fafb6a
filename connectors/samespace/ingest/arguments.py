"""Arguments that jobs of every kind take."""

from __future__ import annotations

from samespace.errors import InvalidInput, excerpt


def check_count(value: object, *, what: str, most: int | None = None, or_else: str = "") -> int:
    """``value``, or :class:`InvalidInput` unless it is a whole number from 1 to ``most``.

    ``or_else`` says what else may be passed.
    """
    if type(value) is int and value >= 1 and (most is None or value <= most):
        return value
    upwards = "on" if most is None else f"to {most:,}"
    raise InvalidInput(f"{what} is {excerpt(value)}; pass a whole number from 1 {upwards}{or_else}")
