"""Export of one experiment's exposures and events to two Parquet tables, for analysis; not imported by the service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from firstspin.events.database import Database, ResultRow, Session, readable_rows
from firstspin.events.schema import scoped
from firstspin.files import written_together

ARMS: Final = ("model", "rule")
EXPOSURES: Final = "exposures.parquet"
EVENTS: Final = "events.parquet"
CHUNK: Final = 50_000

_TIME: Final = pa.timestamp("us", "UTC")
_EXPOSURE_TABLE: Final = (
    ("experiment", pa.string()),
    ("user_key", pa.string()),
    ("arm", pa.string()),
    ("decided_at", _TIME),
    ("source", pa.string()),
    ("model", pa.string()),
    ("station_id", pa.string()),
    ("propensity", pa.float64()),
    ("carousel", pa.int32()),
    ("relevance", pa.float64()),
    ("listens", pa.int32()),
)  # and for each arm its candidates
EVENT_TABLE: Final = (
    ("event_id", pa.string()),
    ("type", pa.string()),
    ("user_key", pa.string()),
    ("at", _TIME),
    ("received_at", _TIME),
    ("station_id", pa.string()),
    ("seconds", pa.float64()),
    ("flag", pa.string()),
)
_EXPOSURES: Final = (
    "SELECT user_hash, arm, decided_at, source, model, station_id, propensity, carousel, relevance, listens, "
    "candidates FROM exposures WHERE experiment = ? ORDER BY seq"
)
# An event has no experiment: it belongs to each one its user was exposed in. The order of exposure and event is known
# only at export, because an exposure may arrive after the event.
_EVENTS: Final = """
SELECT e.event_id, e.type, e.user_hash, e.at, e.received_at, e.station_id, e.seconds,
       CASE WHEN e.flag <> '' THEN e.flag
            WHEN x.shown_at IS NULL THEN 'orphan'
            WHEN e.at < x.shown_at THEN 'early'
            ELSE '' END
FROM events e
LEFT JOIN (SELECT user_hash, MIN(decided_at) AS shown_at FROM exposures WHERE experiment = ? GROUP BY user_hash) x
       ON x.user_hash = e.user_hash
WHERE x.shown_at IS NOT NULL OR e.user_hash NOT IN (SELECT user_hash FROM exposures)
ORDER BY e.seq
"""

_candidates: Final = msgspec.json.Decoder(dict[str, list[str]])


@dataclass(frozen=True, slots=True)
class Exported:
    """The numbers of written rows; those of events by flag ("" for valid ones)."""

    exposures: int
    events: Mapping[str, int]


def export(
    database: Database, out: Path, experiment: str, *, arms: tuple[str, ...] = ARMS, chunk: int = CHUNK
) -> Exported:
    """Write exposures.parquet and events.parquet into the folder `out`, from one snapshot.

    exposures: experiment, user_key, arm, decided_at, source, model, station_id, propensity, carousel and relevance
    (null but for the exploration slot), listens (that moved the answer, null for none), and for each arm
    candidates_ARM, the list of its candidate stations. events: event_id, type, user_key, at, received_at, station_id,
    seconds (null for a click), flag.
    `user_key` is pseudonymous per experiment and can't be linked to other exports.

    `flag` is empty or the first that holds of "future" and "late" (by the clocks, on receipt), "orphan" (no exposure
    of the user in any experiment) and "early" (before the user's first exposure in this one). Events of users exposed
    only in other experiments are excluded. Raises InputError where the store has rows that firstspin did not write.
    """
    flags: Counter[str] = Counter()
    files = [out / EXPOSURES, out / EVENTS]
    with database.snapshot() as session, written_together(files) as (shown, happened), readable_rows():
        exposures = write_table(shown, exposure_table(arms), _exposures(session, experiment, arms, chunk))
        write_table(happened, EVENT_TABLE, _events(session, experiment, flags, chunk))
    return Exported(exposures, dict(flags))


def _exposures(session: Session, experiment: str, arms: tuple[str, ...], chunk: int) -> Iterator[list[ResultRow]]:
    for rows in session.stream(_EXPOSURES, (experiment,), chunk):
        shown = [_candidates.decode(row[-1]) for row in rows]
        yield [
            (experiment, scoped(user_hash, experiment), *between, *(lists.get(arm, ()) for arm in arms))
            for (user_hash, *between, _), lists in zip(rows, shown, strict=True)
        ]


def _events(session: Session, experiment: str, flags: Counter[str], chunk: int) -> Iterator[list[ResultRow]]:
    for rows in session.stream(_EVENTS, (experiment,), chunk):
        flags.update(flag for *_, flag in rows)
        yield [
            (event_id.hex(), kind, scoped(user_hash, experiment), *rest) for event_id, kind, user_hash, *rest in rows
        ]


def exposure_table(arms: Sequence[str]) -> tuple[tuple[str, pa.DataType], ...]:
    """The columns of the exported exposures, with the candidates of each arm."""
    return (*_EXPOSURE_TABLE, *((f"candidates_{arm}", pa.list_(pa.string())) for arm in arms))


def write_table(path: Path, columns: Sequence[tuple[str, pa.DataType]], chunks: Iterator[list[ResultRow]]) -> int:
    """Write a Parquet file; returns its number of rows."""
    schema = pa.schema(columns)
    n = 0
    with pq.ParquetWriter(path, schema) as writer:
        for rows in chunks:
            arrays = [
                pa.array(values, kind) for values, (_, kind) in zip(zip(*rows, strict=True), columns, strict=True)
            ]
            writer.write_batch(pa.record_batch(arrays, schema))
            n += len(rows)
    return n
