"""The contract server: it refuses what the API refuses, and its vectors behave like a model's."""

from __future__ import annotations

import base64
import ssl
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Protocol

import httpx
import numpy as np
import pytest
from tests.server.lexical import LexicalBackend
from tests.server.serving import served

from samespace.errors import InvalidInput
from samespace.models import MODELS
from samespace.protocols import Matrix
from samespace.testing.jina_quota import Quota
from samespace.testing.jina_server import JinaServer, Json, error_body
from samespace.testing.jina_vectors import LexicalModel

KEY = "key-of-a-test"
TLS = ssl.create_default_context()
"""Made once: httpx would read all certificates anew for each request."""
V2, V3, V4 = "jina-embeddings-v2-base-en", "jina-embeddings-v3", "jina-embeddings-v4"
PASSAGE, QUERY = "retrieval.passage", "retrieval.query"
TEXTS = [
    "The lighthouse keeper counted seven ships before the fog came in.",
    "An empty battery is full again after two hours.",
    "Der Bäcker öffnet um sechs Uhr, doch das Brot ist erst um sieben fertig.",
    "Turn the wheel on the left until the display is bright.",
]


@pytest.fixture
def server() -> Iterator[JinaServer]:
    with JinaServer(keys=(KEY,)) as server:
        yield server


class Api(Protocol):
    """What keeps the contract: the test server, and the embed-server in front of the same model."""

    @property
    def url(self) -> str: ...


@pytest.fixture(scope="module")
def embed_server() -> Iterator[Api]:
    with served(LexicalBackend(V3), keys=(KEY,)) as server:
        yield server


@pytest.fixture(params=["server", "embed_server"])
def api(request: pytest.FixtureRequest) -> Api:
    found: Api = request.getfixturevalue(request.param)
    return found


def post(server: Api, *, key: str = f"Bearer {KEY}", **body: Any) -> httpx.Response:
    headers = {"Authorization": key} if key else {}
    asked = {"model": V3, "input": TEXTS, **body}
    return httpx.post(f"{server.url}/embeddings", json=asked, headers=headers, verify=TLS)


def embed(server: Api, **body: Any) -> Matrix:
    answer = post(server, embedding_type="base64", **body)
    assert answer.status_code == 200, answer.text
    rows = sorted(answer.json()["data"], key=lambda item: item["index"])
    return np.array([np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in rows])


def cosine(left: Matrix, right: Matrix) -> float:
    return float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))


# What it refuses


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("", "AUTH_MISSING_API_KEY"),
        ("Basic abc", "AUTH_INVALID_FORMAT"),
        ("Bearer wrong", "AUTH_INVALID_API_KEY"),
    ],
)
def test_a_key_is_asked_for(api: Api, key: str, code: str) -> None:
    answer = post(api, key=key)
    assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert not isinstance(api, JinaServer) or api.requests == []


def test_the_scheme_of_a_key_may_be_in_any_case(api: Api) -> None:
    assert post(api, key=f"bearer {KEY}").status_code == 200


def test_one_string_is_not_taken_for_many_keys() -> None:
    with pytest.raises(InvalidInput, match="in a tuple"):
        JinaServer(keys=KEY)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"prompt": "x"}, "prompt"),
        ({"task": "retrieval"}, "task"),
        ({"dimensions": 1025}, "dimensions"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": "64"}, "dimensions"),
        ({"normalized": "yes"}, "normalized"),
        ({"embedding_type": "int4"}, "embedding_type"),
        ({"input": []}, "input"),
        ({"input": ["a", " "]}, "input.1"),
        ({"input": ["a", 3]}, "input.1"),
    ],
)
def test_a_parameter_that_the_model_does_not_know_is_refused(
    api: Api, body: dict[str, Any], field: str
) -> None:
    answer = post(api, **body)
    assert answer.status_code == 422
    assert [complaint["field"] for complaint in answer.json()["errors"]] == [field]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": V2, "task": PASSAGE}, "task"),
        ({"model": V2, "dimensions": 256}, "dimensions"),
        ({"model": V2, "late_chunking": True}, "late_chunking"),
        ({"model": V4, "normalized": True}, "normalized"),
    ],
)
def test_each_model_knows_parameters_of_its_own(
    server: JinaServer, body: dict[str, Any], field: str
) -> None:
    test_a_parameter_that_the_model_does_not_know_is_refused(server, body, field)


def test_an_unknown_model_is_refused(api: Api) -> None:
    answer = post(api, model="jina-embeddings-v9")
    assert (answer.status_code, answer.json()["code"]) == (400, "INPUT_MODEL_NOT_FOUND")


def test_too_many_items_are_refused() -> None:
    with JinaServer(keys=(KEY,), items_per_request=3) as server:
        assert post(server, input=TEXTS[:3]).status_code == 200
        answer = post(server, input=TEXTS)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["type"] == "too_long"


def test_another_address_is_not_found(api: Api) -> None:
    assert httpx.post(f"{api.url}/embed", json={}, verify=TLS).status_code == 404


def test_what_is_no_json_is_refused(api: Api) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = httpx.post(f"{api.url}/embeddings", content=b"{", headers=headers, verify=TLS)
    assert answer.status_code == 422


# Tokens


def test_tokens_are_words_and_marks_and_two_special_ones(api: Api) -> None:
    answer = post(api, input=["one two, three", {"text": "four"}])
    assert answer.json()["usage"] == {"total_tokens": 4 + 2 + 1 + 2}


@pytest.mark.parametrize(("words", "status"), [(8190, 200), (8191, 400)])
def test_a_text_may_fill_the_context_and_no_more(api: Api, words: int, status: int) -> None:
    answer = post(api, input=["word " * words])
    assert answer.status_code == status
    assert answer.json().get("code") == (None if status == 200 else "INPUT_TOKEN_LIMIT_EXCEEDED")


def test_a_text_is_cut_where_that_was_asked_for() -> None:
    with JinaServer(keys=(KEY,), context=6) as server:
        cut = embed(server, input=["a b c d e f g"], truncate=True)
        assert cut == pytest.approx(embed(server, input=["a b c d"]))
        answer = post(server, input=["a b c d e f g"], truncate=True)
    assert answer.json()["usage"]["total_tokens"] == 6


def test_late_chunks_share_the_context() -> None:
    with JinaServer(keys=(KEY,), context=6) as server:
        assert post(server, input=["a b", "c d"]).status_code == 200
        assert post(server, input=["a b", "c d"], late_chunking=True).status_code == 400


@pytest.mark.parametrize(("words", "status"), [(4094, 200), (4095, 400)])
def test_late_chunks_have_8192_tokens_together_whatever_the_context(
    server: JinaServer, words: int, status: int
) -> None:
    body: Json = {"model": V4, "input": ["word " * words, "word " * 4094], "late_chunking": True}
    assert post(server, **body).status_code == status
    assert post(server, **{**body, "late_chunking": False}).status_code == 200


# What an account is allowed


def quotas(clock: list[float], **quota: Any) -> JinaServer:
    return JinaServer(keys=(KEY,), quota=Quota(**quota), clock=lambda: clock[0])


def test_a_window_has_so_many_requests() -> None:
    now = [0.0]
    with quotas(now, requests=2, window=10) as server:
        answers = [post(server), post(server), post(server)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        left = [answer.headers["X-RateLimit-Remaining-Requests"] for answer in answers]
        assert left == ["1", "0", "0"]
        assert answers[2].json()["code"] == "RATE_REQUEST_LIMIT_EXCEEDED"
        assert answers[2].headers["Retry-After"] == "10"
        now[0] = 10.0
        assert post(server).status_code == 200
        assert [status for _, status in server.statuses] == [200, 200, 429, 200]


def test_a_window_has_so_many_tokens() -> None:
    with quotas([0.0], tokens=7, tells=False, retry_after=False) as server:
        assert post(server, input=["one two"]).status_code == 200
        answer = post(server, input=["one two"])
        assert answer.json()["code"] == "RATE_TOKEN_LIMIT_EXCEEDED"
        assert not {"retry-after", "x-ratelimit-remaining-tokens"} & set(answer.headers)
        assert post(server, input=["one"]).headers.get("X-RateLimit-Remaining-Tokens") is None


def test_so_many_requests_may_be_under_way() -> None:
    with quotas([0.0], in_flight=1) as server:
        codes: list[str] = []

        def ask_another(answer: Json) -> Json:
            codes.append(post(server).json()["code"])
            return answer

        server.change_next(ask_another)
        assert post(server).status_code == 200
        assert codes == ["RATE_CONCURRENCY_LIMIT_EXCEEDED"]
        assert post(server).status_code == 200


# Forms of a vector


def test_each_form_says_the_same(api: Api) -> None:
    forms = {
        form: [item["embedding"] for item in post(api, embedding_type=form).json()["data"]]
        for form in ("float", "base64", "ubinary", "binary")
    }
    floats = np.array(forms["float"], np.float32)
    assert floats == pytest.approx(embed(api))
    assert np.array_equal(np.array(forms["ubinary"]), np.packbits(floats > 0, axis=1))
    assert np.array_equal(np.array(forms["binary"]), np.array(forms["ubinary"]) - 128)


def test_items_may_come_in_another_order(server: JinaServer) -> None:
    with JinaServer(keys=(KEY,), shuffled=True) as other:
        indices = [item["index"] for item in post(other).json()["data"]]
        assert indices != sorted(indices)
        assert np.array_equal(embed(other), embed(server))


def test_requests_are_kept_without_keys(server: JinaServer) -> None:
    post(server, task=QUERY)
    assert server.requests == [{"model": V3, "input": TEXTS, "task": QUERY}]
    assert KEY not in repr(server.requests) + repr(server)


# Faults on request


def test_faults_come_in_their_turn(server: JinaServer) -> None:
    server.fail_next(429, error_body("RATE_REQUEST_LIMIT_EXCEEDED"), headers={"Retry-After": "3"})
    server.fail_next(503, "<html>", skip=1)
    answers = [post(server) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [429, 200, 503, 200]
    assert answers[0].headers["Retry-After"] == "3"


def test_a_connection_can_be_cut(server: JinaServer) -> None:
    server.cut_next()
    server.cut_next(after=20)
    for _ in range(2):
        with pytest.raises(httpx.RemoteProtocolError):
            post(server)
    assert post(server).status_code == 200


def test_an_answer_can_be_changed(server: JinaServer) -> None:
    server.change_next(lambda answer: {**answer, "data": answer["data"][:1]})
    assert len(post(server).json()["data"]) == 1


def test_it_lies_where_it_is_told_to(server: JinaServer) -> None:
    with JinaServer(keys=(KEY,), stand_ins={V3: V2}, forced={"task": None}) as liar:
        answer = post(liar, task=QUERY, dimensions=768, embedding_type="base64")
        assert answer.json()["model"] == V3
        assert np.array_equal(embed(liar, task=QUERY, dimensions=768), embed(server, model=V2))
        generic = LexicalModel(MODELS[V4]).embed(TEXTS, task=None, dimensions=2048)
        assert np.array_equal(embed(liar, model=V4, task=QUERY), generic)


# How vectors relate


@pytest.mark.parametrize("dimensions", [64, 256, 768, 1024])
def test_tasks_relate_as_those_of_a_model(api: Api, dimensions: int) -> None:
    passage = embed(api, dimensions=dimensions, task=PASSAGE)
    query = embed(api, dimensions=dimensions, task=QUERY)
    generic = embed(api, dimensions=dimensions)
    for row in range(len(TEXTS)):
        assert cosine(query[row], passage[row]) == pytest.approx(0.8, abs=0.02)
        assert cosine(generic[row], passage[row]) == pytest.approx(0.63, abs=0.02)
        for task in ("text-matching", "classification", "separation"):
            other = embed(api, dimensions=dimensions, task=task)
            assert 0.64 < cosine(other[row], passage[row]) < 0.78


def test_no_two_tasks_of_a_model_are_the_same() -> None:
    for model in MODELS.values():
        vectors = [
            LexicalModel(model).embed(TEXTS[:1], task=task, dimensions=64)[0]
            for task in ({None, *model.tasks} if model.default_task is None else model.tasks)
        ]
        cosines = [
            cosine(left, right) for place, left in enumerate(vectors) for right in vectors[:place]
        ]
        assert all(value < 0.99 for value in cosines), model.name


def test_another_model_has_nothing_in_common(server: JinaServer) -> None:
    for dimensions in (256, 768):
        other = embed(server, model=V2)[:, :dimensions]
        own = embed(server, dimensions=dimensions, task=PASSAGE)
        for row in range(len(TEXTS)):
            assert abs(cosine(other[row], own[row])) < 0.25


def test_a_short_vector_begins_the_long_one(api: Api) -> None:
    long = embed(api, task=PASSAGE)
    for dimensions in (1, 64, 100, 768):
        prefix = long[:, :dimensions]
        expected = prefix / np.linalg.norm(prefix, axis=1, keepdims=True)
        assert embed(api, task=PASSAGE, dimensions=dimensions) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("dimensions", [64, 256, 1024])
def test_a_query_finds_the_text_with_its_words(api: Api, dimensions: int) -> None:
    passages = embed(api, task=PASSAGE, dimensions=dimensions)
    for row, query in enumerate(
        ["seven ships in the fog", "empty battery", "Brot vom Bäcker", "bright display wheel"]
    ):
        asked = embed(api, input=[query], task=QUERY, dimensions=dimensions)[0]
        assert int(np.argmax(passages @ asked)) == row


def test_late_chunks_see_their_neighbours(api: Api) -> None:
    alone = embed(api, task=PASSAGE)
    together = embed(api, task=PASSAGE, late_chunking=True)
    elsewhere = embed(api, task=PASSAGE, late_chunking=True, input=[TEXTS[0], TEXTS[2]])
    for row in range(len(TEXTS)):
        assert 0.8 < cosine(alone[row], together[row]) < 0.99
    assert cosine(together[0], elsewhere[0]) < 0.99
    assert cosine(together[0], alone[1]) > cosine(alone[0], alone[1]) + 0.1


def test_a_chunk_on_its_own_sees_nothing_else(api: Api) -> None:
    one = {"input": TEXTS[:1], "task": PASSAGE}
    assert embed(api, **one, late_chunking=True) == pytest.approx(embed(api, **one), abs=1e-6)


def test_vectors_have_unit_norm_unless_asked_otherwise(api: Api) -> None:
    assert np.linalg.norm(embed(api), axis=1) == pytest.approx(1, abs=1e-6)
    raw = embed(api, normalized=False)
    assert (np.linalg.norm(raw, axis=1) > 1.5).all()
    assert cosine(raw[0], embed(api)[0]) == pytest.approx(1)


def test_vectors_are_the_same_in_every_process() -> None:
    own = LexicalModel(MODELS[V3]).embed(TEXTS, task=PASSAGE, dimensions=64)
    script = (
        "import sys\n"
        "from samespace.models import MODELS\n"
        "from samespace.testing.jina_vectors import LexicalModel\n"
        f"texts = {TEXTS!r}\n"
        f"vectors = LexicalModel(MODELS[{V3!r}]).embed(texts, task={PASSAGE!r}, dimensions=64)\n"
        "sys.stdout.buffer.write(vectors.tobytes())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == own.tobytes()
