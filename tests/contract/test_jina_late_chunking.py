"""Late chunking, cut texts and counted tokens: both clients on the contract server."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.contract.calling import Caller
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from samespace import AsyncJinaAPIBackend, JinaAPIBackend, Limits
from samespace.backends.http.tokens import TokenCounter
from samespace.backends.jina_api import late
from samespace.errors import AuthenticationFailed, BadResponse, InvalidInput, TokenLimitExceeded
from samespace.models import MODELS
from samespace.protocols import CountsTokens, Matrix, Usage
from samespace.testing.jina_server import TOKENS_TOGETHER, JinaServer, error_body
from samespace.testing.jina_vectors import LexicalModel, count_tokens, first_tokens

KEY = "jina_sentinel_4711"
V3 = "jina-embeddings-v3"
PASSAGE = "retrieval.passage"
SHIP = [
    "The lighthouse keeper counted seven ships.",
    "Then the fog came in.",
    "None of them was seen again that night.",
]
BREAD = ["The baker opens at six.", "His bread is ready at seven."]


class Make(Protocol):
    def __call__(self, server: JinaServer, **options: Any) -> Caller: ...


@pytest.fixture(autouse=True)
def no_tokenizer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever this machine has fetched: none of it is found."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def server() -> Iterator[JinaServer]:
    with JinaServer(keys=(KEY,)) as server:
        yield server


@pytest.fixture(params=[JinaAPIBackend, AsyncJinaAPIBackend])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    with contextlib.ExitStack() as made:

        def make(server: JinaServer, **options: Any) -> Caller:
            given = {"api_key": KEY, "base_url": server.url, "retry_wait": 0, **options}
            caller = Caller(request.param(**given))
            made.callback(caller.close)
            return caller

        yield make


def seen_together(chunks: Sequence[str]) -> Matrix:
    return LexicalModel(MODELS[V3]).embed(chunks, task=PASSAGE, dimensions=1024, late_chunking=True)


def tokens_of(request: dict[str, Any]) -> int:
    return sum(count_tokens(text) for text in request["input"])


# Late chunking


def test_a_document_is_one_request_whose_chunks_see_one_another(
    make: Make, server: JinaServer
) -> None:
    backend = make(server)
    found = backend.chunks([SHIP, BREAD])
    for vectors, chunks in zip(found, (SHIP, BREAD), strict=True):
        assert np.array_equal(vectors, seen_together(chunks))
    asked = sorted((body["input"] for body in server.requests), key=len)
    assert asked == [BREAD, SHIP]
    assert all(body["late_chunking"] for body in server.requests)
    assert {body["task"] for body in server.requests} == {PASSAGE}
    assert backend.usage().tokens == sum(map(count_tokens, SHIP + BREAD))


def test_neither_documents_nor_queries_are_chunked_late(make: Make, server: JinaServer) -> None:
    backend = make(server)
    backend.documents(SHIP)
    backend.run("embed_queries", SHIP)
    backend.run("embed_query", SHIP[0])
    assert not [body for body in server.requests if "late_chunking" in body]


def long_document(tokens: int, *, words: int = 200) -> list[str]:
    """Chunks of ``words`` words each, all different."""
    count = tokens // (words + 2)
    return [
        " ".join(f"word{(chunk * 7 + i) % 900:03}" for i in range(words)) for chunk in range(count)
    ]


def test_a_document_beyond_the_context_goes_in_windows(make: Make, server: JinaServer) -> None:
    chunks = long_document(50_000)
    assert sum(map(count_tokens, chunks)) > 49_000
    (found,) = make(server).chunks([chunks])
    assert {status for _, status in server.statuses} == {200}
    assert all(tokens_of(body) <= TOKENS_TOGETHER for body in server.requests)
    whole = seen_together(chunks)
    kept = 0
    for body in server.requests:
        first = chunks.index(body["input"][0])
        assert body["input"] == chunks[first : first + len(body["input"])]
        context = body["input"][: kept - first]
        assert first == 0 or sum(map(count_tokens, context)) >= late.OVERLAP
        stop = first + len(body["input"])
        # Inside a window nothing differs from a context without end; its last chunk lacks the next.
        assert np.allclose(found[kept : stop - 1], whole[kept : stop - 1], atol=1e-6)
        kept = stop
    assert kept == len(chunks)


def test_a_document_that_is_denser_than_estimated_gets_smaller_windows(make: Make) -> None:
    chunks = ["a b c d e f g h"] * 30
    with JinaServer(keys=(KEY,), context=100) as server:
        (found,) = make(server).chunks([chunks])
        answered = [status for _, status in server.statuses]
    assert found.shape == (30, 1024)
    assert set(answered) <= {200, 400}


def test_what_the_api_counted_is_remembered_from_document_to_document(
    make: Make, server: JinaServer
) -> None:
    chunks = [f"{number} " + "a " * 340 for number in range(40)]
    backend = make(server)
    backend.chunks([chunks])
    seen = len(server.statuses)
    for _ in range(10):
        backend.chunks([chunks])
    assert 400 in {status for _, status in server.statuses[:seen]}
    assert {status for _, status in server.statuses[seen:]} == {200}


def test_a_document_with_a_bad_vector_is_named(make: Make, server: JinaServer) -> None:
    def emptied(answer: dict[str, Any]) -> dict[str, Any]:
        zero = base64.b64encode(bytes(4 * 1024)).decode()
        data = [
            {**each, "embedding": zero} if each["index"] == 2 else each for each in answer["data"]
        ]
        return {**answer, "data": data}

    backend = make(server, limits=Limits(in_flight=1))
    server.change_next(emptied, skip=1)
    with pytest.raises(BadResponse, match="document 1") as caught:
        backend.chunks([BREAD, SHIP, BREAD])
    assert caught.value.indices == (1,)


def test_documents_with_a_chunk_beyond_the_context_are_named(make: Make) -> None:
    long = ["short", "word " * 120, "short"]
    with JinaServer(keys=(KEY,), context=100) as server:
        backend = make(server, on_too_long="truncate")
        with pytest.raises(TokenLimitExceeded, match="document 1") as caught:
            backend.chunks([SHIP, long, BREAD, long])
    assert caught.value.indices == (1, 3)


def test_a_document_that_is_plainly_too_long_is_found_before_others_are_paid_for(
    make: Make, server: JinaServer
) -> None:
    backend = make(server)
    with pytest.raises(TokenLimitExceeded) as caught:
        backend.chunks([SHIP, ["word " * 9000], BREAD])
    assert caught.value.indices == (1,)
    assert backend.usage() == Usage(0)


@pytest.mark.parametrize("model", sorted(name for name in MODELS if not MODELS[name].late_chunking))
def test_a_model_without_late_chunking_names_those_that_have_it(
    server: JinaServer, model: str
) -> None:
    task = next((task for task in MODELS[model].tasks if task.endswith(".passage")), None)
    with (
        JinaAPIBackend(model, task=task, api_key=KEY, base_url=server.url) as backend,
        pytest.raises(InvalidInput, match="jina-embeddings-v3, jina-embeddings-v4"),
    ):
        backend.embed_chunks([SHIP])
    assert server.requests == []


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        (["one string"], "document 0"),
        ([SHIP, ["a", " "]], "document 1: text 1 is blank"),
        ([SHIP, ["a", 3]], "document 1: text 1 is 3"),
    ],
)
def test_a_chunk_that_cannot_be_embedded_is_named(
    make: Make, server: JinaServer, documents: Any, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        make(server).chunks(documents)
    assert server.requests == []


def test_a_refused_key_ends_the_call(make: Make, server: JinaServer) -> None:
    server.fail_next(401, error_body("AUTH_INVALID_API_KEY"), times=3)
    with pytest.raises(AuthenticationFailed):
        make(server).chunks([SHIP, BREAD, SHIP])


@given(st.lists(st.integers(1, 900), min_size=1, max_size=60), st.integers(900, 3000))
def test_windows_cover_each_chunk_once_and_fit(counts: list[int], room: int) -> None:
    start = 0
    while start < len(counts):
        window = late.window_from(start, counts, room=room, overlap=late.OVERLAP)
        assert window.first <= window.start == start < window.stop
        assert sum(counts[window.first : window.stop]) <= room
        before = sum(counts[window.first : start])
        more = counts[window.first - 1] if window.first else 0
        assert not window.first or before >= late.OVERLAP or before + more + counts[start] > room
        start = window.stop
    assert start == len(counts)


# Texts that are too long


def test_a_text_is_cut_only_when_asked_for_and_only_once_it_was_refused(make: Make) -> None:
    texts = [*SHIP, "word " * 30, *BREAD, "word " * 40]
    with JinaServer(keys=(KEY,), context=20) as server:
        backend = make(server, on_too_long="truncate")
        found = backend.documents(texts)
        assert backend.usage().truncated == (3, 6)
        cut = [body["input"] for body in server.requests if body["truncate"]]
        assert cut == [["word " * 30], ["word " * 40]]
        assert backend.usage().tokens == sum(min(count_tokens(text), 20) for text in texts)
        backend.documents(SHIP)
        assert backend.usage().truncated == ()
    short = [first_tokens(text, 20) for text in texts]
    expected = LexicalModel(MODELS[V3]).embed(short, task=PASSAGE, dimensions=1024)
    assert np.allclose(found, expected, atol=1e-6)


def test_a_query_is_cut_too_and_said_to_be(make: Make) -> None:
    with JinaServer(keys=(KEY,), context=20) as server:
        backend = make(server, on_too_long="truncate")
        backend.run("embed_query", "word " * 30)
        assert backend.usage().truncated == (0,)
        assert backend.backend.provenance()["truncation"] == "reported"


@pytest.mark.parametrize("bad", [1, 2, 5])
def test_texts_that_the_api_refuses_are_found_by_halving(make: Make, bad: int) -> None:
    texts = [f"text {number}" for number in range(64)]
    places = [7 * number + 3 for number in range(bad)]
    for place in places:
        texts[place] = "word " * 30
    with JinaServer(keys=(KEY,), context=20) as server:
        backend = make(server, limits=Limits(in_flight=1))
        with pytest.raises(TokenLimitExceeded) as caught:
            backend.documents(texts)
        assert caught.value.indices == tuple(places)
        assert len(server.requests) - 1 <= 2 * bad * 6


# Tokens


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A tokenizer of words, with two special tokens, that would cut what is long."""
    made = Tokenizer(models.WordLevel({"[U]": 0, "<s>": 1, "</s>": 2}, unk_token="[U]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    made.enable_truncation(5)
    folder = tmp_path / "hub" / f"models--jinaai--{V3}" / "snapshots" / "ab036b02"
    folder.mkdir(parents=True)
    made.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("given", ["file", "folder", "cache"])
def test_tokens_are_counted_by_the_models_own_tokenizer(
    make: Make, server: JinaServer, tokenizer: Path, given: str
) -> None:
    options: dict[str, dict[str, Any]] = {
        "file": {"tokenizer": str(tokenizer / "tokenizer.json")},
        "folder": {"tokenizer": tokenizer},
    }
    backend = make(server, **options.get(given, {}))
    assert backend.run("count_tokens", ["one", "one two " * 50]) == [3, 102]
    assert isinstance(backend.backend, CountsTokens)
    assert np.array_equal(
        backend.documents(SHIP),
        LexicalModel(MODELS[V3]).embed(SHIP, task=PASSAGE, dimensions=1024),
    )


def test_a_text_in_which_a_tokenizer_sees_nothing_counts(tmp_path: Path) -> None:
    made = Tokenizer(models.WordLevel({"[U]": 0}, unk_token="[U]"))
    made.normalizer = normalizers.Replace("\u200b", "")
    made.save(str(tmp_path / "tokenizer.json"))
    assert TokenCounter(V3, tmp_path).counted(["\u200b", "word"]) == [1, 1]


def test_without_a_tokenizer_tokens_are_estimated_high(make: Make, server: JinaServer) -> None:
    texts = [*SHIP, *BREAD]
    counts = make(server).run("count_tokens", texts)
    assert all(count >= count_tokens(text) for count, text in zip(counts, texts, strict=True))
    assert make(server).run("count_tokens", []) == []


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InvalidInput, match="cannot be read"):
        JinaAPIBackend(api_key=KEY, tokenizer=tmp_path)


def test_an_estimate_follows_what_the_api_counts_up_at_once_and_down_slowly() -> None:
    counter = TokenCounter(V3, None)
    counter.learn(1000, 2000)
    assert 2000 < counter.likely(1000) <= 2101
    counter.learn(1000, 500)
    assert counter.likely(1000) > 2000
    for _ in range(1000):
        counter.learn(1000, 500)
    assert counter.likely(1000) == 667
    assert counter.safe(1000) == 1000
    counter.learn(1000, 10**9)
    assert counter.likely(1000) == 3000


def test_a_short_answer_teaches_nothing() -> None:
    counter = TokenCounter(V3, None)
    counter.learn(3, 9)
    assert counter.likely(100) == 100
