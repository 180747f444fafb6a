"""A set of fingerprints is a set, however many there are."""

from __future__ import annotations

import random

from samespace.documents import Document, Parent
from samespace.migrate.fingerprints import Fingerprints, fingerprint, fingerprint_of_chunks

CHANCE = random.Random(7)  # noqa: S311  repeatable, not secret
EDGES = [0, 1, 2**63 - 1, 2**63, 2**64 - 1]


def test_what_was_added_is_there_once_and_nothing_else() -> None:
    numbers = [*EDGES, *(CHANCE.getrandbits(64) for _ in range(40_000))]
    found = Fingerprints()
    for number in [*numbers, *numbers]:
        found.add(number)
    assert len(found) == len(set(numbers))
    assert all(number in found for number in numbers)
    assert not any(number ^ 5 in found for number in numbers[len(EDGES) :])


def test_a_row_is_told_from_one_whose_id_and_text_join_alike() -> None:
    alike = [Document("a", "bc"), Document("ab", "c"), Document("a", "bc ")]
    assert len({fingerprint(each) for each in alike}) == 3
    assert fingerprint(Document("a", "x", embed_text="bc")) == fingerprint(alike[0])


def test_what_was_taken_out_is_no_longer_there() -> None:
    found = Fingerprints()
    for number in range(3_000):
        found.add(number)
    for number in (0, 1_500, 2_999, 5_000):
        found.discard(number)
    assert len(found) == 2_997
    assert not any(number in found for number in (0, 1_500, 2_999))


def test_chunks_are_told_from_others_by_ids_texts_places_and_order() -> None:
    first, second = Document("a", "x", parent=Parent("p", 0, (0, 1))), Document("b", "y")
    moved = Document("a", "x", parent=Parent("p", 0, (0, 2)))
    others = [[first, second], [second, first], [first], [moved, second]]
    assert len({fingerprint_of_chunks(each) for each in others}) == 4
