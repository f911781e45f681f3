"""SageMaker's side of the HTTP protocol: its requests to a container, and its timeouts.

Durations are measured here, with the monotonic clock.
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
"""The errors of decoding JSON: malformed JSON, invalid UTF-8, nesting too deep."""


class Unanswered(Exception):
    """No valid HTTP response: the server refused or closed the connection, timed out, or sent other bytes."""


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """SageMaker's timeouts in seconds, and its max body in bytes. Shorter timeouts make a faster, stricter check."""

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
    """A response: `headers` by lower-case name; `seconds` from the connection to the last byte."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def fine(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def media_type(self) -> str:
        """The content type without its parameters."""
        return media_type(self.headers.get("content-type", ""))


@dataclass(frozen=True, slots=True)
class ContainerClient:
    """A client of the container at `host`:`port`. Every call raises Unanswered where there is no response in time."""

    host: str
    port: int
    limits: ReadLimits = field(default_factory=ReadLimits)

    def ping(self) -> Answer:
        """GET /ping."""
        return self.ask("GET", "/ping", within=self.limits.ping)

    def get(self, path: str) -> Answer:
        """GET a path."""
        return self.ask("GET", path, within=self.limits.answer)

    def invoke(self, payload: Payload, headers: Mapping[str, str] | None = None) -> Answer:
        """POST /invocations."""
        return self.post("/invocations", payload, headers)

    def transform(self, payload: Payload) -> Answer:
        """POST /invocations with the longer timeout of batch transform."""
        return self.post("/invocations", payload, within=self.limits.transform)

    def post(
        self, path: str, payload: Payload, headers: Mapping[str, str] | None = None, *, within: float | None = None
    ) -> Answer:
        """POST a payload to a path; `within` is the timeout in seconds."""
        sent = {"Content-Type": payload.content_type, **(headers or {})}
        return self.ask("POST", path, payload.body, sent, within=within or self.limits.answer)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        within: float,
    ) -> Answer:
        """A request on a new connection; `within` is the timeout in seconds. Raises Unanswered where it fails."""
        started = time.monotonic()
        connection = self.connect(within)
        try:
            # A server may respond and close before it has read the whole request: the response counts.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, body, dict(headers or {}))
            return received(connection, started=started, within=within)
        except (OSError, HTTPException) as error:
            raise Unanswered(_summary(error)) from error
        finally:
            connection.close()

    def connect(self, within: float) -> HTTPConnection:
        """An open connection. Raises Unanswered where it can't be opened."""
        connection = HTTPConnection(self.host, self.port, timeout=within)
        try:
            connection.connect()
        except OSError as error:
            raise Unanswered(_summary(error)) from error
        return connection

    def begin(self, payload: Payload) -> HTTPConnection:
        """Send the head and half of the body of an invocation. Raises Unanswered where that fails."""
        connection = self.connect(self.limits.answer)
        connection.putrequest("POST", "/invocations")
        connection.putheader("Content-Type", payload.content_type)
        connection.putheader("Content-Length", str(len(payload.body)))
        try:
            connection.endheaders(payload.body[: len(payload.body) // 2])
        except OSError as error:
            connection.close()
            raise Unanswered(_summary(error)) from error
        return connection

    def finish(self, connection: HTTPConnection, payload: Payload) -> Answer:
        """Send the other half of what `begin` sent, and receive the response. Raises Unanswered where that fails."""
        started = time.monotonic()
        try:
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.send(payload.body[len(payload.body) // 2 :])
            return received(connection, started=started, within=self.limits.answer)
        except (OSError, HTTPException) as error:
            raise Unanswered(_summary(error)) from error
        finally:
            connection.close()


def http_address(url: str, who: str) -> tuple[str, int]:
    """Host and port of a URL like http://127.0.0.1:8080, for `who`. Raises InputError for any other URL."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host = None
    if not host or parts.scheme != "http" or parts.path not in ("", "/"):
        raise InputError(f"invalid URL {url}: {who} needs one like http://127.0.0.1:8080")
    return host, port


def received(connection: HTTPConnection, *, started: float, within: float) -> Answer:
    """The response to a sent request. Raises Unanswered where it is incomplete `within` seconds after `started`."""
    response = connection.getresponse()
    body = bytearray()
    while chunk := response.read1(1 << 16):
        body += chunk
        if time.monotonic() - started > within:
            raise Unanswered(f"no complete answer within {within:g} s")
    if response.length:
        raise Unanswered(f"the answer was cut {response.length} bytes short")
    response.close()  # which leaves the connection open for the next request
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, bytes(body), time.monotonic() - started)


def decoded(body: bytes) -> object | None:
    """The JSON value; None where the bytes are not JSON (or are null)."""
    try:
        return msgspec.json.decode(body, type=object)
    except UNREADABLE:
        return None


def _summary(error: BaseException) -> str:
    return "timed out" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}".rstrip(": ")
