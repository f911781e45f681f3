"""Exposures of busy moments in SQLite: many of one commit are stored as one packed row, a batch.

A row of `exposures` costs the writer 10 µs, most of it for the index of ids, whose pages lie all over the file; an
exposure of a batch costs 1.4 µs. Rows are made of batches when there is time: by commits of few exposures, and by the
forwarder to a sink. Meanwhile a snapshot shows both, by a temporary view with the name of the table, and an erasure
deletes from both. All rows arrived before the batches, so of two exposures with the same id the first one stays.

A batch ends with its checksum: a damaged one is left out by readers, which log it, and set aside by the next writer,
in `damaged_batches`. An erasure deletes all damaged batches, because the user may be in them.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from itertools import count
from typing import Final, Protocol
from zlib import crc32

import msgspec

from firstspin.events import statements
from firstspin.events.database import ResultRow, Row
from firstspin.events.schema import Exposure
from firstspin.events.statements import EXPOSURE_COLUMNS, EXPOSURES

MIN_BATCH: Final = 64
"""So many exposures of a commit become batches."""
MAX_BATCH: Final = 500
"""Max exposures of a batch: the erasure of a user, which rewrites it, fits in the reserve of a full disk."""
AT_ONCE: Final = 1_000
"""So many exposures become rows in one transaction, and those of their last batch."""

TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS exposure_batches (batch INTEGER PRIMARY KEY, exposures BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS damaged_batches (exposures BLOB NOT NULL)",
)
_ANY: Final = "SELECT 1 FROM exposure_batches LIMIT 1"
_PACK: Final = "INSERT INTO exposure_batches (exposures) VALUES (?)"
_AFTER: Final = "SELECT batch, CAST(exposures AS BLOB) FROM exposure_batches WHERE batch > ? ORDER BY batch LIMIT 1"
_REPLACE: Final = "UPDATE exposure_batches SET exposures = ? WHERE batch = ?"
_DELETE: Final = "DELETE FROM exposure_batches WHERE batch = ?"
_SET_ASIDE: Final = "INSERT INTO damaged_batches SELECT exposures FROM exposure_batches WHERE batch = ?"
_SET_ASIDE_BEFORE: Final = "SELECT COUNT(*) FROM damaged_batches"
_DELETE_DAMAGED: Final = "DELETE FROM damaged_batches"

_COLUMNS: Final = ", ".join(EXPOSURE_COLUMNS)
_UNPACKED: Final = f"CREATE TEMP TABLE unpacked (seq INTEGER PRIMARY KEY, {_COLUMNS}, UNIQUE (exposure_id))"
_UNPACK: Final = f"INSERT OR IGNORE INTO unpacked VALUES (?{', ?' * len(EXPOSURE_COLUMNS)})"
_ARE_ROWS: Final = "DELETE FROM unpacked WHERE exposure_id IN (SELECT exposure_id FROM main.exposures)"
_VIEW: Final = (
    f"CREATE TEMP VIEW exposures AS SELECT seq, {_COLUMNS}, sent FROM main.exposures "
    f"UNION ALL SELECT seq, {_COLUMNS}, 0 FROM unpacked"
)
_LAST: Final = "SELECT COALESCE(MAX(seq), 0) FROM exposures"

_CHECKSUM_BYTES: Final = 4
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Exposure]).decode

log = logging.getLogger(__name__)


class RowSession(Protocol):
    """The statements of a transaction, and the insertion of rows as such."""

    def run(self, statement: str, values: Row = ()) -> list[ResultRow]:
        """The result rows of a statement."""

    def each(self, statement: str, rows: Iterator[Row]) -> list[int]:
        """Run the statement once per row of values."""

    def insert_rows(self, table: str, rows: Sequence[Row]) -> list[bool]:
        """Insert rows, except those whose key exists."""


def pack(session: RowSession, rows: Sequence[Row]) -> bool:
    """Store rows of `exposures` as batches: many, or few where earlier ones are in batches still. False if not."""
    is_small = len(rows) < MIN_BATCH
    if is_small:
        settle(session)
    if is_small and not are_waiting(session):
        return False
    for start in range(0, len(rows), MAX_BATCH):
        session.run(_PACK, (_packed(rows[start : start + MAX_BATCH]),))
    return True


def are_waiting(session: RowSession) -> bool:
    """Whether there are batches."""
    return bool(session.run(_ANY))


def settle(session: RowSession) -> None:
    """Make rows of the oldest batches, and set damaged ones aside."""
    settled = 0
    for batch, exposures in _batches(session):
        if exposures is None:
            session.run(_SET_ASIDE, (batch,))
            log.error("a batch of up to %d exposures is damaged: it is set aside in damaged_batches", MAX_BATCH)
        else:
            session.insert_rows(EXPOSURES, list(map(statements.row, exposures)))
            settled += len(exposures)
        session.run(_DELETE, (batch,))
        if settled >= AT_ONCE:
            return


def show(session: RowSession) -> None:
    """Show the exposures of batches as rows of `exposures`, until the transaction is rolled back.

    Damaged batches are left out, and their number is logged.
    """
    ((damaged,),) = session.run(_SET_ASIDE_BEFORE)
    if are_waiting(session):
        damaged += _show(session)
    if damaged:
        log.warning(
            "%d batches of up to %d exposures are damaged and left out; a backup may have them", damaged, MAX_BATCH
        )


def _show(session: RowSession) -> int:
    """Show the exposures of all batches that are not damaged; returns the number of the others."""
    ((last,),) = session.run(_LAST)
    session.run(_UNPACKED)
    seq, damaged = count(last + 1), 0
    for _, exposures in _batches(session):
        damaged += exposures is None
        session.each(_UNPACK, ((next(seq), *statements.row(one)) for one in exposures or ()))
    session.run(_ARE_ROWS)
    session.run(_VIEW)
    return damaged


def delete(session: RowSession, users: Collection[bytes]) -> set[bytes]:
    """Delete the exposures of these users from all batches, and damaged batches; returns the ids of the exposures."""
    ids: set[bytes] = set()
    erased = set(users)
    for batch, exposures in _batches(session):
        remaining = [one for one in exposures or () if one.user_hash not in erased]
        if exposures is not None and len(remaining) == len(exposures):
            continue
        ids.update(one.exposure_id for one in exposures or () if one.user_hash in erased)
        if remaining:
            session.run(_REPLACE, (_packed(list(map(statements.row, remaining))), batch))
        else:
            session.run(_DELETE, (batch,))
    session.run(_DELETE_DAMAGED)
    return ids


def _batches(session: RowSession) -> Iterator[tuple[int, list[Exposure] | None]]:
    """The batches, the oldest first, and their exposures; None where the batch is damaged."""
    batch = 0
    while found := session.run(_AFTER, (batch,)):
        ((batch, packed),) = found
        yield batch, _unpacked(packed)


def _packed(rows: Sequence[Row]) -> bytes:
    packed = _encode(rows)
    return packed + crc32(packed).to_bytes(_CHECKSUM_BYTES, "big")


def _unpacked(packed: bytes) -> list[Exposure] | None:
    exposures = packed[:-_CHECKSUM_BYTES]
    if crc32(exposures) == int.from_bytes(packed[-_CHECKSUM_BYTES:], "big"):
        with suppress(msgspec.MsgspecError):  # another program's
            return _decode(exposures)
    return None
