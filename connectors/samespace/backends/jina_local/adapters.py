"""A task's adapter, merged into the weights once so that it costs nothing afterwards.

Low-rank adaptation (Hu et al. 2021): ``W + alpha / r * B @ A``, for the embedding matrix, whose rows are
looked up, ``W + alpha / r * (B @ A).T``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import sqrt
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from samespace.errors import InvalidInput, excerpt

_PREFIXES: Final = ("base_model.model.", "roberta.")
_PAIRS: Final = {
    ".lora_A.weight": ".lora_B.weight",
    ".lora_embedding_A": ".lora_embedding_B",
}
_PLAIN: Final = {
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "bias": ("none", None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "modules_to_save": ([], None),
}
"""What an adapter may say, where anything else would mean another sum than ours."""


def merge(model: nn.Module, folder: Path) -> None:
    """Add an adapter to a model's weights, which are to be float32.

    :class:`InvalidInput` for an adapter of another kind, or that has something that the model has not.
    """
    scale = _scale(folder / "adapter_config.json")
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, low, high in _pairs(folder / "adapter_model.safetensors"):
            weight = weights.get(name)
            if weight is None:
                raise _wrong(folder, f"has {excerpt(name)}, which the model has not")
            change = scale * (high.float() @ low.float())
            change = change.T if _is_embedding(model, name) else change
            if change.shape != weight.shape:
                raise _wrong(folder, f"has {excerpt(name)} of shape {tuple(change.shape)}")
            weight.add_(change)


def _is_embedding(model: nn.Module, name: str) -> bool:
    return isinstance(model.get_submodule(name.rpartition(".")[0]), nn.Embedding)


def _scale(file: Path) -> float:
    said = _config(file)
    for name, usual in _PLAIN.items():
        if said.get(name) not in usual:
            raise _wrong(file.parent, f"says {name} {excerpt(said[name])}, which is not known here")
    rank, alpha = said.get("r"), said.get("lora_alpha")
    if said.get("peft_type") != "LORA" or type(rank) is not int or rank < 1:
        raise _wrong(file.parent, "is no low-rank adapter")
    if not isinstance(alpha, int | float):
        raise _wrong(file.parent, "does not say its lora_alpha")
    return float(alpha) / (sqrt(rank) if said.get("use_rslora") else rank)


def _config(file: Path) -> Mapping[str, Any]:
    try:
        said = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise _wrong(file.parent, f"cannot be read ({excerpt(str(error))})") from error
    return said if isinstance(said, dict) else {}


def _pairs(file: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    """The name of each weight with its A and B; each of the file's tensors is in one pair."""
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise _wrong(file.parent, f"cannot be read ({excerpt(str(error))})") from error
    if not tensors:
        raise _wrong(file.parent, "is empty")
    while tensors:
        name = next(iter(tensors))
        first = next((end for pair in _PAIRS.items() for end in pair if name.endswith(end)), "")
        stem = name.removesuffix(first)
        low, high = next((pair for pair in _PAIRS.items() if first in pair), ("", ""))
        if not first or not {stem + low, stem + high} <= tensors.keys():
            raise _wrong(file.parent, f"has {excerpt(name)} without its other half")
        yield _bare(stem) + ".weight", tensors.pop(stem + low), tensors.pop(stem + high)


def _bare(stem: str) -> str:
    for prefix in _PREFIXES:
        stem = stem.removeprefix(prefix)
    return stem


def _wrong(folder: Path, what: str) -> InvalidInput:
    return InvalidInput(f"the adapter {folder} {what}; fetch the model's files again")
