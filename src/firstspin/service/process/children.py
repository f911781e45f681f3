"""Child processes as their parent keeps them: forked, replaced when they end or hang, more and more seldom."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from firstspin.service.process import signals

log = logging.getLogger(__name__)

SETTLED_SECONDS: Final = 10.0  # a process that lived so long did not fail at its start
MAX_BACKOFF: Final = 30.0


def fork(be: Callable[[], int]) -> int:
    """The id of a child that does this alone and ends with the status it returns. Raises OSError as `os.fork` does.

    Whatever happens in the child, it never returns into its parent's code, whose clean-up is the parent's. No signal
    sent to the child arrives at the parent.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signals.HEARD)
    try:
        pid = os.fork()
        if pid == 0:
            _be(be)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.HEARD)
    return pid


def _be(be: Callable[[], int]) -> None:
    status = 1
    try:
        signals.in_child()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.HEARD)
        status = be()
    except Exception as problem:
        log.exception("a process failed", extra={"problem": type(problem).__name__})
    finally:
        os._exit(status)


@dataclass
class Child:
    """A process that is kept running. Times are seconds of the parent's monotonic clock."""

    number: int  # its row of the tallies
    listener: socket.socket
    line: socket.socket | None = None  # to it, while it runs
    pid: int = 0
    up: bool = False  # it has said that it answers
    started: float = 0.0
    starts: int = 0
    failures: int = 0  # in a row
    due: float = 0.0
    beats: int = 0
    beat: float = 0.0  # when the last heartbeat was seen
    turns: bool = False  # there has been one

    def begin(self, pid: int, now: float) -> None:
        """It runs."""
        self.pid, self.up, self.started, self.beat, self.turns = pid, False, now, now, False
        self.starts += 1

    def ended(self, now: float) -> float:
        """It has ended, or could not be started; the seconds until it is due again."""
        if self.pid and now - self.started > SETTLED_SECONDS:
            self.failures = 0
        else:
            self.failures += 1
        self.pid, self.up = 0, False
        wait = min(MAX_BACKOFF, 0.05 * 2.0**self.failures) if self.failures else 0.0
        self.due = now + wait
        return wait

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self.pid:  # 0 would be everyone
            os.kill(self.pid, signal.SIGKILL)

    def hang_up(self) -> None:
        """Close our end of the line."""
        if self.line:
            self.line.close()
            self.line = None

    def seen(self, beats: int, now: float) -> None:
        """So many heartbeats have been counted in its row by now."""
        if beats != self.beats:
            self.beats, self.beat, self.turns = beats, now, True

    def silence(self, now: float) -> float:
        """Seconds since its last heartbeat."""
        return now - self.beat
