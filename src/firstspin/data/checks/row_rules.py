"""The rules that a row of a table must keep, as SQL: what each breaks, where, and its value.

A rule is data: a field, a condition, and what is wrong where it holds (`findings.RowRule`). The kinds of columns have
their rules in `formats.columns`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from firstspin.data.checks import findings
from firstspin.data.checks.findings import RowRule
from firstspin.data.formats import columns
from firstspin.data.formats.columns import Cell, Kind, Shape, shape_of
from firstspin.data.formats.sources import PROBLEM, Column, Source, shown_alias
from firstspin.data.sql import identifier

SHOWN_CHARACTERS: Final = 80

BROKEN: Final = "number of the rule broken"
VALUE: Final = "value that broke it"
"""Columns of checked listens: the position of the first rule that a row breaks, or null, and the value that does."""

BROKEN_SQL: Final = identifier(BROKEN)
VALUE_SQL: Final = identifier(VALUE)
OTHERS_SQL: Final = identifier("rules that other columns broke")
_PROBLEM: Final = identifier(PROBLEM)


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a validated table, and the column of the file that it comes from."""

    name: str
    kind: Kind
    column: Column
    shape: Shape

    @property
    def received(self) -> str:
        """SQL: the column of the file, trimmed where its kind is."""
        text = f"{self.column.sql}::VARCHAR" if self.shape is Shape.text else self.column.sql
        return columns.trimmed(text) if self.shape is Shape.text and self.kind.trimmed else text

    def rule(self, broken: str, complaint: str) -> RowRule:
        """A rule of this column."""
        value = f"left({self.column.sql}::VARCHAR, {SHOWN_CHARACTERS})"
        return RowRule(self.name, shown_alias(self.name, self.column.header), broken, complaint, value)

    @property
    def cell(self) -> Cell:
        """The SQL names of the received column and of the validated one."""
        return Cell(identifier(f"{self.name} received"), self.shape, identifier(self.name))


def fields_of(source: Source, kinds: Mapping[str, Kind]) -> list[Field]:
    """The columns of a file that have one of our types; `kinds` are those of the table's columns."""
    shapes = {name: shape_of(column.type) for name, column in source.columns.items()}
    return [Field(name, kinds[name], source.columns[name], shape) for name, shape in shapes.items() if shape]


def rules_of(fields: Sequence[Field]) -> list[RowRule]:
    """The rules of a table: the one of a malformed row, then those of its columns."""
    of_values = [field.rule(one.broken, one.complaint) for field in fields for one in field.kind.problems(field.cell)]
    return [RowRule("", "", f"{_PROBLEM} IS NOT NULL", findings.MALFORMED, _PROBLEM), *of_values]


def validated(rows: str, fields: Sequence[Field], rules: Sequence[RowRule], *, every: bool) -> str:
    """SQL: the rows as `judged`, with the value that broke the rule."""
    return f"SELECT *, {bad_value(rules)} AS {VALUE_SQL} FROM ({judged(rows, fields, rules, every=every)})"


def judged(rows: str, fields: Sequence[Field], rules: Sequence[RowRule], *, every: bool) -> str:
    """SQL: the rows with the validated values, and the number of the first rule that each breaks.

    `every`: also a list of the first rules, with their values, that the other columns of the row break.
    """
    broken = " ".join(f"WHEN {rule.broken} THEN {number}" for number, rule in enumerate(rules))
    first = f"SELECT *, CASE {broken} END AS {BROKEN_SQL} FROM ({valued(rows, fields)})"
    others = f"CASE WHEN {BROKEN_SQL} > 0 THEN {_others(rules)} END AS {OTHERS_SQL}"
    return f"SELECT *, {others} FROM ({first})" if every else first


def bad_value(rules: Sequence[RowRule]) -> str:
    """SQL: the value of a received row that broke the rule of this number."""
    values = " ".join(f"WHEN {number} THEN {rule.value}" for number, rule in enumerate(rules))
    return f"CASE WHEN {BROKEN_SQL} IS NOT NULL THEN CASE {BROKEN_SQL} {values} END END"


def broken_columns(rules: Sequence[RowRule]) -> list[str]:
    """SQL: for each column, whether it breaks a rule. Of one column, DuckDB can often tell by the file's statistics."""
    by_field: dict[str, list[str]] = {}
    for rule in rules:
        by_field.setdefault(rule.field, []).append(f"({rule.broken})")
    return [" OR ".join(of) for of in by_field.values()]


def _others(rules: Sequence[RowRule]) -> str:
    """SQL: the first rule that each column breaks, but for the first column that breaks any."""
    by_field = {
        name: [(at, rule) for at, rule in enumerate(rules) if rule.field == name] for name in {r.field for r in rules}
    }
    firsts = ", ".join(
        f"CASE {' '.join(f'WHEN {rule.broken} THEN {{n: {at}, value: {rule.value}}}' for at, rule in of)} END"
        for of in by_field.values()
    )
    return f"list_filter([{firsts}], lambda one: one.n <> {BROKEN_SQL})"


def valued(rows: str, fields: Sequence[Field]) -> str:
    """SQL: the rows with the validated values."""
    received = ", ".join(f"{field.received} AS {field.cell.column}" for field in fields)
    values = ", ".join(f"{field.kind.value(field.cell.column, field.shape)} AS {field.cell.value}" for field in fields)
    return f"SELECT *, {values} FROM (SELECT *, {received} FROM {rows})"
