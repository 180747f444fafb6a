"""What a table refuses of those who write to it by themselves, and checks that make it refuse more."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

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
from samespace.stores.pgvector.sql import pinned_columns, scope_suffix, trigger_name
from samespace.stores.pgvector.table import Name, Table

_SIZED: Final = re.compile(r"vector\(\d+\)\Z")
_CAST: Final = re.compile(r"::(?:\"[^\"]+\"|[a-z_]+(?: [a-z]+)*)(?:\(\d+\))?")
_NOISE: Final = re.compile(r"[()\"'\s]")

FACTS: Final = sql.SQL("""
SELECT c.relkind IN ('r', 'p'),
  (SELECT coalesce(jsonb_agg(attname), '[]')::text FROM pg_attribute
    WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attnotnull),
  (SELECT coalesce(jsonb_object_agg(conname,
      jsonb_build_array(convalidated, pg_get_constraintdef(oid))), '{}')::text
    FROM pg_constraint WHERE conrelid = c.oid AND contype = 'c'),
  EXISTS (SELECT FROM pg_trigger WHERE tgrelid = c.oid AND tgname = %(trigger)s)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(name)s
""")
"""One row: what :class:`Facts` has, the lists as JSON. Parameters are :func:`facts_parameters`."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a table has beside its columns' types."""

    is_table: bool
    """False of a view and a foreign table, to which nothing can be added."""
    obligatory: frozenset[str]
    """Columns that cannot be NULL."""
    checks: Mapping[str, tuple[bool, str]]
    """CHECK constraints by name: whether all rows are known to pass, and the definition."""
    has_trigger: bool
    """Whether a text that changes empties the slots."""

    def has_ours(self, name: str, slot: str) -> bool:
        """Whether there is such a check, and it is one that hardening adds for a slot."""
        return name in self.checks and _is_ours(self.checks[name][1], slot)


@dataclass(frozen=True, slots=True)
class Check:
    """A constraint that hardening adds for a slot; ``condition`` is true of what may be there."""

    name: str
    slot: str
    what: str
    condition: sql.Composable


def _is_ours(definition: str, slot: str) -> bool:
    """Whether a check, as the server prints it, looks at norm or dimensions of a slot, and no more."""
    bare, named = _NOISE.sub("", _CAST.sub("", definition)), re.escape(_NOISE.sub("", slot))
    schema = r"(?:[^.]+\.)?"
    asked = rf"abs{schema}vector_norm{named}-1<0\.001|{schema}vector_dims{named}=\d+"
    return re.fullmatch(rf"CHECK(?:.*ISNOTTRUEOR)?(?:{asked})(?:NOTVALID)?", bare) is not None


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
    if facts.has_ours(size_check_name(table, slot.name), slot.name):
        return Outcome.REFUSED, "a check looks at the dimensions", ""
    return taken[0], f"the column is of type {kind}, of any size", _add(facts)


def _off_norm(table: Table, slot: SlotRecord, facts: Facts, taken: _Verdict) -> _Verdict:
    if not slot.space.normalized:
        return Outcome.NOT_APPLICABLE, "vectors of this space have any norm", ""
    if _has_norm_check(table, slot, facts):
        return Outcome.REFUSED, "a check looks at the norm", ""
    return taken[0], "nothing looks at the norm", _add(facts)


def _has_norm_check(table: Table, slot: SlotRecord, facts: Facts) -> bool:
    own = bounded(slot.space.id, "__norm") if slot.name == slot.space.id else ""
    return own in facts.checks or facts.has_ours(norm_check_name(table, slot.name), slot.name)


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


def checks(table: Table, slots: Sequence[SlotRecord], facts: Facts) -> Iterator[Check]:
    """The constraints that hardening has for a table, whether they are there or not."""
    for slot in slots:
        if not _SIZED.match(table.columns[slot.name]):
            yield _size_check(table, slot)
        if slot.space.normalized and not _has_own_norm_check(slot, facts):
            yield _norm_check(table, slot)


def _has_own_norm_check(slot: SlotRecord, facts: Facts) -> bool:
    return slot.name == slot.space.id and bounded(slot.space.id, "__norm") in facts.checks


def _size_check(table: Table, slot: SlotRecord) -> Check:
    condition = sql.SQL("vector_dims({}) = {}").format(
        Name(slot.name), sql.Literal(slot.space.dimensions)
    )
    name = size_check_name(table, slot.name)
    return Check(name, slot.name, f"{slot.space.dimensions} dimensions", _mine(table, condition))


def _norm_check(table: Table, slot: SlotRecord) -> Check:
    condition = sql.SQL("abs(vector_norm({}) - 1) < 1e-3").format(Name(slot.name))
    return Check(norm_check_name(table, slot.name), slot.name, "unit norm", _mine(table, condition))


def _mine(table: Table, condition: sql.Composable) -> sql.Composable:
    """A condition on this collection's rows alone; those of others in the table pass."""
    pinned = pinned_columns(table)
    if not pinned:
        return condition
    return sql.SQL("({}) IS NOT TRUE OR {}").format(sql.SQL(" AND ").join(pinned), condition)


def add(table: Table, check: Check) -> sql.Composed:
    """New rows are checked from now on, without a look at those that are there."""
    return sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({}) NOT VALID").format(
        table.qualified, Name(check.name), check.condition
    )


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


def installing(table: Table, wanted: Sequence[Check], facts: Facts) -> tuple[Change, ...]:
    """What is to be done for checks that are missing, or have not looked at all rows."""
    return tuple(
        Change(
            what=f"constraint {check.name} on {table.schema}.{table.name}",
            before=_found(facts, check.name),
            after=f"CHECK: {check.slot} has {check.what}",
            statement=_script(table, check, facts),
        )
        for check in wanted
        if not facts.checks.get(check.name, (False, ""))[0]
    )


def check_names(wanted: Sequence[Check], facts: Facts) -> None:
    """:class:`InvalidInput` where somebody's check has the name of one that is wanted."""
    for check in wanted:
        if check.name in facts.checks and not facts.has_ours(check.name, check.slot):
            raise InvalidInput(
                f"there is a constraint {excerpt(check.name)} that was not made here "
                f"({excerpt(facts.checks[check.name][1])}); give it another name, then install again"
            )


def _script(table: Table, check: Check, facts: Facts) -> str:
    steps = [] if check.name in facts.checks else [add(table, check)]
    return "\n".join(f"{plain(step)};" for step in [*steps, validate(table, check.name)])


def installed(table: Table, slots: Sequence[SlotRecord], facts: Facts) -> dict[str, str]:
    """The checks that hardening has added, with their definitions: also those that it would not now."""
    return {
        name: facts.checks[name][1]
        for slot in slots
        for name in (size_check_name(table, slot.name), norm_check_name(table, slot.name))
        if facts.has_ours(name, slot.name)
    }


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


def _found(facts: Facts, name: str) -> str:
    return facts.checks[name][1] if name in facts.checks else ""


def plain(statement: sql.Composed) -> str:
    """A statement as it is sent without parameters: its doubled ``%`` are single."""
    return statement.as_string(None).replace("%%", "%")
