"""The event store as the service uses it: many small submissions, few commits, an answer only after the commit.

A commit that reaches the disk costs about a millisecond whatever it holds, so one thread commits for everybody:
while one group is on its way to the disk, the next one gathers.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firstspin.events import sqlite, statements
from firstspin.events.database import Database, Session, Written, write
from firstspin.events.schema import Event, Exposure, Secret, Status, Unavailable
from firstspin.events.sqlite import SqliteDatabase
from firstspin.records import InputError

log = logging.getLogger(__name__)

BEAT_SECONDS: Final = 0.5
SQLITE: Final = "sqlite:///"
POSTGRES: Final = ("postgresql://", "postgres://")

Statuses = tuple[Status, ...]
Submission = tuple[tuple[Event, ...], Future[Statuses]]


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How the store gathers, waits and refuses."""

    rows: int = 200  # so many waiting rows are written at once
    linger: float = 0.002  # fewer are left to gather until this many seconds after the commit before
    group: int = 1_000  # no commit takes more rows, but for the rest of a request's events
    waiting_events: int = 10_000  # more are refused: their sender still has them and comes again
    waiting_exposures: int = 50_000  # more are dropped and counted: a newcomer's answer never waits
    retry: float = 0.25  # seconds from a failed attempt to the next one; doubled from one to the other, ...
    longest_retry: float = 5.0  # ... up to this


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the store can keep anything now, and what it has done since it was opened."""

    ready: bool
    reason: str  # why not; empty when ready
    waiting_events: int
    waiting_exposures: int
    events: Mapping[Status, int]
    exposures: Mapping[Status, int]
    dropped_exposures: int
    commits: int
    failures: int


@dataclass(frozen=True, slots=True)
class _Group:
    """What one commit takes to the disk."""

    exposures: list[Exposure]
    submissions: list[Submission]

    @property
    def events(self) -> list[Event]:
        return [event for events, _ in self.submissions for event in events]


class EventStore:
    """Keeps events and exposures; safe to call from any thread, and from an event loop: no call waits for the disk.

    Make it in the process that uses it, after any fork. Its own thread opens the database, and opens it again as long
    as that fails, whatever the reason: `health` says which, and events are refused meanwhile.
    """

    def __init__(self, database: Database, limits: QueueLimits = QueueLimits(), *, reason: str = "") -> None:
        self._database = database
        self._limits = limits
        self._wake = threading.Condition()
        self._submissions: deque[Submission] = deque()
        self._exposures: deque[Exposure] = deque()
        self._waiting_events = 0
        self._is_open = False
        self._writing = False
        self._closing = False
        self._reason = ""
        self._kept: dict[str, Counter[Status]] = {"events": Counter(), "exposures": Counter()}
        self._dropped = 0
        self._commits = 0
        self._failures = 0
        self._failures_in_a_row = 0
        self._set_reason(reason)
        self._writer = threading.Thread(target=self._write_on, name="event-store", daemon=True)
        self._writer.start()

    def submit(self, events: Sequence[Event]) -> Future[Statuses]:
        """The status of each event, in order, once all are on the disk.

        Raises `Unavailable`, here or from the future, when they could not be kept: then none was acknowledged, and
        the sender may send them again, because what is there already is a duplicate. For asyncio: wrap_future.
        """
        future: Future[Statuses] = Future()
        with self._wake:
            if self._closing:
                raise Unavailable("the event store is closing")
            if self._reason:
                raise Unavailable(self._reason)
            if self._waiting_events + len(events) > self._limits.waiting_events:
                raise Unavailable("more events are waiting than the store can take")
            self._submissions.append((tuple(events), future))
            self._waiting_events += len(events)
            self._wake_writer(len(events))
        return future

    def submit_exposure(self, exposure: Exposure) -> bool:
        """Keep the exposure as soon as that is possible; False where it had to be dropped (and counted)."""
        with self._wake:
            if self._closing or len(self._exposures) >= self._limits.waiting_exposures:
                self._dropped += 1
                return False
            self._exposures.append(exposure)
            self._wake_writer(1)
        return True

    def overdue(self) -> None:
        """A submission has waited too long: until the write under way has ended, further ones are refused at once."""
        with self._wake:
            if self._writing:
                self._set_reason("a write takes too long")

    def health(self) -> Health:
        with self._wake:
            return Health(
                ready=self._is_open and not self._reason and not self._closing,
                reason=self._reason or ("the event store is closing" if self._closing else ""),
                waiting_events=self._waiting_events,
                waiting_exposures=len(self._exposures),
                events=dict(self._kept["events"]),
                exposures=dict(self._kept["exposures"]),
                dropped_exposures=self._dropped,
                commits=self._commits,
                failures=self._failures,
            )

    def close(self, timeout: float = 20.0, beat: Callable[[], None] = lambda: None) -> Health:
        """Take no more, bring what waits to the disk, and say how it ended; call `beat` twice a second meanwhile.

        A write that has not ended after `timeout` seconds is abandoned with its thread; what waited is dropped.
        """
        with self._wake:
            self._closing = True
            self._wake.notify()
        for _ in range(round(timeout / BEAT_SECONDS)):
            beat()
            self._writer.join(BEAT_SECONDS)
        if self._writer.is_alive():
            self._give_up("the event store was closed in the middle of a write")
        return self.health()

    def _write_on(self) -> None:
        while (group := self._next_group()) is not None:
            try:
                written = self._written(group)
            except (Unavailable, InputError) as error:
                self._put_off(group, str(error))
            except Exception:
                # Our own mistake, which trying again would not mend: the writer must outlive it.
                log.exception("a group of events could not be written")
                with self._wake:
                    self._dropped += len(group.exposures)
                self._put_off(_Group([], group.submissions), "the event store failed")
            else:
                self._acknowledge(group, written)
        self._database.close()

    def _written(self, group: _Group) -> Written:
        if not self._is_open:
            self._database.open()
            self._is_open = True
        return self._database.transact(lambda session: _write(session, group))

    def _wake_writer(self, rows: int) -> None:
        """Only when there is something new to decide: the first row to wait, or the one that makes a group."""
        waiting = self._waiting_rows()
        if waiting == rows or waiting - rows < self._limits.rows <= waiting:
            self._wake.notify()

    def _waiting_rows(self) -> int:
        return self._waiting_events + len(self._exposures)

    def _next_group(self) -> _Group | None:
        """What is to be written next, as soon as it should be; None when closing and nothing is left.

        A group of nothing is for a database that isn't open or has failed: only a write can tell that it works.
        """
        with self._wake:
            if self._commits:
                self._wake.wait_for(self._is_due, self._limits.linger)
            self._wake.wait_for(self._has_work)
            if self._closing and not (self._submissions or self._exposures):
                return None
            self._writing = True
            group = _Group([], [])
            rows = 0
            while self._submissions and rows < self._limits.group:
                events, future = self._submissions.popleft()
                self._waiting_events -= len(events)
                if future.set_running_or_notify_cancel():
                    group.submissions.append((events, future))
                    rows += len(events)
            while self._exposures and rows < self._limits.group:
                group.exposures.append(self._exposures.popleft())
                rows += 1
            return group

    def _has_work(self) -> bool:
        return bool(self._submissions or self._exposures or self._reason or self._closing or not self._is_open)

    def _is_due(self) -> bool:
        return self._closing or self._waiting_rows() >= self._limits.rows

    def _acknowledge(self, group: _Group, written: Written) -> None:
        with self._wake:
            self._kept["events"].update(written.events)
            self._kept["exposures"].update(written.exposures)
            self._commits += bool(group.exposures or group.submissions)
            self._writing = False
            self._failures_in_a_row = 0
            self._set_reason("")
        start = 0
        for events, future in group.submissions:
            future.set_result(written.events[start : start + len(events)])
            start += len(events)

    def _put_off(self, group: _Group, reason: str) -> None:
        """The senders are told to come again; the exposures, which nobody else has, wait for the next attempt."""
        with self._wake:
            self._writing = False
            self._set_reason(reason)
            self._failures += 1
            self._failures_in_a_row += 1
            self._exposures.extendleft(reversed(group.exposures))
            waiting = self._withdrawn()
        _fail([*group.submissions, *waiting], reason)
        with self._wake:
            wait = min(self._limits.longest_retry, self._limits.retry * 2.0 ** min(self._failures_in_a_row - 1, 20))
            closing = self._wake.wait_for(lambda: self._closing, wait)
        if closing:
            self._give_up(reason)

    def _give_up(self, reason: str) -> None:
        """Closing, and the database still can't keep anything: nothing more is promised or waited for."""
        with self._wake:
            waiting = self._withdrawn()
            self._dropped += len(self._exposures)
            self._exposures.clear()
        _fail(waiting, reason)

    def _withdrawn(self) -> list[Submission]:
        """The submissions that wait, but for those whose senders have left; none waits any more."""
        waiting = [(events, future) for events, future in self._submissions if future.set_running_or_notify_cancel()]
        self._submissions.clear()
        self._waiting_events = 0
        return waiting

    def _set_reason(self, reason: str) -> None:
        if reason and not self._reason:
            log.error("events can't be kept: %s", reason)
        if self._reason and not reason:
            log.warning("events are kept again")
        self._reason = reason


def open_database(url: str, secret: Secret, *, create: bool = True, patience: float | None = None) -> Database:
    """The database at `sqlite:///events.sqlite` (a fourth slash starts an absolute path) or `postgresql://...`.

    Nothing is opened yet. Without `create` the store must be there already. `patience` is how many seconds a write
    waits for other processes; with it, a server that does not answer is given up.

    Raises InputError for any other address, and where PostgreSQL's driver isn't installed.
    """
    if not url.startswith(POSTGRES):
        path = sqlite_path(url)
        return SqliteDatabase(path, secret.fingerprint, create=create, patience=patience or sqlite.PATIENCE)
    try:
        postgres = importlib.import_module("firstspin.events.postgres")
    except ImportError as error:
        raise InputError("an event store in PostgreSQL needs firstspin[postgres] installed") from error
    database: Database = postgres.PostgresDatabase(url, secret.fingerprint, create=create, patience=patience)
    return database


def sqlite_path(url: str) -> Path:
    """The path in `sqlite:///PATH`, relative to the working folder unless it begins with a fourth slash.

    Raises InputError for any other spelling, and says which one is meant.

    >>> str(sqlite_path("sqlite:///events.sqlite")), str(sqlite_path("sqlite:////var/lib/events.sqlite"))
    ('events.sqlite', '/var/lib/events.sqlite')
    """
    scheme, colon, rest = url.partition(":")
    if scheme.lower() != "sqlite" or not colon:
        given = f", not {scheme}:…" if colon else ""  # no more of it: an address may hold a password
        raise InputError(f"an event store is at {SQLITE}PATH or {POSTGRES[0]}HOST/NAME{given}")
    path = url.removeprefix(SQLITE)
    if path in ("", "/", ":memory:") or "\0" in path or "?" in path:
        raise InputError(f"{url!r} names no file: an event store in a file is at {SQLITE}PATH, without parameters")
    if not url.startswith(SQLITE):
        name = rest.lstrip("/")
        meant = f"{SQLITE}/{name} (an absolute path, four slashes)"
        if not rest.startswith("/") or rest.startswith("//"):
            meant = f"{SQLITE}{name} (under the working folder) or {meant}"
        raise InputError(f"{url} is not the address of an event store: write {meant}")
    return Path(path)


def open_store(url: str, secret: Secret, limits: QueueLimits = QueueLimits()) -> EventStore:
    """The event store at this address, opened. Raises InputError where it isn't ours to write.

    One that is only out of reach is tried again and again.
    """
    database = open_database(url, secret)
    try:
        database.open()
    except Unavailable as error:
        return EventStore(database, limits, reason=str(error))
    return EventStore(database, limits)


def _write(session: Session, group: _Group) -> Written:
    if not (group.exposures or group.submissions):
        session.run(statements.PROBE)
    return write(session, group.exposures, group.events)


def _fail(submissions: Sequence[Submission], reason: str) -> None:
    for _, future in submissions:
        future.set_exception(Unavailable(reason))
