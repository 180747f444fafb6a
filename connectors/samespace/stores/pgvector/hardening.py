"""What a table refuses of those who write to it by themselves, and checks that make it refuse more."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
from psycopg import sql

from samespace.errors import InvalidInput, excerpt
from samespace.guard import SlotRecord
from samespace.hardening import (
    AUDIT,
    INSTALL,
    REPAIR,
    Change,
    Outcome,
    RawAct,
    RawWrite,
    insertion,
)
from samespace.names import bounded
from samespace.stores.pgvector.conditions import Parameters, where_clause
from samespace.stores.pgvector.definitions import same_check
from samespace.stores.pgvector.sql import scope_suffix, trigger_name, typed_values
from samespace.stores.pgvector.table import Name, Table, Text

_SIZED: Final = re.compile(r"vector\(\d+\)\Z")
_MARK: Final = "samespace guard"
_SUFFIXES: Final = ("__guard_norm", "__guard_dims")

FACTS: Final = sql.SQL("""
SELECT c.relkind IN ('r', 'p'),
  (SELECT coalesce(jsonb_agg(attname), '[]')::text FROM pg_attribute
    WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attnotnull),
  (SELECT coalesce(jsonb_object_agg(conname,
      jsonb_build_array(convalidated, pg_get_constraintdef(oid),
        coalesce(obj_description(oid, 'pg_constraint'), ''),
        (SELECT coalesce(jsonb_agg(attname), '[]') FROM pg_attribute
          WHERE attrelid = conrelid AND attnum = ANY (conkey)))), '{}')::text
    FROM pg_constraint WHERE conrelid = c.oid AND contype = 'c'),
  EXISTS (SELECT FROM pg_trigger WHERE tgrelid = c.oid AND tgname = %(trigger)s)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(name)s
""")
"""One row: what :class:`Facts` has, the lists as JSON. Parameters are :func:`facts_parameters`."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """A CHECK constraint that a table has."""

    name: str
    is_valid: bool
    """Whether all rows are known to pass."""
    definition: str
    comment: str
    columns: frozenset[str]


@dataclass(frozen=True, slots=True)
class Check:
    """A constraint that hardening adds for a slot; ``condition`` is true of what may be there.

    ``alone`` is the condition without the collection's scope. ``mark`` is the constraint's comment, by
    which it is known again, whatever it and its columns are called.
    """

    name: str
    slot: str
    what: str
    condition: sql.Composable
    alone: sql.Composable
    mark: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What a table has beside its columns' types."""

    is_table: bool
    """False of a view and a foreign table, to which nothing can be added."""
    obligatory: frozenset[str]
    """Columns that cannot be NULL."""
    checks: Mapping[str, Constraint]
    """CHECK constraints by name."""
    has_trigger: bool
    """Whether a text that changes empties the slots."""

    def enforcing(self, check: Check) -> Constraint | None:
        """The constraint that does what a check is for, one that has looked at all rows first."""
        found = [each for each in self.checks.values() if _is_same(each, check)]
        return max(found, key=lambda each: each.is_valid, default=None)

    def outdated(self, check: Check) -> list[Constraint]:
        """Constraints that hardening has added for the same, when something else was wanted."""
        return [each for each in self.checks.values() if _is_former(each, check)]


def _is_same(found: Constraint, check: Check) -> bool:
    if _is_marked(found, check):
        return found.comment == check.mark
    written = (check.condition, check.alone)
    return any(same_check(found.definition, plain(condition)) for condition in written)


def _is_former(found: Constraint, check: Check) -> bool:
    return (
        _is_marked(found, check)
        and found.comment != check.mark
        and (_topic(found.comment) == _topic(check.mark))
    )


def _is_marked(found: Constraint, check: Check) -> bool:
    """Whether hardening has added it for the same slot of the same collection."""
    return check.slot in found.columns and _owner(found.comment) == _owner(check.mark)


def _mark(table: Table, what: str) -> str:
    """The comment of a constraint: what it says, of which collection in the table."""
    return f"{_MARK} {_scope_digest(table)}: {what}"


def _scope_digest(table: Table) -> str:
    return hashlib.sha256(table.scope_key.encode()).hexdigest()[:8]


def _owner(comment: str) -> str:
    """The part of a mark that says whose it is; all of a comment that is no mark."""
    return comment.partition(": ")[0]


def _topic(comment: str) -> str:
    """The part of a mark that says what is looked at: its last word."""
    return comment.rpartition(" ")[2]


def facts_of(is_table: bool, obligatory: str, checks: str, has_trigger: bool) -> Facts:
    """A row of :data:`FACTS`."""
    found = {
        name: Constraint(name, valid, definition, comment, frozenset(columns))
        for name, (valid, definition, comment, columns) in orjson.loads(checks).items()
    }
    return Facts(is_table, frozenset(orjson.loads(obligatory)), found, has_trigger)


def facts_parameters(table: Table) -> dict[str, str]:
    """The parameters of :data:`FACTS`."""
    return {"schema": table.schema, "name": table.name, "trigger": trigger_name(table)}


def norm_check_name(table: Table, slot: str) -> str:
    """The name of the check of a slot's norm that hardening adds."""
    return bounded(slot + scope_suffix(table), "__guard_norm")


def size_check_name(table: Table, slot: str) -> str:
    """The name of the check of a slot's dimensions that hardening adds."""
    return bounded(slot + scope_suffix(table), "__guard_dims")


# What is refused


def raw_writes(table: Table, slot: SlotRecord, facts: Facts) -> tuple[RawWrite, ...]:
    """What becomes of each raw act in the slot of a table as it is."""
    sourced = table.has_source(slot.name) and not table.is_foreign(slot.name, slot.space)
    taken = insertion(sourced=sourced, why="the column takes any vector of its type")
    return (
        RawWrite(RawAct.UNNAMED, *_positional(sourced)),
        RawWrite(RawAct.OTHER_SPACE, Outcome.REFUSED, "there is no column of that name"),
        RawWrite(RawAct.UNKNOWN_FIELD, Outcome.REFUSED, "there is no column of that name"),
        RawWrite(RawAct.WRONG_DIMENSION, *_wrong_size(table, slot, facts, taken)),
        RawWrite(RawAct.UN_NORMALISED, *_off_norm(table, slot, facts, taken)),
        RawWrite(RawAct.NO_VECTOR, *_empty(slot, facts)),
        RawWrite(RawAct.IN_PLACE, *_in_place(facts)),
        RawWrite(RawAct.OTHER_MODEL, *_of_another(sourced)),
    )


_Verdict = tuple[Outcome, str, str]


def _positional(sourced: bool) -> _Verdict:
    return insertion(sourced=sourced, why="INSERT without a list of columns names no space")


def _wrong_size(table: Table, slot: SlotRecord, facts: Facts, taken: _Verdict) -> _Verdict:
    kind = table.columns[slot.name]
    if _SIZED.match(kind):
        return Outcome.REFUSED, f"the column is of type {kind}", ""
    if facts.enforcing(_size_check(table, slot)):
        return Outcome.REFUSED, "a check looks at the dimensions", ""
    return taken[0], f"the column is of type {kind}, of any size", _add(facts)


def _off_norm(table: Table, slot: SlotRecord, facts: Facts, taken: _Verdict) -> _Verdict:
    if not slot.space.normalized:
        return Outcome.NOT_APPLICABLE, "vectors of this space have any norm", ""
    if facts.enforcing(_norm_check(table, slot)):
        return Outcome.REFUSED, "a check looks at the norm", ""
    return taken[0], "nothing looks at the norm", _add(facts)


def _add(facts: Facts) -> str:
    return INSTALL if facts.is_table else f"a view takes no checks: {AUDIT}"


def _empty(slot: SlotRecord, facts: Facts) -> _Verdict:
    if slot.name in facts.obligatory:
        return Outcome.REFUSED, "the column is NOT NULL", ""
    return Outcome.PENDING, "a row may be without a vector, to be filled", REPAIR


def _in_place(facts: Facts) -> _Verdict:
    trigger = "the trigger looks at texts" if facts.has_trigger else "there is no trigger"
    return Outcome.STORED, f"a vector's own change is nobody's to judge: {trigger}", AUDIT


def _of_another(sourced: bool) -> _Verdict:
    return insertion(sourced=sourced, why="numbers do not say which model made them")


# What makes it refuse more


def checks(table: Table, slots: Sequence[SlotRecord]) -> Iterator[Check]:
    """The constraints that hardening has for a table, whether they are there or not."""
    for slot in slots:
        if not _SIZED.match(table.columns[slot.name]):
            yield _size_check(table, slot)
        if slot.space.normalized:
            yield _norm_check(table, slot)


def _size_check(table: Table, slot: SlotRecord) -> Check:
    size = slot.space.dimensions
    alone = sql.SQL("vector_dims({}) = {}").format(Name(slot.name), sql.Literal(size))
    return _check(table, slot, size_check_name(table, slot.name), f"{size} dimensions", alone)


def _norm_check(table: Table, slot: SlotRecord) -> Check:
    alone = sql.SQL("abs(vector_norm({}) - 1) < 0.001").format(Name(slot.name))
    return _check(table, slot, norm_check_name(table, slot.name), "unit norm", alone)


def _check(table: Table, slot: SlotRecord, name: str, what: str, alone: sql.Composable) -> Check:
    return Check(name, slot.name, what, _mine(table, alone), alone, _mark(table, what))


def _mine(table: Table, condition: sql.Composable) -> sql.Composable:
    """A condition on this collection's rows alone; those of others in the table pass."""
    pinned = _pinned(table)
    if not pinned:
        return condition
    scope = sql.SQL(" AND ").join(pinned)
    return sql.SQL("(({}) IS NOT TRUE) OR ({})").format(scope, condition)


def _pinned(table: Table) -> list[sql.Composable]:
    """The layout's scope, one condition a column, as the server prints it."""
    return [
        sql.SQL("({} = {})" if len(values) == 1 else "({} = ANY (ARRAY[{}]))").format(
            Name(column), typed_values(table, column, values)
        )
        for column, values in table.scope.items()
    ]


def add(table: Table, check: Check, facts: Facts) -> list[sql.Composed]:
    """Have new rows checked from now on, without a look at those that are there.

    Nothing where they are; former checks of the same slot that say something else go.
    """
    if facts.enforcing(check):
        return []
    add_constraint = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({}) NOT VALID").format(
        table.qualified, Name(check.name), check.condition
    )
    mark = sql.SQL("COMMENT ON CONSTRAINT {} ON {} IS {}").format(
        Name(check.name), table.qualified, Text(check.mark)
    )
    former = [remove(table, each.name) for each in facts.outdated(check)]
    return [*former, add_constraint, mark]


def validate(table: Table, name: str) -> sql.Composed:
    """Look at the rows that are there, while others read and write."""
    return sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(table.qualified, Name(name))


def remove(table: Table, name: str) -> sql.Composed:
    """Take a check away again."""
    return sql.SQL("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}").format(
        table.qualified, Name(name)
    )


def count_offenders(table: Table, check: Check) -> tuple[sql.Composed, Parameters]:
    """How many rows would not pass."""
    parameters = Parameters()
    clause = where_clause(table, parameters, None, sql.SQL("NOT ({})").format(check.condition))
    return sql.SQL("SELECT count(*) FROM {}{}").format(table.qualified, clause), parameters


def missing(wanted: Sequence[Check], facts: Facts) -> list[Check]:
    """The checks that are not there, or were added and have not looked at all rows."""
    found = [(check, facts.enforcing(check)) for check in wanted]
    return [check for check, constraint in found if constraint is None or _is_begun(constraint)]


def _is_begun(found: Constraint) -> bool:
    """Whether it is hardening's to have it look at all rows."""
    return not found.is_valid and (_is_named(found) or found.comment.startswith(_MARK))


def _is_named(found: Constraint) -> bool:
    return found.name.endswith(_SUFFIXES)


def installing(table: Table, checks: Sequence[Check], facts: Facts) -> tuple[Change, ...]:
    """What is to be done for checks that are :func:`missing`."""
    return tuple(
        Change(
            what=f"constraint {present_name(check, facts)} on {table.schema}.{table.name}",
            before=_before(check, facts),
            after=f"CHECK: {check.slot} has {check.what}",
            statement=_script(table, check, facts),
        )
        for check in checks
    )


def present_name(check: Check, facts: Facts) -> str:
    """The name of the constraint that does what a check is for, or that it will have."""
    found = facts.enforcing(check)
    return found.name if found else check.name


def check_names(wanted: Sequence[Check], facts: Facts) -> None:
    """:class:`InvalidInput` where another check has the name of one that is to be added."""
    for check in wanted:
        taken = facts.checks.get(check.name)
        if taken is None or facts.enforcing(check) or taken in facts.outdated(check):
            continue
        raise InvalidInput(
            f"there is a constraint {excerpt(check.name)} that was not made here for "
            f"{excerpt(check.slot)} ({excerpt(taken.definition)}); give it another name, then install again"
        )


def _before(check: Check, facts: Facts) -> str:
    found = facts.enforcing(check)
    replaced = [found] if found else facts.outdated(check)
    return "\n".join(each.definition for each in replaced)


def _script(table: Table, check: Check, facts: Facts) -> str:
    steps = [*add(table, check, facts), validate(table, present_name(check, facts))]
    return "\n".join(f"{plain(step)};" for step in steps)


def installed(table: Table, slots: Sequence[SlotRecord], facts: Facts) -> dict[str, str]:
    """The checks that hardening has added, with their definitions: also those that it would not now."""
    possible = [
        check for slot in slots for check in (_size_check(table, slot), _norm_check(table, slot))
    ]
    return {
        each.name: each.definition
        for each in facts.checks.values()
        if _owner(each.comment) == _owner(_mark(table, "")) or _is_unmarked(each, possible)
    }


def _is_unmarked(found: Constraint, possible: Sequence[Check]) -> bool:
    """Whether hardening has added it, or whoever ran its statements, and the comment is lost."""
    named = _is_named(found) and not found.comment
    return named and any(same_check(found.definition, plain(each.condition)) for each in possible)


def removing(table: Table, checks: Mapping[str, str]) -> tuple[Change, ...]:
    """What is to be done for the checks that are there, by name with their definitions."""
    return tuple(
        Change(
            what=f"constraint {name} on {table.schema}.{table.name}",
            before=definition,
            after="",
            statement=f"{plain(remove(table, name))};",
        )
        for name, definition in checks.items()
    )


def plain(statement: sql.Composable) -> str:
    """A statement as it is sent without parameters: its doubled ``%`` are single."""
    return statement.as_string(None).replace("%%", "%")
