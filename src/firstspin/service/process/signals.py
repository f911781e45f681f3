"""Signals: those the service handles, all others ignored so that none ends a process, and a step they wait for."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
HELD: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
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
    """A non-blocking descriptor of handled signals, one byte each (self-pipe), so that none interrupts a step."""
    reading, writing = os.pipe()
    for end in (reading, writing):
        os.set_blocking(end, False)
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


@contextmanager
def held_signals() -> Iterator[None]:
    """Hold back the Python handlers of SIGINT, SIGTERM and SIGHUP; they run at the end of the block.

    Handlers run in the main thread, between any two of its bytecodes, whichever thread the kernel chose: a signal mask
    is not enough. In another thread nothing is held, since no handler runs there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    handlers = {number: signal.getsignal(number) for number in HELD}
    ours = [number for number, handler in handlers.items() if callable(handler)]  # not ignored, nor the kernel's
    for number in ours:
        signal.signal(number, lambda arriving, _: arrived.append(arriving))
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, handlers[number])
        for held in arrived:
            signal.raise_signal(held)
