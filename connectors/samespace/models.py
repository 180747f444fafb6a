"""What is known of each embedding model: data only.

Sources: the Jina API's OpenAPI description (2026.04.02) for parameters and tasks, the model cards
for context, Matryoshka sizes, prompts, revisions and licences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

HASHING: Final = "samespace-hashing"
"""The name of the library's own lexical hash, which is no model and has any size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One embedding model: sizes in components, context in tokens."""

    name: str
    dimensions: int
    """Native (and largest) number of dimensions."""
    min_dimensions: int
    """Smallest size the model may be asked for; equal to ``dimensions`` without Matryoshka."""
    matryoshka: tuple[int, ...] = ()
    """Sizes below the native one that the model was trained at."""
    context: int
    tasks: tuple[str, ...] = ()
    """Every task the model takes, queries' included; empty for a model without the parameter."""
    default_task: str | None = None
    """What an omitted task means."""
    query_task: str | None = None
    """The queries' task where documents have none (clip-v2)."""
    task_aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    prompts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Text put before the input, by task, when the weights are run locally."""
    takes_dimensions: bool = True
    """Whether the API knows the parameters ``dimensions`` for it."""
    takes_normalized: bool = True
    late_chunking: bool = False
    aliases: tuple[str, ...] = ()
    revision: str
    """Abbreviated commit of the weights on the Hugging Face hub that these facts were read from."""
    licence: str


_NON_COMMERCIAL: Final = "CC BY-NC 4.0"
_RETRIEVAL: Final = ("retrieval.query", "retrieval.passage")
_V5_TASKS: Final = ("text-matching", *_RETRIEVAL, "clustering", "classification")
_V5_ALIASES: Final = MappingProxyType({"separation": "clustering"})
_CODE_TASKS: Final = tuple(
    f"{pair}.{side}"
    for pair in ("nl2code", "qa", "code2code", "code2nl", "code2completion")
    for side in ("query", "passage")
)


def _v2(language: str, revision: str) -> Model:
    return Model(
        name=f"jina-embeddings-v2-base-{language}",
        dimensions=768,
        min_dimensions=768,
        context=8192,
        takes_dimensions=False,
        revision=revision,
        licence="Apache-2.0",
    )


_MODELS: Final = (
    _v2("en", "322d4d7e"),
    _v2("code", "516f4baf"),
    _v2("de", "3f9eede8"),
    _v2("es", "8e2d780d"),
    _v2("zh", "c1ff9086"),
    Model(
        name="jina-embeddings-v3",
        dimensions=1024,
        min_dimensions=1,
        matryoshka=(32, 64, 128, 256, 512, 768),
        context=8192,
        tasks=(*_RETRIEVAL, "text-matching", "classification", "separation"),
        task_aliases=MappingProxyType({"clustering": "separation"}),
        prompts=MappingProxyType(
            {
                "retrieval.query": "Represent the query for retrieving evidence documents: ",
                "retrieval.passage": "Represent the document for retrieval: ",
            }
        ),
        late_chunking=True,
        aliases=("jina-embeddings-v3-hf",),
        revision="ab036b02",
        licence=_NON_COMMERCIAL,
    ),
    Model(
        name="jina-embeddings-v4",
        dimensions=2048,
        min_dimensions=1,
        matryoshka=(128, 256, 512, 1024),
        context=32768,
        tasks=("text-matching", *_RETRIEVAL, "code.query", "code.passage"),
        default_task="text-matching",
        takes_normalized=False,
        late_chunking=True,
        revision="853c867b",
        licence="Qwen Research",
    ),
    Model(
        name="jina-embeddings-v5-text-small",
        dimensions=1024,
        min_dimensions=1,
        context=32768,
        tasks=_V5_TASKS,
        default_task="text-matching",
        task_aliases=_V5_ALIASES,
        aliases=("jina-embeddings-v5-omni-small",),
        revision="dd76d535",
        licence=_NON_COMMERCIAL,
    ),
    Model(
        name="jina-embeddings-v5-text-nano",
        dimensions=768,
        min_dimensions=1,
        context=8192,
        tasks=_V5_TASKS,
        default_task="text-matching",
        task_aliases=_V5_ALIASES,
        aliases=("jina-embeddings-v5-omni-nano",),
        revision="8a7f00aa",
        licence=_NON_COMMERCIAL,
    ),
    Model(
        name="jina-code-embeddings-0.5b",
        dimensions=896,
        min_dimensions=1,
        context=32768,
        tasks=_CODE_TASKS,
        takes_normalized=False,
        revision="4db23513",
        licence=_NON_COMMERCIAL,
    ),
    Model(
        name="jina-code-embeddings-1.5b",
        dimensions=1536,
        min_dimensions=1,
        context=32768,
        tasks=_CODE_TASKS,
        takes_normalized=False,
        revision="39aeb4fb",
        licence=_NON_COMMERCIAL,
    ),
    Model(
        name="jina-clip-v1",
        dimensions=768,
        min_dimensions=768,
        context=8192,
        takes_dimensions=False,
        revision="ceb3e44c",
        licence="Apache-2.0",
    ),
    Model(
        name="jina-clip-v2",
        dimensions=1024,
        min_dimensions=64,
        matryoshka=(64, 128, 256, 512, 768),
        context=8192,
        tasks=("retrieval.query",),
        query_task="retrieval.query",
        revision="e10d47f5",
        licence=_NON_COMMERCIAL,
    ),
)

MODELS: Final[Mapping[str, Model]] = MappingProxyType({model.name: model for model in _MODELS})
"""Every known model by its canonical name."""

_BY_ANY_NAME: Final[Mapping[str, Model]] = MappingProxyType(
    {name: model for model in _MODELS for name in (model.name, *model.aliases)}
)


def find_model(name: str) -> Model | None:
    """The model of this name, alias or Hugging Face id (``jinaai/…``), or None if unknown."""
    return _BY_ANY_NAME.get(name.removeprefix("jinaai/"))


def documents_task(model: Model | None, task: str | None) -> str | None:
    """The canonical task that documents are embedded with, aliases and defaults resolved."""
    if model is None:
        return task
    if task is None:
        return model.default_task
    return model.task_aliases.get(task, task)


def queries_task(model: Model | None, task: str | None) -> str | None:
    """The task that queries are embedded with where documents have ``task``."""
    if task is None:
        return model.query_task if model else None
    stem, dot, side = task.rpartition(".")
    return f"{stem}.query" if dot and side == "passage" else task
