"""Logs: one JSON object per line, or plain lines on a terminal.

Bodies, queries, ages, genders, user ids and keys are never logged. Of an exception, the type and the stack are logged
and the message is not: it may quote the request.

Writing never blocks. A line that stderr can't take at once (a pipe whose reader stalls, a full disk) is dropped and
counted, so that logging never delays an answer.
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
"""Max bytes of a line: a write of so many to a pipe is atomic, also where several processes write."""

_ORDINARY: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName"}
_MAX_TEXT: Final = 1_000
_MAX_FRAMES: Final = 12


class Unblocked:
    """Non-blocking writes to an open descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._torn, self._original = b"", descriptor
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISSOCK(mode):
            self._socket: socket.socket | None = socket.socket(fileno=os.dup(descriptor))
        else:
            self._socket, self._descriptor = None, _own(descriptor, mode)
            self._room = select.poll()
            self._room.register(self._descriptor, select.POLLOUT)

    def close(self) -> None:
        """Close the duplicate, if there is one; the original descriptor stays open."""
        if self._socket:
            self._socket.close()
        elif self._descriptor != self._original:
            os.close(self._descriptor)

    def write(self, line: bytes) -> bool:
        """Write a line without blocking; whether it was written whole."""
        line = self._torn + line
        try:
            written = self._write(line)
        except OSError:  # full, or the reader is gone
            return False
        self._torn = b"\n" if 0 < written < len(line) else b"" if written else self._torn
        return written == len(line)

    def _write(self, line: bytes) -> int:
        if self._socket:
            return self._socket.send(line, socket.MSG_DONTWAIT)
        return os.write(self._descriptor, line) if self._room.poll(0) else 0


def _own(descriptor: int, mode: int) -> int:
    """A non-blocking descriptor of the same pipe or terminal; other processes' descriptors stay blocking."""
    if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        return descriptor
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:  # another user's: it is polled for room before each write
        if stat.S_ISFIFO(mode):
            os.set_blocking(descriptor, False)
        return descriptor


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON, of at most `MAX_LINE` bytes with its line feed."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, with its additional fields where they fit."""
        fields: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage()[:_MAX_TEXT],
            "pid": record.process,
        }
        line = _json(fields | _further(record))
        return line if len(line.encode()) < MAX_LINE else _json(fields)


class PlainLines(logging.Formatter):
    """Formats a record as one line of text for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The time of day, the message and its additional fields."""
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        further = [f"{name}={_printable(value)}" for name, value in _further(record).items()]
        return " ".join([at, f"{level}{_printable(record.getMessage())}", *further])


def _json(fields: dict[str, object]) -> str:
    return msgspec.json.encode(fields, enc_hook=str).decode()


def _printable(value: object) -> str:
    """The value as text with control characters escaped, against terminal injection."""
    return text if (text := str(value)).isprintable() else ascii(text)


def _further(record: logging.LogRecord) -> dict[str, object]:
    fields = {name: _short(value) for name, value in vars(record).items() if name not in _ORDINARY}
    if record.exc_info and record.exc_info[2]:
        frames = traceback.extract_tb(record.exc_info[2])[-_MAX_FRAMES:]
        fields["where"] = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return fields


def _short(value: object) -> object:
    """A value cut to the max length; text that can't be encoded (a file name's stray bytes) is escaped."""
    if not isinstance(value, str):
        return value
    value = value.encode("utf-8", "backslashreplace").decode()
    return value if len(value) <= _MAX_TEXT else f"{value[:_MAX_TEXT]}…"


class LineHandler(logging.Handler):
    """Writes to stderr without blocking; `dropped` is called for each dropped line."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._stream = Unblocked(descriptor)
        self.dropped: Callable[[], None] = lambda: None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or drop it."""
        try:
            written = self._stream.write(self.format(record).encode("utf-8", "backslashreplace") + b"\n")
        except Exception:  # a record that can't be formatted must not fail the caller
            written = False
        if not written:
            self.dropped()


def start(level: str) -> None:
    """Log to stderr from this level on. Standard streams that are closed are opened on /dev/null."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # or a socket would get this descriptor, and the log's lines
    handler = LineHandler(2)
    handler.setFormatter(PlainLines() if os.isatty(2) else JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def count_dropped(count: Callable[[], None]) -> None:
    """Call `count` for every line that this process drops."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LineHandler):
            handler.dropped = count
