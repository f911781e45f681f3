"""Exposures of busy moments in SQLite: many of one commit are stored as one packed row, a batch.

A row of `exposures` costs the writer 10 µs, most of it for the index of ids, whose pages lie all over the file; an
exposure of a batch costs 1.4 µs. Rows are made of batches when there is time: by commits of few exposures, and by the
forwarder to a sink. Meanwhile a snapshot shows both, by a temporary view with the name of the table, and an erasure
deletes from both. All rows arrived before the batches, so of two exposures with the same id the first one stays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import count
from typing import Final, Protocol

import msgspec

from firstspin.events import statements
from firstspin.events.database import ResultRow, Row, readable_rows
from firstspin.events.schema import Exposure
from firstspin.events.statements import EXPOSURE_COLUMNS, EXPOSURES
from firstspin.records import InputError

MIN_BATCH: Final = 64
"""So many exposures of a commit become a batch."""
AT_ONCE: Final = 1_000
"""So many exposures become rows in one transaction, and those of their last batch."""

TABLE: Final = "CREATE TABLE IF NOT EXISTS exposure_batches (batch INTEGER PRIMARY KEY, exposures BLOB NOT NULL)"
_ANY: Final = "SELECT 1 FROM exposure_batches LIMIT 1"
_PACK: Final = "INSERT INTO exposure_batches (exposures) VALUES (?)"
_AFTER: Final = "SELECT batch, exposures FROM exposure_batches WHERE batch > ? ORDER BY batch LIMIT 1"
_REPLACE: Final = "UPDATE exposure_batches SET exposures = ? WHERE batch = ?"
_DELETE: Final = "DELETE FROM exposure_batches WHERE batch = ?"

_COLUMNS: Final = ", ".join(EXPOSURE_COLUMNS)
_UNPACKED: Final = f"CREATE TEMP TABLE unpacked (seq INTEGER PRIMARY KEY, {_COLUMNS}, UNIQUE (exposure_id))"
_UNPACK: Final = f"INSERT OR IGNORE INTO unpacked VALUES (?{', ?' * len(EXPOSURE_COLUMNS)})"
_ARE_ROWS: Final = "DELETE FROM unpacked WHERE exposure_id IN (SELECT exposure_id FROM main.exposures)"
_VIEW: Final = (
    f"CREATE TEMP VIEW exposures AS SELECT seq, {_COLUMNS}, sent FROM main.exposures "
    f"UNION ALL SELECT seq, {_COLUMNS}, 0 FROM unpacked"
)
_LAST: Final = "SELECT COALESCE(MAX(seq), 0) FROM exposures"

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Exposure]).decode


class Rows(Protocol):
    """The statements of a transaction, and the insertion of rows as such."""

    def run(self, statement: str, values: Row = ()) -> list[ResultRow]:
        """The result rows of a statement."""

    def each(self, statement: str, rows: Iterator[Row]) -> list[int]:
        """Run the statement once per row of values."""

    def insert_rows(self, table: str, rows: Sequence[Row]) -> list[bool]:
        """Insert rows, except those whose key exists."""


def pack(session: Rows, rows: Sequence[Row]) -> bool:
    """Store rows of `exposures` as a batch: many, or few where earlier ones are in batches still. False if not."""
    is_small = len(rows) < MIN_BATCH
    if is_small:
        settle(session)
    if is_small and not are_waiting(session):
        return False
    session.run(_PACK, (_encode(rows),))
    return True


def are_waiting(session: Rows) -> bool:
    """Whether there are batches."""
    return bool(session.run(_ANY))


def settle(session: Rows) -> None:
    """Make rows of the oldest batches. One that firstspin did not write stays, with those after it."""
    settled = 0
    try:
        for batch, exposures in _batches(session):
            session.insert_rows(EXPOSURES, list(map(statements.row, exposures)))
            session.run(_DELETE, (batch,))
            settled += len(exposures)
            if settled >= AT_ONCE:
                return
    except InputError:  # the writer goes on; readers are told
        return


def show(session: Rows) -> None:
    """Show the exposures of batches as rows of `exposures`, until the transaction is rolled back.

    Raises InputError where there is a batch that firstspin did not write.
    """
    if not are_waiting(session):
        return
    ((last,),) = session.run(_LAST)
    session.run(_UNPACKED)
    seq = count(last + 1)
    for _, exposures in _batches(session):
        session.each(_UNPACK, ((next(seq), *statements.row(one)) for one in exposures))
    session.run(_ARE_ROWS)
    session.run(_VIEW)


def delete(session: Rows, users: Collection[bytes]) -> set[bytes]:
    """Delete the exposures of these users from all batches; returns their ids."""
    ids: set[bytes] = set()
    erased = set(users)
    for batch, exposures in _batches(session):
        remaining = [one for one in exposures if one.user_hash not in erased]
        if len(remaining) == len(exposures):
            continue
        ids.update(one.exposure_id for one in exposures if one.user_hash in erased)
        if remaining:
            session.run(_REPLACE, (_encode(list(map(statements.row, remaining))), batch))
        else:
            session.run(_DELETE, (batch,))
    return ids


def _batches(session: Rows) -> Iterator[tuple[int, list[Exposure]]]:
    """The batches and their exposures, the oldest first."""
    batch = 0
    while found := session.run(_AFTER, (batch,)):
        ((batch, packed),) = found
        with readable_rows():
            exposures = _decode(packed)
        yield batch, exposures
