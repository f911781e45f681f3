"""One file of a table as it was received: how DuckDB reads it, and what its columns are."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from firstspin.records import InputError
from firstspin.sql import literal

MEMORY_LIMIT = "1300MB"
ZONE = r"(Z|z|[+-]\d\d(:?\d\d)?)$"


@dataclass(frozen=True, slots=True)
class Source:
    """One file as received: how DuckDB reads it, and the type of each of its columns there."""

    name: str
    path: Path
    reader: str
    types: dict[str, str]

    def moment(self, field: str) -> str:
        """SQL for a timestamp in UTC; text needs a zone, Parquet's own timestamps are taken as UTC."""
        if self.types[field] == "VARCHAR":
            zoned = f"regexp_matches(trim({field}), {literal(ZONE)})"
            return f"CASE WHEN {zoned} THEN TRY_CAST({field} AS TIMESTAMPTZ)::TIMESTAMP END"
        return f"{field}::TIMESTAMP"


def connect(workspace: Path, threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB of its own that spills to the workspace instead of growing."""
    connection = duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"SET memory_limit = {literal(MEMORY_LIMIT)}")
    connection.execute("SET preserve_insertion_order = false")
    connection.execute(f"SET temp_directory = {literal(workspace / 'spill')}")
    if threads:
        connection.execute(f"SET threads = {threads}")
    return connection


def open_file(connection: duckdb.DuckDBPyConnection, path: Path, name: str, needed: Sequence[str]) -> Source:
    """Find out how to read a file, and that it has the columns it must have."""
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    with readable(path):
        reader = _csv_reader(path) if path.suffix != ".parquet" else f"read_parquet({literal(path)})"
        described = connection.sql(f"DESCRIBE FROM {reader}").fetchall()
    types = {str(column): str(kind) for column, kind, *_ in described}
    missing = [column for column in needed if column not in types]
    if missing:
        lacks = f"{path.name} has no column {', '.join(missing)}"
        raise InputError(f"{lacks} (it has {', '.join(types)})", bare=lacks)  # without a header, that is a person's row
    return Source(name, path, reader, types)


def _csv_reader(path: Path) -> str:
    """DuckDB's CSV reader with every column as text: what a value means is ours to decide, not a sniffer's."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    if not header:
        raise InputError(f"{path.name} is empty; the first line must name the columns")
    twice = {column for column in header if header.count(column) > 1}
    if twice:
        raise InputError(
            f"{path.name} names the column {sorted(twice)[0]} twice", bare=f"{path.name} names a column twice"
        )
    columns = ", ".join(f"{literal(column)}: 'VARCHAR'" for column in header)
    return (
        f"read_csv({literal(path)}, columns = {{{columns}}}, header = true, auto_detect = false, delim = ',', "
        "quote = '\"', escape = '\"', nullstr = '', max_line_size = 10000000)"
    )


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Whatever keeps a file from being read becomes an InputError that names it."""
    try:
        yield
    except (duckdb.Error, OSError, UnicodeDecodeError, csv.Error) as problem:
        said = str(problem).strip().split("\n", 1)[0][:300]
        raise InputError(f"{path.name} can't be read: {said}", bare=f"{path.name} can't be read") from problem
