"""Labelling: registrations + listens -> the file of labels (each user's top genre in the label window), and a census.

`windows` finds the listens in the label windows, and `window_sums` adds them up; DuckDB judges the sums.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from firstspin.data.checks.mismatches import data_ends, listening, mismatches
from firstspin.data.formats.arrays import arrow_array, numpy_array
from firstspin.data.formats.connections import in_our_words
from firstspin.data.ingest import RemoteListens, Tables
from firstspin.data.labels.expressions import (
    COPIES,
    COUNTED,
    DROPPED,
    PLAYED_GENRES,
    REASONS,
)
from firstspin.data.labels.window_sums import GenreSums, Groups, UserSums, collect, sums_by_genre, sums_by_user
from firstspin.data.labels.windows import ROWS_AT_ONCE, in_windows
from firstspin.data.schema import (
    GENRES,
    LISTENS,
    PLAYED,
    REGISTERED_AT,
    ROW,
    SECONDS,
    TOP_GENRE,
    USER_ID,
)
from firstspin.data.sql import compiled, identifier
from firstspin.records import Census, InputError, LabelRule, Mismatch

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

BY_GENRE = "sums by genre"
BY_USER = "sums by user"
EVERYONE = "registrations with their sums"
FATES = "fates"
FINAL = "final sums by user"
FINAL_BY_GENRE = "final seconds by code of the genre"

OTHER_ORDER = "the labels can't be made: registrations and labels are in different orders; report this"

_ROW, _BY_GENRE, _FINAL, _FINAL_BY_GENRE = map(identifier, (ROW, BY_GENRE, FINAL, FINAL_BY_GENRE))
_COUNTED, _COPIES = identifier(COUNTED), identifier(COPIES)
NO_FINAL = f"""
    CREATE TEMP TABLE IF NOT EXISTS {_FINAL} ({_ROW} INT, {identifier(PLAYED_GENRES)} BIGINT, seconds DOUBLE,
        top_genre BIGINT, {_COUNTED} BIGINT, {_COPIES} BIGINT);
    CREATE TEMP TABLE IF NOT EXISTS {_FINAL_BY_GENRE} ({_ROW} INT, code UTINYINT, seconds DOUBLE)"""
"""SQL: the sums of users that are not computed any more, by user and by genre: a state of labels may have some."""

_NUMBERS = f"{_ROW}, {_COUNTED} AS once, {_COPIES} AS copies"
COUNTS_BY_ROW = f"SELECT {_NUMBERS} FROM {_BY_GENRE} UNION ALL SELECT {_NUMBERS} FROM {_FINAL}"
"""SQL: the listens that count, and their copies, of parts of each user's listens."""

SECONDS_BY_ROW = f"SELECT {_ROW}, code, seconds FROM {_BY_GENRE} UNION ALL FROM {_FINAL_BY_GENRE}"
"""SQL: the seconds of users by code of the genre."""


def label_tables(
    tables: Tables, rule: LabelRule, out: Path, now: datetime | None = None, *, may_be_empty: bool = False
) -> tuple[Census, LabelRule]:
    """Write the labelled users to a Parquet file, in the order of the registrations.

    Returns the census and the rule with `data_ends` filled in. `now` (UTC) is used to detect clocks that are ahead.
    Raises InputError where no user gets a label, unless the file may be empty, or nearly all values of a column match
    nothing.
    """
    census, rule = take_census(tables, rule, now)
    if not may_be_empty:
        refuse_unlabelled(census, tables)
    with in_our_words("the labels can't be made"):
        try:
            _write_labels(tables.connection, out)
        except OSError as problem:
            if problem.errno != errno.ENOSPC:
                raise
            raise InputError(f"the labels can't be written: no space left for {out.name}") from problem
    return census, rule


def _write_labels(connection: duckdb.DuckDBPyConnection, out: Path) -> None:
    """Write the labelled users, with the seconds by genre as lists.

    The lists are slices of one sorted column: DuckDB's `list` allocates each by itself, which costs as much as half of
    the join of listens and registrations. Registrations, FATES and BY_GENRE have rows in the order of the file, so they
    are put together by position, without a join and a sort. That they do is checked in the rows written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    row, labelled = identifier(ROW), f"{identifier(DROPPED)} IS NULL"
    fate = f"SELECT {row}, {identifier(PLAYED_GENRES)} AS n, {labelled} AS labelled FROM {FATES}"
    people = connection.sql(fate).fetchnumpy()
    entries = _seconds_of(connection, people[ROW], people["n"], people["labelled"])
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(people["n"][people["labelled"]])])
    expected = people[ROW][people["labelled"]]
    both = f"FROM registrations r POSITIONAL JOIN {FATES} f WHERE"
    top = f"enum_range(NULL::genres)[top_genre + 1] AS {TOP_GENRE}"
    rows = connection.sql(f"SELECT r.{row}::INT, f.{row}, r.* EXCLUDE ({row}), {top}, f.seconds {both} {labelled}")
    batches = rows.to_arrow_reader(ROWS_AT_ONCE)
    fields = list(batches.schema)[2:]
    distinct = (USER_ID, REGISTERED_AT, SECONDS)  # a dictionary of them costs more than it saves
    dictionaries = [
        *(of.name for of in fields if of.name not in distinct),
        f"{GENRES}.list.element",
        f"{PLAYED}.list.element.genre",
    ]
    schema = pa.schema([*fields, pa.field(PLAYED, pa.list_(entries.type))])
    begin = 0
    with pq.ParquetWriter(out, schema, store_schema=False, use_dictionary=dictionaries, write_statistics=False) as file:
        for batch in batches:
            at, ours = offsets[begin : begin + len(batch) + 1], expected[begin : begin + len(batch)]
            if any(not np.array_equal(numpy_array(batch.column(of), np.int32), ours) for of in (0, 1)):
                raise InputError(OTHER_ORDER)
            begins = arrow_array((at - at[0]).astype(np.int32))
            played = pa.ListArray.from_arrays(begins, entries.slice(at[0], at[-1] - at[0]))
            file.write_batch(batch.select(list(range(2, batch.num_columns))).append_column(PLAYED, played))
            begin += len(batch)
    if begin < len(expected):
        raise InputError("the labels can't be made: some have no registration; report this")


def _seconds_of(
    connection: duckdb.DuckDBPyConnection, rows: NDArray[np.int32], n: NDArray[np.int64], labelled: NDArray[np.bool_]
) -> pa.StructArray:
    """Genre and seconds of each row of BY_GENRE of a labelled user; `n` are the numbers of rows of the users `rows`."""
    import pyarrow as pa

    heard = connection.sql(SECONDS_BY_ROW).fetchnumpy()
    expected = np.repeat(rows, n)
    if not np.array_equal(heard[ROW], expected):
        order = np.argsort(heard[ROW], kind="stable")  # each user's genres remain in order
        heard = {name: column[order] for name, column in heard.items()}
    if not np.array_equal(heard[ROW], expected):
        raise InputError(OTHER_ORDER)
    names = connection.sql("SELECT unnest(enum_range(NULL::genres))::VARCHAR").to_arrow_table().column(0)
    used = np.repeat(labelled, n)
    genre = pa.DictionaryArray.from_arrays(arrow_array(heard["code"][used]), names.combine_chunks())
    return pa.StructArray.from_arrays([genre, arrow_array(heard["seconds"][used])], ["genre", "seconds"])


def arrow_table(columns: Mapping[str, NDArray[Any]]) -> pa.Table:
    """An Arrow table of the memory of NumPy arrays (n,)."""
    import pyarrow as pa

    return pa.table({name: arrow_array(of) for name, of in columns.items()})


def take_census(tables: Tables, rule: LabelRule, now: datetime | None = None) -> tuple[Census, LabelRule]:
    """Label the users in the table FATES of the connection; the census, and the rule with `data_ends` filled in.

    Raises InputError where a table is empty, or, unless problems are collected, a column matches nothing.
    """
    connection = tables.connection
    ((registered,),) = connection.execute("SELECT count(*) FROM registrations").fetchall()
    heard = listening(tables)
    if not (registered and heard.days):
        why = _dropped(tables, whole=True) or "the registrations or the listens are empty"
        raise InputError(f"no training data: {why}")
    ends, wrong_clocks = data_ends(heard, rule, now)
    rule = replace(rule, data_ends=ends)
    with in_our_words("the labels can't be made"):
        connection.execute("CREATE TYPE genres AS ENUM (SELECT DISTINCT genre FROM stations ORDER BY genre)")
        unregistered = _sum_up(tables, rule)
        counts = f"SELECT coalesce(sum(once), 0)::BIGINT, coalesce(sum(copies), 0)::BIGINT FROM ({COUNTS_BY_ROW})"
        ((once, copies),) = connection.execute(counts).fetchall()
    others = mismatches(tables, heard, wrong_clocks, unregistered, now)
    with in_our_words("the labels can't be made"):
        connection.execute(f"CREATE TEMP TABLE {FATES} AS {_fates_sql(rule, ends)}")
        others += _copies(connection, once, copies)
        return replace(_census(connection, ends, others), absent=tables.absent), rule


def _sum_up(tables: Tables, rule: LabelRule) -> int:
    """Create BY_GENRE and EVERYONE, in the order of the registrations; the number of listens of unregistered users."""
    connection, rule = tables.connection, replace(rule, data_ends=None)
    by_genre: dict[str, NDArray[Any]]
    sums, unregistered = _sums_elsewhere(connection, tables.remote, rule) if tables.remote else _sums(connection, rule)
    by_genre = {ROW: sums.rows, "code": sums.codes, SECONDS: sums.seconds, COUNTED: sums.counted, COPIES: sums.copies}
    connection.register(BY_GENRE, arrow_table(by_genre))
    connection.execute(NO_FINAL)
    connection.register(BY_USER, arrow_table(_of_everyone(connection, sums_by_user(sums))))
    n_genres, known = identifier(PLAYED_GENRES), f"CASE WHEN {identifier(PLAYED_GENRES)} > 0 THEN {{0}} END AS {{0}}"
    connection.execute(
        f"CREATE TEMP VIEW {identifier(EVERYONE)} AS "
        f"SELECT {_ROW}::INT AS {_ROW}, registered_at, {n_genres}, {known.format(SECONDS)}, {known.format(TOP_GENRE)} "
        f"FROM registrations POSITIONAL JOIN {identifier(BY_USER)}"
    )
    return unregistered


def _of_everyone(connection: duckdb.DuckDBPyConnection, users: UserSums) -> dict[str, NDArray[Any]]:
    """The sums of each registration, in the order of the registrations: zeros without a listen.

    Put in their places, they need no join and no sort in DuckDB.
    """
    rows = connection.sql(f"SELECT {_ROW}::INT AS {_ROW} FROM registrations").fetchnumpy()[ROW]
    place = np.zeros(rows.max() + 1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    final = connection.sql(f"FROM {_FINAL} WHERE {identifier(PLAYED_GENRES)} > 0").fetchnumpy()
    computed: dict[str, NDArray[Any]] = {PLAYED_GENRES: users.genres, SECONDS: users.seconds, TOP_GENRE: users.tops}
    columns: dict[str, NDArray[Any]] = {}
    for name, sums in computed.items():
        columns[name] = np.zeros(len(rows), dtype=sums.dtype)
        columns[name][place[users.rows]] = sums
        columns[name][place[final[ROW]]] = final[name]
    return columns


def _sums(connection: duckdb.DuckDBPyConnection, rule: LabelRule) -> tuple[GenreSums, int]:
    """The sums of the table `listens`, and the number of listens of unregistered users."""
    ((max_row,),) = connection.execute(f"SELECT max({_ROW}) FROM registrations").fetchall()
    stations = connection.sql(f"SELECT {_ROW}, enum_code(genre::genres) AS code FROM stations").fetchnumpy()
    code_of_station = np.zeros(stations[ROW].max() + 1, dtype=np.uint64)
    code_of_station[stations[ROW]] = stations["code"]
    groups = Groups(code_of_station, max_row)
    heard = collect(in_windows(connection, rule), groups)
    return sums_by_genre(heard), heard.unregistered


def _sums_elsewhere(
    connection: duckdb.DuckDBPyConnection, remote: RemoteListens, rule: LabelRule
) -> tuple[GenreSums, int]:
    """As `_sums`, of the listens of another engine."""
    received = identifier("received sums")
    numbers = f"{_ROW} INT, code INT, seconds DOUBLE, {_COUNTED} BIGINT, {_COPIES} BIGINT"
    connection.execute(f"CREATE TEMP TABLE {received} ({numbers})")
    for part in remote.seconds_by_genre(rule):
        connection.register("part", part)
        coded = "SELECT * EXCLUDE (genre), enum_code(genre::genres)::INT AS code FROM part"
        connection.execute(f"INSERT INTO {received} BY NAME {coded}")
        connection.unregister("part")
    of_others = f"SELECT coalesce(sum({_COUNTED} + {_COPIES}), 0)::BIGINT FROM {received} WHERE {_ROW} IS NULL"
    ((unregistered,),) = connection.execute(of_others).fetchall()
    ours = f"FROM {received} WHERE {_ROW} IS NOT NULL ORDER BY {_ROW}, code"
    columns = connection.sql(ours).fetchnumpy()
    connection.execute(f"DROP TABLE {received}")
    return GenreSums(*(columns[name] for name in (ROW, "code", SECONDS, COUNTED, COPIES))), unregistered


def refuse_unlabelled(census: Census, tables: Tables) -> None:
    """Raises InputError where no user has a label."""
    if not census.labelled:
        dropped = f"; {why}" if (why := _dropped(tables, whole=False)) else ""
        reasons = ", ".join(f"{count} {reason}" for reason, count in census.dropped.items() if count)
        raise InputError(f"no user gets a label: of {census.registered}, {reasons}{dropped}")


def _dropped(tables: Tables, *, whole: bool) -> str:
    """The rows that were dropped of each table, and why; `whole`: of the tables that have no other row."""
    shown = []
    for name, file in tables.files.items():
        if tables.remote and name == LISTENS:
            remaining = tables.complaints.valid.get(file, 0)
        else:
            ((remaining,),) = tables.connection.execute(f"SELECT count(*) FROM {name}").fetchall()
        if not (whole and remaining):
            shown.append(tables.complaints.dropped(file, remaining))
    return "; ".join(filter(None, shown))


def _fates_sql(rule: LabelRule, ends: datetime) -> str:
    """`expressions.judged` of the view EVERYONE as SQL for DuckDB."""
    days, least = int(rule.gap_days) + int(rule.window_days), float(rule.min_seconds)
    return compiled("judged").format(days=days, min_seconds=repr(least), data_ends=ends.isoformat(" "))


def _copies(connection: duckdb.DuckDBPyConnection, once: int, copies: int) -> list[Mismatch]:
    """The listens in label windows that are copies, if there are any, beside those that count `once`."""
    if not copies:
        return []
    copied = f"SELECT {_ROW} FROM ({COUNTS_BY_ROW}) WHERE copies > 0"
    example = f"SELECT min(user_id) FROM registrations SEMI JOIN ({copied}) USING ({_ROW})"
    ((user,),) = connection.execute(example).fetchall()
    what = "listens in label windows are exact copies of others: each counts once"
    return [Mismatch(copies, once + copies, what, f"one of user_id {user}")]


def _census(connection: duckdb.DuckDBPyConnection, ends: datetime, mismatches: list[Mismatch]) -> Census:
    """The counts of the table FATES by reason."""
    dropped = identifier(DROPPED)
    counts = dict(connection.execute(f"SELECT {dropped}, count(*) FROM {FATES} GROUP BY {dropped}").fetchall())
    return Census(
        registered=sum(counts.values()),
        labelled=counts.pop(None, 0),
        dropped={reason: counts.get(reason, 0) for reason in REASONS},
        data_ends=ends,
        mismatches=tuple(mismatches),
    )
