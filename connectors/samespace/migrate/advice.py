"""What the change from one space to another means for those who use it, each both ways where it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal, get_args

from samespace.errors import InvalidInput, excerpt
from samespace.forecast import Notice
from samespace.models import Model, documents_task, find_model
from samespace.space import EmbeddingSpace, Verdict, compare

Use = Literal["search", "similar", "classify", "cluster"]
"""What a collection is for: questions to passages, more like this, labels, groups."""
_TASKS: Final[Mapping[Use, str]] = {
    "search": "retrieval.passage",
    "similar": "text-matching",
    "classify": "classification",
    "cluster": "clustering",
}
_OBSOLETE: Final = {
    "jina-embeddings-v2-base-de": "German",
    "jina-embeddings-v2-base-es": "Spanish",
    "jina-embeddings-v2-base-zh": "Chinese",
}
_CODE: Final = "jina-embeddings-v2-base-code"
_ENGLISH: Final = "jina-embeddings-v2-base-en"
_CODE_MODELS: Final = "jina-code-embeddings-0.5b and -1.5b"


def check_use(use: object) -> Use:
    """``use``, or :class:`InvalidInput`."""
    for known in get_args(Use):
        if use == known:
            found: Use = known
            return found
    raise InvalidInput(f"use (--use) is {excerpt(use)}; pass one of {', '.join(get_args(Use))}")


def wanted_task(model: Model | None, use: Use) -> str | None:
    """The documents' task that a use wants of a model; None where it has no such task."""
    task = documents_task(model, _TASKS[use])
    return task if model is not None and task in model.tasks else None


def advice(
    source: EmbeddingSpace, target: EmbeddingSpace, *, use: Use, provenance: Mapping[str, str]
) -> Iterator[Notice]:
    """What to know before ``target`` takes the place of ``source``; ``provenance`` is the target's."""
    if compare(source, target) is Verdict.EQUAL:
        return
    yield from _task(target, use)
    yield from _languages(source, target)
    yield from _licence(target, provenance)
    yield Notice(
        "scores",
        f"Scores of {source} and {target} are not comparable: a threshold or min_score does not carry "
        "over. The top hit of one example fell from 0.82 under v2 to 0.65 under v3; choose each "
        "threshold anew, say by the share of hits that pass it.",
    )
    if source.dimensions == target.dimensions:
        yield Notice(
            "same-dimensions",
            f"Both have {source.dimensions} dimensions, so no store refuses the one's vectors in the other's "
            "place by their size: whoever writes has to name the slot.",
        )


def _task(target: EmbeddingSpace, use: Use) -> Iterator[Notice]:
    wanted = wanted_task(find_model(target.model), use)
    if wanted is None or wanted == target.task:
        return
    better = EmbeddingSpace(model=target.model, dimensions=target.dimensions, task=wanted)
    if use == "search" and target.task == "text-matching":
        yield Notice(
            "text-matching-for-search",
            "text-matching behaves as v2 did, and compares texts of one kind: right for more-like-this. "
            f"Where questions look for passages the retrieval pair is better: {better}.",
        )
        return
    yield Notice(
        "task-for-use",
        f"For --use {use} documents are embedded as {wanted} ({better}), not "
        f"{target.task or 'without a task'}; another task is another space, so choose before embedding.",
    )


def _languages(source: EmbeddingSpace, target: EmbeddingSpace) -> Iterator[Notice]:
    if source.model == target.model:
        return
    if language := _OBSOLETE.get(source.model):
        yield Notice(
            "bilingual",
            f"{source.model} is obsolete, and {target.model} covers far more languages; yet a bilingual "
            f"model may keep an edge in {language}. Let your own queries judge before the switch.",
        )
    if source.model == _CODE:
        yield Notice(
            "code",
            f"{source.model} was better on code (0.7753 on its benchmark, v3 without a task 0.7537), and "
            f"knows less of other texts. For code consider {_CODE_MODELS}; let your own queries judge.",
        )
    if source.model == _ENGLISH:
        yield Notice(
            "summaries",
            f"{source.model} was better on one set of summaries (SummEval) and worse on the rest: if "
            "summaries are what you compare, let your own queries judge.",
        )


def _licence(target: EmbeddingSpace, provenance: Mapping[str, str]) -> Iterator[Notice]:
    model = find_model(target.model)
    if model is None or model.licence == "Apache-2.0":
        return
    if provenance.get("backend") == "jina-api":
        return  # whose use is commercial-safe
    yield Notice(
        "licence",
        f"The weights of {model.name} are under {model.licence}: on machines of your own that is not for "
        "commercial use without an agreement. Use through Jina's API, AWS or Azure is.",
    )
