"""A load client: a few keep-alive connections, one request at a time on each.

Requests are prepared bytes, and only status and body of a response are parsed, so that the client uses a small part
of the machine that it shares with the service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, cast

NO_ANSWER: Final = 0
"""The status of a request whose connection ended before its answer was whole."""

_HEAD_ENDS: Final = b"\r\n\r\n"
_LENGTH: Final = b"\r\ncontent-length: "


class TimedReply(NamedTuple):
    """The response to one request, and its time from the first byte sent to the last byte received."""

    status: int
    body: bytes
    nanoseconds: int


def post(path: str, body: bytes) -> bytes:
    """A request with a JSON body."""
    head = f"POST {path} HTTP/1.1\r\nhost: simulation\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + _HEAD_ENDS + body


def get(path: str) -> bytes:
    """A request without a body."""
    return f"GET {path} HTTP/1.1\r\nhost: simulation\r\n\r\n".encode()


class LoadClient:
    """Sends requests to (host, port) over `connections` connections; `now` is a monotonic clock in nanoseconds."""

    def __init__(self, host: str, port: int, connections: int, now: Callable[[], int]) -> None:
        self.now = now
        self._address, self._connections = (host, port), connections
        self._open: set[_Line] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._requests: Sequence[bytes] = ()
        self._waiting: Iterator[int] = iter(())
        self._replies: list[TimedReply | None] = []
        self._missing = 0
        self._done: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """Connect. Raises OSError where no server listens."""
        await asyncio.gather(*(self._connect() for _ in range(self._connections)))

    async def ask(self, requests: Sequence[bytes]) -> list[TimedReply]:
        """The replies, in the order of the requests; `NO_ANSWER` where the connection ended first."""
        if not requests:
            return []
        self._requests, self._waiting, self._replies = requests, iter(range(len(requests))), [None] * len(requests)
        self._missing = len(requests)
        self._done = asyncio.get_running_loop().create_future()
        for line in list(self._open):
            self._give_next(line)
        self._end_if_alone()
        await self._done
        return cast("list[TimedReply]", self._replies)

    async def close(self) -> None:
        """End all connections."""
        self._missing = 0
        for line in list(self._open):
            line.close()
        while self._open or self._opening:
            await asyncio.sleep(0.001)

    def received(self, line: _Line, reply: TimedReply) -> None:
        """A connection has its response. Unsolicited bytes (a closing notice) answer no request."""
        if line.number is None:
            return
        self._record(line, reply)
        self._give_next(line)

    def opened(self, line: _Line) -> None:
        """A connection is open and idle."""
        self._open.add(line)
        self._give_next(line)

    def lost(self, line: _Line) -> None:
        """A connection has ended, perhaps during a response."""
        self._open.discard(line)
        if line.number is not None:
            self._record(line, TimedReply(NO_ANSWER, b"", self.now() - line.began))
        if self._missing:
            task = asyncio.get_running_loop().create_task(self._connect_again())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _connect(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: _Line(self), *self._address)

    async def _connect_again(self) -> None:
        try:
            await self._connect()
        except OSError:
            self._opening.discard(cast("asyncio.Task[None]", asyncio.current_task()))
            self._end_if_alone()

    def _record(self, line: _Line, reply: TimedReply) -> None:
        assert line.number is not None
        self._replies[line.number] = reply
        line.number = None
        self._missing -= 1
        if not self._missing and self._done:
            self._done.set_result(None)

    def _give_next(self, line: _Line) -> None:
        number = next(self._waiting, None)
        if number is not None:
            line.send(number, self._requests[number], self.now())

    def _end_if_alone(self) -> None:
        """No connection is left: the remaining requests get no answer."""
        if self._open or self._opening or not self._missing:
            return
        for number in self._waiting:
            self._replies[number] = TimedReply(NO_ANSWER, b"", 0)
            self._missing -= 1
        if not self._missing and self._done and not self._done.done():
            self._done.set_result(None)


class _Line(asyncio.Protocol):
    """One connection."""

    __slots__ = ("_client", "_received", "_transport", "_whole", "began", "number")

    def __init__(self, client: LoadClient) -> None:
        self._client = client
        self._received = b""
        self._whole = 0  # bytes of the whole response, once its head is received
        self.number: int | None = None  # of the request under way
        self.began = 0

    def send(self, number: int, request: bytes, now: int) -> None:
        self.number, self.began = number, now
        self._transport.write(request)

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._client.opened(self)

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        if not self._whole:
            self._whole = _length(self._received)
        if not self._whole or len(self._received) < self._whole:
            return
        received, self._received, self._whole = self._received, b"", 0
        body = received[received.find(_HEAD_ENDS) + len(_HEAD_ENDS) :]
        self._client.received(self, TimedReply(int(received[9:12]), body, self._client.now() - self.began))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._client.lost(self)


def _length(received: bytes) -> int:
    """The number of bytes of the whole response; 0 while its head is incomplete."""
    end = received.find(_HEAD_ENDS)
    if end < 0:
        return 0
    head = received[:end].lower() + b"\r\n"
    start = head.find(_LENGTH)
    body = int(head[start + len(_LENGTH) : head.index(b"\r\n", start + len(_LENGTH))]) if start >= 0 else 0
    return end + len(_HEAD_ENDS) + body
