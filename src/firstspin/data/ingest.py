"""Ingestion: input files -> validated tables, or an error that names file, row, field and value.

Registrations and stations become DuckDB tables. Listens stay on disk: Parquet is read in place, CSV is rewritten once
as typed Parquet in the workspace, so that they never have to fit in memory.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from firstspin.data import schema
from firstspin.data.column_map import OWN_NAMES, ColumnMap
from firstspin.data.formats import columns
from firstspin.data.formats.columns import Cell, Kind, Shape, shape_of
from firstspin.data.formats.readers import PROBLEM, Column, Source, connect, in_our_words, open_table, read, shown_alias
from firstspin.data.further_fields import check_names
from firstspin.data.schema import ROW
from firstspin.data.sql import identifier, literal
from firstspin.files import printable
from firstspin.records import BadRows, InputError, Station, normal

if TYPE_CHECKING:
    import duckdb

SHOWN = 10
SHOWN_CHARACTERS = 80

_ABSENT: Final = {schema.AGE: "NULL::INTEGER", schema.GENDER: "NULL::VARCHAR", schema.COUNTRY: "NULL::VARCHAR"}
"""SQL: the values of the columns that registrations may lack."""

_BROKEN: Final = identifier("number of the rule broken")
_VALUE: Final = identifier("value that broke it")
_ROW: Final = identifier(ROW)
_NUMBER: Final = f"row_number() OVER () - 1 AS {_ROW}"
_PROBLEM: Final = identifier(PROBLEM)


@dataclass(frozen=True, slots=True)
class Tables:
    """The validated tables `registrations`, `listens` and `stations` of a DuckDB connection.

    `registrations` and `stations` also have the column `schema.ROW`. `ignored` counts the bad rows that were skipped,
    by reason. `extra` maps each further column to its kind, "number" or "text"; `files` maps each table to the name of
    its file. `absent` are the standard columns that the registrations lack: their values are null.
    """

    connection: duckdb.DuckDBPyConnection
    genres: tuple[str, ...]
    extra: dict[str, str]
    ignored: dict[str, int]
    files: dict[str, str]
    absent: tuple[str, ...]


@in_our_words("the tables can't be read")
def open_tables(
    data: Path,
    *,
    workspace: Path,
    extra: Sequence[str] = (),
    mapping: ColumnMap = OWN_NAMES,
    skip_bad_rows: bool = False,
    threads: int | None = None,
    out: Path | None = None,
) -> Tables:
    """Validate the three tables of a folder and load them into a connection, which may also write the file `out`.

    Raises BadRows, with the first ten bad rows and the number of the others, and InputError where a file can't be read.
    """
    check_names(extra)
    mapping.check(extra)
    stations = _open(_find(data, schema.STATIONS), schema.STATIONS, workspace, mapping)
    further = dict.fromkeys(extra, columns.ANY_FURTHER)
    registrations = _open(_find(data, schema.REGISTRATIONS), schema.REGISTRATIONS, workspace, mapping, further)
    listens = _open(_find(data, schema.LISTENS), schema.LISTENS, workspace, mapping)
    mapping.require_used([stations, registrations, listens])
    connection = connect(workspace, [stations, registrations, listens], out=out, threads=threads)
    skipped = Skipped(skip_bad_rows, {})
    _receive(connection, stations)
    _load(connection, stations, schema.STATIONS, columns.KINDS[schema.STATIONS], skipped)
    _normalise_genres(connection)
    _receive(connection, registrations)
    kinds = {name: _kind(connection, registrations.columns[name]) for name in extra}
    further = {name: columns.FURTHER[kind] for name, kind in kinds.items()}
    _load_registrations(connection, registrations, further, skipped)
    _load_listens(connection, listens, workspace, skipped)
    genres = tuple(g for (g,) in connection.execute("SELECT DISTINCT genre FROM stations ORDER BY genre").fetchall())
    files = {
        name: source.path.name for name, source in zip(schema.COLUMNS, (registrations, listens, stations), strict=True)
    }
    return Tables(connection, genres, kinds, skipped.counts, files, _absent(registrations))


@dataclass(frozen=True, slots=True)
class ReceivedRegistrations:
    """Registrations for batch scoring: the table `registrations` of a connection, and the counts of skipped rows.

    `absent` as in `Tables`.
    """

    connection: duckdb.DuckDBPyConnection
    rows: int
    ignored: dict[str, int]
    absent: tuple[str, ...]


@in_our_words("the registrations can't be read")
def read_registrations(
    path: Path,
    *,
    workspace: Path,
    extra: Mapping[str, str] | None = None,
    mapping: ColumnMap = OWN_NAMES,
    skip_bad_rows: bool = False,
) -> ReceivedRegistrations:
    """The registrations of a CSV or Parquet file, validated as by `open_tables`; `extra` as in `Tables`.

    Raises BadRows and InputError as `open_tables`.
    """
    further = {name: columns.FURTHER[kind] for name, kind in (extra or {}).items()}
    mapping.check(tuple(further))
    source = _open(path, schema.REGISTRATIONS, workspace, mapping, further)
    mapping.require_used([source])
    connection = connect(workspace, [source])
    skipped = Skipped(skip_bad_rows, {})
    _receive(connection, source)
    _load_registrations(connection, source, further, skipped)
    ((rows,),) = connection.execute("SELECT count(*) FROM registrations").fetchall()
    return ReceivedRegistrations(connection, rows, skipped.counts, _absent(source))


@in_our_words("the stations can't be read")
def station_popularity(tables: Tables) -> list[tuple[Station, float]]:
    """Each available station with its popularity: the column of that name, or else its seconds of listening."""
    columns_there = _columns_of_stations(tables)
    available = f"coalesce({schema.AVAILABLE}, true)" if schema.AVAILABLE in columns_there else "true"
    popularity = (
        f"coalesce({schema.POPULARITY}, 0)"
        if schema.POPULARITY in columns_there
        else "coalesce((SELECT sum(seconds) FROM listens WHERE listens.station_id = stations.station_id), 0)"
    )
    name = "coalesce(nullif(name, ''), station_id)"
    query = f"SELECT station_id, {name}, genre, {popularity} FROM stations WHERE {available} ORDER BY {_ROW}"
    rows = tables.connection.execute(query).fetchall()
    return [(Station(station_id, name, genre), float(popularity)) for station_id, name, genre, popularity in rows]


def station_markets(tables: Tables) -> dict[str, tuple[str, ...]]:
    """The countries of each station that lists any."""
    if schema.MARKET not in _columns_of_stations(tables):
        return {}
    query = f"SELECT station_id, {schema.MARKET} FROM stations WHERE len({schema.MARKET}) > 0 ORDER BY {_ROW}"
    return {station_id: tuple(markets) for station_id, markets in tables.connection.execute(query).fetchall()}


def _columns_of_stations(tables: Tables) -> set[str]:
    return {str(name) for name, *_ in tables.connection.execute("DESCRIBE stations").fetchall()}


# ------------------------------------------------------------------------------------------------------- opening files


def _find(data: Path, name: str) -> Path:
    if not data.is_dir():
        raise InputError(f"{data} is not a folder with registrations, listens and stations")
    if (in_memory := data / name).is_file():  # see dataframes.folder_of
        return in_memory
    paths = [path for path in (data / f"{name}.parquet", data / f"{name}.csv") if path.exists()]
    if len(paths) > 1:
        raise InputError(f"{data} has both {name}.parquet and {name}.csv: remove the one that is not to be used")
    if not paths:
        raise InputError(f"{data} has neither {name}.parquet nor {name}.csv")
    return paths[0]


def _open(
    path: Path, name: str, workspace: Path, mapping: ColumnMap, further: Mapping[str, Kind] | None = None
) -> Source:
    """The file of a table with its required and optional columns.

    Raises InputError where a column has another type, or the name of an optional one is spelled in another way.
    """
    kinds = {**columns.KINDS[name], **(further or {})}
    needed = [*(of for of in schema.COLUMNS[name] if of not in schema.OPTIONAL), *(further or {})]
    optional = [of for of in kinds if of not in needed]
    mapped = mapping.aliases(name)
    source = open_table(path, name, needed, optional=optional, mapped=mapped, workspace=workspace)
    for column_name, column in source.columns.items():
        if shape_of(column.type) not in kinds[column_name].shapes:
            type_name = printable(str(column.type))[:80]
            shown = shown_alias(column_name, column.header)
            problem = f"{path.name}: {shown} is {type_name}, where {kinds[column_name].needed}"
            raise InputError(problem, field=column_name)
    _refuse_other_spelling(source)
    return source


def _refuse_other_spelling(source: Source) -> None:
    """Raises InputError where a column that may be absent has its name in another spelling, such as `Age`."""
    for name in _absent(source):
        for header in source.names:
            if header.casefold().strip("_ ") == name:
                raise InputError(
                    f"{source.path.name} has no column {name}, but {header}: "
                    f"use it with --map {shlex.quote(f'{name}={header}')}, or rename it",
                    field=name,
                )


def _absent(source: Source) -> tuple[str, ...]:
    """The standard columns that a file of registrations lacks."""
    return tuple(name for name in schema.OPTIONAL if name not in source.columns)


def _kind(connection: duckdb.DuckDBPyConnection, column: Column) -> str:
    """The kind of a further column of the table `received`: text where every value is a number counts as numbers."""
    shape = shape_of(column.type)
    if shape is Shape.text:
        every = f"SELECT coalesce(bool_and({columns.is_number(column.sql)}), false) FROM received"
        ((numbers,),) = connection.execute(every).fetchall()
        return schema.NUMBER if numbers else schema.TEXT
    return schema.NUMBER if shape in (Shape.whole, Shape.decimal, Shape.floating) else schema.TEXT


# ---------------------------------------------------------------------------------------------------------- the rules


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

    @property
    def cell(self) -> Cell:
        """The SQL names of the received column and of the validated one."""
        return Cell(identifier(f"{self.name} received"), self.shape, identifier(self.name))


@dataclass(frozen=True, slots=True)
class RowRule:
    """A row is bad where `broken` (SQL over the validated values) is true; `complaint` ends the error message.

    A row that is not well-formed has no fields: the message of the file's reader is used.
    """

    field: Field | None
    broken: str
    complaint: str


MALFORMED: Final = RowRule(None, f"{_PROBLEM} IS NOT NULL", "rows that are not well-formed")


def _fields(source: Source, kinds: Mapping[str, Kind]) -> list[Field]:
    shapes = {name: shape_of(column.type) for name, column in source.columns.items()}
    return [Field(name, kinds[name], source.columns[name], shape) for name, shape in shapes.items() if shape]


def _rules(fields: Sequence[Field]) -> list[RowRule]:
    of_values = [
        RowRule(field, one.broken, one.complaint) for field in fields for one in field.kind.problems(field.cell)
    ]
    return [MALFORMED, *of_values]


def _validated(rows: str, fields: Sequence[Field], rules: Sequence[RowRule]) -> str:
    """SQL: the rows with the validated values, the number of the first rule that each breaks, and the bad value."""
    broken = " ".join(f"WHEN {rule.broken} THEN {number}" for number, rule in enumerate(rules))
    bad_values = " ".join(f"WHEN {number} THEN {_as_received(rule)}" for number, rule in enumerate(rules))
    return (
        f"SELECT *, CASE WHEN {_BROKEN} IS NOT NULL THEN CASE {_BROKEN} {bad_values} END END AS {_VALUE} FROM "
        f"(SELECT *, CASE {broken} END AS {_BROKEN} FROM ({_valued(rows, fields)}))"
    )


def _valued(rows: str, fields: Sequence[Field]) -> str:
    """SQL: the rows with the validated values."""
    received = ", ".join(f"{field.received} AS {field.cell.column}" for field in fields)
    values = ", ".join(f"{field.kind.value(field.cell.column, field.shape)} AS {field.cell.value}" for field in fields)
    return f"SELECT *, {values} FROM (SELECT *, {received} FROM {rows})"


def _as_received(rule: RowRule) -> str:
    return f"left({rule.field.column.sql}::VARCHAR, {SHOWN_CHARACTERS})" if rule.field else _PROBLEM


# -------------------------------------------------------------------------------------------------------- small tables


def _receive(connection: duckdb.DuckDBPyConnection, source: Source) -> None:
    """Read a small table as the table `received`, in the order of the file."""
    create = f"CREATE OR REPLACE TEMP TABLE received AS SELECT *, {_NUMBER}"
    read(source, lambda rows: connection.execute(f"{create} FROM {rows}"))


def _load_registrations(
    connection: duckdb.DuckDBPyConnection, source: Source, further: Mapping[str, Kind], skipped: Skipped
) -> None:
    _load(connection, source, schema.REGISTRATIONS, {**columns.KINDS[schema.REGISTRATIONS], **further}, skipped)


def _load(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    name: str,
    kinds: Mapping[str, Kind],
    skipped: Skipped,
) -> None:
    """Create the table `name` from the valid rows of the table `received`; its first column is a unique key."""
    fields = _fields(source, kinds)
    ours = ", ".join(field.cell.value for field in fields)
    all_columns = ", ".join(
        identifier(of) if of in source.columns else f"{_ABSENT[of]} AS {identifier(of)}"
        for of in kinds
        if of in source.columns or of in _ABSENT
    )
    key = fields[0]
    rules = [*_rules(fields), RowRule(key, "false", "appears a second time")]
    validated = _validated("received", fields, rules)
    connection.execute(f"CREATE TEMP TABLE validated AS SELECT {_ROW}, {ours}, {_BROKEN}, {_VALUE} FROM ({validated})")
    connection.execute("DROP TABLE received")
    repeated = (
        f"SELECT {_ROW} AS repeated FROM validated WHERE {_BROKEN} IS NULL "
        f"QUALIFY row_number() OVER (PARTITION BY {key.cell.value} ORDER BY {_ROW}) > 1"
    )
    connection.execute(
        f"UPDATE validated SET {_BROKEN} = {len(rules) - 1}, {_VALUE} = {key.cell.value} "
        f"FROM ({repeated}) WHERE {_ROW} = repeated"
    )
    skipped.count(connection, "validated", source, rules)
    good = f"SELECT {_ROW}, {all_columns} FROM validated WHERE {_BROKEN} IS NULL ORDER BY {_ROW}"
    connection.execute(f"CREATE TABLE {name} AS {good}")
    connection.execute("DROP TABLE validated")


# ------------------------------------------------------------------------------------------------------------- listens


def _load_listens(connection: duckdb.DuckDBPyConnection, source: Source, workspace: Path, skipped: Skipped) -> None:
    """Create the view `listens` over Parquet on disk: the file itself, or a typed copy where text must be parsed."""
    fields = _fields(source, columns.KINDS[schema.LISTENS])
    ours = ", ".join(field.cell.value for field in fields)
    station = next(field for field in fields if field.name == schema.STATION_ID)
    unknown = f"{station.cell.value} NOT IN (SELECT station_id FROM stations)"
    rules = [*_rules(fields), RowRule(station, unknown, "is not in the stations")]
    parsed = any(field.shape is Shape.text and field.kind.trimmed for field in fields)
    copy = workspace / "listens.parquet"

    def load(rows: str) -> None:
        if parsed:
            validated = f"SELECT {ours}, {_BROKEN}, {_VALUE} FROM ({_validated(rows, fields, rules)})"
            connection.execute(f"COPY ({validated}) TO {literal(copy)} (FORMAT parquet)")
            typed = f"read_parquet({literal(copy)}, file_row_number = true)"
            numbered = validated = f"(SELECT *, file_row_number AS {_ROW} FROM {typed})"
            values = f"SELECT {ours} FROM {typed}"
        else:
            validated = f"({_validated(rows, fields, rules)})"
            numbered = f"({_validated(f'(SELECT *, {_NUMBER} FROM {rows})', fields, rules)})"
            values = f"SELECT {ours} FROM ({_valued(rows, fields)})"
        if connection.execute(f"SELECT 1 FROM {validated} WHERE {_BROKEN} IS NOT NULL LIMIT 1").fetchall():
            skipped.count(connection, numbered, source, rules)
            values = f"SELECT {ours} FROM {validated} WHERE {_BROKEN} IS NULL"
        connection.execute(f"CREATE OR REPLACE VIEW listens AS {values}")

    read(source, load)


# ------------------------------------------------------------------------------------------------------ what is wrong


@dataclass(frozen=True, slots=True)
class Skipped:
    """Whether bad rows may be skipped, and the number of skipped rows by reason."""

    allowed: bool
    counts: dict[str, int]

    def count(
        self, connection: duckdb.DuckDBPyConnection, validated: str, source: Source, rules: Sequence[RowRule]
    ) -> None:
        """Count the bad rows of a table. Raises BadRows, with the first ten, where they may not be skipped."""
        broken = f"FROM {validated} WHERE {_BROKEN} IS NOT NULL"
        counts = dict(connection.execute(f"SELECT {_BROKEN}, count(*) {broken} GROUP BY ALL ORDER BY ALL").fetchall())
        if counts and not self.allowed:
            first = f"SELECT {_ROW}, {_BROKEN}, {_VALUE} {broken} ORDER BY {_ROW} LIMIT {SHOWN}"
            raise _complaints(connection.execute(first).fetchall(), source.path.name, rules, sum(counts.values()))
        for number, count in counts.items():
            rule = rules[number]
            self.counts[f"{source.path.name}: {_named(rule)}{rule.complaint}"] = count


def _complaints(
    first: Sequence[tuple[int, int, str | None]], file: str, rules: Sequence[RowRule], total: int
) -> BadRows:
    more = [f"{file}: and {total - SHOWN} more bad rows"] if total > SHOWN else []
    shown = [_complaint(file, row, rules[broken], value, bare=False) for row, broken, value in first]
    bare = [_complaint(file, row, rules[broken], value, bare=True) for row, broken, value in first]
    return BadRows("\n".join(shown + more), "\n".join(bare + more))


def _complaint(file: str, row: int, rule: RowRule, value: str | None, *, bare: bool) -> str:
    if rule.field is None:
        return f"{file} row {row + 1} {value}"
    shown = "" if bare or value is None else f"{value!r} "
    return f"{file} row {row + 1}: {_named(rule)}{shown}{rule.complaint}"


def _named(rule: RowRule) -> str:
    return f"{rule.field.name} " if rule.field else ""


# ------------------------------------------------------------------------------------------------------------- genres


def _normalise_genres(connection: duckdb.DuckDBPyConnection) -> None:
    """Write the genres of stations in normal form, in Python, as DuckDB has no NFKC; the table is small."""
    spelled = [genre for (genre,) in connection.execute("SELECT DISTINCT genre FROM stations").fetchall()]
    for genre in spelled:
        if normal(genre) != genre:
            connection.execute("UPDATE stations SET genre = ? WHERE genre = ?", [normal(genre), genre])
