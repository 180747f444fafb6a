"""Collections in PostgreSQL: :class:`AsyncPgVectorStore`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from functools import partial
from math import isnan
from operator import attrgetter
from types import MappingProxyType
from typing import Any, ClassVar, Final, TypeVar

import numpy as np
import orjson
import psycopg
from psycopg import errors as pg
from psycopg import sql as composed
from psycopg.abc import AdaptContext

from samespace.adoption import outdated, overlapping, recorded_layout
from samespace.documents import (
    CollectionInfo,
    Document,
    FillReport,
    Hit,
    Metadata,
    Parent,
    VersionedRow,
    decode_metadata,
    encode_value,
)
from samespace.errors import (
    CollectionNotFound,
    InvalidInput,
    SpaceUnknown,
    StoreError,
    StoreRejected,
    StoreUnavailable,
    command,
    excerpt,
)
from samespace.filters import Field, Filter, check_filter, target_of
from samespace.findings import Finding, Level
from samespace.forecast import ClientChange, SlotForecast
from samespace.guard import (
    CANARY_THRESHOLD,
    Canary,
    SlotRecord,
    SlotState,
    SpaceRecord,
    UnreadableRecord,
    check_distinct_ids,
    lone_vectors,
    lost_record,
    lost_slot,
    mismatch,
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
from samespace.stores.guarded_async import AsyncGuardedStore, looked_up, slot_name
from samespace.stores.pgvector import diagnosis, exposing, hardening, rights, sql, views
from samespace.stores.pgvector.binary import (
    Array,
    ArrayDumper,
    Json,
    JsonDumper,
    VectorDumper,
    load_vector,
)
from samespace.stores.pgvector.connections_async import (
    AsyncConnections,
    AsyncPool,
    AsyncRows,
    check_source,
)
from samespace.stores.pgvector.forecast import forecast
from samespace.stores.pgvector.table import (
    Table,
    can_share_rows,
    own_layout,
    scope_key,
    scope_shown,
    source_name,
)
from samespace.stores.running import T
from samespace.stores.sources import vouched

LOCK_NAME: Final = "samespace"
DDL_LOCK_TIMEOUT_MS: Final = 500
DDL_ATTEMPTS: Final = 60
DDL_QUIET_ATTEMPTS: Final = 3
"""Attempts to lock a table before it is said that others keep it."""
BUILD_POLL_SECONDS: Final = 0.2
"""Between looks whether a build by others has ended."""
Item = TypeVar("Item")
ATTEMPTS: Final = 5
_UNPREPARED: Final = (pg.InvalidSqlStatementName, pg.DuplicatePreparedStatement)
_UNDONE: Final = (
    pg.DeadlockDetected,
    pg.SerializationFailure,
    pg.InternalError_,  # what the catalog says of a relation that is dropped while it is described
)


_Key = tuple[str, str, str]
"""Schema, table and scope: where a collection's record is."""


class _Search:
    """A search as it is sent, each way put together when it is first tried."""

    __slots__ = ("_made", "_search", "ways")

    def __init__(self, search: sql.Search) -> None:
        self._search = search
        self.ways = search.ways()
        self._made: dict[sql.Way, tuple[bytes | None, bytes, Mapping[str, Any]]] = {}

    def statements(self, way: sql.Way) -> tuple[bytes | None, bytes, Mapping[str, Any]]:
        """Settings, if any are needed, the search itself, and its parameters."""
        if way not in self._made:
            query, parameters = self._search.statement(way)
            tuned = way is sql.Way.TUNED
            settings = self._search.settings().as_bytes(None) if tuned else None
            self._made[way] = settings, query.as_bytes(None), parameters
        return self._made[way]


@dataclass(frozen=True, slots=True)
class _State:
    """What is known of a collection: its table if it exists, its record if it has one."""

    table: Table | None
    record: SpaceRecord | None
    neighbours: Mapping[str, SpaceRecord]
    """The records of the table's other collections, by scope; looked at without an own record only."""
    indexes: tuple[tuple[str, bool, str, str, str, bool], ...]
    """Name, valid, operator class, key, method, whether of some rows only."""
    vector_oid: int
    """The type ``vector``; 0 without the extension."""
    cheap_pages: bool
    has_registry: bool
    lacks_registry: str
    """What the role would have to be granted to read records."""
    lacks_rows: str
    """What the role would have to be granted to read the table."""
    read_at: float
    searches: dict[tuple[str, int, bool], _Search] = dataclass_field(default_factory=dict)
    """Those without a filter: by slot, limit, whether vectors are wanted."""
    ready: list[SlotRecord] = dataclass_field(default_factory=list)
    """The handle's slot, once it was found fit for searches."""
    opclasses: dict[str, str] = dataclass_field(default_factory=dict)
    """What :func:`_opclass` found, by slot."""

    @property
    def exists(self) -> bool:
        return self.table is not None

    @property
    def layout(self) -> Layout | None:
        return None if self.table is None or self.table.own else self.table.layout


class AsyncPgVectorStore(AsyncGuardedStore[_State]):
    """One collection in PostgreSQL with pgvector 0.8.0 or newer, guarded by its embedding space.

    ``source`` is a ``postgresql://`` URL, a ``psycopg_pool.AsyncConnectionPool``, or ``"embedded"``.
    Without ``layout`` the collection is a table of ours in ``schema``, created on first use; with
    one it is a table that exists, read as the layout says and written once :meth:`adopt` has been
    called. Records live in the table ``collections`` of the schema ``registry``. Reading needs
    ``SELECT`` on both tables. A transaction-mode pooler between here and the server is fine.
    ``mirrors`` are backends of further slots, which upserts fill too while the collection has them.
    ``canary_threshold`` is the smallest cosine at which a backend still counts as the one that filled
    the slot.
    """

    kind: ClassVar[str] = "pgvector"
    unseen_changes: ClassVar[str] = exposing.UNSEEN
    unreclaimed_space: ClassVar[str] = exposing.UNRECLAIMED

    def __init__(
        self,
        source: str | AsyncPool,
        *,
        collection: str,
        backend: AnyBackend | None = None,
        mirrors: Sequence[AnyBackend] = (),
        space: EmbeddingSpace | None = None,
        layout: Layout | None = None,
        schema: str = "public",
        index: Index | None = None,
        canary_threshold: float = CANARY_THRESHOLD,
        registry: str = "samespace",
    ) -> None:
        check_source(source)
        if layout is None:
            check_collection_name(collection)
        named = [] if layout is None else layout.names
        for part, name in [("collection", collection), *named]:
            check_identifier(name, what=part)
        self._asked_index = index or Index()
        super().__init__(
            collection=collection,
            space=space,
            backend=backend,
            mirrors=mirrors,
            layout=layout,
            canary_threshold=canary_threshold,
        )
        self._schema = check_identifier(schema, what="schema")
        self._registry = check_identifier(registry, what="registry")
        self._connections = AsyncConnections(source, adapt=_register)
        self._prepares = True

    async def _disconnect(self) -> None:
        await self._connections.close()

    def _reset(self) -> None:
        super()._reset()
        self._index = _supported(self._asked_index, self._space)

    # Statements

    @asynccontextmanager
    async def _cursor(self, *, prepares: bool = True) -> AsyncIterator[psycopg.AsyncCursor[Any]]:
        async with self._connections.lend() as cursor:
            connection = cursor.connection
            before = connection.prepare_threshold
            connection.prepare_threshold = before if prepares and self._prepares else None
            try:
                yield cursor
            finally:
                connection.prepare_threshold = before

    async def _rows(
        self, statement: tuple[bytes | composed.Composed, Mapping[str, Any]]
    ) -> list[tuple[Any, ...]]:
        """All rows that one statement answers."""
        query, parameters = statement

        async def read() -> list[tuple[Any, ...]]:
            async with self._connections.lend() as cursor:
                await cursor.execute(query, parameters, prepare=self._prepares)
                return await cursor.fetchall()

        return await self._repeated(read)

    async def _repeated(self, work: Callable[[], Awaitable[T]]) -> T:
        """What ``work`` returns; tried again where nothing but others' doings undid it."""
        for _ in range(ATTEMPTS - 1):
            try:
                return await work()
            except StoreError as error:
                if isinstance(error.__cause__, _UNPREPARED):
                    self._prepares = False  # a pooler that resets sessions forgets statements
                elif not isinstance(error.__cause__, _UNDONE):
                    raise
        return await work()

    async def _changed(self, statement: sql.Statement, **values: Any) -> int:
        """How many rows one statement changed."""
        query, parameters = statement

        async def change() -> int:
            async with self._cursor() as cursor:
                await cursor.execute(query, {**parameters, **values}, prepare=False)
                return cursor.rowcount

        return await self._repeated(change)

    @asynccontextmanager
    async def _transaction(
        self, *, prepares: bool = True
    ) -> AsyncIterator[psycopg.AsyncCursor[Any]]:
        async with self._cursor(prepares=prepares) as cursor, cursor.connection.transaction():
            yield cursor

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[psycopg.AsyncCursor[Any]]:
        """A transaction that is alone in changing this registry's collections."""
        async with self._transaction(prepares=False) as cursor:
            name = f"{LOCK_NAME}:{self._registry}"
            await cursor.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended(%s::text, 0))", (name,)
            )
            yield cursor

    # What the collection is

    async def _read(self, *, adopting: bool = False) -> _State:
        async def read() -> _State:
            async with self._cursor() as cursor:
                return await self._read_state(cursor, adopting=adopting)

        async def read_at_once() -> _State:
            async with self._transaction(prepares=False) as cursor:
                await cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", ())
                return await self._read_state(cursor, adopting=adopting)

        state = await self._repeated(read)
        if state.table is None or state.record is not None or self._claimed_layout is not None:
            return state
        return await self._repeated(read_at_once)  # it may have been dropped between two reads

    async def _describe_in(self, cursor: psycopg.AsyncCursor[Any]) -> _State:
        """Read anew, in the cursor's transaction, what the collection is, and keep it."""
        self._state = await self._read_state(cursor)
        return self._state

    async def _read_state(
        self, cursor: psycopg.AsyncCursor[Any], *, adopting: bool = False
    ) -> _State:
        found = await self._read_catalog(cursor)
        lacks_registry = diagnosis.grants(
            self._registry,
            "collections",
            may_enter=found.may_enter_registry is not False,
            may_read=found.may_read_records is not False,
        )
        has_records = found.may_read_records is not None and not self._reads_by_claim
        record, neighbours = (
            await self._read_records(cursor, found, adopting=adopting)
            if has_records and not lacks_registry
            else (None, {})
        )
        is_claimed = adopting and self._claimed_layout is not None
        table = self._table(found.types, None if is_claimed else record) if found.oid else None
        return _State(
            table=table,
            record=record,
            neighbours=neighbours,
            indexes=tuple(tuple(index) for index in orjson.loads(found.indexes or b"[]")),
            vector_oid=found.vector_oid or 0,
            cheap_pages=found.cheap_pages,
            has_registry=found.may_read_records is not None,
            lacks_registry=lacks_registry,
            lacks_rows=diagnosis.grants(
                self._schema,
                self._collection,
                may_enter=found.may_enter_schema is not False,
                may_read=found.may_read_table is not False,
            ),
            read_at=time.monotonic(),
        )

    async def _read_catalog(self, cursor: psycopg.AsyncCursor[Any]) -> sql.Catalog:
        """What the catalog says; :class:`StoreRejected` for a pgvector that cannot be worked with."""
        names = {"schema": self._schema, "name": self._collection, "registry": self._registry}
        await cursor.execute(sql.CATALOG, names, prepare=False)
        ((*facts,),) = await cursor.fetchall()
        found = sql.Catalog(*facts)
        self._check_version(found.version, exists=found.oid is not None)
        if found.hidden is not None:
            raise _rejected(diagnosis.hidden(found.hidden))
        return found

    async def _read_records(
        self, cursor: psycopg.AsyncCursor[Any], found: sql.Catalog, *, adopting: bool
    ) -> tuple[SpaceRecord | None, Mapping[str, SpaceRecord]]:
        """This collection's record; without one, or adopting, those of the table's others, too."""
        key = self._key(found.types)
        record = await self._read_record(cursor, key, adopting=adopting)
        if found.oid is None or not (record is None or adopting):
            return record, {}
        neighbours = await self._read_neighbours(cursor, key)
        if record is None and self._claimed_layout is None and len(neighbours) == 1:
            (record,) = neighbours.values()  # the one collection of the table that was adopted
        return record, neighbours

    def _key(self, columns: Mapping[str, str]) -> _Key:
        """Where this collection's record is in the registry."""
        return self._schema, self._collection, scope_key(self._claimed_layout, columns)

    async def _read_record(
        self, cursor: psycopg.AsyncCursor[Any], key: _Key, *, adopting: bool
    ) -> SpaceRecord | None:
        """The record; one that cannot be read is none to who is adopting."""
        await cursor.execute(sql.read_record(self._registry), key, prepare=False)
        row = await cursor.fetchone()
        try:
            return self._parsed(row[0], self._scope) if row is not None else None
        except UnreadableRecord:
            if not adopting:
                raise
            return None

    async def _read_neighbours(
        self, cursor: psycopg.AsyncCursor[Any], key: _Key
    ) -> dict[str, SpaceRecord]:
        await cursor.execute(sql.read_neighbours(self._registry), key, prepare=False)
        return {scope: self._parsed(record) for scope, record in await cursor.fetchall()}

    def _parsed(self, record: str, scope: Sequence[str] = ()) -> SpaceRecord:
        values = orjson.loads(record)
        return SpaceRecord.from_dict(values, collection=self._collection, scope=scope)

    def _check_version(self, version: str | None, *, exists: bool) -> None:
        if version is None:
            if exists:
                raise StoreRejected(
                    "the database lacks the extension vector; run CREATE EXTENSION vector"
                )
            return
        judged = diagnosis.version(version)
        if judged.level is Level.PROBLEM:
            raise _rejected(judged)
        if judged.level is Level.WARNING and not self._warned:
            self._warned = True
            logger.warning("%s; %s", judged.what, judged.mend)

    def _table(self, columns: Mapping[str, str], record: SpaceRecord | None) -> Table:
        claimed = self._claimed_layout
        if record is not None and record.layout is not None:
            text = None if claimed is None or isinstance(claimed.text, str) else claimed.text
            layout = Layout.from_dict(dict(record.layout), text=text)
        else:
            layout = claimed if record is None and claimed else own_layout(self._space)
        return Table(
            schema=self._schema,
            name=self._collection,
            layout=layout,
            own=claimed is None if record is None else record.layout is None,
            columns=MappingProxyType(dict(columns)),
        )

    async def _existing_table(self) -> tuple[Table, _State]:
        """The table, for what concerns no vectors; :class:`CollectionNotFound` if there is none."""
        state = await self._known_to_exist()
        assert state.table is not None  # noqa: S101  that is what exists means
        return state.table, state

    def _not_found(self) -> CollectionNotFound:
        return CollectionNotFound(
            f"there is no collection {excerpt(self._collection)} in schema {excerpt(self._schema)}; "
            "check the name, or call create()"
        )

    def _check_registry(self, state: _State) -> None:
        """:class:`StoreRejected` with the rights that reading records takes, likewise."""
        if state.lacks_registry:
            self._state = None
            raise StoreRejected(
                f"this role may not read the record of collection {excerpt(self._collection)}; "
                f"have {state.lacks_registry} run for it"
            )

    def _slot_of(self, state: _State, *, writing: bool) -> SlotRecord:
        slot = super()._slot_of(state, writing=writing)
        self._check_rights(state)
        return slot

    def _check_rights(self, state: _State) -> None:
        """:class:`StoreRejected` with the rights that reading takes, where the role lacks some."""
        if state.lacks_rows:
            self._state = None  # they may be granted at any time
            raise StoreRejected(
                f"this role may not read collection {excerpt(self._collection)}; "
                f"have {state.lacks_rows} run for it"
            )

    def _holds(self, state: _State, name: str) -> bool:
        return state.table is not None and name in state.table.sizes

    def _has(self, state: _State, name: str) -> bool:
        return state.table is not None and name in state.table.columns

    def _sizes(self, state: _State) -> Mapping[str, int | None]:
        return state.table.sizes if state.table is not None else {}

    def _check_claim(self, state: _State) -> None:
        table = state.table
        assert table is not None  # noqa: S101  callers have looked
        table.check_layout(self._space)
        for scope, record in state.neighbours.items():
            others = tuple(
                slot
                for slot in record.slots
                if slot.name == table.layout.slot and slot.space != self._space
            )
            if others and can_share_rows(scope, table.scope_key, table.columns):
                raise mismatch(SpaceRecord(slots=others), self._space, collection=self._collection)

    def _unrecorded(self, state: _State) -> SpaceUnknown:
        self._check_registry(state)
        if state.neighbours and self._claimed_layout is None:
            scopes = "; ".join(map(scope_shown, sorted(state.neighbours)))
            return SpaceUnknown(
                f"{len(state.neighbours)} collections of table {excerpt(self._collection)} have records, "
                f"each for its scope: {scopes}; pass layout= with the scope "
                "of one (--scope column=value)"
            )
        claimed = self._claims_slot
        return missing_record(self._collection, claimed=claimed, scope=self._scope)

    def _recorded_table(self, state: _State) -> tuple[SpaceRecord, Table]:
        """Record and table of a collection that has both."""
        record = self._recorded(state)
        assert state.table is not None  # noqa: S101  that is what exists means
        return record, state.table

    def _lost(self, slot: SlotRecord) -> SpaceUnknown:
        return lost_slot(slot, collection=self._collection, place="column", scope=self._scope)

    # Creating, dropping, adopting

    async def _make(self, slot: SlotRecord) -> bool:
        async with self._locked() as cursor:
            state = await self._describe_in(cursor)
            if state.table is None:
                await self._create(cursor, state, slot)
            return state.table is None

    async def _create(
        self, cursor: psycopg.AsyncCursor[Any], state: _State, slot: SlotRecord
    ) -> None:
        await self._prepare_database(cursor, state)
        table = Table(
            schema=self._schema,
            name=self._collection,
            layout=own_layout(self._space),
            own=True,
            columns={"metadata": "jsonb"},
        )
        for statement in sql.create_table(table, self._space):
            await cursor.execute(statement, ())
        for statement in sql.create_trigger(table, self._registry, [slot.name]):
            await cursor.execute(statement, ())
        if self._index.build == "immediate" and self._index.kind == "hnsw":
            await cursor.execute(
                sql.create_index(table, slot.name, self._space, self._index, concurrently=False), ()
            )
            await cursor.execute(sql.create_metadata_index(table, concurrently=False), ())
        await self._save(cursor, table, SpaceRecord(slots=(slot,)))

    async def _prepare_database(self, cursor: psycopg.AsyncCursor[Any], state: _State) -> None:
        """Extension, registry and schema, where they are missing; under the lock."""
        self._check_registry(state)
        await cursor.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'", ())
        if not await cursor.fetchall():
            await cursor.execute("CREATE EXTENSION IF NOT EXISTS vector", ())
        for schema in (self._registry, self._schema):
            await cursor.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,))
            if not await cursor.fetchall():
                await cursor.execute(sql.create_schema(schema), ())
        if not state.has_registry:
            await cursor.execute(sql.create_registry(self._registry), ())

    async def _save(
        self, cursor: psycopg.AsyncCursor[Any], table: Table, record: SpaceRecord
    ) -> None:
        check_distinct_ids(slot.space for slot in record.slots)
        data = Json(orjson.dumps(record.to_dict()))
        key = (self._schema, self._collection, table.scope_key)
        await cursor.execute(sql.write_record(self._registry), (*key, data))

    async def drop(self) -> None:
        """Remove the collection with all its slots; refused on one that was adopted."""
        async with self._locked() as cursor:
            state = await self._describe_in(cursor)
            if state.table is None:
                raise self._not_found()
            if not state.table.own:
                raise InvalidInput(
                    f"collection {excerpt(self._collection)} was adopted, not made here; "
                    "drop the table with the tool that made it"
                )
            self._slot_of(state, writing=True)
            await cursor.execute(sql.drop_table(state.table), ())
            await cursor.execute(sql.drop_trigger(state.table, self._registry), ())
            key = (self._schema, self._collection, "")
            await cursor.execute(sql.delete_record(self._registry), key)
        self._state = None

    async def adopt(self, *, canary: bool = True) -> None:
        """Record which space an existing table holds, as this handle's layout and space claim.

        Nothing in the table changes. With ``canary`` and a backend its canary is kept, so that
        another model under the same name is noticed. Of a table adopted before the layout is
        replaced, where it is another one of the same slot; a record that cannot be read, or whose
        columns or slots are not there any more, is written anew, and a table of ours that lost its own
        has it again. :class:`SpaceMismatch` where a record says that the same rows' vectors are of
        another space, :class:`InvalidInput` where rows are in another record's scope, or a vector has
        a size or a norm that the space's cannot have; every row is looked at.
        """
        layout = self._layout_to_adopt()
        made = await self._own_canary(self._space) if canary else None
        async with self._locked() as cursor:
            state = await self._read_state(cursor, adopting=True)
            table, wanted = await self._checked_claim(cursor, state, layout)
            if wanted is not None and wanted is state.record:
                return
            self._warn_of_replacing(state, layout)
            await self._prepare_database(cursor, state)
            slot = replace(await self._new_slot(self._space, made), name=layout.slot)
            kept = None if table.made_here(self._space) else layout.to_dict()
            await self._save(cursor, table, wanted or SpaceRecord(slots=(slot,), layout=kept))
        await self._describe()

    async def check_adoptable(self) -> None:
        """Look at the table and at every row as :meth:`adopt` does, raise what it would, write nothing."""
        layout = self._layout_to_adopt()
        async with self._transaction(prepares=False) as cursor:
            state = await self._read_state(cursor, adopting=True)
            await self._checked_claim(cursor, state, layout)

    async def _checked_claim(
        self, cursor: psycopg.AsyncCursor[Any], state: _State, layout: Layout
    ) -> tuple[Table, SpaceRecord | None]:
        """The table, and what to record of it, None for a record of this claim; or the refusal."""
        table = state.table
        if table is None:
            raise self._not_found()
        self._check_rights(state)
        self._check_registry(state)
        wanted = self._adopted_before(state, layout)
        if wanted is not None and wanted is state.record:
            return table, wanted
        self._check_claim(state)
        if wanted is None and table.slots_by_name() and not table.made_here(self._space):
            raise lost_record(self._collection)
        self._check_alone(state, table)
        await self._check_key(cursor, table)
        await self._check_sizes(cursor, table)
        await self._check_norms(cursor, table)
        return table, wanted

    async def _slots_left(self, state: _State) -> list[str]:
        assert state.table is not None  # noqa: S101  callers have looked
        recorded = [slot.name for slot in state.record.slots] if state.record else []
        left = [name for name in recorded if name in state.table.columns]
        more = state.table.slots_by_name() if state.table.own else []
        if state.record is None and state.neighbours and not more:
            raise self._unrecorded(state)  # which says that one is to be chosen
        return [*left, *(name for name in more if name not in left)]

    async def _rebuild(self, spaces: Sequence[EmbeddingSpace]) -> dict[str, int]:
        pending: dict[str, int] = {}

        async def change(cursor: psycopg.AsyncCursor[Any], state: _State) -> None:
            if state.table is None:
                raise self._not_found()
            found = self._rebuilt(state.record, await self._slots_left(state), spaces)
            for slot in found.slots:
                await cursor.execute(*sql.count_pending(state.table, [slot.name], None))
                ((pending[slot.name],),) = await cursor.fetchall()
            if found != state.record:
                await self._prepare_database(cursor, state)
                await self._save(cursor, state.table, with_states(found, state.record, pending))
            if not await self._is_watched(cursor, state.table, found):
                await self._watch_texts(cursor, state.table, found)

        await self._alter(change, adopting=True)
        return pending

    async def _watch_texts(
        self, cursor: psycopg.AsyncCursor[Any], table: Table, record: SpaceRecord
    ) -> None:
        """The trigger of these slots, in place of one that names others."""
        await cursor.execute(sql.drop_trigger(table, self._registry), ())
        if names := _watched(table, record):
            await self._make_trigger(cursor, table, names)

    async def _make_trigger(
        self, cursor: psycopg.AsyncCursor[Any], table: Table, slots: Sequence[str]
    ) -> None:
        """The trigger of these slots; its function is the table owner's, as the trigger is."""
        for statement in sql.create_trigger(table, self._registry, slots):
            await cursor.execute(statement, ())
        await cursor.execute(sql.HEIR, sql.trigger_parameters(table, self._registry))
        for (heir,) in await cursor.fetchall():
            await cursor.execute(sql.give_function(table, self._registry, heir), ())

    async def _is_watched(
        self, cursor: psycopg.AsyncCursor[Any], table: Table, record: SpaceRecord
    ) -> bool:
        """Whether the trigger of these slots is as it was made, or none is wanted and there."""
        await cursor.execute(sql.TRIGGER, sql.trigger_parameters(table, self._registry))
        names = _watched(table, record)
        wanted = [sql.trigger_body(table, names)] if names else []
        return [body for (body,) in await cursor.fetchall()] == wanted

    async def _rewrite(self, change: Callable[[SpaceRecord], SpaceRecord]) -> None:
        async with self._locked() as cursor:
            record, table = self._recorded_table(await self._describe_in(cursor))
            await self._save(cursor, table, change(record))
        await self._describe()

    def _check_alone(self, state: _State, table: Table) -> None:
        """:class:`InvalidInput` where rows are in the scope of another record that is true."""
        shared = [
            scope
            for scope, record in state.neighbours.items()
            if can_share_rows(scope, table.scope_key, table.columns)
            and not outdated(record, table.columns.__contains__, table.sizes)
        ]
        if shared:
            raise overlapping(map(scope_shown, shared), collection=self._collection)

    async def _check_key(self, cursor: psycopg.AsyncCursor[Any], table: Table) -> None:
        names = {"schema": table.schema, "name": table.name, "id": table.layout.id}
        await cursor.execute(sql.UNIQUE_KEY, names)
        ((unique,),) = await cursor.fetchall()
        table.check_key(unique=unique)

    async def _check_sizes(self, cursor: psycopg.AsyncCursor[Any], table: Table) -> None:
        """:class:`InvalidInput` that names the rows whose vectors have another size than the space's."""
        slot, size = table.layout.slot, self._space.dimensions
        if table.sizes[slot] is not None:
            return
        await cursor.execute(*sql.sizes(table, size))
        odd = [diagnosis.sized_rows(*row) for row in await cursor.fetchall()]
        if odd:
            obligatory = slot in await self._obligatory(cursor, table, [slot])
            raise InvalidInput(
                f"{self._space} has {size} dimensions, and column {excerpt(slot)} of table "
                f"{excerpt(table.name)} has vectors of other sizes: {'; '.join(odd)}. Name the space of "
                "the stored vectors, or pick its rows with Layout.scope (--scope); or delete such rows, or "
                "empty them, to be filled once the table is adopted: "
                f"{sql.emptying(table, size, obligatory=obligatory)}"
            )

    async def _check_norms(self, cursor: psycopg.AsyncCursor[Any], table: Table) -> None:
        """:class:`InvalidInput` if a row's vector is not of unit norm where the space's are."""
        if not self._space.normalized:
            return
        await cursor.execute(*sql.off_unit_norm(table))
        for id, norm in await cursor.fetchall():
            raise InvalidInput(
                f"column {excerpt(table.layout.slot)} of row {excerpt(id)} has a vector of norm "
                f"{norm:.6g}, and {self._space} is normalized; adopt it with a space that has "
                "normalized=False, or bring the rows to unit norm (l2_normalize)"
            )

    async def _count_pending(self, slot: SlotRecord) -> int:
        table, _ = await self._existing_table()
        found = await self._rows(sql.count_unfilled(table, slot.name, slot.space))
        return int(found[0][0])

    async def _count_alone(self, slot: SlotRecord, other: SlotRecord) -> int:
        async with self._gone_explained():
            table, _ = await self._existing_table()
            found = await self._rows(sql.count_alone(table, slot.name, other.name, other.space))
        return int(found[0][0])

    # Writing

    def _check_row(self, document: Document) -> None:
        if self._state is not None and self._state.table is not None:
            self._state.table.check_document(document)

    async def _existing(self, ids: Sequence[str]) -> set[str]:
        table, _ = await self._existing_table()
        return {row[0] for row in await self._rows(sql.existing(table, ids))}

    async def _write(self, rows: Sequence[Row], on_conflict: OnConflict) -> Written:
        async with self._gone_explained():
            table, state = await self._existing_table()
            slot = self._slot_of(state, writing=True)
            conflicts: set[str] = set()
            for (present, mirrored), group in _alike(table, rows).items():
                names = [slot.name, *(slot_name(state, space) for space in mirrored)]
                statement = sql.insert(
                    table, names, overwrite=on_conflict == "overwrite", present=present
                )
                asks = on_conflict != "overwrite" or table.layout.scope is not None
                written = await self._inserted(statement, group, state.vector_oid)
                conflicts |= {row.document.id for row in group} - written if asks else set()
            pending = await self._pending_among(table, state, rows)
        return Written(frozenset(conflicts), pending)

    async def _inserted(
        self, statement: composed.Composed, rows: Sequence[Row], vector_oid: int
    ) -> set[str]:
        """Write rows in key order, so that writers of the same rows wait in one order; their ids."""
        ordered = [_for_sql(row) for row in sorted(rows, key=lambda row: row.document.id)]
        answers = await self._pipelined(
            statement, ordered, lambda part: sql.insert_parameters(part, vector_oid)
        )
        return {row[0] for row in answers}

    async def _pipelined(
        self,
        statement: composed.Composed,
        rows: Sequence[Item],
        parameters: Callable[[Sequence[Item]], Mapping[str, Any]],
    ) -> list[tuple[Any, ...]]:
        """What one statement answers for all rows, a part at a time, in one implicit transaction.

        A part is packed while the server works at the one before.
        """

        async def write() -> list[tuple[Any, ...]]:
            async with self._cursor() as cursor:
                packed = map(parameters, _parts(rows, sql.ROWS_PER_STATEMENT))
                await cursor.executemany(statement, packed, returning=True)
                return await _all_rows(cursor)

        return await self._repeated(write)

    async def _pending_among(self, table: Table, state: _State, rows: Sequence[Row]) -> int:
        slots = state.record.slots if state.record else ()
        if len(slots) < 2 and all(row.vector is not None for row in rows):
            return 0
        ids = [row.document.id for row in rows]
        names = [slot.name for slot in slots]
        found = await self._rows(sql.count_pending(table, names, ids))
        return int(found[0][0])

    async def _written(self) -> None:
        """Build the index once the collection is large enough for one, and nothing more is coming."""
        if self._bulks:
            return
        table, state = await self._existing_table()
        wanted = self._index.kind == "hnsw" and self._index.build == "auto" and table.own
        if not wanted or self._is_indexed(state, self._space):
            return
        if await self._rows(sql.has_rows(table, sql.AUTO_INDEX_ROWS)):
            try:
                await self.build_index()
            except StoreRejected as error:
                logger.warning("the index was not built: %s", error)

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
        patches = check_changes(changes, where)
        table, state = await self._existing_table()
        slot = self._slot_of(state, writing=True).name
        async with self._gone_explained():
            if where is not None:
                return await self._changed_where(table, slot, patches[""], where, merge=merge)
            stored = await self._named(table, patches)
            changed = 0
            for keys, ids in _by_keys(table, patches, stored, merge=merge).items():
                for part in _parts(ids, sql.ROWS_PER_STATEMENT):
                    some = {id: patches[id] for id in part}
                    statement = sql.update_metadata_of(table, slot, some, keys, merge=merge)
                    changed += await self._changed(statement)
            return changed

    async def _changed_where(
        self, table: Table, slot: str, patch: bytes, where: Filter, *, merge: bool
    ) -> int:
        """How many rows that pass were given one patch."""
        metadata = decode_metadata(patch)
        table.check_metadata(metadata, None)
        if not table.changed(metadata, merge=merge):
            return 0
        statement = sql.update_metadata(table, slot, metadata, where, merge=merge)
        return await self._changed(statement, patch=Json(patch))

    async def _named(
        self, table: Table, patches: Mapping[str, bytes]
    ) -> dict[str, Document | None]:
        """The documents whose patches name columns of their other parts; None if not stored."""
        owned = table.owned.intersection(table.layout.metadata_columns)
        if not owned:
            return {}
        ids = [id for id, patch in patches.items() if owned.intersection(decode_metadata(patch))]
        return {**dict.fromkeys(ids), **{found.id: found for found in await self.get(ids)}}

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
        table, state = await self._existing_table()
        slot = self._slot_of(state, writing=True).name
        async with self._gone_explained():
            return await self._changed(sql.delete(table, slot, ids=ids, where=where, parent=parent))

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
            state = self._state
            if state is None or state.table is None:
                raise self._not_found()
            # Without a filter it is kept: putting one together takes as long as a short search.
            key = (slot.name, limit, with_vectors)
            search = state.searches.get(key) if where is None else None
            if search is None:
                search = _Search(
                    sql.Search(
                        table=state.table,
                        slot=slot.name,
                        space=slot.space,
                        opclass=_opclass(state, slot.name),
                        cheap_pages=state.cheap_pages,
                        limit=limit,
                        where=where,
                        with_vectors=with_vectors,
                    )
                )
                if where is None:
                    state.searches[key] = search
            found = [await self._found(search, vector, limit) for vector in vectors]
        return [self._hits(state.table, rows) for rows in found]

    async def _found(self, search: _Search, vector: Vector, limit: int) -> list[tuple[Any, ...]]:
        """The nearest rows; a walk through the graph that ends too early is done again, exactly."""
        rows: list[tuple[Any, ...]] = []
        for way in search.ways:
            settings, query, parameters = search.statements(way)
            rows = await self._search_rows(settings, query, {**parameters, "query": vector})
            if len(rows) >= limit:
                break
        return rows

    async def _search_rows(
        self,
        settings: bytes | None,
        query: bytes,
        parameters: Mapping[str, Any],
    ) -> list[tuple[Any, ...]]:
        """A search, with its settings in the same round trip and implicit transaction."""
        if settings is None:
            return await self._rows((query, parameters))

        async def search() -> list[tuple[Any, ...]]:
            async with self._cursor() as cursor:
                async with cursor.connection.pipeline():
                    prepare = self._prepares or None
                    await cursor.execute(settings, (), prepare=prepare)
                    await cursor.execute(query, parameters, prepare=prepare)
                return await _last_rows(cursor)

        return await self._repeated(search)

    def _hits(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> list[Hit]:
        documents = self._documents(table, rows)
        hits = [
            Hit(
                document,
                max(-1.0, min(1.0, 1.0 - row[8])),
                load_vector(row[9]) if len(row) > 9 else None,
            )
            for document, row in zip(documents, rows, strict=True)
            if not isnan(row[8])  # of a vector without direction, which only others store
        ]
        hits.sort(key=_score, reverse=True)
        return hits

    def _documents(
        self, table: Table, rows: Sequence[tuple[Any, ...]], *, vectors_at: int | None = None
    ) -> list[Document]:
        if not table.own and any(row[0] is None for row in rows):
            raise StoreRejected(
                f"column {excerpt(table.layout.id)} of table {excerpt(table.name)} is NULL in some rows, "
                "which so have no id: name another column in Layout.id (--id), or give those rows a key"
            )
        if table.external_text:
            texts = looked_up(table.layout.text, [row[0] for row in rows])
        else:
            texts = [row[1] or "" for row in rows]
        if vectors_at is None:
            return [_document(row, text) for row, text in zip(rows, texts, strict=True)]
        return [
            _document(row, text, load_vector(row[vectors_at]))
            for row, text in zip(rows, texts, strict=True)
        ]

    async def get(self, ids: Sequence[str], *, with_vectors: bool = False) -> list[Document]:
        """The documents with these ids, in that order; ids that are not stored are left out."""
        check_ids(ids)
        async with self._gone_explained():
            table, state = await self._existing_table()
            slot = self._slot_of(state, writing=False).name if with_vectors else None
            rows = await self._rows(sql.get(table, ids, slot))
        documents = self._documents(table, rows, vectors_at=8 if with_vectors else None)
        found = {document.id: document for document in documents}
        return [found[id] for id in ids if id in found]

    async def count(self, where: Filter | None = None) -> int:
        """How many documents pass."""
        check_filter(where)
        async with self._gone_explained():
            table, _ = await self._existing_table()
            rows = await self._rows(sql.count(table, where))
        return int(rows[0][0])

    async def scan(
        self, *, where: Filter | None = None, batch_size: int = 500, with_vectors: bool = False
    ) -> AsyncIterator[Document]:
        """Every document that passes, in key order; one present throughout comes exactly once."""
        check_filter(where)
        check_limit(batch_size, what="batch_size")
        after: str | None = None
        while True:
            async with self._gone_explained():
                table, state = await self._existing_table()
                slot = self._slot_of(state, writing=False).name if with_vectors else None
                statement = sql.scan(table, where, after=after, limit=batch_size, slot=slot)
                rows = await self._rows(statement)
            for document in self._documents(table, rows, vectors_at=8 if with_vectors else None):
                yield document
            if len(rows) < batch_size:
                return
            after = rows[-1][0]

    async def values(
        self,
        field: str | Field,
        *,
        where: Filter | None = None,
        limit: int = 100,
        after: Any = None,
    ) -> list[tuple[Any, int]]:
        """The distinct values of a metadata field with their number of documents.

        A document with a list counts for each of its elements. In JSON's order of the store;
        ``after`` goes on behind the last value seen.
        """
        check_filter(where)
        check_limit(limit)
        target, path = target_of(field)
        later = Json(encode_value(after, what="after")) if after is not None else None
        async with self._gone_explained():
            table, _ = await self._existing_table()
            rows = await self._rows(
                sql.values(table, target, path, where, limit=limit, after=later)
            )
        return [(orjson.loads(value), count) for value, count in rows]

    # Slots

    async def add_slot(
        self,
        space: EmbeddingSpace,
        *,
        canary: Canary | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> None:
        """Add an empty slot for ``space`` to the same rows, to be filled.

        The only method that alters a table we did not make: it adds columns, drops NOT NULL on the
        other slots, and installs the trigger that empties a slot when its row's text changes.
        """
        check_fit(canary, check_space(space))
        check_provenance(provenance)
        canary = canary or await self._own_canary(space)
        slot = await self._empty_slot(space, canary, provenance)

        async def change(cursor: psycopg.AsyncCursor[Any], state: _State) -> None:
            record, table = self._recorded_table(state)
            if record.find(space) is not None:
                return
            check_distinct_ids([space, *(other.space for other in record.slots)])
            wanted = record.with_slot(slot)
            if not await self._is_prepared(cursor, table, wanted):
                await self._add_columns(cursor, table, record, slot)
            await self._save(cursor, table, wanted)

        await self._alter(change)

    async def _add_columns(
        self, cursor: psycopg.AsyncCursor[Any], table: Table, record: SpaceRecord, slot: SlotRecord
    ) -> None:
        others = [other.name for other in record.slots]
        obligatory = await self._obligatory(cursor, table, others)
        await cursor.execute(sql.add_columns(table, slot.space, others), ())
        for name in obligatory:
            await cursor.execute(sql.note_obligatory(table, name), ())
        if not table.external_text:
            await self._try_text(cursor, table)
            await self._make_trigger(cursor, table, [*others, slot.name])

    async def _is_prepared(
        self, cursor: psycopg.AsyncCursor[Any], table: Table, record: SpaceRecord
    ) -> bool:
        """Whether the slots of a record have all that they take, as after what :meth:`ddl` prints."""
        slots = [slot.name for slot in record.slots]
        if not all(slot in table.columns and table.has_source(slot) for slot in slots):
            return False
        if (await self._facts_in(cursor, table)).obligatory.intersection(slots):
            return False
        return table.external_text or await self._is_watched(cursor, table, record)

    async def ddl(self, space: EmbeddingSpace) -> list[str]:
        """The statements that :meth:`add_slot` and :meth:`build_index` run as the table's owner.

        Once they are run by somebody else, a role without that right may add the slot and fill it. The last
        one, the index, is best run when the slot is filled. None are needed for a slot that is there.
        """
        check_space(space)
        record, table = self._recorded_table(await self._describe())
        if record.find(space) is not None:
            return []
        others = [slot.name for slot in record.slots]
        async with self._transaction(prepares=False) as cursor:
            obligatory = await self._obligatory(cursor, table, others)
        slot = [sql.add_columns(table, space, others)]
        slot += [sql.note_obligatory(table, name) for name in obligatory]
        if not table.external_text:
            slot += sql.create_trigger(table, self._registry, [*others, space.id])
        timeout = composed.Literal(DDL_LOCK_TIMEOUT_MS)
        statements = [composed.SQL("SET lock_timeout = {}").format(timeout), *slot]
        if self._index.kind == "hnsw":
            index = _supported(self._index, space)
            statements.append(
                composed.SQL("RESET lock_timeout").format()
            )  # a build waits for others
            statements.append(sql.create_index(table, space.id, space, index, concurrently=True))
        return [each.as_string(None).replace("%%", "%") for each in statements]

    async def _try_text(self, cursor: psycopg.AsyncCursor[Any], table: Table) -> None:
        """:class:`InvalidInput` for a text that would make every change of a row fail."""
        try:
            await cursor.execute(sql.try_text(table), ())
        except (psycopg.ProgrammingError, psycopg.DataError) as error:
            said = excerpt(error.diag.message_primary or type(error).__name__)
            raise InvalidInput(
                f"Layout.text fails for a row by itself: {said}; a TextQuery may use the table's "
                "columns alone, with or without the table's name before them"
            ) from error

    async def drop_slot(
        self, space: EmbeddingSpace, *, keeps: EmbeddingSpace | None = None
    ) -> None:
        """Remove the slot of ``space`` and its vectors; the last slot cannot go.

        ``keeps`` is the space of the slot that rows go on with: :class:`~samespace.errors.MigrationError`,
        and nothing is dropped, while one has a vector in that of ``space`` alone. Writers wait
        while these are counted, so that none is written meanwhile; readers do not.

        Where several collections share a table, a column that others may use stays, and is empty
        in this collection's rows. What :meth:`add_slot` has changed of the last slot of a table that we
        did not make is undone: its source and the trigger go, and NOT NULL comes back, unless rows are
        without a vector by then, which a warning says.
        """
        check_space(space)
        check_other(space, keeps, what="keeps")

        async def change(cursor: psycopg.AsyncCursor[Any], state: _State) -> None:
            record, table = self._recorded_table(state)
            slot = record.require(space, collection=self._collection)
            left = record.without(space)
            if keeps is not None:
                kept = record.require(keeps, collection=self._collection)
                await self._check_none_alone(cursor, table, slot, kept)
            if await self._is_shared(cursor, table, slot):
                await cursor.execute(*sql.empty_columns(table, slot.name))
            else:
                await cursor.execute(sql.drop_columns(table, slot.name), ())
            table = await self._undone(cursor, table, left)
            await self._watch_texts(cursor, table, left)
            await self._save(cursor, table, left)

        await self._alter(change)

    async def _check_none_alone(
        self, cursor: psycopg.AsyncCursor[Any], table: Table, slot: SlotRecord, kept: SlotRecord
    ) -> None:
        await cursor.execute(sql.lock_out_writers(table), ())
        await cursor.execute(*sql.count_alone(table, slot.name, kept.name, kept.space))
        ((alone,),) = await cursor.fetchall()
        if alone:
            raise lone_vectors(slot.space, kept.space, collection=self._collection, alone=alone)

    async def _obligatory(
        self, cursor: psycopg.AsyncCursor[Any], table: Table, slots: Sequence[str]
    ) -> list[str]:
        """The slots of columns that are NOT NULL, and have no source yet to note that beside."""
        asked = [slot for slot in slots if not table.has_source(slot)]
        names = {"schema": table.schema, "name": table.name, "slots": asked}
        await cursor.execute(sql.OBLIGATORY, names)
        return [name for (name,) in await cursor.fetchall()]

    async def _undone(
        self, cursor: psycopg.AsyncCursor[Any], table: Table, left: SpaceRecord
    ) -> Table:
        """The table without what slots have changed of the only one that is left, if others made it."""
        (slot, *more) = left.slots
        if more or not table.is_foreign(slot.name, slot.space) or not table.has_source(slot.name):
            return table
        key = (self._schema, self._collection, table.scope_key)
        beside = await self._read_neighbours(cursor, key)
        if any(len(record.slots) > 1 for record in beside.values()):
            return table
        source = source_name(slot.name)
        names = {"schema": table.schema, "name": table.name, "column": source}
        await cursor.execute(sql.COMMENT, names)
        ((comment,),) = await cursor.fetchall()
        await cursor.execute(sql.drop_source(table, slot.name), ())
        if comment == sql.WAS_OBLIGATORY:
            await self._require_vectors(cursor, table, slot.name)
        columns = {name: kind for name, kind in table.columns.items() if name != source}
        return replace(table, columns=columns)

    async def _require_vectors(
        self, cursor: psycopg.AsyncCursor[Any], table: Table, slot: str
    ) -> None:
        """NOT NULL again, where it holds; else say what keeps it away."""
        statement = sql.require_vectors(table, slot)
        await cursor.execute(sql.count_empty(table, slot), ())
        ((empty,),) = await cursor.fetchall()
        if not empty:
            await cursor.execute(statement, ())
            return
        logger.warning(
            "column %s of table %s was NOT NULL before slots were added, and %s without a vector now; "
            "fill them (pending(), fill()), then run %s",
            excerpt(slot),
            excerpt(table.name),
            "1 row is" if empty == 1 else f"{empty} rows are",
            statement.as_string(None).replace("%%", "%"),
        )

    async def _is_shared(
        self, cursor: psycopg.AsyncCursor[Any], table: Table, slot: SlotRecord
    ) -> bool:
        """Whether another collection in the table has this slot, or may have it unrecorded."""
        if table.layout.scope is not None and table.is_foreign(slot.name, slot.space):
            return True
        key = (self._schema, self._collection, table.scope_key)
        records = await self._read_neighbours(cursor, key)
        return any(slot.name == other.name for record in records.values() for other in record.slots)

    async def _alter(self, change: Any, *, adopting: bool = False) -> None:
        """Change the table under a short lock timeout, again and again: a waiting DDL blocks all."""
        for attempt in range(DDL_ATTEMPTS):
            try:
                async with self._locked() as cursor:
                    await cursor.execute(
                        composed.SQL("SET LOCAL lock_timeout = {}").format(
                            composed.Literal(DDL_LOCK_TIMEOUT_MS)
                        ),
                        (),
                    )
                    await change(cursor, await self._read_state(cursor, adopting=adopting))
                await self._describe()
            except StoreUnavailable as error:
                if not isinstance(error.__cause__, pg.LockNotAvailable):
                    raise
                if attempt == DDL_ATTEMPTS - 1:
                    raise StoreUnavailable(
                        f"table {excerpt(self._collection)} stays locked by other transactions; end "
                        "those that are idle in transaction, and try again"
                    ) from error
                if attempt + 1 == DDL_QUIET_ATTEMPTS:
                    logger.warning(
                        "table %s is locked by other transactions; trying again, up to %d times: end "
                        "those that are idle in transaction",
                        excerpt(self._collection), DDL_ATTEMPTS,
                    )  # fmt: skip
                await asyncio.sleep(0.25)
            else:
                return

    async def _table_of(self, space: EmbeddingSpace) -> tuple[Table, SlotRecord]:
        """The table, and its slot of any space of this collection."""
        return self._readable(*await self._slot_named(space))

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
        """The next rows in key order whose slot is empty, and the cursor to go on from.

        ``shard`` is ``(i, n)``, the i-th of n disjoint parts. The cursor is None at the end.
        """
        check_page(limit, after, shard, where, with_vectors_of)
        async with self._gone_explained():
            table, slot = await self._table_of(space)
            others = await self._table_of(with_vectors_of) if with_vectors_of else None
            statement = sql.pending(
                table, slot.name, space, limit=limit, after=after, shard=shard, where=where,
                vectors_of=others[1].name if others else None,
            )  # fmt: skip
            found = await self._rows(statement)
        rows = self._versioned_rows(table, found)
        if others is not None:
            rows = _vouched(*others, rows, [row[10] for row in found])
        return rows, found[-1][0] if len(found) == limit else None

    async def filled(
        self,
        space: EmbeddingSpace,
        *,
        limit: int,
        after: str | None = None,
        shard: Shard | None = None,
        where: Filter | None = None,
    ) -> tuple[list[VersionedRow], str | None]:
        """The next rows in key order that have a vector in the slot, with that vector; and the cursor.

        ``shard`` is ``(i, n)``, the i-th of n disjoint parts. The cursor is None at the end.
        """
        check_page(limit, after, shard, where, None)
        async with self._gone_explained():
            table, slot = await self._table_to_read(space)
            statement = sql.filled(
                table, slot.name, limit=limit, after=after, shard=shard, where=where
            )
            rows = await self._rows(statement)
        return self._versioned_rows(table, rows), rows[-1][0] if len(rows) == limit else None

    async def sample(
        self, space: EmbeddingSpace, *, size: int, where: Filter | None = None
    ) -> list[VersionedRow]:
        """At most ``size`` rows that have a vector in the slot, with that vector, drawn at random.

        Without replacement, in an order that is random as well: the first of them are a sample too.
        Every key is read.
        """
        check_limit(size, what="size")
        check_filter(where)
        async with self._gone_explained():
            table, slot = await self._table_to_read(space)
            drawn = await self._rows(sql.sample(table, slot.name, where, size=size))
        ids = [id for (id,) in drawn]
        return await read_drawn_async(self, space, ids, where)

    async def _table_to_read(self, space: EmbeddingSpace) -> tuple[Table, SlotRecord]:
        """As :meth:`_table_of`; of a collection without a record where that may be searched, too."""
        return self._readable(*await self._slot_to_read(space))

    def _readable(self, state: _State, slot: SlotRecord) -> tuple[Table, SlotRecord]:
        """The table of a slot, which this role may read."""
        if state.table is None:
            raise self._not_found()
        self._check_rights(state)
        return state.table, slot

    async def stale(
        self, space: EmbeddingSpace, *, since: str | None = None, limit: int
    ) -> tuple[list[VersionedRow], str | None]:
        """The next rows whose vector was made from another text than they have now.

        Only vectors with a source can be judged; ``since`` is the cursor of the last call.
        """
        check_limit(limit)
        check_cursor(since)
        async with self._gone_explained():
            table, slot = await self._table_of(space)
            if table.external_text or not table.has_source(slot.name):
                return [], None
            rows = await self._rows(sql.stale(table, slot.name, limit=limit, after=since))
        return self._versioned_rows(table, rows), rows[-1][0] if len(rows) == limit else None

    def _versioned_rows(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> list[VersionedRow]:
        return [
            VersionedRow(
                document=document,
                version=bytes(row[8]),
                vector=load_vector(row[9]) if len(row) > 9 else None,
            )
            for document, row in zip(self._documents(table, rows), rows, strict=True)
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
            table, slot = await self._table_of(space)
            statement, fixed = sql.fill(table, slot.name)
            pairs = list(zip(rows, checked, strict=True))
            pairs.sort(key=lambda pair: pair[0].document.id)
            oid = self._state.vector_oid if self._state else 0
            answers = await self._pipelined(
                statement, pairs, lambda part: {**fixed, **sql.fill_parameters(part, oid)}
            )
            filled = len(answers)
        return FillReport(filled=filled, changed=len(rows) - filled)

    # Index

    def _is_indexed(self, state: _State, space: EmbeddingSpace) -> bool:
        return bool(_opclass(state, slot_name(state, space)))

    async def build_index(self, space: EmbeddingSpace | None = None, *, wait: bool = True) -> None:
        """Build the HNSW index of a slot, and one for filters, without locking out writers.

        A build on the table that somebody else has begun is waited for, unless ``wait`` is false, when
        nothing is built beside it; leftovers of one that failed are replaced. An index that is there stays.
        """
        if self._index.kind != "hnsw":
            raise InvalidInput('Index.kind is "flat": there is nothing to build')
        check_space(self._space if space is None else space)
        state = await self._describe()
        table, slot = await self._table_of(space or self._space)
        if self._is_indexed(state, slot.space):
            return
        name = sql.index_name(table, slot.name)
        statement = sql.create_index(table, slot.name, slot.space, self._index, concurrently=True)
        async with self._gone_explained():
            await self._build(table, name, statement, wait=wait)
            if table.own:
                metadata = sql.create_metadata_index(table, concurrently=True)
                await self._build(table, sql.metadata_index_name(table), metadata, wait=wait)
        await self._describe()

    async def _build(
        self, table: Table, name: str, statement: composed.Composed, *, wait: bool
    ) -> None:
        """Build one index; again, where another build on the table made it end before its time."""
        await self._repeated(partial(self._build_alone, table, name, statement, wait=wait))

    async def _build_alone(
        self, table: Table, name: str, statement: composed.Composed, *, wait: bool
    ) -> None:
        """One build of an index at a time, by a session lock, which is given back with the connection.

        And one on a table: of two the later would wait for the table, and the other for it.
        """
        async with self._autocommitting() as cursor:
            key = f"{LOCK_NAME}:{self._registry}:{self._schema}:{name}"
            if not await self._begins(cursor, key, wait=wait):
                return
            try:
                while await self._is_built_by_others(cursor, table, name):
                    if not wait:
                        return
                    await asyncio.sleep(BUILD_POLL_SECONDS)
                valid = self._valid_indexes(await self._read_state(cursor)).get(name)
                if valid is False:
                    await cursor.execute(sql.drop_index(table, name), (), prepare=False)
                if not valid:
                    await cursor.execute(statement, (), prepare=False)
            finally:
                with suppress(psycopg.Error):
                    await cursor.execute(
                        "SELECT pg_advisory_unlock(hashtextextended(%s::text, 0))", (key,)
                    )

    @staticmethod
    def _valid_indexes(state: _State) -> dict[str, bool]:
        """Each index's name, and whether it can be used: while it is built it cannot."""
        return {index[0]: index[1] for index in state.indexes}

    async def _is_built_by_others(
        self, cursor: psycopg.AsyncCursor[Any], table: Table, name: str
    ) -> bool:
        """Whether another build on the table is under way, and the index is not there.

        It may be of another slot; or be this one, which looks like a leftover, where somebody who does
        not know of our lock has begun it: :meth:`ddl` tells how.
        """
        if self._valid_indexes(await self._read_state(cursor)).get(name):
            return False
        asked = {"schema": table.schema, "name": table.name}
        await cursor.execute(sql.IS_WORKED_ON, asked, prepare=False)
        ((found,),) = await cursor.fetchall()
        return bool(found)

    async def _begins(self, cursor: psycopg.AsyncCursor[Any], key: str, *, wait: bool) -> bool:
        """Take the lock by asking: a session that waits in a query would hold up the build."""
        while True:
            await cursor.execute(
                "SELECT pg_try_advisory_lock(hashtextextended(%s::text, 0))", (key,)
            )
            row = await cursor.fetchone()
            if row is not None and row[0]:
                return True
            if not wait:
                return False
            await asyncio.sleep(BUILD_POLL_SECONDS)

    @asynccontextmanager
    async def _autocommitting(self) -> AsyncIterator[psycopg.AsyncCursor[Any]]:
        """A cursor outside transactions, which building concurrently asks for."""
        async with self._cursor(prepares=False) as cursor:
            connection: AsyncRows = cursor.connection
            before = connection.autocommit
            if not before:
                await connection.set_autocommit(True)
            try:
                yield cursor
            finally:
                if not before and not connection.closed:
                    await connection.set_autocommit(False)

    def forecast(
        self, space: EmbeddingSpace, info: CollectionInfo, index: Index | None = None
    ) -> SlotForecast:
        """What a slot of ``space`` would need here, and what others may notice; asks no server."""
        return forecast(check_space(space), info, _supported(index or self._index, space))

    def client_changes(self, source: str, target: str) -> tuple[ClientChange, ...]:
        """What a client that names a column by itself changes to name another; asks no server."""
        return exposing.client_changes(source, target)

    async def grants(self, part: Part, *, to: str) -> str:
        """The statements that let the role ``to`` be a reader, writer or migrator; it runs none."""
        known_part(part)
        check_identifier(to, what="to")
        state = await self._describe()
        if state.table is None:
            raise self._not_found()
        asked = sql.trigger_parameters(state.table, self._registry)
        (found,) = await self._rows((rights.OWNER.as_bytes(None), asked))
        owned = rights.Ownership(*found)
        return rights.grants(state.table, self._registry, part, to=to, owned=owned)

    async def view(
        self, space: EmbeddingSpace, *, schema: str, role: str | None = None
    ) -> list[str]:
        """Statements for a view of the table in which the slot of ``space`` has this handle's slot's name.

        An application that cannot be changed moves to it, and back, by its ``search_path``: the view in
        ``schema`` has the table's name and all columns that the application knows, in their order, and is
        read and written as the table is (``ON CONFLICT`` too; ``COPY`` and ``TRUNCATE`` name the table).
        ``role`` may do with it what it may do with the table. Rows of other collections in the table, if
        those have no slot of ``space``, are not in it. The last statement is an index, where the
        application has one and ours is in half precision; it runs outside a transaction, and as the
        table's owner. None is run. :class:`SlotNotReady` while the slot is being filled.
        """
        if check_space(space) == self._space:
            raise InvalidInput(
                f"{space} is this handle's own; open the collection with the space that the application "
                "uses now, and pass the one that it is to use"
            )
        check_identifier(schema, what="schema")
        if role is not None:
            check_identifier(role, what="role")
        state = await self._describe()
        record, table = self._recorded_table(state)
        old, new = (
            self._slot_of(state, writing=True),
            record.require(space, collection=self._collection),
        )
        if new.state is SlotState.FILLING:
            raise await self._not_ready(new)
        facts = await self._view_facts(table, role)
        views.check(table, facts, schema=schema, role=role)
        made = views.statements(
            table, facts, old=old.name, new=new.name,
            sources=views.sources_of(table, [slot.name for slot in record.slots]),
            scopes=await self._scopes_with(table, space),
            schema=schema, role=role,
        )  # fmt: skip
        return made + self._index_for_strangers(state, table, old, new)

    async def dependents(self, space: EmbeddingSpace) -> list[str]:
        """Statements that drop the views which keep the slot of ``space`` from being dropped; it runs none.

        They go in that order. None are needed where the slot's column stays, as other collections in the
        table have it.
        """
        return [views.drop(*each) for each in await self._built_on(space, views.DEPENDENTS)]

    async def obstacles(self, space: EmbeddingSpace) -> list[str]:
        """What else keeps the slot of ``space`` from being dropped, each as the server describes it.

        Generated columns, triggers, functions, policies, rules and publications that name the column.
        """
        return [what for (what,) in await self._built_on(space, views.OBSTACLES)]

    async def _built_on(self, space: EmbeddingSpace, query: composed.SQL) -> list[Any]:
        """What a query finds of the columns of a slot; nothing where they stay."""
        record, table = self._recorded_table(await self._describe())
        slot = record.require(check_space(space), collection=self._collection)
        async with self._cursor() as cursor:
            if await self._is_shared(cursor, table, slot):
                return []
        asked = views.dependents_parameters(table, slot.name)
        return list(await self._rows((query.as_bytes(None), asked)))

    def _index_for_strangers(
        self, state: _State, table: Table, old: SlotRecord, new: SlotRecord
    ) -> list[str]:
        """An index like the one that an application uses now, where ours would not serve its queries."""
        opclass = _opclass(state, old.name)
        fits = new.space.dimensions <= sql.FLOAT_LIMIT
        if (
            not fits
            or not sql.uses_half(new.space, self._index)
            or not opclass.startswith("vector_")
        ):
            return []
        return [views.create_index(table, new.name, opclass)]

    async def _view_facts(self, table: Table, role: str | None) -> views.Facts:
        query = (views.FACTS.as_bytes(None), views.facts_parameters(table, role))
        (row,) = await self._rows(query)
        return views.Facts(*row)

    async def _scopes_with(self, table: Table, space: EmbeddingSpace) -> list[Table]:
        """The collections of a table that has several which have a slot of a space."""
        if table.layout.scope is None:
            return []
        key = (self._schema, self._collection, table.scope_key)
        async with self._cursor() as cursor:
            beside = await self._read_neighbours(cursor, key)
        layouts = [recorded_layout(each) for each in beside.values() if each.find(space)]
        return [table, *(replace(table, layout=each) for each in layouts if each is not None)]

    # Raw writers

    async def guard_check(self) -> tuple[RawWrite, ...]:
        """What becomes of writes that go around this library, in the table as it is now."""
        state = await self._describe()
        if state.table is None:
            raise self._not_found()
        slot = self._slot_of(state, writing=False)
        return hardening.raw_writes(state.table, slot, await self._facts(state.table))

    async def guard_install(self, *, dry_run: bool = False) -> tuple[Change, ...]:
        """Have the server itself refuse vectors of another size or norm in the slots; what changes.

        CHECK constraints are added without a look at the rows that are there, and then validated
        while others read and write. Nothing is added, and :class:`StoreRejected` says how many, where
        rows would not pass. Doing it again changes nothing, or goes on with what was interrupted.
        """
        table, wanted, facts = await self._checks()
        hardening.check_names(wanted, facts)
        unproved = hardening.missing(wanted, facts)
        changes = hardening.installing(table, unproved, facts)
        await self._refuse_offenders(table, unproved)
        if changes and not dry_run:
            with _ddl_explained("guard install"):
                await self._add_checks(unproved)
                await self._validate(table, unproved)
        return changes

    async def guard_remove(self, *, dry_run: bool = False) -> tuple[Change, ...]:
        """Take away what :meth:`guard_install` has added, be it wanted now or not; what changes."""
        record, table = self._recorded_table(await self._describe())
        self._slot_of(await self._known(), writing=True)
        installed = hardening.installed(table, record.slots, await self._facts(table))
        changes = hardening.removing(table, installed)
        if changes and not dry_run:
            with _ddl_explained("guard remove"):
                await self._remove_checks(list(installed))
        return changes

    async def _facts(self, table: Table) -> hardening.Facts:
        query = (hardening.FACTS.as_bytes(None), hardening.facts_parameters(table))
        (row,) = await self._rows(query)
        return hardening.facts_of(*row)

    async def _facts_in(self, cursor: psycopg.AsyncCursor[Any], table: Table) -> hardening.Facts:
        await cursor.execute(hardening.FACTS, hardening.facts_parameters(table))
        (row,) = await cursor.fetchall()
        return hardening.facts_of(*row)

    async def _checks(self) -> tuple[Table, list[hardening.Check], hardening.Facts]:
        """The table, the checks that hardening has for it, and what is there."""
        record, table = self._recorded_table(await self._describe())
        self._slot_of(await self._known(), writing=True)
        facts = await self._facts(table)
        if not facts.is_table:
            raise InvalidInput(
                f"{excerpt(self._collection)} is a view or a foreign table, which takes no checks; "
                "harden the table behind it"
            )
        return table, list(hardening.checks(table, record.slots)), facts

    async def _refuse_offenders(self, table: Table, checks: Sequence[hardening.Check]) -> None:
        for check in checks:
            ((rows,),) = await self._rows(hardening.count_offenders(table, check))
            if rows:
                raise StoreRejected(
                    f"{rows} rows of collection {excerpt(self._collection)} have a vector in "
                    f"{excerpt(check.slot)} that is not of {check.what}, so nothing was changed. "
                    f"Find them: {command('audit', self._collection, self._scope)} --all, which says "
                    "how to repair them; then install again"
                )

    async def _add_checks(self, checks: Sequence[hardening.Check]) -> None:
        async def change(cursor: psycopg.AsyncCursor[Any], state: _State) -> None:
            _, table = self._recorded_table(state)
            facts = await self._facts_in(cursor, table)
            hardening.check_names(checks, facts)
            for check in checks:
                for statement in hardening.add(table, check, facts):
                    await cursor.execute(statement, ())

        await self._alter(change)

    async def _validate(self, table: Table, checks: Sequence[hardening.Check]) -> None:
        """Have all rows looked at; one that came in between takes the checks away again."""
        record, _ = self._recorded_table(await self._known())
        facts = await self._facts(table)
        names = [hardening.present_name(check, facts) for check in checks]
        try:
            for name in names:
                async with self._transaction(prepares=False) as cursor:
                    await cursor.execute(hardening.validate(table, name), ())
        except StoreError as error:
            if not isinstance(error.__cause__, pg.CheckViolation):
                raise
            added = hardening.installed(table, record.slots, facts)
            await self._remove_checks([name for name in names if name in added])
            await self._refuse_offenders(table, checks)
            raise

    async def _remove_checks(self, names: Sequence[str]) -> None:
        async def change(cursor: psycopg.AsyncCursor[Any], state: _State) -> None:
            _, table = self._recorded_table(state)
            for name in names:
                await cursor.execute(hardening.remove(table, name), ())

        await self._alter(change)


@contextmanager
def _ddl_explained(command: str) -> Iterator[None]:
    """Where a role may not change the table, say who can."""
    try:
        yield
    except StoreRejected as error:
        if not isinstance(error.__cause__, pg.InsufficientPrivilege | pg.ReadOnlySqlTransaction):
            raise
        raise StoreRejected(
            f"{error}; have the table's owner run what samespace {command} --ddl prints"
        ) from error.__cause__


def _rejected(finding: Finding) -> StoreRejected:
    return StoreRejected(f"{finding.what}; {finding.mend}")


def _watched(table: Table, record: SpaceRecord) -> list[str]:
    """The slots that a change of text empties."""
    if table.external_text:
        return []
    return [slot.name for slot in record.slots if table.has_source(slot.name)]


def _supported(index: Index, space: EmbeddingSpace) -> Index:
    """The index, or :class:`InvalidInput` that names what PostgreSQL lacks."""
    if index.quantization in {"int8", "binary"}:
        raise InvalidInput(
            f'Index.quantization="{index.quantization}" is not available on PostgreSQL; '
            'use None or "half"'
        )
    if index.kind == "hnsw" and space.dimensions > sql.HALF_INDEX_DIMENSIONS:
        if index.build == "immediate":
            raise InvalidInput(
                f"pgvector indexes at most {sql.HALF_INDEX_DIMENSIONS} dimensions, not "
                f'{space.dimensions}; use Index(kind="flat")'
            )
        return replace(index, kind="flat")
    return index


def _register(context: AdaptContext) -> None:
    """Our binary forms."""
    context.adapters.register_dumper(np.ndarray, VectorDumper)
    context.adapters.register_dumper(Json, JsonDumper)
    context.adapters.register_dumper(Array, ArrayDumper)


def _opclass(state: _State, slot: str) -> str:
    """The operator class of the valid HNSW (or IVFFlat) index over a slot; empty without one."""
    if slot not in state.opclasses:
        state.opclasses[slot] = _indexed_by(state, slot)
    return state.opclasses[slot]


def _indexed_by(state: _State, slot: str) -> str:
    ours = sql.index_name(state.table, slot) if state.table is not None else ""
    for name, valid, opclass, key, method, is_partial in state.indexes:
        names = (slot, f'"{slot}"')
        if (
            valid
            and (name == ours or not is_partial)
            and (state.record is not None or "cosine" in opclass)  # adopt() has looked at norms
            and method in {"hnsw", "ivfflat"}
            and (key in names or any(key.lstrip("(").startswith(f"{each}::") for each in names))
        ):
            return opclass
    return ""


_Shape = tuple[tuple[str, ...], tuple[EmbeddingSpace, ...]]


def _alike(table: Table, rows: Sequence[Row]) -> dict[_Shape, list[Row]]:
    """Rows by what one statement must write: metadata columns, and slots that mirrors fill."""
    groups: dict[_Shape, list[Row]] = {}
    for row in rows:
        present = sorted(row.document.metadata) if table.layout.metadata_columns else ()
        groups.setdefault((tuple(present), tuple(row.mirrored)), []).append(row)
    return groups


def _for_sql(row: Row) -> sql.Row:
    return row.document, row.metadata, (row.vector, *row.mirrored.values())


def _by_keys(
    table: Table,
    patches: Mapping[str, bytes],
    stored: Mapping[str, Document | None],
    *,
    merge: bool,
) -> dict[frozenset[str], list[str]]:
    """Sorted ids by the columns that their patches set: those are changed by one statement."""
    found: dict[frozenset[str], list[str]] = {}
    for id, patch in sorted(patches.items()):
        if id in stored and stored[id] is None:
            continue
        metadata = decode_metadata(patch)
        table.check_metadata(metadata, stored.get(id))
        changed = table.changed(metadata, merge=merge)
        if changed:
            found.setdefault(frozenset(changed).intersection(metadata), []).append(id)
    return found


def _parts(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))


async def _all_rows(cursor: psycopg.AsyncCursor[Any]) -> list[tuple[Any, ...]]:
    """The rows of all statements of a pipeline."""
    rows = await cursor.fetchall()
    while cursor.nextset():
        rows += await cursor.fetchall()
    return rows


async def _last_rows(cursor: psycopg.AsyncCursor[Any]) -> list[tuple[Any, ...]]:
    """The rows of the last statement of a pipeline."""
    while cursor.nextset():
        continue
    return await cursor.fetchall()


def _vouched(
    table: Table, slot: SlotRecord, rows: Sequence[VersionedRow], sources: Sequence[bytes | None]
) -> list[VersionedRow]:
    """Rows with the vectors of a slot that are of the texts read with them."""
    always = table.has_source(slot.name) and not table.is_foreign(slot.name, slot.space)
    return [
        vouched(row, None if source is None else bytes(source).hex(), always=always)
        for row, source in zip(rows, sources, strict=True)
    ]


_score: Final = attrgetter("score")


def _document(row: tuple[Any, ...], text: str, vector: Vector | None = None) -> Document:
    metadata = decode_metadata(row[2]) if row[2] is not None else {}
    return Document(
        row[0],
        text,
        metadata if isinstance(metadata, dict) else {},
        _parent(row) if row[4] is not None else None,
        row[3],
        vector,
    )


def _parent(row: tuple[Any, ...]) -> Parent:
    parent, ordinal, start, end = row[4:8]
    return Parent(parent, ordinal, (start, end) if None not in {start, end} else None)
