"""The event store's tables, and the SQL that SQLite and PostgreSQL share. `?` is the placeholder of a value."""

from __future__ import annotations

from functools import cache
from typing import Final

import msgspec

from firstspin.events.schema import Event, Exposure

VERSION: Final = 3  # of the tables; the column `schema` has the version of a row's fields

EXPOSURES: Final = "exposures"
EVENTS: Final = "events"
ERASED: Final = "erased"
ABOUT: Final = "about"
EXPOSURE_COLUMNS: Final = Exposure.__struct_fields__
EVENT_COLUMNS: Final = Event.__struct_fields__
TABLES: Final = {EXPOSURES, EVENTS, ERASED, ABOUT}
COLUMNS: Final = {EXPOSURES: EXPOSURE_COLUMNS, EVENTS: EVENT_COLUMNS}

# `seq` is the order of arrival; `sent` is 1 once a sink has accepted the row. There is no index on `user_hash`, except
# by `INDEX_LISTENS`: it would cost the writer 40% of its throughput, and erasure and export scan the tables anyway.
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS exposures (seq {seq}, exposure_id {digest} NOT NULL UNIQUE, experiment TEXT NOT NULL, "
    "user_hash {digest} NOT NULL, arm TEXT NOT NULL, propensity DOUBLE PRECISION NOT NULL, decided_at BIGINT NOT "
    "NULL, source TEXT NOT NULL, model TEXT NOT NULL, station_id TEXT NOT NULL, candidates TEXT NOT NULL, carousel "
    "INTEGER, relevance DOUBLE PRECISION, listens INTEGER, schema INTEGER NOT NULL, sent INTEGER NOT NULL DEFAULT 0)",
    "CREATE TABLE IF NOT EXISTS events (seq {seq}, event_id {digest} NOT NULL UNIQUE, type TEXT NOT NULL, "
    "user_hash {digest} NOT NULL, station_id TEXT NOT NULL, at BIGINT NOT NULL, received_at BIGINT NOT NULL, "
    "seconds DOUBLE PRECISION, flag TEXT NOT NULL, schema INTEGER NOT NULL, sent INTEGER NOT NULL DEFAULT 0)",
    "CREATE TABLE IF NOT EXISTS erased (tombstone {digest} PRIMARY KEY, erased_at BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS exposures_unsent ON exposures (seq) WHERE sent = 0",
    "CREATE INDEX IF NOT EXISTS events_unsent ON events (seq) WHERE sent = 0",
)


def tables(*, seq: str, digest: str) -> tuple[str, ...]:
    """The statements that create tables and indexes, with a database's types of a serial key and of 16 bytes."""
    return tuple(table.format(seq=seq, digest=digest) for table in _TABLES)


_IS_CURRENT: Final = f"UPDATE about SET value = '{VERSION}' WHERE name = 'version'"
MIGRATIONS: Final = {
    "1": (
        "ALTER TABLE exposures ADD COLUMN carousel INTEGER",
        "ALTER TABLE exposures ADD COLUMN relevance DOUBLE PRECISION",
        "ALTER TABLE exposures ADD COLUMN listens INTEGER",
        _IS_CURRENT,
    ),
    "2": (_IS_CURRENT,),
}
"""By the version of an older store, the statements that make it one of this version. Rows stay as they are.

Version 3 has batches of exposures in SQLite, which an earlier release would not see.
"""


LISTENS_INDEX: Final = "events_listens"
_USABLE: Final = "type = 'listen' AND flag <> 'future'"
INDEX_LISTENS: Final = f"CREATE INDEX IF NOT EXISTS {LISTENS_INDEX} ON events (user_hash, at) WHERE {_USABLE}"
LATEST_LISTENS: Final = (
    f"SELECT station_id, seconds FROM events WHERE user_hash = ? AND {_USABLE} ORDER BY at DESC, seq DESC LIMIT ?"
)
"""Newest first. Those with a time after their receipt would stay the latest for ever, and are left out, of the index
too: a lookup never reads more than its LIMIT of a user who has many of them."""

NOTE: Final = "INSERT INTO about (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING"
NOTES: Final = "SELECT name, value FROM about"
PROBE: Final = "UPDATE about SET value = value WHERE name = 'version'"
"""A write without an effect, which fails where the database can't be written."""


@cache
def insert(table: str, rows: int) -> str:
    """The statement that inserts `rows` rows, except those whose key exists."""
    columns = COLUMNS[table]
    values = ", ".join([_list(len(columns))] * rows)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {values} ON CONFLICT ({columns[0]}) DO NOTHING"


BURY: Final = "INSERT INTO erased (tombstone, erased_at) VALUES (?, ?) ON CONFLICT DO NOTHING"
MARK_SENT: Final = "UPDATE {table} SET sent = 1 WHERE seq = ?"
ANY_ERASED: Final = "SELECT 1 FROM erased LIMIT 1"
MAX_VALUES: Final = 30_000  # in one statement; the limit is 32,766 in SQLite, 65,535 in PostgreSQL


def erased(n: int) -> str:
    """The query of the stored ones among n tombstones."""
    return f"SELECT tombstone FROM erased WHERE tombstone IN {_list(n)}"


def rows_of(table: str, n: int) -> str:
    """The query of the key of each row of n users, and whether it has been sent."""
    return f"SELECT {COLUMNS[table][0]}, sent FROM {table} WHERE user_hash IN {_list(n)}"


def delete(table: str, n: int) -> str:
    """The statement that deletes all rows of n users."""
    return f"DELETE FROM {table} WHERE user_hash IN {_list(n)}"


def unsent(table: str) -> str:
    """The query of the oldest unsent rows (seq, then the table's columns); its value is the max number of rows."""
    return f"SELECT seq, {', '.join(COLUMNS[table])} FROM {table} WHERE sent = 0 ORDER BY seq LIMIT ?"


def row(stored: Exposure | Event) -> tuple[str | int | float | bytes | None, ...]:
    """The exposure or event as a row of its table."""
    return msgspec.structs.astuple(stored)


def _list(n: int) -> str:
    return f"({', '.join('?' * n)})"
