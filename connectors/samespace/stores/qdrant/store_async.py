"""Collections in Qdrant: :class:`AsyncQdrantStore`."""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, TypeVar

import numpy as np
import orjson
from qdrant_client import AsyncQdrantClient, models

from samespace.documents import (
    CollectionInfo,
    Document,
    FillReport,
    Hit,
    Metadata,
    VersionedRow,
    decode_metadata,
    encode_value,
)
from samespace.errors import (
    CollectionNotFound,
    InvalidInput,
    SpaceUnknown,
    StoreRejected,
    StoreUnavailable,
    excerpt,
)
from samespace.filters import Field, Filter, check_filter, target_of
from samespace.forecast import ClientChange, SlotForecast
from samespace.guard import (
    CANARY_THRESHOLD,
    Canary,
    SlotRecord,
    SpaceRecord,
    UnreadableRecord,
    check_distinct_ids,
    lost_record,
    lost_slot,
    missing_record,
)
from samespace.hardening import Change, RawWrite
from samespace.index import Index
from samespace.layout import Layout
from samespace.names import check_collection_name, check_identifier
from samespace.protocols import AnyBackend, Matrix, OnConflict, Shard, Vector
from samespace.rebuilding import is_slot_name, with_states
from samespace.rights import Part, known_part
from samespace.space import EmbeddingSpace
from samespace.stores.base_async import (
    Row,
    Written,
    check_changes,
    check_cursor,
    check_fit,
    check_ids,
    check_limit,
    check_other,
    check_page,
    check_pending,
    check_provenance,
    check_selectors,
    check_space,
    checked_matrix,
)
from samespace.stores.guarded_async import AsyncGuardedStore, looked_up, slot_name
from samespace.stores.qdrant import collection as shape
from samespace.stores.qdrant import exposing, hardening, rights
from samespace.stores.qdrant import requests as to
from samespace.stores.qdrant.adopted import AdoptedRows, check_text
from samespace.stores.qdrant.collection import State
from samespace.stores.qdrant.diagnosis import OLDEST_INSERT_ONLY, OLDEST_SLOTS
from samespace.stores.qdrant.faults import Behind, Exists
from samespace.stores.qdrant.forecast import forecast
from samespace.stores.qdrant.requests import Point, PointId, Read, SlotData
from samespace.stores.qdrant.transport_async import AsyncTransport, Secret
from samespace.stores.refusals import Gone
from samespace.stores.running import AsyncBeside, T
from samespace.stores.sources import vouched
from samespace.stores.values import Values

POINTS_PER_REQUEST: Final = 128
POINTS_PER_READ: Final = 500
POINTS_PER_FILL: Final = 64
IDS_PER_REQUEST: Final = 10_000
FLOATS_PER_SEARCH: Final = 2**20
"""In the queries of one request: spelt out, less than half of the 32 MiB that a server takes."""
ATTEMPTS: Final = 50
POLL_SECONDS: Final = 0.1
IDLE_POLLS: Final = 600
SETTLED_POLLS: Final = 10
SMALL_REST: Final = 16 * 1024
"""Bytes of vectors that may stay in segments too small to be indexed."""
Item = TypeVar("Item")


class AsyncQdrantStore(AsyncGuardedStore[State]):
    """One collection in Qdrant 1.16 or newer, guarded by its embedding space.

    ``source`` is a URL (``http://``, ``https://``, ``qdrant://`` or ``qdrant+https://``), a folder
    or ``":memory:"`` for the client's local mode, or an ``AsyncQdrantClient``, which stays open. With
    ``grpc_port`` vectors go over gRPC, as bytes. ``timeout`` is in seconds, for each attempt.

    Without ``layout`` the collection is one of ours, created on first use with a vector named
    after the space; with one it exists, and is read as the layout says and written once
    :meth:`adopt` has been called. In a layout ``id`` is ``"id"`` for the points' own ids (integers,
    UUIDs) or a key of the payload, ``slot`` is a vector's name (``""`` for the unnamed one), and
    ``metadata="*"`` is all the payload but the other parts. The record is in the collection's
    metadata. Adding and dropping slots needs Qdrant 1.18, ``on_conflict`` other than
    ``"overwrite"`` 1.17. ``mirrors`` are backends of further slots, which upserts fill too.
    ``canary_threshold`` is the smallest cosine at which a backend still counts as the one that filled
    the slot.

    Local mode keeps all vectors in memory, compares them one by one and has no index, so that
    ``index`` changes nothing there; a folder serves one handle at a time.
    """

    guard_limit: ClassVar[str] = (
        "Qdrant's named vectors are the guard, and it has no conditions on what they hold"
    )
    kind: ClassVar[str] = "qdrant"
    unseen_changes: ClassVar[str] = exposing.UNSEEN
    unreclaimed_space: ClassVar[str] = exposing.UNRECLAIMED

    def __init__(
        self,
        source: str | AsyncQdrantClient,
        *,
        collection: str,
        backend: AnyBackend | None = None,
        mirrors: Sequence[AnyBackend] = (),
        space: EmbeddingSpace | None = None,
        layout: Layout | None = None,
        index: Index | None = None,
        canary_threshold: float = CANARY_THRESHOLD,
        grpc_port: int | None = None,
        api_key: str | None = None,
        timeout: float = 60.0,
    ) -> None:
        key = Secret(api_key)
        del api_key  # a traceback with locals must not show it
        if layout is None:
            check_collection_name(collection)
        else:
            check_text(layout)
            shape.check_name(collection)
        super().__init__(
            collection=collection,
            space=space,
            backend=backend,
            mirrors=mirrors,
            layout=layout,
            canary_threshold=canary_threshold,
        )
        self._index = index or Index()
        self._transport = AsyncTransport(source, grpc_port=grpc_port, api_key=key, timeout=timeout)

    async def _disconnect(self) -> None:
        await self._transport.close()

    # What the collection is

    async def _read(self, *, adopting: bool = False) -> State:
        return await self._read_state(adopting=adopting)

    async def _read_state(self, *, adopting: bool = False) -> State:
        now = time.monotonic()
        if not await self._transport.is_made():
            return shape.absent(now)
        try:
            info = await self._transport.ask(lambda client: client.get_collection(self._collection))
        except Gone:
            return shape.absent(now)
        metadata = {} if self._reads_by_claim else info.config.metadata or {}
        record = self._record_in(metadata, adopting=adopting)
        is_claimed = adopting and self._claimed_layout is not None
        rows = shape.rows_of(None if is_claimed else record, self._claimed_layout)
        return shape.described(info, record, rows, now)

    def _record_in(self, metadata: Mapping[str, Any], *, adopting: bool) -> SpaceRecord | None:
        """The record; one that cannot be read is none to who is adopting."""
        found = metadata.get(to.RECORD)
        try:
            return (
                None if found is None else SpaceRecord.from_dict(found, collection=self._collection)
            )
        except UnreadableRecord:
            if not adopting:
                raise
            return None

    async def _current(self, *, writing: bool = True) -> State:
        """The collection as it is now, which has this handle's slot.

        For what names no vector: there the server would not refuse a handle that outlived its slot.
        """
        state = await self._describe()
        if not state.exists:
            raise self._not_found()
        self._slot_of(state, writing=writing)
        return state

    async def _ask(self, request: Callable[[Any], Awaitable[T]]) -> T:
        """What the server answers to a request that needs the collection."""
        async with self._gone_explained():
            return await self._transport.ask(request)

    def _holds(self, state: State, name: str) -> bool:
        return name in state.vectors

    def _has(self, state: State, name: str) -> bool:  # noqa: ARG002  a payload may have any key
        return True

    def _weighs_lengths(self, state: State, name: str) -> bool:
        return state.vectors[name].metric is not shape.Metric.COSINE

    def _sizes(self, state: State) -> Mapping[str, int | None]:
        return {name: vector.size for name, vector in state.vectors.items()}

    def _check_claim(self, state: State) -> None:
        if self._claimed_layout is not None:
            shape.check_slot(state, self._claimed_layout, self._space)

    def _not_found(self) -> CollectionNotFound:
        return CollectionNotFound(
            f"there is no collection {excerpt(self._collection)} in this Qdrant; check the name, or "
            "call create()"
        )

    def _unrecorded(self, state: State) -> SpaceUnknown:  # noqa: ARG002
        return missing_record(self._collection, claimed=self._claims_slot)

    def _lost(self, slot: SlotRecord) -> SpaceUnknown:
        return lost_slot(slot, collection=self._collection, place="vector")

    async def _count_pending(self, slot: SlotRecord) -> int:
        return await self._counted(to.pending(slot.name, slot.space))

    async def _count_alone(self, slot: SlotRecord, other: SlotRecord) -> int:
        unfilled = to.pending(other.name, other.space)
        return await self._counted(to.every(to.has_vector(slot.name), unfilled))

    async def _counted(self, condition: models.Filter) -> int:
        answer = await self._ask(
            lambda client: client.count(self._collection, count_filter=condition, exact=True)
        )
        return int(answer.count)

    # Creating, dropping, adopting

    async def _make(self, slot: SlotRecord) -> bool:
        """One request makes slot and record: of racing creators the server lets one through."""
        threshold = shape.threshold_of(self._index)
        optimizers = models.OptimizersConfigDiff(indexing_threshold=threshold)
        record = SpaceRecord(slots=(slot,))
        params = {slot.name: shape.vector_params(self._space, self._index)}
        try:
            await self._transport.ask(
                lambda client: client.create_collection(
                    self._collection,
                    vectors_config=params,
                    optimizers_config=None if threshold is None else optimizers,
                    metadata={to.RECORD: record.to_dict()},
                )
            )
        except Exists:
            return await self._is_made_by_another()
        try:
            await self._index_payload()
        except CollectionNotFound:
            return False
        return True

    async def _is_made_by_another(self) -> bool:
        """False, once the collection of the creator that won can be read."""
        for _ in range(ATTEMPTS):
            if (await self._describe()).exists:
                break
            await asyncio.sleep(POLL_SECONDS)
        return False

    async def _index_payload(self) -> None:
        """Index what filters look at; a filter finds the same without, only later."""
        if self._transport.kind == "local":
            return
        async with self._gone_explained():
            for key, kind in to.INDEXES.items():
                await self._transport.index_payload(self._collection, key, kind)

    async def drop(self) -> None:
        """Remove the collection with all its slots; refused on one that was adopted."""
        state = await self._describe()
        if not state.exists:
            raise self._not_found()
        if not state.rows.own:
            raise InvalidInput(
                f"collection {excerpt(self._collection)} was adopted, not made here; "
                "drop it with the tool that made it"
            )
        self._slot_of(state, writing=True)
        await self._ask(lambda client: client.delete_collection(self._collection))
        if (await self._describe()).exists:  # the server says the same of what was not there
            raise InvalidInput(
                f"{excerpt(self._collection)} is still there: it is an alias, so drop the collection by "
                "its own name, or somebody has created it again"
            )

    async def adopt(self, *, canary: bool = True) -> None:
        """Record which space an existing collection holds, as this handle's layout and space claim.

        No point changes. With ``canary`` and a backend its canary is kept, so that another model
        under the same name is noticed. Of a collection adopted before the layout is replaced, where it
        is another one of the same slot; a record that cannot be read, or whose slots are not there
        any more, is written anew, and a collection of ours that lost its own has it again. Where the
        vectors are compared by another metric than Cosine, all are looked at: :class:`InvalidInput` for
        one that is not of unit norm, and for a key of texts that no point has.
        """
        layout = self._layout_to_adopt()
        made = await self._own_canary(self._space) if canary else None
        state = await self._read_state(adopting=True)
        if not state.exists:
            raise self._not_found()
        wanted = self._adopted_before(state, layout)
        if wanted is not None and wanted is state.record:
            return
        self._check_claim(state)
        is_own = shape.is_made_here(layout, self._space)
        if wanted is None and not is_own and await self._is_ours(state):
            raise lost_record(self._collection)
        await self._check_texts(AdoptedRows(layout))
        if state.vectors[layout.slot].metric is not shape.Metric.COSINE:
            await self._check_norms(layout.slot)
        self._warn_of_replacing(state, layout)
        slot = replace(await self._new_slot(self._space, made), name=layout.slot)
        kept = None if is_own else layout.to_dict()
        await self._put_record(wanted or SpaceRecord(slots=(slot,), layout=kept))
        self._recorded(await self._describe()).require(self._space, collection=self._collection)

    async def _rebuild(self, spaces: Sequence[EmbeddingSpace]) -> dict[str, int]:
        state = await self._read_state(adopting=True)
        if not state.exists:
            raise self._not_found()
        found = self._rebuilt(state.record, await self._slots_left(state), spaces)
        pending = {
            slot.name: await self._counted(to.pending(slot.name, slot.space))
            for slot in found.slots
        }
        if found != state.record:
            await self._put_record(with_states(found, state.record, pending))
        return pending

    async def _slots_left(self, state: State) -> list[str]:
        recorded = [slot.name for slot in state.record.slots] if state.record else []
        left = [name for name in recorded if name in state.vectors]
        named = [name for name in state.vectors if is_slot_name(name)]
        if not state.rows.own or len(named) < len(state.vectors) or not await self._is_like_ours():
            return left
        return [*left, *(name for name in named if name not in left)]

    async def _is_like_ours(self) -> bool:
        """Whether points were written as those of ours are, if there are any."""
        return await self._marked() > 0 or await self._counted(models.Filter()) == 0

    async def _marked(self) -> int:
        """How many points were written as those of ours are."""
        return await self._counted(to.opposite(to.is_empty(f"{to.RESERVED}.version")))

    async def _is_ours(self, state: State) -> bool:
        """Whether a collection without a record has vectors and points as ours have."""
        named = bool(state.vectors) and all(map(is_slot_name, state.vectors))
        return named and await self._marked() > 0

    async def _rewrite(self, change: Callable[[SpaceRecord], SpaceRecord]) -> None:
        await self._change_record(
            change, lambda record: change(record).to_dict() == record.to_dict()
        )

    async def _check_texts(self, rows: AdoptedRows) -> None:
        """:class:`InvalidInput` for a key of texts that no point has, if there are points."""
        if await self._counted(rows.has_text()) == 0 < await self._counted(models.Filter()):
            raise InvalidInput(
                f"Layout.text names the key {excerpt(rows.layout.text)}, which no point of collection "
                f"{excerpt(self._collection)} has; name the one that texts are under (--text)"
            )

    async def _check_norms(self, slot: str) -> None:
        """:class:`InvalidInput` if a vector is not of unit norm."""
        async for points in self._pages(to.has_vector(slot), Read(keys=(), vectors=(slot,))):
            for point in points:
                norm = _norm(point.vectors[slot])
                if abs(norm - 1.0) > 1e-3:
                    raise InvalidInput(
                        f"vector {excerpt(slot)} of point {excerpt(str(point.id))} has norm {norm:.6g}, "
                        f"and {self._space} is normalized: its scores would be no cosines; bring the "
                        "points to unit norm, or copy them into a collection that compares by Cosine"
                    )

    async def _put_record(self, record: SpaceRecord) -> None:
        check_distinct_ids(slot.space for slot in record.slots)
        await self._ask(
            lambda client: client.update_collection(
                self._collection, metadata={to.RECORD: record.to_dict()}
            )
        )

    async def _change_record(
        self,
        change: Callable[[SpaceRecord], SpaceRecord],
        is_done: Callable[[SpaceRecord], bool],
    ) -> None:
        """Change the record until it says what it should.

        Qdrant cannot write metadata on condition. Of two that change it at once the later write
        wins, and the other sees it when it looks again. One that looks between the two writes does
        not: it looks twice, a moment apart, and what remains is a writer slower than that. Then a
        slot is in the collection and not in the record, and :meth:`add_slot` again mends it.
        """
        for _ in range(ATTEMPTS):
            record = self._recorded(await self._describe())
            if not is_done(record):
                await self._put_record(change(record))
                continue
            await asyncio.sleep(POLL_SECONDS)
            if is_done(self._recorded(await self._describe())):
                return
        raise StoreUnavailable(
            f"the record of collection {excerpt(self._collection)} is changed by others all the time; "
            "try again"
        )

    # Writing

    def _check_row(self, document: Document) -> None:
        if self._state is not None and self._state.exists:
            self._state.rows.check_document(document)

    async def _existing(self, ids: Sequence[str]) -> set[str]:
        state = await self._known_to_exist()
        return {state.rows.id_of(point) for point in await self._points(state, ids)}

    async def _points(self, state: State, ids: Sequence[str], read: Read = to.WHOLE) -> list[Point]:
        """The points of these documents: each is one of them by the id in its payload too."""
        wanted = set(ids)
        natives = [native for id in wanted if (native := state.rows.native(id)) is not None]
        found: list[Point] = []
        for part in _parts(natives, POINTS_PER_READ):
            found += await self._transport.retrieve(self._collection, part, read)
        if not state.rows.has_native_ids:
            for some in _parts(sorted(wanted), IDS_PER_REQUEST):
                async for page in self._pages(state.rows.selected(some), read):
                    found += page
        return [point for point in found if state.rows.id_of(point) in wanted]

    async def _strangers(
        self, state: State, ids: Sequence[str], read: Read = to.WHOLE
    ) -> dict[str, Point]:
        """The points that others put in, of these names: no document's id leads to them."""
        if not state.rows.own:
            return {}
        natives = [native for id in set(ids) if (native := to.native_id(id)) is not None]
        found: list[Point] = []
        for part in _parts(natives, POINTS_PER_READ):
            found += await self._transport.retrieve(self._collection, part, read)
        return {
            str(point.id): point
            for point in found
            if state.rows.id_of(point) == str(point.id) or state.rows.is_twin(point)
        }

    async def _write(self, rows: Sequence[Row], on_conflict: OnConflict) -> Written:
        async with self._gone_explained():
            state = await self._known_to_exist()
            slot = self._slot_of(state, writing=True)
            if state.others and not state.rows.own:
                raise StoreRejected(
                    f"points of collection {excerpt(self._collection)} have vectors that would be lost "
                    f"({', '.join(map(excerpt, state.others))}: sparse, or several a point); write "
                    "such points with your own code, then the slot with pending() and fill()"
                )
            if on_conflict == "overwrite":
                return await self._replace(state, slot, rows)
            return await self._insert(state, slot, rows)

    async def _replace(self, state: State, slot: SlotRecord, rows: Sequence[Row]) -> Written:
        """Put rows in the place of those with their ids."""
        version = _token()
        before = await self._before(state, rows)
        names = _slot_names(state, slot)
        pending = 0

        def made(part: Sequence[Row]) -> Iterator[Point]:  # each is gone before the next is made
            nonlocal pending
            for row in part:
                point = self._point(state, slot, row, version, before.get(row.document.id))
                pending += not names <= point.vectors.keys()
                yield point

        async with AsyncBeside[object]() as sending:  # while the next request is made
            for part in _parts(rows, POINTS_PER_REQUEST):
                send = self._transport.upserting(self._collection, made(part))
                await sending.finished()
                await sending.start(send)
            await sending.finished()
        return Written(pending=pending)

    async def _insert(self, state: State, slot: SlotRecord, rows: Sequence[Row]) -> Written:
        """Put rows where none are, in one request: a part that is refused has inserted nothing.

        The server does not say which it left alone: who won is read back, by this write's claim.
        """
        await self._require(OLDEST_INSERT_ONLY, what='on_conflict other than "overwrite"')
        version = _token()
        points = [self._point(state, slot, row, version, None) for row in rows]
        for point in points:
            point.payload.setdefault(to.SLOTS, {}).setdefault(slot.space.id, {})["claim"] = version
        mode = models.UpdateMode.INSERT_ONLY
        await self._transport.upserting(self._collection, points, mode=mode)()
        read = Read(keys=(to.SLOTS,))
        found = await self._transport.retrieve(self._collection, [p.id for p in points], read)
        mine = {point.id for point in found if SlotData.of(point, slot.space).claim == version}
        lost = [row.document.id for row, p in zip(rows, points, strict=True) if p.id not in mine]
        names = _slot_names(state, slot)
        pending = sum(p.id in mine and not names <= p.vectors.keys() for p in points)
        return Written(frozenset(lost), pending)

    async def _require(self, oldest: tuple[int, int], *, what: str) -> None:
        version = await self._transport.version()
        if version < oldest:
            shown = ".".join(map(str, version))
            raise StoreRejected(
                f"{what} needs Qdrant {oldest[0]}.{oldest[1]} or newer, and this is {shown}; update it"
            )

    async def _before(self, state: State, rows: Sequence[Row]) -> dict[str, Point]:
        """The stored points, where an upsert would drop something of them that is to stay."""
        if len(state.vectors) < 2 and not state.rows.keeps_others:
            return {}
        read = Read(vectors=tuple(state.vectors))
        found = await self._points(state, [row.document.id for row in rows], read)
        return {state.rows.id_of(point): point for point in found}

    def _point(
        self, state: State, slot: SlotRecord, row: Row, version: str, before: Point | None
    ) -> Point:
        """A row as a point, with what it keeps of the one before."""
        document = row.document
        made = to.source_of(document.id, document.embedded_text)
        vectors: dict[str, Vector] = {}
        slots: dict[str, dict[str, Any]] = {}
        if row.vector is not None:
            vectors[slot.name] = _direction(row.vector, slot.space)
            slots[slot.space.id] = _slot_data(slot.space, row.vector, made)
        for space, vector in row.mirrored.items():
            vectors[slot_name(state, space)] = _direction(vector, space)
            slots[space.id] = _slot_data(space, vector, made)
        if before is not None:
            without = {slot.space, *row.mirrored}
            kept, of_slots = self._kept(state, document, before, without=without)
            vectors, slots = {**kept, **vectors}, {**of_slots, **slots}
        if not state.rows.own:
            slots.pop(slot.space.id, None)  # of a slot that others write to, a source would lie
        payload = _others_of(state, before)
        payload |= state.rows.payload(document, row.metadata, version)
        if slots:
            payload[to.SLOTS] = slots
        return Point(id=_native(state, document), payload=payload, vectors=vectors)

    def _kept(
        self, state: State, document: Document, before: Point, *, without: set[EmbeddingSpace]
    ) -> tuple[dict[str, Vector], dict[str, dict[str, Any]]]:
        """The vectors of other slots that are still of this text, and those of no slot."""
        made = to.source_of(document.id, document.embedded_text)
        recorded = state.record.slots if state.record else ()
        vectors = dict(before.vectors)
        slots: dict[str, dict[str, Any]] = {}
        for slot in recorded:
            vector = vectors.pop(slot.name, None)
            data = SlotData.of(before, slot.space)
            is_fresh = data.source == made or (
                slot.name != slot.space.id and state.rows.text_of(before) == document.embedded_text
            )
            if vector is not None and is_fresh and slot.space not in without:
                vectors[slot.name] = vector
                slots[slot.space.id] = data.to_dict()
        return vectors, slots

    async def _written(self) -> None:
        """Make the payload's indexes, or end a deferral or a haste, where nobody is left to do it."""
        state = self._state
        if state is None or not state.rows.own or self._transport.kind == "local":
            return
        if not state.indexes_payload:
            await self._index_payload()
        if self._index.kind == "flat" or self._index.build == "manual":
            return
        wanted = shape.threshold_of(self._index) or shape.USUAL
        left_over = state.threshold == shape.DEFERRED or (
            state.threshold == shape.AT_ONCE and state.is_built
        )
        if left_over and state.threshold != wanted:
            await self._set_threshold(wanted)

    async def update_metadata(
        self,
        changes: Mapping[str, Metadata] | Metadata,
        *,
        where: Filter | None = None,
        merge: bool = False,
    ) -> int:
        """Replace metadata by id, or with ``where`` give one object to all that pass.

        With ``merge`` the given keys are set and all others stay. Nothing is embedded. Returns how
        many documents were changed; unknown ids change nothing. A document that is written
        meanwhile is read again, so that no change is lost.
        """
        patches = {id: decode_metadata(data) for id, data in check_changes(changes, where).items()}
        state = await self._current()
        async with self._gone_explained():
            if where is not None:
                return await self._patch_all(state, patches[""], where, merge=merge)
            changed = 0
            for part in _parts(sorted(patches), POINTS_PER_READ):
                wanted = {id: patches[id] for id in part if patches[id] or not merge}
                points = await self._points(state, list(wanted))
                changed += await self._patch(state, points, wanted.__getitem__, merge=merge)
            return changed

    async def _patch_all(self, state: State, patch: Metadata, where: Filter, *, merge: bool) -> int:
        condition = state.rows.condition(where)
        if merge and not patch:
            return 0
        changed = 0
        async for points in self._pages(condition):
            changed += await self._patch(
                state, points, lambda _: patch, merge=merge, condition=condition
            )
        return changed

    async def _patch(
        self,
        state: State,
        points: Sequence[Point],
        patch_of: Callable[[str], Metadata],
        *,
        merge: bool,
        condition: models.Filter | None = None,
    ) -> int:
        """Change points that are as read; those that are not are read again. How many were changed."""
        rows, changed = state.rows, 0
        left: Sequence[Point] = points
        for _ in range(ATTEMPTS):
            if not left:
                return changed
            version = _token()
            operations = [
                rows.changed(point, patch_of(rows.id_of(point)), version, merge=merge).operation()
                for point in left
            ]
            await self._operate(operations)
            found = await self._transport.retrieve(self._collection, [point.id for point in left])
            left = [point for point in found if not rows.is_changed(point, version)]
            changed += len(found) - len(left)
            left = await self._still(left, condition)
        raise StoreUnavailable(
            f"{len(left)} document(s) are written by others all the time; try again"
        )

    async def _still(
        self, points: Sequence[Point], condition: models.Filter | None
    ) -> Sequence[Point]:
        """Those of some points that pass a condition now."""
        if not points or condition is None:
            return points
        ids = to.among([point.id for point in points])
        found, _ = await self._transport.scroll(
            self._collection, to.every(condition, ids), limit=len(points)
        )
        return found

    async def _operate(self, operations: Sequence[models.SetPayloadOperation]) -> None:
        for part in _parts(operations, POINTS_PER_REQUEST):
            await self._transport.operate(self._collection, part)

    async def delete(
        self,
        *,
        ids: Sequence[str] | None = None,
        where: Filter | None = None,
        parent: str | None = None,
    ) -> int:
        """Delete what passes every selector given; how many that were just before.

        At least one is needed; everything is ``where=everything``. A point that has another document's id
        is deleted by its own, as a string.
        """
        check_selectors(ids, where, parent)
        state = await self._current()
        rows = state.rows
        chosen = rows.condition(where)
        if parent is not None:
            chosen = to.every(chosen, rows.of_parent(parent))
        async with self._gone_explained():
            if ids is None:
                return await self._delete(chosen)
            done = sum(
                [
                    await self._delete(to.every(chosen, rows.selected(part)))
                    for part in _parts(list(ids), IDS_PER_REQUEST)
                ]
            )
            if done == len(set(ids)):
                return done
            others = [point.id for point in (await self._strangers(state, ids)).values()]
            return done + sum(
                [
                    await self._delete(to.every(chosen, to.among(part)))
                    for part in _parts(others, IDS_PER_REQUEST)
                ]
            )

    async def _delete(self, condition: models.Filter) -> int:
        found = await self._counted(condition)
        if found:
            selector = models.FilterSelector(filter=condition)
            await self._ask(lambda client: client.delete(self._collection, selector, wait=True))
        return found

    # Reading

    async def _nearest(
        self,
        slot: SlotRecord,
        vectors: Matrix,
        *,
        limit: int,
        where: Filter | None,
        with_vectors: bool,
    ) -> list[list[Hit]]:
        async with self._gone_explained():
            state = await self._known_to_exist()  # others may have dropped what was there
            stored = state.vectors[slot.name]
            condition = state.rows.condition(where)
            searches = [
                to.Search(
                    vector=_direction(vector, slot.space), slot=slot.name, limit=limit,
                    condition=condition,
                    params=stored.search_params(), with_vectors=with_vectors,
                )
                for vector in vectors
            ]  # fmt: skip
            found: list[list[Point]] = []
            for part in _parts(searches, max(1, FLOATS_PER_SEARCH // stored.size)):
                found += await self._transport.query(self._collection, part)
        return [self._hits(state, slot, stored, points) for points in found]

    def _hits(
        self, state: State, slot: SlotRecord, stored: shape.VectorShape, points: Sequence[Point]
    ) -> list[Hit]:
        hits = [
            Hit(document, stored.score(point.score), _vector(point, slot))
            for document, point in zip(self._documents(state, points), points, strict=True)
        ]
        hits.sort(key=lambda hit: hit.score, reverse=True)
        return hits

    def _documents(
        self, state: State, points: Sequence[Point], slot: SlotRecord | None = None
    ) -> list[Document]:
        rows = state.rows
        text = rows.layout.text if rows.layout is not None else None
        if callable(text):
            texts = looked_up(text, [rows.id_of(point) for point in points])
        else:
            texts = [rows.text_of(point) for point in points]
        return [
            rows.document(point, text, None if slot is None else _vector(point, slot))
            for point, text in zip(points, texts, strict=True)
        ]

    async def get(self, ids: Sequence[str], *, with_vectors: bool = False) -> list[Document]:
        """The documents with these ids, in that order; ids that are not stored are left out."""
        check_ids(ids)
        async with self._gone_explained():
            state, slot, read = await self._reading(with_vectors=with_vectors)
            points = await self._points(state, ids, read)
            few = len(points) < len(set(ids))
            others = await self._strangers(state, ids, read) if few else {}
            points += others.values()
            if slot is not None and any(slot.name not in point.vectors for point in points):
                await self._current(writing=False)  # local mode gives what is left of a slot
        documents = self._documents(state, points, slot)
        named = zip(others, documents[len(points) - len(others) :], strict=True)
        found = {name: replace(document, id=name) for name, document in named}
        found |= {each.id: each for each in documents[: len(points) - len(others)]}
        return [found[id] for id in ids if id in found]

    async def _reading(self, *, with_vectors: bool) -> tuple[State, SlotRecord | None, Read]:
        """What is known, the slot whose vectors are wanted, and what to ask for."""
        state = await self._known_to_exist()
        if not with_vectors:
            return state, None, to.WHOLE
        slot = self._slot_of(state, writing=False)
        return state, slot, Read(vectors=(slot.name,))

    async def count(self, where: Filter | None = None) -> int:
        """How many documents pass."""
        check_filter(where)
        async with self._gone_explained():
            state = await self._known_to_exist()
            return await self._counted(state.rows.condition(where))

    async def scan(
        self, *, where: Filter | None = None, batch_size: int = 500, with_vectors: bool = False
    ) -> AsyncIterator[Document]:
        """Every document that passes, in the order of points' ids; one present throughout comes once."""
        check_filter(where)
        check_limit(batch_size, what="batch_size")
        start: PointId | None = None
        while True:
            async with self._gone_explained():
                state, slot, read = await self._reading(with_vectors=with_vectors)
                points, start = await self._transport.scroll(
                    self._collection,
                    state.rows.condition(where),
                    limit=batch_size,
                    start=start,
                    read=read,
                )
            for document in self._documents(state, points, slot):
                yield document
            if start is None:
                return

    async def _pages(
        self, condition: models.Filter, read: Read = to.WHOLE
    ) -> AsyncIterator[list[Point]]:
        """All points that pass, some at a time."""
        start: PointId | None = None
        while True:
            points, start = await self._transport.scroll(
                self._collection, condition, limit=POINTS_PER_READ, start=start, read=read
            )
            yield points
            if start is None:
                return

    async def values(
        self,
        field: str | Field,
        *,
        where: Filter | None = None,
        limit: int = 100,
        after: Any = None,
    ) -> list[tuple[Any, int]]:
        """The distinct values of a metadata field with their number of documents.

        A document with a list counts for each of its elements. Ordered by type, then by value;
        ``after`` goes on behind the last value seen. Every document that passes is read.
        """
        check_filter(where)
        check_limit(limit)
        target, path = target_of(field)
        if after is not None:
            encode_value(after, what="after")
        counted = Values(target, path)
        async with self._gone_explained():
            state = await self._known_to_exist()
            async for points in self._pages(state.rows.condition(where)):
                for point in points:
                    counted.add(state.rows.document(point, ""))
        return counted.listed(limit=limit, after=after)

    # Slots

    async def add_slot(
        self,
        space: EmbeddingSpace,
        *,
        canary: Canary | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> None:
        """Add an empty slot for ``space`` to the same points, to be filled.

        The only method that alters a collection we did not make: it adds a vector's name. Fills
        leave the key ``samespace_slots`` in the payload of what they fill.
        """
        check_fit(canary, check_space(space))
        check_provenance(provenance)
        canary = canary or await self._own_canary(space)
        slot = await self._empty_slot(space, canary, provenance)
        record = self._recorded(await self._describe())
        if record.find(space) is not None:
            return
        check_distinct_ids([space, *(other.space for other in record.slots)])
        await self._require(OLDEST_SLOTS, what="a second slot")
        await self._create_vector(slot)
        await self._change_record(
            lambda record: record.with_slot(slot), lambda record: record.find(space) is not None
        )

    async def _create_vector(self, slot: SlotRecord) -> None:
        """Doing it again is no error."""
        config = shape.dense_config(slot.space, self._index)
        await self._ask(
            lambda client: client.create_vector_name(self._collection, slot.name, config, wait=True)
        )
        diff = {slot.name: shape.vector_diff(self._index)}
        await self._ask(
            lambda client: client.update_collection(self._collection, vectors_config=diff)
        )
        if self._transport.kind != "local":
            await self._until_known(slot)

    async def _until_known(self, slot: SlotRecord) -> None:
        """Wait for segments that were being rebuilt when a vector was added: a search asks them all."""
        search = to.Search(
            vector=np.ones(slot.space.dimensions, np.float32),
            slot=slot.name,
            limit=1,
            condition=models.Filter(),
            params=models.SearchParams(),
            with_vectors=False,
        )
        for _ in range(ATTEMPTS):
            with suppress(Behind):
                await self._transport.query(self._collection, [search])
                return
        await self._transport.query(self._collection, [search])

    async def drop_slot(
        self, space: EmbeddingSpace, *, keeps: EmbeddingSpace | None = None
    ) -> None:
        """Remove the slot of ``space`` and its vectors; the last slot cannot go.

        ``keeps`` is the space of the slot that rows go on with: :class:`~samespace.errors.MigrationError`,
        and nothing is dropped, while one has a vector in that of ``space`` alone, looked at right
        before.

        A server removes the unnamed vector over gRPC alone.
        """
        check_space(space)
        check_other(space, keeps, what="keeps")
        record = self._recorded(await self._describe())
        slot = record.require(space, collection=self._collection)
        record.without(space)
        await self._require(OLDEST_SLOTS, what="dropping a slot")
        if not slot.name and self._transport.kind == "rest":
            raise InvalidInput(
                "Qdrant removes the unnamed vector over gRPC alone; open the collection with "
                "grpc_port= (QDRANT_GRPC_PORT; 6334, where nothing else is configured)"
            )
        await self._check_kept(space, keeps)
        # The record first: a crash in between leaves vectors that nobody searches, which a slot
        # added again judges by their sources.
        await self._change_record(
            lambda record: record.without(space), lambda record: record.find(space) is None
        )
        await self._ask(
            lambda client: client.delete_vector_name(self._collection, slot.name, wait=True)
        )
        await self._describe()

    async def _slot_of_space(self, space: EmbeddingSpace) -> tuple[State, SlotRecord]:
        """The collection as it is now, and its slot of a space: the server would not refuse one."""
        check_space(space)
        state = await self._describe()
        return state, self._recorded(state).require(space, collection=self._collection)

    async def pending(
        self,
        space: EmbeddingSpace,
        *,
        limit: int,
        after: str | None = None,
        shard: Shard | None = None,
        where: Filter | None = None,
        with_vectors_of: EmbeddingSpace | None = None,
    ) -> tuple[list[VersionedRow], str | None]:
        """The next rows in the order of points' ids whose slot is empty, and the cursor to go on from.

        ``shard`` is ``(i, n)``, the i-th of n disjoint parts; then a page may have fewer rows than
        there are to come. The cursor is None at the end.
        """
        check_page(limit, after, shard, where, with_vectors_of)
        start = _start(after)
        async with self._gone_explained():
            state, slot = await self._slot_of_space(space)
            other = (await self._slot_of_space(with_vectors_of))[1] if with_vectors_of else None
            names = {slot.name, *([other.name] if other else [])}
            condition = to.every(to.pending(slot.name, space), state.rows.condition(where))
            points, following = await self._transport.scroll(
                self._collection,
                condition,
                limit=limit,
                start=start,
                read=Read(vectors=tuple(sorted(names))),
            )
        mine = [point for point in points if _is_in(shard, point.id)]
        cursor = None if following is None else str(points[-1].id)
        rows = self._versioned_rows(state, slot, mine, other)
        return rows if other is None else _vouched(rows, mine, other), cursor

    async def filled(
        self,
        space: EmbeddingSpace,
        *,
        limit: int,
        after: str | None = None,
        shard: Shard | None = None,
        where: Filter | None = None,
    ) -> tuple[list[VersionedRow], str | None]:
        """The next rows that have a vector in the slot, with that vector, and the cursor to go on from.

        In the order of points' ids. ``shard`` is ``(i, n)``, the i-th of n disjoint parts; then a page
        may have fewer rows than there are to come. The cursor is None at the end.
        """
        check_page(limit, after, shard, where, None)
        start = _start(after)
        async with self._gone_explained():
            state, slot = await self._to_read(space)
            points, following = await self._transport.scroll(
                self._collection,
                to.every(to.has_vector(slot.name), state.rows.condition(where)),
                limit=limit,
                start=start,
                read=Read(vectors=(slot.name,)),
            )
        mine = [point for point in points if _is_in(shard, point.id)]
        cursor = None if following is None else str(points[-1].id)
        return self._versioned_rows(state, slot, mine, slot), cursor

    async def sample(
        self, space: EmbeddingSpace, *, size: int, where: Filter | None = None
    ) -> list[VersionedRow]:
        """At most ``size`` rows that have a vector in the slot, with that vector, drawn at random.

        Without replacement, in an order that is random as well: the first of them are a sample too.
        """
        check_limit(size, what="size")
        check_filter(where)
        async with self._gone_explained():
            state, slot = await self._to_read(space)
            passing = to.every(to.has_vector(slot.name), state.rows.condition(where))
            drawn = await self._ask(
                lambda client: client.query_points(
                    self._collection,
                    query=models.SampleQuery(sample=models.Sample.RANDOM),
                    query_filter=passing,
                    limit=size,
                    with_payload=False,
                )
            )
            read = Read(vectors=(slot.name,))
            found: list[Point] = []
            ids = [point.id for point in drawn.points]
            for part in _parts(ids, POINTS_PER_READ):
                found += await self._transport.retrieve(self._collection, part, read)
        place = {str(id): number for number, id in enumerate(ids)}
        found.sort(key=lambda point: place[str(point.id)])
        held = [point for point in found if slot.name in point.vectors]
        return self._versioned_rows(state, slot, held, slot)

    async def _to_read(self, space: EmbeddingSpace) -> tuple[State, SlotRecord]:
        """The collection as it is now, and its slot of a space: claimed, where it has no record."""
        return await self._slot_to_read(space)

    async def stale(
        self, space: EmbeddingSpace, *, since: str | None = None, limit: int
    ) -> tuple[list[VersionedRow], str | None]:
        """The next rows whose vector was made from another text than they have now.

        Only vectors with a source can be judged, those of slots made here; ``since`` is the cursor
        of the last call. Every such row is read.
        """
        check_limit(limit)
        check_cursor(since)
        start = _start(since)
        async with self._gone_explained():
            state, slot = await self._slot_of_space(space)
            if slot.name != space.id or callable(state.layout.text if state.layout else None):
                return [], None
            fresh_or_stale = to.opposite(to.pending(slot.name, space))
            found: list[Point] = []
            while True:
                points, start = await self._transport.scroll(
                    self._collection, fresh_or_stale, limit=POINTS_PER_READ, start=start
                )
                for point in points:
                    if _is_stale(state, space, point):
                        found.append(point)
                        if len(found) == limit:
                            return self._stale_rows(state, slot, found), str(point.id)
                if start is None:
                    return self._stale_rows(state, slot, found), None

    def _versioned_rows(
        self,
        state: State,
        slot: SlotRecord,
        points: Sequence[Point],
        other: SlotRecord | None = None,
        *,
        has_vector: bool | None = None,
    ) -> list[VersionedRow]:
        return [
            VersionedRow(
                document=document,
                version=_version(point, slot, has_vector=has_vector),
                vector=_vector(point, other) if other else None,
                key=str(point.id) if state.rows.is_twin(point) else "",
                native_id="" if state.rows.has_native_ids else str(point.id),
            )
            for document, point in zip(self._documents(state, points), points, strict=True)
        ]

    def _stale_rows(
        self, state: State, slot: SlotRecord, points: Sequence[Point]
    ) -> list[VersionedRow]:
        return self._versioned_rows(state, slot, points, has_vector=True)

    async def fill(
        self, space: EmbeddingSpace, rows: Sequence[VersionedRow], vectors: Matrix
    ) -> FillReport:
        """Write vectors, shape ``(len(rows), dimensions)``, into rows that are still what was read."""
        check_pending(rows)
        checked = checked_matrix(vectors, space, len(rows))
        if not rows:
            return FillReport(filled=0, changed=0)
        filled = 0
        async with self._gone_explained():
            state, slot = await self._slot_of_space(space)
            for part in _parts(list(zip(rows, checked, strict=True)), POINTS_PER_FILL):
                filled += await self._fill(state, slot, [_Filling.of(*pair) for pair in part])
        return FillReport(filled=filled, changed=len(rows) - filled)

    async def _fill(self, state: State, slot: SlotRecord, batch: Sequence[_Filling]) -> int:
        """Claim the rows that are as read, write vectors where the claim holds, then the sources.

        Vector and source cannot be written in one request. A vector alone could be marked fresh by
        another filler's source, a source alone could mark an old vector; so what stands there
        before the source is this claim's vector or none.
        """
        space, claim = slot.space, _token()
        claimed = to.claimed(space, claim)
        ids = to.among([each.id for each in batch])
        as_read = to.any_of([each.as_read(state, slot) for each in batch])
        unmade = {"claim": claim, "source": None, "norm": None}
        await self._ask(
            lambda client: client.set_payload(
                self._collection, unmade, points=as_read, key=to.slot_key(space), wait=True
            )
        )
        if any(each.had_vector for each in batch):
            await self._ask(
                lambda client: client.delete_vectors(
                    self._collection, [slot.name], points=to.every(claimed, ids), wait=True
                )
            )
        same_text = to.any_of([each.same_text(state) for each in batch])
        points = [
            Point(each.id, vectors={slot.name: _direction(each.vector, space)}) for each in batch
        ]
        await self._transport.update_vectors(self._collection, points, to.every(claimed, same_text))
        made = to.every(claimed, to.has_vector(slot.name))
        if slot.name == space.id:
            await self._operate([each.stamp(space, made) for each in batch])
            made = to.every(made, to.has_source(space))
        return await self._counted(to.every(ids, made))

    # Index

    def _is_indexed(self, state: State, space: EmbeddingSpace) -> bool:
        stored = state.vectors.get(slot_name(state, space))
        return stored is not None and stored.in_graph and state.is_built

    async def build_index(self, space: EmbeddingSpace | None = None, *, wait: bool = True) -> None:
        """Have the HNSW graph of a slot built, whatever its size; the payload's indexes too.

        Returns once all vectors are in it, unless ``wait`` is false. Qdrant builds the graphs of
        all slots together. Local mode has none, so that there is nothing to do.
        """
        if self._index.kind != "hnsw":
            raise InvalidInput('Index.kind is "flat": there is nothing to build')
        state, slot = await self._slot_of_space(self._space if space is None else space)
        if self._transport.kind == "local":
            return
        if not state.vectors[slot.name].in_graph:
            raise InvalidInput(
                f"slot {excerpt(slot.name)} was made with a flat index: there is nothing to build"
            )
        if state.rows.own:
            await self._index_payload()
        await self._set_threshold(shape.AT_ONCE)
        if not wait:
            return
        try:
            await self._until_built()
        finally:
            usual = state.threshold not in {None, shape.DEFERRED, shape.AT_ONCE}
            before = state.threshold if usual else shape.USUAL
            await self._set_threshold(shape.threshold_of(self._index) or before or shape.USUAL)
        await self._describe()

    async def _set_threshold(self, kilobytes: int) -> None:
        diff = models.OptimizersConfigDiff(indexing_threshold=kilobytes)
        await self._ask(
            lambda client: client.update_collection(self._collection, optimizers_config=diff)
        )

    async def _until_built(self) -> None:
        """Wait until as many vectors are indexed as there are; a green light comes before that."""
        idle, indexed = 0, -1
        while idle < IDLE_POLLS:
            state = await self._describe()
            if state.failed:
                raise StoreUnavailable(
                    f"Qdrant has failed on collection {excerpt(self._collection)}; look at its log, mend "
                    "what it says, and call build_index() again"
                )
            rest = await self._unindexed(state)
            if state.settled and (rest == 0 or (rest < SMALL_REST and idle >= SETTLED_POLLS)):
                return
            idle = idle + 1 if state.indexed == indexed and state.settled else 0
            indexed = state.indexed
            await asyncio.sleep(POLL_SECONDS)
        raise StoreUnavailable(
            f"{indexed} vectors of collection {excerpt(self._collection)} are indexed, and Qdrant does "
            "not go on; look at its log, and call build_index() again"
        )

    async def _unindexed(self, state: State) -> int:
        """How many bytes of vectors are to be indexed, at least."""
        rest = -state.indexed
        largest = 0
        for name, stored in state.vectors.items():
            if stored.in_graph:
                rest += await self._counted(to.has_vector(name))
                largest = max(largest, stored.size)
        return max(0, rest) * largest * 4

    def forecast(
        self, space: EmbeddingSpace, info: CollectionInfo, index: Index | None = None
    ) -> SlotForecast:
        """What a slot of ``space`` would need here, and what others may notice; asks no server."""
        return forecast(check_space(space), info, index or self._index)

    def client_changes(self, source: str, target: str) -> tuple[ClientChange, ...]:
        """What a client that names a named vector by itself changes to name another; asks no server."""
        return exposing.client_changes(source, target)

    async def grants(self, part: Part, *, to: str) -> str:
        """The claims of a token that lets its bearer be a reader, writer or migrator."""
        known_part(part)
        check_identifier(to, what="to")  # a token has no name, but this is one argument everywhere
        await self._current()
        if self._transport.kind == "local":
            return rights.LOCAL
        return rights.grants(self._collection, part)

    # Raw writers

    async def guard_check(self) -> tuple[RawWrite, ...]:
        """What becomes of writes that go around this library, in the collection as it is now."""
        state = await self._current(writing=False)
        slot = self._slot_of(state, writing=False)
        return hardening.raw_writes(state, slot, is_local=self._transport.kind == "local")

    async def guard_install(self, *, dry_run: bool = False) -> tuple[Change, ...]:
        """Nothing, for the reason that :attr:`guard_limit` says."""
        del dry_run  # there is nothing to do either way
        await self._current()
        return ()

    async def guard_remove(self, *, dry_run: bool = False) -> tuple[Change, ...]:
        """Nothing, as :meth:`guard_install` adds nothing."""
        del dry_run
        await self._current()
        return ()


@dataclass(frozen=True, slots=True)
class _Filling:
    """A row that is to be filled, as it was read, and its vector."""

    id: PointId
    document: Document
    had_vector: bool
    data: SlotData
    vector: Vector

    @classmethod
    def of(cls, row: VersionedRow, vector: Vector) -> _Filling:
        """From what :meth:`pending` said of the row."""
        try:
            id, had_vector, source, claim = orjson.loads(row.version)
        except (ValueError, TypeError) as error:
            raise InvalidInput(
                f"the version of row {excerpt(row.document.id)} is not from this store; pass rows that "
                "pending(), filled(), sample() or stale() returned"
            ) from error
        return cls(id, row.document, had_vector, SlotData(source=source, claim=claim), vector)

    def same_text(self, state: State) -> models.Filter:
        """Where the row is there, and its text is as read."""
        return to.every(to.among([self.id]), state.rows.text_is(self.document))

    def as_read(self, state: State, slot: SlotRecord) -> models.Filter:
        """Where text and slot of the row are as read."""
        has_vector = to.has_vector(slot.name)
        return to.every(
            self.same_text(state),
            to.as_read(self.data, slot.space),
            has_vector if self.had_vector else to.opposite(has_vector),
        )

    def stamp(self, space: EmbeddingSpace, condition: models.Filter) -> models.SetPayloadOperation:
        """The source of the vector, where a condition holds."""
        made = to.source_of(self.document.id, self.document.embedded_text)
        return to.Change(
            payload=_slot_data(space, self.vector, made),
            condition=to.every(to.among([self.id]), condition),
            key=to.slot_key(space),
        ).operation()


def _version(point: Point, slot: SlotRecord, *, has_vector: bool | None) -> bytes:
    """What :class:`_Filling` has to know of a row."""
    data = SlotData.of(point, slot.space)
    had = slot.name in point.vectors if has_vector is None else has_vector
    return orjson.dumps([point.id, had, data.source, data.claim])


def _slot_names(state: State, slot: SlotRecord) -> set[str]:
    """The slots without one of which a point is pending."""
    return {other.name for other in (state.record.slots if state.record else (slot,))}


def _norm(vector: Vector) -> float:
    return float(np.linalg.norm(vector.astype(np.float64)))


def _direction(vector: Vector, space: EmbeddingSpace) -> Vector:
    """A vector as it is sent: the server takes one shorter than 3e-4 for zero, and leaves it so."""
    if space.normalized:
        return vector
    unit: Vector = (vector.astype(np.float64) / _norm(vector)).astype(np.float32)
    return unit


def _slot_data(space: EmbeddingSpace, vector: Vector, made: str) -> dict[str, Any]:
    """What is kept of a slot that is written with this vector, as :class:`SlotData` has it."""
    return {"source": made} if space.normalized else {"source": made, "norm": _norm(vector)}


def _vector(point: Point, slot: SlotRecord) -> Vector | None:
    """The vector of a slot as it was written; Qdrant keeps its direction."""
    vector = point.vectors.get(slot.name)
    norm = SlotData.of(point, slot.space).norm
    return vector if vector is None or norm is None else vector * np.float32(norm)


def _vouched(
    rows: Sequence[VersionedRow], points: Sequence[Point], slot: SlotRecord
) -> list[VersionedRow]:
    """Rows with the vectors of a slot that are of the texts read with them."""
    return [
        vouched(row, SlotData.of(point, slot.space).source, always=slot.name == slot.space.id)
        for row, point in zip(rows, points, strict=True)
    ]


def _is_stale(state: State, space: EmbeddingSpace, point: Point) -> bool:
    document = state.rows.document(point, state.rows.text_of(point))
    made = to.source_of(document.id, document.embedded_text)
    return SlotData.of(point, space).source != made


def _others_of(state: State, before: Point | None) -> dict[str, Any]:
    """What a stored point has beside the document that is to replace it."""
    rows = state.rows
    if before is None or not isinstance(rows, AdoptedRows):
        return {}
    return {key: value for key, value in before.payload.items() if not rows.is_replaced(key)}


def _native(state: State, document: Document) -> PointId:
    native = state.rows.native(document.id)
    assert native is not None  # noqa: S101  check_document has looked
    return native


def _start(cursor: str | None) -> PointId | None:
    """Where to go on behind a cursor."""
    if cursor is None:
        return None
    native = to.native_id(cursor)
    if native is None:
        raise InvalidInput(
            f"the cursor {excerpt(cursor)} is no id of a point; pass what the last call returned"
        )
    return to.after(native)


def _is_in(shard: Shard | None, id: PointId) -> bool:
    """Whether a point is of this part."""
    if shard is None:
        return True
    number = id if isinstance(id, int) else uuid.UUID(id).int
    return number % shard[1] == shard[0]


def _token() -> str:
    """What tells one write from all others."""
    return secrets.token_hex(8)


def _parts(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
