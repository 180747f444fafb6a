"""Which embedding space the vectors of a collection are of, whoever made them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from samespace.audit.comparing import evidence_of
from samespace.audit.judging import (
    Evidence,
    Verdict,
    is_normalized,
    judged,
    ranked,
    runner_up,
)
from samespace.audit.places import Place, Sample, places_of, refusal, sampled
from samespace.audit.renderings import BODY, Rendering
from samespace.audit.verdicts import AGREEMENT
from samespace.embedding import require_sync, uncached
from samespace.errors import InvalidInput, SamespaceError, StoreRejected, StoreUnavailable, excerpt
from samespace.layout import Layout
from samespace.opening import survey, with_title
from samespace.protocols import EmbeddingBackend
from samespace.space import EmbeddingSpace
from samespace.survey import Proposal, Survey

SAMPLED: Final = 50
"""Rows that are compared, unless told otherwise."""
MOST_SAMPLED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Match:
    """The candidate that made the vectors: its place in the list, and its space in the slot's size."""

    candidate: int
    space: EmbeddingSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class Identification:
    """Whose vectors a collection's are, and how that is known.

    ``evidence`` compares the sample with each candidate, best first; those that could not be compared
    come last and say why. ``match`` is the one that is named, if one is, and ``layout`` where things
    are, with ``rendering`` as its text where that is more than a column and the store can say so.
    ``margin`` is by how much the next other candidate's median cosine is smaller. ``recorded`` is the
    space that the collection says it has, ``differs`` how the recorded layout differs from ``layout``,
    ``refused`` why adopting it as it is would be refused, where that is known.
    """

    collection: str
    survey: Survey
    verdict: Verdict
    reason: str
    evidence: tuple[Evidence, ...]
    proposals: tuple[Proposal, ...]
    rows: int
    layout: Layout
    match: Match | None = None
    rendering: Rendering = BODY
    margin: float | None = None
    normalized: bool | None = None
    recorded: EmbeddingSpace | None = None
    differs: str = ""
    refused: str = ""
    notes: tuple[str, ...] = ()

    @property
    def candidate(self) -> int | None:
        """The place of the candidate that is named."""
        return self.match.candidate if self.match else None

    @property
    def space(self) -> EmbeddingSpace | None:
        """The space of the vectors, where a candidate is named."""
        return self.match.space if self.match else None

    @property
    def proposal(self) -> Proposal | None:
        """What the collection was recognised as."""
        best = ranked(self.evidence)
        found = self.proposals[best[0].proposal : best[0].proposal + 1] if best else self.proposals
        return found[0] if found else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "collection": self.collection,
            "verdict": str(self.verdict),
            "reason": self.reason,
            "space": self.space.to_dict() if self.space else None,
            "candidate": self.candidate,
            "layout": self.layout.to_dict(),
            "text_is": str(self.rendering),
            "margin": self.margin,
            "normalized": self.normalized,
            "recorded": self.recorded.to_dict() if self.recorded else None,
            "differs": self.differs or None,
            "refused": self.refused or None,
            "rows": self.rows,
            "evidence": [_told(each) for each in self.evidence],
            "notes": list(self.notes),
            "survey": self.survey.to_dict(),
        }


def _told(evidence: Evidence) -> dict[str, Any]:
    is_compared = not evidence.failed
    return {
        "candidate": evidence.candidate,
        "space": evidence.space.to_dict(),
        "proposal": evidence.proposal,
        "rendering": evidence.rendering,
        "cosine": round(evidence.cosine, 6) if is_compared else None,
        "agreeing": round(evidence.agreeing, 4) if is_compared else None,
        "rows": evidence.rows,
        "failed": evidence.failed or None,
    }


def identify(
    url: str,
    *,
    collection: str,
    candidates: Sequence[EmbeddingBackend],
    layout: Layout | None = None,
    sample: int = SAMPLED,
    **options: Any,
) -> Identification:
    """Find which of the candidates' spaces the stored vectors are of; nothing in the store changes.

    ``sample`` rows are drawn at random, and their texts embedded as documents by each candidate whose
    space has the slot's dimensions or can be cut to them: one call for each, and more only where none
    agrees and titles in the metadata may have been embedded with the texts. ``layout`` says where
    things are; without it, where a survey supposes. ``url`` and ``options`` are as for
    :func:`~samespace.open_store`. A candidate that fails counts neither way.
    """
    asked = [_beneath(candidate) for candidate in candidates]
    if not asked:
        raise InvalidInput("no candidates; pass the backends that may have made the vectors")
    if type(sample) is not int or not 1 <= sample <= MOST_SAMPLED:
        raise InvalidInput(f"sample is {excerpt(sample)}; pass 1 to {MOST_SAMPLED}")
    scope = None if layout is None else layout.scope
    found = survey(url, collection=collection, scope=scope, **options)
    places = places_of(found, layout)
    samples: dict[int, Sample] = {}
    failures: list[SamespaceError] = []
    for number, place in enumerate(places):
        try:
            samples[number] = sampled(url, collection, place, sample, options)
        except (InvalidInput, StoreRejected) as error:  # another place may be readable
            failures.append(error)
    if not samples:
        raise failures[0]
    notes = [str(error) for error in failures]
    evidence, rendering = evidence_of(places, samples, asked)

    def refused(layout: Layout, space: EmbeddingSpace) -> str:
        try:
            return refusal(url, collection, layout, space, options)
        except StoreUnavailable as error:  # what was paid for is known all the same
            notes.append(f"whether adopting is refused could not be looked at: {error}")
            return ""

    return _identification(
        found, places, samples, evidence, url=url, rendering=rendering, notes=notes, refused=refused
    )


def _beneath(candidate: EmbeddingBackend) -> EmbeddingBackend:
    """What embeds beneath the candidate's caches, which know what was asked for once."""
    found = None if candidate is None else require_sync(uncached(candidate))
    if found is None:
        raise InvalidInput("a candidate is None; pass backends")
    return found


def _identification(
    found: Survey,
    places: Sequence[Place],
    samples: dict[int, Sample],
    evidence: list[Evidence],
    *,
    url: str,
    rendering: Rendering,
    notes: list[str],
    refused: Callable[[Layout, EmbeddingSpace], str],
) -> Identification:
    order = ranked(evidence)
    verdict = judged(evidence)
    best = order[0] if order else None
    place = places[best.proposal] if best else places[0]
    sample = samples.get(best.proposal if best else 0)
    second = runner_up(evidence)
    named = best if verdict is Verdict.IDENTIFIED else None
    layout = place.proposal.layout
    if named is not None and rendering.title:
        layout, note = _with_title(url, layout, rendering)
        notes.append(note)
    normalized = is_normalized(sample.vectors) if sample and sample.documents else None
    notes += _remarks(named, place, sample)
    why = _refusal(named, place, found, normalized) if named is not None else ""
    if named is not None and not why and place.is_to_adopt:
        why = refused(layout, named.space)
    return Identification(
        collection=found.collection,
        survey=found,
        verdict=verdict,
        reason=_reason(verdict, order, samples, notes),
        evidence=(*order, *(each for each in evidence if each.failed)),
        proposals=tuple(each.proposal for each in places),
        rows=len(sample.documents) if sample else 0,
        match=Match(named.candidate, named.space) if named else None,
        layout=layout,
        rendering=rendering,
        margin=named.cosine - second.cosine if named and second else None,
        normalized=normalized,
        recorded=place.recorded,
        differs=place.differs,
        refused=why,
        notes=tuple(notes),
    )


def _with_title(url: str, layout: Layout, rendering: Rendering) -> tuple[Layout, str]:
    """The layout with its text as it was embedded, where the store can make it; and what to know."""
    made = with_title(url, layout, title=rendering.title, join=rendering.join)
    if made is not None:
        return made, (
            "the text is made of several columns, so it is not recorded: pass layout= with this "
            f"TextQuery whenever the collection is opened: {made.text}"
        )
    return layout, (
        f"the embedded text is {rendering}, which this store cannot make: pass layout= with a function "
        "of ids as text, and adopt it in Python"
    )


def _remarks(named: Evidence | None, place: Place, sample: Sample | None) -> Iterator[str]:
    if sample is not None and sample.aside:
        yield (
            f"{sample.aside} of the sampled rows have vectors of another size than "
            f"{place.space.dimensions} dimensions, and were not compared"
        )
    if place.differs:
        yield f"this is not the layout that is recorded: {place.differs}"
    if named is None:
        return
    if named.agreeing < 1.0:
        yield (
            f"{1 - named.agreeing:.0%} of the sampled rows disagree with {named.space}: an audit of the "
            "collection is due"
        )
    if place.recorded is not None and place.recorded != named.space:
        yield f"the record says {place.recorded}, and the vectors are of {named.space}"


def _refusal(named: Evidence, place: Place, found: Survey, normalized: bool | None) -> str:
    """Why the collection cannot be adopted as it was identified; empty if nothing speaks against it."""
    layout = place.proposal.layout
    if place.beside:
        return f"some of these rows are recorded already, as those of {place.beside}"
    if place.record is not None and place.recorded is None:
        held = ", ".join(excerpt(slot.name) for slot in place.record.slots)
        return f"these rows are recorded already, with their vectors in {held}"
    if found.refused:
        return found.refused
    if found.unique is not None and layout.id not in found.unique:
        return (
            f"column {excerpt(layout.id)} has no unique index, or may be NULL, so documents cannot be "
            "written by it"
        )
    if normalized is False and named.space.normalized:
        return _of_any_length(named.space, found, layout.slot)
    return ""


def _of_any_length(space: EmbeddingSpace, found: Survey, slot: str) -> str:
    fits = any(each.name == slot and each.any_length for each in found.slots)
    instead = (
        "adopt it in Python with a space that has normalized=False"
        if fits
        else "copy the rows into a collection that compares by cosine"
    )
    return (
        f"the stored vectors are not of unit norm, and {space} is normalized: bring them to unit norm, "
        f"or {instead}"
    )


def _reason(
    verdict: Verdict, order: list[Evidence], samples: dict[int, Sample], notes: list[str]
) -> str:
    if not order:
        useless = [sample.useless for sample in samples.values() if sample.useless]
        return next(iter([*useless, *filter(None, notes)]), "no candidate could be compared")
    best = order[0]
    share = f"{best.agreeing:.0%} of {best.rows} rows at {AGREEMENT} or more"
    figures = f"median cosine {best.cosine:.3f}, {share}"
    if verdict is Verdict.IDENTIFIED:
        return f"the vectors are those of {best.space}: {figures}"
    if verdict is Verdict.NONE:
        return f"no candidate made these vectors; the nearest is {best.space}: {figures}"
    second = runner_up(order) or order[1]
    return f"{best.space} and {second.space} embed these texts alike: {figures}"
