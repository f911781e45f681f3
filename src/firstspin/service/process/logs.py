"""Logs: one JSON object per line, or plain lines on a terminal.

Neither body, query, age, gender, user id nor key is ever given to a log call. Of an exception the log keeps its type
and where it happened. Its message is left out: it may quote what was sent.

Writing never blocks. A line that stderr does not take at once (a pipe whose reader stalls, a full disk) is dropped and
counted: a service that waits for its log does not answer.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import stat
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

MAX_LINE: Final = select.PIPE_BUF
"""Bytes of a line: a pipe takes so many whole or not at all, also where several processes write."""

_ORDINARY: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName"}
_MAX_TEXT: Final = 1_000
_MAX_FRAMES: Final = 12


class Unblocked:
    """An open descriptor, written to at once or not at all."""

    def __init__(self, descriptor: int) -> None:
        self._torn, self._given = b"", descriptor
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISSOCK(mode):
            self._socket: socket.socket | None = socket.socket(fileno=os.dup(descriptor))
        else:
            self._socket, self._descriptor = None, _own(descriptor, mode)
            self._room = select.poll()
            self._room.register(self._descriptor, select.POLLOUT)

    def close(self) -> None:
        """Close what was opened here; the descriptor given stays open."""
        if self._socket:
            self._socket.close()
        elif self._descriptor != self._given:
            os.close(self._descriptor)

    def write(self, line: bytes) -> bool:
        """Whether the whole line was taken."""
        line = self._torn + line
        try:
            taken = self._write(line)
        except OSError:  # full, or the reader is gone
            return False
        self._torn = b"\n" if 0 < taken < len(line) else b"" if taken else self._torn
        return taken == len(line)

    def _write(self, line: bytes) -> int:
        if self._socket:
            return self._socket.send(line, socket.MSG_DONTWAIT)
        return os.write(self._descriptor, line) if self._room.poll(0) else 0


def _own(descriptor: int, mode: int) -> int:
    """A descriptor of the same pipe or terminal that does not block, while others' stay as they are."""
    if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        return descriptor
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:  # another user's; that it has room is asked before each write
        if stat.S_ISFIFO(mode):
            os.set_blocking(descriptor, False)
        return descriptor


class JsonLines(logging.Formatter):
    """A record as one line of JSON, of at most `MAX_LINE` bytes with its line feed."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON; without its further fields where the line would be too long."""
        fields: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage()[:_MAX_TEXT],
            "pid": record.process,
        }
        line = _json(fields | _further(record))
        return line if len(line.encode()) < MAX_LINE else _json(fields)


class PlainLines(logging.Formatter):
    """A record as one line for a person at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, message and further fields."""
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        further = [f"{name}={_printable(value)}" for name, value in _further(record).items()]
        return " ".join([at, f"{level}{_printable(record.getMessage())}", *further])


def _json(told: dict[str, object]) -> str:
    return msgspec.json.encode(told, enc_hook=str).decode()


def _printable(value: object) -> str:
    """Without control characters, which a terminal obeys."""
    return text if (text := str(value)).isprintable() else ascii(text)


def _further(record: logging.LogRecord) -> dict[str, object]:
    told = {name: _short(value) for name, value in vars(record).items() if name not in _ORDINARY}
    if record.exc_info and record.exc_info[2]:
        frames = traceback.extract_tb(record.exc_info[2])[-_MAX_FRAMES:]
        told["where"] = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return told


def _short(value: object) -> object:
    """A value that a line has room for; text that can't be encoded (a file name's stray bytes) is escaped."""
    if not isinstance(value, str):
        return value
    value = value.encode("utf-8", "backslashreplace").decode()
    return value if len(value) <= _MAX_TEXT else f"{value[:_MAX_TEXT]}…"


class LineHandler(logging.Handler):
    """Writes to stderr and never waits for it; `dropped` is called for each line that is lost."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._stream = Unblocked(descriptor)
        self.dropped: Callable[[], None] = lambda: None

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record without blocking, or count it as dropped."""
        try:
            written = self._stream.write(self.format(record).encode("utf-8", "backslashreplace") + b"\n")
        except Exception:  # a formatting error must not fail the caller
            written = False
        if not written:
            self.dropped()


def start(level: str) -> None:
    """Log to stderr from this level on; stdin, stdout and stderr that were closed become /dev/null."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # or a socket would get this number, and the log's lines
    handler = LineHandler(2)
    handler.setFormatter(PlainLines() if os.isatty(2) else JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def count_dropped(count: Callable[[], None]) -> None:
    """Have this called in this process for every line that is lost."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LineHandler):
            handler.dropped = count
