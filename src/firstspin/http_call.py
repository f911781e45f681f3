"""HTTP calls to a server: connections that are reused, a deadline for the whole call, retries with backoff.

A deadline bounds connecting, all reads and writes, and the pauses between attempts; a server that sends one byte a
second can't prolong it. Only the lookup of a host name is not bounded, and a TLS handshake only step by step. Redirects
are not followed.
"""

from __future__ import annotations

import http.client
import io
import random
import re
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from firstspin.records import InputError

RETRIED: Final = frozenset({429, 502, 503, 504})
"""Statuses after which the same call may succeed: over the rate, a gateway's failure, not now, a gateway's timeout."""

MAX_IDLE: Final = 8
"""Open connections that wait for their next call."""

_URL_TEXT: Final = re.compile(r"[!-~]+")


class ServerAddress(NamedTuple):
    """The parts of a URL: its scheme, host, port, and the target (path and query)."""

    scheme: str
    host: str
    port: int
    target: str


def server_address(url: str, what: str) -> ServerAddress:
    """A URL's parts. Raises InputError, without the URL's user and password, where it is no URL of a server."""
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")  # as a lookup does: labels of 1 to 63 characters
    except ValueError:
        raise InputError(f"{what} is not a URL like https://example.com") from None
    if parts.username is not None or parts.password is not None:
        raise InputError(f"{what} has a user or a password in it; leave them out")
    if parts.scheme not in ("http", "https") or not parts.hostname or not _URL_TEXT.fullmatch(url) or parts.fragment:
        raise InputError(f"{what} is not a URL like https://example.com")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return ServerAddress(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), target)


class HttpAnswer(NamedTuple):
    """The status, the headers (names in lower case) and the body of an answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoAnswer(Exception):
    """No answer came; `sent` says whether the server may have received the call."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class DeadlineExceeded(NoAnswer):
    """The deadline of the call has passed."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter: before attempt n + 1 a wait from 0 to `base` · 2^(n - 1) seconds, at most.

    `max_wait` bounds the wait. A Retry-After of the server is waited for in addition. `attempts` includes the first.
    Source: AWS Architecture Blog, Exponential Backoff And Jitter, 2015.
    """

    attempts: int = 4
    base: float = 0.1
    max_wait: float = 5.0

    def wait(self, failures: int, rng: random.Random) -> float:
        """Seconds to wait after so many failures in a row."""
        return rng.uniform(0, min(self.max_wait, self.base * 2.0 ** min(failures - 1, 60)))


@dataclass(slots=True)
class Connections:
    """Connections to one server, for any number of threads; `now` is a monotonic clock in seconds.

    `max_body`: bytes of an answer that are read, after which its connection is closed; None reads all.
    """

    address: ServerAddress
    now: Callable[[], float] = time.monotonic
    max_body: int | None = None
    tls: ssl.SSLContext | None = None
    _idle: deque[_Timed] = field(default_factory=deque, init=False)

    def exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, until: float
    ) -> HttpAnswer:
        """One attempt. Raises NoAnswer where the connection fails, DeadlineExceeded at the time `until`."""
        connection = self._idle_connection() or self._new_connection()
        connection.begin(until, self.now)
        try:
            connection.request(method, target, body=body, headers=dict(headers))
            received = connection.getresponse()
            answer = HttpAnswer(
                received.status, {name.lower(): value for name, value in received.getheaders()}, b""
            )._replace(body=received.read(self.max_body))
        except BaseException as problem:
            connection.close()
            if isinstance(problem, TimeoutError):
                raise DeadlineExceeded("no answer within the deadline", sent=connection.sent) from None
            if isinstance(problem, (OSError, http.client.HTTPException)):
                raise NoAnswer(f"no answer: {type(problem).__name__}", sent=connection.sent) from problem
            raise
        if received.isclosed() and connection.sock is not None and len(self._idle) < MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    def _idle_connection(self) -> _Timed | None:
        """The connection used last, unless its server has closed it."""
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if connection.is_open():
                    return connection
                connection.close()
        return None

    def _new_connection(self) -> _Timed:
        host, port = self.address.host, self.address.port
        if self.address.scheme == "https":
            return _TlsConnection(host, port, context=self.tls or ssl.create_default_context())
        return _Timed(host, port)


@dataclass(frozen=True, slots=True)
class Caller:
    """Calls a server, again where that is safe; `date` is the time of day, for a Retry-After that is a date."""

    connections: Connections
    backoff: Backoff = Backoff()
    rng: random.Random = field(default_factory=random.Random)
    sleep: Callable[[float], None] = time.sleep
    date: Callable[[], datetime] = lambda: datetime.now(UTC)

    def call(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        seconds: float,
        is_idempotent: bool,
    ) -> HttpAnswer:
        """The answer, within `seconds` in all. An idempotent call is sent again after RETRIED and failed connections.

        Another call is sent again only where the server has not received it. Raises NoAnswer or DeadlineExceeded.
        """
        now, failures = self.connections.now, 0
        until = now() + seconds
        while True:
            problem: NoAnswer | None = None
            answer: HttpAnswer | None = None
            try:
                answer = self.connections.exchange(method, target, headers, body, until)
                may_retry = is_idempotent and answer.status in RETRIED
            except DeadlineExceeded:
                raise
            except NoAnswer as failed:
                problem, may_retry = failed, is_idempotent or not failed.sent
            failures += 1
            pause = self.backoff.wait(failures, self.rng) + (retry_after(answer, self.date()) if answer else 0.0)
            if not may_retry or failures >= self.backoff.attempts or now() + pause >= until:
                if answer is not None:
                    return answer
                assert problem is not None
                raise problem
            self.sleep(pause)


def retry_after(answer: HttpAnswer, now: datetime) -> float:
    """The seconds of an answer's Retry-After, which may be a date; 0 where there is none, or none that is read."""
    text = answer.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    with suppress(ValueError, TypeError, OverflowError):
        at = parsedate_to_datetime(text)
        return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds())
    return 0.0


class _Timed(http.client.HTTPConnection):
    """Ends reads and writes at the deadline of the exchange in progress."""

    def begin(self, until: float, now: Callable[[], float]) -> None:
        self._until, self._now, self.sent = until, now, False

    def left(self) -> float:
        """Seconds until the deadline. Raises TimeoutError after it."""
        seconds = self._until - self._now()
        if seconds <= 0:
            raise TimeoutError
        return seconds

    def connect(self) -> None:
        self.timeout = self.left()
        super().connect()
        self.sock: Any = _TimedSocket(self.sock, self)

    def is_open(self) -> bool:
        """Whether nothing has arrived since the last answer: neither the server's end, nor bytes of no answer."""
        waiting = select.poll()
        waiting.register(self.sock.fileno(), select.POLLIN)
        return not waiting.poll(0)


class _TlsConnection(_Timed, http.client.HTTPSConnection):
    pass


class _TimedSocket:
    """The part of a socket that `http.client` uses, with the connection's deadline."""

    def __init__(self, opened: socket.socket, connection: _Timed) -> None:
        self._socket, self._connection = opened, connection
        self.fileno, self.close = opened.fileno, opened.close

    def sendall(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:  # `sendall` of TLS has its timeout for each write, not for all of them
            self._socket.settimeout(self._connection.left())
            self._connection.sent = True
            rest = rest[self._socket.send(rest) :]

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        return io.BufferedReader(_TimedReads(self._socket, self._connection))


class _TimedReads(io.RawIOBase):
    def __init__(self, opened: socket.socket, connection: _Timed) -> None:
        self._socket, self._connection = opened, connection
        self._raw = opened.makefile("rb", buffering=0)  # counts as a user of the socket

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(self._connection.left())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
