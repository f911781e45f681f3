"""Types of columns: the types accepted for each column of our tables, and the SQL that converts their values.

Columns of CSV are text. Columns of Parquet have the types of the Arrow schema, which distinguishes a duration from an
integer. The text formats of values are defined in `parsing`; docs/data.md has the table for users.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final

from firstspin.data import parsing, schema
from firstspin.data.checks import findings
from firstspin.data.formats import written_values
from firstspin.data.formats.written_values import DayOrder, Spelling
from firstspin.data.sql import literal
from firstspin.records import MAX_AGE, MAX_PICKS, MAX_TEXT

if TYPE_CHECKING:
    import pyarrow as pa

MAX_DIGITS: Final = 38
"""Digits of a decimal that is read exactly; a longer one becomes a double."""


class Shape(StrEnum):
    """The type of a column, in all its encodings."""

    text = "text"
    whole = "whole numbers"
    decimal = "numbers with a fraction"
    floating = "numbers with a fraction, or NaN"
    flag = "true or false"
    time = "times"
    nanoseconds = "times in nanoseconds"
    texts = "lists of text"
    nothing = "nothing but gaps"  # a column of nulls, without a type


def shape_of(kind: pa.DataType) -> Shape | None:
    """The shape of an Arrow type; None for binary, durations, times of day, structs, maps and lists of other types.

    Text and lists have one shape in all encodings: large, view, dictionary, fixed size.
    """
    import pyarrow as pa

    is_a = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return Shape.text if kind.extension_name == "arrow.uuid" else shape_of(kind.storage_type)
    if is_a.is_dictionary(kind):
        return shape_of(kind.value_type)
    if is_a.is_decimal(kind):
        return Shape.whole if kind.scale <= 0 and kind.precision <= MAX_DIGITS else Shape.decimal
    if is_a.is_timestamp(kind):
        return Shape.nanoseconds if kind.unit == "ns" else Shape.time
    lists = (is_a.is_list, is_a.is_large_list, is_a.is_fixed_size_list, is_a.is_list_view, is_a.is_large_list_view)
    if any(is_list(kind) for is_list in lists):
        return Shape.texts if shape_of(kind.value_type) in (Shape.text, Shape.nothing) else None
    shapes = {
        is_a.is_string: Shape.text,
        is_a.is_large_string: Shape.text,
        is_a.is_string_view: Shape.text,
        is_a.is_integer: Shape.whole,
        is_a.is_floating: Shape.floating,
        is_a.is_boolean: Shape.flag,
        is_a.is_date: Shape.time,
        is_a.is_null: Shape.nothing,
    }
    return next((shape for is_one, shape in shapes.items() if is_one(kind)), None)


@dataclass(frozen=True, slots=True)
class Problem:
    """A value is invalid where `broken` (SQL) is true; `complaint` ends the error message."""

    broken: str
    complaint: str


@dataclass(frozen=True, slots=True)
class Cell:
    """SQL for one value: as received (`column`), and converted (`value`)."""

    column: str
    shape: Shape
    value: str


@dataclass(frozen=True, slots=True)
class Kind:
    """The definition of a column's values.

    `shapes` are the types accepted. `value` makes the SQL of the converted value from that of the received column, null
    where it is missing. The first of the `problems` that applies is reported. `trimmed`: outer space is removed first.
    """

    needed: str
    shapes: frozenset[Shape]
    value: Callable[[str, Shape], str]
    problems: Callable[[Cell], list[Problem]]
    trimmed: bool = True


# -------------------------------------------------------------------------------------------------- text, and its gaps


def _is_bare(column: str) -> str:
    """SQL: whether a text begins and ends with a character of ASCII that is no space; false for an empty one."""
    return f"({column})[1] BETWEEN '!' AND '~' AND ({column})[-1] BETWEEN '!' AND '~'"


def trimmed(column: str) -> str:
    """SQL: a text without outer space; most have none, and the check costs an eighth of the trimming."""
    return f"CASE WHEN {_is_bare(column)} THEN {column} ELSE trim({column}, {literal(parsing.SPACE)}) END"


def is_gap(cell: Cell) -> str:
    """SQL: whether a value is missing: null, empty, or NaN."""
    if cell.shape is Shape.text:
        return f"coalesce(regexp_full_match({cell.column}, {literal(f'({parsing.NOT_A_NUMBER})?')}), true)"
    return f"coalesce(isnan({cell.column}), true)" if cell.shape is Shape.floating else f"{cell.column} IS NULL"


def _where_null(cell: Cell, condition: str) -> str:
    """SQL: the condition, evaluated only where there is no converted value."""
    return f"CASE WHEN {cell.value} IS NULL THEN {condition} ELSE false END"


def _text(column: str, _: Shape) -> str:
    return f"{column}::VARCHAR"


def _word(column: str, _: Shape) -> str:
    return f"nullif({column}::VARCHAR, '')"


def _too_long(cell: Cell) -> Problem:
    """The limit of requests holds for tables too."""
    return Problem(f"length({cell.value}) > {MAX_TEXT}", findings.TOO_LONG)


# --------------------------------------------------------------------------------------------------------------- times


_USUAL: Final = "%Y-%m-%dT%H:%M:%SZ"
_USUAL_TIME: Final = "2026-02-05T12:02:03Z"
"""The usual format of times. At this length all fields have all digits, and no other text parses: three times as fast
as the general rule, with the same result."""


def _time(column: str, shape: Shape) -> str:
    """SQL: UTC in microseconds; a column without a zone is taken as UTC, a date as its midnight."""
    if shape is Shape.text:
        respelled = f"regexp_replace(replace(upper({column}), 'UTC', 'Z'), {literal(parsing.SPACED_ZONE)}, '\\1')"
        cast = f"coalesce(TRY_CAST({column} AS TIMESTAMPTZ), TRY_CAST({respelled} AS TIMESTAMPTZ))::TIMESTAMP"
        any_other = f"CASE WHEN regexp_full_match({column}, {literal(parsing.TIME)}) THEN {cast} END"
        usual = f"CASE WHEN length({column}) = {len(_USUAL_TIME)} THEN try_strptime({column}, {literal(_USUAL)}) END"
        return f"coalesce({usual}, {any_other})"
    if shape is Shape.nanoseconds:
        return f"make_timestamp(epoch_ns({column}) // 1000)"  # truncated, as in text; a cast would round
    return f"TRY_CAST({column} AS TIMESTAMP)"


def written_time(order: DayOrder) -> Callable[[str, Shape], str]:
    """SQL of dates and times as people write them, in UTC unless they have a zone; 05/02/2026 is read in this order."""

    def time(column: str, shape: Shape) -> str:
        zoned = _time(column, shape)
        if shape is not Shape.text:
            return zoned
        return f"coalesce({zoned}, CASE {_local_time(column)} ELSE {written_values.time(column, order)} END)"

    return time


def _local_time(column: str) -> str:
    return f"WHEN {_is_local(column)} THEN TRY_CAST(upper({column}) AS TIMESTAMP)"


def iso_time(column: str, shape: Shape) -> str:
    """SQL of dates and times in ISO 8601, in UTC unless they have a zone."""
    zoned = _time(column, shape)
    return f"coalesce({zoned}, CASE {_local_time(column)} END)" if shape is Shape.text else zoned


def _time_problems(cell: Cell) -> list[Problem]:
    earliest, latest = (f"TIMESTAMP {literal(f'{at:%Y-%m-%d}')}" for at in (parsing.EARLIEST, parsing.LATEST))
    outside = Problem(f"{cell.value} < {earliest} OR {cell.value} >= {latest}", parsing.NO_SUCH_YEAR)
    missing = Problem(_where_null(cell, is_gap(cell)), findings.MISSING)
    if cell.shape is not Shape.text:
        return [missing, Problem(f"{cell.value} IS NULL", parsing.NO_SUCH_YEAR), outside]
    zone = Problem(_where_null(cell, _is_local(cell.column)), parsing.NO_ZONE)
    return [missing, zone, Problem(f"{cell.value} IS NULL", parsing.NO_TIME), outside]


def written_times(order: DayOrder) -> Kind:
    """The kind of dates and times as `written_time` reads them."""
    return replace(TIME, value=written_time(order), problems=_written_time_problems)


def _written_time_problems(cell: Cell) -> list[Problem]:
    if cell.shape is not Shape.text:
        return _time_problems(cell)
    missing, _, _, outside = _time_problems(cell)
    return [missing, Problem(f"{cell.value} IS NULL", parsing.NO_DATE), outside]


def _is_local(column: str) -> str:
    """SQL: whether a text is an ISO 8601 time without a zone."""
    return f"regexp_full_match({column}, {literal(parsing.LOCAL_TIME)})"


# ------------------------------------------------------------------------------------------------------------- numbers


def _number(column: str, shape: Shape) -> str:
    if shape is Shape.text:
        return f"CASE WHEN regexp_full_match({column}, {literal(parsing.NUMBER)}) THEN TRY_CAST({column} AS DOUBLE) END"
    return (
        f"CASE WHEN NOT isnan({column}) THEN {column}::DOUBLE END" if shape is Shape.floating else f"{column}::DOUBLE"
    )


def _number_problems(cell: Cell) -> list[Problem]:
    return [
        Problem(_where_null(cell, f"NOT {is_gap(cell)}"), parsing.NO_NUMBER),
        Problem(f"NOT isfinite({cell.value})", parsing.NO_NUMBER),
    ]


def _seconds_problems(cell: Cell) -> list[Problem]:
    missing = Problem(_where_null(cell, is_gap(cell)), findings.MISSING)
    return [missing, *_number_problems(cell), Problem(f"{cell.value} <= 0", findings.NOT_POSITIVE)]


def _age(column: str, shape: Shape) -> str:
    return f"TRY_CAST({_number(column, shape)} AS INTEGER)"


def _age_problems(cell: Cell) -> list[Problem]:
    number = _number(cell.column, cell.shape)
    return [
        *_number_problems(replace(cell, value=number)),
        Problem(f"{number} <> floor({number})", parsing.NOT_WHOLE),
        Problem(f"NOT {number} BETWEEN 0 AND {MAX_AGE}", parsing.NO_AGE),
    ]


# ------------------------------------------------------------------------------------------------- text of other kinds


def _id_problems(cell: Cell) -> list[Problem]:
    return [Problem(f"coalesce({cell.value} = '', true)", findings.MISSING)]


def _user_problems(cell: Cell) -> list[Problem]:
    return [*_id_problems(cell), _too_long(cell)]


def _word_problems(cell: Cell) -> list[Problem]:
    return [_too_long(cell)]


def _genre_problems(cell: Cell) -> list[Problem]:
    pipe = f"contains({cell.value}, {literal(schema.PICK_SEPARATOR)})"
    return [
        Problem(f"{cell.value} IS NULL", findings.MISSING),
        Problem(pipe, findings.HAS_PIPE),
    ]


def _names(column: str, shape: Shape, separator: str = schema.PICK_SEPARATOR) -> str:
    """SQL: the names in a list, or in a text with this separator, without empty ones."""
    parts = {
        Shape.text: f"string_split({column}, {literal(separator)})",
        Shape.texts: f"{column}::VARCHAR[]",
    }.get(shape, "NULL::VARCHAR[]")
    bare = f"list_transform({parts}, lambda name: {trimmed('name')})"
    return f"coalesce(list_filter({bare}, lambda name: name <> ''), [])"


def _many_picks_problems(cell: Cell) -> list[Problem]:
    return [Problem(f"len({cell.value}) > {MAX_PICKS}", findings.TOO_MANY)]


def _picks_problems(cell: Cell) -> list[Problem]:
    long = f"len(list_filter({cell.value}, lambda pick: length(pick) > {MAX_TEXT})) > 0"
    return [*_many_picks_problems(cell), Problem(long, findings.LONG_GENRE)]


def _tidy_names(column: str, _: Shape) -> str:
    return f"coalesce({column}::VARCHAR[], [])"


def _flag(column: str, shape: Shape) -> str:
    if shape is Shape.text:
        yes, no = (", ".join(map(literal, words)) for words in (parsing.YES, parsing.NO))
        return f"CASE WHEN lower({column}) IN ({yes}) THEN true WHEN lower({column}) IN ({no}) THEN false END"
    return f"CASE {column}::DOUBLE WHEN 1 THEN true WHEN 0 THEN false END"


def _flag_problems(cell: Cell) -> list[Problem]:
    return [Problem(_where_null(cell, f"NOT {is_gap(cell)}"), findings.NOT_A_FLAG)]


def _no_problems(_: Cell) -> list[Problem]:
    return []


# ----------------------------------------------------------------------------------------------------------- the table

_NUMBERS: Final = frozenset({Shape.text, Shape.whole, Shape.decimal, Shape.floating, Shape.nothing})
_TEXTS: Final = frozenset({Shape.text, Shape.whole, Shape.nothing})
_TIMES: Final = frozenset({Shape.text, Shape.time, Shape.nanoseconds, Shape.nothing})
_NAMES: Final = frozenset({Shape.text, Shape.texts, Shape.nothing})

ID: Final = Kind("text or whole numbers are needed", _TEXTS, _text, _id_problems, trimmed=False)
USER: Final = Kind("text or whole numbers are needed", _TEXTS, _text, _user_problems, trimmed=False)
NAME: Final = Kind("text is needed", _TEXTS, _text, _no_problems, trimmed=False)
GENRE: Final = Kind("text is needed", _TEXTS, _word, _genre_problems)
WORD: Final = Kind("text is needed", _TEXTS, _word, _word_problems)
NUMBER: Final = Kind("numbers are needed", _NUMBERS, _number, _number_problems)
SECONDS: Final = Kind("numbers are needed", _NUMBERS, _number, _seconds_problems)
AGE: Final = Kind("whole numbers are needed", _NUMBERS, _age, _age_problems)
TIME: Final = Kind("times are needed", _TIMES, _time, _time_problems)
PICKS: Final = Kind("text or lists of text are needed", _NAMES, _names, _picks_problems)
TIDY_PICKS: Final = replace(PICKS, value=_tidy_names, problems=_many_picks_problems)
"""The kind of lists of picks that are all tidy: DuckDB copies such a column at a third of the cost."""
MARKETS: Final = Kind("text or lists of text are needed", _NAMES, _names, _no_problems)
COLOUR: Final = Kind("text is needed", _NUMBERS | {Shape.flag}, _word, _no_problems)
FLAG: Final = Kind("true or false is needed", _NUMBERS | {Shape.flag}, _flag, _flag_problems)

KINDS: Final[Mapping[str, Mapping[str, Kind]]] = {
    schema.REGISTRATIONS: {
        schema.USER_ID: USER,
        schema.REGISTERED_AT: TIME,
        schema.AGE: AGE,
        schema.GENDER: WORD,
        schema.COUNTRY: WORD,
        schema.GENRES: PICKS,
    },
    schema.LISTENS: {schema.USER_ID: ID, schema.STARTED_AT: TIME, schema.STATION_ID: ID, schema.SECONDS: SECONDS},
    schema.STATIONS: {
        schema.STATION_ID: ID,
        schema.NAME: NAME,
        schema.GENRE: GENRE,
        schema.POPULARITY: NUMBER,
        schema.MARKET: MARKETS,
        schema.COLOUR: COLOUR,
        schema.AVAILABLE: FLAG,
    },
}
FURTHER: Final[Mapping[str, Kind]] = {
    schema.NUMBER: NUMBER,
    schema.TEXT: Kind("text is needed", _TEXTS | {Shape.flag}, _word, _word_problems),
}
"""Kinds of further columns."""

ANY_FURTHER: Final = Kind(
    "text or numbers are needed", _NUMBERS | _TEXTS | {Shape.flag}, FURTHER[schema.TEXT].value, _no_problems
)
"""The kind of a further column before its values are read."""


def kinds(table: str, spelling: Spelling) -> Mapping[str, Kind]:
    """The kinds of a table's columns where its values are spelled so; without `dates` times are ISO 8601."""
    spelled = {PICKS: replace(PICKS, value=partial(_names, separator=spelling.pick_separator))}
    if spelling.dates:
        spelled[TIME] = written_times(spelling.dates)
    return {name: spelled.get(kind, kind) for name, kind in KINDS[table].items()}


def all_tidy(rows: str, column: str) -> str:
    """SQL: whether all names in a column of lists need no trimming, and are neither missing, empty nor too long."""
    is_tidy = f"coalesce({_is_bare('name')} AND length(name) <= {MAX_TEXT}, false)"
    names = f"SELECT DISTINCT unnest({column}::VARCHAR[]) AS name FROM {rows}"
    return f"SELECT coalesce(bool_and({is_tidy}), true) FROM ({names})"


_LIKE_NUMBERS: Final = f"{parsing.NUMBER}|[+-]?[Ii][Nn][Ff]([Ii][Nn][Ii][Tt][Yy])?"


def is_number(column: str) -> str:
    """SQL: whether a text is a number, finite or not; null where it is missing."""
    cell = Cell(trimmed(column), Shape.text, "")
    return f"CASE WHEN NOT {is_gap(cell)} THEN regexp_full_match({cell.column}, {literal(_LIKE_NUMBERS)}) END"
