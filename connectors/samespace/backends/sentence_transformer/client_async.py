"""Models of the sentence-transformers library as backends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

from sentence_transformers import SentenceTransformer

from samespace.backends.computed_async import AsyncComputedBackend
from samespace.backends.sentence_transformer.checking import checked_space
from samespace.backends.sentence_transformer.loading import loaded
from samespace.backends.sentence_transformer.model import Model
from samespace.errors import InvalidInput, excerpt
from samespace.space import EmbeddingSpace


class AsyncSentenceTransformerBackend(AsyncComputedBackend):
    """Any model of the sentence-transformers library, on this machine's GPU or CPU.

    ``model`` is a folder with its files, its name on Hugging Face's hub (at ``revision``, if that is
    given), from whose cache it is taken or fetched, or a loaded ``SentenceTransformer``. It is loaded
    here, so that what is wrong with it is said at once: make it before the event loop runs, or in a
    worker thread. Code that comes with a model is never run. jina-embeddings-v3 is refused,
    whose adapters the library ignores, and so are the models that need code of their own.

    The space is named after the model's name on the hub. A folder or a loaded object does not say which
    model it is: pass its ``name`` there, or declare its ``space``. ``dimensions`` takes the first so many
    components of a vector and normalises them again, which is of use with models that were trained for it.

    ``prompts`` ({"documents": …, "queries": …}) are put in front of the texts; without them the model's
    own are, where its configuration has any for documents or queries. A prompt changes vectors: unless
    it is the model's own, declare a ``space`` whose ``variant`` names it.

    A text may have as many tokens as the model looks at, prompt and special ones included, which the
    library cuts at silently. One that has more is refused before any is embedded:
    :class:`~samespace.errors.TokenLimitExceeded` names it. With ``on_too_long="truncate"`` its end is
    cut, and :meth:`usage` names it. Texts of like length go through the model ``batch_size`` at a time.
    Any number of threads or tasks may use a handle: batches take turns, so that a query waits for one
    of them. The async one computes in worker threads, never on the event loop.

    :class:`InvalidInput` for what cannot be run here, a device that is not there, a space that cannot be
    the model's; :class:`~samespace.errors.BackendUnavailable` if the hub cannot be asked.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | SentenceTransformer,
        *,
        space: EmbeddingSpace | None = None,
        name: str | None = None,
        prompts: Mapping[str, str] | None = None,
        dimensions: int | None = None,
        device: str | None = None,
        batch_size: int = 32,
        on_too_long: Literal["reject", "truncate"] = "reject",
        revision: str | None = None,
    ) -> None:
        if on_too_long not in ("reject", "truncate"):
            raise InvalidInput(
                f'on_too_long is {excerpt(on_too_long)}; pass "reject" or "truncate"'
            )
        declared = checked_space(space)
        if declared is not None and name is not None:
            raise InvalidInput("the space says which model it is; leave name out")
        self._model = Model(
            loaded(model, device=device, revision=revision, name=name),
            declared,
            prompts=prompts,
            dimensions=dimensions,
            batch_size=batch_size,
            cuts=on_too_long == "truncate",
        )
        super().__init__(self._model)
