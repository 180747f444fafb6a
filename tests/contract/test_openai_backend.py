"""Both clients of OpenAI's protocol against a server on the loopback interface."""

from __future__ import annotations

import contextlib
import json
import logging
import pickle
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pytest
from tests.contract.calling import Caller

from samespace import (
    AsyncOpenAICompatibleBackend,
    EmbeddingSpace,
    Limits,
    OpenAICompatibleBackend,
    open_backend,
)
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
from samespace.protocols import Matrix
from samespace.testing.jina_server import Refusal
from samespace.testing.jina_vectors import LexicalModel
from samespace.testing.openai_server import OpenAIServer, openai_error

KEY = "sk_sentinel_4711"
MODEL = "intern/served"
V3 = "jina-embeddings-v3"
SPACE = EmbeddingSpace(model=V3, dimensions=1024)
RETRIEVAL = EmbeddingSpace(model=V3, dimensions=1024, task="retrieval.passage")
TEXTS = ["red apples are ripe", "pears are green", "blue plums"]


class Make(Protocol):
    def __call__(self, url: str, **options: Any) -> Caller: ...


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(model=MODEL, keys=(KEY,)) as server:
        yield server


@pytest.fixture(params=[OpenAICompatibleBackend, AsyncOpenAICompatibleBackend])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes clients of one kind that never wait between two attempts."""
    with contextlib.ExitStack() as made:

        def make(url: str, **options: Any) -> Caller:
            given = {"model": MODEL, "space": SPACE, "api_key": KEY, "retry_wait": 0, **options}
            caller = Caller(request.param(url, **given))
            made.callback(caller.close)
            return caller

        yield make


def expected(texts: Sequence[str], *, task: str | None = None, dimensions: int = 1024) -> Matrix:
    return LexicalModel(MODELS[V3]).embed(texts, task=task, dimensions=dimensions)


# What is asked and answered


def test_a_request_has_what_the_protocol_has_and_no_more(make: Make, server: OpenAIServer) -> None:
    np.testing.assert_array_equal(make(server.url).documents(TEXTS), expected(TEXTS))
    assert server.requests == [{"model": MODEL, "input": TEXTS, "encoding_format": "base64"}]


def test_prompts_go_in_front_of_the_texts(make: Make, server: OpenAIServer) -> None:
    prompts = {"documents": "passage: ", "queries": "query: "}
    caller = make(server.url, prompts=prompts, space=RETRIEVAL)
    np.testing.assert_array_equal(
        caller.documents(TEXTS), expected([f"passage: {text}" for text in TEXTS])
    )
    caller.queries(TEXTS[:1])
    assert caller.query("plums").shape == (1024,)
    assert [request["input"][0] for request in server.requests] == [
        f"passage: {TEXTS[0]}",
        f"query: {TEXTS[0]}",
        "query: plums",
    ]


def test_a_server_with_tasks_of_its_own_is_told_them(make: Make, server: OpenAIServer) -> None:
    tasks = {"documents": {"task": "retrieval.passage"}, "queries": {"task": "retrieval.query"}}
    caller = make(server.url, parameters=tasks, space=RETRIEVAL)
    np.testing.assert_array_equal(
        caller.documents(TEXTS), expected(TEXTS, task="retrieval.passage")
    )
    np.testing.assert_array_equal(caller.queries(TEXTS), expected(TEXTS, task="retrieval.query"))


@pytest.mark.parametrize(
    ("space", "asked", "sent"),
    [
        (EmbeddingSpace(model=V3, dimensions=256), None, 256),
        (EmbeddingSpace(model=V3, dimensions=1024), None, None),
        (EmbeddingSpace(model=V3, dimensions=1024), True, 1024),
        (EmbeddingSpace(model="of-ours", dimensions=1024), None, None),
        (EmbeddingSpace(model="of-ours", dimensions=128), True, 128),
    ],
)
def test_dimensions_are_asked_for_where_it_takes_that(
    make: Make, server: OpenAIServer, space: EmbeddingSpace, asked: bool | None, sent: int | None
) -> None:
    vectors = make(server.url, space=space, ask_dimensions=asked).documents(TEXTS)
    assert vectors.shape == (3, space.dimensions)
    assert server.requests[0].get("dimensions") == sent


def test_a_server_that_refuses_base64_is_asked_for_numbers_from_then_on(make: Make) -> None:
    with OpenAIServer(model=MODEL, takes_base64=False) as server:
        caller = make(server.url, limits=Limits(texts_per_request=1))
        for _ in range(2):
            np.testing.assert_array_equal(caller.documents(TEXTS[:1]), expected(TEXTS[:1]))
        np.testing.assert_array_equal(caller.documents(TEXTS), expected(TEXTS))
        encodings = [request["encoding_format"] for request in server.requests]
    assert encodings == ["base64", *["float"] * 5]


def test_a_server_that_takes_no_encoding_is_asked_for_none_from_then_on(make: Make) -> None:
    with OpenAIServer(model=MODEL, takes_encoding=False) as server:
        caller = make(server.url)
        for _ in range(2):
            np.testing.assert_array_equal(caller.documents(TEXTS), expected(TEXTS))
        encodings = [request.get("encoding_format") for request in server.requests]
    assert encodings == ["base64", "float", None, None]


def test_a_server_that_refuses_every_encoding_is_not_asked_without_end(
    make: Make, server: OpenAIServer
) -> None:
    server.fail_next(400, openai_error("encoding_format is wrong"), times=9)
    with pytest.raises(EmbeddingError, match="no encoding_format suits it") as caught:
        make(server.url).documents(TEXTS)
    assert type(caught.value) is EmbeddingError
    assert len(server.requests) == 3


@pytest.mark.parametrize("takes_encoding", [True, False])
def test_portions_whose_encoding_is_refused_at_once_are_all_asked_again(
    make: Make, takes_encoding: bool
) -> None:
    with OpenAIServer(model=MODEL, takes_base64=False, takes_encoding=takes_encoding) as server:
        texts = [f"text {number}" for number in range(40)]
        caller = make(server.url, limits=Limits(texts_per_request=1, in_flight=8))
        np.testing.assert_array_equal(caller.documents(texts), expected(texts))


@pytest.mark.parametrize("options", [{"always_float": True}, {"shuffled": True}])
def test_answers_of_any_form_and_order_are_read(make: Make, options: dict[str, Any]) -> None:
    with OpenAIServer(model=MODEL, **options) as server:
        np.testing.assert_array_equal(make(server.url).documents(TEXTS), expected(TEXTS))


def test_no_key_is_needed_where_none_is_asked_for(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_COMPATIBLE_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)  # another service's, which this server must not get
    with OpenAIServer(model=MODEL) as server:
        caller = make(server.url, api_key=None)
        server.fail_next(400, openai_error("plain refusal"))
        with pytest.raises(EmbeddingError, match="plain refusal"):
            caller.documents(TEXTS)
        assert caller.documents(TEXTS).shape == (3, 1024)


def test_a_key_may_come_from_the_environment(
    make: Make, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", KEY)
    assert make(server.url, api_key=None).documents(TEXTS).shape == (3, 1024)


def test_tokens_and_provenance_are_told(make: Make, server: OpenAIServer) -> None:
    caller = make(server.url)
    caller.documents(TEXTS)
    assert caller.usage().tokens == 4 + 3 + 2 + 3 * 2
    assert caller.backend.provenance()["model"] == MODEL
    assert caller.backend.provenance()["backend"] == "openai-compatible"
    with_prompt = make(server.url, prompts={"documents": "a long prompt in front: "})
    plain, longer = caller.backend.count_tokens(TEXTS), with_prompt.backend.count_tokens(TEXTS)
    assert all(more > less for more, less in zip(longer, plain, strict=True))


@pytest.mark.parametrize("usage", [None, {}, {"total_tokens": 0}, {"prompt_tokens": "many"}])
def test_tokens_are_estimated_where_nobody_says_them(
    make: Make, server: OpenAIServer, usage: Any
) -> None:
    caller = make(server.url)
    server.change_next(lambda answer: answer | {"usage": usage})
    caller.documents(TEXTS)
    assert caller.usage().tokens == sum(caller.backend.count_tokens(TEXTS))


def test_a_server_that_takes_few_texts_gets_few(make: Make) -> None:
    texts = [f"text {number}" for number in range(10)]
    with OpenAIServer(model=MODEL, items_per_request=3) as server:
        np.testing.assert_array_equal(make(server.url).documents(texts), expected(texts))


@pytest.mark.parametrize("limits", [Limits(), Limits(texts_per_request=100, in_flight=1)])
def test_how_many_texts_a_server_takes_is_learned_once(make: Make, limits: Limits) -> None:
    texts = [f"text {number}" for number in range(300)]
    with OpenAIServer(model=MODEL, items_per_request=32) as server:
        caller = make(server.url, limits=limits)
        np.testing.assert_array_equal(caller.documents(texts), expected(texts))
        refused = [status for _, status in server.statuses if status != 200]
        assert len(refused) <= 4
        before = len(server.requests)
        caller.documents(texts)
        assert {status for _, status in server.statuses[before:]} == {200}
        assert len(server.requests) - before <= 16


@pytest.mark.parametrize("said", ["Too many tokens in the request", "too many input tokens: 9000"])
def test_too_many_tokens_are_not_too_many_texts(
    make: Make, server: OpenAIServer, said: str
) -> None:
    server.fail_next(400, openai_error(said))
    caller = make(server.url)
    assert caller.documents(TEXTS).shape == (3, 1024)
    caller.documents(TEXTS)
    assert [len(request["input"]) for request in server.requests] == [3, 2, 1, 3]


def test_a_text_that_is_too_long_is_named(make: Make) -> None:
    with (
        OpenAIServer(model=MODEL, context=20) as server,
        pytest.raises(TokenLimitExceeded, match="text 1.*room for") as caught,
    ):
        make(server.url).documents(["short", "word " * 30, "also short"])
    assert caught.value.indices == (1,)


@pytest.mark.parametrize("status", [400, 500])
def test_a_text_beyond_the_physical_batch_is_too_long(make: Make, status: int) -> None:
    said = "input is too large to process. increase the physical batch size"
    with Choosy(openai_error(said, type="server_error", code=status), status=status) as server:
        with pytest.raises(TokenLimitExceeded, match="text 1.*room for") as caught:
            make(server.url).documents(["short", "poison", "also short"])
        assert caught.value.indices == (1,)
        assert len(server.requests) == 5


# A server that fails on a text


class Choosy(OpenAIServer):
    """Fails on every request that has the word ``poison`` in it."""

    def __init__(self, body: Any, *, status: int = 500, word: str = "poison") -> None:
        super().__init__(model=MODEL)
        self._refusal = Refusal(status, body)
        self._word = word

    def _embedded(self, request: dict[str, Any]) -> dict[str, Any]:
        if any(self._word in text for text in request["input"]):
            raise self._refusal
        return super()._embedded(request)


@pytest.mark.parametrize("status", [424, 500])
def test_a_text_on_which_a_server_fails_is_found_alone(make: Make, status: int) -> None:
    texts = [f"text {number}" for number in range(64)]
    texts[40] = texts[41] = "poison"
    with Choosy(openai_error("boom"), status=status) as server:
        caller = make(server.url, attempts=5)
        with pytest.raises(EmbeddingError, match="text 40, 'poison'.*boom.*leave it out") as caught:
            caller.documents(texts)
        assert type(caught.value) is EmbeddingError
        assert caught.value.indices == (40, 41)
        assert caller.usage().tokens == 62 * 4
        assert len(server.requests) <= 5 + 2 * 6 + 6 + 2


def test_a_server_that_fails_on_everything_is_not_asked_for_each_text(make: Make) -> None:
    texts = [f"text {number}" for number in range(64)]
    with Choosy(openai_error("boom"), word="text") as server:
        with pytest.raises(BackendUnavailable, match="boom") as caught:
            make(server.url, attempts=5).documents(texts)
        assert caught.value.indices == ()
        assert len(server.requests) < 5 + 2 * (6 + 8)


@pytest.mark.parametrize("count", [1, 3])
def test_where_no_text_is_answered_none_is_at_fault(make: Make, count: int) -> None:
    with Choosy(openai_error("boom")) as server:
        with pytest.raises(BackendUnavailable, match="boom") as caught:
            make(server.url, attempts=2).documents(["poison"] * count)
        assert caught.value.indices == ()


def test_a_server_that_recovers_while_a_text_is_looked_for_leaves_none_out(
    make: Make, server: OpenAIServer
) -> None:
    server.fail_next(500, openai_error("boom"), times=4)
    np.testing.assert_array_equal(make(server.url, attempts=3).documents(TEXTS), expected(TEXTS))


# What goes wrong


@pytest.mark.parametrize("status", [408, 424, 425, 429, 500, 502, 503, 507, 520, 529])
def test_what_may_pass_is_tried_again(make: Make, server: OpenAIServer, status: int) -> None:
    server.fail_next(status, openai_error("later"), times=2)
    assert make(server.url).documents(TEXTS).shape == (3, 1024)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "kind"), [(429, RateLimited), (502, BackendUnavailable), (503, BackendUnavailable)]
)
def test_attempts_are_limited(
    make: Make, server: OpenAIServer, status: int, kind: type[EmbeddingError]
) -> None:
    server.fail_next(status, openai_error("later"), times=9)
    with pytest.raises(kind, match=f"{status}.*later"):
        make(server.url, attempts=3).documents(TEXTS)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "body", "refusal"),
    [
        (
            401,
            openai_error("no", code="invalid_api_key"),
            (AuthenticationFailed, "invalid_api_key"),
        ),
        (403, {"detail": "forbidden"}, (AuthenticationFailed, "OPENAI_COMPATIBLE_API_KEY")),
        (402, "", (QuotaExhausted, "top up")),
        (429, openai_error("over", code="insufficient_quota"), (QuotaExhausted, "over")),
        (
            404,
            {"object": "error", "message": "no model", "code": 404},
            (EmbeddingError, "no model"),
        ),
        (
            422,
            {"error": "empty", "error_type": "Validation"},
            (EmbeddingError, "Validation, 'empty'"),
        ),
        (
            422,
            {"detail": [{"loc": ["body", "x"], "msg": "wrong"}]},
            (EmbeddingError, "body.x: wrong"),
        ),
        (400, "<html>gateway</html>", (EmbeddingError, "gateway")),
        (302, "", (BadResponse, "302")),
    ],
)
def test_a_refusal_for_good_ends_the_call_at_once(
    make: Make, server: OpenAIServer, status: int, body: Any, refusal: Any
) -> None:
    server.fail_next(status, body, times=2)
    with pytest.raises(refusal[0], match=refusal[1]):
        make(server.url).documents(TEXTS)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>ok</html>",
        b'{"data": [',
        b"[]",
        b'{"error": {"message": "boom"}}',
        b'{"data": []}',
        b'{"data": null}',
        b'{"data": [1, 2, 3]}',
        b" " * 1_000_000,
    ],
)
def test_an_answer_that_is_none_is_refused(make: Make, server: OpenAIServer, body: bytes) -> None:
    server.fail_next(200, body)
    with pytest.raises(BadResponse, match="nothing of it was"):
        make(server.url).documents(TEXTS)
    assert make(server.url).documents(TEXTS).shape == (3, 1024)


def with_vector(vector: Any) -> Any:
    def change(answer: dict[str, Any]) -> dict[str, Any]:
        answer["data"][1]["embedding"] = vector
        return answer

    return change


def with_index(index: Any) -> Any:
    def change(answer: dict[str, Any]) -> dict[str, Any]:
        answer["data"][1]["index"] = index
        return answer

    return change


def of_model(answer: dict[str, Any]) -> dict[str, Any]:
    return answer | {"model": "jinaai/jina-embeddings-v2-base-en"}


@pytest.mark.parametrize(
    "change",
    [
        of_model,
        with_index(0),
        with_index(3),
        with_index("1"),
        with_index(True),
        with_vector(None),
        with_vector("no base64!"),
        with_vector("AAAA"),
        with_vector("AAAAAA=="),
        with_vector([0.5] * 1023),
        with_vector([0.5] * 1025),
        with_vector([]),
        with_vector(["0.5"] * 1024),
        with_vector([True] * 1024),
        with_vector([[0.5]] * 1024),
        with_vector([0.5, [1]]),
        with_vector([None] * 1024),
        with_vector([float("nan")] * 1024),
        with_vector([1e39] * 1024),
        with_vector([0] * 1024),
        with_vector([1.0] * 1024),
    ],
)
def test_an_answer_with_a_fault_is_refused(make: Make, server: OpenAIServer, change: Any) -> None:
    server.change_next(change)
    with pytest.raises(BadResponse):
        make(server.url).documents(TEXTS)


@pytest.mark.parametrize(
    "vector", [None, [None] * 1024, [float("nan")] * 1024, [float("inf")] * 1024, [0.5, None] * 512]
)
def test_a_vector_without_numbers_is_named(make: Make, server: OpenAIServer, vector: Any) -> None:
    server.change_next(with_vector(vector))
    with pytest.raises(BadResponse, match="vector 1 .*not finite") as caught:
        make(server.url).documents(TEXTS)
    assert caught.value.indices == (1,)


def test_vectors_of_another_norm_are_refused_with_what_mends_it(
    make: Make, server: OpenAIServer
) -> None:
    server.change_next(with_vector([0.5] * 1024), times=2)
    with pytest.raises(BadResponse, match="has norm 16 .*declare the space with normalized=False"):
        make(server.url).documents(TEXTS)
    space = EmbeddingSpace(model="of-ours", dimensions=1024, normalized=False)
    assert make(server.url, space=space).documents(TEXTS)[1].tolist() == [0.5] * 1024


@pytest.mark.parametrize("body", [b'{"data": NaN', b"[" * 100_000 + b"NaN", b"NaN", b"\xff NaN"])
def test_what_only_has_the_word_is_no_answer(make: Make, server: OpenAIServer, body: bytes) -> None:
    server.fail_next(200, body)
    with pytest.raises(BadResponse, match="no JSON object"):
        make(server.url).documents(TEXTS)


def test_a_server_that_is_not_there_is_named(make: Make) -> None:
    with OpenAIServer(model=MODEL) as server:
        url = server.url
    with pytest.raises(BackendUnavailable, match="base_url= and that it runs"):
        make(url, attempts=2).documents(TEXTS)


@pytest.mark.parametrize(
    "fault",
    [
        lambda server: server.fail_next(401, openai_error(f"bad key {KEY}")),
        lambda server: server.fail_next(400, f"<html>{KEY}</html>"),
        lambda server: server.fail_next(200, f"<html>{KEY}</html>"),
        lambda server: server.fail_next(502, KEY, times=2),
        lambda server: server.cut_next(after=30, times=2),
    ],
)
def test_the_key_is_shown_nowhere(
    make: Make, server: OpenAIServer, caplog: pytest.LogCaptureFixture, fault: Any
) -> None:
    fault(server)
    with caplog.at_level(logging.DEBUG):
        caller = make(server.url, attempts=2)
        with pytest.raises(EmbeddingError) as caught:
            caller.documents(TEXTS)
    shown = [caplog.text, repr(caller.backend), repr(vars(caller.backend)), str(caught.value)]
    assert not [text for text in [*shown, str(pickle.dumps(caught.value))] if KEY in text]


ODD_KEY = 'sk/a&b"c\\d'
"""What JSON's writers may escape."""


@pytest.mark.parametrize(
    "quoted",
    [
        json.dumps(ODD_KEY)[1:-1],
        json.dumps(ODD_KEY)[1:-1].replace("/", "\\/"),
        json.dumps(ODD_KEY)[1:-1].replace("&", "\\u0026"),
        "".join(f"\\u{ord(each):04X}" for each in ODD_KEY),
    ],
)
@pytest.mark.parametrize("form", ['{"error": "bad key %s"}', '{"error": "bad key %s', "%s"])
@pytest.mark.parametrize("status", [200, 400, 401, 502])
def test_a_key_that_is_quoted_with_escapes_is_not_shown(
    make: Make, quoted: str, form: str, status: int
) -> None:
    with OpenAIServer(model=MODEL, keys=(ODD_KEY,)) as server:
        server.fail_next(status, (form % quoted).encode())
        with pytest.raises(EmbeddingError, match=r"\*\*\*") as caught:
            make(server.url, api_key=ODD_KEY, attempts=1).documents(TEXTS)
    assert "sk" not in str(caught.value)


def test_a_key_that_the_end_of_a_quotation_cuts_is_not_shown(
    make: Make, server: OpenAIServer
) -> None:
    server.fail_next(400, b" " * 310 + KEY.encode())
    with pytest.raises(EmbeddingError) as caught:
        make(server.url).documents(TEXTS)
    assert KEY[:8] not in str(caught.value)


@pytest.mark.parametrize("key", ["t", "e", "context", "error"])
def test_a_short_key_does_not_change_what_an_error_means(make: Make, key: str) -> None:
    body = openai_error("context length is less", code="context_length_exceeded")
    with OpenAIServer(model=MODEL, keys=(key,)) as server:
        server.fail_next(400, body, times=9)
        with pytest.raises(TokenLimitExceeded, match="context_length_exceeded"):
            make(server.url, api_key=key).documents(TEXTS)


def test_a_head_that_quotes_the_key_does_not_show_it(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=answer_with_the_key, args=(listening,), daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        with pytest.raises(BackendUnavailable, match=r"RemoteProtocolError.*\*\*\*") as caught:
            make(url, attempts=1).documents(TEXTS)
    assert KEY not in str(caught.value)


def answer_with_the_key(listening: socket.socket) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.recv(65_536)
        connection.sendall(f"HTTP/1.1 200 OK\r\n{KEY}\r\n\r\n".encode())


# What is refused before anything is sent


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": ""}, "model is ''"),
        ({"model": None}, "model is None"),
        ({"space": V3}, "pass the EmbeddingSpace"),
        ({"space": RETRIEVAL}, "nothing would tell the server"),
        ({"space": RETRIEVAL, "prompts": {"documents": "", "queries": ""}}, "would tell"),
        ({"prompts": {"docs": "a"}}, 'pass {"documents": "passage: '),
        ({"prompts": "passage: "}, "prompts is 'passage: '"),
        ({"prompts": {"queries": None}}, "prompts for queries is None"),
        ({"parameters": {"queries": "task"}}, "parameters for queries is 'task'"),
        ({"parameters": {"documents": {"model": "x", "input": "y"}}}, "have input, model"),
        ({"parameters": {"documents": {"x": object()}}}, "no JSON"),
        ({"parameters": {"documents": {"x": float("nan")}}}, "no JSON"),
        ({"parameters": {"documents": {"x": "\ud800"}}}, "no JSON"),
        ({"model": "a\ud800"}, "model is"),
        ({"prompts": {"queries": "a\x00"}}, "prompts for queries .*NUL"),
        ({"prompts": {"queries": "a\ud800"}}, "prompts for queries .*surrogate"),
        ({"ask_dimensions": "yes"}, "ask_dimensions is 'yes'"),
        ({"ask_dimensions": []}, "ask_dimensions is "),
        ({"api_key": "a b"}, "OPENAI_COMPATIBLE_API_KEY or api_key="),
        ({"api_key": 0}, "api_key= is no string"),
        ({"api_key": b"a"}, "api_key= is no string"),
        ({"limits": 3}, "limits is 3"),
        ({"timeout": 0}, "timeout is 0"),
    ],
)
def test_a_wrong_option_is_refused_by_name(make: Make, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        make("http://127.0.0.1:1/v1", **options)


@pytest.mark.parametrize(
    "url",
    [
        "nowhere",
        "ftp://h",
        "http://u:p@h/v1",
        "http://h/v1?key=s",
        None,
        "http://a..b/v1",
        f"http://{'a' * 64}/v1",
        "http://xn--/v1",
    ],
)
def test_a_wrong_address_is_refused_without_a_secret(make: Make, url: Any) -> None:
    with pytest.raises(InvalidInput, match="^base_url ") as caught:
        make(url)
    assert "u:p" not in str(caught.value)
    assert "JINA" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://[::1]:80/v1", "https://bücher.example/v1", "http://h/v1/"])
def test_an_address_may_be_any_host(make: Make, url: str) -> None:
    assert "embeddings" in repr(make(url).backend)


def test_parameters_are_those_of_the_time_they_were_given(make: Make, server: OpenAIServer) -> None:
    given = {"documents": {"options": {"depth": [1]}}}
    caller = make(server.url, parameters=given)
    given["documents"]["options"]["depth"].append(2)
    caller.documents(TEXTS)
    assert server.requests[0]["options"] == {"depth": [1]}


@pytest.mark.parametrize(
    "change",
    [
        *({"input": given} for given in (None, [], [""], [5], [[1, 2]], {"a": 1}, 5)),
        *({"dimensions": size} for size in (0, 5000, "8", True)),
        {"task": "poetry"},
    ],
)
def test_the_local_server_refuses_what_no_server_takes(
    server: OpenAIServer, change: dict[str, Any]
) -> None:
    body = json.dumps({"model": MODEL, "input": ["a"], **change}).encode()
    assert server.respond(f"Bearer {KEY}", body).status == 400


def test_the_local_server_takes_one_text(server: OpenAIServer) -> None:
    body = json.dumps({"model": MODEL, "input": "abc"}).encode()
    assert len(json.loads(server.respond(f"Bearer {KEY}", body).body)["data"]) == 1


def test_a_spec_opens_it(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", KEY)
    with OpenAIServer(model=V3) as open_to_all:
        backend = open_backend(f"openai:{open_to_all.url}#{V3}@256:retrieval.passage")
        assert isinstance(backend, OpenAICompatibleBackend)
        with backend:
            np.testing.assert_array_equal(
                backend.embed_queries(TEXTS),
                expected(TEXTS, task="retrieval.query", dimensions=256),
            )
