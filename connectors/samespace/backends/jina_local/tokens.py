"""Texts as tokens: the task's prompt, special tokens and the model's limit included."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from tokenizers import Tokenizer

from samespace.backends.jina_local.segments import Ids
from samespace.errors import InvalidInput, excerpt
from samespace.models import MODELS

LIMIT: Final = MODELS["jina-embeddings-v3"].context
"""Tokens of one text. The model itself would go on beyond it, and be wrong."""


class Tokens:
    """The tokenizer of a checkpoint. Any number of threads may use it."""

    def __init__(self, file: Path, *, begin: int, end: int, padding: int) -> None:
        """``begin`` and ``end`` are the ids of the tokens around a text, ``padding`` that behind it."""
        try:
            tokenizer: Any = Tokenizer.from_file(str(file))
        except Exception as error:
            raise InvalidInput(f"{file} cannot be read ({excerpt(str(error))})") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer, self._begin, self._end = tokenizer, begin, end
        self.padding = padding

    def of(self, texts: Sequence[str], prompt: str) -> list[Ids]:
        """The tokens of each text, however many, behind the prompt and between the special ones."""
        ids = self.bare([prompt + text for text in texts])
        return [self.framed([each]) for each in ids]

    def bare(self, texts: Sequence[str]) -> list[Ids]:
        """The tokens of each text without special ones."""
        found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(each.ids, np.int32) for each in found]

    def framed(self, parts: Sequence[Ids]) -> Ids:
        """Parts of a text as one, between the special tokens."""
        ends = np.array([self._begin], np.int32), np.array([self._end], np.int32)
        return np.concatenate([ends[0], *parts, ends[1]])

    def cut(self, ids: Ids) -> Ids:
        """As many tokens as the model takes, the last one special as in any text."""
        return np.concatenate([ids[: LIMIT - 1], ids[-1:]])
