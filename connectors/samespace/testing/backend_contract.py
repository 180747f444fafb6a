# Generated from backend_contract_async.py by tools/generate_sync.py; change that file, not this one.
"""Every promise that a backend makes, as one class: subclass it with a fixture ``make``."""

from __future__ import annotations

from samespace.testing.contract_abilities import AbilitiesContract


class EmbeddingBackendContract(AbilitiesContract):
    """What every backend promises, and what those promise that can do more than embed.

    A subclass gives a fixture ``make`` that returns a function, which makes a backend, each time a new
    handle of the same one. Where it can be told how often the model was asked, a fixture ``sent`` returns
    a function that says so. ``tolerance`` is how far two vectors of one text may be apart, ``refuses``
    which odd texts are refused, and ``too_long`` a text that is refused for its length. A promise that
    the backend does not keep is declared in ``gaps``: the name of a test → a
    :class:`~samespace.testing.gaps.Gap`. What a backend cannot do beyond embedding is skipped.
    """
