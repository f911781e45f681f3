"""Child processes: forked, watched by heartbeat, and restarted with exponential backoff when they end or hang."""

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

SETTLED_SECONDS: Final = 10.0  # after so long a process has not failed at its start
MAX_BACKOFF: Final = 30.0  # seconds


def fork(run: Callable[[], int]) -> int:
    """Fork a child that calls `run` and exits with the status it returns; the child's process id.

    The child never returns into its parent's code, whose clean-up is the parent's. No signal sent to the child arrives
    at the parent. Raises OSError as `os.fork` does.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signals.HANDLED)
    try:
        pid = os.fork()
        if pid == 0:
            _run(run)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.HANDLED)
    return pid


def _run(run: Callable[[], int]) -> None:
    status = 1
    try:
        signals.in_child()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.HANDLED)
        status = run()
    except Exception as problem:
        log.exception("a process failed", extra={"problem": type(problem).__name__})
    finally:
        os._exit(status)


@dataclass
class Child:
    """A process that is restarted when it ends. Times are seconds of the parent's monotonic clock."""

    number: int  # its row of the shared metrics
    listener: socket.socket
    line: socket.socket | None = None  # to the child, while it runs
    pid: int = 0
    up: bool = False  # it has reported that it accepts connections
    started: float = 0.0
    starts: int = 0
    failures: int = 0  # in a row
    due: float = 0.0
    beats: int = 0
    beat: float = 0.0  # when the last heartbeat was seen
    turns: bool = False  # there has been a heartbeat

    def begin(self, pid: int, now: float) -> None:
        """Reset the state for a process that has just started."""
        self.pid, self.up, self.started, self.beat, self.turns = pid, False, now, now, False
        self.starts += 1

    def ended(self, now: float) -> float:
        """Record that the process has ended or could not be started; the backoff in seconds until its restart."""
        if self.pid and now - self.started > SETTLED_SECONDS:
            self.failures = 0
        else:
            self.failures += 1
        self.pid, self.up = 0, False
        wait = min(MAX_BACKOFF, 0.05 * 2.0**self.failures) if self.failures else 0.0
        self.due = now + wait
        return wait

    def kill(self) -> None:
        """Send SIGKILL, if the process runs."""
        if self.pid:  # 0 is the whole process group
            os.kill(self.pid, signal.SIGKILL)

    def hang_up(self) -> None:
        """Close the parent's end of the line."""
        if self.line:
            self.line.close()
            self.line = None

    def seen(self, beats: int, now: float) -> None:
        """Compare the count of heartbeats in the child's row with the last one seen."""
        if beats != self.beats:
            self.beats, self.beat, self.turns = beats, now, True

    def silence(self, now: float) -> float:
        """Seconds since its last heartbeat."""
        return now - self.beat
