"""Which signals the service hears, and that no other one ends a process of it."""

from __future__ import annotations

import os
import signal
from typing import Final

HEARD: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_LEFT: Final = {
    *HEARD,
    *(signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT, signal.SIGTSTP),  # Ctrl-Z and `fg` work
    *(signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV, signal.SIGSYS),
}


def ignore_others() -> None:
    """Ignore every signal that the service does not hear; children inherit this, through exec too.

    SIGUSR1, SIGALRM, SIGQUIT and most others end a process by default; SIGTTOU stops it. Crashes stay crashes.
    """
    for number in signal.valid_signals() - _LEFT:
        signal.signal(number, signal.SIG_IGN)


def as_bytes() -> int:
    """A descriptor from which the signals heard are read, one byte each: none is handled in the middle of something."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in HEARD:
        signal.signal(number, lambda *_: None)
    return reading


def in_child() -> None:
    """In a forked child: SIGTERM ends it; what a terminal sends to the whole group is the parent's to decide."""
    signal.set_wakeup_fd(-1)
    for number, action in (
        (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGCHLD, signal.SIG_DFL),
        (signal.SIGINT, signal.SIG_IGN),
        (signal.SIGHUP, signal.SIG_IGN),
    ):
        signal.signal(number, action)
