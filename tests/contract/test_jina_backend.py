"""Both clients of Jina's API against a server on the loopback interface."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import pickle
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from tests.contract.bad_answers import BAD_BODIES, BAD_CHANGES, endless_server, with_numbers
from tests.contract.calling import Caller

from samespace import AsyncJinaAPIBackend, JinaAPIBackend, Limits
from samespace.backends.http.options import certificates
from samespace.errors import (
    AuthenticationFailed,
    BackendUnavailable,
    BadResponse,
    EmbeddingError,
    InvalidInput,
    QuotaExhausted,
    RateLimited,
    TokenLimitExceeded,
)
from samespace.models import MODELS
from samespace.protocols import Matrix, Usage
from samespace.testing.jina_server import JinaServer, error_body
from samespace.testing.jina_vectors import LexicalModel

KEY = "jina_sentinel_4711"
V2, V3, V4 = "jina-embeddings-v2-base-en", "jina-embeddings-v3", "jina-embeddings-v4"
TEXTS = ["red apples are ripe", "pears are green", "blue plums"]


class Make(Protocol):
    def __call__(self, **options: Any) -> Caller: ...


@pytest.fixture
def server() -> Iterator[JinaServer]:
    with JinaServer(keys=(KEY,)) as server:
        yield server


@pytest.fixture(params=[JinaAPIBackend, AsyncJinaAPIBackend])
def make(request: pytest.FixtureRequest, server: JinaServer) -> Iterator[Make]:
    """Makes clients of one kind that never wait between two attempts."""
    with contextlib.ExitStack() as made:

        def make(**options: Any) -> Caller:
            given = {"api_key": KEY, "base_url": server.url, "retry_wait": 0, **options}
            caller = Caller(request.param(**given))
            made.callback(caller.close)
            return caller

        yield make


def expected(texts: Sequence[str], *, task: str | None, dimensions: int = 1024) -> Matrix:
    return LexicalModel(MODELS[V3]).embed(texts, task=task, dimensions=dimensions)


# What is asked and answered


def test_documents_and_queries_are_embedded_as_what_they_are(make: Make) -> None:
    backend = make()
    assert np.array_equal(backend.documents(TEXTS), expected(TEXTS, task="retrieval.passage"))
    assert np.array_equal(backend.queries(TEXTS), expected(TEXTS, task="retrieval.query"))
    assert np.array_equal(backend.query("plums"), expected(["plums"], task="retrieval.query")[0])


@pytest.mark.parametrize(
    ("options", "documents", "queries"),
    [
        ({}, ("retrieval.passage", 1024), ("retrieval.query", 1024)),
        ({"dimensions": 64, "task": None}, (None, 64), (None, 64)),
        ({"task": "separation"}, ("separation", 1024), ("separation", 1024)),
        ({"model": V2}, (None, None), (None, None)),
        ({"task": "clustering"}, ("separation", 1024), ("separation", 1024)),
        (
            {"model": "jina-embeddings-v5-text-small", "task": "separation"},
            ("clustering", 1024),
            ("clustering", 1024),
        ),
        ({"model": V4, "dimensions": 128}, ("retrieval.passage", 128), ("retrieval.query", 128)),
        ({"model": "jina-clip-v2"}, (None, 1024), ("retrieval.query", 1024)),
        (
            {"model": "jina-code-embeddings-0.5b", "task": "nl2code.passage"},
            ("nl2code.passage", 896),
            ("nl2code.query", 896),
        ),
    ],
)
def test_each_model_is_asked_with_its_own_parameters(
    make: Make,
    server: JinaServer,
    options: dict[str, Any],
    documents: tuple[str | None, int | None],
    queries: tuple[str | None, int | None],
) -> None:
    backend = make(**options)
    assert backend.documents(TEXTS).shape == backend.queries(TEXTS).shape
    asked = [(body.get("task"), body.get("dimensions")) for body in server.requests]
    assert asked == [documents, queries]


@pytest.mark.parametrize("model", sorted(MODELS))
def test_every_known_model_is_served(make: Make, model: str) -> None:
    task = next((task for task in MODELS[model].tasks if task.endswith(".passage")), None)
    backend = make(model=model, task=task)
    assert backend.documents(TEXTS).shape == (3, MODELS[model].dimensions)
    assert backend.query("x").shape == (MODELS[model].dimensions,)


def test_many_texts_go_in_several_requests(make: Make, server: JinaServer) -> None:
    texts = [f"text number {number}" for number in range(10)]
    backend = make(limits=Limits(texts_per_request=4, in_flight=1))
    assert np.array_equal(backend.documents(texts), expected(texts, task="retrieval.passage"))
    assert [len(body["input"]) for body in server.requests] == [4, 4, 2]
    assert backend.usage() == Usage(10 * 5)


def test_requests_are_kept_small(make: Make, server: JinaServer) -> None:
    make(limits=Limits(tokens_per_request=100)).documents(["word " * 30] * 4)
    assert [len(body["input"]) for body in server.requests] == [1, 1, 1, 1]


def test_usage_is_that_of_the_last_call(make: Make) -> None:
    backend = make()
    assert backend.usage() == Usage(0)
    backend.documents(["one two", "three"])
    assert backend.usage() == Usage(4 + 3)
    backend.query("one")
    assert backend.usage() == Usage(3)


def test_provenance_names_the_api_and_the_model(make: Make) -> None:
    provenance = make().backend.provenance()
    assert provenance["backend"] == "jina-api"
    assert provenance["model"] == V3


# Retries


@pytest.mark.parametrize(
    "status", [408, 409, 425, 429, 500, 502, 503, 504, 507, 520, 522, 524, 529, 530]
)
@pytest.mark.parametrize("headers", [{}, {"Retry-After": "0"}, {"Retry-After": "soon"}])
def test_what_may_pass_is_tried_again(
    make: Make, server: JinaServer, status: int, headers: dict[str, str]
) -> None:
    server.fail_next(status, error_body("BUSY"), headers=headers, times=2)
    assert make().query("plums").shape == (1024,)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "kind"),
    [(409, BackendUnavailable), (429, RateLimited), (502, BackendUnavailable)],
)
def test_attempts_are_limited(
    make: Make, server: JinaServer, status: int, kind: type[EmbeddingError]
) -> None:
    server.fail_next(status, error_body("BUSY", "much to do"), times=9)
    with pytest.raises(kind, match="much to do") as caught:
        make(attempts=3).documents(TEXTS)
    assert len(server.requests) == 3
    assert caught.value.indices == ()


@pytest.mark.parametrize("header", ["121", "1e9", "Fri, 02 Jan 2096 03:04:05 GMT"])
@pytest.mark.parametrize("status", [429, 503])
def test_what_asks_for_more_time_than_there_is_ends_the_call_at_once(
    make: Make, server: JinaServer, status: int, header: str
) -> None:
    server.fail_next(status, headers={"Retry-After": header}, times=2)
    with pytest.raises((RateLimited, BackendUnavailable), match="asks to wait"):
        make(retry_seconds=120).query("plums")
    assert len(server.requests) == 1


@pytest.mark.parametrize("header", ["-3", "Fri, 02 Jan 2015 03:04:05 GMT"])
def test_a_time_that_is_over_is_no_reason_to_wait(
    make: Make, server: JinaServer, header: str
) -> None:
    server.fail_next(429, headers={"Retry-After": header})
    assert make().query("plums").shape == (1024,)
    assert len(server.requests) == 2


def test_without_time_for_retries_there_are_none(make: Make, server: JinaServer) -> None:
    server.fail_next(503, times=2)
    with pytest.raises(BackendUnavailable):
        make(retry_seconds=0).query("plums")
    assert len(server.requests) == 1


@pytest.mark.parametrize("after", [0, 1, 300])
def test_a_connection_that_breaks_is_made_anew(make: Make, server: JinaServer, after: int) -> None:
    server.cut_next(after=after, times=2)
    assert np.array_equal(make().documents(TEXTS), expected(TEXTS, task="retrieval.passage"))
    assert len(server.requests) == 3


def test_a_server_that_falls_silent_is_not_waited_for(make: Make, server: JinaServer) -> None:
    server.cut_next(after=10, silent=True, times=9)
    with pytest.raises(BackendUnavailable, match="timeout="):
        make(timeout=0.1, attempts=2).query("plums")
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("path", "options", "kind", "said"),
    [
        ("fast", {}, BadResponse, "longer than"),
        ("slow", {"timeout": 0.1}, BackendUnavailable, "timeout="),
    ],
)
def test_an_answer_without_end_is_given_up(
    make: Make, path: str, options: dict[str, Any], kind: type[EmbeddingError], said: str
) -> None:
    with endless_server() as url, pytest.raises(kind, match=said):
        make(base_url=f"{url}/{path}", attempts=1, **options).query("plums")


def test_a_server_that_is_not_there_is_named(make: Make) -> None:
    with pytest.raises(BackendUnavailable, match="JINA_BASE_URL"):
        make(base_url="http://127.0.0.1:1/v1", attempts=2).query("plums")


# What is not tried again


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "INPUT_MODEL_NOT_FOUND", EmbeddingError),
        (401, "AUTH_INVALID_API_KEY", AuthenticationFailed),
        (402, "PAYMENT_REQUIRED", QuotaExhausted),
        (403, "AUTHZ_INSUFFICIENT_BALANCE", QuotaExhausted),
        (403, "AUTHZ_FORBIDDEN", AuthenticationFailed),
        (404, "RESOURCE_NOT_FOUND", EmbeddingError),
        (422, "VALIDATION", EmbeddingError),
    ],
)
def test_a_refusal_for_good_ends_the_call_at_once(
    make: Make, server: JinaServer, status: int, code: str, kind: type[EmbeddingError]
) -> None:
    server.fail_next(status, error_body(code, nested=status == 403), times=2)
    with pytest.raises(kind, match=code) as caught:
        make().documents(TEXTS)
    assert type(caught.value) is kind
    assert caught.value.indices == ()
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_an_answer_that_is_none_is_refused(make: Make, server: JinaServer, body: bytes) -> None:
    server.fail_next(200, body)
    with pytest.raises(BadResponse, match="try again"):
        make().documents(TEXTS)
    assert len(server.requests) == 1


@pytest.mark.parametrize("change", BAD_CHANGES.values(), ids=BAD_CHANGES.keys())
def test_an_answer_with_a_fault_is_refused(make: Make, server: JinaServer, change: Any) -> None:
    server.change_next(change, skip=1)
    with pytest.raises(BadResponse) as caught:
        make(limits=Limits(texts_per_request=3, in_flight=1)).documents([*TEXTS, *TEXTS])
    assert caught.value.indices == (3,) or "nothing of it was" in str(caught.value)
    assert len(server.requests) == 2


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 0.9])
def test_a_vector_that_cannot_be_of_the_space_is_named(
    make: Make, server: JinaServer, number: float
) -> None:
    server.change_next(lambda answer: with_numbers(answer, number), skip=1)
    with pytest.raises(BadResponse) as caught:
        make(limits=Limits(texts_per_request=2, in_flight=1)).documents([*TEXTS, "yellow lemons"])
    assert caught.value.indices == (3,)


def test_an_answer_that_says_it_is_compressed_and_is_not_is_refused(
    make: Make, server: JinaServer
) -> None:
    server.fail_next(200, b"plain", headers={"Content-Encoding": "gzip"})
    with pytest.raises(BadResponse, match="decoded"):
        make().query("plums")


def test_a_redirect_is_not_followed(make: Make, server: JinaServer) -> None:
    with JinaServer(keys=(KEY,)) as other:
        server.fail_next(307, headers={"Location": f"{other.url}/embeddings"})
        with pytest.raises(BadResponse, match="307"):
            make().query("plums")
        assert other.requests == []


# Splitting


def test_texts_that_are_too_long_are_found_alone() -> None:
    texts = [f"text {number}" for number in range(64)]
    texts[5] = texts[40] = "word " * 30
    with (
        JinaServer(keys=(KEY,), context=20) as server,
        JinaAPIBackend(api_key=KEY, base_url=server.url) as backend,
    ):
        with pytest.raises(TokenLimitExceeded, match="text 5, 'word") as caught:
            backend.embed_documents(texts)
        assert caught.value.indices == (5, 40)
        assert backend.usage() == Usage(62 * 4)
        assert len(server.requests) <= 1 + 2 * 2 * 6


def test_a_text_that_is_plainly_too_long_is_found_before_others_are_paid_for(
    make: Make, server: JinaServer
) -> None:
    backend = make()
    with pytest.raises(TokenLimitExceeded) as caught:
        backend.documents([*TEXTS, "word " * 9000, *TEXTS])
    assert caught.value.indices == (3,)
    assert backend.usage() == Usage(0)
    assert [len(body["input"]) for body in server.requests] == [1]


def test_a_text_that_only_may_be_too_long_keeps_its_place(make: Make, server: JinaServer) -> None:
    texts = [*TEXTS, "incomprehensibilities " * 4000, *TEXTS]
    assert np.array_equal(make().documents(texts), expected(texts, task="retrieval.passage"))
    assert [len(body["input"]) for body in server.requests] == [1, 6]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, error_body("INPUT_TOKEN_LIMIT_EXCEEDED")),
        (400, error_body("INPUT_TOKEN_LIMIT_EXCEEDED", nested=True)),
        (413, b"<html>Request Entity Too Large</html>"),
        (504, error_body("SERVICE_TIMEOUT")),
    ],
)
def test_a_request_that_is_too_big_is_halved(
    make: Make, server: JinaServer, status: int, body: Any
) -> None:
    server.fail_next(status, body)
    assert np.array_equal(make().documents(TEXTS), expected(TEXTS, task="retrieval.passage"))
    assert [len(body["input"]) for body in server.requests] == [3, 2, 1]


def test_a_server_that_takes_fewer_items_gets_fewer(make: Make) -> None:
    texts = [f"text {number}" for number in range(10)]
    with JinaServer(keys=(KEY,), items_per_request=3) as small:
        vectors = make(base_url=small.url).documents(texts)
    assert np.array_equal(vectors, expected(texts, task="retrieval.passage"))


# Options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "gpt"}, "jina-embeddings-v3"),
        ({"dimensions": 2000}, "1 to 1024"),
        ({"task": "poetry"}, "text-matching"),
        ({"base_url": "ftp://host/v1"}, "base_url"),
        ({"base_url": "host"}, "base_url"),
        ({"base_url": ""}, "base_url"),
        ({"base_url": 3}, "base_url"),
        ({"base_url": "http://[bad"}, "base_url"),
        ({"base_url": "http://a b/v1"}, "base_url"),
        ({"base_url": "http://host:99999/v1"}, "base_url"),
        ({"base_url": "https://user:geheim@host/v1"}, "credentials"),
        ({"base_url": "ftp://user:geheim@host/v1"}, "credentials"),
        ({"base_url": "https://host/v1?key=geheim"}, "credentials"),
        ({"base_url": "https://host/v1#geheim"}, "credentials"),
        ({"api_key": "geheim with blanks"}, "copy it anew"),
        ({"api_key": "geheim\n"}, "copy it anew"),
        ({"api_key": "geheimé"}, "copy it anew"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"timeout": None}, "timeout"),
        ({"attempts": 0}, "attempts"),
        ({"attempts": 2.5}, "attempts"),
        ({"limits": {"share": 1}}, "limits"),
        ({"on_too_long": "cut"}, '"reject" or "truncate"'),
        ({"tokenizer": 3}, "tokenizer"),
        ({"tokenizer": "/nowhere/tokenizer.json"}, "is no file"),
        ({"retry_seconds": -1}, "retry_seconds"),
        ({"retry_wait": float("nan")}, "retry_wait"),
    ],
)
def test_a_wrong_option_is_refused_by_name(make: Make, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        make(**options)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("key", ["", None])
def test_without_a_key_there_is_no_backend(
    make: Make, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    monkeypatch.delenv("JINA_API_KEY", raising=False)
    with pytest.raises(AuthenticationFailed, match="JINA_API_KEY"):
        make(api_key=key)


def test_key_and_address_come_from_the_environment(
    make: Make, server: JinaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JINA_API_KEY", KEY)
    monkeypatch.setenv("JINA_BASE_URL", f"{server.url}/")
    assert make(api_key=None, base_url=None).query("plums").shape == (1024,)


def test_the_vendors_address_is_the_default(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JINA_BASE_URL", raising=False)
    assert "https://api.jina.ai/v1/embeddings" in repr(make(base_url=None).backend)


# Handles


def test_certificates_are_read_once_and_anew_where_others_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = certificates()
    assert certificates() is before
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert certificates() is not before


def test_an_async_handle_belongs_to_its_loop(server: JinaServer) -> None:
    backend = AsyncJinaAPIBackend(api_key=KEY, base_url=server.url)
    with asyncio.Runner() as first:
        first.run(backend.embed_query("plums"))
        with asyncio.Runner() as second, pytest.raises(InvalidInput, match="another event loop"):
            second.run(backend.embed_query("plums"))
        with asyncio.Runner() as second, pytest.raises(InvalidInput, match="another event loop"):
            second.run(backend.close())
        first.run(backend.close())


def test_a_fork_makes_connections_of_its_own(server: JinaServer) -> None:
    script = f"""
        import os
        from samespace import JinaAPIBackend

        backend = JinaAPIBackend(api_key={KEY!r}, base_url={server.url!r})
        backend.embed_query("parent")
        child = os.fork()
        if not child:
            backend.embed_query("child")
            backend.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        backend.embed_query("parent")
        backend.close()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)
    assert [body["input"] for body in server.requests] == [["parent"], ["child"], ["parent"]]


# The key


def shown(error: BaseException) -> list[str]:
    """All that tools show of an error: its chain, the locals of each frame, its pickle."""
    parts = [str(pickle.dumps(error))]
    seen: BaseException | None = error
    while seen is not None:
        parts += [str(seen), repr(seen), *traceback.format_tb(seen.__traceback__)]
        for frame, _ in traceback.walk_tb(seen.__traceback__):
            for value in frame.f_locals.values():
                with contextlib.suppress(AttributeError):  # of an object that is not made yet
                    parts.append(repr(value))
        seen = seen.__cause__ or seen.__context__
    return parts


@pytest.mark.parametrize(
    "fault",
    [
        lambda server: server.fail_next(401, error_body("AUTH_INVALID_API_KEY", f"bad key {KEY}")),
        lambda server: server.fail_next(400, f"<html>{KEY}</html>"),
        lambda server: server.fail_next(200, f"<html>{KEY}</html>"),
        lambda server: server.fail_next(502, KEY, times=2),
        lambda server: server.cut_next(times=2),
        lambda server: server.cut_next(after=30, times=2),
        lambda server: server.fail_next(200, b" " * 1_000_000),
    ],
)
def test_the_key_is_shown_nowhere(
    make: Make, server: JinaServer, caplog: pytest.LogCaptureFixture, fault: Any
) -> None:
    fault(server)
    with caplog.at_level(logging.DEBUG):
        caller = make(attempts=2)
        with pytest.raises(EmbeddingError) as caught:
            caller.documents(TEXTS)
        assert caller.query("plums").shape == (1024,)
    backend = caller.backend
    assert "httpcore" in caplog.text
    found = [caplog.text, repr(backend), str(backend), repr(vars(backend)), *shown(caught.value)]
    found += [repr(vars(value)) for value in vars(backend).values() if hasattr(value, "__dict__")]
    assert not [text for text in found if KEY in text]


@pytest.mark.parametrize("options", [{"dimensions": 0}, {"base_url": "nowhere"}, {"timeout": 0}])
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_refused_option_does_not_show_the_key(options: dict[str, Any], end: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        JinaAPIBackend(api_key=key_in_pieces() + end, **options)
    assert not [text for text in shown(caught.value) if KEY in text]


def key_in_pieces() -> str:
    """The key, which no line of source that a traceback quotes then holds."""
    return KEY[:9] + KEY[9:]


def test_the_key_is_neither_pickled_nor_copied(make: Make) -> None:
    backend = make().backend
    for attempt in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError) as caught:
            attempt(backend)
        assert not [text for text in (str(caught.value), repr(caught.value)) if KEY in text]
