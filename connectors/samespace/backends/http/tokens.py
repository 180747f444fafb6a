"""How many tokens a text has: by the model's tokenizer where there is one, else by its bytes."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from samespace.errors import InvalidInput, excerpt
from samespace.models import MODELS

_BYTES_PER_TOKEN: Final = 3
"""Low for English (4 to 5), about right for Chinese and Japanese: an estimate on the safe side."""
_SPECIAL_TOKENS: Final = 2
_LOWEST, _HIGHEST = 2 / 3, 3.0
"""Corrections: 4.5 bytes a token, as English has; one byte a token, the most there can be."""
_RISES: Final = 1.05
_FALLS: Final = 0.02
_TELLING: Final = 200
"""Tokens from which on an answer says something of texts in general."""


class TokenCounter:
    """Counts for one model. What is only estimated is corrected by what the API has counted.

    The correction rises at once and falls slowly, so that it is about the densest text of late.
    """

    def __init__(self, model: str, tokenizer: str | Path | None) -> None:
        self._model = model
        self._given = None if tokenizer is None else _given(tokenizer)
        self._correction = 1.0
        if self._given is not None:
            self.counted(())  # what cannot be read is refused at once

    @property
    def is_exact(self) -> bool:
        """Whether there is a tokenizer; not before it is needed."""
        return self.__dict__.get("_tokenizer") is not None

    def counted(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special ones included; estimates are not corrected yet."""
        if self._tokenizer is None:
            return self.estimated(texts)
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=True)
        return [max(1, len(encoding)) for encoding in encodings]

    def estimated(self, texts: Sequence[str]) -> list[int]:
        """What :meth:`counted` says without a tokenizer."""
        return [len(text.encode()) // _BYTES_PER_TOKEN + _SPECIAL_TOKENS for text in texts]

    def likely(self, tokens: int) -> int:
        """A count as it is, or an estimate with its correction: what is likely paid."""
        return tokens if self.is_exact else math.ceil(tokens * self._correction)

    def safe(self, tokens: int) -> int:
        """A count as it is, or an estimate that is never corrected downward."""
        return tokens if self.is_exact else math.ceil(tokens * max(1.0, self._correction))

    def learn(self, estimated: int, actual: int) -> None:
        """Correct further estimates by an answer, if it is long enough to tell."""
        if self.is_exact or min(estimated, actual) < _TELLING:
            return
        found = _RISES * actual / estimated
        slowly = self._correction + _FALLS * (found - self._correction)
        self._correction = min(max(found, slowly, _LOWEST), _HIGHEST)

    @cached_property
    def _tokenizer(self) -> Any:
        """The tokenizer, read on first use; None if there is none."""
        path = self._given or _cached(self._model)
        if path is None:
            return None
        try:
            from tokenizers import Tokenizer  # noqa: PLC0415  it need not be installed

            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            if self._given is None:
                return None  # not asked for, so not missed
            raise InvalidInput(_unusable(self._given, error)) from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer


def _unusable(path: Path, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return (
            "tokenizer= needs a package that is not installed; run "
            'pip install "samespace[tokenizers]"'
        )
    return f"tokenizer {excerpt(str(path))} cannot be read ({excerpt(str(error))}); pass a tokenizer.json"


def _given(tokenizer: object) -> Path:
    """The file that is meant by a path to it or to its folder."""
    if not isinstance(tokenizer, str | Path):
        raise InvalidInput(f"tokenizer is {excerpt(tokenizer)}; pass the path of a tokenizer.json")
    path = Path(tokenizer)
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        raise InvalidInput(f"tokenizer {excerpt(str(path))} is no file; pass a tokenizer.json")
    return path


def _cached(model: str) -> Path | None:
    """The model's tokenizer in Hugging Face's cache on this machine, if it was ever fetched."""
    hub = _hub()
    known = MODELS.get(model)
    for name in (model, *known.aliases) if known else ():
        folder = hub / f"models--jinaai--{name}" / "snapshots"
        if found := sorted(folder.glob("*/tokenizer.json")):
            return found[-1]
    return None


def _hub() -> Path:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return Path(os.environ[name])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("HF_HOME") or cache / "huggingface") / "hub"
