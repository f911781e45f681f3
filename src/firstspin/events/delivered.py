"""The rows that Kinesis Data Firehose wrote to S3, as the two tables of an export, for the analysis.

The rows come from `firstspin events forward` or from the Lambda (`firehose`): a line of JSON each, in files that may be
compressed with gzip, in any order, some of them twice.
"""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Final, TypeVar

import msgspec

from firstspin.events.database import ResultRow
from firstspin.events.export import ARMS, CHUNK, EVENT_TABLE, EVENTS, EXPOSURES, Exported, exposure_table, write_table
from firstspin.events.schema import EXPOSURE_SCHEMA, SCHEMA, Flag, Type
from firstspin.files import written_together
from firstspin.records import InputError

_GZIP: Final = b"\x1f\x8b"
_OF_EXPOSURE: Final = b'"exposure_id":'  # in no event: within a text its quotes would be escaped

Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class DeliveredExposure(msgspec.Struct, frozen=True):
    """An exposure as a sink has it; `user_key` is the user's pseudonym in the sink's scope."""

    exposure_id: str
    experiment: str
    user_key: str
    arm: str
    propensity: float
    decided_at: Moment
    source: str
    model: str
    station_id: str
    candidates: dict[str, list[str]]
    schema: int
    carousel: int | None = None
    relevance: float | None = None
    listens: int | None = None


class DeliveredEvent(msgspec.Struct, frozen=True):
    """A click or a listen as a sink has it."""

    event_id: str
    type: Type
    user_key: str
    station_id: str
    at: Moment
    received_at: Moment
    seconds: float | None
    flag: Flag
    schema: int


Row = TypeVar("Row", DeliveredExposure, DeliveredEvent)


@dataclass(frozen=True, slots=True)
class _Exposed:
    """The first time of each exposure and of each user of an experiment; and the users of other experiments."""

    exposures: dict[str, datetime] = field(default_factory=dict)
    users: dict[str, datetime] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)


def export_delivered(
    folder: Path, out: Path, experiment: str, *, arms: tuple[str, ...] = ARMS, chunk: int = CHUNK
) -> Exported:
    """Write exposures.parquet and events.parquet into `out`, as `export` does, from a folder that Firehose wrote.

    All files below the folder are read, except hidden ones; a row counts once per id. `user_key` is the sink's. Raises
    InputError where a file can't be read, where a line is not such a row, and where no exposure is of the experiment.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    if not files:
        raise InputError(f"{folder} holds no file; expected those that Firehose wrote")
    exposed, flags = _exposed(files, experiment), Counter[str]()
    if not exposed.exposures:
        raise InputError(f"{folder} holds no exposure of {experiment}")
    with written_together([out / EXPOSURES, out / EVENTS]) as (shown, happened):
        rows = _exposures(files, experiment, arms, exposed)
        exposures = write_table(shown, exposure_table(arms), _chunks(rows, chunk))
        write_table(happened, EVENT_TABLE, _chunks(_events(files, exposed, flags), chunk))
    return Exported(exposures, dict(flags))


def _exposed(files: list[Path], experiment: str) -> _Exposed:
    exposed = _Exposed()
    for row in _rows(files, DeliveredExposure):
        if row.experiment != experiment:
            exposed.elsewhere.add(row.user_key)
            continue
        for first, name in ((exposed.exposures, row.exposure_id), (exposed.users, row.user_key)):
            first[name] = min(first.get(name, row.decided_at), row.decided_at)
    return exposed


def _exposures(files: list[Path], experiment: str, arms: tuple[str, ...], exposed: _Exposed) -> Iterator[ResultRow]:
    """Rows of the table: the first of each exposure in time; a repeated request shows the same message."""
    seen: set[bytes] = set()
    for row in _rows(files, DeliveredExposure):
        is_first = row.experiment == experiment and row.decided_at == exposed.exposures[row.exposure_id]
        if is_first and _is_new(row.exposure_id, seen):
            lists = [row.candidates.get(arm, []) for arm in arms]
            answer = (row.decided_at, row.source, row.model, row.station_id, row.propensity)
            yield (experiment, row.user_key, row.arm, *answer, row.carousel, row.relevance, row.listens, *lists)


def _events(files: list[Path], exposed: _Exposed, flags: Counter[str]) -> Iterator[ResultRow]:
    """Rows of the table: those of users of the experiment, and of users of none."""
    seen: set[bytes] = set()
    for row in _rows(files, DeliveredEvent):
        shown_at = exposed.users.get(row.user_key)
        if (shown_at or row.user_key not in exposed.elsewhere) and _is_new(row.event_id, seen):
            flag = row.flag or ("orphan" if shown_at is None else "early" if row.at < shown_at else "")
            flags[flag] += 1
            times = (row.at, row.received_at)
            yield (row.event_id, row.type, row.user_key, *times, row.station_id, row.seconds, flag)


def _chunks(rows: Iterator[ResultRow], size: int) -> Iterator[list[ResultRow]]:
    while chunk := list(islice(rows, size)):
        yield chunk


def _is_new(digest: str, seen: set[bytes]) -> bool:
    number = len(seen)
    seen.add(digest.encode())
    return len(seen) > number


def _rows(files: list[Path], kind: type[Row]) -> Iterator[Row]:
    decode, wanted = msgspec.json.Decoder(kind).decode, kind is DeliveredExposure
    newest = EXPOSURE_SCHEMA if wanted else SCHEMA
    for path in files:
        for number, line in enumerate(_lines(path), 1):
            if line.strip() and (_OF_EXPOSURE in line) is wanted:
                place = f"{path} line {number}"
                try:
                    row = decode(line)
                except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
                    complaint = "is not a row that firstspin sends to Firehose"
                    raise InputError(f"{place} {complaint}: {problem}", bare=f"{place} {complaint}") from None
                if not SCHEMA <= row.schema <= newest:
                    raise InputError(f"{place} has schema {row.schema}; this version of firstspin reads {newest}")
                yield row


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as raw:
            is_compressed = raw.peek(2)[:2] == _GZIP
            with gzip.open(raw) if is_compressed else raw as file:
                yield from file
    except (OSError, EOFError, zlib.error) as problem:  # gzip's own errors are an OSError, or that it ends too early
        reason = getattr(problem, "strerror", None) or problem
        raise InputError(f"{path} can't be read: {reason}") from problem
