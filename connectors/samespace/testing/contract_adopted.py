# Generated from contract_adopted_async.py by tools/generate_sync.py; change that file, not this one.
"""The promises about collections that somebody else made."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from samespace.documents import Document
from samespace.errors import InvalidInput, SpaceError, SpaceMismatch
from samespace.filters import field
from samespace.testing.backends import UNLIKE, V3, LyingBackend, TaskBackend
from samespace.testing.gaps import DeclaresGaps
from samespace.testing.harness import StoreHarness


class AdoptedContract(DeclaresGaps):
    """A collection that somebody else made."""

    DOCUMENTS = tuple(
        Document(str(n), text, {"lang": lang, "year": 2000 + n})
        for n, (text, lang) in enumerate(
            [("red apples", "en"), ("grüne Birnen", "de"), ("blue plums", "en")]
        )
    )

    def _foreign(self, harness: StoreHarness) -> tuple[str, Any]:
        vectors = TaskBackend().embed_documents([document.text for document in self.DOCUMENTS])
        return harness.make_foreign(self.DOCUMENTS, vectors)

    def test_reading_alters_nothing(
        self, harness: StoreHarness, caplog: pytest.LogCaptureFixture
    ) -> None:
        collection, layout = self._foreign(harness)
        before = harness.dump(collection)
        with harness.open(collection, backend=TaskBackend(), layout=layout) as store:
            with caplog.at_level(logging.WARNING, logger="samespace"):
                hits = store.search("red apples", where=field("lang") == "en")
            assert [hit.document.id for hit in hits] == ["0", "2"]
            assert hits[0].document == self.DOCUMENTS[0]
            assert "no record" in caplog.text
            assert store.count(field("year") >= 2001) == 2
            assert [document for document in store.scan()] == list(self.DOCUMENTS)
            assert dict(store.values("lang")) == {"en": 2, "de": 1}
            assert store.get(["1", "no number", "01"]) == [self.DOCUMENTS[1]]
            with pytest.raises(SpaceError, match="adopt"):
                store.upsert([Document("9", "text")])
        assert harness.dump(collection) == before

    def test_once_adopted_it_is_written_and_guarded(self, harness: StoreHarness) -> None:
        collection, layout = self._foreign(harness)
        before = harness.dump(collection)
        with harness.open(collection, backend=TaskBackend(), layout=layout) as store:
            store.adopt()
            store.adopt()
            assert harness.dump(collection) == before
            new = Document("9", "yellow lemons", {"lang": "en"})
            assert store.upsert([new, Document("0", "ripe apples")]).written == 2
            assert store.search("yellow lemons")[0].document.id == "9"
            assert store.update_metadata({"9": {"year": 1}}, merge=True) == 1
            assert store.get(["9"])[0].metadata == {"lang": "en", "year": 1}
            assert store.delete(ids=["9"]) == 1
            with pytest.raises(InvalidInput, match="adopted"):
                store.drop()
        with harness.open(collection, backend=TaskBackend(UNLIKE), layout=layout) as other:
            with pytest.raises(SpaceMismatch):
                other.search("text")

    def test_an_id_that_no_key_can_be_is_rejected_alone(self, harness: StoreHarness) -> None:
        collection, layout = self._foreign(harness)
        with harness.open(collection, backend=TaskBackend(), layout=layout) as store:
            store.adopt()
            rows = [Document("x9", "no number"), Document("9", "a number")]
            report = store.upsert(rows, on_error="report")
            assert [rejected.id for rejected in report.rejected] == ["x9"]
            assert report.written == 1

    def test_a_layout_that_does_not_fit_is_refused(self, harness: StoreHarness) -> None:
        collection, layout = self._foreign(harness)
        with harness.open(collection, space=replace(V3, dimensions=768), layout=layout) as store:
            with pytest.raises(InvalidInput, match="dimensions"):
                store.count()

    def test_it_takes_a_second_slot(self, harness: StoreHarness) -> None:
        collection, layout = self._foreign(harness)
        with harness.open(collection, backend=TaskBackend(), layout=layout) as store:
            store.adopt()
            store.add_slot(UNLIKE)
            rows, _ = store.pending(UNLIKE, limit=10, with_vectors_of=V3)
            assert [row.document.id for row in rows] == ["0", "1", "2"]
            assert all(row.vector is not None for row in rows)
            texts = [row.document.text for row in rows]
            vectors = TaskBackend(UNLIKE, seed=5).embed_documents(texts)
            assert store.fill(UNLIKE, rows, vectors).filled == 3
            harness.set_text(collection, "1", "changed by somebody")
            pending, _ = store.pending(UNLIKE, limit=10)
            stale, _ = store.stale(UNLIKE, limit=10)
            assert [row.document.id for row in (*pending, *stale)] == ["1"]

    def test_a_layout_says_nothing_of_another_spaces_slot(self, harness: StoreHarness) -> None:
        collection, layout = self._foreign(harness)
        with harness.open(collection, backend=TaskBackend(), layout=layout) as store:
            other = store.in_space(UNLIKE, backend=TaskBackend(UNLIKE, seed=5))
            with pytest.raises(SpaceError):
                other.search("red apples")
            with pytest.raises(InvalidInput, match="handle of that space"):
                other.adopt()
            store.adopt()
            with pytest.raises(SpaceMismatch):
                store.in_space(UNLIKE).count()
            store.add_slot(UNLIKE)
            assert other.upsert([Document("9", "yellow lemons")]).pending == 1
            assert store.filled(UNLIKE, limit=10)[0][0].document.id == "9"

    @pytest.mark.parametrize("canary", [True, False])
    def test_adopting_keeps_a_canary_if_asked(self, harness: StoreHarness, canary: bool) -> None:
        collection, layout = self._foreign(harness)
        with harness.open(collection, backend=TaskBackend(), layout=layout) as store:
            store.adopt(canary=canary)
            assert store.info().slots[0].has_canary == canary
        with harness.open(collection, backend=LyingBackend(), layout=layout) as liar:
            if canary:
                with pytest.raises(SpaceMismatch, match="suggests"):
                    liar.search("red apples")
            else:
                assert len(liar.search("red apples")) == 3

    def test_once_recorded_it_needs_no_layout(self, harness: StoreHarness) -> None:
        collection, layout = self._foreign(harness)
        with harness.open(collection, backend=TaskBackend(), layout=layout) as store:
            store.adopt()
        with harness.open(collection, backend=TaskBackend()) as store:
            assert store.search("red apples")[0].document == self.DOCUMENTS[0]
            assert store.info().layout == layout

    def test_a_cursor_is_one_of_this_collection(self, harness: StoreHarness) -> None:
        collection, layout = self._foreign(harness)
        with harness.open(collection, backend=TaskBackend(), layout=layout) as store:
            store.adopt()
            store.add_slot(UNLIKE)
            (first,), after = store.pending(UNLIKE, limit=1)
            rows, _ = store.pending(UNLIKE, limit=10, after=after)
            assert {first.document.id, *(row.document.id for row in rows)} == {"0", "1", "2"}
            assert len(rows) == 2
            for cursor in ("x", "1.0", "01", ""):
                with pytest.raises(InvalidInput, match="cursor"):
                    store.pending(UNLIKE, limit=10, after=cursor)
