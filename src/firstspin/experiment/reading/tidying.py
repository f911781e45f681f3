"""What a table has beside users: blank rows and a total at its end, rows without an arm, arms in two cases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Final

from firstspin.data import parsing
from firstspin.data.formats.columns import Shape
from firstspin.data.sql import literal
from firstspin.experiment.assign import MAX_ARMS
from firstspin.experiment.reading.outcome_columns import NAME, ROW, OutcomeTable, value
from firstspin.experiment.rules import listed

TOTALS: Final = ("total", "totals", "grand total", "sum", "overall", "all users", "gesamt", "summe", "gesamtergebnis")
"""What spreadsheets write in front of a total, in lower case."""


def drop_rows_at_end(table: OutcomeTable, names: Sequence[str]) -> None:
    """Delete blank rows at the end of a table of text, and a last row with the word "total" in a column of `names`."""
    texts = [column for column in table.types if table.shape(column) is Shape.text]
    if len(texts) < len(table.types):
        return
    filled = " OR ".join(f"coalesce({table.trimmed(column)}, '') <> ''" for column in texts)
    last = f"SELECT coalesce(max({ROW}), 0) FROM {table.rows(texts)} WHERE {filled}"
    table.connection.execute(f"DELETE FROM {table.table} WHERE {ROW} > ({last})")
    cells = ", ".join(f"coalesce(lower({table.trimmed(column)}), '')" for column in names)
    for row, *found in table.query(f"SELECT {ROW}, {cells} FROM {table.rows(texts)} WHERE {ROW} = ({last})"):
        if set(found) & set(TOTALS):
            table.connection.execute(f"DELETE FROM {table.table} WHERE {ROW} = {row}")
            table.notes.append(f"Row {row:,}, the last one, is a total and is excluded.")
            drop_rows_at_end(table, names)


def drop_without_arm(table: OutcomeTable, arm: str, name: str) -> int:
    """Delete the rows without an arm (`name`, its SQL), whose other cells need no valid value; returns their number."""
    bare = f"SELECT {ROW} FROM {table.rows([arm])} WHERE {name} IS NULL"
    rows = len(table.query(bare))
    table.connection.execute(f"DELETE FROM {table.table} WHERE {ROW} IN ({bare})")
    return rows


def arm_name(table: OutcomeTable, arm: str, known: Collection[str]) -> str:
    """SQL of the arm; arms that differ only in case are one, named as in `known` or else as most of its rows.

    A word for a blank (NULL, '-') is no arm, unless it is `known`. All names are kept where `known` is empty, and those
    that `known` has in both cases.
    """
    sql = value(table, arm, NAME)
    counted = f"SELECT arm FROM (SELECT {sql} AS arm FROM {table.rows([arm])}) WHERE arm IS NOT NULL GROUP BY arm"
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for (name,) in table.query(f"{counted} ORDER BY count(*) DESC, arm LIMIT {MAX_ARMS + 1}") if known else ():
        alike[str(name).casefold()].append(str(name))
    blanks = {name for names in alike.values() for name in names if parsing.is_blank(name)} - {*known}
    cases = [f"WHEN {literal(name)} THEN NULL" for name in sorted(blanks)]
    for folded, names in sorted(alike.items()):
        wanted = [name for name in dict.fromkeys(known) if name.casefold() == folded] or names[:1]
        others = [name for name in names if name != wanted[0] and name not in blanks]
        if others and len(wanted) == 1:
            cases += [f"WHEN {literal(name)} THEN {literal(wanted[0])}" for name in others]
            table.notes.append(f"Arm {listed(sorted(others))} is read as {wanted[0]}: they differ only in case.")
    return f"CASE {sql} {' '.join(cases)} ELSE {sql} END" if cases else sql
