"""Ingestion: input files -> validated tables, or an error that names file, row, field and value.

Registrations and stations become DuckDB tables. Listens stay on disk: Parquet is read in place, CSV is rewritten once
as typed Parquet in the workspace, so that those outside label windows never have to fit in memory.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from firstspin.data import schema
from firstspin.data.checks import findings, row_rules
from firstspin.data.checks.findings import BadRowsOfATable, Complaints, RowRule, TableProblem
from firstspin.data.checks.hints import option_hints
from firstspin.data.checks.row_rules import BROKEN_SQL, OTHERS_SQL, VALUE_SQL, Field
from firstspin.data.column_map import OWN_NAMES, ColumnMap
from firstspin.data.formats import columns
from firstspin.data.formats.columns import Kind, Shape, shape_of
from firstspin.data.formats.connections import connect, in_our_words
from firstspin.data.formats.opening import is_empty, open_stored, open_table
from firstspin.data.formats.readers import read
from firstspin.data.formats.sources import Column, Source, shown_alias
from firstspin.data.formats.written_values import AS_WRITTEN, Spelling
from firstspin.data.further_fields import check_names
from firstspin.data.picks import join_genres
from firstspin.data.schema import ROW
from firstspin.data.sql import identifier, literal
from firstspin.data.table_files import find_table
from firstspin.files import printable
from firstspin.records import InputError, LabelRule, normal

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_NOT_SCORED: Final = (*schema.OPTIONAL, schema.REGISTERED_AT)
_ABSENT: Final = {
    schema.AGE: "NULL::INTEGER",
    schema.GENDER: "NULL::VARCHAR",
    schema.COUNTRY: "NULL::VARCHAR",
    schema.NAME: "''::VARCHAR",
}
"""SQL: the values of the columns that tables may lack."""

_ROW: Final = identifier(ROW)
_NUMBER: Final = f"row_number() OVER () - 1 AS {_ROW}"


@dataclass(frozen=True, slots=True)
class StoredTable:
    """A table or view of a DuckDB database: its name, or schema.name."""

    path: Path
    name: str


class RemoteListens(Protocol):
    """Validated listens that another engine holds."""

    def by_day(self) -> pa.Table:
        """The result of `mismatches.by_day`."""

    def seconds_by_genre(self, rule: LabelRule) -> Iterator[pa.Table]:
        """The result of `expressions.seconds_by_genre`, in parts."""

    def users(self, strangers: int, *, registered: bool) -> pa.Table:
        """Distinct users: the `registered` ones, if asked for, and so many others, the first by their id."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The validated tables `registrations`, `listens` and `stations` of a DuckDB connection.

    `registrations` and `stations` also have the column `schema.ROW`. `sources` are their files: where problems are
    collected, only those of the tables that could be read. `extra` has the kind of each of the `further` columns.
    Where another engine has the listens (`remote`), the table `listens` is not used.
    """

    connection: duckdb.DuckDBPyConnection
    sources: dict[str, Source]
    extra: dict[str, str]
    complaints: Complaints
    further: tuple[str, ...] = ()
    remote: RemoteListens | None = None

    @property
    def ignored(self) -> dict[str, int]:
        """The number of bad rows, and of erased users, that were left out, by reason."""
        return self.complaints.skipped

    @property
    def files(self) -> dict[str, str]:
        """The name of each table's file."""
        return {name: source.path.name for name, source in self.sources.items()}

    @property
    def absent(self) -> tuple[str, ...]:
        """The columns that the registrations may lack and do: no user has a value."""
        return _absent(self.sources[schema.REGISTRATIONS], schema.REGISTRATIONS, self.further)

    @property
    def genres(self) -> tuple[str, ...]:
        """The genres of the stations, sorted."""
        rows = self.connection.execute("SELECT DISTINCT genre FROM stations ORDER BY genre").fetchall()
        return tuple(genre for (genre,) in rows)


@in_our_words("the tables can't be read")
def open_tables(
    data: Path,
    *,
    workspace: Path,
    extra: Sequence[str] = (),
    mapping: ColumnMap = OWN_NAMES,
    spelling: Spelling = AS_WRITTEN,
    extra_optional: bool = False,
    skip_bad_rows: bool = False,
    collected: list[TableProblem] | None = None,
    threads: int | None = None,
    listens: StoredTable | None = None,
) -> Tables:
    """Validate the three tables of a folder, or two and the `listens` of a database, and load them into a connection.

    Where `collected` is a list, problems are appended to it: bad rows, and tables that can't be read, are left out.

    Raises BadRows, with the first ten bad rows and the number of the others, and InputError where a file can't be read.
    """
    check_names(extra)
    mapping.check(extra)
    if not data.is_dir():
        raise InputError(f"{data} is not a folder with registrations, listens and stations")
    complaints = Complaints(skip_bad_rows, collected)
    opened = _open_all(
        data, workspace, mapping, spelling, extra, complaints, extra_optional=extra_optional, listens=listens
    )
    in_memory = [source for name, source in opened.items() if name != schema.LISTENS]
    connection = connect(workspace, list(opened.values()), in_memory=in_memory, threads=threads)
    tables = Tables(connection, {}, {}, complaints, tuple(extra))
    for name, source in opened.items():
        with complaints.of(source.path.name):
            if name == schema.LISTENS:
                _load_listens(tables, source, workspace)
            else:
                _load_small(tables, source, name, extra if name == schema.REGISTRATIONS else ())
            tables.sources[name] = source
    return tables


def _open_all(
    data: Path,
    workspace: Path,
    mapping: ColumnMap,
    spelling: Spelling,
    extra: Sequence[str],
    complaints: Complaints,
    *,
    extra_optional: bool,
    listens: StoredTable | None,
) -> dict[str, Source]:
    """The files of the tables: of the stations first, since listens are compared with them."""
    opened: dict[str, Source] = {}
    for name in (schema.STATIONS, schema.REGISTRATIONS, schema.LISTENS):
        further = dict.fromkeys(extra, columns.ANY_FURTHER) if name == schema.REGISTRATIONS else {}
        with complaints.of(name):
            optional = (*schema.OPTIONAL, *(further if extra_optional else ()))
            stored = listens if name == schema.LISTENS else None
            path = stored.path if stored else find_table(data, name)
            table = stored.name if stored else ""
            opened[name] = _open(path, name, workspace, mapping, spelling, further, optional, table)
    with complaints.of(""):
        mapping.require_used(list(opened.values()))
    return opened


def _load_small(tables: Tables, source: Source, name: str, extra: Sequence[str]) -> None:
    """Load stations or registrations, with the kinds of their further columns."""
    with in_our_words(f"{source.path.name} can't be read"):
        rows = _receive(tables.connection, source)
        there = {column: source.columns[column] for column in extra if column in source.columns}
        kinds = {name: further_kind(tables.connection, rows, column) for name, column in there.items()}
        further = {column: columns.FURTHER[kind] for column, kind in kinds.items()}
        kinds_of_all = {**columns.kinds(name, source.spelling), **further}
        _load(tables.connection, source, rows, name, kinds_of_all, tables.complaints)
    if name == schema.STATIONS:
        _normalise_genres(tables.connection)
    elif schema.STATIONS in tables.sources:
        join_genres(tables.connection, tables.genres, source.spelling.pick_separator)
    tables.extra.update(kinds)


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
    spelling: Spelling = AS_WRITTEN,
    skip_bad_rows: bool = False,
    listens: Path | None = None,
) -> ReceivedRegistrations:
    """The registrations of a CSV or Parquet file, validated as by `open_tables`; `extra` as in `Tables`.

    `listens` is the file of such a table: the view `listens` of the connection has its rows. `registered_at` may be
    absent, as no answer depends on it, and so may the columns of `extra`.

    Raises BadRows and InputError as `open_tables`.
    """
    further = {name: columns.FURTHER[kind] for name, kind in (extra or {}).items()}
    mapping.check(tuple(further))
    source = _open(path, schema.REGISTRATIONS, workspace, mapping, spelling, further, (*_NOT_SCORED, *further))
    heard = [_open(listens, schema.LISTENS, workspace, mapping, spelling)] if listens else []
    mapping.require_used([source, *heard])
    connection = connect(workspace, [source, *heard], in_memory=[source])
    complaints = Complaints(skip_bad_rows)
    for one in heard:
        _load_listens(Tables(connection, {}, {}, complaints), one, workspace)
    kinds = {**columns.kinds(schema.REGISTRATIONS, spelling), **further}
    absent = _absent(source, schema.REGISTRATIONS, tuple(further))
    with in_our_words(f"{path.name} can't be read"):
        _load(connection, source, _receive(connection, source), schema.REGISTRATIONS, kinds, complaints)
    ((rows,),) = connection.execute("SELECT count(*) FROM registrations").fetchall()
    return ReceivedRegistrations(connection, rows, complaints.skipped, absent)


# ------------------------------------------------------------------------------------------------------- opening files


def _open(
    path: Path,
    name: str,
    workspace: Path,
    mapping: ColumnMap,
    spelling: Spelling,
    further: Mapping[str, Kind] | None = None,
    optional: Sequence[str] = schema.OPTIONAL,
    table: str = "",
) -> Source:
    """The file of a table, or its `table` of a database, with its required and optional columns.

    Raises InputError where a column has another type, or the name of an optional one is spelled in another way.
    """
    kinds = {**columns.KINDS[name], **(further or {})}
    needed = [of for of in (*schema.COLUMNS[name], *(further or ())) if of not in optional]
    mapped, at = mapping.aliases(name), mapping.at_place
    others = [of for of in kinds if of not in needed]
    opened = partial(open_stored, path, table) if table else partial(open_table, path, name)
    source = opened(needed, optional=others, mapped=mapped, mapped_at=at, spelling=spelling, workspace=workspace)
    for column_name, column in source.columns.items():
        if shape_of(column.type) not in kinds[column_name].shapes and not is_empty(source, column):
            type_name = printable(str(column.type))[:80]
            shown = shown_alias(column_name, column.header)
            problem = f"{path.name}: {shown} is {type_name}, where {kinds[column_name].needed}"
            raise InputError(problem, field=column_name)
    _refuse_other_spelling(source, _absent(source, name, tuple(further or ())))
    return source


def _refuse_other_spelling(source: Source, absent: Sequence[str]) -> None:
    """Raises InputError where a column that may be absent has its name in another spelling, such as `Age`."""
    for name in absent:
        for header in source.names:
            if header.casefold().strip("_ ") == name.casefold():
                raise InputError(
                    f"{source.path.name} has no column {name}, but {header}: "
                    f"use it with --map {shlex.quote(f'{name}={header}')}, or rename it",
                    field=name,
                )


def _absent(source: Source, table: str, further: tuple[str, ...]) -> tuple[str, ...]:
    """The standard columns that the file of a table may lack, and the `further` ones, which it has not."""
    standard = (of for of in schema.COLUMNS[table] if of in schema.OPTIONAL)
    return tuple(of for of in (*standard, *further) if of not in source.columns)


def further_kind(connection: duckdb.DuckDBPyConnection, rows: str, column: Column) -> str:
    """The kind of a further column of `rows` (SQL): text where every value is a number counts as numbers."""
    shape = shape_of(column.type)
    if shape is Shape.text:
        every = f"SELECT coalesce(bool_and({columns.is_number(column.sql)}), false) FROM {rows}"
        ((numbers,),) = connection.execute(every).fetchall()
        return schema.NUMBER if numbers else schema.TEXT
    return schema.NUMBER if shape in (Shape.whole, Shape.decimal, Shape.floating) else schema.TEXT


# -------------------------------------------------------------------------------------------------------- small tables


def _receive(connection: duckdb.DuckDBPyConnection, source: Source) -> str:
    """SQL: the numbered rows of a small table, in the order of the file; CSV and fractions are stored in `received`."""

    def numbered(rows: str) -> str:
        return f"(SELECT *, {_NUMBER} FROM {rows})"

    def stored(rows: str) -> str:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE received AS FROM {numbered(rows)}")
        return "received"

    # DuckDB takes a NaN in Parquet for a number, by the file's min and max, where a rule asks for it in the same query
    floating = any(shape_of(column.type) is Shape.floating for column in source.columns.values())
    return read(source, stored if source.dialect or floating else numbered)


def _load(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    received: str,
    name: str,
    kinds: Mapping[str, Kind],
    complaints: Complaints,
) -> None:
    """Create the table `name` from the valid rows of `received` (SQL); its first column is a unique key."""
    picks = source.columns.get(schema.GENRES)
    if picks and shape_of(picks.type) is Shape.texts:
        ((tidy,),) = connection.execute(columns.all_tidy(received, picks.sql)).fetchall()
        kinds = {**kinds, schema.GENRES: columns.TIDY_PICKS} if tidy else kinds
    fields = row_rules.fields_of(source, kinds)
    all_columns = ", ".join(
        identifier(of) if of in source.columns else f"{_ABSENT[of]} AS {identifier(of)}"
        for of in kinds
        if of in source.columns or of in _ABSENT
    )
    key = fields[0]
    rules = [*row_rules.rules_of(fields), replace(key.rule("false", findings.REPEATED), value=key.cell.value)]
    verdict = [BROKEN_SQL, *([OTHERS_SQL] if complaints.collected is not None else [])]
    judged = row_rules.judged(received, fields, rules, every=complaints.collected is not None)
    connection.execute(f"CREATE TABLE {name} AS SELECT {_ROW}, {all_columns}, {', '.join(verdict)} FROM ({judged})")
    ((rows, good),) = connection.execute(f"SELECT count(*), count(*) - count({BROKEN_SQL}) FROM {name}").fetchall()
    distinct = _distinct(connection, name, key.cell.value)
    if distinct < good:
        _mark_repeated(connection, name, key.cell.value, len(rules) - 1)
    if distinct < rows:
        both = f"JOIN {received} USING ({_ROW})"
        shown = f"(SELECT t.*, {row_rules.bad_value(rules)} AS {VALUE_SQL} FROM {name} t {both})"
        _complain(connection, shown, name, source, rules, complaints)
        connection.execute(f"DELETE FROM {name} WHERE {BROKEN_SQL} IS NOT NULL")
    connection.execute("DROP TABLE IF EXISTS received")
    for column in verdict:
        connection.execute(f"ALTER TABLE {name} DROP COLUMN {column}")


def _distinct(connection: duckdb.DuckDBPyConnection, name: str, key: str) -> int:
    """The number of distinct keys of the valid rows: that of their hashes, unless some are equal."""
    valid = f"FROM {name} WHERE {BROKEN_SQL} IS NULL"
    hashes = connection.execute(f"SELECT hash({key}) AS hash {valid}").fetchnumpy()["hash"]
    hashes.sort()  # a quarter of the time of DuckDB's count of distinct texts
    if (hashes[1:] != hashes[:-1]).all():
        return len(hashes)
    ((distinct,),) = connection.execute(f"SELECT count(DISTINCT {key}) {valid}").fetchall()
    return int(distinct)


def _mark_repeated(connection: duckdb.DuckDBPyConnection, name: str, key: str, rule: int) -> None:
    """All valid rows of a key but the first break the rule."""
    repeated = (
        f"SELECT {_ROW} AS repeated FROM {name} WHERE {BROKEN_SQL} IS NULL "
        f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {_ROW}) > 1"
    )
    connection.execute(f"UPDATE {name} SET {BROKEN_SQL} = {rule} FROM ({repeated}) WHERE {_ROW} = repeated")


# ------------------------------------------------------------------------------------------------------------- listens


@dataclass(frozen=True, slots=True)
class ListenRules:
    """The columns of the listens, and what makes a row bad."""

    fields: Sequence[Field]
    rules: Sequence[RowRule]

    def validated(self, rows: str, *, every: bool) -> str:
        """SQL: the rows with our columns, BROKEN and VALUE; `every` as in `row_rules.validated`."""
        ours = ", ".join(field.cell.value for field in self.fields)
        verdict = ", ".join([BROKEN_SQL, VALUE_SQL, *([OTHERS_SQL] if every else [])])
        return f"SELECT {ours}, {verdict} FROM ({row_rules.validated(rows, self.fields, self.rules, every=every)})"


def listen_rules(tables: Tables, source: Source) -> ListenRules:
    """The rules of the listens of a file; a station must be one of the table `stations`, if that could be read."""
    fields = row_rules.fields_of(source, columns.kinds(schema.LISTENS, source.spelling))
    rules = row_rules.rules_of(fields)
    if schema.STATIONS in tables.sources:
        station = next(field for field in fields if field.name == schema.STATION_ID)
        unknown = f"{station.cell.value} NOT IN (SELECT station_id FROM stations)"
        rules.append(station.rule(unknown, findings.UNKNOWN_STATION))
    return ListenRules(fields, rules)


def checked_listens(workspace: Path) -> Path:
    """The file of the listens whose text was parsed: our columns, BROKEN and VALUE."""
    return workspace / "checked.listens.parquet"


def _load_listens(tables: Tables, source: Source, workspace: Path) -> None:
    """Create the view `listens` over Parquet on disk: the file itself, or a typed copy where text must be parsed."""
    connection, complaints = tables.connection, tables.complaints
    of_listens = listen_rules(tables, source)
    fields, rules = of_listens.fields, of_listens.rules
    ours = ", ".join(field.cell.value for field in fields)
    parsed = any(field.shape is Shape.text and field.kind.trimmed for field in fields)
    copy = checked_listens(workspace)
    every = complaints.collected is not None

    def load(rows: str) -> None:
        judged = row_rules.validated(f"(SELECT *, {_NUMBER} FROM {rows})", fields, rules, every=every)
        if parsed:
            connection.execute(f"COPY ({of_listens.validated(rows, every=every)}) TO {literal(copy)} (FORMAT parquet)")
            validated = f"read_parquet({literal(copy)})"
            values = f"SELECT {ours} FROM {validated}"
            bad = [f"{validated} WHERE {BROKEN_SQL} IS NOT NULL"]
            if not complaints.show_rows:
                judged = f"SELECT *, 0 AS {_ROW} FROM {validated}"
        else:
            validated = f"({row_rules.validated(rows, fields, rules, every=every)})"
            values = f"SELECT {ours} FROM ({row_rules.valued(rows, fields)})"
            bad = [f"({row_rules.valued(rows, fields)}) WHERE {broken}" for broken in row_rules.broken_columns(rules)]
        if any(connection.execute(f"SELECT 1 FROM {some} LIMIT 1").fetchall() for some in bad):
            # numbered before stations are looked up: a join in DuckDB may change the order of rows
            all_bad = f"SELECT * FROM ({judged}) WHERE {BROKEN_SQL} IS NOT NULL"
            connection.execute(f"CREATE OR REPLACE TEMP TABLE bad_listens AS {all_bad}")
            _complain(connection, "bad_listens", validated, source, rules, complaints)
            values = f"SELECT {ours} FROM {validated} WHERE {BROKEN_SQL} IS NULL"
        connection.execute(f"CREATE OR REPLACE VIEW listens AS {values}")

    read(source, load)


def _complain(
    connection: duckdb.DuckDBPyConnection,
    validated: str,
    all_rows: str,
    source: Source,
    rules: Sequence[RowRule],
    to: Complaints,
) -> None:
    """Hand over the bad rows among `all_rows`. Raises BadRows, with the first of them, where that happens to them."""
    verdict = f"{_ROW} AS row, {BROKEN_SQL} AS rule, {VALUE_SQL} AS value"
    bad = f"SELECT {verdict} FROM {validated} WHERE {BROKEN_SQL} IS NOT NULL"
    ((rows,),) = connection.execute(f"SELECT count({BROKEN_SQL}) FROM {validated}").fetchall()
    ((of,),) = connection.execute(f"SELECT count(*) FROM {all_rows}").fetchall()
    first = f"ORDER BY row LIMIT {findings.SHOWN}"
    if to.collected is not None:
        others = f"SELECT {_ROW}, unnest({OTHERS_SQL}) AS other FROM {validated} WHERE {BROKEN_SQL} IS NOT NULL"
        bad += f" UNION ALL SELECT {_ROW}, other.n, other.value FROM ({others})"
        of_a_kind = f"row_number() OVER (PARTITION BY rule ORDER BY row) <= {findings.SHOWN_OF_A_KIND}"
        first = f"QUALIFY {of_a_kind} ORDER BY row"
    counts = dict(connection.execute(f"SELECT rule, count(*) FROM ({bad}) GROUP BY ALL ORDER BY ALL").fetchall())
    shown = connection.execute(f"SELECT row, rule, value FROM ({bad}) {first}").fetchall() if to.show_rows else ()
    hints = option_hints(connection, bad, source, rules, counts)
    to.add(source.path.name, rules, BadRowsOfATable(rows, of, counts, shown, hints))


# ------------------------------------------------------------------------------------------------------------- genres


def _normalise_genres(connection: duckdb.DuckDBPyConnection) -> None:
    """Write the genres of stations in normal form, in Python, as DuckDB has no NFKC; the table is small."""
    spelled = [genre for (genre,) in connection.execute("SELECT DISTINCT genre FROM stations").fetchall()]
    for genre in spelled:
        if normal(genre) != genre:
            connection.execute("UPDATE stations SET genre = ? WHERE genre = ?", [normal(genre), genre])
