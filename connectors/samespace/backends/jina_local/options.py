"""Where the model runs, in what precision, and how much of it at once."""

from __future__ import annotations

from typing import Final

import torch

from samespace.backends.model_options import checked_count, checked_device
from samespace.errors import InvalidInput, excerpt

_DTYPES: Final = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_BUDGETS: Final = {"cuda": 32_768, "cpu": 4_096}
"""Tokens at once by kind of device: a GPU is kept busy, a processor's caches are not left behind."""


def device_of(device: object) -> torch.device:
    """The device that is meant, a GPU if there is one; :class:`InvalidInput` if it is not there."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return checked_device(device)


def checked_dtype(dtype: object, device: torch.device) -> torch.dtype:
    """The precision of the weights: bfloat16 on GPUs that have it, else float32."""
    if dtype is None:
        has_half = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_half else torch.float32
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise InvalidInput(f"dtype is {excerpt(dtype)}; pass {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


def checked_budget(budget: object, device: torch.device) -> int:
    """Tokens that go through the model at once."""
    if budget is None:
        return _BUDGETS.get(device.type, _BUDGETS["cpu"])
    return checked_count(budget, "token_budget")
