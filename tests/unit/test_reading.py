"""Files as documents: what is read, what it is called, and what is left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.rights import ordinary

from samespace.documents import Document, Rejected
from samespace.errors import InvalidInput
from samespace.ingest.corpus import PASSAGE_LENGTH
from samespace.ingest.reading import read_sources


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(*paths: str) -> list[Document | Rejected]:
    return [
        item for source in read_sources([Path(path) for path in paths]) for item in source.items
    ]


def documents(*paths: str) -> list[Document]:
    return [item for item in read(*paths) if isinstance(item, Document)]


def rejected(*paths: str) -> list[Rejected]:
    return [item for item in read(*paths) if isinstance(item, Rejected)]


def test_ids_are_paths_below_the_working_directory(here: Path) -> None:
    for folder in ("a", "b"):
        (here / folder).mkdir()
        (here / folder / "README.md").write_text(folder)
    by_folder = documents("a", "./b/../b")
    by_name = documents(str(here / "a" / "README.md"), "b/README.md")
    assert [document.id for document in by_folder] == ["a/README.md#0", "b/README.md#0"]
    assert by_folder == by_name


def test_files_elsewhere_have_their_whole_path(
    here: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "notes.txt"
    elsewhere.write_text("some text")
    assert [document.id for document in documents(str(elsewhere))] == [f"{elsewhere}#0"]


def test_a_file_that_is_named_twice_is_read_once(here: Path) -> None:
    (here / "notes.md").write_text("some text")
    assert [document.id for document in documents(".", "notes.md")] == ["notes.md#0"]


def test_hidden_files_and_other_kinds_are_passed_over_in_folders(here: Path) -> None:
    (here / ".hidden.md").write_text("hidden")
    (here / "image.png").write_bytes(b"\x89PNG")
    assert read(".") == []


def test_a_missing_path_is_refused_before_anything_is_read(here: Path) -> None:
    (here / "notes.md").write_text("some text")
    with pytest.raises(InvalidInput, match="missing.md.*no such file"):
        read_sources([Path("notes.md"), Path("missing.md")])
    (here / "image.png").write_bytes(b"\x89PNG")
    with pytest.raises(InvalidInput, match="no known kind"):
        read_sources([Path("notes.md"), Path("image.png")])


def test_a_file_that_is_not_utf_8_is_left_out_and_the_others_are_read(here: Path) -> None:
    (here / "a.html").write_bytes("<p>café</p>".encode("latin-1"))
    (here / "b.md").write_text("some text")
    (left_out,) = rejected(".")
    assert (left_out.id, str(left_out.error)) == (
        "a.html",
        "'a.html' is not UTF-8 at byte 6; convert it",
    )
    assert [document.id for document in documents(".")] == ["b.md#0"]


def test_a_file_name_that_no_store_keeps_is_left_out(here: Path) -> None:
    (here / "caf\udce9.md").write_text("some text")
    (left_out,) = rejected(".")
    assert "file name" in str(left_out.error)


def test_a_folder_that_cannot_be_read_is_named_among_the_others(here: Path) -> None:
    for name in ("a/x.md", "b/x.md", "b.md", "c/x.md", "c/.d/x.md"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text("some text")
    (here / "b").chmod(0)
    (here / "c" / ".d").chmod(0)
    with ordinary():
        items = read(".")
    assert [item.id for item in items] == ["a/x.md#0", "b", "b.md#0", "c/x.md#0"]
    assert isinstance(items[1], Rejected)
    assert str(items[1].error) == "cannot read 'b': Permission denied"


def test_what_is_in_a_folder_may_be_what_cannot_be_read(here: Path) -> None:
    (here / "a").mkdir()
    (here / "a" / "x.md").write_text("some text")
    (here / "a").chmod(0o600)
    with ordinary():
        (left_out,) = rejected(".")
        assert str(left_out.error) == "cannot read 'a/x.md': Permission denied"
        with pytest.raises(InvalidInput, match="cannot read 'a/x.md': Permission denied"):
            read_sources([Path("a/x.md")])


def test_a_link_to_what_is_elsewhere_now_is_left_out_and_no_other_kind_is(here: Path) -> None:
    (here / "gone.md").symlink_to("nowhere.md")
    (here / "round.md").symlink_to("round.md")
    (here / "gone").symlink_to("nowhere")
    os.mkfifo(here / "pipe.jsonl")
    assert [left_out.id for left_out in rejected(".")] == ["gone.md", "round.md"]
    with pytest.raises(InvalidInput, match="neither a file nor a folder"):
        read_sources([Path("pipe.jsonl")])


def test_files_of_a_folder_come_in_the_order_of_their_paths(here: Path) -> None:
    names = ("a/b/c.md", "a/b.md", "a.md", "a-b/c.md", "B.md", "a/b/a.md", "a/c/a.md")
    for name in names:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("some text")
    wanted = [path.as_posix() for path in sorted(map(Path, names))]
    assert [source.name for source in read_sources([Path()])] == wanted


def test_records_are_not_in_memory_together(here: Path) -> None:
    """The second line of a file that has grown meanwhile is the one that is there now."""
    for name, first, second in (
        ("r.jsonl", '{"text": "one"}\n', '{"text": "two"}\n'),
        ("t.csv", "text\none\n", "two\n"),
    ):
        (here / name).write_text(first + " " * 2**20 + "\n")
        (source,) = read_sources([Path(name)])
        items = iter(source.items)
        next(items)
        with (here / name).open("a") as file:
            file.write(second)
        texts = [item.text for item in items if isinstance(item, Document)]
        assert texts[-1] == "two"


def test_a_file_of_records_that_is_not_utf_8_is_left_out_whole(here: Path) -> None:
    good = b'\xef\xbb\xbf{"text": "one"}\r\n' * 90_000
    (here / "r.jsonl").write_bytes(good + b"caf\xe9")
    (left_out,) = read("r.jsonl")
    assert isinstance(left_out, Rejected)
    assert str(left_out.error) == f"'r.jsonl' is not UTF-8 at byte {len(good) + 3}; convert it"


def test_a_file_of_records_that_changes_while_it_is_read_holds_up_no_others(here: Path) -> None:
    (here / "r.jsonl").write_text('{"text": "one"}\n' + " " * 2**20)
    (here / "s.jsonl").write_text('{"text": "two"}')
    sources = read_sources([Path("r.jsonl"), Path("s.jsonl")])
    items = iter(next(sources).items)
    assert isinstance(next(items), Document)
    with (here / "r.jsonl").open("ab") as file:
        file.write(b"\xff")
    (left_out,) = items
    assert isinstance(left_out, Rejected)
    assert "not UTF-8" in str(left_out.error)
    assert len(list(next(sources).items)) == 1


def test_a_passage_is_the_span_of_its_text(here: Path) -> None:
    text = "\n\n".join(f"Paragraph {number} {'word ' * 40}" for number in range(20))
    (here / "notes.md").write_text(text)
    for ordinal, document in enumerate(documents("notes.md")):
        assert document.parent is not None
        assert (document.parent.id, document.parent.ordinal) == ("notes.md", ordinal)
        assert document.parent.span is not None
        assert document.text == text[slice(*document.parent.span)]


@pytest.mark.parametrize(
    "text",
    ["word " * 1000, "x" * 3500, "a " + "x" * 1000 + " b", "x" * 1001 + "\n" + "short", "é" * 2000],
)
def test_a_passage_is_never_longer_than_it_may_be_and_nothing_is_lost(
    here: Path, text: str
) -> None:
    (here / "notes.md").write_text(text)
    passages = [document.text for document in documents("notes.md")]
    assert max(map(len, passages)) <= PASSAGE_LENGTH
    assert "".join("".join(passages).split()) == "".join(text.split())


def test_long_lines_are_cut_at_blanks(here: Path) -> None:
    (here / "notes.md").write_text("word " * 1000)
    for document in documents("notes.md"):
        assert set(document.text.split()) == {"word"}


def test_a_text_can_be_read_whole(here: Path) -> None:
    (here / "a.md").write_text("# One\n\n" + "word " * 1000)
    (here / "b.html").write_text("<h1>Two</h1><p>words</p>")
    (here / "blank.txt").write_text(" \n")
    (here / "r.jsonl").write_text('{"text": "a line"}')
    sources = list(read_sources([Path()], whole=True))
    assert [(source.name, source.is_text, list(source.items)) for source in sources] == [
        ("a.md", True, [Document("a.md", "# One\n\n" + "word " * 1000, {"source": "a.md"})]),
        ("b.html", True, [Document("b.html", "Two\n\nwords", {"source": "b.html"})]),
        ("blank.txt", True, []),
        ("r.jsonl", False, [Document("r.jsonl#1", "a line", {"source": "r.jsonl"})]),
    ]


@pytest.mark.parametrize(
    ("html", "words"),
    [
        ("<table><tr><td>red</td><td>blue</td></tr></table>", ["red", "blue"]),
        ("a<br>b<br/>c", ["a", "b", "c"]),
        ("<h4>Title</h4>text", ["Title", "text"]),
        ("<ul><li>one<li>two</ul>", ["one", "two"]),
        ("w<b>or</b>d and <em>m</em>ore", ["word", "and", "more"]),
        ("<p>seen</p><script>no</script><style>no</style>", ["seen"]),
        ("<head><title>no</title><body>no end of the head", ["no", "end", "of", "the", "head"]),
    ],
)
def test_words_of_a_page_stay_apart_and_whole(here: Path, html: str, words: list[str]) -> None:
    (here / "page.html").write_text(html)
    (document,) = documents("page.html")
    assert document.text.split() == words


def test_a_heading_and_its_text_are_paragraphs_of_their_own(here: Path) -> None:
    (here / "page.html").write_text("<div>\n <h4>Title</h4>\n <p>text</p>\n</div>")
    (document,) = documents("page.html")
    assert document.text == "Title\n\ntext"


def test_a_line_is_a_document_with_its_own_id_and_metadata(here: Path) -> None:
    lines = ('{"id": 0, "text": "a", "source": "mine"}', '{"text": "b"}', '{"id": "", "text": "c"}')
    (here / "r.jsonl").write_text("\n".join(lines))
    assert documents("r.jsonl") == [
        Document("0", "a", {"source": "mine"}),
        Document("r.jsonl#2", "b", {"source": "r.jsonl"}),
        Document("r.jsonl#3", "c", {"source": "r.jsonl"}),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "not JSON"),
        ("[1]", '"text"'),
        ('{"text": 1}', '"text"'),
        ('{"id": {"a": 1}, "text": "x"}', '"id"'),
        ('{"id": "a\\u0000b", "text": "x"}', "NUL"),
        ('{"id": true, "text": "x"}', '"id"'),
        ('{"id": [1], "text": "x"}', '"id"'),
    ],
)
def test_a_bad_line_is_left_out_and_the_others_are_read(here: Path, line: str, said: str) -> None:
    (here / "r.jsonl").write_text('{"text": "before"}\n' + line + '\n{"text": "after"}\n')
    (left_out,) = rejected("r.jsonl")
    assert left_out.id == "r.jsonl#2"
    assert str(left_out.error).startswith("'r.jsonl', line 2: ")
    assert said in str(left_out.error)
    assert [document.text for document in documents("r.jsonl")] == ["before", "after"]


def test_rows_have_the_columns_of_the_header(here: Path) -> None:
    (here / "t.csv").write_text("id,text,lang\n1,a,en\n2,b\n3,c,de,more\n,d,fr\n")
    assert [left_out.id for left_out in rejected("t.csv")] == ["t.csv#3", "t.csv#4"]
    assert documents("t.csv") == [
        Document("1", "a", {"source": "t.csv", "lang": "en"}),
        Document("t.csv#5", "d", {"source": "t.csv", "lang": "fr"}),
    ]


def test_a_field_may_be_long(here: Path) -> None:
    (here / "t.csv").write_text("id,text\n1," + "x" * 200_000 + "\n")
    assert [len(document.text) for document in documents("t.csv")] == [200_000]
