"""The guard of a store: which slot a handle may use, and what it says where it may not."""

from __future__ import annotations

import copy
import secrets
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

import numpy as np

from samespace import __version__
from samespace.adoption import (
    adopted_again,
    altered,
    check_same_layout,
    layout_differences,
    missing_part,
    outdated,
    recorded_layout,
    shown_differences,
    wrong_slot,
)
from samespace.documents import CollectionInfo, SlotInfo, VersionedRow
from samespace.embedding import (
    embed_documents_async,
    make_canary_async,
    provenance_of_async,
    uncached,
)
from samespace.errors import (
    CollectionNotFound,
    InvalidInput,
    SlotNotReady,
    SpaceUnknown,
    StoreError,
    StoreUnavailable,
    command,
    excerpt,
)
from samespace.filters import Filter
from samespace.guard import (
    Canary,
    SlotRecord,
    SlotState,
    SpaceRecord,
    lone_vectors,
    not_ready,
)
from samespace.index import Index
from samespace.layout import Layout
from samespace.rebuilding import (
    SAMPLE,
    adopted_before,
    check_alike,
    check_given,
    check_told_by_rows,
    rebuilt,
)
from samespace.space import EmbeddingSpace
from samespace.stores.base_async import (
    AsyncStoreBase,
    check_other,
    check_provenance,
    check_space,
    check_state,
    logger,
)
from samespace.stores.refusals import Gone
from samespace.vectors import faults

NORMS: Final = 100
"""Rows whose norms are looked at before a claim is searched by."""
RECHECK_SECONDS: Final = 10.0
"""How long a handle goes by what it has read of a collection that others may change."""


class Known(Protocol):
    """What a handle has read of its collection."""

    @property
    def exists(self) -> bool:
        """Whether there is such a collection."""

    @property
    def record(self) -> SpaceRecord | None:
        """Its record, if it has one."""

    @property
    def layout(self) -> Layout | None:
        """Where things are, unless they are as we put them."""

    @property
    def read_at(self) -> float:
        """When that was, by the monotonic clock."""

    @property
    def ready(self) -> list[SlotRecord]:
        """The handle's slot, once it was found fit for searches; to be kept here."""


State = TypeVar("State", bound=Known)


class AsyncGuardedStore(AsyncStoreBase, Generic[State]):
    """A store whose collections carry records; a subclass reads them with the hooks below."""

    guard_limit: ClassVar[str] = ""
    """Why a store of this kind takes nothing of :meth:`guard_install`; empty where it does."""

    _state: State | None = None
    _index: Index
    _warned = False
    _planned: SpaceRecord | None = None
    """The record by which a copy of the handle reads, before it is written."""
    _reads_by_claim = False
    _norms_seen = False

    # Hooks

    @abstractmethod
    async def _read(self, *, adopting: bool = False) -> State:
        """Read what the collection is; a record that cannot be read is none to who is adopting."""

    @abstractmethod
    def _holds(self, state: State, name: str) -> bool:
        """Whether an existing collection has a physical slot of this name."""

    @abstractmethod
    def _has(self, state: State, name: str) -> bool:
        """Whether an existing collection has a column or field; true where anything may be there."""

    @abstractmethod
    def _sizes(self, state: State) -> Mapping[str, int | None]:
        """The dimensions of each slot that is there, None where nothing fixes them."""

    def _weighs_lengths(self, state: State, name: str) -> bool:  # noqa: ARG002  others do
        """Whether scores in a slot are cosines of vectors of unit norm alone."""
        return False

    @abstractmethod
    def _check_claim(self, state: State) -> None:
        """The refusal where what is stored contradicts the layout and space that were claimed."""

    @abstractmethod
    def _not_found(self) -> CollectionNotFound:
        """The error that says that there is no such collection."""

    @abstractmethod
    def _lost(self, slot: SlotRecord) -> SpaceUnknown:
        """The error for a record that names a slot which is not there."""

    @abstractmethod
    def _unrecorded(self, state: State) -> SpaceUnknown | StoreError:
        """The refusal of a collection without a record."""

    @abstractmethod
    async def _count_pending(self, slot: SlotRecord) -> int:
        """How many rows have no vector in this slot."""

    @abstractmethod
    async def _count_alone(self, slot: SlotRecord, other: SlotRecord) -> int:
        """How many rows have a vector in a slot, and are pending in the other."""

    @abstractmethod
    async def count(self, where: Filter | None = None) -> int:
        """How many documents pass."""

    @abstractmethod
    async def sample(
        self, space: EmbeddingSpace, *, size: int, where: Filter | None = None
    ) -> list[VersionedRow]:
        """Rows that have a vector in the slot, drawn at random."""

    @abstractmethod
    def _is_indexed(self, state: State, space: EmbeddingSpace) -> bool:
        """Whether the index of a space's slot is built."""

    @abstractmethod
    async def _slots_left(self, state: State) -> list[str]:
        """The slots that a collection has, by its record and, if it is one of ours, by their names."""

    @abstractmethod
    async def _rebuild(self, spaces: Sequence[EmbeddingSpace]) -> dict[str, int]:
        """Write anew a record that is lost; how many rows are pending in each of its slots."""

    @abstractmethod
    async def _rewrite(self, change: Callable[[SpaceRecord], SpaceRecord]) -> None:
        """Change the record, alone."""

    @abstractmethod
    async def _make(self, slot: SlotRecord) -> bool:
        """Create the collection with slot and record as one; false if there is one by now."""

    def read_by_claim(self) -> None:
        """Read as ``layout`` and ``space`` claim from now on, whatever is recorded, and write nothing.

        For finding out what a collection holds whose record may be wrong.
        """
        self._layout_to_adopt()
        self._reads_by_claim = True

    def _reset(self) -> None:
        super()._reset()
        self._state = None
        self._warned = self._norms_seen = False

    @property
    def _claims_slot(self) -> bool:
        """Whether the layout that was passed says where the vectors of this handle's space are."""
        return self._claimed_layout is not None and self._space == self._claimed_space

    def _layout_to_adopt(self) -> Layout:
        """The layout that says where the vectors of this handle's space are."""
        if self._claimed_layout is None:
            raise InvalidInput("pass layout= to say where id, text, metadata and vectors are")
        if not self._claims_slot:
            raise InvalidInput(
                f"layout= says where the vectors of {self._claimed_space} are, not those of {self._space}; "
                "adopt the collection with a handle of that space"
            )
        return self._claimed_layout

    # What the collection is

    async def _describe(self) -> State:
        """Read anew what the collection is, and keep it."""
        self._state = await self._read(adopting=self._planned is not None)
        return self._state

    async def _known(self) -> State:
        """The state as it was read last, unless that is long ago or speaks against this handle.

        Others may have built an index, or added, filled and opened this handle's slot.
        """
        state = self._state
        if state is None or not state.exists:
            return await self._describe()
        held = state.ready or state.record is None or state.record.find(self._space) is not None
        if time.monotonic() - state.read_at > RECHECK_SECONDS or not held:
            return await self._describe()
        return state

    async def _known_to_exist(self) -> State:
        """The state, for what concerns no vectors; :class:`CollectionNotFound` without one."""
        state = await self._known()
        if not state.exists:
            raise self._not_found()
        self._slot_of(state, writing=False)
        return state

    def _slot_of(self, state: State, *, writing: bool) -> SlotRecord:
        """This handle's slot; or the refusal that the record or its absence asks for."""
        if state.record is not None:
            slot = state.record.require(
                self._space, collection=self._collection, use="write" if writing else "query"
            )
            self._check_recorded(state, state.record, slot)
            return slot
        if writing:
            raise self._unrecorded(state)
        claimed = self._claimed_layout
        if claimed is not None and self._claims_slot:
            self._check_claim(state)
            self._warn_unrecorded("the space of its vectors is what this handle claims")
            return SlotRecord(name=claimed.slot, space=self._space)
        if self._holds(state, self._space.id):
            self._warn_unrecorded("the name of its slot is all that says which space it holds")
            return SlotRecord(name=self._space.id, space=self._space)
        raise self._unrecorded(state)

    def _check_recorded(self, state: State, record: SpaceRecord, slot: SlotRecord) -> None:
        """The refusal where the collection, or a layout that was passed, is not as the record says."""
        adopted = record.layout is not None
        if not self._holds(state, slot.name) and (not adopted or len(record.slots) > 1):
            raise self._lost(slot)
        layout = recorded_layout(record)
        missing = missing_part(layout, partial(self._has, state)) if layout is not None else ""
        why = missing or wrong_slot(slot, self._sizes(state))
        if why:
            raise altered(self._collection, why, adopted=adopted, scope=self._scope)
        if self._claimed_layout is not None:
            check_same_layout(record, self._claimed_layout, collection=self._collection)

    def _outdated(self, state: State) -> str:
        """Why the record says nothing of what is there now; empty if it does, or there is none."""
        if state.record is None:
            return ""
        return outdated(state.record, partial(self._has, state), self._sizes(state))

    def _recorded(self, state: State) -> SpaceRecord:
        """The record of a collection that must have one."""
        if not state.exists:
            raise self._not_found()
        if state.record is None:
            raise self._unrecorded(state)
        return state.record

    def _warn_unrecorded(self, consequence: str) -> None:
        if not self._warned:
            self._warned = True
            mend = f"{command('guard repair-record', self._collection)} or repair_record()"
            logger.warning(
                "collection %s has no record: %s (%s mends that)",
                excerpt(self._collection),
                consequence,
                mend if self._claimed_layout is None else "adopt()",
            )

    async def _for_writing(self) -> SlotRecord:
        state = await self._describe()
        if not state.exists:
            if self._claimed_layout is not None:
                raise self._not_found()
            await self.create()
            state = await self._known()
            if not state.exists:  # dropped again
                raise self._not_found()
        return self._slot_of(state, writing=True)

    async def _for_searching(self, *, allow_filling: bool = False) -> SlotRecord:
        state = await self._known()
        if state.ready:
            return state.ready[0]
        if not state.exists:
            raise self._not_found()
        slot = self._slot_of(state, writing=False)
        if slot.state is SlotState.FILLING and not allow_filling:
            slot = self._slot_of(await self._describe(), writing=False)
            if slot.state is SlotState.FILLING:
                raise await self._not_ready(slot)
        elif slot.state is SlotState.READY:
            if state.record is None and self._weighs_lengths(state, slot.name):
                await self._check_some_norms(slot)
            state.ready.append(slot)
        return slot

    async def _check_some_norms(self, slot: SlotRecord) -> None:
        """:class:`InvalidInput` where some rows' vectors are none of the space that is claimed; once."""
        if self._norms_seen:
            return
        rows = await self.sample(self._space, size=NORMS)
        seen = [(row.document.id, row.vector) for row in rows if row.vector is not None]
        found = faults(np.stack([vector for _, vector in seen]), self._space) if seen else {}
        for place, reason in found.items():
            raise InvalidInput(
                f"{excerpt(slot.name)} of row {excerpt(seen[place][0])}: the vector {reason}; it is not "
                "compared by cosine, so scores would be wrong: bring the rows to unit norm, or copy them to "
                "where they are"
            )
        self._norms_seen = True

    async def _not_ready(self, slot: SlotRecord) -> SlotNotReady:
        pending = await self._count_pending(slot)
        rows = await self.count()
        return not_ready(
            slot, collection=self._collection, pending=pending, rows=rows, scope=self._scope
        )

    @asynccontextmanager
    async def _gone_explained(self) -> AsyncIterator[None]:
        """Where a request names what is not there, say what has become of the collection."""
        try:
            yield
        except Gone as error:
            state = await self._describe()
            if not state.exists:
                raise self._not_found() from error
            self._slot_of(state, writing=False)
            raise StoreUnavailable(
                f"collection {excerpt(self._collection)} changed meanwhile ({error}); try again"
            ) from error

    def _slots(self) -> Sequence[SlotRecord]:
        record = self._state.record if self._state else None
        return record.slots if record else ()

    async def _slot_named(self, space: EmbeddingSpace) -> tuple[State, SlotRecord]:
        """The slot of any space of this collection, and the state that speaks of it."""
        check_space(space)
        state = self._state if self._state and self._state.record else await self._describe()
        if state.record is None or state.record.find(space) is None:
            state = await self._describe()
        return state, self._recorded(state).require(space, collection=self._collection)

    async def _slot_to_read(self, space: EmbeddingSpace) -> tuple[State, SlotRecord]:
        """:meth:`_slot_named`; without a record this handle's slot, where it may be searched."""
        check_space(space)
        state = await self._describe()
        if not state.exists:
            raise self._not_found()
        if self._planned is not None:
            return state, self._planned.require(space, collection=self._collection)
        if state.record is None and space == self._space:
            return state, self._slot_of(state, writing=False)
        return await self._slot_named(space)

    # Creating and telling

    async def create(
        self, *, exist_ok: bool = True, provenance: Mapping[str, str] | None = None
    ) -> None:
        """Create the collection with this handle's slot; of racing creators exactly one does.

        An existing one is checked: :class:`SpaceMismatch` if it has no slot of this space.
        ``provenance`` is recorded beside what the backend says of itself, for what makes vectors
        differently with the same backend.
        """
        if self._claimed_layout is not None:
            raise InvalidInput(
                "a handle with layout= is for a collection that exists; call adopt()"
            )
        if await self._is_created(exist_ok=exist_ok):
            return
        check_provenance(provenance)
        slot = await self._new_slot(self._space, await self._own_canary(self._space), provenance)
        if await self._make(slot):
            self._proofs.made(slot)
            await self._describe()
        elif not await self._is_created(exist_ok=exist_ok):
            raise StoreUnavailable(
                f"collection {excerpt(self._collection)} was dropped while it was created; try again"
            )

    async def _is_created(self, *, exist_ok: bool) -> bool:
        state = await self._describe()
        if not state.exists:
            return False
        self._slot_of(state, writing=True)
        if not exist_ok:
            raise InvalidInput(
                f"collection {excerpt(self._collection)} exists; drop it, or pass exist_ok=True"
            )
        return True

    def _adopted_before(self, state: State, layout: Layout) -> SpaceRecord | None:
        """What is to be recorded where there is a record; None if that is to be written anew."""
        if state.record is None or self._outdated(state):
            return None
        return adopted_again(state.record, layout, self._space, collection=self._collection)

    def _warn_of_replacing(self, state: State, layout: Layout) -> None:
        """Say what becomes of the record that is there."""
        if state.record is None:
            return
        why = self._outdated(state)
        if why:
            logger.warning(
                "the record of collection %s is written anew: %s", excerpt(self._collection), why
            )
        else:
            logger.warning(
                "the layout of collection %s is recorded anew; it was %s",
                excerpt(self._collection),
                shown_differences(layout_differences(state.record, layout)),
            )

    async def _own_canary(self, space: EmbeddingSpace) -> Canary | None:
        """The canary as this handle's backend embeds it, if it is of ``space``."""
        if self._backend is None or self._backend.space != space:
            return None
        return await make_canary_async(self._backend)

    async def _new_slot(
        self,
        space: EmbeddingSpace,
        canary: Canary | None,
        provenance: Mapping[str, str] | None = None,
    ) -> SlotRecord:
        own = self._backend is not None and self._backend.space == space
        return SlotRecord(
            name=space.id,
            space=space,
            provenance={
                **(await provenance_of_async(self._backend) if own else {}),
                "samespace": __version__,
                **(provenance or {}),
            },
            canary=canary,
        )

    async def _empty_slot(
        self,
        space: EmbeddingSpace,
        canary: Canary | None,
        provenance: Mapping[str, str] | None = None,
    ) -> SlotRecord:
        """A slot that is to be filled."""
        slot = await self._new_slot(space, canary, {**_identity(), **(provenance or {})})
        return replace(slot, state=SlotState.FILLING)

    async def mark(
        self,
        space: EmbeddingSpace,
        state: SlotState,
        *,
        provenance: Mapping[str, str] | None = None,
    ) -> None:
        """Say that a slot is being filled, or that it can be searched.

        Entries of ``provenance`` are recorded in the same write, beside those that the slot has.
        """
        wanted, noted = check_state(state), check_provenance(provenance)
        check_space(space)

        def marked(record: SpaceRecord) -> SpaceRecord:
            record.require(space, collection=self._collection)
            return record.with_state(space, wanted, noted)

        await self._rewrite(marked)

    async def count_alone(self, space: EmbeddingSpace, *, beside: EmbeddingSpace) -> int:
        """How many rows have a vector in the slot of ``space``, and are pending in that of ``beside``."""
        check_other(space, check_space(beside), what="beside")
        record = self._recorded(await self._describe())
        slot = record.require(space, collection=self._collection)
        return await self._count_alone(slot, record.require(beside, collection=self._collection))

    async def _check_kept(self, space: EmbeddingSpace, keeps: EmbeddingSpace | None) -> None:
        """:class:`MigrationError` where dropping a slot would take the only vector of some rows."""
        if keeps is not None and (alone := await self.count_alone(space, beside=keeps)):
            raise lone_vectors(space, keeps, collection=self._collection, alone=alone)

    async def repair_record(self, *, spaces: Sequence[EmbeddingSpace] = ()) -> tuple[SlotInfo, ...]:
        """Write the record of a collection of ours anew, of the names of its slots; what it says.

        For a record that is missing, cannot be read, names a slot that is not there, or has a canary that
        the rows contradict; one that is in order stays. ``spaces`` are those that slots may be named
        after, beside those of known models and of this handle; each must be one's. A slot in which rows
        are pending is to be filled, unless it is the fullest. A backend of a slot's space has its canary
        kept once it was compared with rows (by ``canary_threshold``), in the place of one that it
        contradicts, too; :class:`SpaceMismatch`, and nothing is written, if it embeds otherwise than they
        are stored, or differs from the canary where no row can tell. :class:`SpaceUnknown` where a name
        tells of no known space, or none was made here. Of a collection of others only the canary is
        written anew, with a backend; :class:`InvalidInput` without one.
        """
        given = [*map(check_space, spaces), *([self._backend.space] if self._backend else [])]
        planned = await self._plan(given)
        canary = await self._proved_canary(planned)  # a record lets the backend write
        pending = await self._rebuild(given)
        if canary is not None:
            await self._keep_canary(canary, planned)
        record = self._recorded(await self._describe())
        return tuple(
            SlotInfo(
                name=slot.name,
                space=slot.space,
                state=str(slot.state),
                pending=pending[slot.name],
                has_canary=slot.canary is not None,
                provenance=slot.provenance,
            )
            for slot in record.slots
        )

    async def _plan(self, spaces: Sequence[EmbeddingSpace]) -> SpaceRecord:
        """The record that would be written anew; or the refusal."""
        state = await self._read(adopting=True)
        if not state.exists:
            raise self._not_found()
        held = state.record is not None and state.record.find(self._space) is not None
        adopted = state.record is not None and state.record.layout is not None
        proves = held and self._backend is not None
        if (adopted or self._claimed_layout is not None) and not proves:
            raise adopted_before(self._collection, self._scope)
        return self._rebuilt(state.record, await self._slots_left(state), spaces)

    def _rebuilt(
        self,
        record: SpaceRecord | None,
        names: Sequence[str],
        spaces: Sequence[EmbeddingSpace],
    ) -> SpaceRecord:
        place: dict[str, Any] = {"collection": self._collection, "scope": self._scope}
        check_given(spaces, names, record, **place)
        found = rebuilt(record, names, known=[*spaces, self._space], **place)
        kept = record.slots if record else ()
        slots = [
            each if each in kept else each.with_provenance(_identity()) for each in found.slots
        ]
        return replace(found, slots=tuple(slots))

    async def _proved_canary(self, planned: SpaceRecord) -> Canary | None:
        """The canary to keep, if the backend embeds rows as they are stored; None if one is to stay."""
        slot = planned.find(self._space)
        if self._backend is None or slot is None:
            return None
        made = await make_canary_async(self._backend)
        differing = self._proofs.differing(slot, made)
        if slot.canary is not None and not differing:
            return None
        reader = copy.copy(self)
        vars(reader).update(_planned=planned)
        rows = await reader.sample(self._space, size=SAMPLE)
        # A chunk may have been embedded in sight of its neighbours.
        whole = [row for row in rows if row.document.parent is None and row.document.embedded_text]
        check_told_by_rows(
            slot,
            differing,
            threshold=self.canary_threshold,
            collection=self._collection,
            comparable=bool(whole),
            scope=self._scope,
        )
        if rows and not whole:
            return None
        if whole:
            await self._check_alike(whole, slot)
        return made

    async def _check_alike(self, rows: Sequence[VersionedRow], slot: SlotRecord) -> None:
        """:class:`SpaceMismatch` if the backend embeds these rows otherwise than they are stored."""
        texts = [row.document.embedded_text for row in rows]
        beneath: Any = uncached(self._backend) if self._backend else None
        again, _ = await embed_documents_async(beneath, texts)
        stored = np.stack([row.vector for row in rows if row.vector is not None])
        check_alike(
            stored,
            again,
            slot,
            threshold=self.canary_threshold,
            collection=self._collection,
            scope=self._scope,
        )

    async def _keep_canary(self, made: Canary, planned: SpaceRecord) -> None:
        """Record it, unless another one was recorded since the record was read."""
        made_by = await provenance_of_async(self._backend)
        before = planned.find(self._space)
        replaced = before.canary if before else None

        def proved(each: SlotRecord) -> SlotRecord:
            stays = each.canary is not None and not each.canary.equals(replaced)
            if each.space != self._space or stays:
                return each
            return replace(each, canary=made, provenance={**each.provenance, **made_by})

        await self._rewrite(
            lambda record: replace(record, slots=tuple(proved(each) for each in record.slots))
        )

    async def info(self) -> CollectionInfo:
        """What the collection is: slots with what is pending in each, rows, index, layout."""
        state = await self._describe()
        if not state.exists:
            raise self._not_found()
        mine = self._slot_of(state, writing=False)
        slots = state.record.slots if state.record else (mine,)
        return CollectionInfo(
            name=self._collection,
            space=self._space,
            slots=tuple([await self._slot_info(slot) for slot in slots]),
            rows=await self.count(),
            index=self._index,
            index_built=self._is_indexed(state, self._space),
            provenance=mine.provenance,
            layout=state.layout,
        )

    async def _slot_info(self, slot: SlotRecord) -> SlotInfo:
        return SlotInfo(
            name=slot.name,
            space=slot.space,
            state=str(slot.state),
            pending=await self._count_pending(slot),
            has_canary=slot.canary is not None,
            provenance=slot.provenance,
            documents_cosine=self._proofs.cosine(slot, "documents"),
            queries_cosine=self._proofs.cosine(slot, "queries"),
            canary=slot.canary,
        )


def slot_name(state: Known, space: EmbeddingSpace) -> str:
    """The physical name of a space's slot in a collection."""
    slot = state.record.find(space) if state.record else None
    return slot.name if slot else space.id


def looked_up(lookup: Any, ids: Sequence[str]) -> Sequence[str]:
    """The texts that a function of ids returns; :class:`InvalidInput` if they are none."""
    if not ids:
        return []
    found = lookup(ids)
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise InvalidInput(f"Layout.text returned {excerpt(found)}; return a list of texts")
    texts = list(found)
    if len(texts) != len(ids):
        raise InvalidInput(f"Layout.text returned {len(texts)} texts for {len(ids)} ids")
    for id, text in zip(ids, texts, strict=True):
        if not isinstance(text, str):
            raise InvalidInput(
                f"Layout.text returned {excerpt(text)} for id {excerpt(id)}; return a string"
            )
    return texts


def _identity() -> dict[str, str]:
    """What tells a slot from any other of its space, so that evidence of one is not taken for another's."""
    return {"slot": secrets.token_hex(8)}
