"""Guessing where things are from types, lengths and names; choosing among the guesses."""

from __future__ import annotations

import pytest

from samespace import Layout, field
from samespace.errors import InvalidInput
from samespace.survey import (
    UNKNOWN,
    Choice,
    Column,
    Proposal,
    Survey,
    VectorSlot,
    bodies,
    choose,
    guesses,
    lacking,
    not_found,
    scope_text,
)

KEY = Choice("key", "the primary key")


def column(name: str, length: float, filled: float = 1.0) -> Column:
    return Column(name=name, kind="text", is_text=True, length=length, filled=filled)


def slot(name: str, *, indexed: bool = False, unusable: str = "") -> VectorSlot:
    return VectorSlot(name=name, dimensions=4, indexed=indexed, unusable=unusable)


def surveyed(*layouts: Layout, missing: tuple[str, ...] = ()) -> Survey:
    proposals = [Proposal(maker=UNKNOWN, layout=each, dimensions=4, reasons=()) for each in layouts]
    about = Column(name="about", kind="jsonb", is_object=True)
    return Survey(
        store="pgvector", collection="t", columns=(about, column("body", 9)), slots=(slot("v"),),
        rows=1, rows_estimated=False, key="key", records=(), proposals=tuple(proposals),
        missing=missing,
    )  # fmt: skip


def test_the_longest_text_is_the_body_unless_one_has_that_name() -> None:
    named = [choice.value for choice in bodies([column("a", 300), column("b", 500)])]
    assert named == ["b", "a"]
    named = [choice.value for choice in bodies([column("note", 300), column("text", 250)])]
    assert named == ["text", "note"]
    named = [choice.value for choice in bodies([column("text", 900, 0.1), column("b", 300)])]
    assert named == ["b", "text"]


def test_titles_and_tags_are_no_rivals() -> None:
    found = bodies([column("title", 30), column("body", 800), column("lang", 2)])
    assert [choice.value for choice in found] == ["body"]


def test_without_rows_the_name_decides() -> None:
    found = bodies([column("lang", 0, 0), column("content", 0, 0)])
    assert found[0].value == "content"
    assert "no row tells more" in found[0].reason


def test_indexed_vectors_come_first_and_unusable_ones_not_at_all() -> None:
    slots = [slot("a"), slot("b", indexed=True), slot("c", unusable="it is sparse")]
    made = guesses([column("body", 9)], slots, KEY, lambda text: Choice((text,), "why"))
    assert [each.layout.slot for each in made] == ["b", "a"]
    assert all(len(each.reasons) == 4 for each in made)
    assert "it is sparse" in " ".join(lacking([], slots, None))


def test_parts_that_are_named_replace_those_that_were_guessed() -> None:
    base = Layout(id="key", text="body", slot="v", metadata=("title", "lang"))
    found = surveyed(base)
    assert choose(found, parts={"id": None, "text": None}) is None
    chosen = choose(found, parts={"text": "title"})
    assert chosen == Layout(id="key", text="title", slot="v", metadata=("lang",))
    chosen = choose(found, parts={}, metadata=["about"])
    assert chosen is not None
    assert chosen.metadata == "about"
    chosen = choose(found, parts={}, metadata=[""])
    assert chosen is not None
    assert chosen.metadata == ()


def test_a_scope_picks_its_own_proposal() -> None:
    scopes = [field("c") == "1", field("c") == "2"]
    layouts = [
        Layout(id="key", text=text, slot="v", scope=scope)
        for text, scope in zip(("one", "two"), scopes, strict=True)
    ]
    assert choose(surveyed(*layouts), parts={}, scope=scopes[1]) == layouts[1]
    assert scope_text(layouts[1]) == "c=2"


def test_without_a_guess_all_parts_are_needed() -> None:
    found = surveyed(missing=("it has no key",))
    with pytest.raises(InvalidInput, match=r"no key.*give --slot, --text too"):
        choose(found, parts={"id": "a"})
    parts = {"id": "a", "text": "b", "slot": "v"}
    assert choose(found, parts=parts) == Layout(id="a", text="b", slot="v", metadata=())


def test_what_is_not_found_names_what_there_is() -> None:
    assert "there are: none" in str(not_found("x", "here", []))
    many = str(not_found("x", "here", [f"t{n}" for n in range(30)]))
    assert "'t19', …" in many
    assert "'t20'" not in many
