"""A load client: a few keep-alive connections, one request at a time on each.

Requests are prepared bytes, and only status and body of a response are parsed, so that the client uses a small part
of the machine that it shares with the service.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

NO_ANSWER: Final = 0
"""The status of a request whose connection ended before its answer was whole."""

_HEAD_ENDS: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


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

    async def check(self) -> None:
        """Raises OSError where no server listens."""
        _, writer = await asyncio.open_connection(*self._address)
        writer.close()

    async def ask(self, requests: Sequence[bytes]) -> list[TimedReply]:
        """The replies, in the order of the requests; `NO_ANSWER` where the connection ended first."""
        replies = [TimedReply(NO_ANSWER, b"", 0)] * len(requests)
        waiting = deque(enumerate(requests))
        lines = min(self._connections, len(requests))
        await asyncio.gather(*(self._send(waiting, replies) for _ in range(lines)))
        return replies

    async def _send(self, waiting: deque[tuple[int, bytes]], replies: list[TimedReply]) -> None:
        """Send requests that wait, one after the other, on a connection that is replaced where it ends."""
        writer: asyncio.StreamWriter | None = None
        while waiting:
            if writer is None:
                try:
                    reader, writer = await asyncio.open_connection(*self._address)
                except OSError:  # the other connections answer what waits, if there is any
                    return
                continue  # perhaps nothing waits any more
            number, request = waiting.popleft()
            began = self.now()
            writer.write(request)
            try:
                status, body = await _received(reader)
            except (OSError, asyncio.IncompleteReadError):
                writer.close()
                status, body, writer = NO_ANSWER, b"", None
            replies[number] = TimedReply(status, body, self.now() - began)
        if writer:
            writer.close()


async def _received(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of a response. Raises IncompleteReadError where it is cut off."""
    head = await reader.readuntil(_HEAD_ENDS)
    length = _LENGTH.search(head)
    return int(head[9:12]), await reader.readexactly(int(length[1]) if length else 0)
