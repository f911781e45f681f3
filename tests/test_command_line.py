"""The command server of the tests answers each command with its own status."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import command_line
import pytest
from command_line import firstspin


@pytest.fixture
def bare_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server of this test's own, without imports: the one that has imported the commands goes on."""
    monkeypatch.setattr(command_line, "_server", cache(partial(command_line.start_server, "bare")))
    yield
    command_line._end()


class Interrupted(Exception):
    """What a test's timeout raises."""


@pytest.mark.usefixtures("bare_server")
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
