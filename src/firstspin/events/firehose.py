"""Forwarding of the event store's rows to Kinesis Data Firehose, with at-least-once delivery.

The store is the queue: a row is marked once the sink has accepted it, so an outage of the sink loses nothing. A crash
between acceptance and marking sends a row twice; consumers deduplicate by id. Limits of a call are those of
https://docs.aws.amazon.com/firehose/latest/APIReference/API_PutRecordBatch.html.

Run one forwarder per store: two would send rows twice and out of order.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, NotRequired, Protocol, TypedDict

import msgspec
import numpy as np

from firstspin.events import statements
from firstspin.events.database import Database, ResultRow, readable_rows
from firstspin.events.schema import EPOCH, Exposure, Unavailable, scoped

MAX_RECORDS: Final = 500
CALL_BYTES: Final = 4_000_000
RECORD_BYTES: Final = 1_000_000
WINDOW: Final = 4_000  # rows considered for one call
PUTS: Final = 2  # attempts per record outside a store; Firehose refuses single records while it scales
SCOPE: Final = "lake"
MAX_WAIT: Final = 60.0

_TIMES: Final = frozenset({"at", "received_at", "decided_at"})

log = logging.getLogger(__name__)


class Record(TypedDict):
    """A record of PutRecordBatch."""

    Data: bytes


class Response(TypedDict):
    """The response to one record: an id, or an error."""

    RecordId: NotRequired[str]
    ErrorCode: NotRequired[str]
    ErrorMessage: NotRequired[str]


class FirehoseReply(TypedDict):
    """The response of PutRecordBatch, with one entry per record."""

    RequestResponses: Sequence[Response]


class Firehose(Protocol):
    """The used part of `boto3.client("firehose")`. Configure timeouts and few retries: retries are done here."""

    def put_record_batch(self, *, DeliveryStreamName: str, Records: list[Record]) -> FirehoseReply:
        """PutRecordBatch: at most 500 records and 4 MB."""


@dataclass(frozen=True, slots=True)
class FirehoseSink:
    """A sink: a delivery stream per table, and the scope of its users' pseudonyms (`schema.scoped`)."""

    client: Firehose
    streams: Mapping[str, str]  # "exposures" or "events" -> delivery stream
    scope: str


@dataclass(frozen=True, slots=True)
class ForwardTally:
    """The numbers of sent and failed rows of one or more calls."""

    sent: int = 0
    failed: int = 0

    def __add__(self, other: ForwardTally) -> ForwardTally:
        return ForwardTally(self.sent + other.sent, self.failed + other.failed)


def forward(
    database: Database,
    sink: FirehoseSink,
    *,
    rng: np.random.Generator,
    pause: Callable[[float], bool],
    idle: float = 1.0,
) -> ForwardTally:
    """Send unsent and new rows until `pause(seconds)` returns True (pass the `wait` of a `threading.Event`).

    After a complete or partial failure it backs off exponentially with full jitter, from 0.2 s up to MAX_WAIT
    seconds; without rows it waits `idle` seconds. Raises InputError where the store has rows of another program.
    """
    total, failures = ForwardTally(), 0
    while True:
        try:
            round_ = sum((send(database, sink, table) for table in sink.streams), ForwardTally())
        except Unavailable as error:
            log.warning("the forwarder can't read the event store: %s", error)
            round_ = ForwardTally(failed=1)
        total += round_
        failures = failures + 1 if round_.failed else 0
        wait = rng.uniform(0, min(MAX_WAIT, 0.1 * 2.0**failures)) if failures else 0.0 if round_.sent else idle
        if pause(wait):
            return total


def send(database: Database, sink: FirehoseSink, table: str) -> ForwardTally:
    """One call with the oldest unsent rows, if there are any; accepted rows are marked as sent.

    Raises Unavailable where the database can't serve, InputError where it has rows of another program.
    """
    if table == statements.EXPOSURES:
        database.settle()
    with database.reading() as session:
        rows = session.run(statements.unsent(table), (WINDOW,))
    if not rows:
        return ForwardTally()
    with readable_rows():
        parcels = pack(table, rows, sink.scope)
    offered = sum(len(parcel.seqs) for parcel in parcels)
    accepted = [(seq,) for parcel in _accepted(sink.client, sink.streams[table], parcels) for seq in parcel.seqs]
    if accepted:
        database.transact(lambda session: session.each(statements.MARK_SENT.format(table=table), accepted))
    return ForwardTally(len(accepted), offered - len(accepted))


def put_exposures(sink: FirehoseSink, exposures: Sequence[Exposure]) -> ForwardTally:
    """Send exposures without a store, as the rows that `forward` sends; refused records are retried once."""
    waiting: list[ResultRow] = [(seq, *statements.row(one)) for seq, one in enumerate(exposures)]
    total = ForwardTally()
    while waiting and (parcels := pack("exposures", waiting, sink.scope)):
        packed = {seq for parcel in parcels for seq in parcel.seqs}
        waiting = [row for row in waiting if row[0] not in packed]
        total += _put(sink, parcels)
    return total + ForwardTally(failed=len(waiting))


def _put(sink: FirehoseSink, parcels: Sequence[Parcel]) -> ForwardTally:
    sent: set[int] = set()
    waiting = parcels
    for _ in range(PUTS):
        accepted = _accepted(sink.client, sink.streams["exposures"], waiting)
        sent.update(seq for parcel in accepted for seq in parcel.seqs)
        waiting = [parcel for parcel in waiting if parcel.seqs[0] not in sent]
        if not accepted or not waiting:
            break
    return ForwardTally(len(sent), sum(len(parcel.seqs) for parcel in waiting))


@dataclass(frozen=True, slots=True)
class Parcel:
    """One record of a call: rows of one user in order, as JSON Lines.

    A record is accepted or refused whole, so a partial failure can't reorder a user's rows.
    """

    seqs: list[int]
    data: bytearray


def pack(table: str, rows: Sequence[ResultRow], scope: str) -> list[Parcel]:
    """The records of one call, within its limits; other rows wait for the next call."""
    columns = statements.COLUMNS[table]
    user = columns.index("user_hash")
    parcels: dict[bytes, Parcel] = {}
    full: set[bytes] = set()
    size = 0
    for seq, *values in rows:
        user_hash = values[user]
        if user_hash in full or (user_hash not in parcels and len(parcels) == MAX_RECORDS):
            continue
        line = _line(dict(zip(columns, values, strict=True)), scope)
        parcel = parcels.setdefault(user_hash, Parcel([], bytearray()))
        if size + len(line) > CALL_BYTES or len(parcel.data) + len(line) > RECORD_BYTES:
            full.add(user_hash)  # no later row of this user may overtake this one
            continue
        parcel.seqs.append(seq)
        parcel.data.extend(line)
        size += len(line)
    return [parcel for parcel in parcels.values() if parcel.seqs]


def _accepted(client: Firehose, stream: str, parcels: Sequence[Parcel]) -> list[Parcel]:
    records: list[Record] = [{"Data": bytes(parcel.data)} for parcel in parcels]
    try:
        responses = client.put_record_batch(DeliveryStreamName=stream, Records=records)["RequestResponses"]
        answered = list(zip(parcels, responses, strict=True))
    except Exception as error:  # every failure of a sink is retried later
        log.warning("%s accepted nothing: %s", stream, error)
        return []
    refusals = Counter(response["ErrorCode"] for _, response in answered if "ErrorCode" in response)
    if refusals:
        log.warning("%s refused some of %d records: %s", stream, len(parcels), dict(refusals))
    return [parcel for parcel, response in answered if "ErrorCode" not in response]


def _line(row: dict[str, Any], scope: str) -> bytes:
    """A row as a JSON line: digests in hexadecimal, times in ISO 8601, the user's pseudonym in the sink's scope."""
    for name, value in row.items():
        if name in _TIMES:
            row[name] = EPOCH + timedelta(microseconds=value)
        elif name == "candidates":
            row[name] = msgspec.Raw(value.encode())
        elif isinstance(value, bytes):
            row[name] = value.hex() if name != "user_hash" else scoped(value, scope)
    row["user_key"] = row.pop("user_hash")
    return msgspec.json.encode(row) + b"\n"
