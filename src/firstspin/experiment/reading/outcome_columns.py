"""A received table of outcomes: its columns, validated by their use, as SQL.

Columns are numbered, so no column name of the user becomes part of a statement. `parsing` defines the spelling of
values and `columns` the types; this module adds the kinds that only outcomes have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from firstspin.data.formats import columns, written_values
from firstspin.data.formats.columns import Cell, Kind, Problem, Shape, shape_of
from firstspin.data.formats.connections import connect, in_our_words
from firstspin.data.formats.csv_cells import GUARDED
from firstspin.data.formats.csv_rewriting import ENCODING_HINT, NOT_TEXT
from firstspin.data.formats.opening import open_table
from firstspin.data.formats.readers import read
from firstspin.data.formats.sources import PROBLEM, Source
from firstspin.data.formats.written_values import AS_WRITTEN, DayOrder, Mark, Spelling
from firstspin.data.sql import identifier, literal
from firstspin.files import printable, workspace
from firstspin.records import InputError

MAX_LEVELS: Final = 50
MAX_AMOUNT: Final = 1e60  # its fourth power is finite
SHOWN_CHARACTERS: Final = 80

ROW: Final = identifier("row of the file")
_PROBLEM: Final = identifier(PROBLEM)


# ------------------------------------------------------------------------------------------------ what a column holds


def amounts(mark: Mark) -> Kind:
    """The kind of numbers with this decimal mark: text as `written_values` reads it, numbers, true and false."""

    def number(column: str, shape: Shape) -> str:
        if shape is Shape.flag:
            return f"{column}::INTEGER::DOUBLE"
        return written_values.number(column, mark) if shape is Shape.text else columns.NUMBER.value(column, shape)

    return Kind("numbers are needed", columns.NUMBER.shapes | {Shape.flag}, number, _amount_problems)


def _amount_problems(cell: Cell) -> list[Problem]:
    return [
        Problem(_unread(cell), "is not a finite number"),
        Problem(f"NOT isfinite({cell.value})", "is not a finite number"),
        Problem(f"abs({cell.value}) >= {MAX_AMOUNT}", f"is not below {MAX_AMOUNT:g}"),
    ]


def _unread(cell: Cell) -> str:
    """SQL: whether a value is there, but was not converted."""
    blank = written_values.is_blank(cell.column) if cell.shape is Shape.text else columns.is_gap(cell)
    return f"CASE WHEN {cell.value} IS NULL THEN NOT {blank} ELSE false END"


def _yes_or_no(column: str, shape: Shape) -> str:
    flag = written_values.yes_or_no(column) if shape is Shape.text else columns.FLAG.value(column, shape)
    return f"({flag})::INTEGER::DOUBLE"


def _yes_or_no_problems(cell: Cell) -> list[Problem]:
    return [Problem(_unread(cell), "is not binary (1 or 0, true or false, yes or no)")]


def _name(column: str, shape: Shape) -> str:
    text = f"nullif({column}::VARCHAR, '')"
    return f"CASE WHEN NOT isnan({column}) THEN {text} END" if shape is Shape.floating else text


def times(order: DayOrder) -> Kind:
    """The kind of `columns.written_times`, where days are needed."""
    return replace(columns.written_times(order), needed="days are needed")


def days(order: DayOrder) -> Kind:
    """The kind of `times` of which only the day counts."""
    return _of_days(times(order))


def _of_days(kind: Kind) -> Kind:
    return replace(kind, value=lambda column, shape: f"({kind.value(column, shape)})::DATE")


_NAMES: Final = frozenset({Shape.text, Shape.whole, Shape.decimal, Shape.floating, Shape.flag, Shape.nothing})

AMOUNT: Final = amounts("point")
PLAIN_AMOUNT: Final = replace(AMOUNT, value=lambda text, _: written_values.plain_number(text))
"""The usual spelling of text: its SQL is a tenth of that of `amounts`, and planned in a tenth of the time."""
YES_OR_NO: Final = Kind("numbers are needed", columns.FLAG.shapes, _yes_or_no, _yes_or_no_problems)
NAME: Final = Kind("names are needed", _NAMES, _name, lambda _: [])
DAY: Final = days("day-first")
ISO_DAY: Final = replace(DAY, value=_of_days(replace(columns.TIME, value=columns.iso_time)).value)
"""The usual spelling, as PLAIN_AMOUNT."""
UNIT: Final = columns.ID


# ---------------------------------------------------------------------------------------------------------- the table


@dataclass(frozen=True, slots=True)
class OutcomeTable:
    """A table of a DuckDB connection: its numbered columns, and the row number in the file, from 1.

    `notes` are sentences about what was read in a way that the user may not expect. `valid` has the columns whose
    values were found valid, each with the kind.
    """

    connection: duckdb.DuckDBPyConnection
    table: str
    file: str
    types: dict[str, pa.DataType]  # by the names that the user knows
    notes: list[str] = field(default_factory=list)
    valid: set[tuple[str, Kind]] = field(default_factory=set)

    def query(self, sql: str) -> list[tuple[object, ...]]:
        """All rows of a query."""
        return list(self.connection.execute(sql).fetchall())

    def shape(self, column: str) -> Shape | None:
        """The shape of a column's values; None for an unsupported type."""
        return shape_of(self.types[column])

    def raw(self, column: str) -> str:
        """SQL of a column, unconverted."""
        return _numbered(self._position(column))

    def trimmed(self, column: str) -> str:
        """SQL of a text column without leading and trailing blanks, over `rows` of that column."""
        return identifier(f"column {self._position(column)} trimmed")

    def rows(self, wanted: Iterable[str]) -> str:
        """SQL of the table with these columns trimmed beside the raw ones, so that a text is trimmed once per row."""
        texts = [column for column in dict.fromkeys(wanted) if self.shape(column) is Shape.text]
        trimmed = [f", {columns.trimmed(f'{self.raw(of)}::VARCHAR')} AS {self.trimmed(of)}" for of in texts]
        return f"(SELECT *{''.join(trimmed)} FROM {self.table})"

    def _position(self, column: str) -> int:
        return list(self.types).index(column)


def open_source(
    source: Path | pa.Table,
    name: str,
    folder: Path,
    needed: Sequence[str],
    optional: Sequence[str] | None = (),
    spelling: Spelling = AS_WRITTEN,
) -> Source:
    """The needed columns and the available optional ones of a CSV or Parquet file, or of an Arrow table.

    None for `optional` means all columns with a unique name. Raises InputError where the source is not a readable table
    or lacks a needed column.
    """
    if not all(column.strip() for column in needed):
        raise InputError("a column name is empty")
    path = source if isinstance(source, Path) else folder / name
    if isinstance(source, pa.Table):
        with in_our_words(f"the {name} can't be read"):
            pq.write_table(source, path)
    return open_table(path, name, needed, optional=optional, spelling=spelling, workspace=folder)


def receive(
    connection: duckdb.DuckDBPyConnection, source: Source, table: str, *, in_place: bool = False
) -> OutcomeTable:
    """Create a table of a file's columns; with `in_place`, a view that reads Parquet when queried.

    Raises InputError for the first row that is not well-formed.
    """
    relation = "VIEW" if in_place and source.dialect is None else "TABLE"
    read(source, lambda rows: connection.execute(f"CREATE OR REPLACE {relation} {table} AS {_numbering(source, rows)}"))
    made = OutcomeTable(connection, table, source.path.name, {name: of.type for name, of in source.columns.items()})
    first = f"SELECT {ROW}, {_PROBLEM} FROM {table} WHERE {_PROBLEM} IS NOT NULL ORDER BY {ROW} LIMIT 1"
    for row, problem in made.query(first):
        later = made.query(f"SELECT 1 FROM {table} WHERE {ROW} > {row} AND {_PROBLEM} IS NULL LIMIT 1")
        is_footer = str(problem).startswith("has 1 cells") and not later
        advice = ": if it is a note below the table, delete it" if is_footer else ""
        advice = f": {ENCODING_HINT}" if problem == NOT_TEXT else advice
        raise InputError(f"{made.file} row {row} {problem}{advice}")
    return made


@contextmanager
def opened_table(
    source: Path | pa.Table, spelling: Spelling, wanted: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[OutcomeTable]:
    """The columns of a table of outcomes in a DuckDB of its own. Raises InputError as `open_source` and `receive`."""
    with workspace("analyse") as folder:
        outcomes = open_source(source, "outcomes", folder, wanted, optional, spelling)
        failed = f"{outcomes.path.name} can't be read"
        with connect(folder, [outcomes]) as connection, in_our_words(failed):
            yield receive(connection, outcomes, "received")


def _numbering(opened: Source, rows: str) -> str:
    """The query that gives the columns their numbers."""
    selected = []
    for number, column in enumerate(opened.columns.values()):
        sql = column.sql
        if opened.dialect is not None:  # undoes `csv_cells.guarded`
            changed = f"{sql}[1] = '''' AND regexp_matches({sql}, {literal(GUARDED)})"
            sql = f"CASE WHEN {changed} THEN {sql}[2:] ELSE {sql} END"
        selected.append(f"{sql} AS {_numbered(number)}")
    return f"SELECT {', '.join(selected)}, {_PROBLEM}, row_number() OVER () AS {ROW} FROM {rows}"


def _numbered(number: int) -> str:
    return identifier(f"column {number}")


# ------------------------------------------------------------------------------------------------------- its columns


def value(table: OutcomeTable, column: str, kind: Kind) -> str:
    """SQL of the column's values as `kind`, over `rows` of the column.

    Raises InputError for an unsupported type and the first invalid row.
    """
    cell = _cell(table, column, kind)
    if (column, kind) not in table.valid and (problems := _problems(cell, kind)):
        broken = " ".join(f"WHEN {problem.broken} THEN {number}" for number, problem in enumerate(problems))
        first = (
            f"SELECT {ROW}, broken, left({table.raw(column)}::VARCHAR, {SHOWN_CHARACTERS}) "
            f"FROM (SELECT *, CASE {broken} END AS broken FROM {_valued(table, column, cell)}) "
            f"WHERE broken IS NOT NULL ORDER BY {ROW} LIMIT 1"
        )
        for row, number, raw in table.query(first):
            shown = "" if raw is None else f" {raw!r}"
            complaint = problems[int(str(number))].complaint
            place = f"{table.file} row {row}: {column}"
            raise InputError(f"{place}{shown} {complaint}", bare=f"{place} {complaint}")
    return cell.value


def fits(table: OutcomeTable, column: str, kind: Kind) -> bool:
    """Whether all values of a column are valid as `kind`."""
    if table.shape(column) not in kind.shapes:
        return False
    cell = _cell(table, column, kind)
    broken = " OR ".join(f"coalesce({problem.broken}, false)" for problem in _problems(cell, kind))
    if table.query(f"SELECT 1 FROM {_valued(table, column, cell)} WHERE {broken} LIMIT 1"):
        return False
    table.valid.add((column, kind))
    return True


def covariate(table: OutcomeTable, column: str, numbers: Kind) -> str:
    """SQL of a numeric covariate (`numbers`), or of the position of a categorical one among its levels, from 1.

    Raises InputError for a categorical covariate with more than 50 levels, and as `value` does.
    """
    if table.shape(column) is not Shape.text or fits(table, column, numbers):
        return value(table, column, numbers)
    name = f"coalesce({value(table, column, NAME)}, '')"
    levels = table.query(f"SELECT DISTINCT {name} FROM {table.rows([column])} ORDER BY 1 LIMIT {MAX_LEVELS + 1}")
    if len(levels) > MAX_LEVELS:
        raise InputError(f"{table.file}: the covariate {column} has more than {MAX_LEVELS} levels")
    known = ", ".join(literal(str(level)) for (level,) in levels)
    return f"list_position([{known}], {name})::INTEGER"


def _cell(table: OutcomeTable, column: str, kind: Kind) -> Cell:
    shape = table.shape(column)
    if shape is None or shape not in kind.shapes:
        received = printable(str(table.types[column]))[:SHOWN_CHARACTERS]
        raise InputError(f"{table.file}: {column} is {received}, where {kind.needed}")
    sql = table.raw(column)
    if shape is Shape.text:
        sql = table.trimmed(column) if kind.trimmed else f"{sql}::VARCHAR"
    return Cell(sql, shape, f"({kind.value(sql, shape)})")


def _valued(table: OutcomeTable, column: str, cell: Cell) -> str:
    """SQL of the table with the column `value`, computed once per row for all problems."""
    return f"(SELECT *, {cell.value} AS value FROM {table.rows([column])})"


def _problems(cell: Cell, kind: Kind) -> list[Problem]:
    return kind.problems(replace(cell, value="value"))
