"""Which way of attention is taken where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from samespace.backends.jina_local import attention

GPU = torch.device("cuda")


def of_torch_2_10(query: Any, *, return_aux: Any = None) -> None:
    """A kernel that takes no scale."""


def of_torch_2_11(query: Any, *, return_aux: Any = None, scale: float | None = None) -> None:
    """A kernel that takes one."""


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    attention._kernel.cache_clear()
    yield
    attention._kernel.cache_clear()


@pytest.mark.parametrize(
    ("kernel", "capability", "way"),
    [
        (of_torch_2_11, (8, 0), "varlen"),
        (of_torch_2_11, (9, 0), "varlen"),
        (of_torch_2_11, (7, 5), "padded"),
        (of_torch_2_10, (9, 0), "padded"),
    ],
)
def test_the_kernel_is_taken_where_it_runs_and_takes_a_scale(
    monkeypatch: pytest.MonkeyPatch, kernel: Any, capability: tuple[int, int], way: str
) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel, raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert attention.best(GPU, torch.float16) == way
    assert attention.best(GPU, torch.float32) == "padded"
    assert attention.best(torch.device("cpu"), torch.float16) == "segments"
