"""Where v3's weights are: in a folder, or at a pinned revision of the Hugging Face hub."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

from samespace.errors import BackendUnavailable, InvalidInput, excerpt
from samespace.models import MODELS, find_model

MODEL: Final = "jina-embeddings-v3"
REPOSITORY: Final = "jinaai/jina-embeddings-v3-hf"
REVISION: Final = "d18862d9"
"""Abbreviated commit of the port to the library's own classes, which facts here were read from."""
ARCHITECTURE: Final = "jina_embeddings_v3"
_FILES: Final = (
    "config.json",
    "tokenizer.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "*/adapter_config.json",
    "*/adapter_model.safetensors",
)
_INSTEAD: Final = {
    "jina-embeddings-v2": "no maintained library has its architecture: use JinaAPIBackend (backend jina), "
    "or a server that has it with OpenAICompatibleBackend (backend openai:URL)",
    "": "use JinaAPIBackend (backend jina), or a server that has it with OpenAICompatibleBackend "
    "(backend openai:URL)",
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder with the files that are needed, and the revision that they are of, if it is known."""

    folder: Path
    revision: str
    config: Mapping[str, Any]

    def adapter(self, task: str) -> Path:
        """The folder of a task's adapter."""
        return self.folder / folder_of(task)


def folder_of(task: str) -> str:
    """``retrieval.query`` → ``retrieval_query``."""
    return task.replace(".", "_").replace("-", "_")


def check_model(model_or_folder: object) -> Path | None:
    """The folder that is meant, None for the model on the hub.

    :class:`InvalidInput` for what is neither, which says of a known model what to use instead.
    """
    if not isinstance(model_or_folder, str | os.PathLike):
        raise InvalidInput(
            f"model_or_folder is {excerpt(model_or_folder)}; pass {MODEL!r} or a folder"
        )
    given = os.fspath(model_or_folder)
    known = find_model(given)
    if known is not None and known.name == MODEL:
        return None
    if known is not None:
        instead = next(_INSTEAD[stem] for stem in _INSTEAD if known.name.startswith(stem))
        raise InvalidInput(f"{known.name} cannot be run here, only {MODEL}: {instead}")
    if not Path(given).is_dir():
        raise InvalidInput(
            f"{excerpt(given)} is neither {MODEL} nor a folder; pass the folder of its weights"
        )
    return Path(given)


def found(folder: Path | None, revision: str | None) -> Checkpoint:
    """The checkpoint in a folder, or that of the hub, from its cache on this machine or fetched.

    :class:`InvalidInput` if something is missing or of another model; :class:`BackendUnavailable` if the
    hub cannot be asked.
    """
    if folder is not None and revision is not None:
        raise InvalidInput("revision is of the hub's weights; leave it out with a folder")
    place = folder if folder is not None else _fetched(revision or REVISION)
    known = "" if folder is not None else place.name
    return Checkpoint(place, known, _checked_config(place))


def _checked_config(folder: Path) -> Mapping[str, Any]:
    config = _json(folder / "config.json")
    kind, size = config.get("model_type"), config.get("hidden_size")
    if kind != ARCHITECTURE:
        raise InvalidInput(
            f"{folder} has a model of type {excerpt(kind)}, not {ARCHITECTURE}; pass the folder of "
            f"{REPOSITORY} (the older repository's files need code of their own, which is never run)"
        )
    if size != MODELS[MODEL].dimensions:
        raise InvalidInput(
            f"{folder} has a model of {excerpt(size)} dimensions; {MODEL} has {MODELS[MODEL].dimensions}"
        )
    missing = [name for name in _needed(folder) if not (folder / name).is_file()]
    if missing:
        raise InvalidInput(f"{folder} lacks {', '.join(missing)}; fetch all of {REPOSITORY}")
    return config


def _needed(folder: Path) -> list[str]:
    index = "model.safetensors.index.json"
    weights = index if (folder / index).is_file() else "model.safetensors"
    adapters = [
        f"{folder_of(task)}/{name}"
        for task in MODELS[MODEL].tasks
        for name in ("adapter_config.json", "adapter_model.safetensors")
    ]
    return [weights, "tokenizer.json", *adapters]


def _json(file: Path) -> Mapping[str, Any]:
    try:
        read = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise InvalidInput(f"{file.parent} lacks {file.name}; pass a folder of weights") from None
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{file} cannot be read ({excerpt(str(error))})") from error
    if not isinstance(read, dict):
        raise InvalidInput(f"{file} is no JSON object")
    return read


# The hub


def _fetched(revision: str) -> Path:
    """The folder of a revision in the hub's cache, fetched if it is not, or not wholly, there."""
    from huggingface_hub import HfApi, constants, hf_hub_download  # noqa: PLC0415  a second to import

    snapshots = Path(constants.HF_HUB_CACHE) / f"models--{REPOSITORY.replace('/', '--')}"
    for folder in sorted((snapshots / "snapshots").glob(f"{revision}*")):
        if (folder / "config.json").is_file() and _is_whole(folder):
            return folder
    try:
        about = HfApi().model_info(REPOSITORY, revision=_whole(revision))
        for each in (
            about.siblings or ()
        ):  # snapshot_download has threads that a program's end waits for
            if any(fnmatch(each.rfilename, pattern) for pattern in _FILES):
                hf_hub_download(REPOSITORY, each.rfilename, revision=about.sha)
        return snapshots / "snapshots" / str(about.sha)
    except Exception as error:
        raise BackendUnavailable(
            f"{REPOSITORY} at {revision} is not in the hub's cache ({snapshots}) and cannot be fetched: "
            f"{excerpt(str(error))}; check the network and HF_ENDPOINT, or pass a folder"
        ) from error


def _is_whole(folder: Path) -> bool:
    index = folder / "model.safetensors.index.json"
    shards = set(_json(index).get("weight_map", {}).values()) if index.is_file() else set()
    return all((folder / name).is_file() for name in (*_needed(folder), *sorted(shards)))


def _whole(revision: str) -> str:
    """A commit's hash of 40 digits; the hub takes no abbreviation."""
    from huggingface_hub import HfApi  # noqa: PLC0415  a second to import

    if len(revision) >= 40 or any(digit not in "0123456789abcdef" for digit in revision):
        return revision
    commits = [commit.commit_id for commit in HfApi().list_repo_commits(REPOSITORY)]
    return next((each for each in commits if each.startswith(revision)), revision)
