"""SageMaker's side of the wire: what it sends to a container, and how long it waits.

Durations are measured here with the monotonic clock; they are this package's subject.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

import msgspec

from firstspin.records import InputError
from firstspin.tools.sagemaker_check.payloads import Payload, media_type

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading JSON raises: for other bytes, for bytes in no encoding, for brackets in brackets without end."""


class NoAnswer(Exception):
    """The server refused, closed, was silent for too long or spoke something that isn't HTTP."""


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """SageMaker's patience in seconds, and its largest body in bytes. Shorter ones make a quicker, stricter check."""

    ready: float = 240.0
    ping: float = 2.0
    accept: float = 0.25
    answer: float = 60.0
    transform: float = 600.0
    drain: float = 30.0
    training: float = 3600.0
    training_stop: float = 120.0
    body: int = 6_291_456


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers` by lower-case name; `seconds` from the connection to the last byte."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def fine(self) -> bool:
        return 200 <= self.status < 300

    @property
    def media_type(self) -> str:
        return media_type(self.headers.get("content-type", ""))


@dataclass(frozen=True, slots=True)
class ContainerClient:
    """Speaks to the container at `host`:`port`. Every call raises NoAnswer where there is none in time."""

    host: str
    port: int
    limits: ReadLimits = field(default_factory=ReadLimits)

    def ping(self) -> Answer:
        return self.ask("GET", "/ping", within=self.limits.ping)

    def get(self, path: str) -> Answer:
        return self.ask("GET", path, within=self.limits.answer)

    def invoke(self, payload: Payload, headers: Mapping[str, str] | None = None) -> Answer:
        return self.post("/invocations", payload, headers)

    def transform(self, payload: Payload) -> Answer:
        """An invocation by batch transform, which waits longer."""
        return self.post("/invocations", payload, within=self.limits.transform)

    def post(
        self, path: str, payload: Payload, headers: Mapping[str, str] | None = None, *, within: float | None = None
    ) -> Answer:
        named = {"Content-Type": payload.content_type, **(headers or {})}
        return self.ask("POST", path, payload.body, named, within=within or self.limits.answer)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        within: float,
    ) -> Answer:
        started = time.monotonic()
        connection = self.connect(within)
        try:
            # A server may answer and close before it has read all: what it said counts.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, body, dict(headers or {}))
            return received(connection, started=started, within=within)
        except (OSError, HTTPException) as error:
            raise NoAnswer(_said(error)) from error
        finally:
            connection.close()

    def connect(self, within: float) -> HTTPConnection:
        """A connection that is open already."""
        connection = HTTPConnection(self.host, self.port, timeout=within)
        try:
            connection.connect()
        except OSError as error:
            raise NoAnswer(_said(error)) from error
        return connection

    def begin(self, payload: Payload) -> HTTPConnection:
        """An invocation of which the server has the head and half of the body."""
        connection = self.connect(self.limits.answer)
        connection.putrequest("POST", "/invocations")
        connection.putheader("Content-Type", payload.content_type)
        connection.putheader("Content-Length", str(len(payload.body)))
        try:
            connection.endheaders(payload.body[: len(payload.body) // 2])
        except OSError as error:
            connection.close()
            raise NoAnswer(_said(error)) from error
        return connection

    def finish(self, connection: HTTPConnection, payload: Payload) -> Answer:
        """The other half of what `begin` sent, and the answer."""
        started = time.monotonic()
        try:
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.send(payload.body[len(payload.body) // 2 :])
            return received(connection, started=started, within=self.limits.answer)
        except (OSError, HTTPException) as error:
            raise NoAnswer(_said(error)) from error
        finally:
            connection.close()


def http_address(url: str, who: str) -> tuple[str, int]:
    """Host and port of an address like http://127.0.0.1:8080. InputError, in the words of `who`, for any other."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host = None
    if not host or parts.scheme != "http" or parts.path not in ("", "/"):
        raise InputError(f"{url}: {who} wants an address like http://127.0.0.1:8080")
    return host, port


def received(connection: HTTPConnection, *, started: float, within: float) -> Answer:
    """The answer on a connection whose request is out; NoAnswer when it isn't whole `within` seconds of `started`."""
    response = connection.getresponse()
    body = bytearray()
    while chunk := response.read1(1 << 16):
        body += chunk
        if time.monotonic() - started > within:
            raise NoAnswer(f"no whole answer within {within:g} s")
    if response.length:
        raise NoAnswer(f"the answer was cut {response.length} bytes short")
    response.close()  # which leaves the connection open for the next request
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, bytes(body), time.monotonic() - started)


def decoded(body: bytes) -> object | None:
    """The JSON value, or None where the bytes aren't JSON (or say null)."""
    try:
        return msgspec.json.decode(body, type=object)
    except UNREADABLE:
        return None


def _said(error: BaseException) -> str:
    return "timed out" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}".rstrip(": ")
