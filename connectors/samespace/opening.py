"""From an address to a store, from a spec to a backend."""

from __future__ import annotations

import inspect
import os
import re
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from samespace import adoption
from samespace.adoption import altered
from samespace.errors import CollectionNotFound, InvalidInput, SpaceMismatch, SpaceUnknown, excerpt
from samespace.filters import Filter, equalities
from samespace.guard import missing_record
from samespace.layout import Layout
from samespace.models import find_model
from samespace.names import is_collection_name
from samespace.protocols import EmbeddingBackend, VectorStore
from samespace.space import EmbeddingSpace
from samespace.survey import Survey, same_scope, scope_options, scope_text

if TYPE_CHECKING:
    from samespace.backends.http.limits import Limits

EMBEDDED: Final = "embedded"
FORMS: Final = (
    "embedded, postgresql://user@host/database, qdrant://host:6333, qdrant+https://host, "
    "qdrant:FOLDER, qdrant::memory:, elasticsearch://host:9200, elasticsearch+https://host"
)
"""Every kind of address."""
_CLASSES: Final = {
    "pgvector": "PgVectorStore",
    "qdrant": "QdrantStore",
    "elasticsearch": "ElasticsearchStore",
}
"""By the name of the store's package, which is also that of the extra with its driver."""
_SERVERS: Final = {
    "qdrant://": ("qdrant", "http://"),
    "qdrant+https://": ("qdrant", "https://"),
    "elasticsearch://": ("elasticsearch", "http://"),
    "elasticsearch+https://": ("elasticsearch", "https://"),
}
_POSTGRES: Final = ("postgresql://", "postgres://")
_LOCAL_QDRANT: Final = "qdrant:"
GRPC_PORT: Final = "QDRANT_GRPC_PORT"
"""Where a server of Qdrant speaks gRPC, which removing an unnamed vector takes."""
_KEYS: Final = {
    "qdrant": "api_key= or QDRANT_API_KEY",
    "elasticsearch": "api_key= or ELASTIC_API_KEY, basic_auth= or ELASTIC_PASSWORD",
}
"""Where a secret goes that an address may not have."""
_BACKEND: Final = re.compile(
    r"(?P<name>[a-z]+)(?::(?P<model>[^@:\s]+))?"
    r"(?:@(?P<dimensions>[0-9]{1,5}))?(?::(?P<task>[^@:\s]+))?\Z"
)
_SERVED: Final = re.compile(
    r"openai:(?P<url>https?://(?:\[[0-9A-Fa-f:.]+\]|[^@\s?#/:]+)(?::[0-9]{1,5})?(?:/[^@\s?#:]*)?)"
    r"(?:#(?P<model>[^@\s?#:]+))?(?:@(?P<dimensions>[0-9]{1,5}))?(?::(?P<task>[^@\s?#:/]+))?\Z"
)
_LOCAL: Final = re.compile(
    r"local(?::(?P<folder>.+?))?(?:@(?P<dimensions>[0-9]{1,5}))?(?::(?P<task>[a-z][a-z.-]*))?\Z"
)
_SENTENCES: Final = re.compile(
    r"sentence-transformers:(?P<model>[^#]+?)(?:#(?P<name>[^@#:\s]+))?(?:@(?P<dimensions>[0-9]{1,5}))?\Z"
)
SERVED_MODEL: Final = "OPENAI_COMPATIBLE_MODEL"
"""Which model a server of OpenAI's shape has, where its spec does not say."""
_SERVER: Final = (
    "openai:http://localhost:8080/v1#MODEL@DIMENSIONS:TASK (:TASK only where the server takes one, "
    f"@DIMENSIONS only for a model that is not known, MODEL here or in {SERVED_MODEL})"
)
_BACKENDS: Final = (
    "hashing, hashing@256, jina, jina@768, jina@1024:retrieval.passage, "
    "jina:jina-embeddings-v2-base-en (NAME:MODEL@DIMENSIONS:TASK, of which only NAME is needed), "
    "local:FOLDER@DIMENSIONS:TASK (of which only local is needed), "
    "sentence-transformers:NAME@DIMENSIONS, sentence-transformers:FOLDER#NAME@DIMENSIONS (@DIMENSIONS only "
    f"for fewer than the model has), {_SERVER}"
)
GENERIC: Final = "generic"
"""What a backend's spec says for no task, where leaving it out means another."""
_PASSWORD: Final = re.compile(r"://[^@:/?]*:[^?]*@|password\s*=")
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*(?=:)")
_ANY: Final = EmbeddingSpace(model="any", dimensions=1)


@dataclass(frozen=True, slots=True)
class Address:
    """The store that an address names, and what its constructor takes as ``source``."""

    store: str
    source: str = field(repr=False)  # it may have a password

    @property
    def is_server(self) -> bool:
        """Whether a login may be asked for there."""
        return "://" in self.source


def parse_address(url: str) -> Address:
    """The store that ``url`` names; :class:`InvalidInput`, with all forms, if it names none."""
    if url == EMBEDDED or url.startswith(_POSTGRES):
        return Address("pgvector", url)
    for prefix, (store, protocol) in _SERVERS.items():
        if url.startswith(prefix):
            return Address(store, protocol + _bare(url.removeprefix(prefix), store))
    if url.startswith(_LOCAL_QDRANT) and url != _LOCAL_QDRANT:
        return Address("qdrant", url.removeprefix(_LOCAL_QDRANT))
    scheme = _SCHEME.match(url)  # the rest of it may be a secret
    raise InvalidInput(
        f"no store is known for {excerpt(scheme[0] + ':') if scheme else 'this address'}; use {FORMS}"
    )


def _bare(place: str, store: str) -> str:
    """Host, port and path; :class:`InvalidInput` if there is more, which may be a secret."""
    if any(mark in place for mark in "@?#"):
        raise InvalidInput(
            f"an address of {store} has no user, password or query; leave that out, and use "
            f"{_KEYS[store]}"
        )
    return place


def open_store(
    url: str, *, collection: str, backend: EmbeddingBackend | str | None = None, **options: Any
) -> VectorStore:
    """A handle on a collection in the store that ``url`` names.

    ``embedded``, ``postgresql://user@host/database``, ``qdrant://host:6333`` and
    ``qdrant+https://host``, ``qdrant:FOLDER`` and ``qdrant::memory:`` for the client's local mode,
    ``elasticsearch://host:9200`` and ``elasticsearch+https://host``. ``backend`` is an object or a
    spec (:func:`open_backend`), and what is made from a spec is closed with the store. ``options``
    are the store's own. Without ``api_key`` or ``basic_auth`` the environment is asked:
    ``QDRANT_API_KEY``; ``ELASTIC_API_KEY``, or ``ELASTIC_PASSWORD`` with ``ELASTIC_USERNAME``
    (``elastic``), and ``ELASTIC_CA_CERTS``; ``grpc_port`` may be in ``QDRANT_GRPC_PORT``. A collection that
    was adopted needs no ``layout``, whatever its name: its record has it.
    """
    address = parse_address(url)
    module = loaded(f"stores.{address.store}.store", extra=address.store)
    kind = getattr(module, _CLASSES[address.store])
    _check_options(kind, options)
    if options.get("layout") is None and not is_collection_name(collection):
        options["layout"] = _recorded_layout(url, collection, options)
    with ExitStack() as made:
        if isinstance(backend, str):
            backend = open_backend(backend)
            if isinstance(backend, AbstractContextManager):
                made.enter_context(backend)
        store = kind(
            address.source,
            collection=collection,
            backend=backend,
            # no local that a traceback could show
            **{**credentials(address, options), **_port(address), **options},
        )
        store.on_close(made.pop_all().close)
    opened: VectorStore = store
    return opened


def _recorded_layout(url: str, collection: str, options: dict[str, Any]) -> Layout | None:
    """Where things are in a collection with a name that none of ours has, as its record says.

    None where there is no such collection; :class:`~samespace.errors.SpaceUnknown` without a record.
    """
    try:
        found = survey(url, collection=collection, **{**options, "layout": None})
    except (InvalidInput, CollectionNotFound):
        return None  # that the name is none is what there is to say
    return _one_recorded(found, None)


def recorded_layout(
    url: str, *, collection: str, scope: Filter, reads_texts: bool = True
) -> Layout:
    """Where things are in one of several collections of a table, as the record of its scope says.

    :class:`InvalidInput` where texts are elsewhere and are read.
    """
    found = survey(url, collection=collection)
    layout = None if _is_whole(found) else _one_recorded(found, scope, reads_texts=reads_texts)
    if layout is None:
        raise InvalidInput(
            f"collection {excerpt(collection)} is recorded as a whole, not by scope; leave scope "
            "(--scope) out"
        )
    return layout


def _is_whole(found: Survey) -> bool:
    """Whether one record is of all rows, so that no scope has one of its own."""
    kept = map(adoption.recorded_layout, found.records)
    return any(layout is not None and layout.scope is None for layout in kept)


def _one_recorded(
    found: Survey, scope: Filter | None, *, reads_texts: bool = True
) -> Layout | None:
    kept = [(each, adoption.recorded_layout(each)) for each in found.records]
    layouts = [layout for _, layout in kept if layout is not None]
    fitting = [layout for layout in layouts if scope is None or same_scope(layout.scope, scope)]
    if not found.records and found.untrue:
        raise altered(found.collection, found.untrue[0], adopted=True, scope=scope_options(scope))
    if not found.records or (layouts and not fitting):
        _check_columns(found, scope)
        raise missing_record(
            found.collection,
            scope=scope_options(scope),
            others=[scope_text(layout) for layout in layouts],
        )
    if len(fitting) > 1:
        raise SpaceUnknown(
            f"{len(fitting)} collections of {excerpt(found.collection)} have records; pass layout= with the "
            f"scope of one (--scope): {'; '.join(map(scope_text, fitting))}"
        )
    if fitting and reads_texts:
        recorded = next(record.layout for record, layout in kept if layout is fitting[0])
        return Layout.from_dict(dict(recorded or {}))
    return fitting[0] if fitting else None


def _check_columns(found: Survey, scope: Filter | None) -> None:
    """:class:`InvalidInput` for a scope of a column that is not there."""
    there = [column.name for column in found.columns]
    for column in equalities(scope) if scope is not None and there else ():
        if column not in there:
            raise InvalidInput(
                f"Layout.scope (--scope) names column {excerpt(column)}, which table "
                f"{excerpt(found.collection)} lacks; it has {', '.join(map(excerpt, there))}"
            )


def open_as_it_is(
    url: str, *, collection: str, layout: Layout | None = None, reads_texts: bool = True
) -> VectorStore:
    """A handle for what embeds nothing: its space is whichever the collection holds.

    If it ``reads_texts``, a collection whose texts are elsewhere is :class:`InvalidInput`; if not, they are
    none that it could be asked for.
    """
    try:
        return _opened_as_it_is(url, collection, layout)
    except InvalidInput:
        elsewhere = None if reads_texts or layout is not None else _elsewhere(url, collection)
        if elsewhere is None:
            raise
    return _opened_as_it_is(url, collection, elsewhere)


def _opened_as_it_is(url: str, collection: str, layout: Layout | None) -> VectorStore:
    space = _ANY
    with open_store(url, collection=collection, space=_ANY, layout=layout) as store:
        try:
            store.info()
        except SpaceMismatch as refusal:
            space = refusal.stored
    return open_store(url, collection=collection, space=space, layout=layout)


def _elsewhere(url: str, collection: str) -> Layout | None:
    """The recorded layout of a collection whose texts are elsewhere; None of any other."""
    found = survey(url, collection=collection)
    layout = _one_recorded(found, None, reads_texts=False)
    return layout if layout is not None and not isinstance(layout.text, str) else None


def open_by_claim(
    url: str, *, collection: str, space: EmbeddingSpace, layout: Layout, **options: Any
) -> VectorStore:
    """A handle that reads as ``layout`` and ``space`` say, whatever is recorded, and writes nothing."""
    store: Any = open_store(url, collection=collection, space=space, layout=layout, **options)
    store.read_by_claim()
    opened: VectorStore = store
    return opened


def open_unrecorded(
    url: str, *, collection: str, backend: EmbeddingBackend | None = None, **options: Any
) -> VectorStore:
    """A handle whose space, without a backend, says nothing: for a collection that lost its record."""
    space = _ANY if backend is None else None
    return open_store(url, collection=collection, backend=backend, space=space, **options)


def survey(url: str, *, collection: str, scope: Filter | None = None, **options: Any) -> Survey:
    """What a table, collection or index is that anybody may have made; nothing in it changes.

    ``url`` and ``options`` are as for :func:`open_store`; of the store's options those matter that
    say where to look and who asks. ``scope`` are the rows whose vectors are measured, where several
    collections share a table. :class:`~samespace.errors.CollectionNotFound` names the collections
    that there are.
    """
    address = parse_address(url)
    look = loaded(f"stores.{address.store}.survey", extra=address.store).survey
    store = loaded(f"stores.{address.store}.store", extra=address.store)
    _check_options(getattr(store, _CLASSES[address.store]), options)
    found: Survey = look(
        address.source,
        collection=collection,
        **_taken({**credentials(address, options), **options, "scope": scope}, look),
    )
    return found


def _taken(options: dict[str, Any], function: Any) -> dict[str, Any]:
    """Those of the options that a function takes."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in options.items() if name in known}


def with_title(url: str, layout: Layout, *, title: str, join: str) -> Layout | None:
    """``layout`` with a text that begins with a title from the metadata; None if the store makes none."""
    address = parse_address(url)
    recognition = loaded(f"stores.{address.store}.recognition", extra=address.store)
    made = getattr(recognition, "with_title", None)
    found: Layout | None = made(layout, title=title, join=join) if made else None
    return found


def _check_options(kind: type, options: dict[str, Any]) -> None:
    """:class:`InvalidInput` that names options which a store's constructor does not have."""
    parameters = inspect.signature(kind).parameters.values()
    known = sorted(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise InvalidInput(
            f"{kind.__name__} has no option {', '.join(unknown)}; it has {', '.join(known)}"
        )


def credentials(address: Address, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a server's login that the environment has and ``options`` lack."""
    if not address.is_server or address.store == "pgvector":  # libpq reads its own
        return {}
    found: dict[str, Any] = {}
    if not options.keys() & {"api_key", "basic_auth"}:
        found = _login(address.store)
    if address.store == "elasticsearch" and (certificates := os.environ.get("ELASTIC_CA_CERTS")):
        found["ca_certs"] = certificates
    return found


def _port(address: Address) -> dict[str, Any]:
    """Where a server of Qdrant speaks gRPC, if the environment says so."""
    found = os.environ.get(GRPC_PORT)
    if not found or address.store != "qdrant" or not address.is_server:
        return {}
    if not found.isdecimal():
        raise InvalidInput(
            f"{GRPC_PORT} is {excerpt(found)}; set it to a port's number, such as 6334"
        )
    return {"grpc_port": int(found)}


def _login(store: str) -> dict[str, Any]:
    if key := os.environ.get("QDRANT_API_KEY" if store == "qdrant" else "ELASTIC_API_KEY"):
        return {"api_key": key}
    password = os.environ.get("ELASTIC_PASSWORD") if store == "elasticsearch" else None
    return (
        {"basic_auth": (os.environ.get("ELASTIC_USERNAME", "elastic"), password)}
        if password
        else {}
    )


def loaded(module: str, *, extra: str) -> Any:
    """A module with a driver; :class:`InvalidInput` that names the extra where that is missing."""
    try:
        return import_module(f"samespace.{module}")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in {"", "samespace"}:
            raise
        raise InvalidInput(
            f'{missing} is not installed; run pip install "samespace[{extra}]"'
        ) from error


def open_backend(
    spec: str, *, dimensions: int | None = None, share: float | None = None
) -> EmbeddingBackend:
    """A backend from its spec, ``NAME:MODEL@DIMENSIONS:TASK``, all but the name optional.

    ``hashing`` and ``hashing@256`` are lexical; ``jina``, ``jina@768``,
    ``jina@1024:retrieval.passage`` and ``jina:jina-embeddings-v2-base-en`` ask Jina's API, with the
    key in ``JINA_API_KEY``; the task ``generic`` is none.

    ``local``, ``local:FOLDER`` and ``local:FOLDER@768:text-matching`` run v3 on this machine
    (:class:`~samespace.JinaLocalBackend`), with the weights in FOLDER or those of Hugging Face's hub.

    ``sentence-transformers:BAAI/bge-m3``, ``sentence-transformers:FOLDER#BAAI/bge-m3`` and the like with
    ``@256`` run a model of that library on this machine (:class:`~samespace.SentenceTransformerBackend`),
    from Hugging Face's hub or a folder, which does not say which model it has. Its prompts are its own.

    ``openai:URL#MODEL@DIMENSIONS:TASK``, such as ``openai:http://localhost:8080/v1#m@384``, asks a
    server of OpenAI's shape at ``URL/embeddings``, with the key, if it wants one, in
    ``OPENAI_COMPATIBLE_API_KEY``. MODEL is the server's name for the model; if the spec has none it is
    that of ``OPENAI_COMPATIBLE_MODEL``, which may also have a colon in it. DIMENSIONS may be left out
    for a model that is known here. A TASK is the documents'; it and its twin for queries are sent as
    ``task``, so leave it out for a server that takes none. Vectors are to be of unit norm; for others
    make an :class:`~samespace.OpenAICompatibleBackend` of a space with ``normalized=False``.

    ``dimensions`` is for specs without them. ``share`` is which part of the account's rate limits a
    backend may use that has some (:class:`~samespace.Limits`). :class:`InvalidInput` shows the forms.
    """
    if not isinstance(spec, str):
        raise InvalidInput(f"no backend is known for {excerpt(spec)}; use {_BACKENDS}")
    if served := _SERVED.match(spec):
        return _open_served(served, dimensions, share)
    if local := _LOCAL.match(spec):
        return _open_local(local, dimensions, share)
    if sentences := _SENTENCES.match(spec):
        return _open_sentences(sentences, dimensions, share)
    match = _BACKEND.match(spec)
    size = _agreed_size(spec, match["dimensions"], dimensions) if match else None
    if match and match["name"] == "hashing" and not match["model"] and not match["task"]:
        _check_unlimited("hashing", share)
        hashing = loaded("backends.hashing", extra="all").HashingBackend
        lexical: EmbeddingBackend = hashing() if size is None else hashing(size)
        return lexical
    if match and match["name"] == "jina" and (not match["model"] or find_model(match["model"])):
        named: dict[str, Any] = {name: match[name] for name in ("model", "task") if match[name]}
        if match["task"] == GENERIC:
            named["task"] = None
        api = loaded("backends.jina_api.client", extra="jina")
        made: EmbeddingBackend = api.JinaAPIBackend(dimensions=size, limits=_shared(share), **named)
        return made
    raise InvalidInput(f"no backend is known for {_shown(spec)}; use {_BACKENDS}")


def spec_of(space: EmbeddingSpace) -> str | None:
    """The spec of a backend that :func:`open_backend` knows for a space; None where it knows none."""
    lexical = loaded("backends.hashing", extra="hashing").MODEL
    if space == EmbeddingSpace(model=lexical, dimensions=space.dimensions):
        return f"hashing@{space.dimensions}"
    model = find_model(space.model)
    if model is None or space.variant or not space.normalized:
        return None
    task = space.task or GENERIC
    return f"jina:{space.model}@{space.dimensions}" + (f":{task}" if model.tasks else "")


def full_size(spec: str, space: EmbeddingSpace) -> str:
    """A backend's spec at the full size of its model, where that can be shortened to ``space``.

    The spec as it is where nobody knows, as of a server, whose model may have any name.
    """
    model = find_model(space.model)
    if model is None or model.min_dimensions == model.dimensions:
        return spec
    if local := _LOCAL.match(spec):
        folder, task = local["folder"], local["task"]
        parts = ("local", f":{folder}" if folder else "", f"@{model.dimensions}")
        return "".join(parts) + (f":{task}" if task else "")
    if not spec.startswith("jina"):
        return spec
    return spec_of(replace(space, dimensions=model.dimensions)) or spec


def _shown(spec: str) -> str:
    """A spec as far as nothing in it can be a secret: of a URL only what is in front of it."""
    name, colon, rest = spec.partition(":")
    is_address = "/" in rest or name == "openai"
    return excerpt(f"{name}:…" if colon and is_address else spec)


def _shared(share: float | None) -> Limits | None:
    if share is None:
        return None
    made: Limits = loaded("backends.http.limits", extra="jina").Limits(share=share)
    return made


def _check_unlimited(name: str, share: float | None) -> None:
    if share is not None:
        raise InvalidInput(f"backend {name} has no rate limits; leave share (--share) out")


def _open_local(
    said: re.Match[str], dimensions: int | None, share: float | None
) -> EmbeddingBackend:
    """v3 on this machine; its weights are loaded at the first text."""
    _check_unlimited("local", share)
    size = _agreed_size(said[0], said["dimensions"], dimensions)
    named: dict[str, Any] = {"task": said["task"]} if said["task"] else {}
    if said["task"] == GENERIC:
        named["task"] = None
    local = loaded("backends.jina_local.client", extra="local").JinaLocalBackend
    folder = (said["folder"],) if said["folder"] else ()
    made: EmbeddingBackend = local(*folder, dimensions=size, **named)
    return made


def _open_sentences(
    said: re.Match[str], dimensions: int | None, share: float | None
) -> EmbeddingBackend:
    """A model of the sentence-transformers library; it is loaded here."""
    extra = "sentence-transformers"
    _check_unlimited(extra, share)
    size = _agreed_size(said[0], said["dimensions"], dimensions)
    client = loaded("backends.sentence_transformer.client", extra=extra)
    made: EmbeddingBackend = client.SentenceTransformerBackend(
        said["model"], name=said["name"], dimensions=size
    )
    return made


def _open_served(
    said: re.Match[str], dimensions: int | None, share: float | None
) -> EmbeddingBackend:
    """A server of OpenAI's shape; it is asked for nothing yet."""
    model = said["model"] or os.environ.get(SERVED_MODEL)
    if not model:
        raise InvalidInput(f"the spec of {excerpt(said['url'])} names no model; write {_SERVER}")
    space = _space_of(said, model, dimensions)
    if not said["task"] and space.query_task != space.task:
        raise InvalidInput(
            f"queries of {space} have a task of their own, {space.query_task}, which a spec cannot "
            "say; make the backend in Python: OpenAICompatibleBackend(…, prompts=…) or parameters=…"
        )
    tasks = {"documents": {"task": space.task}, "queries": {"task": space.query_task}}
    client = loaded("backends.openai_compatible.client", extra="jina")
    made: EmbeddingBackend = client.OpenAICompatibleBackend(
        said["url"],
        model=model,
        space=space,
        parameters=tasks if said["task"] else None,
        limits=_shared(share),
    )
    return made


def _space_of(said: re.Match[str], model: str, dimensions: int | None) -> EmbeddingSpace:
    """The space that a server's spec names; :class:`InvalidInput` shows how it is written."""
    size, known = _agreed_size(said[0], said["dimensions"], dimensions), find_model(model)
    if size is None and known is None:
        raise InvalidInput(
            f"how many dimensions {excerpt(model)} has is not known; write {_SERVER}, or give "
            "dimensions (--dimensions)"
        )
    native = known.dimensions if known else 0
    try:
        return EmbeddingSpace(
            model=model, dimensions=native if size is None else size, task=said["task"]
        )
    except InvalidInput as error:
        raise InvalidInput(f"{error}. The spec is written {_SERVER}") from None


def _agreed_size(spec: str, said: str | None, dimensions: int | None) -> int | None:
    """The dimensions of a spec or of the argument, which may not contradict it."""
    if said is None:
        return dimensions
    if dimensions not in {None, int(said)}:
        raise InvalidInput(
            f"backend {excerpt(spec)} says {said} dimensions and dimensions (--dimensions) says "
            f"{dimensions}; leave one out"
        )
    return int(said)


def has_key() -> bool:
    """Whether the environment has a key for Jina's API."""
    return bool(os.environ.get("JINA_API_KEY"))


def has_password(url: str) -> bool:
    """Whether a URL or a connection string has a password in it."""
    return _PASSWORD.search(url) is not None
