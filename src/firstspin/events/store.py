"""The event store of the service: group commit of many small submissions, acknowledged after the commit.

A durable commit takes about a millisecond, whatever its size, so one writer thread commits in groups: while one group
is written, the next one collects.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import uuid4

from firstspin.events import statements
from firstspin.events.answer_counts import DayCounts, write_counts
from firstspin.events.database import Database, Session, Written, write
from firstspin.events.databases import sqlite
from firstspin.events.databases.postgres import PostgresDatabase
from firstspin.events.databases.sqlite import SqliteDatabase
from firstspin.events.schema import Event, Exposure, Secret, Status, Unavailable
from firstspin.installation.extras import need
from firstspin.records import InputError

log = logging.getLogger(__name__)

BEAT_SECONDS: Final = 0.5
SQLITE: Final = "sqlite:///"
POSTGRES: Final = ("postgresql://", "postgres://")

Statuses = tuple[Status, ...]
Submission = tuple[tuple[Event, ...], Future[Statuses]]


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Limits of the store's queue and of its commits."""

    rows: int = 200  # so many waiting rows are written without delay
    linger: float = 0.002  # seconds that fewer rows wait after the previous commit ...
    exposures_linger: float = 0.2  # ... or, where all are exposures, which have no waiting sender
    group: int = 1_000  # max events of a commit, apart from the rest of a request's
    exposures: int = 5_000  # max exposures of a commit
    waiting_events: int = 10_000  # more are refused: the sender has them and retries
    waiting_exposures: int = 50_000  # more are dropped and counted: a recommendation never waits
    waiting_counts: int = 1_000  # reports of a worker's answers, one every five minutes; then the oldest is dropped
    retry: float = 0.25  # seconds until a failed write is retried, doubled from attempt to attempt ...
    max_retry: float = 5.0  # ... up to this


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the store can write now, and its counters since it was opened."""

    ready: bool
    reason: str  # why it is not ready; empty when ready
    waiting_events: int
    waiting_exposures: int
    events: Mapping[Status, int]
    exposures: Mapping[Status, int]
    dropped_exposures: int
    commits: int
    failures: int


@dataclass(frozen=True, slots=True)
class _Group:
    """The rows of one commit."""

    exposures: list[Exposure]
    submissions: list[Submission]
    counts: list[tuple[str, DayCounts]] = field(default_factory=list)

    @property
    def events(self) -> list[Event]:
        return [event for events, _ in self.submissions for event in events]


class EventStore:
    """Stores events and exposures; thread-safe and non-blocking (no call waits for the disk).

    Create it in the process that uses it, after any fork. Its writer thread opens the database and retries while that
    fails, whatever the reason; meanwhile `health` has the reason, and events are refused.
    """

    def __init__(self, database: Database, limits: QueueLimits = QueueLimits(), *, reason: str = "") -> None:
        self._database = database
        self._limits = limits
        self._wake = threading.Condition()
        self._submissions: deque[Submission] = deque()
        self._exposures: deque[Exposure] = deque()
        self._counts: deque[tuple[str, DayCounts]] = deque(maxlen=limits.waiting_counts)
        self._waiting_events = 0
        self._is_open = False
        self._writing = False
        self._idle = False  # the writer waits without a timeout
        self._closing = False
        self._retries = True
        self._reason = ""
        self._statuses: dict[str, Counter[Status]] = {"events": Counter(), "exposures": Counter()}
        self._dropped = 0
        self._commits = 0
        self._failures = 0
        self._failures_in_a_row = 0
        self._set_reason(reason)
        self._writer = threading.Thread(target=self._write_on, name="event-store", daemon=True)
        self._writer.start()

    def submit(self, events: Sequence[Event]) -> Future[Statuses]:
        """The status of each event, in order, once all are durable.

        Raises Unavailable, here or from the future, where they could not be stored: none was acknowledged, and sending
        them again is safe, because stored ones are duplicates. For asyncio: wrap_future.
        """
        future: Future[Statuses] = Future()
        with self._wake:
            if self._closing:
                raise Unavailable("the event store is closing")
            if self._reason:
                raise Unavailable(self._reason)
            if self._waiting_events + len(events) > self._limits.waiting_events:
                raise Unavailable("the queue of the event store is full")
            self._submissions.append((tuple(events), future))
            self._waiting_events += len(events)
            before = self._waiting_events - len(events)
            limits = (1, self._limits.rows, self._limits.group)
            if any(before < limit <= self._waiting_events for limit in limits):
                self._wake.notify()
        return future

    def submit_exposures(self, exposures: Sequence[Exposure]) -> int:
        """Queue exposures for the next commit; returns how many: without room the last are dropped (and counted)."""
        with self._wake:
            room = 0 if self._closing else max(0, self._limits.waiting_exposures - len(self._exposures))
            accepted = exposures[:room]
            self._dropped += len(exposures) - len(accepted)
            if accepted:
                self._exposures.extend(accepted)
                waiting = len(self._exposures)
                if self._idle or waiting - len(accepted) < self._limits.exposures <= waiting:
                    self._wake.notify()  # a writer that lingers would only wait on
        return len(accepted)

    def submit_counts(self, counts: DayCounts) -> None:
        """Queue a report of answers for the next commit."""
        with self._wake:
            self._counts.append((uuid4().hex, counts))
            self._wake.notify()

    def overdue(self) -> None:
        """Report a submission timeout: further submissions are refused until the current write has ended."""
        with self._wake:
            if self._writing:
                self._set_reason("a write takes too long")

    def health(self) -> Health:
        """The current state and counters."""
        with self._wake:
            return Health(
                ready=self._is_open and not self._reason and not self._closing,
                reason=self._reason or ("the event store is closing" if self._closing else ""),
                waiting_events=self._waiting_events,
                waiting_exposures=len(self._exposures),
                events=dict(self._statuses["events"]),
                exposures=dict(self._statuses["exposures"]),
                dropped_exposures=self._dropped,
                commits=self._commits,
                failures=self._failures,
            )

    def close(self, timeout: float = 20.0, beat: Callable[[], None] = lambda: None) -> Health:
        """Refuse new rows, write the queue, and return the final health; `beat` is called twice a second meanwhile.

        A write that fails is tried again, but not where the store was unavailable before. One that has not ended after
        `timeout` seconds is abandoned with its thread, and the queue is dropped.
        """
        with self._wake:
            self._closing, self._retries = True, not self._reason
            self._wake.notify()
        for _ in range(round(timeout / BEAT_SECONDS)):
            beat()
            self._writer.join(BEAT_SECONDS)
        if self._writer.is_alive():
            self._give_up("the event store was closed during a write")
            self._writer.join(BEAT_SECONDS)  # one that waited to try again ends now
        return self.health()

    def _write_on(self) -> None:
        while (group := self._next_group()) is not None:
            try:
                written = self._written(group)
            except (Unavailable, InputError) as error:
                self._postpone(group, str(error))
            except Exception:
                # A programming error, which a retry would not fix: the writer thread must survive it.
                log.exception("a group of events could not be written")
                with self._wake:
                    self._dropped += len(group.exposures)
                self._postpone(_Group([], group.submissions), "the event store failed")
            else:
                self._acknowledge(group, written)
        self._database.close()

    def _written(self, group: _Group) -> Written:
        if not self._is_open:
            self._database.open()
            self._is_open = True
        return self._database.transact(lambda session: _write(session, group))

    def _next_group(self) -> _Group | None:
        """Wait for the next group to write; None when closing with an empty queue.

        An empty group is a probe of a database that is not open or has failed: only a write shows that it works.
        """
        with self._wake:
            if self._commits:
                self._wake.wait_for(self._is_due, self._limits.linger)
                self._wake.wait_for(self._is_urgent, self._limits.exposures_linger - self._limits.linger)
            self._idle = True
            self._wake.wait_for(self._has_work)
            self._idle = False
            if self._closing and not (self._submissions or self._exposures or self._counts):
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
            exposures = min(len(self._exposures), self._limits.exposures)
            group.exposures.extend([self._exposures.popleft() for _ in range(exposures)])
            group.counts.extend(self._counts)
            self._counts.clear()
            return group

    def _has_work(self) -> bool:
        waiting = self._submissions or self._exposures or self._counts
        return bool(waiting or self._reason or self._closing or not self._is_open)

    def _is_urgent(self) -> bool:
        """Whether anything but exposures waits, or exposures enough for a commit."""
        return bool(
            self._submissions or self._reason or self._closing or len(self._exposures) >= self._limits.exposures
        )

    def _is_due(self) -> bool:
        return self._closing or self._waiting_events >= self._limits.rows

    def _acknowledge(self, group: _Group, written: Written) -> None:
        with self._wake:
            self._statuses["events"].update(written.events)
            self._statuses["exposures"].update(written.exposures)
            self._commits += bool(group.exposures or group.submissions)
            self._writing = False
            self._failures_in_a_row = 0
            self._set_reason("")
        start = 0
        for events, future in group.submissions:
            future.set_result(written.events[start : start + len(events)])
            start += len(events)

    def _postpone(self, group: _Group, reason: str) -> None:
        """Fail the submissions, whose senders retry; the exposures wait for the next attempt."""
        with self._wake:
            self._writing = False
            self._set_reason(reason)
            self._failures += 1
            self._failures_in_a_row += 1
            self._exposures.extendleft(reversed(group.exposures))
            self._counts.extend(group.counts)
            waiting = self._withdrawn()
        _fail([*group.submissions, *waiting], reason)
        with self._wake:
            wait = min(self._limits.max_retry, self._limits.retry * 2.0 ** min(self._failures_in_a_row - 1, 20))
            ends = self._wake.wait_for(lambda: self._closing and not self._retries, wait)
        if ends:
            self._give_up(reason)

    def _give_up(self, reason: str) -> None:
        """Fail the queued submissions and drop the queued exposures: closing with an unavailable database."""
        with self._wake:
            self._retries = False
            self._wake.notify()
            waiting = self._withdrawn()
            if self._exposures:
                log.error("%d exposures are dropped: %s", len(self._exposures), reason)
            self._dropped += len(self._exposures)
            self._exposures.clear()
            self._counts.clear()
        _fail(waiting, reason)

    def _withdrawn(self) -> list[Submission]:
        """Empty the queue; returns its submissions without those that were cancelled."""
        waiting = [(events, future) for events, future in self._submissions if future.set_running_or_notify_cancel()]
        self._submissions.clear()
        self._waiting_events = 0
        return waiting

    def _set_reason(self, reason: str) -> None:
        if reason and not self._reason:
            log.error("events can't be stored: %s", reason)
        if self._reason and not reason:
            log.warning("events are stored again")
        self._reason = reason


def open_database(
    url: str,
    secret: Secret,
    *,
    create: bool = True,
    read_only: bool = False,
    listens_by_user: bool = False,
    patience: float | None = None,
) -> Database:
    """The database at `sqlite:///events.sqlite` (a fourth slash starts an absolute path) or `postgresql://...`.

    It is not opened yet. Without `create` the store must exist; nothing is ever written to one that is `read_only`.
    `listens_by_user`: with an index of the listens, which is created, or with `read_only` awaited. `patience` is the
    lock timeout in seconds; with it, a server that does not respond is given up too.

    Raises InputError for any other URL, and where PostgreSQL's driver is not installed.
    """
    if not url.startswith(POSTGRES):
        path = sqlite_path(url)
        return SqliteDatabase(
            path,
            secret.fingerprint,
            create=create,
            read_only=read_only,
            listens_by_user=listens_by_user,
            patience=patience or sqlite.PATIENCE,
        )
    need("postgres", "an event store in PostgreSQL")
    try:
        return PostgresDatabase(
            url,
            secret.fingerprint,
            create=create,
            read_only=read_only,
            listens_by_user=listens_by_user,
            patience=patience,
        )
    except ImportError as error:  # psycopg without its binary part, where the system has no libpq
        raise InputError(f"psycopg can't be loaded ({error}): pip install 'firstspin[postgres]'") from error


def sqlite_path(url: str) -> Path:
    """The path in `sqlite:///PATH`, relative to the working folder unless it begins with a fourth slash.

    Raises InputError for any other spelling, with a suggestion.

    >>> str(sqlite_path("sqlite:///events.sqlite")), str(sqlite_path("sqlite:////var/lib/events.sqlite"))
    ('events.sqlite', '/var/lib/events.sqlite')
    """
    scheme, colon, rest = url.partition(":")
    if scheme.lower() != "sqlite" or not colon:
        given = f" {scheme}:…" if colon else ""  # no more of it: a URL may hold a password
        raise InputError(f"invalid event store URL{given}; expected {SQLITE}PATH or {POSTGRES[0]}HOST/NAME")
    path = url.removeprefix(SQLITE)
    if path in ("", "/", ":memory:") or "\0" in path or "?" in path:
        raise InputError(f"invalid event store URL {url!r}: no file name; expected {SQLITE}PATH, without parameters")
    if not url.startswith(SQLITE):
        name = rest.lstrip("/")
        meant = f"{SQLITE}/{name} (an absolute path, four slashes)"
        if not rest.startswith("/") or rest.startswith("//"):
            meant = f"{SQLITE}{name} (under the working folder) or {meant}"
        raise InputError(f"invalid event store URL {url}; expected {meant}")
    return Path(path)


def open_store(url: str, secret: Secret, limits: QueueLimits = QueueLimits()) -> EventStore:
    """The event store at this URL, opened; an unavailable database is retried in the background.

    Raises InputError for an invalid URL, and where the database is no event store of this key and version.
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
    write_counts(session, group.counts)
    return write(session, group.exposures, group.events)


def _fail(submissions: Sequence[Submission], reason: str) -> None:
    for _, future in submissions:
        future.set_exception(Unavailable(reason))
