"""The listens in label windows: `expressions.in_windows` of the tables of a DuckDB connection.

DuckDB reads the columns, and a hash table in C joins them. The hash join of DuckDB, which is used where nothing was
compiled, gives the same listens and takes more than twice the CPU time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from firstspin.data.formats.arrays import numpy_array
from firstspin.data.labels.expressions import DAY
from firstspin.data.labels.window_sums import HeardListens
from firstspin.data.schema import LISTENS, REGISTERED_AT, REGISTRATIONS, ROW, STARTED_AT, STATIONS
from firstspin.data.sql import compiled, identifier, literal
from firstspin.records import InputError, LabelRule

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

try:
    from firstspin.data.labels._windows import Windows as CompiledWindows
except ImportError:
    CompiledWindows = None  # type: ignore[assignment, misc]

TIMED: Final = {REGISTRATIONS: "registrations in microseconds", LISTENS: "listens in microseconds"}

ROWS_AT_ONCE: Final = 122_880
"""Rows that are read or written at once: one row group."""

NULLS: Final = "the labels can't be made: a registration, listen or station lacks a value; report this"

_BYTES_AT_ONCE: Final = 2**27
"""Bytes of the texts of a column that are read at once; ids of 200 characters are fewer."""

_KEY_BYTES: Final = 32
_ROW: Final = identifier(ROW)


def in_windows(connection: duckdb.DuckDBPyConnection, rule: LabelRule) -> Iterator[HeardListens]:
    """The listens in the label window of their user, and all those of unregistered users, in parts.

    The tables are `registrations`, `listens` and `stations`; the views TIMED of them are created.
    """
    timed = {REGISTRATIONS: f"{_ROW}, user_id, {{}}", LISTENS: "user_id, {}, station_id, seconds::DOUBLE AS seconds"}
    for name, time in ((REGISTRATIONS, REGISTERED_AT), (LISTENS, STARTED_AT)):
        rows = f"SELECT {timed[name].format(f'epoch_us({time}) AS {time}')} FROM {name}"
        connection.execute(f"CREATE TEMP VIEW {identifier(TIMED[name])} AS {rows}")
    gap, window = int(rule.gap_days) * DAY, int(rule.window_days) * DAY
    if CompiledWindows is None:
        return joined_by_duckdb(connection, gap, window)
    return gathered(joined_in_c(connection, gap, window))


def joined_by_duckdb(connection: duckdb.DuckDBPyConnection, gap: int, window: int) -> Iterator[HeardListens]:
    """The listens of the views TIMED; gap and window are in microseconds."""
    for batch in _batches(connection, compiled("in_windows").format(gap=gap, window=window)):
        row, station, started, seconds = batch.columns
        whole = numpy_array(row, np.int32), numpy_array(station, np.int32), numpy_array(started, np.int64)
        yield HeardListens(*whole, numpy_array(seconds, np.float64))


def joined_in_c(connection: duckdb.DuckDBPyConnection, gap: int, window: int) -> Iterator[HeardListens]:
    """The same listens, in the order of the table."""
    registrations = identifier(TIMED[REGISTRATIONS])
    people = _table(connection, f"SELECT user_id, {_ROW}::INT, registered_at + {gap} FROM {registrations}")
    stations = _table(connection, f"SELECT station_id, {_ROW}::INT, 0::BIGINT FROM {STATIONS}")
    longest = _longest(connection, "user_id", registrations), _longest(connection, "station_id", STATIONS)
    user, station_id = map(_cut, ("user_id", "station_id"), longest)
    heard = f"SELECT {user}, started_at, {station_id}, seconds FROM {identifier(TIMED[LISTENS])}"
    for batch in _batches(connection, heard, max(1, min(ROWS_AT_ONCE, _BYTES_AT_ONCE // (max(longest) + 1)))):
        started = numpy_array(batch.column(1), np.int64)
        places, rows = np.empty(len(batch), np.int32), np.empty(len(batch), np.int32)
        n = people.inside(*_texts(batch.column(0)), started, window, places, rows)
        places, rows, station = places[:n], rows[:n].copy(), np.empty(n, np.int32)
        stations.rows(*_texts(batch.column(2)), places, station)
        if (station < 0).any():  # as by an inner join
            known = station >= 0
            places, rows, station = places[known], rows[known], station[known]
        yield HeardListens(rows, station, started[places], numpy_array(batch.column(3), np.float64)[places])


def gathered(parts: Iterable[HeardListens]) -> Iterator[HeardListens]:
    """The same listens in fewer parts: small arrays that are kept would divide the memory of those that are not."""
    waiting: list[HeardListens] = []
    for part in parts:
        waiting.append(part)
        if sum(len(of.rows) for of in waiting) >= ROWS_AT_ONCE:
            yield HeardListens(*map(np.concatenate, zip(*waiting, strict=True)))
            waiting.clear()
    if waiting:
        yield HeardListens(*map(np.concatenate, zip(*waiting, strict=True)))


def _longest(connection: duckdb.DuckDBPyConnection, column: str, table: str) -> int:
    """The bytes of the longest id of a table."""
    ((longest,),) = connection.execute(f"SELECT coalesce(max(strlen({column})), 0) FROM {table}").fetchall()
    return int(longest)


def _cut(column: str, longest: int) -> str:
    """SQL: an id of a listen; one of more bytes than the `longest` id of the table becomes a constant that is too long.

    It matches nothing either way. A few bytes of Parquet can be a text of gigabytes, which Arrow refuses.
    """
    return f"CASE WHEN strlen({column}) > {longest} THEN {literal('-' * (longest + 1))} ELSE {column} END"


def _table(connection: duckdb.DuckDBPyConnection, sql: str) -> CompiledWindows:
    """The table of the columns id, row and opening. Its key is random, so ids can't be chosen to have equal hashes."""
    parts = [
        (*_texts(batch.column(0)), numpy_array(batch.column(1), np.int32), numpy_array(batch.column(2), np.int64))
        for batch in _batches(connection, sql)
    ]
    return CompiledWindows(os.urandom(_KEY_BYTES), tuple(parts))


def _batches(connection: duckdb.DuckDBPyConnection, sql: str, rows: int = ROWS_AT_ONCE) -> Iterator[pa.RecordBatch]:
    """The rows of a query in batches of at least one, and about `rows`. Raises InputError where a value is null."""
    for batch in connection.sql(sql).to_arrow_reader(rows):
        if any(column.null_count for column in batch.columns):
            raise InputError(NULLS)
        if len(batch):
            yield batch


def _texts(column: pa.Array) -> tuple[NDArray[np.signedinteger[Any]], pa.Buffer]:
    """Offsets (n + 1,) and bytes of n texts."""
    import pyarrow as pa

    kind: type[np.signedinteger[Any]] = np.int32
    if column.type != pa.string():
        column, kind = column.cast(pa.large_string()), np.int64
    _, offsets, text = column.buffers()
    return np.frombuffer(offsets, kind)[column.offset : column.offset + len(column) + 1], text or pa.py_buffer(b"")
