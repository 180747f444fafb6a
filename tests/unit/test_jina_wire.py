"""The API's requests and answers as values: what is sent, what is believed, what a refusal means."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from samespace.backends.http import exchange
from samespace.backends.jina_api import wire
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
from samespace.space import EmbeddingSpace

V2 = wire.space_of("jina-embeddings-v2-base-en", None, wire.DEFAULT_TASK)
V3 = wire.space_of("jina-embeddings-v3", 4, wire.DEFAULT_TASK)
V4 = wire.space_of("jina-embeddings-v4", None, wire.DEFAULT_TASK)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

# Spaces


def test_a_model_without_tasks_leaves_the_default_task_aside() -> None:
    assert EmbeddingSpace(model="jina-embeddings-v2-base-en", dimensions=768) == V2
    assert wire.space_of("jina-clip-v2", None, wire.DEFAULT_TASK).task is None


def test_a_task_that_the_model_lacks_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="none: leave task out"):
        wire.space_of("jina-embeddings-v2-base-en", None, "text-matching")
    with pytest.raises(InvalidInput, match=r"nl2code\.passage"):
        wire.space_of("jina-code-embeddings-0.5b", None, wire.DEFAULT_TASK)


def test_aliases_name_the_same_space() -> None:
    omni = wire.space_of("jina-embeddings-v5-omni-small", None, None)
    assert omni == wire.space_of("jinaai/jina-embeddings-v5-text-small", None, "text-matching")


@pytest.mark.parametrize("model", ["text-embedding-3-small", "", 3, None])
def test_an_unknown_model_is_refused_with_those_that_are_known(model: Any) -> None:
    with pytest.raises(InvalidInput, match="jina-embeddings-v3"):
        wire.space_of(model, 768, None)


# Requests


COMMON = {"input": ["a"], "embedding_type": "base64", "truncate": False}


@pytest.mark.parametrize(
    ("space", "task", "parameters"),
    [
        (V2, V2.task, {"normalized": True}),
        (V2, V2.query_task, {"normalized": True}),
        (V3, V3.task, {"normalized": True, "dimensions": 4, "task": "retrieval.passage"}),
        (V3, V3.query_task, {"normalized": True, "dimensions": 4, "task": "retrieval.query"}),
        (V3, None, {"normalized": True, "dimensions": 4}),
        (V4, V4.task, {"dimensions": 2048, "task": "retrieval.passage"}),
    ],
)
def test_a_request_has_what_its_model_knows_and_nothing_else(
    space: EmbeddingSpace, task: str | None, parameters: dict[str, Any]
) -> None:
    body = orjson.loads(wire.request_body(space, ["a"], task))
    assert body == {"model": space.model, **COMMON, **parameters}


def test_what_is_cut_or_chunked_late_is_asked_for_by_name() -> None:
    cut = orjson.loads(wire.request_body(V3, ["a"], None, truncate=True))
    late = orjson.loads(wire.request_body(V3, ["a"], None, late_chunking=True))
    assert (cut["truncate"], "late_chunking" in cut) == (True, False)
    assert (late["truncate"], late["late_chunking"]) == (False, True)


def test_no_model_gets_a_parameter_that_it_does_not_know() -> None:
    for model in MODELS.values():
        task = next((task for task in model.tasks if task.endswith(".passage")), None)
        space = EmbeddingSpace(model=model.name, dimensions=model.dimensions, task=task)
        for asked in (space.task, space.query_task):
            body = orjson.loads(wire.request_body(space, ["a"], asked))
            assert ("task" in body) == (asked is not None)
            assert body.get("task") in {None, *model.tasks}
            assert ("dimensions" in body) == model.takes_dimensions
            assert ("normalized" in body) == model.takes_normalized


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ("one string", "list of strings"),
        (["a", 3], "text 1 is 3"),
        (["a", "b", " \n"], "text 2 is blank"),
        ([""], "text 0 is blank"),
        (["a\x00b"], "NUL"),
        (["a", "\ud800"], "surrogate"),
    ],
)
def test_a_text_that_cannot_be_embedded_is_named(texts: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        exchange.check_texts(texts)


# Portions


def portions(
    costs: list[int], *, most: int = 3, tokens: int = 100, doubtful: Sequence[int] = ()
) -> tuple[list[list[int]], list[list[int]]]:
    alone, others = exchange.portions(
        costs, set(doubtful), texts_per_request=most, tokens_per_request=tokens
    )
    return [list(part) for part in alone], [list(part) for part in others]


def test_no_portion_has_more_texts_than_are_allowed() -> None:
    assert portions([2] * 7) == ([], [[0, 1, 2], [3, 4, 5], [6]])


def test_a_portion_ends_where_its_tokens_are_spent() -> None:
    assert portions([42] * 5) == ([], [[0, 1], [2, 3], [4]])


def test_a_text_beyond_a_requests_tokens_goes_alone() -> None:
    assert portions([2, 42, 2], tokens=20) == ([], [[0], [1], [2]])


def test_a_text_that_may_be_too_long_goes_alone_and_first() -> None:
    assert portions([2, 102, 2, 2], doubtful=[1]) == ([[1]], [[0, 2, 3]])


def test_no_text_no_portion() -> None:
    assert portions([]) == ([], [])


@given(st.lists(st.integers(1, 300), max_size=30), st.integers(1, 8))
def test_portions_are_all_texts_in_their_order(costs: list[int], most: int) -> None:
    long = [place for place, cost in enumerate(costs) if cost > 50]
    alone, others = portions(costs, most=most, doubtful=long)
    assert alone == [[place] for place in long]
    assert all(1 <= len(part) <= most for part in others)
    places = [place for part in others for place in part]
    assert places == sorted(places)
    assert sorted([*places, *long]) == list(range(len(costs)))


@pytest.mark.parametrize("size", [2, 3, 8, 9])
def test_halves_are_the_whole(size: int) -> None:
    left, right = exchange.halves(list(range(size)))
    assert [*left, *right] == list(range(size))
    assert min(len(left), len(right)) == size // 2


# Answers


def encoded(*numbers: float) -> str:
    return base64.b64encode(np.array(numbers, "<f4").tobytes()).decode()


FIRST, SECOND = (1.0, 0.0, 0.0, 0.0), (0.0, 0.5, -0.25, 2.0)


def answer(**changes: Any) -> dict[str, Any]:
    return {
        "model": "jina-embeddings-v3",
        "object": "list",
        "usage": {"total_tokens": 12},
        "data": [
            {"object": "embedding", "index": 0, "embedding": encoded(*FIRST)},
            {"object": "embedding", "index": 1, "embedding": encoded(*SECOND)},
        ],
        **changes,
    }


def read(body: object) -> exchange.Answer:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return wire.read_answer(content, V3, count=2)


def test_an_answer_is_a_float32_matrix_and_its_cost() -> None:
    found = read(answer())
    assert found.vectors.dtype == np.float32
    assert found.vectors.tolist() == [list(FIRST), list(SECOND)]
    assert found.tokens == 12


def test_base64_is_little_endian() -> None:
    one = base64.b64encode(bytes.fromhex("0000803f" + "00000000" * 3)).decode()
    data = [{"index": place, "embedding": one} for place in range(2)]
    assert read(answer(data=data)).vectors[0].tolist() == [1, 0, 0, 0]


def test_the_index_says_which_text_a_vector_is_of() -> None:
    assert read(answer(data=answer()["data"][::-1])).vectors.tolist() == [
        list(FIRST),
        list(SECOND),
    ]


def test_the_texts_tokens_are_the_cost_where_no_total_is_said() -> None:
    for usage in ({"prompt_tokens": 7}, {"total_tokens": 0, "prompt_tokens": 7}):
        assert read(answer(usage=usage)).tokens == 7


@pytest.mark.parametrize(
    "usage", [None, {}, {"total_tokens": "12"}, {"total_tokens": -1}, {"total_tokens": True}, [12]]
)
def test_an_unreadable_cost_is_none(usage: object) -> None:
    assert read(answer(usage=usage)).tokens == 0


@pytest.mark.parametrize("model", [None, "jina-embeddings-v3", "jinaai/jina-embeddings-v3"])
def test_the_model_may_be_left_out_or_said_otherwise(model: object) -> None:
    assert read(answer(model=model)).tokens == 12


def items(*changes: dict[str, Any]) -> dict[str, Any]:
    data = answer()["data"]
    return answer(data=[{**item, **change} for item, change in zip(data, changes, strict=True)])


BAD_ANSWERS: list[tuple[str, object, str]] = [
    ("empty", b"", "empty"),
    ("html", b"<html><body>Bad gateway</body></html>", "Bad gateway"),
    ("truncated", orjson.dumps(answer())[:-9], "JSON"),
    ("not utf-8", b'{"data": "\xff"}', "JSON"),
    ("NaN", b'{"data": [NaN]}', "1 vectors for 2"),
    ("a list", [], "JSON object"),
    ("null", None, "JSON object"),
    ("an error", {"detail": "no balance", "code": "X"}, "no balance"),
    ("a nested error", {"detail": {"message": "no balance"}}, "no balance"),
    ("no data", {}, "no vectors"),
    ("data is no list", answer(data={"0": []}), "no vectors"),
    ("too few", answer(data=answer()["data"][:1]), "1 vectors for 2"),
    ("too many", answer(data=answer()["data"] * 2), "4 vectors for 2"),
    ("items are no objects", answer(data=[[1.0], [2.0]]), "indices"),
    ("no index", items({"index": None}, {}), "indices"),
    ("an index twice", items({"index": 1}, {}), "indices"),
    ("an index beyond", items({"index": 2}, {}), "indices"),
    ("an index below", items({"index": -1}, {}), "indices"),
    ("an index as text", items({"index": "0"}, {}), "indices"),
    ("an index as truth", items({"index": False}, {"index": True}), "indices"),
    ("no embedding", items({}, {"embedding": None}), "vector 1 is no base64"),
    ("numbers", items({}, {"embedding": [1.0, 2.0, 3.0, 4.0]}), "vector 1 is no base64"),
    ("bad base64", items({"embedding": "!!!!"}, {}), "vector 0 is no base64"),
    ("base64 that ends early", items({"embedding": "AAA"}, {}), "vector 0 is no base64"),
    ("short", items({"embedding": encoded(1, 0, 0)}, {}), "3 dimensions, asked for 4"),
    ("long", items({"embedding": encoded(1, 0, 0, 0, 0)}, {}), "5 dimensions, asked for 4"),
    ("doubles", items({"embedding": base64.b64encode(bytes(32)).decode()}, {}), "8 dimensions"),
    ("of another model", answer(model="jina-embeddings-v2-base-en"), "v2-base-en"),
    ("of a strange model", answer(model=["v3"]), "asked for jina-embeddings-v3"),
]


@pytest.mark.parametrize(
    ("body", "said"), [case[1:] for case in BAD_ANSWERS], ids=[case[0] for case in BAD_ANSWERS]
)
def test_a_bad_answer_is_not_used(body: object, said: str) -> None:
    with pytest.raises(BadResponse, match=said) as caught:
        read(body)
    assert "try again" in str(caught.value)


@given(st.binary(max_size=200))
def test_no_bytes_make_anything_but_an_answer_or_a_bad_response(content: bytes) -> None:
    with pytest.raises(BadResponse):
        wire.read_answer(content, V3, count=1)


def test_a_true_answer_is_never_longer_than_allowed() -> None:
    row = {"object": "embedding", "index": 99, "embedding": encoded(*[1.0] * 1024)}
    content = orjson.dumps(answer(data=[row] * 100), option=orjson.OPT_INDENT_2)
    space = wire.space_of("jina-embeddings-v3", None, None)
    assert len(content) < wire.most_bytes(space, 100)


# Refusals


def flat(code: str, detail: str = "said so") -> bytes:
    return orjson.dumps({"detail": detail, "code": code, "request_id": "r"})


def nested(code: str, detail: str = "said so") -> bytes:
    return orjson.dumps({"detail": {"message": detail, "code": code, "request_id": "r"}})


def complaint(field: str, type: str, message: str = "said so") -> bytes:
    errors = [{"field": field, "message": message, "type": type, "input": None}]
    return orjson.dumps({"detail": "Validation error", "errors": errors})


Meaning = tuple[type[EmbeddingError], str, str]
FAULTS: list[tuple[int, str, Meaning]] = [
    # status, code; error, whether to retry (r), to halve (h), of one text (t); what mends it
    (400, "INPUT_MODEL_NOT_FOUND", (EmbeddingError, "", "check model=")),
    (400, "INPUT_INVALID_LABELS", (EmbeddingError, "", "check model=")),
    (400, "INPUT_TOKEN_LIMIT_EXCEEDED", (TokenLimitExceeded, "ht", "cut it into passages")),
    (401, "AUTH_MISSING_API_KEY", (AuthenticationFailed, "", "JINA_API_KEY")),
    (401, "AUTH_INVALID_API_KEY", (AuthenticationFailed, "", "JINA_API_KEY")),
    (402, "", (QuotaExhausted, "", "top it up")),
    (403, "AUTHZ_INSUFFICIENT_BALANCE", (QuotaExhausted, "", "top it up")),
    (403, "AUTHZ_RESOURCE_LIMIT_EXCEEDED", (QuotaExhausted, "", "top it up")),
    (403, "AUTHZ_FORBIDDEN", (AuthenticationFailed, "", "the right")),
    (404, "RESOURCE_NOT_FOUND", (EmbeddingError, "", "base_url=")),
    (409, "CONFLICT_RESOURCE_BUSY", (BackendUnavailable, "r", "later")),
    (413, "", (TokenLimitExceeded, "ht", "cut it")),
    (429, "RATE_REQUEST_LIMIT_EXCEEDED", (RateLimited, "r", "retry_seconds=")),
    (429, "RATE_TOKEN_LIMIT_EXCEEDED", (RateLimited, "r", "tokens_per_minute=")),
    (500, "INTERNAL_ERROR", (BackendUnavailable, "r", "later")),
    (502, "", (BackendUnavailable, "r", "later")),
    (503, "SERVICE_UNAVAILABLE", (BackendUnavailable, "r", "later")),
    (504, "SERVICE_TIMEOUT", (BackendUnavailable, "rh", "later")),
    (524, "", (BackendUnavailable, "rh", "later")),
    *[
        (status, "", (BackendUnavailable, "r", "later"))
        for status in (408, 425, 507, 520, 529, 530)
    ],
    (501, "", (EmbeddingError, "", "check")),
    (505, "", (EmbeddingError, "", "check")),
    (301, "", (BadResponse, "", "base_url=")),
    (204, "", (BadResponse, "", "base_url=")),
    (418, "", (EmbeddingError, "", "check")),
]


@pytest.mark.parametrize("form", [flat, nested])
@pytest.mark.parametrize(("status", "code", "meaning"), FAULTS)
def test_a_refusal_says_what_it_means_and_what_mends_it(
    form: Callable[[str], bytes], status: int, code: str, meaning: Meaning
) -> None:
    kind, deeds, mend = meaning
    fault = wire.fault_of(status, form(code), V3, wait=None)
    assert type(fault.error) is kind
    assert (fault.retry, fault.halve, fault.of_text) == tuple(deed in deeds for deed in "rht")
    for word in (str(status), code, "said so", mend):
        assert word in str(fault.error)
    assert fault.error.indices == ()


def test_a_complaint_about_a_parameter_names_it() -> None:
    fault = wire.fault_of(422, complaint("dimensions", "out_of_range"), V3, wait=None)
    assert "'dimensions: said so'" in str(fault.error)
    assert not fault.retry
    assert not fault.halve


@pytest.mark.parametrize("field", ["input", "body.input"])
def test_too_many_items_can_be_halved(field: str) -> None:
    fault = wire.fault_of(422, complaint(field, "too_long"), V3, wait=None)
    assert (fault.halve, fault.of_text, fault.retry) == (True, False, False)
    assert "texts_per_request=" in str(fault.error)


@pytest.mark.parametrize(
    ("field", "type"), [("inputs", "too_long"), ("input", "too_short"), ("task", "too_long")]
)
def test_no_other_complaint_is_about_too_many_items(field: str, type: str) -> None:
    assert not wire.fault_of(422, complaint(field, type), V3, wait=None).halve


ODD_BODIES = [
    b"",
    b"<html><h1>502</h1>",
    b"\xff\xfe",
    b"null",
    b"[]",
    b'"text"',
    b'{"detail": null}',
    b'{"detail": {"message": 3, "code": ["x"]}}',
    b'{"errors": "none"}',
    b'{"errors": [null, 3]}',
    b'{"detail": "x", "errors": [{"field": 3, "message": null}]}',
    b'{"code": "a\\u001b[31m"}',
]


@pytest.mark.parametrize("content", ODD_BODIES)
@pytest.mark.parametrize("status", [400, 401, 403, 422, 429, 500, 503])
def test_any_body_makes_a_typed_error_of_one_line(status: int, content: bytes) -> None:
    said = str(wire.fault_of(status, content, V3, wait=None).error)
    assert str(status) in said
    assert said.isprintable()


@given(st.text(max_size=5000))
def test_at_most_80_characters_of_the_servers_text_are_quoted(text: str) -> None:
    content = orjson.dumps({"detail": text.encode(errors="ignore").decode()})
    for status in (400, 401, 429, 500):
        bare = len(str(wire.fault_of(status, b"", V3, wait=None).error))
        assert len(str(wire.fault_of(status, content, V3, wait=None).error)) <= bare + 82


# Retry-After

WAITS: list[tuple[str | None, float | None]] = [
    (None, None),
    ("0", 0),
    ("3", 3),
    (" 7 ", 7),
    ("2.5", 2.5),
    ("-5", 0),
    ("1e9", exchange.LONGEST_WAIT),
    ("999999999999999999999", exchange.LONGEST_WAIT),
    ("Fri, 02 Jan 2026 03:04:15 GMT", 10),
    ("Fri, 02 Jan 2026 03:04:15", 10),
    ("Friday, 02-Jan-26 03:04:15 GMT", 10),
    ("Fri, 02 Jan 2026 04:04:15 +0100", 10),
    ("Thu, 01 Jan 2026 03:04:05 GMT", 0),
    ("Fri, 02 Jan 9999 03:04:05 GMT", exchange.LONGEST_WAIT),
    ("Fri, 99 Jan 2026 03:04:05 GMT", None),
    ("soon", None),
    ("", None),
    ("nan", None),
    ("inf", None),
    ("-inf", None),
    ("1_0", None),
    ("1e", None),
    (".5", None),
    ("0x10", None),
    ("١٢", 12),
]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("header", "wait"), WAITS)
def test_retry_after_is_obeyed_within_reason(
    header: str | None, wait: float | None, status: int
) -> None:
    found = exchange.wait_of(header, now=NOW)
    assert found == wait
    assert wire.fault_of(status, b"", V3, wait=found).wait == wait


@given(st.text(max_size=60))
@example("0\x1f")  # blank to strip(), not to float()
def test_no_retry_after_is_too_strange(header: str) -> None:
    found = exchange.wait_of(header, now=NOW)
    assert found is None or 0 <= found <= exchange.LONGEST_WAIT


LEFT: list[tuple[dict[str, str], tuple[int | None, int | None]]] = [
    ({}, (None, None)),
    ({"X-RateLimit-Remaining-Requests": "7"}, (7, None)),
    ({"X-RateLimit-Remaining-Tokens": " 900 "}, (None, 900)),
    ({"X-RateLimit-Remaining-Requests": "0", "X-RateLimit-Remaining-Tokens": "0"}, (0, 0)),
    ({"X-RateLimit-Remaining-Requests": "-1"}, (None, None)),
    ({"X-RateLimit-Remaining-Requests": "many"}, (None, None)),
    ({"X-RateLimit-Remaining-Requests": "1e3"}, (None, None)),
    ({"X-RateLimit-Remaining-Requests": "9" * 5000}, (None, None)),
]


@pytest.mark.parametrize(("headers", "left"), LEFT)
def test_what_is_left_is_read_where_it_is_a_number(
    headers: dict[str, str], left: tuple[int | None, int | None]
) -> None:
    assert exchange.remaining_of(headers) == left


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize(
    ("header", "pause"),
    [
        (None, 0.75),
        ("soon", 0.75),
        ("0", 0.75),
        ("-3", 0.75),
        ("0.5", 0.75),
        ("3", 3.0),
        ("2.5", 2.5),
        ("Fri, 02 Jan 2015 03:04:05 GMT", 0.75),
        ("Fri, 02 Jan 2026 03:04:15 GMT", 10.0),
        ("121", None),
        ("1e9", None),
        ("Fri, 02 Jan 2096 03:04:05 GMT", None),
    ],
)
def test_the_pause_is_what_the_server_asks_for_if_there_is_time(
    status: int, header: str | None, pause: float | None
) -> None:
    fault = wire.fault_of(status, b"", V3, wait=exchange.wait_of(header, now=NOW))
    assert exchange.pause_after(fault, count=1, left=120, backoff=0.75) == pause


def test_without_time_there_is_no_other_attempt() -> None:
    fault = wire.fault_of(503, b"", V3, wait=None)
    assert exchange.pause_after(fault, count=1, left=0, backoff=0.5) is None
    assert exchange.pause_after(fault, count=1, left=0.1, backoff=0.5) == 0.5


def test_what_may_succeed_in_halves_is_not_tried_again_whole() -> None:
    fault = wire.fault_of(504, b"", V3, wait=None)
    assert exchange.pause_after(fault, count=2, left=9, backoff=0.5) is None
    assert exchange.pause_after(fault, count=1, left=9, backoff=0.5) == 0.5


@pytest.mark.parametrize(
    ("code", "deeds"),
    [
        ("RATE_REQUEST_LIMIT_EXCEEDED", (True, False)),
        ("RATE_TOKEN_LIMIT_EXCEEDED", (True, False)),
        ("RATE_IP_LIMIT_EXCEEDED", (True, False)),
        ("RATE_CONCURRENCY_LIMIT_EXCEEDED", (False, True)),
    ],
)
def test_a_limit_is_of_amounts_or_of_requests_at_a_time(
    code: str, deeds: tuple[bool, bool]
) -> None:
    fault = wire.fault_of(429, flat(code), V3, wait=None)
    assert (fault.limited, fault.crowded) == deeds
    assert fault.is_free


# Texts that are refused


def test_each_text_that_is_too_long_is_named() -> None:
    error = TokenLimitExceeded("too long")
    found = exchange.refused_texts(["a", "b", "c"], {2: error, 1: error})
    assert isinstance(found, TokenLimitExceeded)
    assert found.indices == (1, 2)
    assert str(found) == "text 1, 'b' (and 1 more): too long"


def test_texts_that_are_refused_for_anything_else_are_not_called_too_long() -> None:
    found = exchange.refused_texts(["a", "b"], {0: TokenLimitExceeded("x"), 1: EmbeddingError("y")})
    assert type(found) is EmbeddingError
    assert found.indices == (0, 1)


@pytest.mark.parametrize("field", ["input.3", "body.input.0", "input.3.text"])
def test_a_complaint_about_one_text_is_about_it_alone(field: str) -> None:
    fault = wire.fault_of(422, complaint(field, "string_type"), V3, wait=None)
    assert (fault.halve, fault.of_text, fault.retry) == (True, True, False)
