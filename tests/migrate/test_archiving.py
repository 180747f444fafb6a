"""A backend that keeps vectors of full size: what is asked for, what is not, and what is answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest
from tests.audit.poisoning import documents
from tests.cli.running import Caller

from samespace import CachingBackend, JinaAPIBackend, QdrantStore, open_backend, open_store
from samespace.cli.archiving import archived_backend
from samespace.embedding import embed_chunks, embed_proving, provenance_of, uncached
from samespace.errors import BadResponse, EmbeddingError, InvalidInput
from samespace.guard import CANARY_TEXTS
from samespace.migrate import MigrationRun, plan
from samespace.migrate.archive import VectorArchive
from samespace.migrate.archiving import ArchivingBackend, DerivingBackend
from samespace.migrate.archiving_async import AsyncArchivingBackend
from samespace.protocols import (
    AnswersFromMemory,
    CountsTokens,
    Matrix,
    SupportsLateChunking,
    TakesCallsAtOnce,
    Usage,
)
from samespace.space import derive
from samespace.testing.backends import UNLIKE, V3, AwaitableBackend, RefusingBackend, TaskBackend
from samespace.testing.jina_server import JinaServer
from samespace.vectors import cosines

SMALL = replace(V3, dimensions=48)
SMALLER = replace(V3, dimensions=32)
KEY = "jina_test"
ROWS = documents(20)


class Neighbours(TaskBackend):
    """Embeds chunks by their whole document, and refuses a document with a word; can do all else too."""

    calls_at_once = 3
    closed = 0

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []

    def embed_chunks(self, documents: Sequence[Sequence[str]]) -> list[Matrix]:
        self.asked += [list(chunks) for chunks in documents]
        refused = [place for place, chunks in enumerate(documents) if "poison" in chunks]
        self._usage = Usage(sum(map(len, documents)))
        if refused:
            raise EmbeddingError("refused; shorten it", indices=refused)
        return [
            TaskBackend().embed_documents([f"{chunk} {' '.join(chunks)}" for chunk in chunks])
            for chunks in documents
        ]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[VectorArchive]:
    with VectorArchive(tmp_path / "archive", V3) as archive:
        yield archive


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(monkeypatch, capsys)


@pytest.fixture
def server() -> Iterator[JinaServer]:
    with JinaServer(keys=(KEY,)) as server:
        yield server


def test_what_is_kept_costs_nothing_at_any_size(tmp_path: Path) -> None:
    model = TaskBackend()
    for space, tokens in ((SMALL, 4), (SMALLER, 0), (V3, 0)):
        with VectorArchive(tmp_path, V3) as archive:
            backend = ArchivingBackend(model, archive, space)
            found = backend.embed_documents(["a", "b c", "a", "d"])
        assert backend.usage() == Usage(tokens)
        full = TaskBackend().embed_documents(["a", "b c", "a", "d"])
        wanted = derive(full, stored=V3, offered=space)
        assert found.dtype == np.float32
        assert cosines(found, wanted).min() > 1 - 1e-6
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert model.documents == ["a", "b c", "d"]


def test_whether_it_was_there_makes_no_difference(archive: VectorArchive) -> None:
    backend = ArchivingBackend(Neighbours(), archive, SMALL)
    for _ in range(2):
        made, kept = (backend.embed_documents(["a", "b"]) for _ in range(2))
        np.testing.assert_array_equal(made, kept)
    first, again = (embed_chunks(backend, [["a", "b"]])[0][0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert backend.embed_documents([]).shape == (0, 48)


def test_queries_and_the_canary_are_always_asked_for(archive: VectorArchive) -> None:
    model = TaskBackend()
    backend = ArchivingBackend(CachingBackend(model), archive, SMALL)
    assert isinstance(backend, AnswersFromMemory)
    backend.embed_documents(CANARY_TEXTS)
    for count, tokens in ((2, 1), (3, 0)):
        (_, usage), canary = embed_proving(backend, "documents", ["a"])
        assert (model.canaries, usage) == (len(CANARY_TEXTS) * count, Usage(tokens))
        assert canary.shape == (len(CANARY_TEXTS), 48)
    assert model.documents == ["a"]
    plain = ArchivingBackend(model, archive, SMALL)
    wanted = derive(TaskBackend().embed_queries(["q"]), stored=V3, offered=SMALL)
    np.testing.assert_array_equal(plain.embed_query("q"), wanted[0])
    plain.embed_queries(["q"])
    assert model.queries == ["q", "q"]
    assert not isinstance(uncached(backend), AnswersFromMemory)


def test_a_text_that_was_cut_says_so_ever_after(archive: VectorArchive) -> None:
    for tokens in (4, 0):
        backend = ArchivingBackend(TaskBackend(truncated=["far too long"]), archive, SMALL)
        backend.embed_documents(["a", "far too long"])
        assert backend.usage() == Usage(tokens, (1,))


def test_a_refusal_names_the_places_of_this_call_and_nothing_is_kept_of_it(
    archive: VectorArchive,
) -> None:
    backend = ArchivingBackend(RefusingBackend("poison", charged=4), archive, SMALL)
    backend.embed_documents(["a"])
    with pytest.raises(EmbeddingError) as caught:
        backend.embed_documents(["a", "poison", "b", "poison"])
    assert (caught.value.indices, backend.usage()) == ((1, 3), Usage(4))
    assert len(archive) == 1
    backend.embed_documents(["a", "b"])
    assert backend.usage() == Usage(1)


def test_a_bad_answer_is_not_kept(archive: VectorArchive) -> None:
    class Broken(TaskBackend):
        def embed_documents(self, texts: Sequence[str]) -> Matrix:
            return super().embed_documents(texts) * np.float32(np.nan)

    with pytest.raises(BadResponse):
        ArchivingBackend(Broken(), archive, SMALL).embed_documents(["a"])
    assert len(archive) == 0


def test_chunks_are_kept_by_all_of_their_document(archive: VectorArchive) -> None:
    model = Neighbours()
    backend = ArchivingBackend(model, archive, SMALL)
    first, usage = embed_chunks(backend, [["a", "b"], ["c"]])
    assert ([len(each) for each in first], usage) == ([2, 1], Usage(3))
    again, usage = embed_chunks(backend, [["c"], ["a", "b2"], ["a", "b"]])
    assert usage == Usage(2)
    np.testing.assert_array_equal(again[2], first[0])
    with pytest.raises(EmbeddingError) as caught:
        embed_chunks(backend, [["a", "b"], ["x"], ["poison"]])
    assert (caught.value.indices, backend.usage()) == ((2,), Usage(2))
    assert model.asked == [["a", "b"], ["c"], ["a", "b2"], ["x"], ["poison"]]
    backend.embed_documents(["a"])
    assert model.documents == ["a"]


def test_what_else_a_backend_can_do_is_handed_through(archive: VectorArchive) -> None:
    model = Neighbours()
    with ArchivingBackend(model, archive, SMALL) as backend:
        assert isinstance(backend, SupportsLateChunking)
        assert isinstance(backend, CountsTokens)
        assert isinstance(backend, TakesCallsAtOnce)
        assert backend.count_tokens(["abc"]) == [3]
        made = {"backend": "Neighbours", "full_size": "jina-embeddings-v3@64:retrieval.passage"}
        assert provenance_of(backend) == made
    assert model.closed == 1
    plain = ArchivingBackend(TaskBackend(), archive, SMALL)
    for protocol in (SupportsLateChunking, CountsTokens, TakesCallsAtOnce):
        assert not isinstance(plain, protocol)


def test_what_does_not_fit_is_refused_before_anything_is_asked(archive: VectorArchive) -> None:
    for space in (UNLIKE, replace(V3, task="separation"), replace(V3, dimensions=128)):
        with pytest.raises(InvalidInput, match="cannot be derived"):
            ArchivingBackend(TaskBackend(), archive, space)
    with pytest.raises(InvalidInput, match="another folder"):
        ArchivingBackend(TaskBackend(SMALL), archive, SMALLER)
    with pytest.raises(InvalidInput, match="lacks"):
        ArchivingBackend(object(), archive, SMALL)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="async"):
        ArchivingBackend(AwaitableBackend(TaskBackend()), archive, SMALL)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="sync twin"):
        AsyncArchivingBackend(TaskBackend(), archive, SMALL)
    model = TaskBackend()
    for texts in ("one string", ["a", None], ["a\x00"]):
        with pytest.raises(InvalidInput):
            ArchivingBackend(model, archive, SMALL).embed_documents(texts)  # type: ignore[arg-type]
    assert model.documents == []


async def test_the_async_one_is_the_same(archive: VectorArchive) -> None:
    model = TaskBackend()
    async with AsyncArchivingBackend(AwaitableBackend(model), archive, SMALL) as backend:
        await backend.embed_documents(["a", "b"])
        found = await backend.embed_documents(["b", "c"])
        assert (await backend.embed_query("q")).shape == (48,)
    assert (found.shape, model.documents) == ((2, 48), ["a", "b", "c"])
    sync = ArchivingBackend(TaskBackend(), archive, SMALL)
    np.testing.assert_array_equal(sync.embed_documents(["b", "c"]), found)


def test_it_says_what_it_keeps(archive: VectorArchive) -> None:
    backend = ArchivingBackend(Neighbours(), archive, SMALL)
    backend.embed_documents(["a", "b"])
    embed_chunks(backend, [["a", "c"]])
    assert backend.kept(["a", "c", "b", "a"]) == {"a", "b"}
    assert backend.keeps_chunks(["a", "c"])
    assert not backend.keeps_chunks(["a", "b"])


def test_one_that_only_derives_asks_every_time() -> None:
    model = TaskBackend()
    backend = DerivingBackend(model, SMALL)
    for _ in range(2):
        backend.embed_documents(["a b"])
        assert backend.usage() == Usage(2)
    assert model.documents == ["a b", "a b"]


def test_a_store_filled_through_one_holds_what_the_api_gives_at_that_size(
    server: JinaServer, tmp_path: Path, qdrant_local: None
) -> None:
    full = JinaAPIBackend(api_key=KEY, base_url=server.url)
    with VectorArchive(tmp_path, full.space) as archive, full:
        for dimensions in (256, 128):
            backend = ArchivingBackend(full, archive, replace(full.space, dimensions=dimensions))
            with QdrantStore(":memory:", collection="docs", backend=backend) as store:
                assert (store.upsert(ROWS).tokens > 0) is (dimensions == 256)
                stored = store.get([row.id for row in ROWS], with_vectors=True)
            plain = JinaAPIBackend(api_key=KEY, base_url=server.url, dimensions=dimensions)
            with plain:
                wanted = plain.embed_documents([row.text for row in stored])
            found = np.array([row.vector for row in stored], np.float32)
            assert cosines(found, wanted).min() > 1 - 1e-6
    assert {each["dimensions"] for each in server.requests} == {1024, 256, 128}
    assert (
        Counter(texts_sent(server))[ROWS[0].text] == 3
    )  # once for itself, once for each comparison


def texts_sent(server: JinaServer) -> list[str]:
    return [text for each in server.requests for text in each["input"]]


@pytest.mark.parametrize(
    ("specs", "asked"),
    [(("jina@256", "jina@128"), 1024), (("jina:jina-embeddings-v2-base-en",) * 2, None)],
)
def test_the_option_takes_a_spec_and_a_folder(
    server: JinaServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    specs: tuple[str, str],
    asked: int | None,
) -> None:
    monkeypatch.setenv("JINA_API_KEY", KEY)
    monkeypatch.setenv("JINA_BASE_URL", server.url)
    texts = [row.text for row in ROWS]
    for spec in specs:
        with archived_backend(spec, tmp_path, share=0.5) as backend:
            assert backend.space == open_backend(spec).space
            assert len(backend.embed_documents(texts)) == len(texts)
    assert sorted(texts_sent(server)) == sorted(texts)
    assert {each.get("dimensions") for each in server.requests} == {asked}


@pytest.mark.parametrize("dimensions", [None, 64])
def test_a_model_of_which_nobody_knows_the_full_size_is_kept_as_it_is(
    tmp_path: Path, dimensions: int | None
) -> None:
    with archived_backend("hashing", tmp_path / "kept", dimensions=dimensions) as backend:
        assert backend.embed_documents(["a"]).shape == (1, dimensions or 768)


def test_a_run_to_another_size_pays_for_nothing(tmp_path: Path, qdrant_local: None) -> None:
    model = TaskBackend()
    with (
        QdrantStore(":memory:", collection="docs", backend=TaskBackend(UNLIKE)) as store,
        VectorArchive(tmp_path, V3) as archive,
    ):
        store.upsert(ROWS)
        for space in (SMALLER, SMALL):
            backend = ArchivingBackend(model, archive, space)
            report = MigrationRun(store, backend, plan(store, backend)).run()
            assert (report.complete, report.embedded) == (True, len(ROWS))
            assert (report.tokens > 0) is (space == SMALLER)
    assert sorted(model.documents) == sorted(row.text for row in ROWS)


def test_the_command_keeps_them(
    server: JinaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Caller
) -> None:
    monkeypatch.setenv("JINA_API_KEY", KEY)
    monkeypatch.setenv("JINA_BASE_URL", server.url)
    place = ("--store", f"qdrant:{tmp_path / 'points'}")
    with open_store(place[1], collection="docs", backend="hashing@64") as store:
        store.upsert(ROWS)
    made, target = "", ("", "")
    for size, paid in ((128, True), (512, False)):
        made, target = str(tmp_path / f"{size}.json"), ("--backend", f"jina@{size}")
        assert call("migrate", "plan", *place, "-c", "docs", *target, "--out", made)[0] == 0
        kept = ("--keep-full", str(tmp_path / "kept"), "--json")
        code, shown, said = call("migrate", "run", "--plan", made, *place, *target, *kept)
        assert code == 0, said
        assert (orjson.loads(shown)["tokens"] > 0) is paid
    assert sorted(set(texts_sent(server)) - set(CANARY_TEXTS)) == sorted(row.text for row in ROWS)
    refused = call("migrate", "run", "--plan", made, *place, *target, "--keep-full", made)
    assert (refused[0], "cannot use the folder" in refused[2]) == (2, True)
