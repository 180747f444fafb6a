"""Collections in Elasticsearch: :class:`AsyncElasticsearchStore`."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from functools import partial
from typing import Any, ClassVar, Final
from urllib.parse import quote

import numpy as np
import orjson
from elasticsearch import AsyncElasticsearch

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
    SamespaceError,
    SpaceUnknown,
    StoreRejected,
    StoreUnavailable,
    excerpt,
)
from samespace.filters import Field, Filter, In, Target, check_filter, target_of
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
from samespace.rebuilding import with_states
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
    logger,
    read_drawn_async,
)
from samespace.stores.elasticsearch import dsl, exposing, hardening, positions, rights
from samespace.stores.elasticsearch.conditions import Query, condition, every, exists
from samespace.stores.elasticsearch.dsl import Operation, Version, operation
from samespace.stores.elasticsearch.faults import Expired, Overtaken, Taken, of_documents, of_row
from samespace.stores.elasticsearch.forecast import forecast
from samespace.stores.elasticsearch.pipelines_async import (
    forget_pipeline,
    install,
    is_guarded,
    read_index,
    refresh_pipeline,
    uninstall,
)
from samespace.stores.elasticsearch.shape import (
    Shape,
    check_layout,
    own_layout,
    put,
    remove,
    shows_a_part,
    value_at,
)
from samespace.stores.elasticsearch.transport_async import (
    IN_MOTION,
    IN_THE_WAY,
    AsyncTransport,
    Outcome,
    access,
)
from samespace.stores.guarded_async import AsyncGuardedStore, looked_up, slot_name
from samespace.stores.refusals import Gone
from samespace.stores.sources import vouched
from samespace.stores.values import Values
from samespace.vectors import faults

ATTEMPTS: Final = 20
PAGE: Final = 500
DELETED_AT_ONCE: Final = 10_000
KEEP_ALIVE: Final = "5m"
_SEARCH: Final = "_search?allow_partial_search_results=false"
SearchHit = Mapping[str, Any]
_Vectors = Mapping[str, Mapping[str, Any]]
"""Vectors as they are sent, by id and slot."""


@dataclass(frozen=True, slots=True)
class _State:
    """What is known of a collection: its index if it exists, its record if it has one."""

    shape: Shape | None
    record: SpaceRecord | None
    version: Version
    read_at: float
    ready: list[SlotRecord] = dataclass_field(default_factory=list)

    @property
    def exists(self) -> bool:
        """Whether there is an index."""
        return self.shape is not None

    @property
    def layout(self) -> Layout | None:
        """Where things are, unless they are as we put them."""
        return None if self.shape is None or self.shape.own else self.shape.layout


class AsyncElasticsearchStore(AsyncGuardedStore[_State]):
    """One collection in Elasticsearch 8.15 or newer, guarded by its embedding space.

    ``source`` is an ``http://``, ``https://``, ``elasticsearch://`` or ``elasticsearch+https://`` URL,
    or an ``AsyncElasticsearch``; leave it out with ``cloud_id``. Credentials are ``api_key`` or
    ``basic_auth``. ``timeout`` is in seconds, for each request with all that it is sent again.
    Without ``layout`` the collection is an index of ours, created on first use; with one it is an
    index that exists, or an alias of one, read as the layout says and written once :meth:`adopt` has
    been called. ``mirrors`` are backends of further slots, which upserts fill too while the collection
    has them. ``canary_threshold`` is the smallest cosine at which a backend still counts as the one
    that filled the slot.
    """

    kind: ClassVar[str] = "elasticsearch"
    unseen_changes: ClassVar[str] = exposing.UNSEEN
    unreclaimed_space: ClassVar[str] = exposing.UNRECLAIMED

    def __init__(
        self,
        source: str | AsyncElasticsearch | None = None,
        *,
        collection: str,
        backend: AnyBackend | None = None,
        mirrors: Sequence[AnyBackend] = (),
        space: EmbeddingSpace | None = None,
        layout: Layout | None = None,
        index: Index | None = None,
        canary_threshold: float = CANARY_THRESHOLD,
        api_key: str | tuple[str, str] | None = None,
        basic_auth: str | tuple[str, str] | None = None,
        ca_certs: str | None = None,
        cloud_id: str | None = None,
        timeout: float = 60.0,
    ) -> None:
        given = access(
            source, api_key=api_key, basic_auth=basic_auth, ca_certs=ca_certs, cloud_id=cloud_id
        )
        del source, api_key, basic_auth, cloud_id  # a traceback with locals must not show them
        if isinstance(given, InvalidInput):
            raise given
        if layout is None:
            check_collection_name(collection)
        else:
            check_layout(layout)
        dsl.check_name(collection)
        super().__init__(
            collection=collection,
            space=space,
            backend=backend,
            mirrors=mirrors,
            layout=layout,
            canary_threshold=canary_threshold,
        )
        self._index = dsl.check_index(index or Index())
        self._transport = AsyncTransport(given, timeout=timeout)

    async def _disconnect(self) -> None:
        await self._transport.close()

    # What the collection is

    async def _read(self, *, adopting: bool = False) -> _State:
        return await self._read_state(adopting=adopting)

    async def _read_state(self, *, adopting: bool = False) -> _State:
        version = await self._transport.version()
        read_at = time.monotonic()
        try:
            found = await self._transport.ask("GET", f"/{quote(self._collection)}")
        except Gone:
            return _State(None, None, version, read_at)
        (name, index), *others = found.items()
        if others or index.get("data_stream"):
            raise InvalidInput(
                f"{excerpt(self._collection)} stands for several indices, or for a data stream; name one "
                "index as the collection"
            )
        mapping = index["mappings"]
        record = None if self._reads_by_claim else self._record_in(mapping, adopting=adopting)
        is_claimed = adopting and self._claimed_layout is not None
        shaped = self._shape(name, index, None if is_claimed else record)
        return _State(shaped, record, version, read_at)

    def _record_in(self, mapping: Mapping[str, Any], *, adopting: bool) -> SpaceRecord | None:
        """The record; one that cannot be read is none to who is adopting."""
        try:
            return dsl.record_of(mapping, collection=self._collection)
        except UnreadableRecord:
            if not adopting:
                raise
            return None

    def _shape(self, name: str, index: Mapping[str, Any], record: SpaceRecord | None) -> Shape:
        claimed = self._claimed_layout
        if record is not None and record.layout is not None:
            text = None if claimed is None or isinstance(claimed.text, str) else claimed.text
            layout = Layout.from_dict(dict(record.layout), text=text)
        else:
            layout = claimed if record is None and claimed else own_layout(self._space)
        return Shape(
            collection=self._collection,
            name=name,
            layout=layout,
            own=claimed is None if record is None else record.layout is None,
            mapping=index["mappings"],
            aliases=frozenset(index["aliases"]),
            is_partial=shows_a_part(index["aliases"].get(self._collection) or {}),
            shards=int(index["settings"]["index"]["number_of_shards"]),
        )

    def _holds(self, state: _State, name: str) -> bool:
        return state.shape is not None and state.shape.holds(name)

    def _has(self, state: _State, name: str) -> bool:
        return state.shape is not None and state.shape.has(name)

    def _weighs_lengths(self, state: _State, name: str) -> bool:
        field = state.shape.field(name) if state.shape is not None else None
        return field is not None and field.get("similarity") == "max_inner_product"

    def _sizes(self, state: _State) -> Mapping[str, int | None]:
        if state.shape is None or state.record is None:
            return {}
        fields = {slot.name: state.shape.field(slot.name) for slot in state.record.slots}
        return {
            name: field.get("dims")
            for name, field in fields.items()
            if field is not None and field.get("type") == "dense_vector"
        }

    def _check_claim(self, state: _State) -> None:
        if state.shape is not None:
            state.shape.check_layout(self._space)

    def _not_found(self) -> CollectionNotFound:
        return CollectionNotFound(
            f"there is no collection {excerpt(self._collection)} in Elasticsearch; check the name, or "
            "call create()"
        )

    def _lost(self, slot: SlotRecord) -> SpaceUnknown:
        return lost_slot(slot, collection=self._collection, place="field")

    def _unrecorded(self, state: _State) -> SpaceUnknown:  # noqa: ARG002  the same whatever it is
        return missing_record(self._collection, claimed=self._claims_slot)

    def _is_indexed(self, state: _State, space: EmbeddingSpace) -> bool:
        return state.shape is not None and state.shape.is_indexed(slot_name(state, space))

    async def _shaped(self) -> tuple[_State, Shape]:
        """State and index, for what concerns no vectors."""
        state = await self._known_to_exist()
        assert state.shape is not None  # noqa: S101  that is what existing means
        return state, state.shape

    def _through(self, state: _State) -> str:
        """The name by which this handle asks."""
        assert state.shape is not None  # noqa: S101  callers have looked
        return quote(state.shape.through(slot_name(state, self._space)))

    async def _for_writing(self) -> SlotRecord:
        slot = await super()._for_writing()
        state = self._state
        if state is not None and state.shape is not None and not state.shape.is_alias(slot.name):
            await self._add_alias(state, slot.name)  # lost, or whoever added the slot was stopped
            await self._describe()
        return slot

    # Creating, dropping, adopting

    async def _make(self, slot: SlotRecord) -> bool:
        dsl.check_quantization(self._index, await self._transport.version())
        record = SpaceRecord(slots=(slot,))
        body = dsl.own_index(self._collection, self._space, self._index, record)
        try:
            await self._transport.ask("PUT", f"/{quote(self._collection)}", body)
        except Taken:
            return False
        return True

    async def drop(self) -> None:
        """Remove the collection with all its slots; refused on one that was adopted, or an alias."""
        state = await self._describe()
        if state.shape is None:
            raise self._not_found()
        if not state.shape.own:
            raise InvalidInput(
                f"collection {excerpt(self._collection)} was adopted, not made here; delete the index "
                "with the tool that made it"
            )
        if state.shape.name != self._collection:
            raise InvalidInput(
                f"collection {excerpt(self._collection)} is an alias of the index "
                f"{excerpt(state.shape.name)}, of which it may show a part; drop that by its own name"
            )
        self._slot_of(state, writing=True)
        async with self._gone_explained():
            index = await read_index(self._transport, state.shape.name)
            await self._transport.ask("DELETE", f"/{quote(state.shape.name)}")
        await forget_pipeline(self._transport, index)
        self._state = None

    async def adopt(self, *, canary: bool = True) -> None:
        """Record which space an existing index holds, as this handle's layout and space claim.

        Nothing but our key of the mapping's ``_meta`` changes. With ``canary`` and a backend its
        canary is kept, so that another model under the same name is noticed. Of an index adopted
        before the layout is replaced, where it is another one of the same slot; a record that cannot
        be read, or whose fields are not there any more, is written anew, and an index of ours that
        lost its own has it again. An alias with a filter is refused: a record is of the whole index.
        :class:`SpaceMismatch` where a record names another space,
        :class:`InvalidInput` where a vector has a size or a norm that the space's cannot have; every
        row is looked at.
        """
        layout = self._layout_to_adopt()
        made = await self._own_canary(self._space) if canary else None
        state = await self._read_state(adopting=True)
        if state.shape is None:
            raise self._not_found()
        wanted = self._adopted_before(state, layout)
        if wanted is not None and wanted is state.record:
            await self._describe()
            return
        if (
            wanted is None
            and state.shape.slots_by_name()
            and not state.shape.made_here(self._space)
        ):
            raise lost_record(self._collection)
        self._check_claim(state)
        state.shape.check_whole()
        await self._check_vectors(state, state.shape)
        self._warn_of_replacing(state, layout)
        slot = replace(await self._new_slot(self._space, made), name=layout.slot)
        kept = None if state.shape.made_here(self._space) else layout.to_dict()
        await self._save(state.shape, wanted or SpaceRecord(slots=(slot,), layout=kept))
        await self._describe()

    async def _rebuild(self, spaces: Sequence[EmbeddingSpace]) -> dict[str, int]:
        for _ in range(ATTEMPTS):
            state = await self._read_state(adopting=True)
            if state.shape is None:
                raise self._not_found()
            found = self._rebuilt(state.record, await self._slots_left(state), spaces)
            pending = {
                slot.name: await self._count(
                    state,
                    dsl.is_pending(slot.name, has_source=state.shape.has_source(slot.name)),
                )
                for slot in found.slots
            }
            with suppress(Overtaken):
                if found != state.record:
                    wanted = with_states(found, state.record, pending)
                    counted = dsl.next_change(state.shape.properties, secrets.token_hex(8))
                    await self._save(state.shape, wanted, counted)
                await self._restore_aliases()
                return pending
        raise self._contended()

    async def _slots_left(self, state: _State) -> list[str]:
        """As every store's; the field of a dropped slot stays, without an alias and without vectors."""
        shape = state.shape
        assert shape is not None  # noqa: S101  callers have looked
        await self._refresh(state)
        recorded = [slot.name for slot in state.record.slots] if state.record else []
        left = [name for name in recorded if shape.holds(name)]
        more = shape.slots_by_name() if shape.own else []
        named = [name for name in more if name not in left]
        used = [
            name
            for name in named
            if shape.through(name) != shape.collection or await self._count(state, exists(name))
        ]
        return [*left, *used] or named

    async def _restore_aliases(self) -> None:
        """The aliases that handles of the slots ask through, and the pipeline that names the slots."""
        state = await self._describe()
        for slot in self._recorded(state).slots:
            await self._add_alias(state, slot.name)
        await refresh_pipeline(self._transport, self._collection)

    async def _rewrite(self, change: Callable[[SpaceRecord], SpaceRecord]) -> None:
        await self._alter(change)

    async def _check_vectors(self, state: _State, shape: Shape) -> None:
        """:class:`InvalidInput` if a row's vector cannot be of this handle's space."""
        slot = shape.layout.slot
        source = dsl.reading([slot], state.version, vectors=True)
        async for hits in self._pages(state, exists(slot), source):
            vectors: list[Vector] = []
            for hit in hits:
                vector = _vector(hit, slot)
                if vector is None:
                    raise InvalidInput(
                        f"field {excerpt(slot)} of row {excerpt(hit['_id'])} has a vector that is in a list "
                        "of objects, or not in _source, so that it cannot be kept; reindex such rows"
                    )
                vectors.append(vector)
            found = faults(np.stack(vectors), self._space) if vectors else {}
            for place, reason in found.items():
                raise InvalidInput(
                    f"field {excerpt(slot)} of row {excerpt(hits[place]['_id'])}: the vector {reason}"
                )

    async def _save(
        self, shape: Shape, record: SpaceRecord, properties: Mapping[str, Any] | None = None
    ) -> None:
        """Write the record, with new fields in the same request; other keys of ``_meta`` stay."""
        check_distinct_ids(slot.space for slot in record.slots)
        body: dict[str, Any] = {"_meta": dsl.with_record(shape.mapping.get("_meta") or {}, record)}
        if properties:
            body["properties"] = properties
        await self._transport.ask("PUT", f"/{quote(shape.name)}/_mapping", body)

    async def _alter(
        self,
        change: Callable[[SpaceRecord], SpaceRecord],
        properties: Mapping[str, Any] | None = None,
    ) -> _State:
        """Change the record as it was read; anew if somebody else has changed it meanwhile."""
        for _ in range(ATTEMPTS):
            state = await self._describe()
            record = self._recorded(state)
            wanted = change(record)
            if wanted.to_dict() == record.to_dict():
                return state
            assert state.shape is not None  # noqa: S101  a record is in an index
            missing = {
                name: each
                for name, each in (properties or {}).items()
                if name not in state.shape.properties
            }
            counted = dsl.next_change(state.shape.properties, secrets.token_hex(8))
            with suppress(Overtaken):
                async with self._gone_explained():
                    await self._save(state.shape, wanted, {**missing, **counted})
        raise self._contended()

    def _contended(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"the record of collection {excerpt(self._collection)} is changed by others all the time; "
            "try again"
        )

    # Requests

    async def _search(self, path: str, body: Mapping[str, Any]) -> list[SearchHit]:
        answer = await self._transport.ask("POST", f"{path}/{_SEARCH}", body)
        hits: list[SearchHit] = answer["hits"]["hits"]
        return hits

    async def _refresh(self, state: _State) -> None:
        """Let searches see all that was written."""
        await self._transport.ask("POST", f"/{self._through(state)}/_refresh")

    async def _pages(
        self, state: _State, query: Query, source: object, *, size: int = PAGE
    ) -> AsyncIterator[list[SearchHit]]:
        """All rows that pass, in lists: those of ours by id, others' from one snapshot."""
        assert state.shape is not None  # noqa: S101  callers have looked
        if not state.shape.own:
            async for hits in self._snapshot(state, query, source, size=size):
                yield hits
            return
        after: str | None = None
        strangers: set[str] = set()
        while True:
            async with self._gone_explained():
                hits, after = await self._page(state, query, source, size=size, after=after)
            yield [hit for hit in hits if hit["_id"] not in strangers]
            # A row without an id of ours comes again once somebody writes it.
            strangers |= {hit["_id"] for hit in hits if hit["sort"][0] is None}
            if after is None:
                return

    async def _snapshot(
        self, state: _State, query: Query, source: object, *, size: int
    ) -> AsyncIterator[list[SearchHit]]:
        """All rows that pass as they were at the beginning."""
        body = {
            "size": size, "query": query, "_source": source, "sort": ["_shard_doc"],
            "track_total_hits": False, "seq_no_primary_term": True,
        }  # fmt: skip
        async with self._gone_explained():
            pit = await self._open_snapshot(state)
        try:
            while True:
                body["pit"] = {"id": pit, "keep_alive": KEEP_ALIVE}
                answer = await self._transport.ask("POST", f"/{_SEARCH}", body)
                hits, pit = answer["hits"]["hits"], answer["pit_id"]
                yield hits
                if len(hits) < size:
                    return
                body["search_after"] = hits[-1]["sort"]
        except Expired as error:
            raise StoreUnavailable(
                f"the rows of {excerpt(self._collection)} were read too slowly: Elasticsearch kept the "
                f"snapshot for {KEEP_ALIVE} after each batch; begin again, and take batches faster"
            ) from error
        finally:
            await self._close_snapshot(pit)

    async def _close_snapshot(self, pit: str) -> None:
        with suppress(SamespaceError):  # it ends by itself
            await self._transport.ask("DELETE", "/_pit", {"id": pit})

    async def _open_snapshot(self, state: _State) -> str:
        path = f"/{self._through(state)}/_pit?keep_alive={KEEP_ALIVE}"
        return str((await self._transport.ask("POST", path))["id"])

    async def _page(
        self,
        state: _State,
        query: Query,
        source: object,
        *,
        size: int,
        after: str | None,
        shard: Shard | None = None,
        through: str | None = None,
    ) -> tuple[list[SearchHit], str | None]:
        """The next rows behind a cursor, and the cursor to go on from; None at the end."""
        assert state.shape is not None  # noqa: S101  callers have looked
        order = dsl.by_id if state.shape.own else dsl.by_change
        body = {
            "size": size, "_source": source, "track_total_hits": False,
            "seq_no_primary_term": True, **order(query, after),
        }  # fmt: skip
        path = f"/{through or self._through(state)}"
        hits = await self._part(state, path, body, shard)
        return hits, dsl.cursor(hits, after) if len(hits) == size else None

    async def _part(
        self, state: _State, path: str, body: dict[str, Any], shard: Shard | None
    ) -> list[SearchHit]:
        """A search in all rows, or in a part of them by the hash of their ids, out of a snapshot."""
        if shard is None or shard[1] == 1:
            return await self._search(path, body)
        pit = await self._open_snapshot(state)
        part = {"field": "_id", "id": shard[0], "max": shard[1]}
        try:
            return await self._search("", {**body, "pit": {"id": pit}, "slice": part})
        finally:
            await self._close_snapshot(pit)

    # Writing

    def _check_row(self, document: Document) -> None:
        if self._state is not None and self._state.shape is not None:
            self._state.shape.check_document(document)

    async def _existing(self, ids: Sequence[str]) -> set[str]:
        async with self._gone_explained():
            state, shape = await self._shaped()
            return {hit["_id"] for hit in await self._read_rows(state, shape, ids, False)}

    async def _read_rows(
        self, state: _State, shape: Shape, ids: Sequence[str], source: Any
    ) -> list[SearchHit]:
        """The rows with these ids; of ours as they are, of others' as searches see them."""
        if not shape.own:
            await self._refresh(state)
            queries = map(dsl.of_ids, dsl.parts_of_ids(ids))
            return [
                hit
                for query in queries
                async for hits in self._pages(state, query, source)
                for hit in hits
            ]
        path = f"/{self._through(state)}/_mget?{dsl.asked_for(source)}"
        found: list[SearchHit] = []
        for part in dsl.parts_of_ids(ids):
            answer = await self._transport.ask("POST", path, {"ids": part}, fault_in=of_documents)
            found += [hit for hit in answer["docs"] if hit["found"]]
        return found

    async def _write(self, rows: Sequence[Row], on_conflict: OnConflict) -> Written:
        async with self._gone_explained():
            state, shape = await self._shaped()
            slot = self._slot_of(state, writing=True)
            vectors = {row.document.id: self._vectors(state, slot, row) for row in rows}
            write = self._write_own if shape.own else self._write_adopted
            return await write(state, rows, vectors, on_conflict)

    @staticmethod
    def _vectors(state: _State, slot: SlotRecord, row: Row) -> dict[str, Any]:
        """A row's vectors as they are sent, by slot."""
        made = {slot_name(state, space): vector for space, vector in row.mirrored.items()}
        if row.vector is not None:
            made[slot.name] = row.vector
        return {name: dsl.sent(vector, state.version) for name, vector in made.items()}

    async def _write_own(
        self, state: _State, rows: Sequence[Row], vectors: _Vectors, on_conflict: OnConflict
    ) -> Written:
        """Replace or create each row; vectors of its text in other slots stay."""
        kept = await self._kept(state, rows, vectors) if on_conflict == "overwrite" else {}
        kind = "index" if on_conflict == "overwrite" else "create"
        names = [slot.name for slot in self._slots()]

        def writing(row: Row) -> Operation:
            made = dsl.document(row.document, row.metadata, vectors[row.document.id])
            return operation(kind, row.document.id, self._said(state, made))

        outcomes = await self._sent(
            state,
            rows,
            lambda row: (
                _rewriting(row, vectors[row.document.id], kept[row.document.id], names)
                if row.document.id in kept
                else writing(row)
            ),
        )
        changed = [
            row for row in rows if row.document.id in kept and not outcomes[row.document.id].done
        ]
        outcomes |= await self._sent(state, changed, writing)
        for row in changed:
            del kept[row.document.id]
        filled = {
            id: {*made, *(kept[id].slots if id in kept else ())} for id, made in vectors.items()
        }
        return await self._told(rows, outcomes, filled)

    async def _kept(
        self, state: _State, rows: Sequence[Row], vectors: _Vectors
    ) -> dict[str, _Kept]:
        """Stored rows with a vector of the same text in a slot that this call does not fill."""
        mine = slot_name(state, self._space)
        others = [slot.name for slot in self._slots() if slot.name != mine]
        if not others or state.shape is None:
            return {}
        texts = {row.document.id: row.document.embedded_text for row in rows}
        sources = {"includes": [dsl.source_name(slot) for slot in others]}
        found = {}
        for hit in await self._read_rows(state, state.shape, list(texts), sources):
            id = hit["_id"]
            fresh = dsl.source_of(id, texts[id])
            made_from = {slot: hit["_source"].get(dsl.source_name(slot)) for slot in others}
            same = {slot for slot, source in made_from.items() if source == fresh} - vectors[
                id
            ].keys()
            if same:
                found[id] = _Kept(frozenset(same), hit["_seq_no"], hit["_primary_term"])
        return found

    async def _write_adopted(
        self, state: _State, rows: Sequence[Row], vectors: _Vectors, on_conflict: OnConflict
    ) -> Written:
        """Change each row as it was read, or create it; what the layout does not name stays."""
        outcomes: dict[str, Outcome] = {}
        filled: dict[str, set[str]] = {}
        left = list(rows)
        for _ in range(ATTEMPTS):
            stored = await self._whole_rows(state, [row.document.id for row in left])
            if on_conflict != "overwrite":
                outcomes |= dict.fromkeys(stored, IN_THE_WAY)
                left = [row for row in left if row.document.id not in stored]
            made = {
                row.document.id: self._said(state, _changed(state, stored, row, vectors))
                for row in left
            }
            outcomes |= await self._sent(state, left, partial(_changing, stored, made))
            filled |= {id: _filled(state, each) for id, each in made.items()}
            left = [row for row in left if outcomes[row.document.id].conflicts]
            if not left or on_conflict != "overwrite":
                return await self._told(rows, outcomes, filled)
        outcomes |= dict.fromkeys((row.document.id for row in left), IN_MOTION)
        return await self._told(rows, outcomes, filled)

    def _said(self, state: _State, made: dict[str, Any]) -> dict[str, Any]:
        """A row as it is sent: where it has no vector, null in the slot says that this is meant.

        The pipeline of an index that has one stops rows with neither.
        """
        if any(value_at(made, slot.name) is not None for slot in self._slots()):
            return made
        said = dict(made)
        put(said, slot_name(state, self._space), None)
        return said

    async def _whole_rows(self, state: _State, ids: Sequence[str]) -> dict[str, SearchHit]:
        """Rows with all that is in them, by id."""
        assert state.shape is not None  # noqa: S101  callers have looked
        whole = dsl.whole_source(state.version)
        return {hit["_id"]: hit for hit in await self._read_rows(state, state.shape, ids, whole)}

    async def _sent(
        self, state: _State, rows: Sequence[Row], operate: Callable[[Row], Operation]
    ) -> dict[str, Outcome]:
        """What became of one operation on each row, by id."""
        outcomes = await self._bulk(state, map(operate, rows)) if rows else []
        return {row.document.id: each for row, each in zip(rows, outcomes, strict=True)}

    async def _bulk(self, state: _State, operations: Iterable[Operation]) -> list[Outcome]:
        """What became of operations on this handle's slot; where it is gone nothing is created."""
        assert state.shape is not None  # noqa: S101  callers have looked
        return await self._bulk_through(state.shape, slot_name(state, self._space), operations)

    async def _bulk_through(
        self, shape: Shape, slot: str, operations: Iterable[Operation]
    ) -> list[Outcome]:
        """What became of operations.

        A bulk request to a name that nobody has would create an index. Through an alias the server
        refuses that; where an adopted index has none, it is asked for first.
        """
        name = quote(shape.through(slot))
        path = f"/{name}/_bulk"
        if shape.is_alias(slot):
            path += "?require_alias=true"
        else:
            await self._transport.ask("GET", f"/{name}/_mapping?filter_path=none")
        outcomes = await self._transport.bulk(path, operations)
        for outcome in outcomes:
            if outcome.is_gone:
                raise of_row(outcome.status, outcome.error)
        return outcomes

    async def _told(
        self,
        rows: Sequence[Row],
        outcomes: Mapping[str, Outcome],
        filled: Mapping[str, Collection[str]],
    ) -> Written:
        """What a batch came to: rows in the way, rows refused, rows with an empty slot."""
        met = [row for row in rows if outcomes[row.document.id].conflicts]
        ours = await self._are_ours([row for row in met if outcomes[row.document.id].doubtful])
        conflicts = {row.document.id for row in met} - ours
        refused = {
            id: of_row(outcome.status, outcome.error, id)
            for id, outcome in outcomes.items()
            if not outcome.done and not outcome.conflicts
        }
        names = {slot.name for slot in self._slots()}
        written = outcomes.keys() - conflicts - refused.keys()
        pending = sum(not names <= set(filled[id]) for id in written)
        return Written(frozenset(conflicts), pending, refused)

    async def _are_ours(self, rows: Sequence[Row]) -> set[str]:
        """Of rows that an attempt without an answer may have created, those that are as we sent them."""
        if not rows:
            return set()
        stored = {found.id: found for found in await self.get([row.document.id for row in rows])}
        return {row.document.id for row in rows if stored.get(row.document.id) == row.document}

    async def _written(self) -> None:
        async with self._gone_explained():
            state, _ = await self._shaped()
            await self._refresh(state)

    async def update_metadata(
        self,
        changes: Mapping[str, Metadata] | Metadata,
        *,
        where: Filter | None = None,
        merge: bool = False,
    ) -> int:
        """Replace metadata by id, or with ``where`` give one object to all that pass.

        With ``merge`` the given keys are set and all others stay. Nothing is embedded. Returns how
        many documents were changed; unknown ids change nothing.
        """
        patches = {
            id: decode_metadata(patch) for id, patch in check_changes(changes, where).items()
        }
        async with self._gone_explained():
            state, shape = await self._shaped()
            self._slot_of(state, writing=True)
            for patch in patches.values():
                shape.check_metadata(patch, None)
            if merge:
                patches = {id: patch for id, patch in patches.items() if patch}
            if not patches:
                return 0
            queries = (
                map(dsl.of_ids, dsl.parts_of_ids(patches))
                if where is None
                else [self._query(shape, where)]
            )

            def patched(hit: SearchHit) -> Operation:
                patch = patches["" if where is not None else hit["_id"]]
                return self._patched(state, shape, hit, patch, merge=merge)

            source = {"includes": [dsl.METADATA]} if shape.own else dsl.whole_source(state.version)
            changed = [await self._change(state, query, source, patched) for query in queries]
            return sum(changed)

    def _patched(
        self, state: _State, shape: Shape, hit: SearchHit, patch: Metadata, *, merge: bool
    ) -> Operation:
        """What gives a row other metadata, if it still is as it was read."""
        if shape.own:
            return _patching(shape, hit, patch, merge=merge)
        made = self._said(state, shape.with_metadata(hit["_source"], patch, merge=merge))
        return operation("index", hit["_id"], made, **_as_read(hit))

    async def _change(
        self,
        state: _State,
        query: Query,
        source: object,
        operate: Callable[[SearchHit], Operation],
    ) -> int:
        """Apply an operation to all rows that pass, each as it was read; how many that were.

        A row that somebody else changed meanwhile is read again, and must still pass.
        """
        changed = 0
        left = query
        for _ in range(ATTEMPTS):
            await self._refresh(state)
            conflicts: list[str] = []
            async for hits in self._pages(state, left, source):
                outcomes = await self._bulk(state, map(operate, hits))
                for hit, outcome in zip(hits, outcomes, strict=True):
                    if outcome.done:
                        changed += 1
                    elif outcome.conflicts:
                        conflicts.append(hit["_id"])
                    elif not outcome.misses:
                        raise of_row(outcome.status, outcome.error, hit["_id"])
            if not conflicts:
                await self._refresh(state)
                return changed
            left = every([query, dsl.of_ids(conflicts)])
        raise StoreUnavailable(
            f"rows of {excerpt(self._collection)} are changed by others all the time; {changed} were "
            "changed as asked, try again for the rest"
        )

    async def delete(
        self,
        *,
        ids: Sequence[str] | None = None,
        where: Filter | None = None,
        parent: str | None = None,
    ) -> int:
        """Delete what passes every selector given; how many that were.

        At least one is needed; everything is ``where=everything``.
        """
        check_selectors(ids, where, parent)
        async with self._gone_explained():
            state, shape = await self._shaped()
            self._slot_of(state, writing=True)
            selectors = [self._query(shape, where)]
            if parent is not None:
                selectors.append(self._query(shape, In(Target.PARENT, (), (parent,))))
            queries = (
                [every(selectors)]
                if ids is None
                else [every([*selectors, dsl.of_ids(part)]) for part in dsl.parts_of_ids(ids)]
            )
            return sum([await self._delete(state, query) for query in queries])

    async def _delete(self, state: _State, query: Query) -> int:
        """Delete all rows that pass, those that change meanwhile too as long as they pass."""
        path = (
            f"/{self._through(state)}/_delete_by_query?conflicts=proceed&refresh=true"
            f"&max_docs={DELETED_AT_ONCE}"
        )
        deleted = rounds = 0
        await self._refresh(state)
        while rounds < ATTEMPTS:
            answer = await self._transport.ask("POST", path, {"query": query})
            for failure in answer["failures"]:
                raise of_row(
                    failure.get("status", 500), failure.get("cause", {}), failure.get("id")
                )
            deleted += int(answer["deleted"])
            if not answer["version_conflicts"] and answer["total"] < DELETED_AT_ONCE:
                return deleted
            rounds = 0 if answer["deleted"] else rounds + 1
        raise StoreUnavailable(
            f"rows of {excerpt(self._collection)} are changed by others all the time; {deleted} were "
            "deleted, try again for the rest"
        )

    # Reading

    def _query(self, shape: Shape, where: Filter | None) -> Query:
        return condition(where, shape.condition)

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
            state, shape = await self._shaped()
            fields = [*shape.parts(), *([slot.name] if with_vectors else [])]
            source = dsl.reading(fields, state.version, vectors=with_vectors)
            query = self._query(shape, where)
            bodies = [
                dsl.nearest(
                    slot.name,
                    dsl.unit(vector),
                    options=shape.index_options(slot.name),
                    limit=limit,
                    where=query,
                    source=source,
                )
                for vector in vectors
            ]
            found = await self._found(quote(shape.through(slot.name)), bodies)
            if not any(found):  # a search in a field that is not there finds nothing
                self._slot_of(await self._describe_existing(), writing=False)
        named = slot.name if with_vectors else None
        return [self._hits(shape, slot.name, hits, named) for hits in found]

    async def _describe_existing(self) -> _State:
        state = await self._describe()
        if not state.exists:
            raise self._not_found()
        return state

    async def _found(
        self, through: str, bodies: Sequence[Mapping[str, Any]]
    ) -> list[list[SearchHit]]:
        """The hits of each search, in one round trip."""
        if len(bodies) == 1:
            return [await self._search(f"/{through}", bodies[0])]
        return await self._transport.searches(through, bodies)

    def _hits(
        self, shape: Shape, slot: str, hits: Sequence[SearchHit], vectors: str | None
    ) -> list[Hit]:
        metric = str((shape.field(slot) or {}).get("similarity", "cosine"))
        documents = self._documents(shape, hits)
        return [
            Hit(
                document,
                dsl.cosine(hit["_score"], metric),
                _vector(hit, vectors) if vectors is not None else None,
            )
            for document, hit in zip(documents, hits, strict=True)
        ]

    @staticmethod
    def _documents(
        shape: Shape, hits: Sequence[SearchHit], *, vectors: str | None = None
    ) -> list[Document]:
        found = [
            shape.document(hit, _vector(hit, vectors) if vectors is not None else None)
            for hit in hits
        ]
        if not shape.external_text:
            return found
        texts = looked_up(shape.layout.text, [document.id for document in found])
        return [replace(document, text=text) for document, text in zip(found, texts, strict=True)]

    def _reading(
        self, state: _State, shape: Shape, *, with_vectors: bool
    ) -> tuple[dict[str, Any], str | None]:
        """What to ask of each row, and the field with its vector if that is wanted."""
        slot = self._slot_of(state, writing=False).name if with_vectors else None
        fields = [*shape.parts(), *([slot] if slot is not None else [])]
        return dsl.reading(fields, state.version, vectors=with_vectors), slot

    async def get(self, ids: Sequence[str], *, with_vectors: bool = False) -> list[Document]:
        """The documents with these ids, in that order; ids that are not stored are left out."""
        check_ids(ids)
        async with self._gone_explained():
            state, shape = await self._shaped()
            source, slot = self._reading(state, shape, with_vectors=with_vectors)
            hits = await self._read_rows(state, shape, ids, source)
        documents = self._documents(shape, hits, vectors=slot)
        found = {document.id: document for document in documents}
        return [found[id] for id in ids if id in found]

    async def count(self, where: Filter | None = None) -> int:
        """How many documents pass."""
        check_filter(where)
        async with self._gone_explained():
            state, shape = await self._shaped()
            return await self._count(state, self._query(shape, where))

    async def _count(self, state: _State, query: Query) -> int:
        body = {
            "size": 0, "track_total_hits": True, "query": query
        }  # fmt: skip
        path = f"/{self._through(state)}/{_SEARCH}&filter_path=hits.total.value"
        answer = await self._transport.ask("POST", path, body)
        return int(answer["hits"]["total"]["value"])

    async def scan(
        self, *, where: Filter | None = None, batch_size: int = 500, with_vectors: bool = False
    ) -> AsyncIterator[Document]:
        """Every document that passes; one present throughout comes exactly once.

        Documents of ours come in the order of their ids, however long that takes. Those of an adopted
        index are read from a snapshot, which Elasticsearch keeps for 5 minutes after each batch.
        """
        check_filter(where)
        check_limit(batch_size, what="batch_size")
        async with self._gone_explained():
            state, shape = await self._shaped()
            source, slot = self._reading(state, shape, with_vectors=with_vectors)
            query = self._query(shape, where)
        async for hits in self._pages(state, query, source, size=batch_size):
            for document in self._documents(shape, hits, vectors=slot):
                yield document

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
            state, shape = await self._shaped()
            fields = shape.fields_of(target)
            source = {"includes": fields} if fields else False
            query = self._query(shape, where)
            async for hits in self._pages(state, query, source, size=10 * PAGE):
                for document in (shape.document(hit, None) for hit in hits):
                    counted.add(document)
        return counted.listed(limit=limit, after=after)

    # Slots

    async def add_slot(
        self,
        space: EmbeddingSpace,
        *,
        canary: Canary | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> None:
        """Add an empty slot for ``space`` to the same rows, to be filled.

        An index we did not make is altered too: two fields of the slot are mapped, one that counts the
        changes of the record, and an alias is added.
        """
        check_fit(canary, check_space(space))
        check_provenance(provenance)
        canary = canary or await self._own_canary(space)
        slot = await self._empty_slot(space, canary, provenance)
        dsl.check_quantization(self._index, await self._transport.version())
        state = await self._describe()
        record = self._recorded(state)
        if record.find(space) is None:
            check_distinct_ids([space, *(other.space for other in record.slots)])
            if self._holds(state, slot.name):
                await self._empty(slot.name)
            fields = dsl.slot_mapping(space, self._index)
            state = await self._alter(
                lambda found: found if found.find(space) else found.with_slot(slot), fields
            )
        await self._add_alias(state, slot_name(state, space))
        await refresh_pipeline(self._transport, self._collection)
        await self._describe()

    async def _add_alias(self, state: _State, slot: str) -> None:
        """The alias of a slot; none beside an alias that somebody named as the collection."""
        shape = state.shape
        if shape is None or shape.name != shape.collection or shape.is_alias(slot):
            return
        if not shape.has_source(slot):  # somebody else's, in whose index adopting adds nothing
            return
        alias = dsl.alias_of(shape.name, slot)
        if not dsl.is_name(alias):  # adopted names may be too long for one
            return
        action = {"add": {"index": shape.name, "alias": alias, "is_write_index": True}}
        async with self._gone_explained():
            await self._transport.ask("POST", "/_aliases", {"actions": [action]})

    async def drop_slot(
        self, space: EmbeddingSpace, *, keeps: EmbeddingSpace | None = None
    ) -> None:
        """Remove the slot of ``space`` and its vectors; the last slot cannot go.

        ``keeps`` is the space of the slot that rows go on with: :class:`~samespace.errors.MigrationError`,
        and nothing is dropped, while one has a vector in that of ``space`` alone, looked at right
        before.

        The mapped fields stay, empty, until the index is made anew; of an index that we did not make a
        warning names them.
        """
        check_space(space)
        check_other(space, keeps, what="keeps")
        state = await self._describe()
        slot = self._recorded(state).require(space, collection=self._collection)
        await self._check_kept(space, keeps)
        await self._alter(lambda found: found.without(space) if found.find(space) else found)
        if state.shape is not None and state.shape.is_alias(slot.name):
            await self._remove_alias(state.shape, slot.name)
        await refresh_pipeline(self._transport, self._collection)
        await self._empty(slot.name)
        shape = (await self._describe_existing()).shape
        if shape is not None and not shape.own:
            stay = [name for name in (slot.name, dsl.source_name(slot.name)) if shape.has(name)]
            logger.warning(
                "Elasticsearch removes no field from a mapping: %s stay in that of index %s, without "
                "values; reindex into another one to be rid of them",
                ", ".join(map(excerpt, stay)),
                excerpt(shape.name),
            )

    async def _remove_alias(self, shape: Shape, slot: str) -> None:
        if shape.name != shape.collection:
            return
        action = {
            "remove": {"index": shape.name, "alias": shape.through(slot), "must_exist": False}
        }
        await self._transport.ask("POST", "/_aliases", {"actions": [action]})

    async def _empty(self, slot: str) -> None:
        """Take all vectors out of a slot that is no longer, or not yet, in the record."""
        state = await self._describe_existing()
        shape = state.shape
        assert shape is not None  # noqa: S101  it exists
        path = quote(shape.collection)
        body = {
            "size": PAGE, "query": exists(slot), "track_total_hits": False, "seq_no_primary_term": True,
            "_source": False if shape.own else dsl.whole_source(state.version),
        }  # fmt: skip
        while True:
            await self._transport.ask("POST", f"/{path}/_refresh")
            hits = await self._search(f"/{path}", body)
            if not hits:
                return
            operations = [_emptying(shape, slot, hit) for hit in hits]
            bulk = f"/{path}/_bulk"
            outcomes = await self._transport.bulk(bulk, operations)
            for hit, outcome in zip(hits, outcomes, strict=True):
                if not outcome.done and not outcome.conflicts and not outcome.misses:
                    raise of_row(outcome.status, outcome.error, hit["_id"])

    async def _slot_of_space(self, space: EmbeddingSpace) -> tuple[_State, Shape, SlotRecord]:
        """The slot of any space of this collection."""
        state, slot = await self._slot_named(space)
        assert state.shape is not None  # noqa: S101  it has a record
        if not state.shape.holds(slot.name):
            raise self._lost(slot)
        return state, state.shape, slot

    async def _begin(self, shape: Shape, slot: SlotRecord, cursor: str | None) -> None:
        """Let a pass that begins see what strangers have written, which is shown late otherwise."""
        if cursor is None:
            await self._transport.ask("POST", f"/{quote(shape.through(slot.name))}/_refresh")

    async def _count_pending(self, slot: SlotRecord) -> int:
        async with self._gone_explained():
            state, shape = await self._shaped()
            query = dsl.is_pending(slot.name, has_source=shape.has_source(slot.name))
            return await self._count(state, query)

    async def _count_alone(self, slot: SlotRecord, other: SlotRecord) -> int:
        async with self._gone_explained():
            state, shape = await self._shaped()
            await self._begin(shape, slot, None)
            query = dsl.is_alone(
                slot.name, beside=other.name, has_source=shape.has_source(other.name)
            )
            return await self._count(state, query)

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
        """The next rows whose slot is empty, and the cursor to go on from.

        Rows of ours come in the order of their ids, those of an adopted index in that of their last
        change. ``shard`` is ``(i, n)``, the i-th of n disjoint parts. The cursor is None at the end.
        """
        check_page(limit, after, shard, where, with_vectors_of)
        async with self._gone_explained():
            state, shape, slot = await self._slot_of_space(space)
            await self._begin(shape, slot, after)
            other = (await self._slot_named(with_vectors_of))[1].name if with_vectors_of else None
            empty = dsl.is_pending(slot.name, has_source=shape.has_source(slot.name))
            vector = [other, dsl.source_name(other)] if other is not None else []
            fields = [*shape.parts(), *vector]
            hits, cursor = await self._page(
                state,
                every([empty, self._query(shape, where)]),
                dsl.reading(fields, state.version, vectors=other is not None),
                size=limit, after=after, shard=shard, through=quote(shape.through(slot.name)),
            )  # fmt: skip
        rows = self._versioned_rows(shape, hits, other)
        return rows if other is None else _vouched(shape, rows, hits, other), cursor

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

        In the order of :meth:`pending`. ``shard`` is ``(i, n)``, the i-th of n disjoint parts. The
        cursor is None at the end.
        """
        check_page(limit, after, shard, where, None)
        async with self._gone_explained():
            state, shape, slot = await self._to_read(space)
            if after is None:
                await self._refresh(state)
            hits, cursor = await self._page(
                state,
                every([exists(slot.name), self._query(shape, where)]),
                dsl.reading([*shape.parts(), slot.name], state.version, vectors=True),
                size=limit, after=after, shard=shard,
            )  # fmt: skip
        return self._versioned_rows(shape, hits, slot.name), cursor

    async def sample(
        self, space: EmbeddingSpace, *, size: int, where: Filter | None = None
    ) -> list[VersionedRow]:
        """At most ``size`` rows that have a vector in the slot, with that vector, drawn at random.

        Without replacement, in an order that is random as well: the first of them are a sample too.
        """
        check_limit(size, what="size")
        check_filter(where)
        async with self._gone_explained():
            state, shape, slot = await self._to_read(space)
            await self._refresh(state)
            passing = every([exists(slot.name), self._query(shape, where)])
            drawn = await self._search(
                f"/{self._through(state)}",
                {"query": dsl.shuffled(passing), "size": size, "_source": False},
            )
        ids = [hit["_id"] for hit in drawn]
        return await read_drawn_async(self, space, ids, where)

    async def _to_read(self, space: EmbeddingSpace) -> tuple[_State, Shape, SlotRecord]:
        """As :meth:`_slot_of_space`; of an index without a record where that may be searched, too."""
        state, slot = await self._slot_to_read(space)
        assert state.shape is not None  # noqa: S101  it exists
        return state, state.shape, slot

    async def stale(
        self, space: EmbeddingSpace, *, since: str | None = None, limit: int
    ) -> tuple[list[VersionedRow], str | None]:
        """The next rows whose vector was made from another text than they have now.

        Only vectors with a source can be judged; ``since`` is the cursor of the last call. Elasticsearch
        cannot compare, so that every filled row is read.
        """
        check_limit(limit)
        check_cursor(since)
        async with self._gone_explained():
            state, shape, slot = await self._slot_of_space(space)
            named = dsl.source_name(slot.name)
            if shape.external_text or not shape.has_source(slot.name):
                return [], None
            await self._begin(shape, slot, since)
            query = every([exists(slot.name), exists(named)])
            source = {"includes": [*shape.parts(), named]}
            found: list[SearchHit] = []
            while len(found) < limit:
                hits, cursor = await self._page(
                    state, query, source,
                    size=PAGE, after=since, through=quote(shape.through(slot.name)),
                )  # fmt: skip
                judged = [hit for hit in hits if _is_stale(shape, hit, named)]
                found += judged[: limit - len(found)]
                if len(found) == limit and found[-1] is not (hits[-1] if hits else None):
                    seen = hits[: hits.index(found[-1]) + 1]
                    return self._versioned_rows(shape, found), dsl.cursor(seen, since)
                since = cursor
                if cursor is None:
                    break
        return self._versioned_rows(shape, found), since

    async def position(self) -> str:
        """Where the log of changes is now: all that was written until here is to be seen by a pass.

        What a pass over :meth:`pending` and :meth:`stale` that begins then does not see,
        :meth:`changed` finds from here on. This takes the privilege ``monitor`` on the index.
        """
        async with self._gone_explained():
            await self._describe()
            _, shape = await self._shaped()
            return positions.spelt(await self._reached(shape))

    async def changed(
        self, space: EmbeddingSpace, *, since: str, limit: int
    ) -> tuple[list[VersionedRow], str]:
        """The rows written since a position whose vector is missing or of another text; the next position.

        In the order of their last changes, shard by shard. With fewer than ``limit`` rows all that was
        written until now has been looked at. A shard that was restored, or is of an index made anew, is
        looked at from its beginning.
        """
        check_limit(limit)
        before = positions.read(since)
        found: list[VersionedRow] = []
        async with self._gone_explained():
            await self._describe()
            state, shape, slot = await self._slot_of_space(space)
            now = await self._reached(shape)  # before the refresh, which shows all of it
            await self._begin(shape, slot, None)
            position = positions.carried(before, now)
            for shard, end in now.items():
                rows, number = await self._changed_in(
                    state, shape, slot, shard,
                    after=position[shard].number, until=end.number, most=limit - len(found),
                )  # fmt: skip
                found += rows
                position[shard] = replace(end, number=number)
        return found, positions.spelt(position)

    async def _reached(self, shape: Shape) -> positions.Position:
        answer = await self._transport.ask("GET", f"/{quote(shape.name)}/{positions.STATISTICS}")
        return positions.reached(answer, shards=shape.shards)

    async def _changed_in(
        self,
        state: _State,
        shape: Shape,
        slot: SlotRecord,
        shard: int,
        *,
        after: int,
        until: int,
        most: int,
    ) -> tuple[list[VersionedRow], int]:
        """The rows of one shard that are to be filled, and the number up to which it was looked at."""
        found: list[VersionedRow] = []
        fields = [*shape.parts(), dsl.source_name(slot.name)]
        source = dsl.reading(fields, state.version, vectors=False)
        path = f"/{quote(shape.through(slot.name))}/{_SEARCH}&preference=_shards:{shard}"
        while after < until and len(found) < most:
            body = positions.window(slot.name, after=after, until=until, source=source, size=PAGE)
            hits = (await self._transport.ask("POST", path, body))["hits"]["hits"]
            for row, hit in zip(self._versioned_rows(shape, hits), hits, strict=True):
                after = hit["_seq_no"]
                if _is_to_fill(shape, slot.name, row, hit):
                    found.append(row)
                    if len(found) == most:
                        return found, after
            if len(hits) < PAGE:
                after = until
        return found, after

    def _versioned_rows(
        self, shape: Shape, hits: Sequence[SearchHit], vectors: str | None = None
    ) -> list[VersionedRow]:
        return [
            VersionedRow(
                document=document,
                version=orjson.dumps([hit["_seq_no"], hit["_primary_term"], hit.get("_routing")]),
                vector=_vector(hit, vectors) if vectors is not None else None,
            )
            for document, hit in zip(self._documents(shape, hits), hits, strict=True)
        ]

    async def fill(
        self, space: EmbeddingSpace, rows: Sequence[VersionedRow], vectors: Matrix
    ) -> FillReport:
        """Write vectors, shape ``(len(rows), dimensions)``, into rows that are still what was read."""
        check_pending(rows)
        checked = checked_matrix(vectors, space, len(rows))
        if not rows:
            return FillReport(filled=0, changed=0)
        async with self._gone_explained():
            state, shape, slot = await self._slot_of_space(space)
            outcomes = await self._bulk_through(
                shape,
                slot.name,
                (
                    _filling(shape, slot.name, row, dsl.sent(vector, state.version))
                    for row, vector in zip(rows, checked, strict=True)
                ),
            )
            for row, outcome in zip(rows, outcomes, strict=True):
                if not outcome.done and not outcome.conflicts and not outcome.misses:
                    raise of_row(outcome.status, outcome.error, row.document.id)
            await self._transport.ask("POST", f"/{quote(shape.through(slot.name))}/_refresh")
        filled = sum(outcome.done for outcome in outcomes)
        return FillReport(filled=filled, changed=len(rows) - filled)

    # Index

    async def build_index(self, space: EmbeddingSpace | None = None, *, wait: bool = True) -> None:  # noqa: ARG002
        """Nothing is left to do: Elasticsearch puts each vector into its graph as it comes.

        :class:`InvalidInput` where the slot's field has no graph, which no request can add to.
        """
        if self._index.kind != "hnsw":
            raise InvalidInput('Index.kind is "flat": there is nothing to build')
        check_space(self._space if space is None else space)
        state = await self._describe()
        if not state.exists:
            raise self._not_found()
        _, shape, slot = await self._slot_of_space(space or self._space)
        if not shape.is_indexed(slot.name):
            kind = shape.index_options(slot.name).get("type")
            raise InvalidInput(
                f"field {excerpt(slot.name)} is indexed as {kind}, which is searched exactly; for a graph "
                "make the collection anew with Index(kind='hnsw')"
            )

    def forecast(
        self, space: EmbeddingSpace, info: CollectionInfo, index: Index | None = None
    ) -> SlotForecast:
        """What a slot of ``space`` would need here, and what others may notice; asks no server."""
        return forecast(check_space(space), info, dsl.check_index(index or self._index))

    def client_changes(self, source: str, target: str) -> tuple[ClientChange, ...]:
        """What a client that names a field by itself changes to name another; asks no server."""
        return exposing.client_changes(self._collection, source, target)

    async def grants(self, part: Part, *, to: str) -> str:
        """The body of the request for an API key ``to`` of a reader, writer or migrator; it makes none."""
        known_part(part)
        check_identifier(to, what="to")
        state = await self._describe()
        if state.shape is None:
            raise self._not_found()
        guarded = False
        if state.record is not None:
            index = await read_index(self._transport, state.shape.name)
            guarded = await is_guarded(self._transport, index, state.record)
        return rights.grants(self._collection, part, to=to, guarded=guarded)

    # Raw writers

    async def guard_check(self) -> tuple[RawWrite, ...]:
        """What becomes of writes that go around this library, in the index as it is now."""
        state = await self._describe()
        if state.shape is None:
            raise self._not_found()
        slot = self._slot_of(state, writing=False)
        record = state.record or SpaceRecord(slots=(slot,))
        index = await read_index(self._transport, state.shape.name)
        guarded = await is_guarded(self._transport, index, record)
        return hardening.raw_writes(state.shape, slot, guarded=guarded)

    async def guard_install(self, *, dry_run: bool = False) -> tuple[Change, ...]:
        """Have the server refuse documents without a vector that can be of a slot's space; what changes.

        A pipeline becomes the index's final one, and calls the one that was there first. An update in
        ``_bulk`` goes past it. :class:`StoreRejected` says how many documents that are there would not
        pass, which nobody could update then. Doing it again changes nothing unless slots or fields
        have changed.
        """
        record, name = await self._for_hardening()
        index = await read_index(self._transport, name)
        change = await install(self._transport, index, record, dry_run=dry_run)
        return hardening.changes(change)

    async def guard_remove(self, *, dry_run: bool = False) -> tuple[Change, ...]:
        """Give the index back the final pipeline that it had before :meth:`guard_install`.

        What an interrupted install or remove left goes, too.
        """
        _, name = await self._for_hardening()
        index = await read_index(self._transport, name)
        return hardening.changes(await uninstall(self._transport, index, dry_run=dry_run))

    async def _for_hardening(self) -> tuple[SpaceRecord, str]:
        """The record, and the index's own name."""
        state = await self._describe()
        record = self._recorded(state)
        self._slot_of(state, writing=True)
        assert state.shape is not None  # noqa: S101  a record is in an index
        return record, state.shape.name


@dataclass(frozen=True, slots=True)
class _Kept:
    """Slots of a stored row whose vectors are of the text that is being written, and its version."""

    slots: frozenset[str]
    seq_no: int
    primary_term: int


def _rewriting(
    row: Row, vectors: Mapping[str, Any], kept: _Kept, slots: Sequence[str]
) -> Operation:
    """An update that leaves nothing of the row as it was but the vectors that are kept."""
    emptied = [name for name in slots if name not in vectors and name not in kept.slots]
    unset = dict.fromkeys([*emptied, *map(dsl.source_name, emptied)])
    made = dsl.document(row.document, row.metadata, vectors, whole=True)
    return operation(
        "update", row.document.id, {"doc": {**unset, **made}},
        if_seq_no=kept.seq_no, if_primary_term=kept.primary_term,
    )  # fmt: skip


def _changed(
    state: _State, stored: Mapping[str, SearchHit], row: Row, vectors: _Vectors
) -> dict[str, Any]:
    """An adopted row, stored or not, as it is to be."""
    assert state.shape is not None  # noqa: S101  callers have looked
    before = stored[row.document.id]["_source"] if row.document.id in stored else {}
    return state.shape.changed(before, row.document, vectors[row.document.id])


def _filled(state: _State, made: Mapping[str, Any]) -> set[str]:
    assert state.shape is not None  # noqa: S101  callers have looked
    return set(state.shape.filled(made))


def _changing(
    stored: Mapping[str, SearchHit], made: Mapping[str, Mapping[str, Any]], row: Row
) -> Operation:
    """An adopted row's change, on condition that it is still what was read; or its creation."""
    id = row.document.id
    if id not in stored:
        return operation("create", id, made[id])
    return operation("index", id, made[id], **_as_read(stored[id]))


def _patching(shape: Shape, hit: SearchHit, patch: Metadata, *, merge: bool) -> Operation:
    metadata = {**shape.metadata(hit["_source"]), **patch} if merge else patch
    parts = dsl.metadata_parts(encode_value(metadata, what="metadata"))
    return operation("update", hit["_id"], {"doc": parts}, **_as_read(hit))


def _as_read(hit: SearchHit) -> dict[str, Any]:
    return {
        "if_seq_no": hit["_seq_no"],
        "if_primary_term": hit["_primary_term"],
        "routing": hit.get("_routing"),
    }


def _filling(shape: Shape, slot: str, row: VersionedRow, vector: Any) -> Operation:
    """A vector and what it was made from, as one update of a row that is still what was read."""
    seq_no, primary_term, routing = orjson.loads(row.version)
    source = dsl.source_of(row.document.id, row.document.embedded_text)
    made = _only({slot: vector, dsl.source_name(slot): source}, shape)
    return operation(
        "update", row.document.id, {"doc": made},
        if_seq_no=seq_no, if_primary_term=primary_term, routing=routing,
    )  # fmt: skip


def _emptying(shape: Shape, slot: str, hit: SearchHit) -> Operation:
    """A row without its vector of a slot; an update cannot take away what dots in a name lead to."""
    if shape.own:
        unset = {"doc": _only({slot: None, dsl.source_name(slot): None}, shape)}
        return operation("update", hit["_id"], unset, **_as_read(hit))
    if value_at(hit["_source"], slot) is None:
        raise StoreRejected(
            f"row {excerpt(hit['_id'])} has its vector of {excerpt(slot)} in a list of objects, and it "
            "stays there; take it away with the tool that wrote it"
        )
    made = dict(hit["_source"])
    for name in (slot, dsl.source_name(slot)):
        remove(made, name)
    return operation("index", hit["_id"], made, **_as_read(hit))


def _only(values: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
    """Values of mapped fields as the part of a document that an update takes."""
    made: dict[str, Any] = {}
    for path, value in values.items():
        if shape.field(path) is not None:
            put(made, path, value)
    return made


def _is_to_fill(shape: Shape, slot: str, row: VersionedRow, hit: SearchHit) -> bool:
    """Whether a row has no vector in a slot, or one of another text, or one that says nothing."""
    if not positions.is_filled(hit):
        return True
    if not shape.has_source(slot):
        return False
    made = dsl.source_of(row.document.id, row.document.embedded_text)
    return bool(hit["_source"].get(dsl.source_name(slot)) != made)


def _vouched(
    shape: Shape, rows: Sequence[VersionedRow], hits: Sequence[SearchHit], slot: str
) -> list[VersionedRow]:
    """Rows with the vectors of a slot that are of the texts read with them."""
    named, always = dsl.source_name(slot), shape.has_source(slot)
    pairs = zip(rows, hits, strict=True)
    return [vouched(row, hit["_source"].get(named), always=always) for row, hit in pairs]


def _is_stale(shape: Shape, hit: SearchHit, named: str) -> bool:
    document = shape.document(hit, None)
    return bool(hit["_source"].get(named) != dsl.source_of(document.id, document.embedded_text))


def _vector(hit: SearchHit, slot: str) -> Vector | None:
    found = value_at(hit.get("_source", {}), slot)
    return None if found is None else dsl.unpacked(found)
