"""``samespace migrate`` and ``samespace grants``."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated

import orjson
import typer

from samespace.cli.options import (
    AsJson,
    Collection,
    Scope,
    Store,
    condition,
    opened_as_it_is,
    opened_backend,
)
from samespace.errors import InvalidInput, excerpt
from samespace.ingest.durable import replace_file
from samespace.migrate import MigrationPlan
from samespace.migrate.advice import check_use
from samespace.migrate.dimensions import LEAST, MOST_DOCUMENTS, DimensionReport
from samespace.migrate.dimensions import dry_run as compared
from samespace.migrate.dimensions_page import dimensions_page
from samespace.migrate.estimating import Rates
from samespace.migrate.planning import SAMPLED
from samespace.migrate.planning import plan as made_plan
from samespace.opening import full_size
from samespace.protocols import EmbeddingBackend, NamesRights, PlansSlots, VectorStore
from samespace.rights import known_part

app = typer.Typer(
    no_args_is_help=True, help="Move collections to another embedding space, while they are in use."
)
_DEFAULTS = Rates()

Collections = Annotated[
    list[str],
    typer.Option("--collection", "-c", help="The collection's name; may be given again."),
]


@app.command("plan")
def plan(
    context: typer.Context,
    backend: Annotated[
        str, typer.Option("--backend", help="What embeds from then on, as --backend of search.")
    ],
    collection: Collections = ["documents"],  # noqa: B006  typer reads it, nobody changes it
    store: Store = "embedded",
    scope: Scope = None,
    use: Annotated[
        str,
        typer.Option("--use", help="search, similar, classify or cluster: which task it wants."),
    ] = "search",
    where: Annotated[
        list[str] | None,
        typer.Option("--where", help="FIELD=VALUE that the rows to move have; may be given again."),
    ] = None,
    price: Annotated[
        float | None, typer.Option("--price", metavar="X", help="Of a million tokens.")
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(metavar="N", help="What the account is allowed.")
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(metavar="N", help="What the account is allowed.")
    ] = None,
    texts_per_request: Annotated[
        int, typer.Option(metavar="N", help="How many texts one request has.")
    ] = _DEFAULTS.texts_per_request,
    share: Annotated[
        float, typer.Option(metavar="X", help="Part of both that the migration may use.")
    ] = _DEFAULTS.share,
    sample: Annotated[
        int, typer.Option(metavar="N", help="Texts that are sampled for their tokens.")
    ] = SAMPLED,
    dry_run: Annotated[
        int | None,
        typer.Option(
            min=LEAST,
            max=MOST_DOCUMENTS,
            metavar="N",
            help="Embed N texts of the first collection once, at full size, and say what smaller sizes keep.",
        ),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What the dry run asks, a query a line; else first sentences."
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Draw what the dry run found, as a page."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="PLAN.json", help="Write the plan here, too.")
    ] = None,
    ddl: Annotated[
        Path | None,
        typer.Option(
            "--ddl", metavar="FILE", help="Write what the table's owner may run beforehand."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a migration would do, what it takes, and what to know before.

    Nothing is changed, and without --dry-run no model is called.
    """
    check_writable(out, ddl, html)
    asked = read_queries(queries)
    if queries is not None and dry_run is None:
        raise InvalidInput("--queries are what --dry-run N asks; give both")
    if html is not None and dry_run is None:
        raise InvalidInput("--html draws what --dry-run N finds; give both")
    rates = Rates(
        price=price,
        tokens_per_minute=tokens_per_minute,
        requests_per_minute=requests_per_minute,
        texts_per_request=texts_per_request,
        share=share,
    )
    wanted = condition(where or [])
    with (
        opened_backend(backend) as target,
        closing(_opened_each(store, collection, context, scope)) as stores,
    ):
        found = made_plan(
            stores, target, use=check_use(use), where=wanted, rates=rates, sample=sample
        )
        statements = [] if ddl is None else _statements(store, collection, context, scope, target)
    sizes = None
    if dry_run is not None:
        with (
            opened_as_it_is(store, collection[0], context, scope=scope) as source,
            opened_backend(full_size(backend, target.space)) as embedder,
        ):
            sizes = compared(source, embedder, documents=dry_run, queries=asked, where=wanted)
    _show(found, sizes, as_json=as_json)
    if out is not None:
        write(out, orjson.dumps(found.to_dict(), option=orjson.OPT_INDENT_2) + b"\n")
    if ddl is not None:
        write(ddl, "".join(f"{each};\n" for each in statements).encode())
    if html is not None and sizes is not None:
        write(html, dimensions_page(sizes).encode())


def grants(
    context: typer.Context,
    part: Annotated[str, typer.Argument(help="reader, writer or migrator")],
    collection: Collection = "documents",
    store: Store = "embedded",
    scope: Scope = None,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="NAME", help="The role or key; else samespace_PART."),
    ] = None,
) -> None:
    """Print the least rights that reading, writing or migrating a collection takes.

    SQL for PostgreSQL, a request for an API key for Elasticsearch, a token's claims for Qdrant.
    """
    chosen = known_part(part)
    with opened_as_it_is(store, collection, context, scope=scope) as source:
        if not isinstance(source, NamesRights):
            raise InvalidInput("this store does not say what rights it has")
        typer.echo(source.grants(chosen, to=to or f"samespace_{chosen}"))


def _show(found: MigrationPlan, sizes: DimensionReport | None, *, as_json: bool) -> None:
    if not as_json:
        typer.echo("\n".join([*found.lines(), *(sizes.lines() if sizes else ())]))
    elif sizes is None:
        typer.echo(orjson.dumps(found.to_dict()))
    else:
        typer.echo(orjson.dumps({"plan": found.to_dict(), "dry_run": sizes.to_dict()}))


def read_queries(path: Path | None) -> list[str] | None:
    """A query a line, if there is a file."""
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"cannot read the queries {excerpt(str(path))}: {getattr(error, 'strerror', 'not UTF-8')}; "
            "pass a file with a query a line"
        ) from error


def _opened_each(
    store: str, collections: Sequence[str], context: typer.Context, scope: list[str] | None
) -> Generator[VectorStore, None, None]:
    """A handle on each collection, closed before the next: a folder of Qdrant's serves one at a time."""
    for name in dict.fromkeys(collections):
        with opened_as_it_is(store, name, context, scope=scope) as handle:
            yield handle


def _statements(
    store: str,
    collections: Sequence[str],
    context: typer.Context,
    scope: list[str] | None,
    target: EmbeddingBackend,
) -> list[str]:
    """What prepares the slots of all collections."""
    found: list[str] = []
    with closing(_opened_each(store, collections, context, scope)) as handles:
        for handle in handles:
            if not isinstance(handle, PlansSlots):
                raise InvalidInput(
                    "--ddl is for PostgreSQL: elsewhere the record takes the same right as a slot, so the "
                    "migrator needs it in any case (samespace grants migrator)"
                )
            found += handle.ddl(target.space)
    return found


def check_writable(*paths: Path | None) -> None:
    """:class:`InvalidInput` for a path that :func:`write` could not write to; nothing is left there."""
    for path in paths:
        if path is None:
            continue
        if path.exists() and not path.is_file():
            raise InvalidInput(
                f"cannot write {excerpt(str(path))}: it is no regular file; pass another path"
            )
        with _writing(path), NamedTemporaryFile(dir=path.parent, prefix=f"{path.name}."):
            pass


def write(path: Path, content: bytes) -> None:
    """A file, whole or as it was."""
    with _writing(path):
        replace_file(path, content)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidInput(
            f"cannot write {excerpt(str(path))}: {error.strerror}; pass another path"
        ) from error
