"""Signals during a step that must not be interrupted half way, such as the start of a child process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

HELD: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
