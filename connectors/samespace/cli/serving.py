"""``samespace embed-server``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samespace.opening import loaded

_MODEL = "jina-embeddings-v3"


def embed_server(
    model_or_folder: Annotated[
        str, typer.Argument(metavar="FOLDER_OR_MODEL", help="Weights: a folder, or on the hub.")
    ] = _MODEL,
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 is everywhere.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 8080,
    device: Annotated[
        str | None, typer.Option(help="cuda, cuda:1 or cpu; a GPU if there is one.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="bfloat16, float16 or float32; as the device can.")
    ] = None,
    token_budget: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Tokens through the model at once.")
    ] = None,
    weight_sets: Annotated[
        int, typer.Option(min=1, metavar="N", help="Tasks whose weights are kept; 6 is all.")
    ] = 2,
    revision: Annotated[str | None, typer.Option(help="Of the weights on the hub.")] = None,
    key_file: Annotated[
        Path | None,
        typer.Option("--api-key-file", help="A key a line. Or keys in SAMESPACE_SERVER_KEYS."),
    ] = None,
    open_to_all: Annotated[
        bool, typer.Option("--open", help="Without keys serve not only this machine.")
    ] = False,
    most_items: Annotated[
        int, typer.Option(min=1, metavar="N", help="Texts that a request may have.")
    ] = 2048,
    most_bytes: Annotated[
        int, typer.Option(min=1, metavar="N", help="Bytes that a request may have.")
    ] = 16 * 2**20,
    most_in_flight: Annotated[
        int, typer.Option(min=1, metavar="N", help="Batches at a time, and as many queries.")
    ] = 64,
) -> None:
    """Serve a model on this machine by the contract of Jina's API, until Ctrl-C.

    Requests that are under way then are answered first. v3's weights are licensed CC BY-NC 4.0.
    """
    server = loaded("server", extra="server")
    local = loaded("backends.jina_local.client", extra="local")
    keys = server.read_keys(key_file)
    backend = local.JinaLocalBackend(
        model_or_folder,
        device=device,
        dtype=dtype,
        token_budget=token_budget,
        weight_sets=weight_sets,
        revision=revision,
    )
    server.serve(
        backend,
        host=host,
        port=port,
        keys=keys,
        open_to_all=open_to_all,
        most_items=most_items,
        most_bytes=most_bytes,
        most_in_flight=most_in_flight,
        on_listening=lambda url: _tell(url, has_keys=bool(keys)),
    )


def _tell(url: str, *, has_keys: bool) -> None:
    key = "one of the keys" if has_keys else "anything"
    typer.echo(f"listening on {url}; use it with JINA_BASE_URL={url}/v1 and JINA_API_KEY={key}")
