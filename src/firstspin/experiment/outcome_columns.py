"""A table of outcomes as received: its columns, checked by what they are used for, as SQL.

No name of the user's becomes part of a statement: columns are numbered. How a text spells a value is said by `parsing`,
which types are read by `columns`; here is only what outcomes have beside those.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from firstspin.data import parsing
from firstspin.data.formats import columns
from firstspin.data.formats.columns import Cell, Kind, Problem, Shape, shape_of
from firstspin.data.formats.csv_cells import GUARDED
from firstspin.data.formats.readers import PROBLEM, Source, in_our_words, open_table, read
from firstspin.data.sql import identifier, literal
from firstspin.files import printable
from firstspin.records import InputError

MOST_LEVELS: Final = 50
LARGEST: Final = 1e60  # so that squares of squares are numbers too
SHOWN_CHARACTERS: Final = 80

ROW: Final = identifier("row of the file")
_PROBLEM: Final = identifier(PROBLEM)


# ------------------------------------------------------------------------------------------------ what a column holds


def _amount(column: str, shape: Shape) -> str:
    return f"{column}::INTEGER::DOUBLE" if shape is Shape.flag else columns.NUMBER.value(column, shape)


def _amount_problems(cell: Cell) -> list[Problem]:
    none = [Problem(problem.broken, "is not a finite number") for problem in columns.NUMBER.problems(cell)]
    return [*none, Problem(f"abs({cell.value}) >= {LARGEST}", f"is not below {LARGEST:g}")]


def _yes_or_no(column: str, shape: Shape) -> str:
    return f"({columns.FLAG.value(column, shape)})::INTEGER::DOUBLE"


def _yes_or_no_problems(cell: Cell) -> list[Problem]:
    complaint = "is neither yes nor no (1 or 0, true or false)"
    return [Problem(problem.broken, complaint) for problem in columns.FLAG.problems(cell)]


def _name(column: str, shape: Shape) -> str:
    text = f"nullif({column}::VARCHAR, '')"
    return f"CASE WHEN NOT isnan({column}) THEN {text} END" if shape is Shape.floating else text


def _day(column: str, shape: Shape) -> str:
    """The date in UTC; a time without a zone is taken as UTC."""
    zoned = f"({columns.TIME.value(column, shape)})::DATE"
    if shape is not Shape.text:
        return zoned
    local = f"regexp_full_match({column}, {literal(parsing.LOCAL_TIME)})"
    return f"coalesce({zoned}, CASE WHEN {local} THEN TRY_CAST({column}[:10] AS DATE) END)"


def _day_problems(cell: Cell) -> list[Problem]:
    earliest, latest = (f"DATE {literal(f'{at:%Y-%m-%d}')}" for at in (parsing.EARLIEST, parsing.LATEST))
    return [
        Problem(f"{cell.value} IS NULL AND ({columns.is_gap(cell)})", "is missing"),
        Problem(f"{cell.value} IS NULL", "is not a date or an ISO 8601 time"),
        Problem(f"{cell.value} < {earliest} OR {cell.value} >= {latest}", parsing.NO_SUCH_YEAR),
    ]


_NAMES: Final = frozenset({Shape.text, Shape.whole, Shape.decimal, Shape.floating, Shape.flag, Shape.nothing})

AMOUNT: Final = Kind("numbers are needed", columns.NUMBER.shapes | {Shape.flag}, _amount, _amount_problems)
YES_OR_NO: Final = Kind("numbers are needed", columns.FLAG.shapes, _yes_or_no, _yes_or_no_problems)
NAME: Final = Kind("names are needed", _NAMES, _name, lambda _: [])
DAY: Final = Kind("days are needed", columns.TIME.shapes, _day, _day_problems)
UNIT: Final = columns.ID


# ---------------------------------------------------------------------------------------------------------- the table


@dataclass(frozen=True, slots=True)
class OutcomeTable:
    """A table of a connection: its columns under numbers, and the row of the file, from 1."""

    connection: duckdb.DuckDBPyConnection
    table: str
    file: str
    types: dict[str, pa.DataType]  # by the names that the user knows

    def ask(self, sql: str) -> list[tuple[object, ...]]:
        return list(self.connection.execute(sql).fetchall())

    def shape(self, column: str) -> Shape | None:
        return shape_of(self.types[column])

    def raw(self, column: str) -> str:
        """SQL for a column as it was received."""
        return _numbered(self._position(column))

    def trimmed(self, column: str) -> str:
        """SQL for a column of text without outer space, in `rows` of that column."""
        return identifier(f"column {self._position(column)} trimmed")

    def rows(self, wanted: Iterable[str]) -> str:
        """SQL: the table, and beside it these columns as `value` needs them: a text is trimmed once a row."""
        texts = [column for column in dict.fromkeys(wanted) if self.shape(column) is Shape.text]
        trimmed = [f", {columns.trimmed(f'{self.raw(of)}::VARCHAR')} AS {self.trimmed(of)}" for of in texts]
        return f"(SELECT *{''.join(trimmed)} FROM {self.table})"

    def _position(self, column: str) -> int:
        return list(self.types).index(column)


def open_source(
    source: Path | pa.Table, name: str, folder: Path, needed: Sequence[str], optional: Sequence[str] | None = ()
) -> Source:
    """The needed columns of a CSV or Parquet file, or of an Arrow table, and those of the optional ones that are there.

    None for `optional` is all that have a name of their own. Raises InputError for what is no table.
    """
    if not all(column.strip() for column in needed):
        raise InputError("a column is asked for by an empty name")
    path = source if isinstance(source, Path) else folder / name
    if isinstance(source, pa.Table):
        with in_our_words(f"the {name} can't be read"):
            pq.write_table(source, path)
    return open_table(path, name, needed, optional=optional, workspace=folder)


def receive(
    connection: duckdb.DuckDBPyConnection, source: Source, table: str, *, in_place: bool = False
) -> OutcomeTable:
    """Make a table of a file's columns; with `in_place` Parquet is read when it is asked for.

    Raises InputError for the first row that is not well-formed.
    """
    what = "VIEW" if in_place and source.dialect is None else "TABLE"
    read(source, lambda rows: connection.execute(f"CREATE OR REPLACE {what} {table} AS {_kept(source, rows)}"))
    made = OutcomeTable(connection, table, source.path.name, {name: of.type for name, of in source.columns.items()})
    first = f"SELECT {ROW}, {_PROBLEM} FROM {table} WHERE {_PROBLEM} IS NOT NULL ORDER BY {ROW} LIMIT 1"
    for row, problem in made.ask(first):
        raise InputError(f"{made.file} row {row} {problem}")
    return made


def _kept(opened: Source, rows: str) -> str:
    kept = []
    for number, column in enumerate(opened.columns.values()):
        sql = column.sql
        if opened.dialect is not None:  # what `csv_cells.guarded` did to it is undone
            changed = f"{sql}[1] = '''' AND regexp_matches({sql}, {literal(GUARDED)})"
            sql = f"CASE WHEN {changed} THEN {sql}[2:] ELSE {sql} END"
        kept.append(f"{sql} AS {_numbered(number)}")
    return f"SELECT {', '.join(kept)}, {_PROBLEM}, row_number() OVER () AS {ROW} FROM {rows}"


def _numbered(number: int) -> str:
    return identifier(f"column {number}")


# ------------------------------------------------------------------------------------------------------- its columns


def value(table: OutcomeTable, column: str, kind: Kind) -> str:
    """SQL, over `rows` of the column, for it as `kind` has it.

    Raises InputError for a column of another type, and for the first bad row.
    """
    cell = _cell(table, column, kind)
    if problems := _problems(cell, kind):
        broken = " ".join(f"WHEN {problem.broken} THEN {number}" for number, problem in enumerate(problems))
        first = (
            f"SELECT {ROW}, broken, left({table.raw(column)}::VARCHAR, {SHOWN_CHARACTERS}) "
            f"FROM (SELECT *, CASE {broken} END AS broken FROM {_valued(table, column, cell)}) "
            f"WHERE broken IS NOT NULL ORDER BY {ROW} LIMIT 1"
        )
        for row, number, raw in table.ask(first):
            shown = "" if raw is None else f" {raw!r}"
            complaint = problems[int(str(number))].complaint
            place = f"{table.file} row {row}: {column}"
            raise InputError(f"{place}{shown} {complaint}", bare=f"{place} {complaint}")
    return cell.value


def fits(table: OutcomeTable, column: str, kind: Kind) -> bool:
    """Whether all values of a column are what `kind` has."""
    if table.shape(column) not in kind.shapes:
        return False
    cell = _cell(table, column, kind)
    broken = " OR ".join(f"coalesce({problem.broken}, false)" for problem in _problems(cell, kind))
    return not table.ask(f"SELECT 1 FROM {_valued(table, column, cell)} WHERE {broken} LIMIT 1")


def covariate(table: OutcomeTable, column: str) -> str:
    """SQL for a number, or for a level of few as the list of those that it is: [0, 1, 0]."""
    if table.shape(column) is not Shape.text or fits(table, column, AMOUNT):
        return value(table, column, AMOUNT)
    name = f"coalesce({value(table, column, NAME)}, '')"
    levels = table.ask(f"SELECT DISTINCT {name} FROM {table.rows([column])} ORDER BY 1 LIMIT {MOST_LEVELS + 1}")
    if len(levels) > MOST_LEVELS:
        raise InputError(f"{table.file}: the covariate {column} has more than {MOST_LEVELS} different values")
    known = ", ".join(literal(str(level)) for (level,) in levels)
    return f"list_position([{known}], {name})::INTEGER"


def _cell(table: OutcomeTable, column: str, kind: Kind) -> Cell:
    shape = table.shape(column)
    if shape is None or shape not in kind.shapes:
        found = printable(str(table.types[column]))[:SHOWN_CHARACTERS]
        raise InputError(f"{table.file}: {column} is {found}, where {kind.needed}")
    sql = table.raw(column)
    if shape is Shape.text:
        sql = table.trimmed(column) if kind.trimmed else f"{sql}::VARCHAR"
    return Cell(sql, shape, f"({kind.value(sql, shape)})")


def _valued(table: OutcomeTable, column: str, cell: Cell) -> str:
    """SQL: the table and the column `value`, worked out once a row however many problems look at it."""
    return f"(SELECT *, {cell.value} AS value FROM {table.rows([column])})"


def _problems(cell: Cell, kind: Kind) -> list[Problem]:
    return kind.problems(replace(cell, value="value"))
