"""The stored events: exposures, clicks and listens, pseudonymised.

A user id is hashed here and goes no further. The store has `user_hash`, a keyed hash under the store's secret, so that
a click, which has no experiment, can be joined with an earlier exposure. Data that leaves the store (an export, a
stream, the list of erased users) has `scoped(user_hash, scope)` instead, a one-way hash per export: two exports can't
be linked, and an export can't be traced back to the store. Event ids are hashed too, because clients build them from
user ids. No field can hold age, gender or country.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from firstspin.data.parsing import EARLIEST, Misspelt, moment
from firstspin.records import MAX_TEXT, InputError

SCHEMA: Final = 1
EXPOSURE_SCHEMA: Final = 2
"""Rows of schema 1 lack `carousel`, `relevance` and `listens`."""

MAX_EVENTS: Final = 1_000
_MAX_COMMAS: Final = MAX_EVENTS * (3 * MAX_TEXT + 6)  # of the largest batch, were its texts nothing else
MAX_CANDIDATES: Final = 100
MAX_LISTEN_SECONDS: Final = 7 * 24 * 3600.0
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
KEY_BYTES: Final = 32

Type = Literal["click", "listen"]
Flag = Literal["", "late", "future"]
Status = Literal["stored", "duplicate", "erased"]

_DIGEST_BYTES: Final = 16
_encode: Final = msgspec.json.Encoder().encode
_MICROSECOND: Final = timedelta(microseconds=1)


class Unavailable(Exception):
    """The event store is temporarily unavailable; the message is the reason. Nothing submitted was acknowledged."""


class Exposure(msgspec.Struct, frozen=True, kw_only=True, gc=False, array_like=True):
    """The exposure of a user to a message of an experiment, or to the station of the exploration slot.

    Every field is a column of the table `exposures`. `carousel` and `relevance` belong to the slot: None for a message.
    No field is a container, so that those that wait to be stored cost the garbage collector nothing. A new field goes
    to the end, with a default: batches (`batches`) of an earlier version lack it.
    """

    exposure_id: bytes
    experiment: str
    user_hash: bytes
    arm: str
    propensity: float  # probability of the arm, or of the slot's station, in (0, 1]
    decided_at: int  # microseconds since 1970, UTC
    source: str  # of the ranking: "model", or a named fallback
    model: str  # the bundle's version
    station_id: str  # the station of the message, or of the slot
    candidates: str  # JSON: arm -> its candidate stations, best first
    carousel: int | None = None  # the position of the slot among the carousels, from 1
    relevance: float | None = None  # of the station to the user, in (0, 1]
    listens: int | None = None  # that moved the answer, where they are looked up; None where none did
    schema: int = EXPOSURE_SCHEMA


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A click or a listen of a user. Every field is a column of the table `events`."""

    event_id: bytes
    type: Type
    user_hash: bytes
    station_id: str
    at: int  # client's clock, microseconds since 1970, UTC
    received_at: int  # server's clock, likewise
    seconds: float | None
    flag: Flag
    schema: int = SCHEMA


class EventResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The response to one item of a batch, on the wire."""

    event_id: str | None
    status: Literal["stored", "duplicate", "invalid"]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """A request's valid events, and for every item in order its event id (valid) or its refusal."""

    events: tuple[Event, ...]
    items: tuple[str | EventResult, ...]


LATE: Final = timedelta(days=7)
FUTURE: Final = timedelta(minutes=5)
"""The max distance between an event's time and its receipt without a flag, the latter for fast client clocks.

Flagged events are stored too.
"""


class Secret:
    """The key of an event store's hashes; without it, new events can't be joined with stored exposures.

    Raises InputError where the key is not 32 bytes.
    """

    __slots__ = ("_events", "_users", "fingerprint")

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise InputError(f"invalid key of an event store: {len(key)} bytes; expected {KEY_BYTES}")
        self._users = hashlib.blake2b(key=key, digest_size=_DIGEST_BYTES, person=b"firstspin user")
        self._events = hashlib.blake2b(key=key, digest_size=_DIGEST_BYTES, person=b"firstspin event")
        self.fingerprint = hmac.new(key, b"fingerprint", "sha256").hexdigest()[:16]

    def user_hash(self, user_id: str) -> bytes:
        """The stored pseudonym of a user: a keyed hash (BLAKE2b) of 16 bytes."""
        return _digest(self._users, user_id)

    def event_id(self, event_id: str) -> bytes:
        """The stored form of a client's event id: a keyed hash (BLAKE2b) of 16 bytes."""
        return _digest(self._events, event_id)


def read_secret(path: Path, fresh: bytes | None = None) -> Secret:
    """The secret in this file; a missing file is created with `fresh`, 32 random bytes from the caller.

    Processes that start at the same time agree on one key. Raises InputError where the file can't be read or does not
    hold a key, and where it is missing and `fresh` is not given.
    """
    try:
        if fresh is not None and not path.exists():
            _write_secret(path, fresh)
        return Secret(bytes.fromhex(path.read_text()))
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise InputError(f"{path}: the folder {path.parent} does not exist") from None
        raise InputError(f"{path}: the file with the key of the event store does not exist") from None
    except OSError as problem:
        raise InputError(f"{path}: {problem.strerror}") from problem
    except ValueError:
        raise InputError(
            f"{path}: invalid key of an event store; expected {2 * KEY_BYTES} hexadecimal digits"
        ) from None


def _write_secret(path: Path, fresh: bytes) -> None:
    Secret(fresh)  # validate before writing
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.touch(0o600)
    try:
        with beside.open("w") as file:
            file.write(fresh.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(beside, path)  # unlike a rename, a link fails where another process was first
    finally:
        beside.unlink()


def scoped(user_hash: bytes, scope: str) -> str:
    """The user's pseudonym within one export or stream: 32 hexadecimal digits, irreversible without the store."""
    return hashlib.blake2b(scope.encode(), key=user_hash, digest_size=_DIGEST_BYTES).hexdigest()


def tombstone(user_hash: bytes) -> bytes:
    """The tombstone of an erased user: it recognises the id when it comes again, but not the user's rows."""
    return hashlib.blake2b(b"erased", key=user_hash, digest_size=_DIGEST_BYTES, person=b"firstspin tomb").digest()


def microseconds(at: datetime) -> int:
    """Microseconds since 1970 of an aware datetime."""
    return (at - EPOCH) // _MICROSECOND


def candidates_json(candidates: Mapping[str, Sequence[str]]) -> str:
    """The first 100 candidate stations of each arm, as an exposure has them."""
    if max(map(len, candidates.values()), default=0) > MAX_CANDIDATES:
        candidates = {arm: stations[:MAX_CANDIDATES] for arm, stations in candidates.items()}
    return _encode(candidates).decode()


def exposure(
    secret: Secret,
    *,
    experiment: str,
    user_id: str,
    arm: str,
    propensity: float,
    decided_at: int,
    source: str,
    model: str,
    station_id: str,
    candidates: Mapping[str, Sequence[str]],
    carousel: int | None = None,
    relevance: float | None = None,
    listens: int | None = None,
) -> Exposure:
    """The exposure of this user to this station, with the first 100 candidates of each arm; the time as `microseconds`.

    Its id is a hash of (experiment, user, station), so that a repeated request is one exposure. The position of the
    slot is a part of it: else the first exposure of a user at another position would be a row only where it has another
    station than before, and its propensity would be wrong.
    """
    user_hash = secret.user_hash(user_id)
    at = "" if carousel is None else f"{carousel}\0"
    shown = f"{experiment}\0{at}{station_id}".encode()
    return Exposure(
        exposure_id=hashlib.blake2b(shown, key=user_hash, digest_size=_DIGEST_BYTES).digest(),
        experiment=experiment,
        user_hash=user_hash,
        arm=arm,
        propensity=propensity,
        decided_at=decided_at,
        source=source,
        model=model,
        station_id=station_id,
        candidates=candidates_json(candidates),
        carousel=carousel,
        relevance=relevance,
        listens=listens,
    )


_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT)]


class SentEvent(msgspec.Struct, forbid_unknown_fields=True):
    """An event on the wire: a click, or a listen with its seconds."""

    event_id: _Id
    type: Type
    user_id: _Id
    station_id: _Id
    at: Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
    seconds: Annotated[float, msgspec.Meta(gt=0, le=MAX_LISTEN_SECONDS)] | None = None


class _Named(msgspec.Struct):
    event_id: str


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    events: list[msgspec.Raw]


_RULES: Final = {
    "event_id": f"event_id is text of 1 to {MAX_TEXT} printable characters",
    "user_id": f"user_id is text of 1 to {MAX_TEXT} printable characters",
    "station_id": f"station_id is text of 1 to {MAX_TEXT} printable characters",
    "type": "type is click or listen",
    "at": f"at is a time since {EARLIEST.year} with a time zone, like 2026-01-31T12:00:00Z",
    "seconds": f"seconds is a number above 0 and up to {MAX_LISTEN_SECONDS:.0f} for a listen, and absent for a click",
}
_NO_OTHERS: Final = f"an event has the fields {', '.join(_RULES)} and no others"
_ERASED: Final = "this user was erased: the event is not stored"
# msgspec's messages may repeat the value sent, so only the field's name is taken from them.
_FIELD: Final = re.compile(r"(?:at `\$\.|required field `)(\w+)`$")

_bodies: Final = msgspec.json.Decoder(_Body)
_wires: Final = msgspec.json.Decoder(SentEvent)
_names: Final = msgspec.json.Decoder(_Named)


def read_batch(body: bytes, secret: Secret, *, received_at: datetime) -> Batch:
    """Validate a request's events one by one: an invalid one is refused with the violated rule, the others are stored.

    No refusal repeats a value, except valid event ids. Raises InputError where the body is not JSON of the expected
    form or has more than 1,000 events.
    """
    if body.count(b",") > _MAX_COMMAS:  # before the decoder allocates that many items
        raise _too_many()
    try:
        raw = _bodies.decode(body).events
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise InputError('invalid body; expected JSON: {"events": [...]}') from None
    if len(raw) > MAX_EVENTS:
        raise _too_many()
    checked = [_check(item) for item in raw]
    received = microseconds(received_at)
    late, future = LATE // _MICROSECOND, FUTURE // _MICROSECOND
    return Batch(
        tuple(_event(*sent, secret, received, late, future) for sent in checked if isinstance(sent, tuple)),
        tuple(sent[0].event_id if isinstance(sent, tuple) else sent for sent in checked),
    )


def _too_many() -> InputError:
    return InputError(f"a batch has at most {MAX_EVENTS} events")


def results(batch: Batch, statuses: Sequence[Status]) -> tuple[EventResult, ...]:
    """The result of each item of the batch, in order, from the store's `statuses` of its valid events."""
    remaining: Iterator[Status] = iter(statuses)
    return tuple(item if isinstance(item, EventResult) else _result(item, next(remaining)) for item in batch.items)


def _result(event_id: str, status: Status) -> EventResult:
    if status == "erased":
        return EventResult(event_id=event_id, status="invalid", error=_ERASED)
    return EventResult(event_id=event_id, status=status)


def _check(item: msgspec.Raw) -> tuple[SentEvent, int] | EventResult:
    """The event and its time in microseconds since 1970, or its refusal."""
    try:
        wire = _wires.decode(item)
    except msgspec.ValidationError as error:
        field = _FIELD.search(str(error))
        return _refusal(item, _RULES.get(field[1], _NO_OTHERS) if field else _NO_OTHERS)
    except UnicodeDecodeError:
        return _refusal(item, "text is UTF-8")
    for name in ("event_id", "user_id", "station_id"):
        if not getattr(wire, name).isprintable():
            return _refusal(item, _RULES[name])
    try:
        at = microseconds(moment(wire.at))
    except Misspelt:
        return _refusal(item, _RULES["at"])
    if (wire.type == "listen") != (wire.seconds is not None):
        return _refusal(item, _RULES["seconds"])
    return wire, at


def _refusal(item: msgspec.Raw, rule: str) -> EventResult:
    try:
        event_id = _names.decode(item).event_id
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return EventResult(event_id=None, status="invalid", error=rule)
    valid_id = 0 < len(event_id) <= MAX_TEXT and event_id.isprintable()
    return EventResult(event_id=event_id if valid_id else None, status="invalid", error=rule)


def _event(wire: SentEvent, at: int, secret: Secret, received: int, late: int, future: int) -> Event:
    return Event(
        event_id=secret.event_id(wire.event_id),
        type=wire.type,
        user_hash=secret.user_hash(wire.user_id),
        station_id=wire.station_id,
        at=at,
        received_at=received,
        seconds=wire.seconds,
        flag="future" if at > received + future else "late" if at < received - late else "",
    )


def _digest(keyed: hashlib.blake2b, text: str) -> bytes:
    hasher = keyed.copy()
    hasher.update(text.encode())
    return hasher.digest()
