"""The command server of the tests answers each command with its own status."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest
from command_line import firstspin


class Interrupted(Exception):
    """What a test's timeout raises."""


def test_an_interrupted_command_ends_and_the_next_one_has_its_own_status(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise Interrupted

    firstspin("--version")  # the server has started
    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(0.5, signal.pthread_kill, (threading.main_thread().ident, signal.SIGUSR1))
    try:
        timer.start()
        with pytest.raises(Interrupted):
            firstspin("world", tmp_path / "w", "--users", 5_000_000)
    finally:
        signal.signal(signal.SIGUSR1, before)
    for _ in range(2):
        done = firstspin("--version")
        assert (done.returncode, done.stdout.split()[0]) == (0, "firstspin")
