"""Options that all models on this machine have."""

from __future__ import annotations

import torch

from samespace.errors import InvalidInput, excerpt


def checked_device(device: object) -> torch.device:
    """The device that is meant; :class:`InvalidInput` if it is not there."""
    try:
        made: torch.device = torch.device(str(device))
        torch.empty(1, device=made).tolist()  # meta has shapes, and no numbers
    except (AssertionError, ImportError, NotImplementedError, RuntimeError) as error:
        raise InvalidInput(
            f'device is {excerpt(device)}, which is not there ({excerpt(str(error))}); pass "cuda", "cpu" '
            "or leave it out"
        ) from error
    return made


def checked_count(count: object, name: str) -> int:
    """A whole number of at least one."""
    if type(count) is not int or count < 1:
        raise InvalidInput(f"{name} is {excerpt(count)}; pass a whole number of at least 1")
    return count
