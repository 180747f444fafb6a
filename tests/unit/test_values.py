"""Values of a field are counted by document, in one order that can be paged through."""

from __future__ import annotations

from typing import Any

from samespace import Document
from samespace.documents import Parent
from samespace.filters import Target
from samespace.stores.values import Values


def counted(*values: Any) -> Values:
    """Documents whose field ``a.b`` has these values."""
    found = Values(Target.METADATA, ("a", "b"))
    for place, value in enumerate(values):
        found.add(Document(str(place), "text", {"a": {"b": value}}))
    return found


def test_numbers_are_one_value_by_value_and_a_truth_value_is_none() -> None:
    found = counted(2, 2.0, 1, True, "1", ["a", "a", None], {"k": 1}, {"k": 1.0}, None, [])
    assert found.listed(limit=100) == [
        (True, 1),
        (1, 1),
        (2, 2),
        ("1", 1),
        ("a", 1),
        ({"k": 1}, 2),
    ]


def test_pages_follow_one_another() -> None:
    found = counted("b", "a", 2, 2.5, False, ["a", "c"], {"k": 1})
    whole = found.listed(limit=100)
    paged = found.listed(limit=2)
    while more := found.listed(limit=2, after=paged[-1][0]):
        paged += more
    assert paged == whole


def test_a_path_leads_through_objects_only() -> None:
    found = Values(Target.METADATA, ("a", "b"))
    found.add(Document("1", "text", {"a": [{"b": 1}]}))
    found.add(Document("2", "text", {"a.b": 1}))
    assert found.listed(limit=100) == []


def test_ids_and_parents_are_values_too() -> None:
    ids, parents = Values(Target.ID, ()), Values(Target.PARENT, ())
    for document in (Document("x", "text", parent=Parent("p")), Document("y", "text")):
        ids.add(document)
        parents.add(document)
    assert ids.listed(limit=10) == [("x", 1), ("y", 1)]
    assert parents.listed(limit=10) == [("p", 1)]
