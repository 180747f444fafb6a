"""Attention over texts that lie one behind the other in one long row, each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from inspect import signature
from itertools import groupby
from typing import Any, Final, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

Way = Literal["varlen", "segments", "padded"]
"""A kernel that knows where texts end; one call for texts of one length; padding and a mask."""
NAMES: Final[dict[Way, str]] = {
    "varlen": "samespace_varlen",
    "segments": "samespace_segments",
    "padded": "sdpa",
}
_HALF: Final = (torch.bfloat16, torch.float16)
_CAPABILITY: Final = (8, 0)
"""The least of a GPU that the kernel is made for."""


class Ends(NamedTuple):
    """Where texts lie in a row: their lengths, for a kernel also where each begins."""

    lengths: Sequence[int]
    offsets: Tensor | None = None
    """Shape ``(texts + 1,)``, int32, on the device."""


def best(device: torch.device, dtype: torch.dtype) -> Way:
    """The fastest way that there is here."""
    if device.type == "cpu":
        return "segments"
    if device.type == "cuda" and dtype in _HALF and _runs_kernel(device):
        return "varlen"
    return "padded"


def ends_of(lengths: Sequence[int], device: torch.device, way: Way) -> Ends:
    """What a way needs to know of a row."""
    if way != "varlen":
        return Ends(lengths)
    offsets = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    return Ends(lengths, offsets.to(device, non_blocking=True))


def _runs_kernel(device: torch.device) -> bool:
    return _kernel() is not None and torch.cuda.get_device_capability(device) >= _CAPABILITY


@cache
def _kernel() -> Any:
    """None in a torch that has none, or one that takes no ``scale`` (2.10)."""
    try:
        from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415  not in every torch
    except ImportError:
        return None
    return varlen_attn if "scale" in signature(varlen_attn).parameters else None


def _varlen(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor | None,
    *,
    scaling: float,
    samespace_ends: Ends,
    **_: Any,
) -> tuple[Tensor, None]:
    """Heads of shape ``(1, heads, tokens, size)`` in, ``(1, tokens, heads, size)`` out."""
    if len(samespace_ends.lengths) == 1:
        alone = scaled_dot_product_attention(query, key, value, scale=scaling)
        return alone.transpose(1, 2), None
    longest, offsets = max(samespace_ends.lengths), samespace_ends.offsets
    flat = [each[0].transpose(0, 1).contiguous() for each in (query, key, value)]
    found: Tensor = _kernel()(*flat, offsets, offsets, longest, longest, scale=scaling)
    return found[None], None


def _segments(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor | None,
    *,
    scaling: float,
    samespace_ends: Ends,
    **_: Any,
) -> tuple[Tensor, None]:
    """As :func:`_varlen`; neighbours of one length are one call."""
    _one, heads, tokens, size = query.shape
    found, start = query.new_empty(1, tokens, heads, size), 0
    for length, run in groupby(samespace_ends.lengths):
        stop = start + length * len(list(run))
        queries, keys, values = (
            each[0, :, start:stop].view(heads, -1, length, size).transpose(0, 1)
            for each in (query, key, value)
        )
        made = scaled_dot_product_attention(queries, keys, values, scale=scaling)
        found[0, start:stop] = made.transpose(1, 2).reshape(-1, heads, size)
        start = stop
    return found, None


def _no_mask(*_: Any, **__: Any) -> None:
    """Each text is by itself already."""


for _name, _function in {NAMES["varlen"]: _varlen, NAMES["segments"]: _segments}.items():
    AttentionInterface.register(_name, _function)
    AttentionMaskInterface.register(_name, _no_mask)
