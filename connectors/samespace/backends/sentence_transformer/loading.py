"""Loading a model from a folder or the hub: its files alone, never its code."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from huggingface_hub import try_to_load_from_cache
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Router

from samespace.backends.model_options import checked_device
from samespace.backends.quiet import without_bars
from samespace.backends.sentence_transformer.checking import (
    check_type,
    checked_name,
    checked_source,
)
from samespace.errors import BackendUnavailable, InvalidInput, excerpt

_CACHE: Final = "SENTENCE_TRANSFORMERS_HOME"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model, its whole name where the hub has it, and the commit of its files where that is known."""

    model: SentenceTransformer
    name: str | None = None
    revision: str = ""


def loaded(
    model: object, *, device: str | None, revision: str | None, name: str | None = None
) -> Loaded:
    """The model that is meant; ``name`` is the hub's for what does not say it.

    :class:`InvalidInput` if it cannot be run here; :class:`BackendUnavailable` if the hub cannot be
    asked.
    """
    named = None if name is None else checked_name(name)
    if isinstance(model, SentenceTransformer):
        return _given(model, device, revision, named)
    source = checked_source(model)
    if isinstance(source, Path) and revision is not None:
        raise InvalidInput("revision is of the hub's models; leave it out with a folder")
    if isinstance(source, str) and named is not None:
        raise InvalidInput(f"name is for a folder or an object; {source} has its own, leave it out")
    if device is not None:
        checked_device(device)
    found = _read(source, device, revision)
    check_type(getattr(found.config, "model_type", None), str(source))
    _check_plain(found)
    if isinstance(source, Path):
        return Loaded(found, named)
    return Loaded(found, source, _commit(source, revision))


def _given(
    model: SentenceTransformer, device: str | None, revision: str | None, name: str | None
) -> Loaded:
    for option, value in {"device": device, "revision": revision}.items():
        if value is not None:
            raise InvalidInput(f"{option} is for a model that is still to be loaded; leave it out")
    check_type(getattr(model.config, "model_type", None), "the model")
    _check_plain(model)
    return Loaded(model, name)


def _check_plain(model: SentenceTransformer) -> None:
    """A router's routes have limits of their own, of which the model tells the greatest alone."""
    if any(isinstance(module, Router) for module in model):
        raise InvalidInput(
            "the model has routes of its own for documents and queries, which cut texts at lengths that it "
            "does not tell; embed with CallableBackend(space, embed_documents, embed_query)"
        )


def _read(source: Path | str, device: str | None, revision: str | None) -> SentenceTransformer:
    try:
        is_here = isinstance(source, Path) or _cached(source, revision) is not None
        with without_bars() if is_here else nullcontext():  # a download may take minutes
            return SentenceTransformer(
                os.fspath(source), device=device, revision=revision, trust_remote_code=False
            )
    except Exception as error:
        raise _unreadable(source, error) from error


def _unreadable(source: Path | str, error: Exception) -> InvalidInput | BackendUnavailable:
    """What to do about a model that the library cannot load."""
    said = str(error)
    if "trust_remote_code" in said:
        return InvalidInput(
            f"{source} needs code of its own, which is never run; use a server that has it with "
            "OpenAICompatibleBackend (backend openai:URL)"
        )
    if isinstance(source, Path):
        return InvalidInput(f"{source} cannot be loaded ({excerpt(said)}); fetch all of its files")
    return BackendUnavailable(
        f"{source} cannot be had from the hub or its cache ({excerpt(said)}); check the name, the network "
        "and HF_ENDPOINT, or pass a folder"
    )


def _commit(name: str, revision: str | None) -> str:
    """The commit in whose folder of the hub's cache the model's files are.

    :class:`InvalidInput` if modules.json is not among them: the library would then have guessed.
    """
    found = _cached(name, revision)
    if found is None:
        raise InvalidInput(
            f"{name} has no modules.json, which says how tokens become one vector, and that is not to be "
            "guessed; name a sentence-transformers model, or pass a loaded SentenceTransformer"
        )
    return found.parent.name


def _cached(name: str, revision: str | None) -> Path | None:
    """The modules.json of a model in the hub's cache."""
    cache: Any = os.environ.get(_CACHE)
    found = try_to_load_from_cache(name, "modules.json", cache_dir=cache, revision=revision)
    return Path(found) if isinstance(found, str) else None
