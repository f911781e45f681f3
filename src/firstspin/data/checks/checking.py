"""What is understood of a folder of tables, and what to fix in it. Nothing is written but temporary files.

The tables are read as for labelling (`ingest`, `labelling`), with problems collected instead of raised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from firstspin.data import schema
from firstspin.data.checks.findings import TableProblem
from firstspin.data.checks.mismatches import unknown_picks
from firstspin.data.dataset import Reading, open_reading
from firstspin.data.formats import columns
from firstspin.data.formats.columns import shape_of
from firstspin.data.formats.connections import in_our_words
from firstspin.data.formats.opening import open_table
from firstspin.data.formats.readers import read
from firstspin.data.formats.sources import Source
from firstspin.data.further_fields import check_names
from firstspin.data.ingest import Tables, further_kind
from firstspin.data.labels import labelling
from firstspin.data.sql import identifier
from firstspin.files import workspace
from firstspin.records import Census, InputError, LabelRule

TYPES: Final = {
    "VARCHAR": "text",
    "TIMESTAMP": "time",
    "INTEGER": "whole number",
    "DOUBLE": "number",
    "BOOLEAN": "true or false",
    "VARCHAR[]": "list of text",
}
"""The types of the columns of validated tables, by DuckDB's names."""

SPANS: Final = {schema.REGISTRATIONS: schema.REGISTERED_AT, schema.LISTENS: schema.STARTED_AT}


class CheckedColumn(msgspec.Struct, frozen=True):
    """A column: our name, its name and type in the file, the type it is read as, and the number of values."""

    name: str
    header: str
    type: str
    read_as: str
    filled: int


class CheckedTable(msgspec.Struct, frozen=True):
    """A table: its file, the rows that are used and the bad ones, its columns, and the columns that are not used.

    `first` and `last` are the span of its times (UTC); None for the stations.
    """

    table: str
    file: str
    format: str
    rows: int
    bad_rows: int
    columns: tuple[CheckedColumn, ...]
    unused: tuple[str, ...]
    first: str | None = None
    last: str | None = None


class FurtherColumn(msgspec.Struct, frozen=True):
    """A further column of the registrations: what `--extra` makes of it (number or text), or why it can't be one."""

    name: str
    kind: str
    problem: str = ""


class Match(msgspec.Struct, frozen=True):
    """`count` of `of` values of one table that match another table."""

    what: str
    count: int
    of: int


class Check(msgspec.Struct, frozen=True):
    """What is understood of the tables, and the problems. `census` is None where the users can't be labelled."""

    tables: tuple[CheckedTable, ...]
    further: tuple[FurtherColumn, ...]
    matches: tuple[Match, ...]
    genres: tuple[str, ...]
    rule: LabelRule
    census: Census | None
    problems: tuple[TableProblem, ...]


def check_tables(data: Path, reading: Reading, progress: Callable[[str, float], None]) -> Check:
    """Read the tables of a folder. Raises InputError where it is no folder, or a name in `reading` is invalid."""
    problems: list[TableProblem] = []
    with workspace("check") as folder:
        progress("reading the tables", 0.0)
        tables = open_reading(data, folder, reading, collected=problems)
        with in_our_words("the tables can't be compared"):
            progress("comparing the tables", 0.6)
            described = tuple(_described(tables, name) for name in schema.COLUMNS if name in tables.sources)
            further = _further_columns(tables, folder)
            matches = tuple(_matches(tables, described))
        progress("labels", 0.8)
        census, rule = _census(tables, reading)
        progress("done", 1.0)
        genres = tables.genres if schema.STATIONS in tables.sources else ()
    return Check(described, further, matches, genres, rule, census, tuple(problems))


def _described(tables: Tables, name: str) -> CheckedTable:
    source = tables.sources[name]
    span = SPANS.get(name)
    times = f"min({span}), max({span})" if span else "NULL, NULL"
    filled = ", ".join(_filled(column) for column in source.columns)
    ((rows, first, last, *counts),) = tables.connection.execute(
        f"SELECT count(*), {times}, {filled} FROM {name}"
    ).fetchall()
    types = {of: str(kind) for of, kind, *_ in tables.connection.execute(f"DESCRIBE {name}").fetchall()}
    found = tuple(
        CheckedColumn(of, column.header, str(shape_of(column.type)), _read_as(source, of, types[of]), n)
        for (of, column), n in zip(source.columns.items(), counts, strict=True)
    )
    order = {of: at for at, of in enumerate(types)}
    found = tuple(sorted(found, key=lambda column: order[column.name]))
    used = {column.position for column in source.columns.values()}
    unused = tuple(header for at, header in enumerate(source.names) if at not in used)
    bad = tables.complaints.bad_rows.get(source.path.name, 0)
    begin, end = (at and f"{at.isoformat()}Z" for at in (first, last))
    return CheckedTable(name, source.path.name, source.format, rows, bad, found, unused, begin, end)


def _read_as(source: Source, name: str, kind: str) -> str:
    """The type of a validated column, with the spelling that an option gave to its texts."""
    spelling, written = source.spelling, ""
    if shape_of(source.columns[name].type) is columns.Shape.text:
        if kind == "TIMESTAMP" and spelling.dates:
            written = f", {spelling.dates}"
        elif name == schema.GENRES and spelling.pick_separator != schema.PICK_SEPARATOR:
            written = f", separated by {spelling.pick_separator!r}"
    return f"{TYPES[kind]}{written}"


def _filled(column: str) -> str:
    """SQL: the number of rows that have a value."""
    name = identifier(column)
    return f"count(*) FILTER (len({name}) > 0)" if column in (schema.GENRES, schema.MARKET) else f"count({name})"


def _further_columns(tables: Tables, folder: Path) -> tuple[FurtherColumn, ...]:
    """The columns of the registrations that `--extra` could use, beyond those that it does."""
    registrations = tables.sources.get(schema.REGISTRATIONS)
    if registrations is None:
        return ()
    spelling = registrations.spelling
    source = open_table(registrations.path, "further", [], workspace=folder, optional=None, spelling=spelling)
    used = {column.position for column in registrations.columns.values()}
    others = {name: column for name, column in source.columns.items() if column.position not in used}
    kinds = dict(tables.extra)
    shapes = columns.ANY_FURTHER.shapes
    if usable := {name: column for name, column in others.items() if shape_of(column.type) in shapes}:
        copied = "CREATE OR REPLACE TEMP TABLE received AS FROM"
        read(source, lambda rows: tables.connection.execute(f"{copied} {rows}"))
        kinds |= {name: further_kind(tables.connection, "received", column) for name, column in usable.items()}
    return tuple(_further(name, kinds.get(name, "")) for name in (*tables.extra, *others))


def _further(name: str, kind: str) -> FurtherColumn:
    try:
        check_names([name])
    except InputError as problem:
        return FurtherColumn(name, kind, str(problem).partition(": ")[2])
    return FurtherColumn(name, kind, "" if kind else "its type is none of text, numbers, true and false")


def _matches(tables: Tables, described: Sequence[CheckedTable]) -> list[Match]:
    """What of each table matches another one."""
    rows = {table.table: table.rows for table in described}
    sql = tables.connection.execute

    def count(query: str) -> int:
        ((n,),) = sql(f"SELECT count(*) FROM {query}").fetchall()
        return int(n)

    found: list[Match] = []
    both = {schema.REGISTRATIONS, schema.LISTENS} <= rows.keys()
    if both:
        heard = count("registrations SEMI JOIN listens USING (user_id)")
        found.append(Match("registered users have listens", heard, rows[schema.REGISTRATIONS]))
        ours = count("listens SEMI JOIN registrations USING (user_id)")
        found.append(Match("listens are of registered users", ours, rows[schema.LISTENS]))
    if {schema.STATIONS, schema.LISTENS} <= rows.keys():
        unknown = tables.complaints.unknown_stations(tables.files[schema.LISTENS])
        known = rows[schema.LISTENS]
        found.append(Match("listens have a known station", known, known + unknown))
        heard = count("stations SEMI JOIN listens USING (station_id)")
        found.append(Match("stations have listens", heard, rows[schema.STATIONS]))
    if {schema.STATIONS, schema.REGISTRATIONS} <= rows.keys():
        picks = unknown_picks(tables.connection, tables.genres)
        found.append(Match("picks are genres of the stations", picks.of - picks.count, picks.of))
    return found


def _census(tables: Tables, reading: Reading) -> tuple[Census | None, LabelRule]:
    """The census under the label rule; None where a table is missing or there is nothing to label."""
    census, rule = None, reading.rule
    if len(tables.sources) == len(schema.COLUMNS):
        with tables.complaints.of(""):
            census, rule = labelling.take_census(tables, rule, reading.now)
            labelling.refuse_unlabelled(census, tables)
    return census, rule
