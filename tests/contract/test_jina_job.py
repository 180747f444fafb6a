"""An ingestion job on Jina's API: what is asked for when documents are chunked late."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from operator import itemgetter
from typing import Any

import pytest

from samespace import (
    AsyncJinaAPIBackend,
    AsyncPgVectorStore,
    Document,
    IngestJob,
    IngestReport,
    JinaAPIBackend,
    PgVectorStore,
    TextChunker,
)
from samespace.errors import QuotaExhausted
from samespace.guard import CANARY_TEXTS
from samespace.testing.jina_server import TOKENS_TOGETHER, JinaServer, error_body
from samespace.testing.jina_vectors import count_tokens

KEY = "jina_test"
KINDS = [(PgVectorStore, JinaAPIBackend), (AsyncPgVectorStore, AsyncJinaAPIBackend)]
SHORT = [
    Document("ship", "The keeper counted seven ships. Then the fog came in. He saw none again."),
    Document("bread", "The baker opens at six. His bread is ready at seven."),
]
QUESTION = "When is the bread ready?"
LONG = Document(
    "long", " ".join(f"Sentence {n} says that word{n % 900:03} is here." for n in range(6_300))
)


class Place:
    """One collection, and jobs into it, each with a store of its own."""

    def __init__(self, conninfo: str, schema: str, server: JinaServer, kinds: Any) -> None:
        self.opened = (conninfo, {"schema": schema, "registry": f"{schema}_registry"})
        self.account: Any = {"api_key": KEY, "base_url": server.url, "retry_wait": 0}
        self.server = server
        self.kinds = kinds
        self.read = 0

    @contextmanager
    def open(self) -> Iterator[PgVectorStore]:
        with JinaAPIBackend(**self.account) as backend, self._made(PgVectorStore, backend) as store:
            yield store

    def _made(self, store: Any, backend: Any) -> Any:
        conninfo, options = self.opened
        return store(conninfo, collection="jobs", backend=backend, **options)

    def ingest(self, documents: list[Document]) -> IngestReport:
        store, backend = self.kinds
        with ExitStack() as open:
            used = backend(**self.account)
            made = self._made(store, used)
            if not store.is_async:  # the others are closed by the job, in its loop
                open.enter_context(used)
                open.enter_context(made)
            chunker = TextChunker(max_characters=160, markdown=False)
            return IngestJob(made, documents, chunker=chunker, late_chunking=True).run()

    def requests(self, *, late: bool) -> list[list[str]]:
        """The inputs of requests since this was asked last."""
        bodies = self.server.requests[self.read :]
        self.read += len(bodies)
        return [body["input"] for body in bodies if body.get("late_chunking", False) == late]

    def chunks(self, parent: str) -> list[Document]:
        with self.open() as store:
            rows = [(row.parent.ordinal, row) for row in store.scan() if row.parent]
        return [row for _, row in sorted(rows, key=itemgetter(0)) if row.id.startswith(parent)]


@pytest.fixture
def server() -> Iterator[JinaServer]:
    with JinaServer(keys=(KEY,)) as server:
        yield server


@pytest.fixture(params=KINDS, ids=["sync", "async"])
def place(request: pytest.FixtureRequest, postgres: str, schema: str, server: JinaServer) -> Place:
    return Place(postgres, schema, server, request.param)


def texts(chunks: list[Document]) -> list[str]:
    return [chunk.text for chunk in chunks]


def test_each_document_is_embedded_in_requests_of_its_own(place: Place) -> None:
    assert count_tokens(LONG.text) > 50_000
    place.ingest([*SHORT, LONG])
    asked = place.requests(late=True)
    for document in (*SHORT, LONG):
        chunks = place.chunks(document.id)
        assert "".join(texts(chunks)) == document.text
        assert [chunk.parent.span for chunk in chunks if chunk.parent] == [
            span_of(chunks, place) for place in range(len(chunks))
        ]
        own = [each for each in asked if each[0] in texts(chunks)]
        assert all(each == part(texts(chunks), each) for each in own)
        assert {text for each in own for text in each} == set(texts(chunks))
        assert (len(own) > 1) == (document is LONG)
        asked = [each for each in asked if each not in own]
    assert not asked


def span_of(chunks: list[Document], place: int) -> tuple[int, int]:
    start = sum(map(len, texts(chunks[:place])))
    return start, start + len(chunks[place].text)


def part(whole: list[str], window: list[str]) -> list[str]:
    start = whole.index(window[0])
    return whole[start : start + len(window)]


def test_a_window_has_no_more_than_the_model_reads(place: Place) -> None:
    place.ingest([LONG])
    assert all(
        sum(map(count_tokens, each)) <= TOKENS_TOGETHER for each in place.requests(late=True)
    )


def test_an_unchanged_document_costs_nothing_and_a_changed_one_its_own_chunks(
    place: Place,
) -> None:
    place.ingest(SHORT)
    place.requests(late=True)
    assert place.ingest(SHORT).embedded == 0
    assert len(place.server.requests) == place.read
    changed = Document("bread", SHORT[1].text.replace("six", "five"))
    place.ingest([SHORT[0], changed])
    assert place.requests(late=True) == [texts(place.chunks("bread"))]


def test_queries_and_canaries_are_not_chunked_late(place: Place) -> None:
    place.ingest(SHORT)
    with place.open() as store:
        (hit,) = store.search(QUESTION, limit=1)
    assert hit.document.id.startswith("bread#")
    others = place.requests(late=False)
    assert {text for each in others for text in each} == {*CANARY_TEXTS, QUESTION}


def test_a_spent_account_ends_the_job_and_topping_it_up_completes_it(
    place: Place, server: JinaServer
) -> None:
    place.ingest(SHORT[:1])
    server.fail_next(402, error_body("INSUFFICIENT_BALANCE"))
    with pytest.raises(QuotaExhausted):
        place.ingest(SHORT)
    assert not place.chunks("bread")
    assert place.ingest(SHORT).complete
    assert "".join(texts(place.chunks("bread"))) == SHORT[1].text
