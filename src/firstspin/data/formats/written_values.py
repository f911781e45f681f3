"""Numbers and dates as people write them in exports, as SQL: 1,234.5 and 1.234,5, 12 %, $5; 05/02/2026, 5 Feb 2026.

The texts are defined in `parsing`. A number may have a decimal point or a comma, a date the day or the month first; the
values of a column decide which, or an option where none of them does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from firstspin.data import parsing
from firstspin.data.formats.csv_rewriting import is_encoding
from firstspin.data.schema import PICK_SEPARATOR
from firstspin.data.sql import literal
from firstspin.records import InputError

Mark = Literal["point", "comma"]
DayOrder = Literal["day-first", "month-first"]

_PATTERNS: Final[dict[Mark, str]] = {"point": parsing.POINT_NUMBER, "comma": parsing.COMMA_NUMBER}
_MONTHS: Final = ("%d %b %Y", "%d %B %Y", "%b %d %Y", "%B %d %Y")
_CLOCKS: Final = ("%H:%M", "%H:%M:%S", "%I:%M%p", "%I:%M:%S%p")
_WEEKDAY: Final = r"(?i)^(mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,? "


@dataclass(frozen=True, slots=True)
class Spelling:
    """How values are read: 1,234 by the decimal mark, 01/02/2026 by the order, picks in a text by their separator.

    Without a decimal mark or an order, the other values of an outcome's column decide, and tables have ISO 8601 times.
    A CSV file that is not UTF-8 has the `encoding`, by its name in Python. Raises InputError where the separator is
    empty, or the encoding unknown.
    """

    decimal: Mark | None = None
    dates: DayOrder | None = None
    pick_separator: str = PICK_SEPARATOR
    encoding: str | None = None

    def __post_init__(self) -> None:
        if not self.pick_separator:
            raise InputError("--pick-separator is empty")
        if self.encoding is not None and not is_encoding(self.encoding):
            raise InputError(f"--encoding {self.encoding!r} is not the name of an encoding, such as cp1252 or latin-1")


AS_WRITTEN: Final = Spelling()


def is_blank(column: str) -> str:
    """SQL: whether a trimmed text is missing: empty, or a word such as NA, null or '-'."""
    return f"coalesce({_matches(column, parsing.BLANK)}, true)"


def is_number(column: str, mark: Mark) -> str:
    """SQL: whether a trimmed text is a number with this decimal mark."""
    written = _matches(column, _PATTERNS[mark])
    return written if mark == "comma" else f"({written} OR {_matches(column, parsing.NUMBER)})"


def number(column: str, mark: Mark) -> str:
    """SQL of the number with this decimal mark; null where the text is none. 12.5% is 0.125, (5) is -5."""
    digits = f"regexp_replace({column}, {literal('[^0-9.]' if mark == 'point' else '[^0-9,]')}, '', 'g')"
    if mark == "comma":
        digits = f"replace({digits}, ',', '.')"
    sign = f"CASE WHEN regexp_matches({column}, '[(\u2212-]') THEN -1 ELSE 1 END"
    written = f"{sign} * TRY_CAST({digits} AS DOUBLE) / CASE WHEN {is_percent(column)} THEN 100 ELSE 1 END"
    written = f"CASE WHEN {_matches(column, _PATTERNS[mark])} THEN {written} END"
    if mark == "comma":
        return written
    plain = f"{_matches(column, parsing.NUMBER)} THEN TRY_CAST({column} AS DOUBLE)"
    return f"CASE WHEN {plain} ELSE {written} END"


def plain_number(column: str) -> str:
    """SQL of a number without separators; null where the text is none."""
    return f"CASE WHEN {_matches(column, parsing.PLAIN_NUMBER)} THEN TRY_CAST({column} AS DOUBLE) END"


def whole_number(column: str) -> str:
    """SQL of a number that should be whole: 1,234 and 1.234 are 1234, but 9,8 is 9.8; null where it is no number."""
    grouped = (
        f"{_matches(column, parsing.GROUPED)} THEN TRY_CAST(regexp_replace({column}, '[^0-9]', '', 'g') AS DOUBLE)"
    )
    return f"CASE WHEN {grouped} ELSE coalesce({number(column, 'point')}, {number(column, 'comma')}) END"


def is_percent(column: str) -> str:
    """SQL: whether a number is written with a percent sign."""
    return f"contains({column}, '%')"


def currency(column: str) -> str:
    """SQL of the currency that a number is written with; null without one."""
    return f"nullif(regexp_extract({column}, {literal(parsing.CURRENCY)}), '')"


def yes_or_no(column: str) -> str:
    """SQL of a trimmed text as true or false; null where it is neither."""
    yes, no = (", ".join(map(literal, words)) for words in (parsing.WRITTEN_YES, parsing.WRITTEN_NO))
    return f"CASE WHEN lower({column}) IN ({yes}) THEN true WHEN lower({column}) IN ({no}) THEN false END"


def separated(column: str) -> str:
    """SQL: whether a number has a comma or a point."""
    return f"regexp_matches({column}, '[.,]')"


def time(column: str, order: DayOrder) -> str:
    """SQL of the time of a trimmed text that is not ISO 8601, at midnight without a clock; null where it is none."""
    clock = f"regexp_extract({column}, {literal(parsing.CLOCK)})"
    of_day = f"regexp_extract({clock}, '[0-9]{{1,2}}:[0-9]{{2}}(:[0-9]{{2}})?')"
    half = f"upper(regexp_extract({clock}, '[AaPp]'))"
    parsed = f"try_strptime({of_day} || {half} || CASE WHEN {half} = '' THEN '' ELSE 'M' END, [{_listed(_CLOCKS)}])"
    return f"CASE WHEN {clock} = '' THEN {_date(column, order)} ELSE {_date(column, order)} + {parsed}::TIME END"


def _date(column: str, order: DayOrder) -> str:
    day, month = (1, 2) if order == "day-first" else (2, 1)
    forms = (
        (parsing.YEAR_FIRST, (1, 2, 3)),
        (parsing.DOTTED_DAY, (3, 2, 1)),
        (parsing.SLASHED_DAY, (3, month, day)),
    )
    cases = [f"WHEN {_matches(column, form)} THEN {_from_parts(column, form, parts)}" for form, parts in forms]
    bare = f"regexp_replace(regexp_replace({column}, {literal(parsing.CLOCK)}, ''), {literal(_WEEKDAY)}, '')"
    bare = f"regexp_replace({bare}, '([0-9])(st|nd|rd|th)', '\\1')"
    bare = rf"regexp_replace(regexp_replace({bare}, '[-,. ]+', ' ', 'g'), '(?i)\bsept\b', 'Sep')"
    named = f"try_strptime({bare}, [{_listed(_MONTHS)}])::DATE"
    return f"CASE {' '.join(cases)} WHEN {_matches(column, parsing.NAMED_DAY)} THEN {named} END"


def day_orders(column: str) -> dict[str, str]:
    """SQL: whether a date such as 05/02/2026 must have the day first, must have the month first, or may have either."""
    is_one = _matches(column, parsing.SLASHED_DAY)
    first, second = (f"CASE WHEN {is_one} THEN {_part(column, parsing.SLASHED_DAY, at)}::INTEGER END" for at in (1, 2))
    return {
        "day-first": f"{first} > 12",
        "month-first": f"{second} > 12",
        "either": f"{first} <= 12 AND {second} <= 12 AND {first} <> {second}",
    }


def _listed(formats: tuple[str, ...]) -> str:
    return ", ".join(map(literal, formats))


def _from_parts(column: str, form: str, parts: tuple[int, int, int]) -> str:
    year, month, day = (_part(column, form, at) for at in parts)
    century = f"CASE WHEN length({year}) = 2 THEN '20' ELSE '' END"
    return f"TRY_CAST({century} || {year} || '-' || lpad({month}, 2, '0') || '-' || lpad({day}, 2, '0') AS DATE)"


def _part(column: str, form: str, group: int) -> str:
    return f"regexp_extract({column}, {literal(f'^{form}$')}, {group})"


def _matches(column: str, pattern: str) -> str:
    return f"regexp_full_match({column}, {literal(pattern)})"
