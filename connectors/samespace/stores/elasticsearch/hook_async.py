"""Embedding in front of the client's own bulk helpers: :class:`AsyncIngestHook`."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from elasticsearch import AsyncElasticsearch

from samespace.embedding import embed_documents_async, embed_proving_async, require_any
from samespace.errors import EmbeddingError, InvalidInput, excerpt
from samespace.guard import SpaceRecord, check_canary, missing_record
from samespace.layout import Layout
from samespace.names import check_part
from samespace.protocols import AnyBackend, Matrix
from samespace.space import EmbeddingSpace
from samespace.stores.base_async import BATCH_BYTES, BATCH_DOCUMENTS, check_space
from samespace.stores.elasticsearch import dsl
from samespace.stores.elasticsearch.actions import Draft, Prepared, Target, at, located, read
from samespace.stores.elasticsearch.final_pipeline import PipelineChange
from samespace.stores.elasticsearch.pipelines_async import (
    FoundIndex,
    install,
    read_index,
    uninstall,
)
from samespace.stores.elasticsearch.shape import Shape, own_layout
from samespace.stores.elasticsearch.transport_async import AsyncTransport


class AsyncIngestHook:
    """Gives each document its vector on its way to a bulk helper of the client's.

    ``hook(actions)`` is what the helper is given in place of the actions.
    Every index that an action names is looked at once in a stream, before anything is yielded for
    it: its record must have a slot of the backend's space. In a collection of ours ``text_field`` is
    where a document has its text ("text" unless given), and all its other fields are its metadata;
    an adopted index's record says where texts are. ``index`` is for actions that name none.
    Documents that carry vectors are refused unless ``claimed`` says of which space those are.
    ``timeout`` is in seconds, for each request of the hook's own.
    """

    def __init__(
        self,
        backend: AnyBackend,
        *,
        client: AsyncElasticsearch,
        text_field: str | None = None,
        index: str | None = None,
        claimed: EmbeddingSpace | None = None,
        timeout: float = 60.0,
    ) -> None:
        required = require_any(backend)
        if required is None:
            raise InvalidInput("backend is None; pass what is to embed the documents")
        if not isinstance(client, AsyncElasticsearch):
            raise InvalidInput(
                f"client is a {excerpt(type(client).__name__)}; pass the AsyncElasticsearch that the bulk "
                "helper is given"
            )
        if text_field is not None:
            check_part(text_field, what="text_field")
        if index is not None:
            dsl.check_name(index)
        self._backend = required
        self._text_field = text_field
        self._index = index
        self._claimed = claimed if claimed is None else check_space(claimed)
        self._transport = AsyncTransport(client, timeout=timeout)
        self._canary: Matrix | None = None

    @property
    def space(self) -> EmbeddingSpace:
        """The space of the vectors that it makes."""
        return self._backend.space

    def __repr__(self) -> str:
        return f"{type(self).__name__}(space={str(self.space)!r})"

    async def __call__(
        self, actions: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]]
    ) -> AsyncIterator[dict[str, Any]]:
        """The same actions in the same order, their documents with vectors, for a bulk helper.

        Actions are read in batches of at most 1,000, or about 16 MiB of text. An action that cannot
        be carried out ends the stream with an error that says its place, counted from 0, and its id;
        nothing of its batch or after it is yielded. A helper may still hold back what was yielded
        last. Every action has an id, so the same stream can be sent again once it is mended.
        """
        async for batch in self._batches(actions):
            await self._embed(batch)
            version = await self._transport.version()
            for each in batch:
                yield each.made(version)

    async def _batches(
        self, actions: Iterable[Any] | AsyncIterable[Any]
    ) -> AsyncIterator[list[Prepared]]:
        targets: dict[str, Target] = {}
        batch: list[Prepared] = []
        size = 0
        async for place, data in _numbered(actions):
            batch.append(await self._prepare(data, place, targets))
            size += sum(len(draft.text or "") for draft in batch[-1].unembedded())
            if len(batch) == BATCH_DOCUMENTS or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    async def _prepare(self, data: object, place: int, targets: dict[str, Target]) -> Prepared:
        with at(place, data):
            action = read(data, index=self._index)
        if action.index not in targets:
            targets[action.index] = await self._target(action.index)
        with at(place, data):
            return targets[action.index].prepare(action, place)

    async def _target(self, index: str) -> Target:
        found = await read_index(self._transport, index)
        return Target.of(
            _shape(found, index, _recorded(found, index), self.space),
            _recorded(found, index),
            self.space,
            text_field=self._text_field,
            claimed=self._claimed,
        )

    # Embedding

    async def _embed(self, batch: Sequence[Prepared]) -> None:
        """Give the drafts their vectors, equal texts one; a canary rides along the first time."""
        drafts: dict[str, list[tuple[Prepared, Draft]]] = {}
        for each in batch:
            for draft in each.unembedded():
                drafts.setdefault(draft.text or "", []).append((each, draft))
        if not drafts:
            return
        vectors, canary = await self._passages(drafts)
        targets = {each.target.shape.name: each.target for each in batch}
        for target in targets.values():
            check_canary(target.slot, "documents", canary, collection=target.shape.collection)
        self._canary = canary
        for same, vector in zip(drafts.values(), vectors, strict=True):
            for _, draft in same:
                draft.vector = vector

    async def _passages(
        self, drafts: Mapping[str, Sequence[tuple[Prepared, Draft]]]
    ) -> tuple[Matrix, Matrix]:
        """The texts' vectors, and the canary's."""
        texts = list(drafts)
        try:
            if self._canary is None:
                (vectors, _), canary = await embed_proving_async(self._backend, "documents", texts)
                return vectors, canary
            return (await embed_documents_async(self._backend, texts))[0], self._canary
        except EmbeddingError as error:
            groups = list(drafts.values())
            named = [each for i in error.indices if i < len(groups) for each, _ in groups[i]]
            if not named:
                raise
            error.indices = tuple(each.place for each in named)
            raise located(error, [(each.place, each.action.id) for each in named]) from None

    # The server's side

    async def install_pipeline(self, index: str, *, dry_run: bool = False) -> PipelineChange:
        """Let the server refuse documents that come without a vector of a recorded space.

        An ingest pipeline becomes the index's final one; one that was there before is called first,
        and comes back with :meth:`remove_pipeline`. The answer, as text, is a diff; with ``dry_run``
        nothing is changed. Calling it again changes nothing unless the index's slots or fields did.
        :class:`StoreRejected` where documents that are there would not pass.
        """
        found = await read_index(self._transport, index)
        record = _recorded(found, index)
        record.require(self.space, collection=index)
        return await install(self._transport, found, record, dry_run=dry_run)

    async def remove_pipeline(self, index: str, *, dry_run: bool = False) -> PipelineChange:
        """Undo :meth:`install_pipeline`; a pipeline that took the place of ours stays."""
        found = await read_index(self._transport, index)
        return await uninstall(self._transport, found, dry_run=dry_run)


def _recorded(found: FoundIndex, index: str) -> SpaceRecord:
    if found.record is None:
        raise missing_record(index)
    return found.record


def _shape(found: FoundIndex, index: str, record: SpaceRecord, space: EmbeddingSpace) -> Shape:
    own = record.layout is None
    layout = own_layout(space)
    if record.layout is not None:
        layout = Layout.from_dict(dict(record.layout), text=_elsewhere)
    return Shape(
        collection=index,
        name=found.name,
        layout=layout,
        own=own,
        mapping=found.mapping,
        aliases=found.aliases,
    )


def _elsewhere(ids: Sequence[str]) -> Sequence[str]:
    """Stands for a recorded text that is not in the index."""
    raise InvalidInput(
        f"the texts of {len(ids)} document(s) are not in this index, as its record says; write them "
        "through ElasticsearchStore with the layout that finds them"
    )


async def _numbered(
    actions: Iterable[Any] | AsyncIterable[Any],
) -> AsyncIterator[tuple[int, Any]]:
    if isinstance(actions, AsyncIterable):  # async only
        place = 0  # async only
        async for action in actions:  # async only
            yield place, action  # async only
            place += 1  # async only
        return  # async only
    if isinstance(actions, str | bytes | Mapping) or not isinstance(actions, Iterable):
        raise InvalidInput(f"actions is {excerpt(actions)}; pass an iterable of actions")
    for numbered in enumerate(actions):
        yield numbered
