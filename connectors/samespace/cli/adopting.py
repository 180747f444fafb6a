"""``samespace identify`` and ``adopt``."""

from __future__ import annotations

import json
import logging
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from samespace.adoption import recorded_layout
from samespace.audit.identify import SAMPLED, Identification, Match, identify
from samespace.audit.judging import Evidence, Verdict
from samespace.audit.places import OURS, places_of
from samespace.cli.options import (
    AsJson,
    Dimensions,
    Scope,
    Store,
    check_shown,
    is_confirmed,
    one_line,
    opened_backend,
    scope_of,
)
from samespace.errors import InvalidInput, SpaceUnknown, excerpt
from samespace.filters import equalities
from samespace.guard import SpaceRecord, mismatch
from samespace.layout import Layout, TextQuery
from samespace.models import MODELS
from samespace.opening import GENERIC, has_key, open_store, spec_of, survey
from samespace.protocols import EmbeddingBackend
from samespace.space import EmbeddingSpace
from samespace.survey import Proposal, Survey, choose, same_scope

_TASKS: Final = ("retrieval.passage", "text-matching")
"""What documents are stored as, beside no task; other tasks are asked for by name."""
_SIZE: Final = re.compile(r"@[0-9]+")
_LAYOUT: Final = "Where things are, if not where they seem to be"

Existing = Annotated[
    str, typer.Option("--collection", "-c", help="The table, collection or index that exists.")
]
Sample = Annotated[int, typer.Option("--sample", help="How many rows to compare.")]
Id = Annotated[
    str | None,
    typer.Option(
        "--id", help="Key column; id or _id is a point's or row's own.", rich_help_panel=_LAYOUT
    ),
]
Text = Annotated[
    str | None, typer.Option("--text", help="Column or field of texts.", rich_help_panel=_LAYOUT)
]
Slot = Annotated[
    str | None,
    typer.Option("--slot", help="Column, vector or field; '' is unnamed.", rich_help_panel=_LAYOUT),
]
Metadata = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata",
        help="The JSON column, or a column; several; '*' is all of a payload, '' none.",
        rich_help_panel=_LAYOUT,
    ),
]
ParentColumn = Annotated[
    str | None,
    typer.Option(
        "--parent", help="Which rows are chunks of one document.", rich_help_panel=_LAYOUT
    ),
]
Order = Annotated[
    str | None, typer.Option("--order", help="In which order they are.", rich_help_panel=_LAYOUT)
]


def identify_collection(
    context: typer.Context,
    collection: Existing,
    store: Store = "embedded",
    candidate: Annotated[
        list[str] | None,
        typer.Option(
            "--candidate",
            help="What may have embedded it, as --backend; several. Default: hashing, and with "
            "JINA_API_KEY the models of Jina that have this size.",
        ),
    ] = None,
    sample: Sample = SAMPLED,
    id_: Id = None,
    text: Text = None,
    slot: Slot = None,
    metadata: Metadata = None,
    parent: ParentColumn = None,
    order: Order = None,
    scope: Scope = None,
    as_json: AsJson = False,
) -> None:
    """Find out whose vectors a collection holds; nothing in it changes.

    The exit code is 0 if one candidate is named, and 1 if none is.
    """
    check_shown(store, context)
    parts = {"id": id_, "text": text, "slot": slot, "parent": parent, "order": order}
    chosen = scope_of(scope)
    found = survey(store, collection=collection, scope=chosen)
    layout = choose(found, parts=parts, metadata=metadata, scope=chosen)
    places_of(found, layout)
    specs = list(candidate or _reachable(found, layout))
    if not specs:
        raise InvalidInput(
            "no candidate has the size of these vectors; name what may have made them with --candidate"
        )
    with _quiet(), _opened(specs) as backends:
        named = identify(
            store, collection=collection, candidates=backends, layout=layout, sample=sample
        )
        asked = [_Asked(spec, each.space) for spec, each in zip(specs, backends, strict=True)]
    if as_json:
        typer.echo(json.dumps({**named.to_dict(), "candidates": specs}))
    else:
        _show(named, asked, _place(store, context))
    if named.verdict is not Verdict.IDENTIFIED:
        raise typer.Exit(1)


def adopt(
    context: typer.Context,
    collection: Existing,
    backend: Annotated[str, typer.Option("--backend", help="What has embedded the collection.")],
    store: Store = "embedded",
    dimensions: Dimensions = None,
    sample: Sample = SAMPLED,
    id_: Id = None,
    text: Text = None,
    slot: Slot = None,
    metadata: Metadata = None,
    parent: ParentColumn = None,
    order: Order = None,
    scope: Scope = None,
    unproved: Annotated[
        bool,
        typer.Option("--unproved", help="Even if a sample does not prove the backend's space."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Record which space a collection holds, so that it is guarded and can be written.

    Nothing but the record is written. A sample of the rows is embedded again first, and what
    contradicts it is refused (exit code 3).
    """
    check_shown(store, context)
    parts = {"id": id_, "text": text, "slot": slot, "parent": parent, "order": order}
    chosen = scope_of(scope)
    found = survey(store, collection=collection, scope=chosen)
    layout = choose(found, parts=parts, metadata=metadata, scope=chosen)
    with _quiet(), opened_backend(backend, dimensions) as embedder:
        named = identify(
            store, collection=collection, candidates=[embedder], layout=layout, sample=sample
        )
        _check(named, embedder.space, unproved=unproved)
        is_new = named.recorded is None or bool(named.differs)
        if is_new:
            _confirm(named, embedder.space, yes=yes)
            with open_store(
                store, collection=collection, backend=embedder, layout=named.layout
            ) as handle:
                handle.adopt()
    again = _again(backend, dimensions, scope)
    _tell(named, embedder.space, _place(store, context), again, as_json=as_json)


# Arguments


@dataclass(frozen=True, slots=True)
class _Asked:
    """A candidate as it was named, and the space it is of."""

    spec: str
    space: EmbeddingSpace


def _reachable(found: Survey, layout: Layout | None) -> Iterator[str]:
    """Candidates that can be asked without being named."""
    fitting = [
        each for each in found.proposals if layout is None or each.layout.scope == layout.scope
    ]
    slots = {slot.name: slot.dimensions for slot in found.slots}
    for record in found.records:  # which knows the size of a column of any
        if layout is None or _is_of(record, layout):
            slots |= {slot.name: slot.space.dimensions for slot in record.slots}
    named = [size for name, size in slots.items() if layout is None or name == layout.slot]
    sizes = {*named, *(each.dimensions for each in fitting)}
    known = sorted(size for size in sizes if size is not None)
    yield from (f"hashing@{size}" for size in known)
    for size in known if has_key() else ():
        for model in MODELS.values():
            if size not in {model.dimensions, *model.matryoshka}:
                continue
            tasks = [task for task in _TASKS if task in model.tasks]
            yield from (f"jina:{model.name}@{size}:{task}" for task in tasks)
            if model.default_task is None:
                yield f"jina:{model.name}@{size}" + (f":{GENERIC}" if model.tasks else "")


def _is_of(record: SpaceRecord, layout: Layout) -> bool:
    recorded = recorded_layout(record)
    return recorded is None or same_scope(recorded.scope, layout.scope)


@contextmanager
def _opened(specs: Sequence[str]) -> Iterator[list[EmbeddingBackend]]:
    with ExitStack() as opened:
        yield [opened.enter_context(opened_backend(spec)) for spec in specs]


@contextmanager
def _quiet() -> Iterator[None]:
    """That a collection has no record is what these commands are for."""
    logger = logging.getLogger("samespace")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


# Adopting


def _check(named: Identification, offered: EmbeddingSpace, *, unproved: bool) -> None:
    """The refusal where a record or the sample says that the vectors are of another space."""
    if named.recorded is not None:
        for record in named.survey.records:
            held = any(slot.space == named.recorded for slot in record.slots)
            if held and record.find(offered) is None:
                raise mismatch(record, offered, collection=named.collection)
    if named.rendering.title:
        _check_rendered(named)
    if named.space == offered:
        return
    if named.space is not None:
        raise SpaceUnknown(
            f"the vectors of {excerpt(named.collection)} are those of {named.space}, cut from {offered}; "
            f"give the backend with @{named.space.dimensions}"
        )
    if not unproved:
        before = (
            f" It was adopted before, with another layout: {named.differs}."
            if named.differs
            else ""
        )
        raise SpaceUnknown(
            f"collection {excerpt(named.collection)} is not adopted as {offered}: {named.reason}.{before} "
            "Find the right one: samespace identify; or, if you know better than the sample, add --unproved"
            + "".join(f"\n{each.failed}" for each in named.evidence if each.failed)
        )


def _check_rendered(named: Identification) -> None:
    raise InvalidInput(
        f"what was embedded is {named.rendering}, and a record can only name a column as the text; adopt "
        f"it in Python, with layout= as here: {' '.join(named.notes)}"
    )


def _confirm(named: Identification, space: EmbeddingSpace, *, yes: bool) -> None:
    typer.echo(_recognised(named), err=True)
    typer.echo(f"{named.verdict}: {named.reason}", err=True)
    if not yes and not is_confirmed(f"Record that {named.collection} holds {space}?", "adopted"):
        typer.echo("nothing recorded", err=True)
        raise typer.Exit(1)


def _tell(
    named: Identification, space: EmbeddingSpace, place: str, again: str, *, as_json: bool
) -> None:
    if as_json:
        told = {"name": named.collection, "space": space.to_dict(), "verdict": str(named.verdict)}
        layout = named.layout.to_dict()
        typer.echo(
            json.dumps({**told, "layout": layout, "was_recorded": named.recorded is not None})
        )
        return
    typer.echo(f"{named.collection} {_done(named)}: {space}")
    collection = shlex.quote(named.collection)
    typer.echo(f"now: samespace search QUERY {place}--collection {collection} {again}")


def _done(named: Identification) -> str:
    if named.differs:
        return f"was adopted before, its layout is recorded anew ({named.differs})"
    if named.recorded is None:
        return "is adopted"
    own = named.proposal is not None and named.proposal.maker == OURS
    return (
        "was made by samespace, and its record says what it holds" if own else "was adopted before"
    )


def _again(backend: str, dimensions: int | None, scope: Sequence[str] | None) -> str:
    """The options that open the collection from now on."""
    sized = [] if dimensions is None else [f"--dimensions {dimensions}"]
    chosen = [f"--scope {shlex.quote(each)}" for each in scope or ()]
    return " ".join([f"--backend {shlex.quote(backend)}", *sized, *chosen])


# Showing


def _place(store: str, context: typer.Context) -> str:
    """The store as options; nothing where the environment has it, with its password perhaps."""
    source = context.get_parameter_source("store")
    is_given = source is not None and source.name == "COMMANDLINE"
    return f"--store {shlex.quote(store)} " if is_given else ""


def _show(named: Identification, asked: Sequence[_Asked], place: str) -> None:
    console = Console(highlight=False, soft_wrap=True)
    typer.echo(_described(named))
    typer.echo(_recognised(named))
    table = Table("candidate", "cosine", "agree", "text", box=None, pad_edge=False)
    for each in _best_of_each(named.evidence):
        table.add_row(*map(escape, _row(each, asked)))
    if named.evidence:
        console.print(table)
    typer.echo(f"{named.verdict}: {named.reason}")
    if named.normalized is not None:
        typer.echo(f"the vectors are {'' if named.normalized else 'not '}of unit norm")
    for note in named.notes:
        typer.echo(f"note: {note}")
    for why in named.survey.untrue:
        typer.echo(f"note: the record is not true any more: {why}")
    if named.match is None or named.rendering.title:
        return
    if named.refused:
        typer.echo(f"it cannot be adopted as it is: {named.refused}")
    elif named.recorded is None or named.differs:
        typer.echo(f"to adopt it:\n  {_command(named, named.match, asked, place)}")


def _described(named: Identification) -> str:
    found = named.survey
    about = "about " if found.rows_estimated else ""
    slots = ", ".join(
        f"{slot.name or 'unnamed'} ({slot.dimensions or 'any'} dimensions)" for slot in found.slots
    )
    return f"{found.collection}: {about}{found.rows} rows; vectors: {slots}"


def _recognised(named: Identification) -> str:
    proposal: Proposal | None = named.proposal
    if proposal is None:
        return "where things are is not known"
    layout = " ".join(_options(named.layout))
    lines = [
        f"recognised: {proposal.maker}{' ' + proposal.title if proposal.title else ''} ({layout})"
    ]
    return "\n".join([*lines, *(f"  {reason}" for reason in proposal.reasons)])


def _best_of_each(evidence: Sequence[Evidence]) -> list[Evidence]:
    best: dict[int, Evidence] = {}
    for each in evidence:
        best.setdefault(each.candidate, each)
    return list(best.values())


def _row(evidence: Evidence, asked: Sequence[_Asked]) -> tuple[str, str, str, str]:
    spec = asked[evidence.candidate].spec
    if evidence.failed:
        return spec, "-", "-", one_line(evidence.failed, 100)
    agreeing = f"{evidence.agreeing:.0%} of {evidence.rows}"
    return spec, f"{evidence.cosine:.3f}", agreeing, evidence.rendering


def _command(named: Identification, match: Match, asked: Sequence[_Asked], place: str) -> str:
    """The command that adopts a collection as it was identified."""
    spec = _cut(asked[match.candidate], match.space)
    parts = [f"--collection {shlex.quote(named.collection)}", f"--backend {shlex.quote(spec)}"]
    return f"samespace adopt {place}" + " ".join([*parts, *_options(named.layout)])


def _cut(asked: _Asked, space: EmbeddingSpace) -> str:
    """A spec for the space that was found, which may be smaller than the candidate's own."""
    if asked.space == space:
        return asked.spec
    known = spec_of(space)
    if (
        known is not None
        and known.partition(":")[0] == asked.spec.partition(":")[0].partition("@")[0]
    ):
        return known
    unsized = _SIZE.sub("", asked.spec, count=1)
    task = f":{space.task}" if unsized.endswith(f":{space.task}") else ""
    return f"{unsized.removesuffix(task)}@{space.dimensions}{task}"


def _options(layout: Layout) -> Iterator[str]:
    """A layout as options of the command line."""
    text = layout.text.expression if isinstance(layout.text, TextQuery) else layout.text
    named: list[tuple[str, Any]] = [("id", layout.id), ("text", text), ("slot", layout.slot)]
    metadata = [layout.metadata] if isinstance(layout.metadata, str) else layout.metadata or [""]
    named += [("metadata", name) for name in metadata]
    named += [("parent", layout.parent), ("order", layout.order)]
    yield from (f"--{part} {shlex.quote(str(name))}" for part, name in named if name is not None)
    for column, values in equalities(layout.scope).items() if layout.scope is not None else ():
        yield from (f"--scope {shlex.quote(f'{column}={value}')}" for value in values)
