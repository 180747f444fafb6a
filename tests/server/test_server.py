"""The embed-server at its edges: keys, limits, errors, readiness, clients that leave, its end."""

from __future__ import annotations

import json
import logging
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from tests.server.lexical import SLOW, LexicalBackend
from tests.server.serving import KEY, TLS, Served, listens, served

from samespace import HashingBackend
from samespace.errors import InvalidInput
from samespace.server import create_app, read_keys, serve

SECRET = "what nobody else may read"


@pytest.fixture
def backend() -> LexicalBackend:
    return LexicalBackend()


@pytest.fixture
def server(backend: LexicalBackend) -> Iterator[Served]:
    with served(backend) as here:
        yield here
        backend.go.set()


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


# Keys


def test_any_of_several_keys_will_do(backend: LexicalBackend) -> None:
    with served(backend, keys=("first", "second")) as here:
        assert [here.post(key=key).status_code for key in ("first", "second")] == [200, 200]
        for key in ("third", "firs", "firsts"):
            assert code_of(here.post(key=key)) == (401, "AUTH_INVALID_API_KEY")
        assert code_of(here.post(key="")) == (401, "AUTH_MISSING_API_KEY")


def test_without_keys_everybody_may_ask(backend: LexicalBackend) -> None:
    with served(backend, keys=()) as here:
        assert here.post(key="").status_code == 200


def test_keys_come_from_a_file_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys"
    file.write_text("# of the ingesters\none\n\n  two  \n")
    monkeypatch.delenv("SAMESPACE_SERVER_KEYS", raising=False)
    assert read_keys() == ()
    assert read_keys(file) == ("one", "two")
    monkeypatch.setenv("SAMESPACE_SERVER_KEYS", " three, four five ")
    assert read_keys(file) == ("one", "two", "three", "four", "five")
    file.write_text("# none\n")
    with pytest.raises(InvalidInput, match="has no key"):
        read_keys(file)
    with pytest.raises(InvalidInput, match="No such file"):
        read_keys(tmp_path / "elsewhere")


@pytest.mark.parametrize("key", ["", "two words", "schlüssel", "line\n"])
def test_a_key_that_no_header_can_carry_is_refused(backend: LexicalBackend, key: str) -> None:
    with pytest.raises(InvalidInput, match="key 1 is no key") as refused:
        create_app(backend, keys=("good", key))
    assert "good" not in str(refused.value)


def test_without_keys_only_this_machine_is_served(backend: LexicalBackend) -> None:
    with pytest.raises(InvalidInput, match="SAMESPACE_SERVER_KEYS"):
        serve(backend, host="0.0.0.0")  # noqa: S104  that is the point


def test_a_port_that_is_taken_is_named(backend: LexicalBackend) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InvalidInput, match=f"port {port}"):
            serve(backend, port=port)


def test_only_a_backend_with_a_servable_model_is_served() -> None:
    with pytest.raises(InvalidInput, match="HashingBackend cannot be served"):
        create_app(HashingBackend())  # type: ignore[arg-type]


# Limits


def test_so_many_texts_and_no_more(backend: LexicalBackend) -> None:
    with served(backend, most_items=3) as here:
        assert here.post(input=["a"] * 3).status_code == 200
        answer = here.post(input=["a"] * 4)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["type"] == "too_long"


def test_so_many_bytes_and_no_more(backend: LexicalBackend) -> None:
    with served(backend, most_bytes=1000) as here:
        assert here.post(input=["a" * 900]).status_code == 200
        whole = here.post(input=["a" * 1000])
        headers = {"Authorization": f"Bearer {KEY}"}
        parts = (b"x" * 100 for _ in range(100))
        streamed = httpx.post(f"{here.url}/embeddings", content=parts, headers=headers, verify=TLS)
        assert code_of(whole) == code_of(streamed) == (413, "REQUEST_TOO_LARGE")
        assert here.post().status_code == 200


@pytest.mark.parametrize("size", [1, 100_000])
def test_so_many_requests_at_a_time(backend: LexicalBackend, size: int) -> None:
    with served(backend, most_in_flight=1) as here, ThreadPoolExecutor() as threads:
        first = threads.submit(here.post, input=[SLOW, "a" * size])
        assert backend.entered.acquire(timeout=60)
        answers = [here.post(input=["b" * count, "c"]) for count in (1, 100_000)]
        assert here.post(input="a query").status_code == 200
        backend.go.set()
        assert first.result().status_code == 200
        assert here.post().status_code == 200
    for answer in answers:
        assert code_of(answer) == (429, "RATE_CONCURRENCY_LIMIT_EXCEEDED")
        assert int(answer.headers["Retry-After"]) >= 1


def test_so_many_queries_at_a_time(backend: LexicalBackend) -> None:
    with served(backend, most_in_flight=1) as here, ThreadPoolExecutor() as threads:
        first = threads.submit(here.post, input=SLOW)
        assert backend.entered.acquire(timeout=60)
        answer = here.post(input="a query")
        assert here.post().status_code == 200
        backend.go.set()
        assert first.result().status_code == 200
        assert here.post(input="a query").status_code == 200
    assert code_of(answer) == (429, "RATE_CONCURRENCY_LIMIT_EXCEEDED")


def test_a_limit_is_a_number(backend: LexicalBackend) -> None:
    with pytest.raises(InvalidInput, match="most_items is 0"):
        create_app(backend, most_items=0)


def test_another_model_is_not_served(server: Served) -> None:
    assert code_of(server.post(model="jina-embeddings-v4")) == (400, "INPUT_MODEL_NOT_FOUND")
    assert server.post(model="jinaai/jina-embeddings-v3").status_code == 200


# Errors


def test_every_error_is_json(server: Served) -> None:
    assert code_of(server.get("/v1/embedding")) == (404, "RESOURCE_NOT_FOUND")
    answer = server.get("/v1/embeddings")
    assert code_of(answer) == (405, "METHOD_NOT_ALLOWED")
    assert answer.headers["Allow"] == "POST"


def test_a_parameter_may_have_any_name(server: Served) -> None:
    body = b'{"model": "jina-embeddings-v3", "input": "a", "\\ud800": 1}'
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = httpx.post(f"{server.url}/embeddings", content=body, headers=headers, verify=TLS)
    assert answer.status_code == 422


def test_a_body_that_does_not_come_keeps_no_place(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samespace.server.app.READING", 0.01)
    host, port = server.root.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        client.sendall(f"{head}Content-Length: 10\r\n\r\n{{".encode())
        assert client.recv(12) == b"HTTP/1.1 408"


def test_what_fails_is_told_to_nobody_but_where(
    server: Served, backend: LexicalBackend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.fault = RuntimeError(SECRET)
    with caplog.at_level(logging.DEBUG):
        answer = server.post(input=[SECRET, "b"])
    assert code_of(answer) == (500, "INTERNAL_ERROR")
    assert answer.json()["request_id"] in caplog.text
    assert "lexical.py:" in caplog.text
    for secret in (SECRET, KEY):
        assert secret not in caplog.text + answer.text
    backend.fault = None
    assert server.post().status_code == 200


class PanicException(BaseException):
    """What code in Rust, as tokenizers are, raises where it panics: no Exception."""


def test_a_panic_is_answered_and_stops_nothing(server: Served, backend: LexicalBackend) -> None:
    for text in (["a", "b"], "a query"):
        backend.fault = PanicException(SECRET)
        assert code_of(server.post(input=text)) == (500, "INTERNAL_ERROR")
        backend.fault = None
        assert server.post(input=text).status_code == 200


def test_numbers_that_are_none_are_not_sent(server: Served, backend: LexicalBackend) -> None:
    means = backend._means
    backend._means = lambda *a, **k: means(*a, **k) * np.float32("nan")  # type: ignore[method-assign]
    assert code_of(server.post()) == (500, "INTERNAL_ERROR")


# Readiness


def test_it_lives_before_it_is_ready(backend: LexicalBackend) -> None:
    backend.may_load.clear()
    with served(backend, wait=False) as here:
        assert here.get("/health").json() == {"status": "alive"}
        for answer in (here.get("/ready"), here.post()):
            assert code_of(answer) == (503, "SERVICE_UNAVAILABLE")
            assert answer.headers["Retry-After"]
        backend.may_load.set()
        while here.get("/ready").status_code != 200:
            pass
        assert here.post().status_code == 200


def test_it_is_never_ready_without_weights(
    backend: LexicalBackend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.fault = InvalidInput("the weights are gone")
    with served(backend, wait=False) as here:
        while "being loaded" in (answer := here.get("/ready")).text:
            pass
        assert code_of(answer) == (503, "SERVICE_UNAVAILABLE")
    assert "the weights are gone" in caplog.text
    with pytest.raises(InvalidInput, match="the weights are gone"):
        serve(backend, port=0)


# Whose turn it is


def test_a_query_waits_for_no_batch(server: Served, backend: LexicalBackend) -> None:
    with ThreadPoolExecutor() as threads:
        batch = threads.submit(server.post, input=[SLOW, "a"])
        assert backend.entered.acquire(timeout=60)
        assert server.post(input="a query").status_code == 200
        assert not batch.done()
        backend.go.set()
        assert batch.result().status_code == 200
    assert backend.urgent == ["a query"]


def test_the_work_of_a_client_that_leaves_ends(server: Served, backend: LexicalBackend) -> None:
    body = json.dumps({"model": "jina-embeddings-v3", "input": [SLOW, "a"]})
    host, port = server.root.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        assert backend.entered.acquire(timeout=60)
    assert backend.stopped.wait(60)
    assert server.post().status_code == 200


# Its end


def test_it_imports_no_model_code() -> None:
    script = "import sys, samespace.server; print(sys.modules.keys() & {'torch', 'transformers'})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


PROCESS = """
import sys
from tests.server.lexical import LexicalBackend
from samespace.server import serve

class Held(LexicalBackend):
    def _wait(self, texts, stop):
        print("entered", flush=True)
        sys.stdin.readline()

serve(Held(), port=0, keys=("key-of-a-test",), on_listening=lambda url: print(url, flush=True))
print("ended", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_under_way_is_answered_before_it_ends(number: signal.Signals) -> None:
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(
            [sys.executable, "-c", PROCESS], stdin=pipe, stdout=pipe, stderr=pipe, text=True
        ) as process,
        ThreadPoolExecutor() as threads,
    ):
        assert process.stdin
        assert process.stdout
        here = Served(process.stdout.readline().strip())
        while here.get("/ready").status_code != 200:
            pass
        asked = threads.submit(here.post)
        assert process.stdout.readline() == "entered\n"
        process.send_signal(number)
        while listens(here):
            pass
        process.stdin.write("\n")
        process.stdin.flush()
        assert asked.result().status_code == 200
        said, told = process.communicate(timeout=60)
        assert (process.returncode, said, told) == (0, "ended\n", "")


ENDLESS = """
from tests.server.lexical import LexicalBackend
from samespace.server import serve

class Endless(LexicalBackend):
    def _wait(self, texts, stop):
        print("entered", flush=True)
        super()._wait(texts, stop)

backend = Endless()
if {loads}:
    backend.may_load.clear()
serve(backend, port=0, keys=("key-of-a-test",), on_listening=lambda url: print(url, flush=True))
print("ended", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_while_the_weights_are_being_loaded(number: signal.Signals) -> None:
    pipe, script = subprocess.PIPE, ENDLESS.format(loads=True)
    with subprocess.Popen([sys.executable, "-c", script], stdout=pipe, text=True) as process:
        assert process.stdout
        here = Served(process.stdout.readline().strip())
        while here.get("/health").status_code != 200:
            pass
        process.send_signal(number)
        said, _ = process.communicate(timeout=30)
        assert said == "ended\n"
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_once_when_told_twice(number: signal.Signals) -> None:
    pipe, script = subprocess.PIPE, ENDLESS.format(loads=False)
    with (
        ThreadPoolExecutor() as threads,
        subprocess.Popen(
            [sys.executable, "-c", script], stdout=pipe, stderr=pipe, text=True
        ) as process,
    ):
        assert process.stdout
        here = Served(process.stdout.readline().strip())
        while here.get("/ready").status_code != 200:
            pass
        threads.submit(here.post, input=[SLOW, "a"])
        assert process.stdout.readline() == "entered\n"
        process.send_signal(number)
        while listens(here):
            pass
        process.send_signal(number)
        said, told = process.communicate(timeout=30)
        assert (process.returncode, said, told) == (0, "ended\n", "")


def test_a_thread_may_be_the_server_s(backend: LexicalBackend) -> None:
    found: list[str] = []
    backend.fault = InvalidInput("ends it")
    refused: list[InvalidInput] = []

    def run() -> None:
        try:
            serve(backend, port=0, on_listening=found.append)
        except InvalidInput as error:
            refused.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert found[0].startswith("http://127.0.0.1:")
    assert [str(error) for error in refused] == ["ends it"]


def test_a_text_that_is_too_long_is_refused_or_cut() -> None:
    with served(LexicalBackend(context=6)) as here:
        refused = here.post(input=["a b", "a b c d e f"])
        assert code_of(refused) == (400, "INPUT_TOKEN_LIMIT_EXCEEDED")
        cut = here.post(input=["a b", "a b c d e f"], truncate=True)
        assert cut.json()["usage"]["total_tokens"] == 4 + 6
