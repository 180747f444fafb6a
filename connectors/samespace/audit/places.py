"""Where the vectors of a collection may be, and a sample of the rows there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from samespace.adoption import (
    check_same_layout,
    layout_differences,
    recorded_layout,
    shown_differences,
    texts_elsewhere,
)
from samespace.audit.judging import tells_too_little
from samespace.documents import Document
from samespace.errors import InvalidInput, SpaceError, StoreRejected, excerpt
from samespace.guard import SpaceRecord, lost_record
from samespace.layout import Layout
from samespace.opening import open_by_claim, open_store
from samespace.protocols import ChecksAdoption, Matrix, VectorStore
from samespace.space import EmbeddingSpace
from samespace.survey import Proposal, Survey, same_scope, scope_text
from samespace.vectors import stack

RECORDED: Final = "as recorded"
"""The maker of a layout that a record has."""
OURS: Final = "samespace"
"""The maker of collections of ours."""
GIVEN: Final = "as given"
"""The maker of a layout that was passed."""


@dataclass(frozen=True, slots=True)
class Place:
    """One way to read the vectors; ``layout`` is what to claim, None to read as is recorded.

    ``record`` is that of the same rows, ``recorded`` the space that it says is here, and ``differs``
    how its layout differs from the one to read by.
    """

    proposal: Proposal
    space: EmbeddingSpace
    layout: Layout | None
    record: SpaceRecord | None = None
    recorded: EmbeddingSpace | None = None
    differs: str = ""
    beside: str = ""
    """The scope of a record that has some of the same rows, if there is one."""

    @property
    def is_to_adopt(self) -> bool:
        """Whether adopting would change what is recorded."""
        return self.layout is not None and (self.recorded is None or bool(self.differs))


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows with text and vector; ``vectors`` has shape ``(len(documents), dimensions)``.

    ``useless`` says why they show nothing, if so; ``aside`` is how many rows were left out because
    their vectors have another size.
    """

    documents: list[Document]
    vectors: Matrix
    useless: str
    aside: int = 0


def places_of(found: Survey, layout: Layout | None) -> list[Place]:
    """Where vectors may be: as passed, as recorded, or as the survey proposes."""
    if found.lost_record:
        raise lost_record(found.collection)
    if layout is not None:
        return [_given(layout, found)]
    if found.records:
        return _recorded(found)
    if not found.slots:
        raise InvalidInput(f"collection {excerpt(found.collection)} has no vectors")
    if not found.proposals:
        usable = any(not slot.unusable for slot in found.slots)
        raise InvalidInput(
            f"where things are in collection {excerpt(found.collection)} cannot be told: "
            f"{'; '.join(found.missing)}{'; pass a layout (--id, --text, --slot)' if usable else ''}"
        )
    _check_chosen(found, [(each.layout, each.title) for each in found.proposals if each.title])
    sized = [each for each in found.proposals if each.dimensions is not None]
    return [_claimed(each, found) for each in sized or found.proposals]


def _given(layout: Layout, found: Survey) -> Place:
    sizes = {slot.name: slot.dimensions for slot in found.slots}
    if layout.slot not in sizes:
        raise InvalidInput(
            f"Layout.slot is {excerpt(layout.slot)}; collection {excerpt(found.collection)} has the "
            f"vectors {', '.join(map(excerpt, sizes)) or 'none'}"
        )
    alike = (each for each in found.proposals if each.layout.scope == layout.scope)
    known = {each.layout.slot: each.dimensions for each in alike}
    size = sizes[layout.slot] or known.get(layout.slot)
    place = _claimed(Proposal(maker=GIVEN, layout=layout, dimensions=size, reasons=()), found)
    for record in found.records:
        held = recorded_layout(record)
        if held is None:
            check_same_layout(record, layout, collection=found.collection)
        if held is None or same_scope(held.scope, layout.scope):
            return _beneath(place, record, layout)
        if held.scope is None or layout.scope is None:
            place = replace(place, beside=scope_text(held) or "the whole table")
    return place


def _beneath(place: Place, record: SpaceRecord, layout: Layout) -> Place:
    """A place in a collection that has a record."""
    held = next((slot.space for slot in record.slots if slot.name == layout.slot), None)
    return replace(
        place,
        space=held or place.space,
        layout=layout if record.layout is not None else None,
        record=record,
        recorded=held,
        differs=shown_differences(layout_differences(record, layout)),
    )


def _claimed(proposal: Proposal, found: Survey) -> Place:
    if proposal.dimensions is None:
        raise InvalidInput(
            f"how many dimensions the vectors {excerpt(proposal.layout.slot)} of collection "
            f"{excerpt(found.collection)} have cannot be told: no row has one, or they differ; pass a "
            "layout with another slot (--slot), or with a scope (--scope)"
        )
    claims_nothing = EmbeddingSpace(model="unknown", dimensions=proposal.dimensions)
    return Place(proposal, claims_nothing, proposal.layout)


def _recorded(found: Survey) -> list[Place]:
    layouts = [recorded_layout(record) for record in found.records]
    _check_chosen(found, [(layout or _OURS, "") for layout in layouts])
    record, layout = found.records[0], layouts[0]
    if layout is not None and not isinstance(layout.text, str):
        raise texts_elsewhere(found.collection)
    return [
        Place(
            Proposal(
                maker=OURS if record.layout is None else RECORDED,
                layout=replace(layout or _OURS, slot=slot.name),
                dimensions=slot.space.dimensions,
                reasons=(f"its record says that slot {excerpt(slot.name)} holds {slot.space}",),
            ),
            slot.space,
            layout=None,
            record=record,
            recorded=slot.space,
        )
        for slot in record.slots
    ]


_OURS: Final = Layout(id="id", text="text", slot="")


def _check_chosen(found: Survey, collections: Sequence[tuple[Layout, str]]) -> None:
    """:class:`InvalidInput` where several collections share a table and none was chosen."""
    if len(collections) < 2:
        return
    listed = "\n".join(f"  {scope_text(layout)}  {title}" for layout, title in collections)
    raise InvalidInput(
        f"{excerpt(found.collection)} holds {len(collections)} collections; choose one by its scope "
        f"(--scope, or layout= with a scope):\n{listed}"
    )


def _opened(url: str, collection: str, place: Place, options: dict[str, Any]) -> VectorStore:
    if place.layout is not None:
        return open_by_claim(
            url, collection=collection, space=place.space, **{**options, "layout": place.layout}
        )
    record = place.record
    scoped = record is not None and record.layout is not None and record.layout.get("scope")
    layout = place.proposal.layout if scoped else options.get("layout")
    return open_store(
        url, collection=collection, space=place.space, **{**options, "layout": layout}
    )


def sampled(url: str, collection: str, place: Place, size: int, options: dict[str, Any]) -> Sample:
    """Rows of a place, those without text or with a vector of zeros or of another size aside."""
    with _opened(url, collection, place, options) as store:
        rows = store.sample(place.space, size=size)
    read = [(row.document, row.vector) for row in rows if row.vector is not None]
    sized = [(row, vector) for row, vector in read if len(vector) == place.space.dimensions]
    kept = [(row, vector) for row, vector in sized if vector.any() and row.embedded_text.strip()]
    documents = [document for document, _ in kept]
    vectors = stack([vector for _, vector in kept], place.space.dimensions)
    shown = [each.embedded_text for each in documents]
    useless = tells_too_little(shown, vectors, is_all=len(rows) < size)
    return Sample(documents, vectors, useless, len(read) - len(sized))


def refusal(
    url: str, collection: str, layout: Layout, space: EmbeddingSpace, options: dict[str, Any]
) -> str:
    """Why the store refuses to have that adopted; empty if it does not, or only adopting tells."""
    named: dict[str, Any] = {**options, "layout": layout, "space": space}
    with open_store(url, collection=collection, **named) as store:
        if isinstance(store, ChecksAdoption):
            try:
                store.check_adoptable()
            except (InvalidInput, SpaceError, StoreRejected) as error:
                return str(error)
    return ""
