"""Requests that have arrived whole, and the forms of their replies."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

JSON: Final = b"application/json"
RETRY: Final = b"retry-after: 1\r\n"


class Request(NamedTuple):
    """A complete request. Header names are in lower case; `path` and `query` are the target's origin form."""

    method: str
    path: str
    query: bytes
    headers: dict[bytes, bytes]
    body: bytes | bytearray


class Reply(NamedTuple):
    """A reply in one piece. `headers` are additional ones, each ended by CR LF."""

    status: int
    body: bytes | bytearray
    content_type: bytes = JSON
    headers: bytes = b""


class StreamedReply(NamedTuple):
    """A reply written piece by piece, each when the client has read enough of those before it (backpressure).

    In HTTP/1.1 each piece is a chunk. In HTTP/1.0, which has no chunks, the end of the connection ends the reply.
    """

    status: int
    pieces: AsyncGenerator[bytes | bytearray, None]
    content_type: bytes = JSON
    headers: bytes = b""


@dataclass(frozen=True, slots=True)
class Work(Awaitable[Reply]):
    """A reply that takes many turns of the loop. It is cancelled when the client leaves.

    Its cost is counted in `registrations`; `reply` starts it. Awaited, it gives a reply in one piece.
    """

    registrations: int
    reply: Callable[[], Coroutine[Any, Any, Reply | StreamedReply]]

    def __await__(self) -> Generator[Any, Any, Reply]:
        return self._whole().__await__()

    async def _whole(self) -> Reply:
        reply = await self.reply()
        if isinstance(reply, Reply):
            return reply
        return Reply(reply.status, b"".join([piece async for piece in reply.pieces]), reply.content_type, reply.headers)


Handler = Callable[[Sequence[Request]], Sequence[Reply | Awaitable[Reply]]]
