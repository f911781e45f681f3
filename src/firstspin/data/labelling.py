"""Labelling: registrations + listens -> examples (each user's top genre in the label window), and a census.

The label is one Ibis expression, which compiles to DuckDB here, and to Spark for listens too large for one machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from firstspin.data.checks.mismatches import data_ends, listening, mismatches
from firstspin.data.formats.readers import in_our_words
from firstspin.data.further_fields import with_further_fields
from firstspin.data.ingest import Tables
from firstspin.data.schema import COLUMNS, PLAYED, REGISTERED_AT, ROW, TOP_GENRE, USER_ID
from firstspin.data.sql import identifier, literal
from firstspin.records import Census, Examples, InputError, LabelRule, Mismatch, Registration

if TYPE_CHECKING:
    import duckdb
    import ibis
    import ibis.expr.types as ir
    import pyarrow as pa

DROPPED = "why there is no label"  # names with spaces, which no further column can have
COUNTED = "listens in the window"
COPIES = "copies of listens in the window"
STATION = "number of the station"

NOT_OVER = "window not over yet"
NO_LISTEN = "no listen in the window"
TOO_LITTLE = "under the activity rule"
REASONS = (NO_LISTEN, TOO_LITTLE, NOT_OVER)


def label_tables(tables: Tables, rule: LabelRule, out: Path, now: datetime | None = None) -> tuple[Census, LabelRule]:
    """Write the labelled users to a Parquet file, in the order of the registrations.

    Returns the census and the rule with `data_ends` filled in. `now` (UTC) is used to detect clocks that are ahead.
    Raises InputError where no user gets a label, or nearly all values of a column match nothing.
    """
    census, rule = take_census(tables, rule, now)
    refuse_unlabelled(census, tables)
    with in_our_words("the labels can't be made"):
        ours = ", ".join(map(identifier, (ROW, DROPPED, COUNTED, COPIES)))
        labelled = f"FROM fates WHERE {identifier(DROPPED)} IS NULL ORDER BY {identifier(ROW)}"
        # no temporary file of DuckDB's: `out` exists, and keeps its permissions for the owner alone
        copied = f"COPY (SELECT * EXCLUDE ({ours}) {labelled}) TO {literal(out.resolve())}"
        tables.connection.execute(f"{copied} (FORMAT parquet, USE_TMP_FILE false)")
    return census, rule


def take_census(tables: Tables, rule: LabelRule, now: datetime | None = None) -> tuple[Census, LabelRule]:
    """Label the users in the table `fates` of the connection; the census, and the rule with `data_ends` filled in.

    Raises InputError where a table is empty, or, unless problems are collected, a column matches nothing.
    """
    connection = tables.connection
    ((first, last),) = connection.execute("SELECT min(registered_at), max(registered_at) FROM registrations").fetchall()
    heard = listening(tables)
    if first is None or not heard.days:
        why = _dropped(tables, whole=True) or "the registrations or the listens are empty"
        raise InputError(f"no training data: {why}")
    ends, wrong_clocks = data_ends(heard, rule, now)
    others = mismatches(tables, heard, wrong_clocks, now)
    rule = replace(rule, data_ends=ends)
    everyone = fates_sql(tuple(_schema(connection, name) for name in COLUMNS), first, last, rule)
    with in_our_words("the labels can't be made"):
        connection.execute(f"CREATE TEMP TABLE fates AS {everyone}")
        return replace(_census(connection, ends, others), absent=tables.absent), rule


def refuse_unlabelled(census: Census, tables: Tables) -> None:
    """Raises InputError where no user has a label."""
    if not census.labelled:
        dropped = f"; {why}" if (why := _dropped(tables, whole=False)) else ""
        raise InputError(f"no user gets a label: of {census.registered}, {_listed(census.dropped)}{dropped}")


def _dropped(tables: Tables, *, whole: bool) -> str:
    """The rows that were dropped of each table, and why; `whole`: of the tables that have no other row."""
    shown = []
    for name, file in tables.files.items():
        ((remaining,),) = tables.connection.execute(f"SELECT count(*) FROM {name}").fetchall()
        if not (whole and remaining):
            shown.append(tables.complaints.dropped(file, remaining))
    return "; ".join(filter(None, shown))


def _schema(connection: duckdb.DuckDBPyConnection, name: str) -> ibis.Schema:
    """The Ibis schema of a table of the connection."""
    import ibis

    return ibis.Schema.from_pyarrow(connection.sql(f"FROM {name} LIMIT 0").to_arrow_table().schema)


def fates_sql(schemas: tuple[ibis.Schema, ...], first: datetime, last: datetime, rule: LabelRule) -> str:
    """`fates` as SQL for DuckDB, of tables with these schemas and registrations from `first` to `last`.

    Ibis only generates SQL: the settings of the connection are locked.
    """
    import ibis

    registrations, listens, stations = (ibis.table(of, name) for name, of in zip(COLUMNS, schemas, strict=True))
    everyone = fates(registrations, within_reach(listens, first, last, rule), stations, rule)
    return str(ibis.to_sql(everyone, dialect="duckdb"))


def read_examples(path: Path, extra: Sequence[str] = ()) -> Examples:
    """The labelled users of a file written by `label_tables`."""
    import pyarrow.parquet as pq

    return to_examples(pq.read_table(path), tuple(extra))


def _census(connection: duckdb.DuckDBPyConnection, ends: datetime, others: list[Mismatch]) -> Census:
    """The counts of the table `fates` by reason, and the number of listens that are copies."""
    dropped, counted, copies = map(identifier, (DROPPED, COUNTED, COPIES))
    listens = f"sum({counted}), sum({copies}), min(user_id) FILTER ({copies} > 0)"
    rows = connection.execute(f"SELECT {dropped}, count(*), {listens} FROM fates GROUP BY {dropped}").fetchall()
    counts = {reason: n for reason, n, *_ in rows}
    once, twice = (sum(int(n or 0) for n in column) for column in ([row[2] for row in rows], [row[3] for row in rows]))
    what = "listens in label windows are exact copies of others: each counts once"
    users = [user for *_, user in rows if user is not None]
    return Census(
        registered=sum(counts.values()),
        labelled=counts.pop(None, 0),
        dropped={reason: counts.get(reason, 0) for reason in REASONS},
        data_ends=ends,
        mismatches=(*others, *(Mismatch(twice, once + twice, what, f"one of user_id {user}") for user in users[:1])),
    )


def _listed(dropped: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)


def fates(registrations: ir.Table, listens: ir.Table, stations: ir.Table, rule: LabelRule) -> ir.Table:
    """One row per registration, in no order, with its label or the reason why it has none.

    The columns: those of the registrations; `top_genre`, `seconds` and `played` (seconds per genre in the window);
    DROPPED, the reason or null; how many listens COUNTED and were COPIES. A listen that is there twice, with the same
    user, start, station and seconds, counts once. `rule.data_ends` must be set. `registrations` has the integer column
    ROW: grouping by it costs less than by text.
    """
    import ibis

    gap = ibis.interval(days=rule.gap_days)
    window = ibis.interval(days=rule.gap_days + rule.window_days)
    people = registrations.select(ROW, "user_id", "registered_at")
    played = stations.select("station_id", "genre", stations[ROW].name(STATION))
    heard = listens.join(people, "user_id").join(played, "station_id")
    heard = heard.filter(
        heard.started_at >= heard.registered_at + gap,  # the start of the window is included
        heard.started_at < heard.registered_at + window,  # its end is not
    )
    once = heard.group_by(ROW, STATION, "started_at", "seconds", "genre").agg(times=heard.count())
    by_genre = once.group_by(ROW, "genre").agg(
        once.count().name(COUNTED),
        (once.times.sum() - once.count()).name(COPIES),
        seconds=once.seconds.sum().cast("float64"),
    )
    ranking = ibis.struct(
        {"less": -by_genre.seconds, "genre": by_genre.genre}
    )  # a tie goes to the alphabetically first
    by_person = by_genre.group_by(ROW).agg(
        by_genre[COUNTED].sum().name(COUNTED),
        by_genre[COPIES].sum().name(COPIES),
        top_genre=by_genre.genre.argmin(ranking),
        seconds=by_genre.seconds.sum(),
        played=ibis.struct({"genre": by_genre.genre, "seconds": by_genre.seconds}).collect(),
    )
    everyone = registrations.left_join(by_person, ROW).drop(f"{ROW}_right")
    over = everyone.registered_at + window <= ibis.timestamp(rule.data_ends)
    reason = ibis.cases(
        (~over, NOT_OVER),
        (everyone.seconds.isnull(), NO_LISTEN),
        (everyone.seconds < rule.min_seconds, TOO_LITTLE),
        else_=ibis.null("string"),
    )
    return everyone.mutate(reason.name(DROPPED))


def within_reach(listens: ir.Table, first: datetime, last: datetime, rule: LabelRule) -> ir.Table:
    """The listens between the start of the first label window and the end of the last, so that the join is smaller."""
    import ibis

    opens = first + timedelta(days=rule.gap_days)
    ends = last + timedelta(days=rule.gap_days + rule.window_days)
    return listens.filter(listens.started_at >= ibis.timestamp(opens), listens.started_at < ibis.timestamp(ends))


def to_examples(labelled: pa.Table, extra: tuple[str, ...] = ()) -> Examples:
    """The rows of a file of `label_tables` as examples, in their order."""
    import pyarrow as pa

    kind = with_further_fields(extra)
    answers = labelled.select(["age", "gender", "country", "genres", *extra]).to_pylist()
    genres = tuple(sorted(set(labelled[TOP_GENRE].to_pylist())))
    index = {genre: i for i, genre in enumerate(genres)}
    return Examples(
        user_ids=tuple(labelled[USER_ID].to_pylist()),
        registrations=tuple(_registration(kind, row) for row in answers),
        registered_at=labelled[REGISTERED_AT].cast(pa.timestamp("s"), safe=False).to_numpy(),
        genres=genres,
        tops=np.array([index[genre] for genre in labelled[TOP_GENRE].to_pylist()], dtype=np.int64),
        shares=_shares(labelled, index),
    )


def read_people(
    connection: duckdb.DuckDBPyConnection, extra: Sequence[str] = (), batch: int = 20_000
) -> Iterator[tuple[list[str], list[Registration]]]:
    """User ids and registrations of the table `registrations`, in batches, in the order of the file."""
    kind = with_further_fields(extra)
    fields = ", ".join(["age", "gender", "country", "genres", *map(identifier, extra)])
    query = f"SELECT user_id, {fields} FROM registrations ORDER BY {identifier(ROW)}"
    with in_our_words("the registrations can't be read"):
        for part in connection.sql(query).to_arrow_reader(batch):
            answers = part.to_pylist()
            yield [row.pop("user_id") for row in answers], [_registration(kind, row) for row in answers]


def _registration(kind: type[Registration], row: dict[str, object]) -> Registration:
    return kind(**{**row, "genres": tuple(row["genres"] or ())})  # type: ignore[arg-type]


def _shares(labelled: pa.Table, index: dict[str, int]) -> NDArray[np.float64]:
    """(n, k) shares of each user's seconds by genre, over the genres that are a top genre."""
    played = labelled[PLAYED].combine_chunks()
    lengths = np.diff(played.offsets.to_numpy())
    person = np.repeat(np.arange(len(labelled)), lengths)
    entries = played.flatten()
    genre = np.array([index.get(name, -1) for name in entries.field("genre").to_pylist()], dtype=np.int64)
    seconds = entries.field("seconds").to_numpy()
    shares = np.zeros((len(labelled), len(index)))
    is_top = genre >= 0
    shares[person[is_top], genre[is_top]] = seconds[is_top]
    shares /= shares.sum(axis=1, keepdims=True)
    return shares
