"""How a column of outcomes spells its numbers and dates: by its values, or by an option where they are ambiguous.

1,234 is 1234 in a column that also has 1,234.5, and 1.234 in one that has 12,5. 05/02/2026 is in February where another
date of the column is 13/02/2026. A column without such a value is an error that names the option.
"""

from __future__ import annotations

from collections.abc import Mapping

from firstspin.data.formats import written_values
from firstspin.data.formats.columns import Kind, Shape
from firstspin.data.formats.written_values import DayOrder, Spelling
from firstspin.experiment.reading.outcome_columns import (
    AMOUNT,
    ISO_DAY,
    PLAIN_AMOUNT,
    ROW,
    SHOWN_CHARACTERS,
    OutcomeTable,
    amounts,
    days,
    fits,
)
from firstspin.records import InputError


def amount(table: OutcomeTable, column: str, spelling: Spelling) -> Kind:
    """The kind that reads the numbers of a column.

    Raises InputError where their decimal mark is ambiguous or differs, and where percentages or currencies are mixed.
    """
    if table.shape(column) is not Shape.text:
        return AMOUNT
    if not spelling.decimal and fits(table, column, PLAIN_AMOUNT):
        return PLAIN_AMOUNT
    text = table.trimmed(column)
    point, comma = (written_values.is_number(text, mark) for mark in ("point", "comma"))
    separated, percent = written_values.separated(text), written_values.is_percent(text)
    rows = _first_rows(
        table,
        column,
        {
            "point": f"{point} AND NOT {comma}",
            "comma": f"{comma} AND NOT {point}",
            "either": f"{point} AND {comma} AND {separated} AND contains({text}, ',')",
            "dotted": f"{point} AND {comma} AND {separated} AND contains({text}, '.')",
            "percent": f"({point} OR {comma}) AND {percent}",
            "plain": f"({point} OR {comma}) AND NOT {percent} AND regexp_matches({text}, '[1-9]')",
        },
    )
    if "percent" in rows and "plain" in rows:
        raise _error(table, column, rows, ("percent", "plain"), "only one has a percent sign: write all alike")
    _refuse_currencies(table, column, f"{point} OR {comma}")
    if spelling.decimal:
        return amounts(spelling.decimal)
    if "point" in rows and "comma" in rows:
        raise _error(table, column, rows, ("point", "comma"), "the decimal marks differ: write all alike")
    if "point" in rows or "comma" in rows:
        return amounts("point" if "point" in rows else "comma")
    if "either" in rows:
        told = "ambiguous: a decimal comma or a thousands separator; give --decimal comma or --decimal point"
        raise _error(table, column, rows, ("either",), told)
    if "dotted" in rows:
        shown = _shown(table, column, rows["dotted"])
        table.notes.append(f"{column} {shown} is read with a decimal point; with --decimal comma it is in thousands.")
    return AMOUNT


def day_kind(table: OutcomeTable, column: str, spelling: Spelling) -> Kind:
    """The kind that reads the days of a column. Raises InputError as `day_order`."""
    if table.shape(column) is Shape.text and fits(table, column, ISO_DAY):
        return ISO_DAY
    return days(day_order(table, column, spelling))


def day_order(table: OutcomeTable, column: str, spelling: Spelling) -> DayOrder:
    """The order of day and month in the dates of a column. Raises InputError where it is ambiguous or differs."""
    if table.shape(column) is not Shape.text:
        return "day-first"
    if spelling.dates:
        return spelling.dates
    rows = _first_rows(table, column, written_values.day_orders(table.trimmed(column)))
    if "day-first" in rows and "month-first" in rows:
        raise _error(table, column, rows, ("day-first", "month-first"), "the orders of day and month differ")
    if "month-first" in rows:
        return "month-first"
    if "either" in rows and "day-first" not in rows:
        told = "ambiguous: the day or the month may come first; give --dates day-first or --dates month-first"
        raise _error(table, column, rows, ("either",), told)
    return "day-first"


def _refuse_currencies(table: OutcomeTable, column: str, is_number: str) -> None:
    named = written_values.currency(table.trimmed(column))
    found = f"SELECT DISTINCT {named} FROM {table.rows([column])} WHERE {named} IS NOT NULL AND ({is_number})"
    currencies = [str(currency) for (currency,) in table.query(f"{found} ORDER BY 1 LIMIT 2")]
    if len(currencies) > 1:
        raise InputError(f"{table.file}: {column} has amounts in {' and '.join(currencies)}; convert them to one")


def _first_rows(table: OutcomeTable, column: str, conditions: Mapping[str, str]) -> dict[str, int]:
    """The first row that meets each condition; a condition that no row meets is left out."""
    firsts = ", ".join(f"min({ROW}) FILTER (WHERE {condition})" for condition in conditions.values())
    [found] = table.query(f"SELECT {firsts} FROM {table.rows([column])}")
    return {name: int(str(row)) for name, row in zip(conditions, found, strict=True) if row is not None}


def _error(table: OutcomeTable, column: str, rows: Mapping[str, int], which: tuple[str, ...], told: str) -> InputError:
    places = " and ".join(f"row {rows[name]}: {column} {_shown(table, column, rows[name])}" for name in which)
    bare = " and ".join(f"row {rows[name]}: {column}" for name in which)
    verb = "is" if told.startswith("ambiguous") else "-"
    return InputError(f"{table.file} {places} {verb} {told}", bare=f"{table.file} {bare} {verb} {told}")


def _shown(table: OutcomeTable, column: str, row: int) -> str:
    shown = f"left({table.raw(column)}::VARCHAR, {SHOWN_CHARACTERS})"
    [(text,)] = table.query(f"SELECT {shown} FROM {table.table} WHERE {ROW} = {row}")
    return repr(text)
