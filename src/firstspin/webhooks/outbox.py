"""The notices that wait to be sent: a folder with a file for each, and a record of those that are done.

Any process may add a notice with `notify`; one process sends them (`delivery`). The id of a notice is a hash of its
cause, so that the same cause is one notice, whichever process sees it, however often, and across restarts.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import msgspec

from firstspin.files import written_beside

log = logging.getLogger(__name__)

Kind = Literal[
    "experiment.no_data",
    "experiment.sample_ratio",
    "experiment.horizon_reached",
    "experiment.canary_stopped",
    "labels.complete",
    "model.below_rule",
    "data.drift",
]
"""The closed list of notices: no exposure for a day; arms in other shares than planned; the planned end is reached;
a cohort's labels are complete; the model is worse than the business rule; inputs or answers have drifted."""

Queued = Literal["queued", "known", "dropped"]

MAX_PENDING: Final = 1_000
MAX_DONE: Final = 10_000
"""Notices whose ids are remembered after they were sent; the oldest are forgotten first."""

MAX_WAIT: Final = 3_600.0
_PENDING: Final = ".json"
_DONE: Final = ".done"


class NoticeData(msgspec.Struct, frozen=True):
    """What a notice is about, such as an experiment or a week, and one sentence. It names no person."""

    subject: str
    sentence: str


class Notice(msgspec.Struct, frozen=True):
    """The body of a webhook, in the form of Standard Webhooks."""

    type: Kind
    timestamp: datetime
    data: NoticeData


def notify(outbox: Path, kind: Kind, subject: str, sentence: str, *, at: datetime, cause: str = "") -> Queued:
    """Queue a notice, unless one with this kind, subject and `cause` is or was in the outbox.

    `subject` and `sentence` are about groups, never about a person. At MAX_PENDING notices a further one is dropped,
    and logged. Raises OSError where the folder can't be written.
    """
    outbox.mkdir(parents=True, exist_ok=True)
    notice_id = notice_id_of(kind, subject, cause)
    if any(outbox.glob(f"{notice_id}.*")):
        return "known"
    if sum(1 for _ in pending(outbox)) >= MAX_PENDING:
        log.error("a notice was dropped, because the outbox is full", extra={"kind": kind, "subject": subject})
        return "dropped"
    body = msgspec.json.encode(Notice(kind, at.astimezone(UTC), NoticeData(subject, sentence)))
    with written_beside(outbox / f"{notice_id}.0{_PENDING}") as beside:
        beside.write_bytes(body)
    return "queued"


def notice_id_of(kind: Kind, subject: str, cause: str) -> str:
    """The id of a notice: the same for the same cause."""
    about = "\0".join((kind, subject, cause)).encode()
    return f"msg_{hashlib.blake2b(about, digest_size=16).hexdigest()}"


class Pending(msgspec.Struct, frozen=True):
    """A waiting notice: its file, whose modification time is that of the next attempt, and the failures so far."""

    path: Path
    notice_id: str
    failures: int
    next_at: float

    def is_due(self, now: float) -> bool:
        """Whether to send it at this time, in seconds since 1970; also where the clock was set back since."""
        return not now < self.next_at <= now + 2 * MAX_WAIT

    def failed(self, next_at: float) -> None:
        """Record a failed attempt."""
        os.utime(self.path, (next_at, next_at))
        self.path.rename(self.path.with_name(f"{self.notice_id}.{self.failures + 1}{_PENDING}"))

    def done(self) -> None:
        """Record that it is sent, or given up: its cause is never queued again."""
        self.path.rename(self.path.with_name(f"{self.notice_id}{_DONE}"))


def pending(outbox: Path) -> Iterator[Pending]:
    """The waiting notices, in no order; none where there is no folder."""
    try:
        entries = list(os.scandir(outbox))
    except FileNotFoundError:
        return
    for entry in entries:
        notice_id, _, failures = entry.name.removesuffix(_PENDING).rpartition(".")
        if entry.name.endswith(_PENDING) and notice_id and failures.isdecimal():
            with suppress(FileNotFoundError):  # it was done in the meantime
                yield Pending(Path(entry.path), notice_id, int(failures), entry.stat().st_mtime)


def forget_oldest(outbox: Path, most: int = MAX_DONE) -> None:
    """Remove the oldest records of done notices above `most`."""
    done = sorted(outbox.glob(f"*{_DONE}"), key=lambda path: path.stat().st_mtime)
    for path in done[: max(0, len(done) - most)]:
        path.unlink()
