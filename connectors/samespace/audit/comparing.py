"""Asking candidates for the vectors of sampled texts, and comparing these with the stored ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from samespace.audit.judging import Evidence, Verdict, compared, judged
from samespace.audit.places import Place, Sample
from samespace.audit.renderings import BODY, Rendering, titled
from samespace.embedding import embed_documents
from samespace.errors import InvalidInput, SamespaceError, TokenLimitExceeded
from samespace.protocols import EmbeddingBackend, Vector
from samespace.space import EmbeddingSpace, compare, derive
from samespace.space import Verdict as Relation
from samespace.vectors import stack


def evidence_of(
    places: Sequence[Place], samples: dict[int, Sample], candidates: Sequence[EmbeddingBackend]
) -> tuple[list[Evidence], Rendering]:
    """What comparing shows; where no text alone does, with titles in front of the texts."""
    telling = {number: sample for number, sample in samples.items() if not sample.useless}
    if not telling:
        return [], BODY
    found = [
        each
        for number, candidate in enumerate(candidates)
        for each in _compared(number, candidate, places, telling, BODY)
    ]
    if judged(found) is not Verdict.NONE:
        return found, BODY
    able = sorted({each.candidate for each in found if not each.failed})
    for number, sample in telling.items():
        for rendering in titled(sample.documents):
            more = [
                each
                for which in able
                for each in _compared(which, candidates[which], places, {number: sample}, rendering)
            ]
            found += more
            if judged(more) is Verdict.IDENTIFIED:
                return found, rendering
    return found, BODY


def _compared(
    number: int,
    candidate: EmbeddingBackend,
    places: Sequence[Place],
    samples: dict[int, Sample],
    rendering: Rendering,
) -> list[Evidence]:
    """One candidate against all places, by one call."""
    spaces = {
        place: fitting
        for place in samples
        if (fitting := _fitting(candidate.space, places[place].space.dimensions)) is not None
    }

    def failing(why: str) -> list[Evidence]:
        return [
            Evidence(candidate=number, proposal=min(samples), space=candidate.space, failed=why)
        ]

    if not spaces:
        return failing(f"has {candidate.space.dimensions} dimensions")
    texts = [rendering.of(document) for place in spaces for document in samples[place].documents]
    try:
        made = _embedded(candidate, list(dict.fromkeys(texts)))
        return [
            _against(
                samples[place],
                made,
                candidate.space,
                space,
                rendering=rendering,
                candidate=number,
                proposal=place,
            )
            for place, space in spaces.items()
        ]
    except SamespaceError as error:
        return failing(str(error))


def _fitting(space: EmbeddingSpace, dimensions: int) -> EmbeddingSpace | None:
    """The candidate's space, or it cut to so many dimensions; None if it cannot be."""
    try:
        wanted = replace(space, dimensions=dimensions)
    except InvalidInput:  # the model has no such size
        return None
    return None if compare(space, wanted) is Relation.INCOMPATIBLE else wanted


def _embedded(candidate: EmbeddingBackend, texts: list[str]) -> dict[str, Vector]:
    """Vectors by text, without the texts that are too long for this candidate."""
    try:
        vectors, _ = embed_documents(candidate, texts)
    except TokenLimitExceeded as error:
        fitting = [text for place, text in enumerate(texts) if place not in error.indices]
        if not fitting or len(fitting) == len(texts):
            raise
        return _embedded(candidate, fitting)
    return dict(zip(texts, vectors, strict=True))


def _against(
    sample: Sample,
    made: dict[str, Vector],
    own: EmbeddingSpace,
    space: EmbeddingSpace,
    *,
    rendering: Rendering,
    candidate: int,
    proposal: int,
) -> Evidence:
    texts = [rendering.of(document) for document in sample.documents]
    known = [place for place, text in enumerate(texts) if text in made]
    if not known:
        raise InvalidInput("every text is too long for it")
    whole = stack([made[texts[place]] for place in known], own.dimensions)
    return compared(
        sample.vectors[known],
        derive(whole, stored=own, offered=space),
        candidate=candidate,
        proposal=proposal,
        space=space,
        rendering=str(rendering),
    )
