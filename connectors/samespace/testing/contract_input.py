# Generated from contract_input_async.py by tools/generate_sync.py; change that file, not this one.
"""The promises about bad and hostile input: exact, or refused by name; never a driver's error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from samespace.documents import Document, Parent
from samespace.errors import CollectionNotFound, InvalidInput, PartialWrite
from samespace.filters import field
from samespace.protocols import VectorStore
from samespace.testing.backends import TaskBackend
from samespace.testing.corpus import (
    BAD_DOCUMENTS,
    BAD_IDS,
    HOSTILE,
    LONGEST_ID,
    METADATA,
    Call,
    bad_calls,
)
from samespace.testing.gaps import DeclaresGaps
from samespace.testing.harness import StoreHarness

BAD_CALLS: Final = bad_calls()


def _called(store: VectorStore, method: str, call: Call) -> None:
    """Make a call, and take the first document of a scan."""
    if method == "scan":
        for _ in store.scan(**call):
            return
    else:
        getattr(store, method)(**call)


def _exactly(value: object) -> str:
    """A form that tells 1, 1.0 and True apart, whatever the order of keys."""
    return json.dumps(value, sort_keys=True)


class InputContract(DeclaresGaps):
    """Anything that may be stored comes back exactly; anything else is refused, alone."""

    @pytest.fixture
    def open(self, harness: StoreHarness) -> Iterator[VectorStore]:
        with harness.open("input", backend=TaskBackend()) as store:
            yield store

    def test_metadata_comes_back_type_by_type(self, open: VectorStore) -> None:
        for name, metadata in METADATA.items():
            open.upsert([Document("a", "some text", metadata)])
            found = [
                *open.get(["a"]),
                *[hit.document for hit in open.search("text")],
                *[document for document in open.scan()],
            ]
            exactly = [_exactly(document.metadata) for document in found]
            assert exactly == 3 * [_exactly(metadata)], name

    def test_hostile_strings_come_back_from_every_place(self, open: VectorStore) -> None:
        documents = [
            Document(
                text,
                f"x {text}",
                {text: text, "in": {text: [text]}, "is": text},
                parent=Parent(text, 0, (0, 1)),
                embed_text=f"y {text}",
            )
            for text in HOSTILE
        ]
        open.upsert(documents)
        assert open.get(HOSTILE) == documents
        for text in HOSTILE:
            open.search(f"q {text}")
            for where in (
                field("is") == text,
                field(text) == text,
                field("in", text).contains(text),
                field.id == text,
                field.parent == text,
            ):
                assert [d.id for d in open.scan(where=where)] == [text]
        assert dict(open.values("is")) == dict.fromkeys(HOSTILE, 1)
        assert open.update_metadata({text: {text: 1} for text in HOSTILE}) == len(HOSTILE)
        assert [open.delete(parent=text) for text in HOSTILE] == [1] * len(HOSTILE)

    def test_ids_that_look_alike_are_different(self, open: VectorStore) -> None:
        ids = [
            "a",
            "A",
            " a",
            "a ",
            "\u00e9",
            "e\u0301",
            "1",
            "01",
            "1.0",
            "K",
            "\u212a",
            LONGEST_ID,
        ]
        open.upsert(Document(id, f"text {n}") for n, id in enumerate(ids))
        assert [d.text for d in open.get(ids)] == [f"text {n}" for n in range(len(ids))]
        assert {hit.document.id for hit in open.search("text", limit=100)} == {*ids}
        assert open.delete(ids=["a", "e\u0301"]) == 2
        assert {d.id for d in open.scan()} == {*ids} - {"a", "e\u0301"}

    def test_text_comes_back_exactly(self, open: VectorStore) -> None:
        texts = [
            " a\r\nb\tc ",
            "\x01\x7f",
            "e\u0301\u00e9",
            "x" * 300_000,
            "\u2028.\ufeff",
            "🦊" * 99,
        ]
        open.upsert(Document(str(n), text) for n, text in enumerate(texts))
        found = open.get([str(n) for n in range(len(texts))])
        assert [document.text for document in found] == texts

    def test_a_bad_document_is_rejected_alone_and_by_name(self, open: VectorStore) -> None:
        for name, bad in BAD_DOCUMENTS.items():
            documents = [Document("a", f"before {name}"), bad, Document("z", f"after {name}")]
            with pytest.raises(PartialWrite) as caught:
                open.upsert(documents)
            report = caught.value.report
            refused = [(one.id, type(one.error)) for one in report.rejected]
            assert (refused, report.written) == ([("bad", InvalidInput)], 2), name
            assert [row.text for row in open.scan(where=field.id == "z")] == [f"after {name}"]
        assert {row.id for row in open.scan()} == {"a", "z"}

    def test_a_bad_id_is_rejected_alone(self, open: VectorStore) -> None:
        for name, id in BAD_IDS.items():
            documents = [Document(id, "text"), Document("a", "good")]
            report = open.upsert(documents, on_error="report")
            assert [type(one.error) for one in report.rejected] == [InvalidInput], name
            assert report.written == open.count() == 1, name

    def test_what_is_no_document_is_rejected_alone(self, open: VectorStore) -> None:
        documents: list[Any] = [Document("a", "good"), None, {"id": "b"}, "text", 7]
        report = open.upsert(documents, on_error="report")
        assert report.written == open.count() == 1
        assert [type(one.error) for one in report.rejected] == [InvalidInput] * 4

    def test_an_id_that_no_document_has_is_not_there(self, open: VectorStore) -> None:
        open.upsert([Document("a", "text", {"k": 1}, parent=Parent("p"))])
        for id in ("", "A", "a ", LONGEST_ID + "x"):
            assert open.get([id]) == []
            assert open.delete(ids=[id]) == 0
            assert open.delete(parent=id) == 0
            assert open.update_metadata({id: {"k": 2}}) == 0
        assert open.get(["a"]) == [Document("a", "text", {"k": 1}, parent=Parent("p"))]

    @pytest.mark.parametrize("method", BAD_CALLS)
    def test_bad_arguments_are_refused_before_anything_is_sent(
        self, open: VectorStore, method: str
    ) -> None:
        for call in BAD_CALLS[method]:
            with pytest.raises(InvalidInput):  # had it looked, it would be CollectionNotFound
                _called(open, method, call)
        with pytest.raises(CollectionNotFound):
            open.count()
