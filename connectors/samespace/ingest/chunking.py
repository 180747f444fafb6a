"""Cutting documents into chunks: spans that cover a text, and documents made from them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from samespace.documents import Document, Parent, check_document
from samespace.errors import InvalidInput, excerpt
from samespace.names import ID_BYTES

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DEFAULT_CHARACTERS: Final = 1000
"""Longest chunk where nothing else is asked for."""
WINDOW: Final = 32
"""How many of the longest chunks the splitter sees at once: it looks at all that is left, for each."""
_SHORTEST_WINDOW: Final = 8192
_CHARACTERS_PER_TOKEN: Final = 4
_FAILURES: Final = (ValueError, LookupError, ArithmeticError)
"""What a chunker may raise for one text; anything else concerns all of them."""
_FENCE: Final = re.compile(r"^ {0,3}(?:```|~~~)", re.MULTILINE)

Span = tuple[int, int]
"""``(start, end)`` in characters of a text, end exclusive."""
Split = Callable[[str], list[tuple[int, str]]]


class Chunker(Protocol):
    """Says where a text is cut.

    The spans of ``spans(text)`` are in order and leave nothing out: the first starts at 0, each
    other one where the one before it ends, and the last ends at ``len(text)``. None of them is
    empty or white space alone. The same text is always cut in the same places, or a second run
    would store all of it anew. ``repr(chunker)`` names its options: a job's checkpoint records it.
    """

    def spans(self, text: str) -> Sequence[Span]:
        """Where ``text`` is cut, as ``(start, end)`` in characters."""


class TextChunker:
    """Cuts where a text has its seams: headings, paragraphs, sentences, words, in that order.

    A chunk has at most ``max_characters`` (1,000 where nothing is said) or ``max_tokens``, not
    counting white space at its ends, which belongs to the chunk before it. Tokens are those of
    ``tokenizer``, the path of a ``tokenizer.json`` or a ``tokenizers.Tokenizer``, without the
    special ones that a model adds to each text (two for most): leave room for them. ``minimum``,
    in the same unit, lets a chunk end from there on where the text has a better place;
    shorter ones still occur. ``markdown=False`` is for texts in which ``#`` and ``-`` mean nothing.

    Needs the extra ``ingest``. Time and memory are linear in the text's length.
    """

    def __init__(
        self,
        *,
        max_characters: int | None = None,
        max_tokens: int | None = None,
        tokenizer: str | Path | Tokenizer | None = None,
        minimum: int | None = None,
        markdown: bool = True,
    ) -> None:
        if max_tokens is None and max_characters is None:
            max_characters = DEFAULT_CHARACTERS
        _check_options(max_characters, max_tokens, tokenizer, minimum)
        json = None if tokenizer is None else _tokenizer_json(tokenizer)
        self._said = {
            "max_characters": max_characters,
            "max_tokens": max_tokens,
            "tokenizer": None if json is None else _digest(json),
            "minimum": minimum,
            "markdown": markdown,
        }
        most = max_tokens or max_characters or DEFAULT_CHARACTERS
        self._markdown = markdown
        self._split = _splitter(most, minimum, json, markdown=markdown)
        longest = most * _CHARACTERS_PER_TOKEN if max_tokens else most
        self._window = max(WINDOW * longest, _SHORTEST_WINDOW)

    def __repr__(self) -> str:
        said = ", ".join(
            f"{name}={value}" for name, value in self._said.items() if value is not None
        )
        return f"TextChunker({said})"

    def spans(self, text: str) -> list[Span]:
        """Spans that cover ``text`` exactly; of blank text one, of ``""`` none."""
        if not text:
            return []
        cuts = [start for start, piece in self._pieces(text) if not piece.isspace()]
        return list(pairwise([0, *cuts[1:], len(text)]))

    def _pieces(self, text: str) -> Iterator[tuple[int, str]]:
        """The splitter's pieces, each with its start, found in one window of the text at a time."""
        start = 0
        while start < len(text):
            pieces = self._split(text[start : start + self._window])
            kept = len(pieces)
            if start + self._window < len(text):
                kept = self._safe(text, start, pieces)
            yield from ((start + offset, piece) for offset, piece in pieces[:kept])
            start += pieces[kept][0] if kept < len(pieces) else self._window

    def _safe(self, text: str, start: int, pieces: Sequence[tuple[int, str]]) -> int:
        """How many pieces stand, whatever follows: not the last, nor those of an open code block."""
        last = len(pieces) - 1
        if self._markdown:
            for kept in range(last, 0, -1):
                if len(_FENCE.findall(text, start, start + pieces[kept][0])) % 2 == 0:
                    return kept
        return max(last, 1)


def _check_options(
    max_characters: int | None, max_tokens: int | None, tokenizer: object, minimum: int | None
) -> None:
    if max_characters is not None and max_tokens is not None:
        raise InvalidInput("max_characters= and max_tokens= are both given; choose one")
    if (max_tokens is None) != (tokenizer is None):
        raise InvalidInput(
            "max_tokens= and tokenizer= belong together: pass both (tokenizer= the path of a "
            "tokenizer.json or a tokenizers.Tokenizer), or max_characters= alone"
        )
    limits = {"max_characters": max_characters, "max_tokens": max_tokens, "minimum": minimum}
    for name, value in limits.items():
        if value is not None and (type(value) is not int or value < 1):
            raise InvalidInput(f"{name} is {excerpt(value)}; pass a whole number from 1 on")
    if minimum is not None and minimum > (max_characters or max_tokens or 0):
        raise InvalidInput(f"minimum {minimum} is more than a chunk may have; lower it")


def _digest(json: str) -> str:
    """Which tokenizer it is, wherever it came from."""
    return f"<sha256 {hashlib.sha256(json.encode()).hexdigest()[:16]}>"


def _splitter(most: int, minimum: int | None, json: str | None, *, markdown: bool) -> Split:
    try:
        import semantic_text_splitter as library  # noqa: PLC0415  of an extra
    except ModuleNotFoundError as error:
        raise _not_installed("semantic_text_splitter") from error
    kind: Any = library.MarkdownSplitter if markdown else library.TextSplitter
    capacity = most if minimum is None else (minimum, most)
    if json is None:
        split: Split = kind(capacity).chunk_indices
    else:
        split = kind.from_huggingface_tokenizer_str(json, capacity).chunk_indices
    return split


def _tokenizer_json(tokenizer: str | Path | Tokenizer) -> str:
    """The tokenizer as JSON, without a truncation or padding that would make it count wrongly."""
    try:
        from tokenizers import Tokenizer as Loaded  # noqa: PLC0415  of an extra
    except ModuleNotFoundError as error:
        raise _not_installed("tokenizers") from error
    try:
        if isinstance(tokenizer, str | Path):
            found = Loaded.from_str(Path(tokenizer).read_text(encoding="utf-8"))
        else:
            found = Loaded.from_str(tokenizer.to_str())
    except Exception as error:  # noqa: BLE001  the library raises nothing more precise
        raise InvalidInput(
            f"tokenizer {excerpt(tokenizer)} cannot be used ({excerpt(str(error))}); pass the path of "
            "a tokenizer.json or a tokenizers.Tokenizer"
        ) from None
    found.no_truncation()
    found.no_padding()
    return found.to_str()


def _not_installed(package: str) -> InvalidInput:
    return InvalidInput(f'{package} is not installed; run pip install "samespace[ingest]"')


def chunks(document: Document, chunker: Chunker) -> list[Document]:
    """A document's chunks, in order: ids ``id#0``, ``id#1``, …, and the document as their parent.

    The text of a chunk is exactly its span of the document's text; its metadata is the document's.
    :class:`~samespace.errors.InvalidInput` for a document that cannot be cut (blank, a chunk
    already, or with an ``embed_text``), for an id that leaves no room for an ordinal, and for a
    chunker whose spans do not cover the text, or that fails on it.
    """
    _check_whole(document)
    spans = _checked(document, chunker)
    _check_room(document.id, len(spans) - 1)
    return [
        Document(
            id=f"{document.id}#{ordinal}",
            text=document.text[slice(*span)],
            metadata=document.metadata,
            parent=Parent(document.id, ordinal, span),
        )
        for ordinal, span in enumerate(spans)
    ]


def _check_whole(document: Document) -> None:
    check_document(document)
    if document.parent is not None:
        raise InvalidInput(
            f"{excerpt(document.id)} is a chunk of {excerpt(document.parent.id)} already; leave out "
            "parent= or the chunker"
        )
    if document.embed_text is not None:
        raise InvalidInput(
            f"{excerpt(document.id)} has an embed_text, which its chunks cannot share; leave it out, "
            "or cut the document yourself and give each chunk one"
        )


def _check_room(id: str, last: int) -> None:
    suffix = f"#{last}"
    if len(id.encode()) + len(suffix) > ID_BYTES:
        raise InvalidInput(
            f"id {excerpt(id)} with {suffix} for a chunk is longer than {ID_BYTES} bytes; shorten the "
            f"document's id to {ID_BYTES - len(suffix)} bytes, or use a hash of it"
        )


def _checked(document: Document, chunker: Chunker) -> list[Span]:
    """What a chunker returns, if its spans cover the text as :class:`Chunker` says."""
    check_chunker(chunker)
    name = type(chunker).__name__
    place = f"(text of {excerpt(document.id)}, {len(document.text)} characters); mend its spans()"
    try:
        return list(_contiguous(chunker.spans(document.text), document.text))
    except InvalidInput as defect:
        raise InvalidInput(f"chunker {name}: {defect} {place}") from None
    except _FAILURES as error:
        said = f"{type(error).__name__}: {excerpt(str(error))}"
        raise InvalidInput(f"chunker {name} raised {said} {place}") from error


def check_chunker(chunker: object) -> None:
    """:class:`InvalidInput` for what is no :class:`Chunker`."""
    if isinstance(chunker, type) or not callable(getattr(chunker, "spans", None)):
        raise InvalidInput(f"chunker {excerpt(chunker)} has no spans(text); pass a Chunker")


def _contiguous(found: object, text: str) -> Iterator[Span]:
    if not isinstance(found, Iterable):
        raise InvalidInput(f"it returned {excerpt(found)}, not a sequence of (start, end)")
    end = 0
    for ordinal, span in enumerate(found):
        start, stop = _pair(span, ordinal)
        if start != end:
            kind = "leaves a gap after" if start > end else "goes back behind"
            raise InvalidInput(f"span {ordinal} starts at {start}, which {kind} {end}")
        if not start < stop <= len(text):
            raise InvalidInput(f"span {ordinal} is ({start}, {stop}): empty, or beyond the text")
        if text[start:stop].isspace():
            raise InvalidInput(f"span {ordinal} is white space alone; join it to a neighbour")
        yield start, stop
        end = stop
    if end != len(text):
        raise InvalidInput(f"its last span ends at {end}")


def _pair(span: object, ordinal: int) -> Span:
    if isinstance(span, Sequence) and len(span) == 2 and all(type(each) is int for each in span):
        return span[0], span[1]
    raise InvalidInput(f"span {ordinal} is {excerpt(span)}, not (start, end)")
