"""What the local backend is measured against, and what is wanted."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Final

from benchmarks.contest import HERE, Line, Options, Process, figure, say

TEXTS: Final = 256
LAYERS: Final = 6
IN_ORDER, SORTED = "padded, in order", "padded, sorted by length"
BOUNDS: Final = {IN_ORDER: 3.0, SORTED: 1.15}
QUERY: Final = 1.1


def lines(options: Options) -> Iterator[Line]:
    """Tokens a second as multiples of both ways, and one query's time as one of the bare forward's."""
    samples: dict[str, list[float]] = {}
    with Process(HERE, "benchmarks.local.contestants", str(options.rows), str(LAYERS)) as process:
        process.answer()
        for number in range(options.rounds):
            for task in ("packed", *BOUNDS, "query", "forward"):
                samples.setdefault(task, []).append(process.do(task)["figure"])
                unit = "tokens/s" if task == "packed" or task in BOUNDS else "ms"
                say(f"round {number + 1}: {task}: {figure(samples[task][-1], unit)}")
    found = {task: statistics.median(each) for task, each in samples.items()}
    for rival, bound in BOUNDS.items():
        ours, theirs = found["packed"], found[rival]
        yield Line("embed", "", ours, "tokens/s", rival, theirs, ours / theirs, at_least=bound)
    ours, theirs = found["query"], found["forward"]
    yield Line(
        "one query", "", ours, "ms", "the bare forward", theirs, ours / theirs, at_most=QUERY
    )
