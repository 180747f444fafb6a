"""Write docs/spaces.md from the model registry, or check that the committed one is current.

``python tools/generate_spaces.py [--check]``
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Final

from samespace.legality import legality
from samespace.models import MODELS, Model
from samespace.space import EmbeddingSpace, Verdict

ROOT: Final = Path(__file__).resolve().parent.parent
TARGET: Final = ROOT / "docs" / "spaces.md"
_INTRODUCTION: Final = """\
<!-- Generated from connectors/samespace/models.py by tools/generate_spaces.py; change those. -->

# Which vectors may be compared

Vectors may be compared if their spaces are equal: model, dimensions, documents' task, normalisation
and variant. Queries have no space of their own; the task in the second column follows from the
documents', and is sent by itself. Three verdicts:

* **equal**: written and searched with as they are.
* **derivable**: one side's vectors follow from the other's without the model, by
  `samespace.space.derive`: cut to the smaller size, then divided by the norm. What is offered may be
  larger, then it is cut before it is written or searched with; or smaller, then a slot for it is
  filled from the stored vectors.
* **incompatible**: everything else. All of it has to be embedded again.

The library goes by this table, for it is made by the function that refuses:
`samespace.legality.legality(stored, offered, "write")`.
"""


def main() -> int:
    """Write or check the page; 1 if ``--check`` found that it differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say what would change")
    before = TARGET.read_text(encoding="utf-8") if TARGET.exists() else ""
    after = page(MODELS.values())
    if before == after:
        return 0
    if not parser.parse_args().check:
        TARGET.write_text(after, encoding="utf-8")
        print(f"wrote {TARGET.relative_to(ROOT)}")
        return 0
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    sys.stdout.writelines(difflib.unified_diff(old, new, "committed", "generated"))
    return 1


def page(models: Iterable[Model]) -> str:
    """The whole page."""
    listed = list(models)
    parts = [_INTRODUCTION, *map(_section, listed), _same_size(listed), _names(listed)]
    return "\n".join(parts)


def _section(model: Model) -> str:
    spaces = _spaces(model)
    heading = [f"## {model.name}", "", _sizes(model), ""]
    if len(spaces) == 1:
        documents, queries = _named(spaces[0].task), _named(spaces[0].query_task)
        return "\n".join([*heading, f"Documents have {documents}, queries {queries}.", ""])
    rows = [
        f"| {_named(space.task)} | {_named(space.query_task)} | {_others(space, model)} |"
        for space in spaces
    ]
    table = [
        "| documents as | queries as | incompatible with documents as |",
        "|---|---|---|",
        *rows,
    ]
    return "\n".join([*heading, *table, ""])


def _spaces(model: Model) -> list[EmbeddingSpace]:
    """A space for each documents' task, at the native size."""
    tasks = [task for task in model.tasks if not task.endswith(".query")]
    plain = [] if model.default_task else [None]
    return [_space(model, task) for task in [*tasks, *plain]]


def _space(model: Model, task: str | None, dimensions: int | None = None) -> EmbeddingSpace:
    return EmbeddingSpace(model=model.name, dimensions=dimensions or model.dimensions, task=task)


def _named(task: str | None) -> str:
    return "*no task*" if task is None else f"`{task}`"


def _others(space: EmbeddingSpace, model: Model) -> str:
    """The model's other tasks, each as the guard judges it."""
    refused = [
        _named(other.task)
        for other in _spaces(model)
        if legality(space, other, "write").verdict is Verdict.INCOMPATIBLE
    ]
    return ", ".join(refused)


def _sizes(model: Model) -> str:
    """Which sizes there are, and which of them follow from which."""
    task = _spaces(model)[0].task
    if model.min_dimensions == model.dimensions:
        return f"{model.dimensions} dimensions, and no other size."
    small, large = _space(model, task, model.min_dimensions), _space(model, task)
    assert legality(large, small, "write").verdict is Verdict.DERIVABLE  # noqa: S101
    trained = ", ".join(map(str, model.matryoshka))
    among = f" (trained at {trained})" if trained else ""
    return (
        f"{model.min_dimensions} to {model.dimensions} dimensions{among}. Of one task, every size is "
        "derivable from every larger one."
    )


def _same_size(models: list[Model]) -> str:
    """The sizes that several models have, which makes nothing comparable."""
    rows = [f"| {size} | {', '.join(names)} |" for size, names in _crowds(models)]
    example = legality(
        EmbeddingSpace.parse("jina-embeddings-v2-base-en@768"),
        EmbeddingSpace.parse("jina-embeddings-v3@768:retrieval.passage"),
        "query",
    )
    said = (
        "Models with the same size by nature; **all pairs are incompatible**. Others can be asked for it:\n"
        "jina-embeddings-v3@768 against jina-embeddings-v2-base-en@768, say, is "
        f"*{example.verdict}*.\n{example.reason}"
    )
    return "\n".join([
        "## One size, many spaces",
        "",
        said,
        "",
        "| dimensions | models |",
        "|---|---|",
        *rows,
        "",
    ])  # fmt: skip


def _crowds(models: list[Model]) -> Iterator[tuple[int, list[str]]]:
    for size in sorted({model.dimensions for model in models}):
        found = [model for model in models if model.dimensions == size]
        for one, other in combinations(found, 2):
            spaces = _spaces(one)[0], _spaces(other)[0]
            assert legality(*spaces, "write").verdict is Verdict.INCOMPATIBLE  # noqa: S101
        if len(found) > 1:
            yield size, [model.name for model in found]


def _names(models: list[Model]) -> str:
    """Names that mean one space."""
    rows = []
    for model in models:
        for alias in model.aliases:
            task = _spaces(model)[0].task
            same = EmbeddingSpace(model=alias, dimensions=model.dimensions, task=task)
            judged = legality(_space(model, task), same, "write")
            rows.append(f"| {alias} | {model.name} | {judged.verdict} |")
        for alias, canonical in model.task_aliases.items():
            judged = legality(_space(model, canonical), _space(model, alias), "write")
            rows.append(f"| {model.name}:{alias} | {model.name}:{canonical} | {judged.verdict} |")
    return "\n".join([
        "## Two names, one space",
        "",
        "| name | is | verdict |",
        "|---|---|---|",
        *rows,
        "",
        "A name with `jinaai/` before it is the name without.",
        "",
    ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
