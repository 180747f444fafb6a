"""Which models can be run here, under which space and with which prompts; nothing is loaded."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from samespace.errors import InvalidInput, excerpt
from samespace.models import find_model
from samespace.names import check_storable
from samespace.space import EmbeddingSpace

Prompts = Mapping[str, str]
"""What is put in front of texts, by side; nothing for a side that is missing."""
DOCUMENTS: Final = "documents"
QUERIES: Final = "queries"
OWN_NAMES: Final = {DOCUMENTS: ("document", "passage", "corpus"), QUERIES: ("query",)}
"""What models call their prompts for each side."""

_ORGANISATION: Final = "sentence-transformers"
"""Whose models the library knows by their bare names."""
_HUB_NAME: Final = re.compile(r"(?:[\w.-]+/)?[\w.-]+")
_PROMPTS: Final = '{"documents": "passage: ", "queries": "query: "}'
_V3: Final = "jina-embeddings-v3"
_V3_TYPE: Final = "jina_embeddings_v3"
_PLAIN: Final = ("jina-code-embeddings",)
"""Known models, by the beginning of their names, whose prompts are all that tells their tasks apart."""


def checked_source(model: object) -> Path | str:
    """The folder of a model, or its whole name on the hub; :class:`InvalidInput` for anything else."""
    if not isinstance(model, str | os.PathLike):
        raise InvalidInput(
            f"model is {excerpt(model)}; pass a folder, a name or a loaded SentenceTransformer"
        )
    given = Path(model)
    if given.is_dir():
        check_folder(given)
        return given
    if not isinstance(model, str) or not _HUB_NAME.fullmatch(model):
        raise InvalidInput(
            f"model {excerpt(os.fspath(model))} is neither a folder nor the name of a model; pass "
            "the folder that has its modules.json, or a name such as BAAI/bge-m3"
        )
    return _whole(model)


def checked_name(name: object) -> str:
    """The whole name on the hub of a model that is given as files or as an object."""
    if not isinstance(name, str) or not _HUB_NAME.fullmatch(name):
        raise InvalidInput(f"name is {excerpt(name)}; pass the model's on the hub, as BAAI/bge-m3")
    return _whole(name)


def _whole(name: str) -> str:
    check_runs_here(name)
    return name if "/" in name else f"{_ORGANISATION}/{name}"


def check_folder(folder: Path) -> None:
    """:class:`InvalidInput` for a folder with no such model in it, or with one that is not for here."""
    if not (folder / "modules.json").is_file():
        raise InvalidInput(
            f"{folder} lacks modules.json, which says how tokens become one vector, and that is not to "
            "be guessed; pass the folder of a sentence-transformers model"
        )
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except FileNotFoundError:
        return  # not every model has a transformer
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"{folder / 'config.json'} cannot be read ({excerpt(str(error))})"
        ) from error
    check_type(config.get("model_type") if isinstance(config, dict) else None, str(folder))


def check_type(model_type: object, where: str) -> None:
    """:class:`InvalidInput` for v3 by whatever name."""
    if model_type == _V3_TYPE:
        raise InvalidInput(_refusal(f"{where} has {_V3}, which", _V3))


def check_runs_here(name: str) -> None:
    """:class:`InvalidInput` for a known model that needs more than this library, and what has that."""
    known = find_model(name)
    if known is not None and not known.name.startswith(_PLAIN):
        raise InvalidInput(_refusal(known.name, known.name))


def _refusal(subject: str, name: str) -> str:
    if name == _V3:
        return (
            f"{subject} would run without its adapters here, for the sentence-transformers library "
            "ignores them silently: every task would get the same vectors; use JinaLocalBackend "
            "(backend local:FOLDER)"
        )
    return (
        f"{subject} cannot be run by this backend, for it needs code of its own, which is never run; use "
        "JinaAPIBackend (backend jina), or a server that has it with OpenAICompatibleBackend (backend "
        "openai:URL)"
    )


def checked_space(space: object) -> EmbeddingSpace | None:
    """The space that is declared, if one is."""
    if space is None:
        return None
    if not isinstance(space, EmbeddingSpace):
        raise InvalidInput(
            f"space is {excerpt(space)}; pass the EmbeddingSpace of the model's vectors"
        )
    check_runs_here(space.model)
    return space


def space_of(
    declared: EmbeddingSpace | None, name: str | None, native: int, dimensions: int | None
) -> EmbeddingSpace:
    """The space of vectors of a model that gives ``native`` components; ``name`` is the hub's.

    :class:`InvalidInput` where nobody says which model it is, or sizes contradict one another.
    """
    if dimensions is not None and (type(dimensions) is not int or not 1 <= dimensions <= native):
        raise InvalidInput(
            f"dimensions is {excerpt(dimensions)}; the model has {native}, so pass 1 to {native}"
        )
    size = native if dimensions is None else dimensions
    if declared is None and name is None:
        raise InvalidInput(
            "a folder or a loaded object does not say which model it is; pass "
            f'space=EmbeddingSpace(model="…", dimensions={size}), or name=, that on the hub (#NAME in a spec)'
        )
    space = declared or EmbeddingSpace(model=str(name), dimensions=size)
    if space.dimensions != size:
        raise InvalidInput(
            f"space has {space.dimensions} dimensions and the vectors {size}; pass a space of {size}"
            + (f", or dimensions={space.dimensions}" if space.dimensions < native else "")
        )
    return space


def checked_prompts(given: object, own: Prompts, *, declared: bool) -> Prompts:
    """The prompts of both sides: those given, else the model's own.

    Others than its own make other vectors, so that a space must be ``declared`` with them.
    """
    if given is None:
        return own
    if not isinstance(given, Mapping) or not set(given) <= {DOCUMENTS, QUERIES}:
        raise InvalidInput(f"prompts is {excerpt(given)}; pass {_PROMPTS}")
    for side, prompt in given.items():
        check_storable(prompt, what=f"prompts for {side}")
    prompts = {side: prompt for side, prompt in given.items() if prompt}
    if not declared and prompts != own:
        raise InvalidInput(
            "prompts other than the model's own change its vectors; pass a space= too, whose variant "
            "names them"
        )
    return prompts


def check_sides(space: EmbeddingSpace, prompts: Prompts) -> None:
    """:class:`InvalidInput` if queries would be embedded as documents are, and should not be."""
    if space.query_task != space.task and prompts.get(DOCUMENTS) == prompts.get(QUERIES):
        raise InvalidInput(
            f"documents of {space} have another task than their queries, {space.query_task}, and "
            f"nothing would tell the model: pass prompts={_PROMPTS}"
        )


def own_prompts(named: Mapping[str, Any], default: str | None) -> Prompts:
    """A model's own prompts by side: those that it has for a side, else the one for all texts.

    An empty one says nothing, for the library puts ``"document": ""`` beside a model's ``"passage"``.
    """
    is_of_a_side = any(default in names for names in OWN_NAMES.values())
    usual = "" if is_of_a_side else named.get(default or "")
    found = {
        side: next((named[name] for name in names if named.get(name)), usual)
        for side, names in OWN_NAMES.items()
    }
    return {side: prompt for side, prompt in found.items() if prompt}
