"""Labelling: registrations + listens -> examples (each user's top genre in the label window), and a census.

The label is two Ibis expressions, `seconds_by_genre` and `fates`, which DuckDB runs.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from firstspin.data.checks.mismatches import data_ends, listening, mismatches
from firstspin.data.formats.connections import in_our_words
from firstspin.data.ingest import Tables
from firstspin.data.registrations.coded import ONE_ANSWER, coded, distinct
from firstspin.data.schema import (
    GENRE,
    GENRES,
    LISTENS,
    PLAYED,
    REGISTERED_AT,
    REGISTRATION_COLUMNS,
    REGISTRATIONS,
    ROW,
    SECONDS,
    STARTED_AT,
    STATION_ID,
    TOP_GENRE,
    USER_ID,
)
from firstspin.data.sql import identifier
from firstspin.records import Census, Examples, InputError, LabelRule, Mismatch

if TYPE_CHECKING:
    import duckdb
    import ibis.expr.types as ir
    import pyarrow as pa

DROPPED = "why there is no label"  # names with spaces, which no further column can have
COUNTED = "listens in the window"
COPIES = "copies of listens in the window"
PLAYED_GENRES = "genres in the window"
STATION = "number of the station"

BY_GENRE = "seconds by genre"
CODED_BY_GENRE = "seconds by code of the genre"
MAX_SECONDS = "seconds of the top genre"
FATES = "fates"
FINAL = "final sums by user"
FINAL_BY_GENRE = "final seconds by code of the genre"
CODED_STATIONS = "stations with coded genres"

NOT_OVER = "window not over yet"
NO_LISTEN = "no listen in the window"
TOO_LITTLE = "under the activity rule"
REASONS = (NO_LISTEN, TOO_LITTLE, NOT_OVER)

MAX_EXACT = 2**53
"""Below it, doubles represent every whole number."""

ROUNDED = (1e-3, 2.0**33)
"""Sums of seconds that are rounded to microseconds: larger ones have no such digits, smaller ones too few."""

MAX_COMPILED = 1_000
"""Compiled statements, a few KB each. Ibis takes longer to compile one than DuckDB to run it on a small table."""

OTHER_ORDER = "the labels can't be made: registrations and labels are in different orders; report this"

ROWS_AT_ONCE = 122_880
"""Registrations that are written at once: one row group."""

_ROW, _BY_GENRE, _FINAL, _FINAL_BY_GENRE = map(identifier, (ROW, BY_GENRE, FINAL, FINAL_BY_GENRE))
NO_FINAL = f"""
    CREATE TEMP TABLE IF NOT EXISTS {_FINAL} ({_ROW} INT, {identifier(PLAYED_GENRES)} BIGINT, seconds DOUBLE,
        top_genre BIGINT, {identifier(COUNTED)} BIGINT, {identifier(COPIES)} BIGINT);
    CREATE TEMP TABLE IF NOT EXISTS {_FINAL_BY_GENRE} ({_ROW} INT, code UTINYINT, seconds DOUBLE)"""
"""SQL: the sums of users that are not computed any more, by user and by genre: a state of labels may have some."""

_NUMBERS = f"{_ROW}, {identifier(COUNTED)} AS once, {identifier(COPIES)} AS copies"
COUNTS_BY_ROW = f"SELECT {_NUMBERS} FROM {_BY_GENRE} UNION ALL SELECT {_NUMBERS} FROM {_FINAL}"
"""SQL: the listens that count, and their copies, of parts of each user's listens; null as row: unregistered users."""

_CODED = f"SELECT {_ROW}, enum_code(genre) AS code, seconds FROM {_BY_GENRE} WHERE {_ROW} IS NOT NULL"
SECONDS_BY_ROW = f"{_CODED} UNION ALL FROM {_FINAL_BY_GENRE}"
"""SQL: the seconds of registered users by code of the genre."""

_COUNTS = f"""
    SELECT coalesce(sum(once) FILTER (known), 0)::BIGINT, coalesce(sum(copies) FILTER (known), 0)::BIGINT,
        coalesce(sum(once + copies) FILTER (NOT known), 0)::BIGINT
    FROM (SELECT once, copies, {_ROW} IS NOT NULL AS known FROM ({COUNTS_BY_ROW}))"""
"""SQL: the listens in label windows that count, their copies, and all listens of unregistered users."""


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
            if any(not np.array_equal(_integers(batch.column(of)), ours) for of in (0, 1)):
                raise InputError(OTHER_ORDER)
            begins = _column((at - at[0]).astype(np.int32))
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
    genre = pa.DictionaryArray.from_arrays(_column(heard["code"][used]), names.combine_chunks())
    return pa.StructArray.from_arrays([genre, _column(heard["seconds"][used])], ["genre", "seconds"])


def arrow_table(columns: Mapping[str, NDArray[np.generic]]) -> pa.Table:
    """An Arrow table of the memory of NumPy arrays (n,)."""
    import pyarrow as pa

    return pa.table({name: _column(of) for name, of in columns.items()})


def _column(values: NDArray[np.generic]) -> pa.Array:
    """An Arrow array of the memory of a NumPy array; `pa.array` would import pandas where it is installed."""
    import pyarrow as pa

    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def _integers(column: pa.Array) -> NDArray[np.int32]:
    """A column of int32 without nulls, on its own memory; `to_numpy` would import pandas too."""
    return np.frombuffer(column.buffers()[1], dtype=np.int32)[column.offset : column.offset + len(column)]


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
        _code_genres(connection)
        _sum_by_genre(tables, rule)
        ((once, copies, unregistered),) = connection.execute(_COUNTS).fetchall()
    others = mismatches(tables, heard, wrong_clocks, unregistered, now)
    with in_our_words("the labels can't be made"):
        everyone = fates_sql(rule, _packed_codes(connection, len(tables.genres)))
        connection.execute(f"CREATE TEMP TABLE {FATES} AS {everyone}")
        others += _copies(connection, once, copies)
        return replace(_census(connection, ends, others), absent=tables.absent), rule


def _sum_by_genre(tables: Tables, rule: LabelRule) -> None:
    """The table BY_GENRE in the order of the registrations: sums per user and lists per user then need no other."""
    connection, by_genre = tables.connection, _BY_GENRE
    query, in_order = by_genre_sql(replace(rule, data_ends=None)), f"ORDER BY {identifier(ROW)} NULLS LAST, genre"
    if not tables.remote:
        connection.execute(f"CREATE TEMP TABLE {by_genre} AS {query} {in_order};{NO_FINAL}")
        return
    connection.execute(f"CREATE TEMP TABLE {by_genre} AS {query} LIMIT 0")
    for part in tables.remote.seconds_by_genre(rule):
        connection.register("part", part)
        coded = "SELECT * REPLACE (genre::genres AS genre) FROM part"
        connection.execute(f"INSERT INTO {by_genre} BY NAME {coded}")
        connection.unregister("part")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {by_genre} AS FROM {by_genre} {in_order};{NO_FINAL}")


def _code_genres(connection: duckdb.DuckDBPyConnection) -> None:
    """The stations with their genre as ENUM, of which Ibis knows nothing: DuckDB groups by a byte instead of a text."""
    connection.execute("CREATE TYPE genres AS ENUM (SELECT DISTINCT genre FROM stations ORDER BY genre)")
    coded = "SELECT * REPLACE (genre::genres AS genre) FROM stations"
    connection.execute(f"CREATE TEMP VIEW {identifier(CODED_STATIONS)} AS {coded}")


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


def _packed_codes(connection: duckdb.DuckDBPyConnection, n_genres: int) -> int:
    """Create the view CODED_BY_GENRE; the number of genres, or 0 where doubles can't have seconds and code exactly."""
    by_genre = identifier(BY_GENRE)
    coded = f"SELECT * REPLACE (enum_code(genre)::INT AS genre) FROM {by_genre}"
    connection.execute(f"CREATE TEMP VIEW {identifier(CODED_BY_GENRE)} AS {coded}")
    exact = f"coalesce(bool_and(seconds = floor(seconds)) AND max(seconds) * {n_genres} < {MAX_EXACT - n_genres}, true)"
    ((can_pack,),) = connection.execute(f"SELECT {exact} FROM {by_genre}").fetchall()
    return n_genres if can_pack else 0


@lru_cache(MAX_COMPILED)
def by_genre_sql(rule: LabelRule) -> str:
    """`seconds_by_genre` as SQL for DuckDB, by the columns of the tables that it needs.

    Ibis only generates SQL: the settings of the connection are locked.
    """
    import ibis

    registrations = ibis.table({ROW: "int64", USER_ID: "string", REGISTERED_AT: "timestamp"}, REGISTRATIONS)
    heard = {USER_ID: "string", STARTED_AT: "timestamp", STATION_ID: "string", SECONDS: "float64"}
    stations = ibis.table({ROW: "int64", STATION_ID: "string", GENRE: "string"}, CODED_STATIONS)
    by_genre = seconds_by_genre(registrations, ibis.table(heard, LISTENS), stations, rule)
    return str(ibis.to_sql(by_genre, dialect="duckdb"))


@lru_cache(MAX_COMPILED)
def fates_sql(rule: LabelRule, n_codes: int) -> str:
    """`fates` of the view CODED_BY_GENRE as SQL for DuckDB."""
    import ibis

    registrations = ibis.table({ROW: "int64", REGISTERED_AT: "timestamp"}, REGISTRATIONS)
    by_genre = ibis.table({ROW: "int64", GENRE: "int64", SECONDS: "float64"}, CODED_BY_GENRE)
    numbers = dict.fromkeys((ROW, PLAYED_GENRES, "top_genre", COUNTED, COPIES), "int64")
    final = ibis.table({**numbers, SECONDS: "float64"}, FINAL)
    return str(ibis.to_sql(fates(registrations, by_genre, rule, n_codes, final), dialect="duckdb"))


def read_examples(path: Path, extra: Sequence[str] = ()) -> Examples:
    """The labelled users of a file written by `label_tables`."""
    import pyarrow.parquet as pq

    return to_examples(pq.read_table(path), tuple(extra))


def read_labels(path: Path, extra: Sequence[str] = ()) -> Examples:
    """The labelled users of a file of `firstspin label`; of columns `extra` that it lacks, no user has a value.

    Raises InputError where it is another file, or has no rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:
            labelled = pq.read_table(file)
        if missing := {*REGISTRATION_COLUMNS, TOP_GENRE, PLAYED} - set(labelled.column_names):
            raise InputError(f"{path} is not a file of `firstspin label`: it has no column {min(missing)}")
        if not len(labelled):
            raise InputError(f"{path} has no labelled users")
        for name in set(extra) - set(labelled.column_names):
            labelled = labelled.append_column(name, pa.nulls(len(labelled)))
        return to_examples(labelled, tuple(extra))
    except (pa.ArrowException, AttributeError, TypeError, ValueError) as problem:
        raise InputError(f"{path} is not a Parquet file of `firstspin label`") from problem


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


def seconds_by_genre(
    registrations: ir.Table, listens: ir.Table, stations: ir.Table, rule: LabelRule, *, rounded: bool = True
) -> ir.Table:
    """The `seconds` of each registration (ROW) and genre in the label window; how many listens COUNTED, were COPIES.

    A listen that is there twice, with the same user, start, station and seconds, counts once. All listens of
    unregistered users are one row, with null as ROW. Registrations and stations have the integer column ROW: grouping
    by it costs less than by text. Partial sums, of some of the listens, are not `rounded`: `summed` rounds their sum.
    """
    import ibis

    people = registrations.select(
        registrations[ROW].cast("int32").name(ROW),
        "user_id",
        opens=registrations.registered_at + ibis.interval(days=rule.gap_days),
        ends=registrations.registered_at + ibis.interval(days=rule.gap_days + rule.window_days),
    )
    played = stations.select("station_id", "genre", stations[ROW].cast("int32").name(STATION))
    heard = listens.left_join(people, "user_id")
    inside = (heard.started_at >= heard.opens) & (heard.started_at < heard.ends)  # the end is no part of the window
    heard = heard.filter(heard[ROW].isnull() | inside).join(played, "station_id")  # null: of an unregistered user
    known = heard[ROW].notnull()
    of_known = {name: known.ifelse(heard[name], ibis.null()) for name in (STATION, "started_at", "seconds", "genre")}
    once = heard.select(ROW, **of_known).group_by(ROW, *of_known).agg(times=ibis._.count())
    seconds = once.seconds.sum().cast("float64")
    return once.group_by(ROW, "genre").agg(
        once.count().name(COUNTED),
        (once.times - 1).sum().cast("int64").name(COPIES),
        seconds=_rounded(seconds) if rounded else seconds,
    )


def summed(parts: ir.Table) -> ir.Table:
    """`seconds_by_genre` of listens in several parts, from the rows of each that are not rounded."""
    counts = {name: parts[name].sum().cast("int64") for name in (COUNTED, COPIES)}
    return parts.group_by(ROW, GENRE).agg(**counts, seconds=_rounded(parts.seconds.sum()))


def fates(
    registrations: ir.Table, by_genre: ir.Table, rule: LabelRule, n_codes: int = 0, final: ir.Table | None = None
) -> ir.Table:
    """One row per registration, by ROW, with its label or the reason why it has none, from `seconds_by_genre`.

    The columns: ROW; DROPPED, the reason or null; `top_genre`; `seconds`; the number of PLAYED_GENRES. `rule.data_ends`
    must be set. `n_codes`: the genres are the codes from 0 to n_codes - 1, in the order of their names, and the seconds
    are whole numbers, so that one maximum gives the top genre. `final`: the rows of further users, summed earlier.
    """
    import ibis

    by_person = _packed(by_genre, n_codes) if n_codes else _in_two_steps(by_genre)
    by_person = by_person.union(final[by_person.columns]) if final is not None else by_person
    people = registrations.select(registrations[ROW].cast("int32").name(ROW), "registered_at")
    everyone = people.left_join(by_person, ROW).drop(f"{ROW}_right")
    window = ibis.interval(days=rule.gap_days + rule.window_days)
    over = everyone.registered_at + window <= ibis.timestamp(rule.data_ends)
    reason = ibis.cases(
        (~over, NOT_OVER),
        (everyone.seconds.isnull(), NO_LISTEN),
        (everyone.seconds < rule.min_seconds, TOO_LITTLE),
        else_=ibis.null("string"),
    )
    n_genres = everyone[PLAYED_GENRES].fill_null(0).name(PLAYED_GENRES)
    return everyone.select(ROW, reason.name(DROPPED), "top_genre", "seconds", n_genres).order_by(ROW)


def _rounded(total: ir.Value) -> ir.Value:
    """A sum to the microsecond, which no order of its terms changes: in doubles 0.1 + 0.2 is above 0.3, 0.3 + 0 not.

    Engines add in the order in which their threads come. Smaller and larger sums than these stay as they are, and so do
    whole numbers, which cost less to detect than to round.
    """
    import ibis

    return ibis.cases((~total.between(*ROUNDED), total), (total == total.floor(), total), else_=total.round(6))


def _sums(by_genre: ir.Table) -> dict[str, ir.Value]:
    """The sums of a person."""
    return {PLAYED_GENRES: by_genre.count(), SECONDS: _rounded(by_genre.seconds.sum())}


def _packed(by_genre: ir.Table, n_codes: int) -> ir.Table:
    """Sums and top genre of each ROW: the maximum of seconds and code in one number; the smaller code wins a tie."""
    max_packed = (by_genre.seconds * n_codes + (n_codes - 1 - by_genre.genre)).max().cast("int64")
    by_person = by_genre.group_by(ROW).agg(**_sums(by_genre), **{MAX_SECONDS: max_packed})
    return by_person.mutate(top_genre=n_codes - 1 - by_person[MAX_SECONDS] % n_codes).drop(MAX_SECONDS)


def _in_two_steps(by_genre: ir.Table) -> ir.Table:
    """Sums and top genre of each ROW: the maximum of the seconds, then the first genre that has it.

    No struct is compared: BigQuery and Snowflake may not order structs.
    """
    sums = by_genre.group_by(ROW).agg(**_sums(by_genre), **{MAX_SECONDS: by_genre.seconds.max()})
    max_seconds = sums.select(ROW, MAX_SECONDS)
    of_max = by_genre.join(max_seconds, [ROW, by_genre.seconds == max_seconds[MAX_SECONDS]])
    tops = of_max.group_by(ROW).agg(top_genre=of_max.genre.min())
    return sums.join(tops, ROW).drop(MAX_SECONDS)


def to_examples(labelled: pa.Table, extra: tuple[str, ...] = ()) -> Examples:
    """The rows of a file of `label_tables` as examples, in their order. Registrations stay in columns."""
    import pyarrow as pa

    answers = {name: labelled[name].combine_chunks() for name in (*ONE_ANSWER, GENRES, *extra)}
    names, codes = distinct(labelled[TOP_GENRE].combine_chunks())
    genres = tuple(sorted({names[code] for code in np.unique(codes)}))
    return Examples(
        user_ids=tuple(labelled[USER_ID].to_pylist()),
        registrations=coded(pa.record_batch(answers), extra),
        registered_at=labelled[REGISTERED_AT].cast(pa.timestamp("s"), safe=False).to_numpy(),
        genres=genres,
        tops=_places(names, genres)[codes],
        shares=_shares(labelled, genres),
    )


def _places(names: Sequence[str | None], genres: tuple[str, ...]) -> NDArray[np.int64]:
    """The place of each name among the genres, or -1."""
    index = {genre: i for i, genre in enumerate(genres)}
    return np.array([index.get(name or "", -1) for name in names], dtype=np.int64)


def _shares(labelled: pa.Table, genres: tuple[str, ...]) -> NDArray[np.float64]:
    """(n, k) shares of each user's seconds by genre, over the genres that are a top genre."""
    played = labelled[PLAYED].combine_chunks()
    lengths = np.diff(played.offsets.to_numpy())
    person = np.repeat(np.arange(len(labelled)), lengths)
    entries = played.flatten()
    names, codes = distinct(entries.field("genre"))
    genre = _places(names, genres)[codes]
    seconds = np.minimum(entries.field("seconds").to_numpy(), 1e300)  # an infinite sum has no share
    shares = np.zeros((len(labelled), len(genres)))
    is_top = genre >= 0
    shares[person[is_top], genre[is_top]] = seconds[is_top]
    shares /= shares.sum(axis=1, keepdims=True)
    return shares
