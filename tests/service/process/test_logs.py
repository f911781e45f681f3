"""Log lines fit into what a pipe takes at once, and are for machines unless a person looks on."""

from __future__ import annotations

import json
import logging
import os
import pty
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from made_bundles import pack
from made_service import QUICK, serving, until, workers

from firstspin.service.process.logs import MAX_LINE, JsonLines, PlainLines, Unblocked


def record(event: str, **told: object) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": event, "levelno": logging.ERROR, "levelname": "ERROR", **told})


def test_a_line_fits_into_what_a_pipe_takes_at_once() -> None:
    for told in ({"reason": "x" * 100_000}, {"reason": "é" * 5_000, "other": "\x00" * 5_000}, {"many": [1] * 10_000}):
        line = JsonLines().format(record("a bundle was refused", **told))
        assert len(line.encode()) < MAX_LINE
        assert json.loads(line)["event"] == "a bundle was refused"


def test_a_value_that_is_no_unicode_is_escaped() -> None:
    name = os.fsdecode(b"caf\xff.npy")
    assert json.loads(JsonLines().format(record("refused", reason=name)))["reason"] == "caf\\udcff.npy"


def test_a_line_for_a_person_has_no_control_characters() -> None:
    line = PlainLines().format(record("a bundle was refused", reason="\x1b[2J\nnext"))
    assert line.split(" ", 1)[1] == r"error: a bundle was refused reason='\x1b[2J\nnext'"


def test_a_pipe_whose_reader_stalls_takes_whole_lines_or_none() -> None:
    reading, writing = os.pipe()
    stream, line = Unblocked(writing), b"x" * 999 + b"\n"
    taken = [stream.write(line) for _ in range(200)]
    assert taken.count(True) < 200
    assert os.read(reading, 1 << 20) == line * taken.count(True)
    assert stream.write(line)
    assert os.get_blocking(writing)  # what others write to it is theirs
    os.close(reading)
    assert not stream.write(line)
    os.close(writing)


def test_a_socket_whose_reader_stalls_takes_whole_lines_or_none() -> None:
    ours, theirs = socket.socketpair()
    line = b"x" * 999 + b"\n"
    with ours, theirs, closing(Unblocked(theirs.fileno())) as stream:
        taken = [stream.write(line) for _ in range(2_000)]
        assert taken.count(True) < 2_000
        received = b""
        while len(received) < taken.count(True) * len(line):
            received += ours.recv(1 << 20)
        assert received == line * taken.count(True)


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of one."""
    ours, theirs = pty.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(ours)


def test_on_a_terminal_the_log_is_for_a_person_and_a_stopped_terminal_blocks_nothing(tmp_path: Path) -> None:
    pack(tmp_path / "bundle")
    with terminal() as (ours, theirs), serving(tmp_path / "bundle", *QUICK, stderr=theirs) as service:
        os.close(theirs)
        assert " a bundle was accepted model=" in os.read(ours, 65_536).decode()
        os.write(ours, b"\x13")  # Ctrl-S
        before = workers(service)
        os.kill(before[0], signal.SIGKILL)
        until(lambda: workers(service) and workers(service) != before)
        until(lambda: service.ask("GET", "/ping")[0] == 200)
        os.write(ours, b"\x11")  # Ctrl-Q
        service.process.terminate()
        assert service.process.wait(20) == 0
        with suppress(OSError):
            assert " stopping" in os.read(ours, 65_536).decode()
