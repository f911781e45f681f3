"""Registrations of the table of that name, in batches: columns of Arrow, or objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from firstspin.data.formats.connections import in_our_words
from firstspin.data.further_fields import with_further_fields
from firstspin.data.schema import AGE, COUNTRY, GENDER, GENRES, LISTENS, REGISTERED_AT, ROW, USER_ID
from firstspin.data.sql import identifier
from firstspin.records import MAX_LISTENS, Listen, Registration

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_ANSWERS = (AGE, GENDER, COUNTRY, GENRES)


def read_people(
    connection: duckdb.DuckDBPyConnection,
    extra: Sequence[str] = (),
    batch: int = 20_000,
    *,
    listens: bool = False,
    every: int = 1,
) -> Iterator[tuple[list[str], list[Registration]]]:
    """User ids and registrations of `people_columns`, in batches; `every`: only one row in so many."""
    for part in people_columns(connection, extra, batch, listens=listens, every=every):
        yield part.column(USER_ID).to_pylist(), registrations_of(part, extra)


def people_columns(
    connection: duckdb.DuckDBPyConnection,
    extra: Sequence[str] = (),
    batch: int = 20_000,
    *,
    listens: bool = False,
    every: int = 1,
) -> Iterator[pa.RecordBatch]:
    """User ids and answers of the table `registrations`, in batches, in the order of the file.

    `listens`: with their last MAX_LISTENS rows of the view `listens`, null for a user without any. `every`: only one
    row in so many.
    """
    row = identifier(ROW)
    fields = ", ".join([*_ANSWERS, *map(identifier, extra), *(["listens"] * listens)])
    joined = f"registrations LEFT JOIN ({_last_listens(connection)}) USING ({row})" if listens else "registrations"
    query = f"SELECT user_id, {fields} FROM {joined} WHERE {row} % {every} = 0 ORDER BY {row}"
    with in_our_words("the registrations can't be read"):
        yield from connection.sql(query).to_arrow_reader(batch)


def registrations_of(people: pa.RecordBatch, extra: Sequence[str] = ()) -> list[Registration]:
    """The registrations of a batch of `people_columns`."""
    kind = with_further_fields(extra)
    there = [name for name in (*_ANSWERS, *extra, LISTENS) if name in people.schema.names]
    return [registration(kind, row) for row in people.select(there).to_pylist()]


def _last_listens(connection: duckdb.DuckDBPyConnection) -> str:
    """SQL: the last listens of each registration, oldest first, without those before it. Exact copies count once."""
    known = REGISTERED_AT in connection.sql("FROM registrations LIMIT 0").columns
    since = f"WHERE coalesce(l.started_at >= r.{REGISTERED_AT}, true)" if known else ""
    one, order = "{'station_id': l.station_id, 'seconds': l.seconds::DOUBLE}", "l.started_at, l.station_id, l.seconds"
    return (
        f"SELECT {identifier(ROW)}, list({one} ORDER BY {order})[-{MAX_LISTENS}:] AS listens "
        f"FROM (SELECT DISTINCT user_id, started_at, station_id, seconds FROM listens) l "
        f"JOIN registrations r USING (user_id) {since} GROUP BY {identifier(ROW)}"
    )


def registration(kind: type[Registration], row: dict[str, object]) -> Registration:
    """The registration of a row of answers, as Arrow gives it."""
    if "listens" in row:
        row["listens"] = tuple(Listen(**listen) for listen in row["listens"] or ())  # type: ignore[attr-defined]
    return kind(**{**row, "genres": tuple(row["genres"] or ())})  # type: ignore[arg-type]
