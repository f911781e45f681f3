"""Signals: the ones the service handles, and all others ignored so that none ends a process."""

from __future__ import annotations

import os
import signal
import sys
from typing import Final

HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_NOT_IGNORED: Final = {
    *HANDLED,
    *(signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT, signal.SIGTSTP),  # Ctrl-Z and `fg` work
    *(signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV, signal.SIGSYS),
}


def ignore_others() -> None:
    """Ignore every signal that the service does not handle; children inherit this, through exec too.

    SIGUSR1, SIGALRM, SIGQUIT and most others end a process by default; SIGTTOU stops it. Crashes stay crashes.
    """
    for number in signal.valid_signals() - _NOT_IGNORED:
        signal.signal(number, signal.SIG_IGN)


def end_at_start() -> None:
    """Until `as_bytes`, SIGTERM and SIGINT raise SystemExit, which removes temporary folders; SIGHUP does nothing."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    signal.signal(signal.SIGHUP, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)  # the parent may have blocked them


def as_bytes() -> int:
    """A descriptor from which handled signals are read, one byte each (self-pipe), so that none interrupts a step."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in HANDLED:
        signal.signal(number, lambda *_: None)
    return reading


def in_child() -> None:
    """Set a forked child's signals: SIGTERM ends it; a terminal's signals to the whole group are left to the parent."""
    signal.set_wakeup_fd(-1)
    for number, action in (
        (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGCHLD, signal.SIG_DFL),
        (signal.SIGINT, signal.SIG_IGN),
        (signal.SIGHUP, signal.SIG_IGN),
    ):
        signal.signal(number, action)
