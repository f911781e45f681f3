"""The formats of values: one rule for each kind of value, in tables, over HTTP and on the command line.

Each rule is a regular expression over the text without outer space (`SPACE`). It is written so that Python's `re` and
RE2, the engine of DuckDB, match the same texts: `PATTERN.fullmatch(text.strip())` here is
`regexp_full_match(trim(text, SPACE), PATTERN)` there. docs/data.md shows the same rules to users.

Parsers return None for a missing value (empty text, or NaN for a number). They raise Misspelt, whose text completes the
sentence "`age` '30.5' …", where the text is not a value of the kind.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from math import isfinite
from typing import Final

from firstspin.data.schema import PICK_SEPARATOR, SECONDS, SKIPPED, STATION_ID
from firstspin.records import MAX_AGE, MAX_LISTENS

SPACE: Final = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""The characters trimmed from both ends of a value: those that `str.strip()` removes."""

LOCAL_TIME: Final = (
    r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"([Tt ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,9})?)?)?"
)
"""A date, or a date and a time of day, without its zone. No leap second, no hour 24."""

ZONE: Final = r" ?([Zz]|[Uu][Tt][Cc]|[+-](0[0-9]|1[0-3])(:?[0-5][0-9])?|[+-]14(:?00)?)"

TIME: Final = (
    r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"[Tt ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,9})?)?" + ZONE
)
"""ISO 8601 with a zone. Digits of a second beyond the sixth are cut off.

In DuckDB: TRY_CAST(regexp_replace(replace(upper(text), 'UTC', 'Z'), SPACED_ZONE, '\\1') AS TIMESTAMPTZ).
"""

SPACED_ZONE: Final = " ([Z+-])"
"""A space before the zone, which neither DuckDB nor Python accepts."""

EARLIEST: Final = datetime(1971, 1, 1, tzinfo=UTC)  # no time zone leads before 1970
LATEST: Final = datetime(9900, 1, 1, tzinfo=UTC)  # a label window of twenty years ends within the calendar
"""Times must lie in [EARLIEST, LATEST)."""

NUMBER: Final = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"
"""A decimal number; it must also be finite as a double (1e999 is not). No `1_000`, `1,000`, `0x1f`, `inf`."""

NOT_A_NUMBER: Final = r"[+-]?[Nn][Aa][Nn]"
"""NaN counts as missing, as text and in a column of floats."""

YES: Final = ("true", "t", "yes", "y", "1", "1.0")
NO: Final = ("false", "f", "no", "n", "0", "0.0")
"""True and false, in any case. The numbers occur in columns with missing values."""

BLANK: Final = (
    r"(?i)([+-]?nan|#?n/?a|#n/a|null|\(null\)|none|nil|\(none\)|\(not set\)|\(blank\)|undefined|missing|\\n|-+|–|—|\.)?"
)
"""A missing value in an export of outcomes: empty, or one of the words that spreadsheets and databases write for it."""

CURRENCY: Final = r"(US\$|[$€£¥₹]|USD|EUR|GBP|CHF|JPY|SEK|NOK|DKK|PLN|CZK|HUF|INR|BRL|CAD|AUD|NZD|CNY|kr|zł)"
_BEFORE: Final = rf"([+−-]? ?({CURRENCY}[   ]?)?|{CURRENCY}[   ]?[+−-])"
_AFTER: Final = rf"([   ]?({CURRENCY}|%))?"
_SPACED: Final = r"[1-9][0-9]{0,2}([   '’][0-9]{3})+"

_POINT: Final = rf"{_BEFORE}(([1-9][0-9]{{0,2}}(,[0-9]{{3}})+|{_SPACED}|[0-9]+)(\.[0-9]*)?|\.[0-9]+){_AFTER}"
_COMMA: Final = rf"{_BEFORE}(([1-9][0-9]{{0,2}}(\.[0-9]{{3}})+|{_SPACED}|[0-9]+)(,[0-9]*)?|,[0-9]+){_AFTER}"
POINT_NUMBER: Final = rf"{_POINT}|\({_POINT}\)"
COMMA_NUMBER: Final = rf"{_COMMA}|\({_COMMA}\)"
"""A number as people write it, with a decimal point (1,234.5) or comma (1.234,5): thousands separators, a currency, a
percent sign, parentheses for a negative one. A text may match both, with two values: 1,234."""

PLAIN_NUMBER: Final = r"[+-]?([0-9]+(\.([0-9]{1,2}|[0-9]{4,}))?|0\.[0-9]+)"
"""A number that reads the same whatever the others of its column are: no separators, and not 1.234."""

GROUPED: Final = r"[1-9][0-9]{0,2}([.,   '’][0-9]{3})+"
"""A whole number with any thousands separator."""

_CLOCK: Final = r"[T, ]+[0-9]{1,2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?( ?[AaPp]\.?[Mm]\.?)?( ?([Zz]|UTC|GMT))?"
CLOCK: Final = rf"{_CLOCK}$"
_YEAR: Final = r"([0-9]{4}|[0-9]{2})"
YEAR_FIRST: Final = rf"([0-9]{{4}})[-/.]([0-9]{{1,2}})[-/.]([0-9]{{1,2}})({_CLOCK})?"
DOTTED_DAY: Final = rf"([0-9]{{1,2}})\.([0-9]{{1,2}})\.{_YEAR}({_CLOCK})?"
SLASHED_DAY: Final = rf"([0-9]{{1,2}})[/-]([0-9]{{1,2}})[/-]{_YEAR}({_CLOCK})?"
NAMED_DAY: Final = (
    r"([A-Za-z]{3,9}\.?,? )?([0-9]{1,2}(st|nd|rd|th)?[ -][A-Za-z]{3,9}\.?,?[ -][0-9]{4}"
    rf"|[A-Za-z]{{3,9}}\.? [0-9]{{1,2}}(st|nd|rd|th)?,? [0-9]{{4}})({_CLOCK})?"
)
"""Dates as people write them: 2026/2/5, 5.2.2026 (day first), 5/2/2026 (either first), 5 Feb 2026, Feb 5, 2026."""

WRITTEN_YES: Final = (*YES, "wahr", "ja", "vrai", "oui")
WRITTEN_NO: Final = (*NO, "falsch", "nein", "faux", "non")
"""True and false as spreadsheets in other languages write them too."""

NO_TIME: Final = "is not an ISO 8601 time"
NO_ZONE: Final = "has no time zone"
NO_DATE: Final = "is not a date with a year, such as 2026-02-05"
NO_SUCH_YEAR: Final = f"is not in the years {EARLIEST.year} to {LATEST.year - 1}"
NO_NUMBER: Final = "is not a number"
NOT_WHOLE: Final = "is not a whole number"
NO_LISTEN: Final = f"is not a list of listens such as 17:180|9:{SKIPPED}"
TOO_MANY_LISTENS: Final = f"has more than {MAX_LISTENS} listens"
NO_AGE: Final = f"is not between 0 and {MAX_AGE}"

_LOCAL_TIME: Final = re.compile(LOCAL_TIME)
_TIME: Final = re.compile(TIME)
_NUMBER: Final = re.compile(NUMBER)
_NOT_A_NUMBER: Final = re.compile(NOT_A_NUMBER)
_BLANK: Final = re.compile(BLANK)


class Misspelt(ValueError):
    """A text is not a value of its kind. The message completes a sentence about the text and does not repeat it."""


def moment(text: str) -> datetime:
    """A time with a zone. Raises Misspelt where the text is another, or the year is out of range.

    >>> moment("2026-02-05 00:00:00 UTC").isoformat()
    '2026-02-05T00:00:00+00:00'
    """
    text = text.strip()
    if not _TIME.fullmatch(text):
        raise Misspelt(NO_ZONE if _LOCAL_TIME.fullmatch(text) else NO_TIME)
    try:
        at = datetime.fromisoformat(re.sub(SPACED_ZONE, r"\1", text.upper().replace("UTC", "Z")))
    except ValueError:  # the 30th of February
        raise Misspelt(NO_TIME) from None
    if not EARLIEST <= at < LATEST:
        raise Misspelt(NO_SUCH_YEAR)
    return at


def utc_moment(text: str) -> datetime:
    """`moment` for options: the zone defaults to UTC, the time of day to midnight. Raises Misspelt as `moment`.

    >>> utc_moment("2026-02-05").isoformat()
    '2026-02-05T00:00:00+00:00'
    """
    text = text.strip()
    if _LOCAL_TIME.fullmatch(text):
        text += "Z" if ":" in text else "T00:00Z"
    return moment(text)


def is_blank(text: str) -> bool:
    """Whether a text stands for a missing value in an export of outcomes.

    >>> is_blank(" NA "), is_blank("no")
    (True, False)
    """
    return _BLANK.fullmatch(text.strip()) is not None


def number(text: str) -> float | None:
    """A finite number; None for an empty text or NaN. Raises Misspelt where the text is another.

    >>> number(" +1e3 ")
    1000.0
    """
    text = text.strip()
    if not text or _NOT_A_NUMBER.fullmatch(text):
        return None
    if not _NUMBER.fullmatch(text) or not isfinite(value := float(text)):
        raise Misspelt(NO_NUMBER)
    return value


def age(text: str) -> int | None:
    """A whole number of years from 0 to 120; None for an empty text or NaN. Raises Misspelt where the text is another.

    >>> age("31.0")
    31
    """
    years = number(text)
    if years is None:
        return None
    if not years.is_integer():
        raise Misspelt(NOT_WHOLE)
    if not 0 <= years <= MAX_AGE:
        raise Misspelt(NO_AGE)
    return int(years)


def picks(text: str) -> tuple[str, ...]:
    """The genres of a cell, in order, trimmed and without empty ones.

    >>> picks(" Rock | |Hip Hop")
    ('Rock', 'Hip Hop')
    """
    return tuple(filter(None, map(str.strip, text.split(PICK_SEPARATOR))))


def listens(text: str) -> list[dict[str, object]]:
    """The listens of a cell, oldest first, as the fields of `records.Listen`. Raises Misspelt where it is another text.

    >>> listens("17:180 | 9:skipped")
    [{'station_id': '17', 'seconds': 180.0}, {'station_id': '9', 'skipped': True}]
    """
    parts = picks(text)
    if len(parts) > MAX_LISTENS:
        raise Misspelt(TOO_MANY_LISTENS)
    return [_listen(part) for part in parts]


def _listen(text: str) -> dict[str, object]:
    station, _, heard = text.rpartition(":")
    if heard.strip().lower() == SKIPPED:
        listen: dict[str, object] = {STATION_ID: station.strip(), SKIPPED: True}
    else:
        try:
            listen = {STATION_ID: station.strip(), SECONDS: number(heard)}
        except Misspelt:
            raise Misspelt(NO_LISTEN) from None
    if not listen[STATION_ID] or listen.get(SECONDS, 0.0) is None:
        raise Misspelt(NO_LISTEN)
    return listen
