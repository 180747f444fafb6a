"""Schedules of writers, fillers and a migration on one collection, and what must hold of each.

A schedule is a list of steps, each a rule with its arguments, as ``[("put", "a", "x", "old"),
("read", 0, "new", "pending"), …]``. It can be printed, and run on whatever has rows: those in memory,
or a real store. A rule that does not apply where it comes is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.migrate.memory_rows import NEW, NONE, OLD, Attempt, MemoryRows, Symbol, Symbols

Step = tuple[Any, ...]
"""A rule's name and its arguments."""
Schedule = Sequence[Step]
FILLERS = 2
PASSES = 20
"""More than fillers need to find nothing left to do."""


class Broken(AssertionError):
    """What must hold does not."""


class Rows(Protocol):
    """A collection with slots :data:`OLD` and :data:`NEW`, each of which keeps sources or not."""

    slots: dict[str, bool]

    @property
    def empties(self) -> bool:
        """Whether a text that changes in place empties the slots that it leaves behind."""

    def put(self, key: str, text: str, note: int, vectors: Symbols) -> None: ...
    def change(
        self, key: str, *, text: str | None = None, note: int | None = None, vectors: Symbols = NONE
    ) -> None: ...
    def delete(self, key: str) -> None: ...
    def add_slot(self, slot: str) -> None: ...
    def open_slot(self, slot: str) -> None: ...
    def drop_slot(self, slot: str) -> None: ...
    def pending(self, slot: str) -> list[Any]: ...
    def stale(self, slot: str) -> list[Any]: ...
    def fresh(self, slot: str) -> dict[str, Symbol]: ...
    def texts(self) -> dict[str, tuple[str, int]]: ...
    def vectors(self, slot: str) -> dict[str, Symbol]: ...
    def begin(self, slot: str, rows: Sequence[Any]) -> Any: ...
    def advance(self, attempt: Any) -> Any: ...


@dataclass
class World:
    """Rows, those who work on them, and what each of them has been told.

    ``held`` has each filler's fill under way, ``halves`` by key who has changed a text and is yet to
    send its vector: nobody else writes that row meanwhile, as two such changes of one row go wrong
    without any migration. ``left``, ``given`` and ``past`` tell what no store can know
    (:meth:`_is_blind`). ``ready`` is whether the new slot is open.
    """

    rows: Rows
    wanted: dict[str, tuple[str, int]] = field(default_factory=dict)
    held: list[Any] = field(default_factory=lambda: [None] * FILLERS)
    halves: dict[str, str] = field(default_factory=dict)
    left: set[tuple[str, str]] = field(default_factory=set)
    given: dict[tuple[str, str], tuple[str, frozenset[str]]] = field(default_factory=dict)
    past: dict[str, set[str]] = field(default_factory=dict)
    ready: bool = False
    notes: int = 0

    def run(self, schedule: Iterable[Step]) -> None:
        """Take each step, and look at what must hold after it."""
        for step in schedule:
            self.take(step)
            self.check()

    def take(self, step: Step) -> None:
        """Take a step."""
        name, *arguments = step
        getattr(self, name)(*arguments)

    # Writers, of whom each knows its own model's slot alone

    def put(self, key: str, text: str, model: str) -> None:
        """Insert a row, or replace it whole."""
        if self._may_write(key, model):
            self.rows.put(key, text, self._noted(key, text), {model: Symbol(model, text)})
            self._forget(key)
            self.past[key] = {text}

    def edit(self, key: str, text: str, model: str) -> None:
        """Change text and vector in place."""
        if self._may_change(key, model):
            self._mark_left(key, text, model)
            self.rows.change(key, text=text, vectors={model: Symbol(model, text)})
            self._mark_given(key, model)

    def edit_text(self, key: str, text: str, model: str) -> None:
        """The first of two requests that do the same."""
        if self._may_change(key, model):
            self._mark_left(key, text, model)
            self.rows.change(key, text=text)
            self.halves[key] = model

    def edit_vector(self, key: str) -> None:
        """The second."""
        if key not in self.halves:
            return
        model, text = self.halves.pop(key), self.wanted[key][0]
        if model in self.rows.slots:
            self.rows.change(key, vectors={model: Symbol(model, text)})
            self._mark_given(key, model)

    def edit_only(self, key: str, text: str) -> None:
        """Change a text and leave all vectors to the migration, where it sees that."""
        sees = self.rows.empties or all(self.rows.slots.values())
        if sees and self._may_change(key, next(iter(self.rows.slots))):
            self._mark_left(key, text, None)
            self.rows.change(key, text=text)

    def annotate(self, key: str) -> None:
        """Change a row's metadata."""
        if key in self.wanted:
            self.rows.change(key, note=self._noted(key, self.wanted[key][0]))

    def delete(self, key: str) -> None:
        """Delete a row."""
        if key in self.wanted and key not in self.halves:
            self.rows.delete(key)
            del self.wanted[key]
            self._forget(key)

    # Fillers

    def read(self, filler: int, slot: str, what: str) -> None:
        """Read what there is to fill; what the filler held is lost, as in a crash."""
        self.crash(filler)
        if slot in self.rows.slots:
            found = self.rows.pending(slot) if what == "pending" else self.rows.stale(slot)
            self.held[filler] = self.rows.begin(slot, found) if found else None

    def advance(self, filler: int) -> None:
        """Do the next step of a fill."""
        if self.held[filler] is not None:
            self.held[filler] = self.rows.advance(self.held[filler])

    def complete(self, filler: int) -> None:
        """Do all that is left of a fill."""
        while self.held[filler] is not None:
            self.advance(filler)

    def crash(self, filler: int) -> None:
        """A filler dies, with what it held."""
        attempt, self.held[filler] = self.held[filler], None
        if attempt is not None and hasattr(attempt, "kill"):
            attempt.kill()

    # The migration

    def begin(self) -> None:
        """Add the new slot, or go on with what is there."""
        if NEW not in self.rows.slots:
            self.rows.add_slot(NEW)

    def open(self) -> None:
        """Mark the new slot ready, if nothing is left to do in it."""
        if NEW in self.rows.slots and not self._to_do(NEW):
            self.rows.open_slot(NEW)
            self.ready = True

    def finish(self) -> None:
        """Drop the old slot, unless a row would lose its only vector."""
        if self.ready and OLD in self.rows.slots and not self._to_do(NEW):
            self._drop(OLD, NEW)

    def abort(self) -> None:
        """Drop the new slot, unless a row would lose its only vector."""
        if {OLD, NEW} <= self.rows.slots.keys() and not self._to_do(OLD):
            self._drop(NEW, OLD)
            self.ready = False

    def abandon(self) -> None:
        """Drop the new slot; what only that one had is pending in the old one."""
        if {OLD, NEW} <= self.rows.slots.keys():
            self.rows.drop_slot(NEW)
            self.ready = False

    def finish_unchecked(self) -> None:
        """Drop the old slot, whatever is in the new one: a wrong migration."""
        if {OLD, NEW} <= self.rows.slots.keys():
            self._drop(OLD, NEW)

    def settle(self) -> None:
        """All writers end what they have begun, and fillers go on until nothing is left to do."""
        for key in list(self.halves):
            self.edit_vector(key)
        for filler in range(FILLERS):
            self.complete(filler)
        for _ in range(PASSES):
            if not any(self._to_do(slot) for slot in self.rows.slots):
                return
            for slot in list(self.rows.slots):
                for what in ("pending", "stale"):
                    self.read(0, slot, what)
                    self.complete(0)
        raise Broken(f"after {PASSES} passes there are rows to fill")

    # What must hold

    def check(self) -> None:
        """No row is lost or has come back, and no wrong vector passes for a right one."""
        stored = self.rows.texts()
        if stored != self.wanted:
            raise Broken(f"the rows are {stored}, written were {self.wanted}")
        for slot in self.rows.slots:
            self._look_again(slot)
            for key, vector in self.rows.fresh(slot).items():
                right = Symbol(slot, stored[key][0])
                if vector != right and not self._is_blind(key, slot, vector):
                    raise Broken(f"row {key!r} passes for {right}, and holds {vector}")

    def check_settled(self) -> None:
        """Every slot has the right vector of every row."""
        self.check()
        for slot in self.rows.slots:
            missing = self.wanted.keys() - self.rows.fresh(slot).keys()
            if missing:
                raise Broken(f"slot {slot!r} lacks {sorted(missing)}")

    def _is_blind(self, key: str, slot: str, vector: Symbol) -> bool:
        """The two things that no source can show; only embedding again, or a fingerprint, can.

        *No source*: a slot that somebody else made does not say what its vectors are of, so that one
        which is left behind by a writer of the other model, in place, passes for right.

        *A text that returns*: a writer of a slot's own model changes text and vector in place, and
        writes no source; then the text goes back, in place, to what the source speaks of.

        Neither is where the server empties what a change leaves behind. Between a writer's own two
        requests its slot is as its writer leaves it.
        """
        if self.halves.get(key) == slot:
            return True
        if self.rows.empties:
            return False
        given, before = self.given.get((key, slot), ("", frozenset()))
        returned = given == vector.text and self.wanted[key][0] in before
        return returned or (key, slot) in self.left

    def _look_again(self, slot: str) -> None:
        """Forget what was left or given once another vector is there."""
        vectors = self.rows.vectors(slot)
        for key, (text, _) in self.wanted.items():
            vector = vectors.get(key)
            if vector is None or vector.text == text:
                self.left.discard((key, slot))
            if vector is None or vector.text != self.given.get((key, slot), ("",))[0]:
                self.given.pop((key, slot), None)

    def _mark_left(self, key: str, text: str, model: str | None) -> None:
        self.wanted[key] = text, self.wanted[key][1]
        self.past[key].add(text)
        self.left |= {
            (key, slot) for slot, sees in self.rows.slots.items() if slot != model and not sees
        }

    def _mark_given(self, key: str, model: str) -> None:
        self.left.discard((key, model))
        if self.rows.slots[model]:
            text = self.wanted[key][0]
            self.given[key, model] = text, frozenset(self.past[key] - {text})

    def _forget(self, key: str) -> None:
        self.left = {pair for pair in self.left if pair[0] != key}
        self.given = {pair: text for pair, text in self.given.items() if pair[0] != key}

    def _noted(self, key: str, text: str) -> int:
        self.notes += 1
        self.wanted[key] = text, self.notes
        return self.notes

    def _may_write(self, key: str, model: str) -> bool:
        return model in self.rows.slots and key not in self.halves

    def _may_change(self, key: str, model: str) -> bool:
        return key in self.wanted and self._may_write(key, model)

    def _to_do(self, slot: str) -> bool:
        return bool(self.rows.pending(slot) or self.rows.stale(slot))

    def _drop(self, slot: str, other: str) -> None:
        """No row that had a vector is left without one."""
        had = self.rows.vectors(slot).keys()
        self.rows.drop_slot(slot)
        bare = had - self.rows.vectors(other).keys()
        if bare:
            raise Broken(f"the only vectors of {sorted(bare)} are gone")


def broken(rows: Rows, schedule: Schedule) -> Broken | None:
    """What does not hold after one of the steps, or once all is settled."""
    world = World(rows)
    try:
        world.run([*schedule, ("settle",)])
        world.check_settled()
    except Broken as fault:
        return fault
    return None


def shortened(make: Callable[[], Rows], schedule: Schedule) -> Schedule:
    """What is left of a schedule that breaks what must hold if no step can be spared."""
    for place in reversed(range(len(schedule))):
        shorter = [*schedule[:place], *schedule[place + 1 :]]
        if broken(make(), shorter) is not None:
            return shortened(make, shorter)
    return schedule


def shortest(
    make: Callable[[], MemoryRows], steps: Sequence[Step], *, longest: int
) -> Schedule | None:
    """One of the shortest schedules of these steps after which something does not hold.

    All of at most so many steps are tried, but for those that lead to where another has led.
    """
    seen: set[object] = set()
    reached: list[tuple[Step, ...]] = [()]
    for _ in range(longest):
        following: list[tuple[Step, ...]] = []
        for schedule in ((*before, step) for before in reached for step in steps):
            rows = make()
            world = World(rows)
            for step in schedule:
                world.take(step)
            try:
                world.check()
            except Broken:
                return schedule
            if (place := _place(world, rows)) not in seen:
                seen.add(place)
                following.append(schedule)
        reached = following
    return None


def _place(world: World, rows: MemoryRows) -> object:
    """Where a schedule has led, with all that bears on what may come."""
    names = _Names()
    stored = [
        (key, row.text, names[row.version], slot, cell.vector, cell.source, names[cell.claim])
        for key, row in sorted(rows.rows.items())
        for slot, cell in sorted(row.cells.items())
    ]
    held = [attempt and _held(attempt, names) for attempt in world.held]
    told = (world.halves, world.given, {key: frozenset(texts) for key, texts in world.past.items()})
    known = [frozenset(each.items()) for each in told]
    return (*stored, *held, *known, frozenset(world.left), world.ready, frozenset(rows.slots))


def _held(attempt: Attempt, names: _Names) -> object:
    rows = [
        (seen.key, seen.text, names[seen.version], seen.has_vector, seen.source, names[seen.claim])
        for seen in attempt.rows
    ]
    return (attempt.slot, attempt.steps, names[attempt.token], *rows)


class _Names(dict[int | None, int]):
    """Versions and claims by the order in which they are met: only which are the same counts."""

    def __missing__(self, number: int | None) -> int:
        return self.setdefault(number, -1 if number is None else len(self))
