"""The local backend on a small checkpoint: real classes, files and tokenizer, random weights."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.local.naive import Naive, counted, engine_of, farthest
from tests.models.paragraphs import paragraphs

from samespace import open_backend
from samespace.backends.computing import THREADS, Stopped
from samespace.backends.jina_local import attention
from samespace.backends.jina_local.client import JinaLocalBackend
from samespace.backends.jina_local.client_async import AsyncJinaLocalBackend
from samespace.errors import EmbeddingError, InvalidInput, TokenLimitExceeded
from samespace.models import MODELS
from samespace.opening import full_size
from samespace.space import EmbeddingSpace

TASKS = (*MODELS["jina-embeddings-v3"].tasks, None)
TEXTS = [*paragraphs(40), "a", "two words", " ".join(paragraphs(60)[40:])]


# What the vectors are


def test_documents_and_queries_are_what_their_adapters_make_of_them(
    checkpoint: Path, local: JinaLocalBackend, naive: Naive
) -> None:
    documents, queries = local.embed_documents(TEXTS), local.embed_queries(TEXTS)
    assert farthest(documents, naive.vectors(TEXTS)) <= 1e-5
    assert farthest(queries, Naive(checkpoint, "retrieval.query").vectors(TEXTS)) <= 1e-5
    assert (np.sum(documents * queries, axis=1) < 0.99).all()
    assert farthest(local.embed_query(TEXTS[0])[None], queries[:1]) <= 1e-5


def test_each_task_and_none_has_vectors_of_its_own(checkpoint: Path) -> None:
    texts = TEXTS[:5]
    found = []
    for task in TASKS:
        if task == "retrieval.query":  # only as the queries' of passages
            found.append(JinaLocalBackend(checkpoint, device="cpu").embed_queries(texts))
        else:
            backend = JinaLocalBackend(checkpoint, task=task, device="cpu", weight_sets=1)
            found.append(backend.embed_documents(texts))
            assert farthest(found[-1], Naive(checkpoint, task).vectors(texts)) <= 1e-5
    for number, vectors in enumerate(found):
        for other in found[:number]:
            assert (np.sum(vectors * other, axis=1) < 0.995).all()


@pytest.mark.parametrize("way", ["padded", "segments"])
def test_together_is_as_one_by_one(local: JinaLocalBackend, way: attention.Way) -> None:
    engine = engine_of(local)
    model = engine.weights.of("retrieval.passage")
    alone = np.concatenate([local.embed_documents([text]) for text in TEXTS])
    before, engine.weights.way = engine.weights.way, way
    model.set_attn_implementation(attention.NAMES[way])
    try:
        assert farthest(local.embed_documents(TEXTS), alone) <= 1e-4
    finally:
        engine.weights.way = before
        model.set_attn_implementation(attention.NAMES[before])


def test_a_smaller_size_is_the_beginning_normalised_again(
    checkpoint: Path, local: JinaLocalBackend
) -> None:
    whole = local.embed_documents(TEXTS)[:, :64]
    small = JinaLocalBackend(checkpoint, dimensions=64, device="cpu").embed_documents(TEXTS)
    assert small.shape == (len(TEXTS), 64)
    assert farthest(small, whole / np.linalg.norm(whole, axis=1, keepdims=True)) <= 1e-6


def test_a_batch_is_no_larger_than_its_budget(local: JinaLocalBackend) -> None:
    tokens = local.count_tokens(TEXTS)
    with counted(engine_of(local)) as batches:
        local.embed_documents(TEXTS)
    assert sum(batches) == sum(tokens) == local.usage().tokens
    assert max(batches) <= max(2000, *tokens)
    assert len(batches) <= 2 + sum(tokens) // 1500


def test_positions_are_as_exact_in_half_precision(
    checkpoint: Path, local: JinaLocalBackend
) -> None:
    half = JinaLocalBackend(checkpoint, device="cpu", dtype="bfloat16")
    weights, exact = (engine_of(each).weights.of("retrieval.passage") for each in (half, local))
    assert {weight.dtype for weight in weights.parameters()} == {torch.bfloat16}
    assert dict(weights.named_buffers()).keys() == dict(exact.named_buffers()).keys()
    for name, buffer in exact.named_buffers():
        assert torch.equal(weights.get_buffer(name), buffer)
        assert weights.get_buffer(name).dtype == buffer.dtype
    assert np.sum(half.embed_documents(TEXTS) * local.embed_documents(TEXTS), axis=1).min() > 0.999


# Late chunking


def test_chunks_see_their_document_and_no_other(local: JinaLocalBackend, naive: Naive) -> None:
    documents = [TEXTS[:7], TEXTS[7:8], TEXTS[8:30]]
    found = local.embed_chunks(documents)
    for chunks, vectors in zip(documents, found, strict=True):
        assert farthest(vectors, naive.late(chunks)) <= 1e-5
    assert farthest(found[1], local.embed_documents(TEXTS[7:8])) <= 1e-5
    assert farthest(found[0], local.embed_documents(TEXTS[:7])) > 1e-3


def test_a_long_document_goes_through_in_windows(
    local: JinaLocalBackend, naive: Naive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samespace.backends.jina_local.engine.LIMIT", 1000)
    monkeypatch.setattr("samespace.backends.jina_local.engine.OVERLAP", 100)
    chunks = [*paragraphs(70)[10:], " ".join(paragraphs(30))]
    with counted(engine_of(local)) as batches:
        found = local.embed_chunks([chunks, chunks[:3]])
    windows = -(-sum(local.count_tokens(chunks)) // 900)
    assert windows >= 5
    assert max(batches) <= 2000
    assert farthest(found[0], naive.late(chunks, size=1000, overlap=100)) <= 1e-5
    assert farthest(found[1], naive.late(chunks[:3])) <= 1e-5


def test_a_window_that_would_add_nothing_is_not_made(
    local: JinaLocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = paragraphs(20)
    with counted(engine_of(local)):
        local.embed_chunks([chunks])
    tokens = local.usage().tokens
    monkeypatch.setattr("samespace.backends.jina_local.engine.LIMIT", tokens)
    with counted(engine_of(local)) as batches:
        local.embed_chunks([chunks])
    assert batches == [tokens]


def test_documents_are_made_tokens_of_beside_the_model(
    local: JinaLocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [TEXTS[:5], [], TEXTS[5:6], TEXTS[6:8], TEXTS[8:9]]
    alone = [local.embed_chunks([chunks])[0] for chunks in documents]
    engine, threads = engine_of(local), list[str]()
    bare = engine.tokens.bare

    def noting(texts: list[str]) -> Any:
        threads.append(threading.current_thread().name)
        return bare(texts)

    monkeypatch.setattr("samespace.backends.jina_local.engine.CHUNKS", 3)
    monkeypatch.setattr(engine.tokens, "bare", noting)
    found = local.embed_chunks(documents)
    assert len(threads) == len(documents)
    assert all(name.startswith("samespace-tokens") for name in threads)
    for one, together in zip(alone, found, strict=True):
        assert one.shape == together.shape
        assert np.allclose(one, together, atol=1e-4)


def test_documents_with_a_chunk_without_tokens_are_named(copy: Path) -> None:
    file = copy / "tokenizer.json"
    said = json.loads(file.read_text())
    normalizer = {"type": "Replace", "pattern": {"String": "\u200b"}, "content": ""}
    file.write_text(json.dumps({**said, "normalizer": normalizer}))
    backend, documents = JinaLocalBackend(copy, device="cpu"), [["a", "\u200b"], ["b"], ["\u200b"]]
    with counted(engine_of(backend)) as batches, pytest.raises(EmbeddingError) as refused:
        backend.embed_chunks(documents)
    assert "document 0 (and 1 more): text 1 has nothing that the model knows" in str(refused.value)
    assert refused.value.indices == (0, 2)
    assert isinstance(refused.value, InvalidInput)  # a server's client is told
    assert batches == []


# The limit


def words(local: JinaLocalBackend, tokens: int) -> str:
    """A text of so many tokens, prompt and special ones included."""
    without = tokens - local.count_tokens(["a"])[0]
    return "a" + " a" * without


def test_the_limit_includes_prompt_and_special_tokens(shallow: Path) -> None:
    local = JinaLocalBackend(shallow, device="cpu")
    texts = {tokens: words(local, tokens) for tokens in (8191, 8192, 8193)}
    assert local.count_tokens(list(texts.values())) == list(texts)
    with counted(engine_of(local)) as batches, pytest.raises(TokenLimitExceeded) as refused:
        local.embed_documents(["a", texts[8193], texts[8192], texts[8193] + " a"])
    assert refused.value.indices == (1, 3)
    assert batches == []
    with pytest.raises(TokenLimitExceeded):
        local.embed_query(texts[8193] + " a a")
    found = local.embed_documents([texts[8191], texts[8192]])
    assert found.shape == (2, 1024)


def test_the_last_of_many_texts_is_refused_before_the_first_is_embedded(
    local: JinaLocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["a", "b", "c", "d", "e", "a" + " a" * 60, "f", "a" + " a" * 90]
    monkeypatch.setattr("samespace.backends.jina_local.engine.SLICE", 2)
    monkeypatch.setattr("samespace.backends.jina_local.engine.LIMIT", 60)
    with counted(engine_of(local)) as batches, pytest.raises(TokenLimitExceeded) as refused:
        local.embed_documents(texts)
    assert refused.value.indices == (5, 7)
    assert batches == []


def test_what_is_cut_is_named(shallow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("engine", "tokens"):
        monkeypatch.setattr(f"samespace.backends.jina_local.{part}.LIMIT", 60)
    cutting = JinaLocalBackend(shallow, device="cpu", on_too_long="truncate")
    long = words(cutting, 60)
    found = cutting.embed_documents(["short", long + " b c d", long])
    assert cutting.usage().truncated == (1,)
    assert cutting.provenance()["truncation"] == "reported"
    assert farthest(found[1], found[2]) <= 1e-5


@pytest.mark.parametrize("size", [200_000, pytest.param(10_000_000, marks=pytest.mark.soak)])
def test_megabytes_of_text_are_refused_and_not_cut(local: JinaLocalBackend, size: int) -> None:
    with counted(engine_of(local)) as batches:
        with pytest.raises(TokenLimitExceeded, match="nothing was truncated"):
            local.embed_documents(["a b " * (size // 4)])
        assert batches == []


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_five_whole_windows_are_what_the_paper_s_code_makes(shallow: Path) -> None:
    local = JinaLocalBackend(shallow, device="cpu")
    chunks = [text + " a" * 300 for text in paragraphs(110)]
    with counted(engine_of(local)) as batches:
        (found,) = local.embed_chunks([chunks])
    assert batches[:4] == [8192] * 4
    assert len(batches) == 5
    assert farthest(found, Naive(shallow, "retrieval.passage").late(chunks)) <= 1e-5


# What is refused


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("jina-embeddings-v2-base-en", "JinaAPIBackend"),
        ("jina-embeddings-v4", "JinaAPIBackend"),
        ("no/such/folder", "neither jina-embeddings-v3 nor a folder"),
        (5, "pass 'jina-embeddings-v3' or a folder"),
    ],
)
def test_another_model_is_refused_with_what_to_use_instead(given: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        JinaLocalBackend(given)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device": "cuda:99"}, "device is 'cuda:99'"),
        ({"device": 7.5}, "device is 7.5"),
        ({"device": "meta"}, "device is 'meta'"),
        ({"device": "hpu"}, "device is 'hpu'"),
        ({"dtype": "int8"}, "dtype is 'int8'; pass float32, bfloat16, float16"),
        ({"token_budget": 0}, "token_budget is 0"),
        ({"weight_sets": "2"}, "weight_sets is '2'"),
        ({"on_too_long": "cut"}, 'on_too_long is \'cut\'; pass "reject" or "truncate"'),
        ({"dimensions": 2000}, "2000"),
        ({"task": "clusters"}, "clusters"),
        ({"revision": "abc"}, "revision is of the hub's weights"),
    ],
)
def test_wrong_options_are_refused(checkpoint: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        JinaLocalBackend(checkpoint, **options)


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def test_a_folder_that_lacks_something_is_refused_at_once(copy: Path) -> None:
    (copy / "text_matching" / "adapter_model.safetensors").unlink()
    with pytest.raises(InvalidInput, match="lacks text_matching/adapter_model.safetensors"):
        JinaLocalBackend(copy)


def test_the_older_repository_is_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "xlm-roberta"}))
    with pytest.raises(InvalidInput, match="code of their own, which is never run"):
        JinaLocalBackend(copy)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"use_dora": True}, "says use_dora True"),
        ({"r": 0}, "no low-rank adapter"),
        ({"peft_type": "IA3"}, "no low-rank adapter"),
        ({"lora_alpha": None}, "lora_alpha"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
    ],
)
def test_an_adapter_of_another_kind_is_refused(
    copy: Path, change: dict[str, Any], says: str
) -> None:
    file = copy / "retrieval_passage" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(InvalidInput, match=says):
        JinaLocalBackend(copy, device="cpu").embed_documents(["text"])


def test_weights_that_are_not_there_are_not_made_up(copy: Path) -> None:
    file = copy / "model.safetensors"
    tensors = load_file(file)
    del tensors[next(name for name in tensors if name.endswith("layers.1.mlp.fc1.weight"))]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(InvalidInput, match="lacks 1 weights of the model"):
        JinaLocalBackend(copy, device="cpu").embed_documents(["text"])


@pytest.mark.parametrize(
    ("end", "space"),
    [
        ("", "jina-embeddings-v3@1024:retrieval.passage"),
        ("@256", "jina-embeddings-v3@256:retrieval.passage"),
        ("@768:classification", "jina-embeddings-v3@768:classification"),
        (":text-matching", "jina-embeddings-v3@1024:text-matching"),
        (":generic", "jina-embeddings-v3@1024"),
    ],
)
def test_a_spec_names_a_folder(checkpoint: Path, end: str, space: str) -> None:
    assert str(open_backend(f"local:{checkpoint}{end}").space) == space
    of_the_hub = open_backend(f"local:jina-embeddings-v3{end}")  # which is asked for nothing yet
    assert str(of_the_hub.space) == space
    full = full_size(f"local:{checkpoint}{end}", EmbeddingSpace.parse(space))
    assert str(open_backend(full).space) == space.replace("256", "1024").replace("768", "1024")


def test_a_spec_may_be_a_word() -> None:
    assert str(open_backend("local").space) == "jina-embeddings-v3@1024:retrieval.passage"
    assert open_backend("local@256").space == open_backend("local", dimensions=256).space


def test_a_spec_that_cannot_be_is_refused(checkpoint: Path) -> None:
    for spec, says in {
        f"local:{checkpoint}@2000": "2000",
        f"local:{checkpoint}:clusters": "clusters",
        "local:nowhere@768": "'nowhere' is neither jina-embeddings-v3 nor a folder",
    }.items():
        with pytest.raises(InvalidInput, match=says):
            open_backend(spec)
    with pytest.raises(InvalidInput, match="backend local has no rate limits"):
        open_backend(f"local:{checkpoint}", share=0.5)


# How it is run


def test_the_licence_is_said_when_weights_are_loaded(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "samespace"):
        JinaLocalBackend(checkpoint, device="cpu").embed_query("text")
    said = [record.getMessage() for record in caplog.records if "CC BY-NC 4.0" in record.message]
    assert len(said) == 1


def test_no_more_weight_sets_are_kept_than_asked_for(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loads = {1: 4, 2: 2}
    for kept, expected in loads.items():
        caplog.clear()
        backend = JinaLocalBackend(checkpoint, device="cpu", weight_sets=kept)
        with caplog.at_level(logging.INFO, "samespace"):
            for _ in range(2):
                backend.embed_documents(["text"])
                backend.embed_query("text")
        assert len(caplog.records) == expected


async def test_nothing_is_computed_on_the_event_loop(
    checkpoint: Path, local: JinaLocalBackend
) -> None:
    backend, threads = AsyncJinaLocalBackend(checkpoint, device="cpu"), set[int]()
    engine = backend._model.loaded.engine
    forward = engine._forward

    def noting(batch: Any, held: Any) -> Any:
        threads.add(threading.get_ident())
        return forward(batch, held)

    engine._forward = noting  # type: ignore[method-assign]
    found = await asyncio.gather(backend.embed_documents(TEXTS), backend.embed_queries(TEXTS[:2]))
    assert farthest(found[0], local.embed_documents(TEXTS)) <= 1e-4
    assert farthest(found[1], local.embed_queries(TEXTS[:2])) <= 1e-4
    assert threads
    assert threading.get_ident() not in threads


async def test_a_query_waits_for_no_documents(checkpoint: Path) -> None:
    backend = AsyncJinaLocalBackend(checkpoint, device="cpu")
    await backend.load()
    engine, go_on = backend._model.loaded.engine, threading.Event()
    texts = engine.texts

    def waiting(*given: Any, **options: Any) -> Any:
        go_on.wait()
        return texts(*given, **options)

    engine.texts = waiting  # type: ignore[method-assign]
    tasks = [asyncio.create_task(backend.embed_documents(["text"])) for _ in range(50)]
    found = await backend.embed_query("text")
    assert found.shape == (1024,)
    assert not any(task.done() for task in tasks)
    go_on.set()
    assert len(await asyncio.gather(*tasks)) == 50


async def test_a_task_that_is_cancelled_computes_no_further(checkpoint: Path) -> None:
    backend = AsyncJinaLocalBackend(checkpoint, device="cpu", token_budget=1)
    await backend.load()
    engine = backend._model.loaded.engine
    began, go_on = threading.Event(), threading.Event()
    forward, batches = engine._forward, list[int]()

    def waiting(batch: Any, held: Any) -> Any:
        batches.append(len(batch))
        began.set()
        go_on.wait()
        return forward(batch, held)

    engine._forward = waiting  # type: ignore[method-assign]
    task = asyncio.create_task(backend.embed_documents(TEXTS))
    await asyncio.to_thread(began.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await asyncio.to_thread(THREADS.end)
    assert len(batches) == 1


@pytest.mark.parametrize("cuts", [False, True])
def test_nothing_is_made_tokens_of_for_a_caller_that_is_gone(
    local: JinaLocalBackend, monkeypatch: pytest.MonkeyPatch, cuts: bool
) -> None:
    engine, made, gone = engine_of(local), list[int](), threading.Event()
    of = engine.tokens.of

    def noting(texts: list[str], prompt: str) -> Any:
        made.append(len(texts))
        gone.set()
        return of(texts, prompt)

    def has_left() -> bool:
        return gone.wait(10)

    monkeypatch.setattr("samespace.backends.jina_local.engine.SLICE", 2)
    monkeypatch.setattr(engine.tokens, "of", noting)
    with pytest.raises(Stopped), counted(engine) as batches:
        engine.texts(TEXTS[:20], "retrieval.passage", cuts=cuts, stop=has_left)
    assert made == [2]
    assert batches == []


def test_what_does_not_need_it_imports_no_torch() -> None:
    script = (
        "import sys, samespace; samespace.JinaAPIBackend; samespace.open_store; samespace.HashingBackend; "
        "import samespace.cli; sys.exit(bool({'torch', 'transformers'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
