"""What a table has beside users: totals and notes at its ends, blank rows, rows without an arm, arms in two cases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Final

from firstspin.data import parsing
from firstspin.data.formats.columns import Shape
from firstspin.data.sql import literal
from firstspin.experiment.assign import MAX_ARMS
from firstspin.experiment.reading.outcome_columns import NAME, ROW, SHOWN_CHARACTERS, OutcomeTable, value
from firstspin.experiment.rules import listed

TOTALS: Final = frozenset(
    (
        *(
            "total",
            "totals",
            "grand total",
            "sum",
            "overall",
            "all",
            "all users",
            "all variants",
            "all arms",
            "everyone",
        ),
        *("gesamt", "summe", "gesamtergebnis", "gesamtsumme", "insgesamt", "alle", "alle nutzer", "alle varianten"),
        *("total général", "total general", "ensemble", "tous"),
    )
)
"""What spreadsheets write in front of a total, in lower case without a colon."""

MAX_TOTALS: Final = 7
"""Rows of one name that may be totals (of the days of a week); more rows are an arm."""


def drop_rows_at_ends(table: OutcomeTable, names: Sequence[str], known: Collection[str]) -> None:
    """Delete blank rows and notes at the end of a table of text, and first and last rows that are totals.

    A total has one of `TOTALS` in a column of `names`, unless an arm of that name is `known`. A note is the only cell
    of a row below a blank one. Each row with a cell that is deleted is noted.
    """
    texts = [column for column in table.types if table.shape(column) is Shape.text]
    if len(texts) < len(table.types):
        return
    real = {arm.casefold() for arm in known}
    cells = ", ".join(f"{table.raw(column)}::VARCHAR" for column in texts)
    filled = f"trim(concat({cells}), {literal(parsing.SPACE)}) <> ''"
    at = f"SELECT {ROW}, {cells} FROM {table.table} WHERE {filled} ORDER BY {ROW}"
    place = "last"
    while rows := table.query(f"{at} DESC LIMIT 2" if place == "last" else f"{at} LIMIT 1"):
        row, *found = rows[0]
        if place == "last":
            table.connection.execute(f"DELETE FROM {table.table} WHERE {ROW} > {row}")
        written = {column: str(cell or "").strip() for column, cell in zip(texts, found, strict=True)}
        there = [text for text in written.values() if text]
        alone = len(there) == 1 < len(texts) and len(rows) > 1 and int(str(row)) - int(str(rows[1][0])) > 1
        if any(_is_total(table, name, written[name], real) for name in names):
            table.notes.append(f"Row {row:,}, the {place} one, is a total and is excluded.")
        elif (
            alone
            and there[0].casefold() not in real
            and not any(_repeated(table, name, text) for name, text in written.items() if text)
        ):
            shown = f" ({there[0][:SHOWN_CHARACTERS]!r})"
            table.notes.append(f"Row {row:,}{shown} is a note below the table and is excluded.")
        elif place == "first":
            break
        else:
            place = "first"
            continue
        table.connection.execute(f"DELETE FROM {table.table} WHERE {ROW} = {row}")


def _is_total(table: OutcomeTable, column: str, text: str, real: Collection[str]) -> bool:
    word = text.casefold().rstrip(": ")
    return word in TOTALS and text.casefold() not in real and _repeated(table, column, text) < MAX_TOTALS


def _repeated(table: OutcomeTable, column: str, text: str) -> int:
    """The number of further rows with this text in the column."""
    same = f"SELECT count(*) FROM {table.rows([column])} WHERE {table.trimmed(column)} = {literal(text)}"
    return int(str(table.query(same)[0][0])) - 1


def drop_without_arm(table: OutcomeTable, arm: str, name: str) -> int:
    """Delete the rows without an arm (`name`, its SQL), whose other cells need no valid value; returns their number."""
    bare = f"SELECT {ROW} FROM {table.rows([arm])} WHERE {name} IS NULL"
    if rows := len(table.query(bare)):
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
