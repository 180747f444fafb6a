"""Options that several commands share."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer

from samespace.documents import CollectionInfo
from samespace.errors import CollectionNotFound, InvalidInput, SpaceMismatch, command, excerpt
from samespace.filters import And, Filter, field
from samespace.layout import Layout
from samespace.migrate.plan import MigrationPlan, PlannedCollection
from samespace.opening import (
    FORMS,
    has_password,
    open_as_it_is,
    open_backend,
    open_store,
    parse_address,
    recorded_layout,
    spec_of,
)
from samespace.protocols import EmbeddingBackend, VectorStore

STORE: Final = "SAMESPACE_STORE"
_CONDITION: Final = re.compile(
    r"(?P<key>[^=<>!]+)(?P<operator>!=|<=|>=|=|<|>)(?P<value>.*)\Z", re.DOTALL
)

Store = Annotated[
    str, typer.Option("--store", envvar=STORE, help=f"{FORMS}. Keys: only in the environment.")
]
Collection = Annotated[str, typer.Option("--collection", "-c", help="The collection's name.")]
Backend = Annotated[
    str,
    typer.Option(
        "--backend",
        help="What embeds: hashing, or jina (key in JINA_API_KEY); jina@768, jina:MODEL@DIMS:TASK; "
        "local:FOLDER@DIMS:TASK, v3 on this machine; sentence-transformers:NAME@DIMS or :FOLDER#NAME@DIMS, "
        "any model of that library; openai:URL#MODEL@DIMS:TASK, a server of OpenAI's protocol (key in "
        "OPENAI_COMPATIBLE_API_KEY).",
    ),
]
Asked = Annotated[
    str | None,
    typer.Option("--backend", help="What embeds, as for search; it embeds the canary texts."),
]
Dimensions = Annotated[
    int | None, typer.Option("--dimensions", help="Size of the vectors, as @DIMS in --backend.")
]
Scope = Annotated[
    list[str] | None,
    typer.Option("--scope", help="COLUMN=VALUE: which of several collections in one table."),
]
CanaryThreshold = Annotated[
    float | None,
    typer.Option(
        "--canary-threshold",
        metavar="COSINE",
        help="From which on known texts count as embedded alike; 0.995 unless said.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs.")]
PlanFile = Annotated[
    Path, typer.Option("--plan", metavar="PLAN.json", help="What samespace migrate plan wrote.")
]


@contextmanager
def opened(
    store: str,
    collection: str,
    backend: str,
    dimensions: int | None,
    context: typer.Context,
    *,
    share: float | None = None,
    scope: list[str] | None = None,
    canary_threshold: float | None = None,
) -> Iterator[VectorStore]:
    """A handle that embeds."""
    check_shown(store, context)
    with (
        _missing_explained(collection),
        opened_backend(backend, dimensions, share) as embedder,
        open_store(
            store,
            collection=collection,
            backend=embedder,
            layout=scoped(store, collection, scope),
            **comparing(canary_threshold, backend),
        ) as handle,
    ):
        yield handle


@contextmanager
def opened_source(
    store: str,
    planned: PlannedCollection,
    context: typer.Context,
    *,
    scope: list[str] | None = None,
    backend: str | None = None,
    **options: Any,
) -> Iterator[VectorStore]:
    """A handle on a planned collection, in the space that it is to move from; ``backend`` embeds in it."""
    check_shown(store, context)
    with (
        _missing_explained(planned.name),
        nullcontext() if backend is None else opened_backend(backend) as embedder,
        open_store(
            store,
            collection=planned.name,
            backend=embedder,
            space=planned.source.space if embedder is None else None,
            layout=scoped(store, planned.name, scope),
            **options,
        ) as handle,
    ):
        yield handle


@contextmanager
def opened_as_it_is(
    store: str,
    collection: str,
    context: typer.Context,
    *,
    scope: list[str] | None = None,
    reads_texts: bool = True,
) -> Iterator[VectorStore]:
    """A handle for what embeds nothing: its space is whichever the collection holds."""
    check_shown(store, context)
    with (
        _missing_explained(collection),
        open_as_it_is(
            store,
            collection=collection,
            layout=scoped(store, collection, scope, reads_texts=reads_texts),
            reads_texts=reads_texts,
        ) as handle,
    ):
        yield handle


def comparing(canary_threshold: float | None, backend: str | None) -> dict[str, float]:
    """The threshold as a store's option, if one is given; :class:`InvalidInput` where nothing is compared."""
    if canary_threshold is None:
        return {}
    if backend is None:
        raise InvalidInput(
            "--canary-threshold is of a comparison, and without --backend nothing is compared; give "
            "--backend, too, or leave it out"
        )
    return {"canary_threshold": canary_threshold}


def scoped(
    store: str, collection: str, scope: list[str] | None, *, reads_texts: bool = True
) -> Layout | None:
    """The recorded layout of one of several collections in a table, where one is chosen."""
    chosen = scope_of(scope)
    if chosen is None:
        return None
    return recorded_layout(store, collection=collection, scope=chosen, reads_texts=reads_texts)


def scope_of(conditions: Sequence[str] | None) -> Filter | None:
    """``--scope`` options, ``COLUMN=VALUE``: all columns must hold, each one of its values."""
    pinned: dict[str, list[str]] = {}
    for each in conditions or ():
        column, equals, value = each.partition("=")
        if not column or not equals:
            raise InvalidInput(f"--scope {excerpt(each)} is no condition; write COLUMN=VALUE")
        pinned.setdefault(column, []).append(value)
    parts = [field(column).in_(values) for column, values in pinned.items()]
    if len(parts) < 2:
        return parts[0] if parts else None
    return And(tuple(parts))


def proved(handle: VectorStore) -> CollectionInfo:
    """What a collection is, once its canary has been compared with what the backend embeds now."""
    handle.info()  # which creates nothing
    handle.prove()
    handle.prove("queries")
    return handle.info()


@contextmanager
def _missing_explained(collection: str) -> Iterator[None]:
    """Of a collection that is not there, or of another space, say what mends that on a command line."""
    try:
        yield
    except SpaceMismatch as error:
        spec = spec_of(error.stored)
        if spec is not None and error.differences:
            error.add_note(f"The stored space is that of --backend {spec}")
        raise
    except CollectionNotFound as error:
        raise CollectionNotFound(
            f"there is no collection {excerpt(collection)} in this store; check --collection and "
            f"--store, or make it: {command('ingest FILES', collection)}"
        ) from error


def check_shown(store: str, context: typer.Context) -> None:
    """A password on the command line is refused, others can read it there."""
    source = context.get_parameter_source("store")
    shown = source is not None and source.name == "COMMANDLINE"
    if shown and has_password(parse_address(store).source):
        raise InvalidInput(
            "--store has a password, which other users of this machine can see; "
            f"put it into PGPASSWORD or ~/.pgpass, or the whole URL into {STORE}"
        )


@contextmanager
def opened_backend(
    spec: str, dimensions: int | None = None, share: float | None = None
) -> Iterator[EmbeddingBackend]:
    """The backend, closed in the end if it has connections to close."""
    backend = open_backend(spec, dimensions=dimensions, share=share)
    with backend if isinstance(backend, AbstractContextManager) else nullcontext():
        yield backend


def read_plan(path: Path) -> MigrationPlan:
    """The plan in a file; :class:`InvalidInput` for one that cannot be read, or was edited."""
    try:
        return MigrationPlan.from_dict(orjson.loads(path.read_bytes()))
    except OSError as error:
        raise InvalidInput(
            f"cannot read the plan {excerpt(path.name)}: {error.strerror}; pass the file that samespace "
            "migrate plan --out FILE wrote"
        ) from error
    except orjson.JSONDecodeError as error:
        raise InvalidInput(
            f"{excerpt(path.name)} is no JSON, so no plan; pass the file that samespace migrate plan "
            "--out FILE wrote"
        ) from error


def condition(texts: list[str]) -> Filter | None:
    """``--where`` options, all of which must hold: ``lang=de``, ``year>=2020``, ``tag!=x``."""
    parts = [_condition(text) for text in texts]
    return And(tuple(parts)) if parts else None


def _condition(text: str) -> Filter:
    match = _CONDITION.match(text)
    if match is None:
        raise InvalidInput(
            f"--where {excerpt(text)} is not a condition; write lang=de or year>=2020"
        )
    named, value = field(match["key"].strip()), _value(match["value"].strip())
    comparisons: dict[str, Any] = {
        "=": named.__eq__,
        "!=": named.__ne__,
        "<": named.__lt__,
        "<=": named.__le__,
        ">": named.__gt__,
        ">=": named.__ge__,
    }
    found: Filter = comparisons[match["operator"]](value)
    return found


def _value(text: str) -> object:
    """A JSON scalar where it is one, else the text as it stands."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, dict | list) else value


def one_line(text: str, width: int) -> str:
    """A text's beginning on one line, without what would steer a terminal."""
    shown = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * width]).split())
    return shown if len(shown) <= width else shown[: width - 1] + "…"


def is_confirmed(question: str, done: str) -> bool:
    """Whether somebody at the terminal agrees; ``done`` is what was not done if nobody is there."""
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        if sys.stdin.isatty():  # somebody pressed Ctrl-C
            raise
    raise InvalidInput(f"nobody answered, so nothing was {done}; pass --yes to be asked nothing")
