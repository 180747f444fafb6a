"""Chunks: where a text is cut, what they carry, and what a chunker may not return."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from samespace.documents import Document, Parent
from samespace.errors import InvalidInput
from samespace.ingest.chunking import WINDOW, Chunker, Span, TextChunker, chunks

PIECES = (
    "word", " ", "\n", "\r\n", "\n\n", "\t", ". ", "Sentence one. ", "# Heading\n\n", "- item\n",
    "```\n", "~~~\n", "    code\n", "|a|b|\n", "> quote\n", "x" * 70, "é", "e\u0301", "\u0301", "😀",
    "👩\u200d👩\u200d👧", "\U0001f1e9\U0001f1ea", "中文。", "\x1c", "\x85", "\u2028", "\u00a0",
    "\ufeff", "\x00",
)  # fmt: skip
"""What texts are made of that are hard to cut."""


def texts(max_size: int = 60) -> st.SearchStrategy[str]:
    pieces = st.lists(st.sampled_from(PIECES), max_size=max_size).map("".join)
    return st.one_of(st.text(), pieces)


def words() -> Tokenizer:
    """A tokenizer whose tokens are words and runs of punctuation."""
    tokenizer = Tokenizer(WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()
    return tokenizer


def cut(text: str, chunker: Chunker) -> list[str]:
    return [text[slice(*span)] for span in chunker.spans(text)]


# Where a text is cut


@given(text=texts(), limit=st.integers(1, 90), markdown=st.booleans())
def test_spans_cover_the_text_within_the_limit(text: str, limit: int, markdown: bool) -> None:
    chunker = TextChunker(max_characters=limit, markdown=markdown)
    pieces = cut(text, chunker)
    assert "".join(pieces) == text
    assert all(len(piece.strip()) <= limit for piece in pieces)
    assert [piece for piece in pieces if not piece or piece.isspace()] in ([], [text])
    assert chunker.spans(text) == TextChunker(max_characters=limit, markdown=markdown).spans(text)


@settings(max_examples=30)
@given(unit=texts(12), limit=st.integers(20, 90))
def test_texts_of_many_windows_are_covered_as_short_ones_are(unit: str, limit: int) -> None:
    text = unit * (1 + 40_000 // (len(unit) or 1))
    pieces = cut(text, TextChunker(max_characters=limit))
    assert "".join(pieces) == text
    assert all(len(piece.strip()) <= limit for piece in pieces)


@given(text=texts(), limit=st.integers(1, 20), minimum=st.integers(1, 20))
def test_tokens_are_kept_to_as_the_tokenizer_counts_them(
    text: str, limit: int, minimum: int
) -> None:
    chunker = TextChunker(max_tokens=limit, tokenizer=words(), minimum=min(minimum, limit))
    pieces = cut(text, chunker)
    assert "".join(pieces) == text
    assert all(len(words().encode(piece.strip()).ids) <= limit for piece in pieces)


def test_a_tokenizer_s_own_truncation_and_padding_do_not_count(tmp_path: Path) -> None:
    tokenizer = words()
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=50)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    text = "one two three four five six seven eight. " * 20
    for given_as in (tokenizer, tmp_path / "tokenizer.json", str(tmp_path / "tokenizer.json")):
        pieces = cut(text, TextChunker(max_tokens=9, tokenizer=given_as))
        assert [len(words().encode(piece).ids) for piece in pieces] == [9] * 20
    assert tokenizer.truncation is not None  # the caller's own is left as it was


def test_seams_of_a_text_are_preferred_to_a_full_chunk() -> None:
    text = "# One\n\nA sentence. Another one.\n\n# Two\n\nA third sentence here."
    assert cut(text, TextChunker(max_characters=40)) == [
        "# One\n\nA sentence. Another one.\n\n",
        "# Two\n\nA third sentence here.",
    ]
    assert cut("One is first. Two is next.", TextChunker(max_characters=20)) == [
        "One is first. ",
        "Two is next.",
    ]


def test_a_minimum_lets_chunks_end_at_a_seam() -> None:
    text = "A first line that is there.\n\nA second.\n\nA third.\n\nA fourth."
    whole = cut(text, TextChunker(max_characters=60))
    early = cut(text, TextChunker(max_characters=60, minimum=20))
    assert len(early) > len(whole)
    assert "".join(early) == text


def test_what_looks_like_a_heading_in_code_cuts_nothing_wherever_a_window_ends() -> None:
    block = "```sh\n# not a heading\nmake\n```\n\n"
    text = "# Heading\n\n" + (block + "Some prose that follows the code. It ends.\n\n") * 1000
    for piece in cut(text, TextChunker(max_characters=120)):
        assert piece.count("```") % 2 == 0, piece


@pytest.mark.parametrize("blank", [" ", "\n\n", " \t\r\n\u2003" * 20_000])
def test_blank_text_is_one_piece_and_no_text_is_none(blank: str) -> None:
    assert TextChunker(max_characters=10).spans(blank) == [(0, len(blank))]
    assert TextChunker(max_characters=10).spans("") == []


def test_white_space_alone_joins_its_neighbour() -> None:
    text = "\n \n" + "a" * 10 + " " * 50 + "b" * 10 + "\x1c" * 30
    assert cut(text, TextChunker(max_characters=10)) == [text[:63], text[63:]]


def test_a_long_text_takes_neither_long_nor_much_memory() -> None:
    paragraph = "This is a sentence, so it ends. 😀 And this is another one.\n\n"
    text = paragraph * (10_000_000 // len(paragraph))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spans = TextChunker().spans(text)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (spans[0][0], spans[-1][1]) == (0, len(text))
    assert grown * 1024 <= 4 * len(text)


def test_the_splitter_sees_a_window_of_a_text_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    chunker = TextChunker(max_characters=1000)
    split, seen = chunker._split, list[int]()

    def noted(text: str) -> list[tuple[int, str]]:
        seen.append(len(text))
        return split(text)

    monkeypatch.setattr(chunker, "_split", noted)
    chunker.spans("word " * 100_000)
    assert max(seen) == WINDOW * 1000
    assert sum(seen) <= 500_000 * 1.1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_characters": 0}, "max_characters is 0"),
        ({"max_characters": True}, "max_characters is True"),
        ({"max_characters": 1.5}, "max_characters is 1.5"),
        ({"max_characters": 10, "max_tokens": 5, "tokenizer": "t"}, "choose one"),
        ({"max_tokens": 5}, "belong together"),
        ({"tokenizer": "t"}, "belong together"),
        ({"max_tokens": 5, "tokenizer": "no/such/tokenizer.json"}, "no/such/tokenizer.json"),
        ({"max_tokens": 5, "tokenizer": 7}, "tokenizer 7 cannot be used"),
        ({"minimum": -1}, "minimum is -1"),
        ({"minimum": 1001}, "more than a chunk may have"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        TextChunker(**options)


def test_a_chunker_says_what_it_is() -> None:
    assert repr(TextChunker()) == "TextChunker(max_characters=1000, markdown=True)"


def test_a_chunker_says_which_tokenizer_it_counts_with(tmp_path: Path) -> None:
    path, changed = tmp_path / "tokenizer.json", words()
    changed.save(str(path))
    changed.add_tokens(["more"])
    said = {repr(TextChunker(max_tokens=9, tokenizer=each)) for each in (words(), path, str(path))}
    assert len(said) == 1
    assert "TextChunker(max_tokens=9, tokenizer=<sha256 " in said.pop()
    others = {repr(TextChunker(max_tokens=9, tokenizer=each)) for each in (words(), changed)}
    assert len(others) == 2


# Chunks of a document


class Fixed:
    """Returns what it was given."""

    def __init__(self, *spans: Any) -> None:
        self.given: Any = spans

    def spans(self, text: str) -> Sequence[Span]:
        returned: Sequence[Span] = self.given
        return returned


def test_a_chunk_is_the_span_of_its_text_and_names_its_parent() -> None:
    document = Document("a/b.md", "one two", {"lang": "en"})
    assert chunks(document, Fixed((0, 4), [4, 7])) == [
        Document("a/b.md#0", "one ", {"lang": "en"}, Parent("a/b.md", 0, (0, 4))),
        Document("a/b.md#1", "two", {"lang": "en"}, Parent("a/b.md", 1, (4, 7))),
    ]


@given(text=texts().filter(lambda text: text.strip() and "\x00" not in text))
def test_chunks_join_to_the_document(text: str) -> None:
    made = chunks(Document("a", text), TextChunker(max_characters=30))
    assert "".join(chunk.text for chunk in made) == text
    for ordinal, chunk in enumerate(made):
        assert chunk.parent is not None
        assert chunk.parent.span is not None
        assert (chunk.id, chunk.parent.ordinal) == (f"a#{ordinal}", ordinal)
        assert chunk.text == text[slice(*chunk.parent.span)]


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        ([(0, 3), (4, 7)], "span 1 starts at 4, which leaves a gap after 3"),
        ([(1, 7)], "span 0 starts at 1, which leaves a gap after 0"),
        ([(0, 4), (3, 7)], "span 1 starts at 3, which goes back behind 4"),
        ([(4, 7), (0, 4)], "span 0 starts at 4"),
        ([(0, 4)], "last span ends at 4"),
        ([], "last span ends at 0"),
        ([(0, 8)], r"span 0 is \(0, 8\): empty, or beyond"),
        ([(0, 0), (0, 7)], r"span 0 is \(0, 0\): empty"),
        ([(0, 3), (3, 4), (4, 7)], "span 1 is white space alone"),
        ([(0, 3.0), (3, 7)], r"span 0 is \(0, 3.0\), not \(start, end\)"),
        (["one", "two"], "span 0 is 'one', not"),
        ([(0, 3, 7)], "not .start, end."),
        ([7], "span 0 is 7"),
    ],
)
def test_what_a_chunker_may_not_return(spans: list[Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=f"chunker Fixed: .*{said}.*'a', 7 characters"):
        chunks(Document("a", "one two"), Fixed(*spans))


@pytest.mark.parametrize("answer", [None, 7])
def test_a_chunker_has_to_return_a_sequence(answer: object) -> None:
    chunker = Fixed()
    chunker.given = answer
    with pytest.raises(InvalidInput, match=f"chunker Fixed: it returned {answer}"):
        chunks(Document("a", "one two"), chunker)


def failing(text: str) -> Iterator[Span]:
    yield 0, 3
    raise ValueError("no seam")


@pytest.mark.parametrize(
    "spans", [failing, lambda text: text.index("no seam"), dict[str, Any]().pop]
)
def test_a_text_on_which_a_chunker_fails_is_named(spans: Callable[[str], Any]) -> None:
    class Failing:
        def spans(self, text: str) -> Sequence[Span]:
            found: Sequence[Span] = spans(text)
            return found

    with pytest.raises(InvalidInput, match="chunker Failing raised .*Error: .*'a', 7 characters"):
        chunks(Document("a", "one two"), Failing())


@pytest.mark.parametrize("given", [str.split, TextChunker, 5])
def test_what_is_no_chunker_is_refused(given: Any) -> None:
    with pytest.raises(InvalidInput, match=r"has no spans\(text\)"):
        chunks(Document("a", "one two"), given)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (Document("a", " \n"), "blank"),
        (Document("a", "text", parent=Parent("b", 0)), "'a' is a chunk of 'b' already"),
        (Document("a", "text", embed_text="other"), "embed_text, which its chunks cannot share"),
        (Document("a", "a\x00b"), "NUL"),
        (Document("", "text"), "id"),
    ],
)
def test_what_cannot_be_cut_is_refused(document: Document, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        chunks(document, TextChunker())


def test_an_id_has_to_leave_room_for_the_ordinal() -> None:
    text = "word " * 30
    assert len(chunks(Document("é" * 254 + "x", text), TextChunker(max_characters=20))) == 8
    with pytest.raises(InvalidInput, match="to 509 bytes, or use a hash"):
        chunks(Document("é" * 255, text), TextChunker(max_characters=10))
