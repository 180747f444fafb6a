"""Which requests are computed together."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.server.lexical import SLOW, LexicalBackend

from samespace.backends.jina_api.serving import Refusal, requested
from samespace.errors import TokenLimitExceeded
from samespace.server import lanes
from samespace.server.lanes import Job, Lane

PASSAGE = "retrieval.passage"


@pytest.fixture
def backend() -> LexicalBackend:
    return LexicalBackend(context=6)


@pytest.fixture
def lane(backend: LexicalBackend) -> Iterator[Lane]:
    made = Lane(backend, "test")
    yield made
    backend.go.set()
    made.close()


def job(*texts: str, **said: Any) -> Job:
    body = {"model": "jina-embeddings-v3", "input": list(texts), **said}
    return Job(requested(body, most=100), threading.Event())


def held(lane: Lane, backend: LexicalBackend) -> Job:
    """A job that is under way, so that others wait."""
    first = job(SLOW)
    lane.put(first)
    assert backend.entered.acquire(timeout=60)
    return first


def put(lane: Lane, backend: LexicalBackend, *jobs: Job) -> None:
    """All of these while another is under way."""
    held(lane, backend)
    for each in jobs:
        lane.put(each)
    backend.go.set()


def test_what_is_alike_is_computed_together(lane: Lane, backend: LexicalBackend) -> None:
    alike = [job("a", "b"), job("c", dimensions=64, normalized=False)]
    late = [job(*chunks, late_chunking=True) for chunks in ("fg", "h")]
    others = [job("d", task=PASSAGE), job("e", truncate=True), *late]
    put(lane, backend, alike[0], *others, alike[1])
    means = [each.computed.result(60).means for each in alike]
    assert [each.computed.result(60).tokens for each in (*alike, *others)] == [6, 3, 3, 3, 6, 3]
    assert backend.calls == [[SLOW], ["a", "b", "c"], ["d"], ["e"], ["f|g", "h"]]
    assert [len(each.computed.result(60).means) for each in late] == [2, 1]
    assert np.array_equal(np.concatenate(means), backend.texts("abc", None, cuts=False).means)


def test_no_more_than_there_is_room_for(
    lane: Lane, backend: LexicalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "TOGETHER", 5)
    jobs = [job("aaa"), job("bbb"), job("cc"), job("dddddddd")]
    put(lane, backend, *jobs)
    for each in jobs:
        each.computed.result(60)
    assert backend.calls == [[SLOW], ["aaa", "cc"], ["bbb"], ["dddddddd"]]


def test_one_that_is_to_blame_takes_none_with_it(lane: Lane, backend: LexicalBackend) -> None:
    good, long, also = job("a"), job("b", "a b c d e f"), job("c")
    put(lane, backend, good, long, also)
    assert good.computed.result(60).tokens == also.computed.result(60).tokens == 3
    error = long.computed.exception(60)
    assert isinstance(error, TokenLimitExceeded)
    assert error.indices == (1,)


def test_chunks_have_to_fit_together(lane: Lane, backend: LexicalBackend) -> None:
    long = job("word " * 5000, "word " * 5000, late_chunking=True)
    put(lane, backend, short := job("a", "b", late_chunking=True), long)
    assert short.computed.result(60).tokens == 6
    error = long.computed.exception(60)
    assert isinstance(error, Refusal)
    assert error.body["code"] == "INPUT_TOKEN_LIMIT_EXCEEDED"


def test_nothing_is_computed_for_those_that_left(lane: Lane, backend: LexicalBackend) -> None:
    first = held(lane, backend)
    waiting, staying = job("a"), job("b")
    for each in (waiting, staying):
        lane.put(each)
    waiting.computed.cancel()
    assert list(lane._waiting) == [staying]
    first.left.set()
    assert backend.stopped.wait(60)
    assert staying.computed.result(60).tokens == 3
    assert backend.calls == [[SLOW], ["b"]]


def test_a_lane_that_closes_answers_nobody_who_waits(lane: Lane, backend: LexicalBackend) -> None:
    first, waiting = held(lane, backend), job("a")
    lane.put(waiting)
    first.left.set()
    lane.close()
    assert first.computed.exception(0)
    assert waiting.computed.cancelled()
