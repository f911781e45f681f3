"""The options that read what was refused: `--dates` for dates that are no times, `--encoding` for text not in UTF-8."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

from firstspin.data import parsing
from firstspin.data.checks.findings import MALFORMED, RowRule, place_of
from firstspin.data.formats import written_values
from firstspin.data.formats.columns import Shape, trimmed, written_time
from firstspin.data.formats.csv_rewriting import ENCODING_HINT, NOT_TEXT
from firstspin.data.formats.sources import Source
from firstspin.data.sql import literal
from firstspin.records import InputError

if TYPE_CHECKING:
    import duckdb

_UNREAD: Final = (parsing.NO_TIME, parsing.NO_ZONE, parsing.NO_DATE)


def option_hints(
    connection: duckdb.DuckDBPyConnection, bad: str, source: Source, rules: Sequence[RowRule], broken: Collection[int]
) -> dict[int, str]:
    """The option that reads the values, by the position of each rule that they break.

    `bad` is SQL of the bad rows: row, rule, value; `broken` has the positions of the rules that they break, as each
    query reads the whole table again. Raises InputError where dates have the other order than `--dates`:
    with skipped rows, the dates up to the 12th would be silently read as others.
    """
    hints = {}
    for at in broken:
        rule = rules[at]
        if rule.complaint in _UNREAD:
            values = f"(SELECT row, value, {trimmed('value')} AS text FROM ({bad}) WHERE rule = {at})"
            if source.spelling.dates:
                _refuse_other_order(connection, values, source, rule)
            elif option := _option(connection, values):
                hints[at] = f"{rule.label}: {option}"
        elif rule.complaint == MALFORMED:
            is_other = f"SELECT 1 FROM ({bad}) WHERE rule = {at} AND value = {literal(NOT_TEXT)} LIMIT 1"
            if connection.execute(is_other).fetchall():
                hints[at] = ENCODING_HINT
    return hints


def _option(connection: duckdb.DuckDBPyConnection, values: str) -> str:
    """What to do about these values; empty where no option reads any."""
    orders = written_values.day_orders("text")
    readable = f"{written_time('day-first')('text', Shape.text)} IS NOT NULL"
    conditions = ", ".join(f"coalesce(bool_or({one}), false)" for one in (*orders.values(), readable))
    written = f"WITH written AS MATERIALIZED (SELECT text FROM {values})"  # else it is planned for 0.4 s
    query = f"{written} SELECT {conditions} FROM written"
    ((day_first, month_first, either, is_date),) = connection.execute(query).fetchall()
    if day_first and month_first:
        return "some dates have the day first and some the month: write all alike"
    if not (is_date or month_first):
        return ""
    options = {"--dates day-first": not month_first, "--dates month-first": month_first or (either and not day_first)}
    named = " or ".join(option for option, fits in options.items() if fits)
    return f"{named} reads such dates, without a zone as UTC"


def _refuse_other_order(connection: duckdb.DuckDBPyConnection, values: str, source: Source, rule: RowRule) -> None:
    given = source.spelling.dates
    other = "month-first" if given == "day-first" else "day-first"
    is_other = written_values.day_orders("text")[other]
    first = f"SELECT row + 1, value FROM {values} WHERE {is_other} ORDER BY row LIMIT 1"
    for row, value in connection.execute(first).fetchall():
        place = f"{place_of(source.path.name, row)}: {rule.label}"
        has = f"has the {other.removesuffix('-first')} first, against --dates {given}: write all alike, or"
        advice = f"{has} give --dates {other}"
        raise InputError(f"{place} {value!r} {advice}", bare=f"{place} {advice}", field=rule.field)
