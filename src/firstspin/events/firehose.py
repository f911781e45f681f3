"""What the store keeps goes on to Kinesis Data Firehose, from the disk, as often as it takes.

The store is the backlog: a row is marked once the sink has accepted it, so an hour without the sink costs nothing but
time. A crash between accepting and marking sends a row twice; the ids tell. Limits of a call are those of
https://docs.aws.amazon.com/firehose/latest/APIReference/API_PutRecordBatch.html.

Run one forwarder for a store: two would send rows twice and mix up their order.
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
WINDOW: Final = 4_000  # rows looked at for one call
PUTS: Final = 2  # of a record that no store holds; Firehose refuses single records while it scales
SCOPE: Final = "lake"

_TIMES: Final = frozenset({"at", "received_at", "decided_at"})

log = logging.getLogger(__name__)


class Record(TypedDict):
    Data: bytes


class Response(TypedDict):
    RecordId: NotRequired[str]
    ErrorCode: NotRequired[str]
    ErrorMessage: NotRequired[str]


class FirehoseReply(TypedDict):
    RequestResponses: Sequence[Response]


class Firehose(Protocol):
    """What we ask of `boto3.client("firehose")`. Give it time limits and few retries: waiting is done here."""

    def put_record_batch(self, *, DeliveryStreamName: str, Records: list[Record]) -> FirehoseReply: ...


@dataclass(frozen=True, slots=True)
class FirehoseSink:
    """Where rows go: a delivery stream for each table, and the scope under which users are known there."""

    client: Firehose
    streams: Mapping[str, str]  # "exposures" or "events" -> delivery stream
    scope: str


@dataclass(frozen=True, slots=True)
class ForwardTally:
    """What one or more calls came to, in rows."""

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
    longest: float = 60.0,
) -> ForwardTally:
    """Send what waits and what comes, until `pause(seconds)` answers True (give it a `threading.Event`'s `wait`).

    After a failure, whole or partial, it waits a random part of a time that doubles from 0.2 s up to `longest`.
    """
    total, failures = ForwardTally(), 0
    while True:
        try:
            round_ = sum((send(database, sink, table) for table in sink.streams), ForwardTally())
        except Unavailable as error:
            log.warning("the outbox can't read the event store: %s", error)
            round_ = ForwardTally(failed=1)
        total += round_
        failures = failures + 1 if round_.failed else 0
        wait = rng.uniform(0, min(longest, 0.1 * 2.0**failures)) if failures else 0.0 if round_.sent else idle
        if pause(wait):
            return total


def send(database: Database, sink: FirehoseSink, table: str) -> ForwardTally:
    """One call with the oldest rows that no sink has taken, if there are any; what it accepts is marked."""
    with database.snapshot() as session:
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
    """Send exposures that no store holds, as the rows that `forward` sends; refused records are sent once more."""
    waiting: list[ResultRow] = [(seq, *statements.exposure_row(one)) for seq, one in enumerate(exposures)]
    total = ForwardTally()
    while waiting and (parcels := pack("exposures", waiting, sink.scope)):
        packed = {seq for parcel in parcels for seq in parcel.seqs}
        waiting = [row for row in waiting if row[0] not in packed]
        total += _put(sink, parcels)
    return total + ForwardTally(failed=len(waiting))


def _put(sink: FirehoseSink, parcels: Sequence[Parcel]) -> ForwardTally:
    rows, sent = sum(len(parcel.seqs) for parcel in parcels), 0
    for _ in range(PUTS):
        accepted = _accepted(sink.client, sink.streams["exposures"], parcels)
        sent += sum(len(parcel.seqs) for parcel in accepted)
        parcels = [parcel for parcel in parcels if parcel not in accepted]
        if not accepted or not parcels:
            break
    return ForwardTally(sent, rows - sent)


@dataclass(frozen=True, slots=True)
class Parcel:
    """One record of a call: rows of one user in order, a line of JSON each.

    A record is accepted or refused whole, so a refusal in the middle can't put a user's rows out of order.
    """

    seqs: list[int]
    data: bytearray


def pack(table: str, rows: Sequence[ResultRow], scope: str) -> list[Parcel]:
    """The parcels of one call, within its limits; rows beyond them wait for the next call."""
    columns = statements.COLUMNS[table]
    user = columns.index("user_hash")
    parcels: dict[bytes, Parcel] = {}
    full: set[bytes] = set()
    size = 0
    for seq, *values in rows:
        who = values[user]
        if who in full or (who not in parcels and len(parcels) == MAX_RECORDS):
            continue
        line = _line(dict(zip(columns, values, strict=True)), scope)
        parcel = parcels.setdefault(who, Parcel([], bytearray()))
        if size + len(line) > CALL_BYTES or len(parcel.data) + len(line) > RECORD_BYTES:
            full.add(who)  # nothing later of this user may overtake the row
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
    except Exception as error:  # whatever is wrong with a sink, the answer is to come again later
        log.warning("%s took nothing: %s", stream, error)
        return []
    refusals = Counter(response["ErrorCode"] for _, response in answered if "ErrorCode" in response)
    if refusals:
        log.warning("%s refused some of %d records: %s", stream, len(parcels), dict(refusals))
    return [parcel for parcel, response in answered if "ErrorCode" not in response]


def _line(row: dict[str, Any], scope: str) -> bytes:
    """A row as the sink knows it: digests in hexadecimal, times in ISO 8601, the user under the sink's own scope."""
    for name, value in row.items():
        if name in _TIMES:
            row[name] = EPOCH + timedelta(microseconds=value)
        elif name == "candidates":
            row[name] = msgspec.Raw(value.encode())
        elif isinstance(value, bytes):
            row[name] = value.hex() if name != "user_hash" else scoped(value, scope)
    row["user_key"] = row.pop("user_hash")
    return msgspec.json.encode(row) + b"\n"
