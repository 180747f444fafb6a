"""``make bench-gpu``: tokens a second of v3's whole shape on a GPU, and against sentence-transformers.

Random weights in the shape of jina-embeddings-v3, all 24 layers, in bfloat16. What the card can reach is
one large matrix product's rate, measured here too.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from tests.local.checkpoints import make_checkpoint

from benchmarks.local.contestants import Contestants, lengths
from benchmarks.local.lines import IN_ORDER, SORTED

TEXTS: Final = 2_048
LAYERS, INNER, SIZE = 24, 4096, 1024
ROUNDS: Final = 2
SIDE: Final = 8192
"""Rows and columns of the matrices whose product shows what the card can reach."""
OURS, THEIRS = "samespace", "sentence-transformers"


def main() -> int:
    """Print a table; 1 without a GPU."""
    if not torch.cuda.is_available():
        print("there is no GPU that torch can use here")
        return 1
    with TemporaryDirectory() as folder:
        made = make_checkpoint(Path(folder) / "v3", layers=LAYERS, inner=INNER)
        contestants = Contestants(made, TEXTS, device="cuda")
        _show(contestants, _measured(contestants, Path(folder)))
    return 0


def _measured(contestants: Contestants, folder: Path) -> dict[str, float]:
    tasks: dict[str, Callable[[], float]] = {
        OURS: contestants.packed,
        SORTED: lambda: contestants.padded(by_length=True),
        IN_ORDER: lambda: contestants.padded(by_length=False),
        "query": contestants.query,
        "forward": contestants.forward,
        "peak": _peak,
    }
    rival = _sentence_transformer(contestants, folder)
    if rival is not None:
        tasks[THEIRS] = lambda: contestants.rate(lambda: rival.encode(contestants.texts))
    found: dict[str, list[float]] = {task: [] for task in tasks}
    for number in range(ROUNDS + 1):  # the first warms up
        for task, work in tasks.items():
            value = work()
            found[task] += [value] if number else []
            print(f"round {number}: {task}: {value:,.1f}", file=sys.stderr, flush=True)
    return {task: statistics.median(values) for task, values in found.items()}


def _sentence_transformer(contestants: Contestants, folder: Path) -> Any:
    """The same weights in the library that usually runs them; None where it is not installed."""
    try:
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415
        from sentence_transformers.sentence_transformer import modules  # noqa: PLC0415
    except ImportError:
        return None
    place = folder / "merged"
    with contestants.by_hand(contestants.backend.space.task) as model:
        model.save_pretrained(place)
    (place / "tokenizer.json").write_bytes((folder / "v3" / "tokenizer.json").read_bytes())
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 8192, **special}
    (place / "tokenizer_config.json").write_text(json.dumps(said))
    transformer = modules.Transformer(str(place), model_kwargs={"dtype": torch.bfloat16})
    parts = [transformer, modules.Pooling(SIZE, "mean"), modules.Normalize()]
    return SentenceTransformer(modules=parts, device="cuda")


def _peak() -> float:
    """Operations a second of a matrix product in bfloat16."""
    left, right = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(20):
        left @ right
    torch.cuda.synchronize()
    return 20 * 2 * SIDE**3 / (time.perf_counter() - start)


def _work(tokens: int) -> float:
    """Operations of the texts: two for each weight and token, and attention's two products."""
    weights = LAYERS * (4 * SIZE**2 + 2 * SIZE * INNER)
    squares = float((lengths(TEXTS).astype(np.float64) ** 2).sum())
    return 2.0 * weights * tokens + 4.0 * LAYERS * SIZE * squares


def _show(contestants: Contestants, found: dict[str, float]) -> None:
    table = Table("", "tokens/s", "samespace is", "of what a matrix product reaches")
    operations = _work(contestants.tokens) / contestants.tokens
    for name in (OURS, THEIRS, SORTED, IN_ORDER):
        if name in found:
            rate = found[name]
            share = rate * operations / found["peak"]
            table.add_row(name, f"{rate:,.0f}", f"{found[OURS] / rate:.2f} x", f"{share:.0%}")
    card = torch.cuda.get_device_name()
    title = f"{card}, torch {torch.__version__}: {TEXTS:,} texts, {contestants.tokens:,} tokens"
    console = Console(width=120)
    console.print(title, table)
    console.print(
        f"one query: {found['query']:.2f} ms; the bare forward: {found['forward']:.2f} ms; "
        f"attention: {contestants.way}; matrix product: {found['peak'] / 1e12:,.0f} TFLOP/s"
    )


if __name__ == "__main__":
    sys.exit(main())
