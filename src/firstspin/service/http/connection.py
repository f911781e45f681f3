"""HTTP/1.1 on a socket: what a request must pass before the service sees it, and how an answer leaves.

httptools (Node's llhttp) parses, strictly; this file keeps the limits that no Python server keeps by default: a size
for the head (431), for trailers and chunk framing (431), and for the body (413, before reading all); a deadline for the
head, the body (408), an idle connection and a slow reader; a number of connections, of requests answered in one turn of
the loop, and of registrations in work (503 with Retry-After).

All requests that have arrived in one turn of the loop are handed over together when it ends: the model, too large for
the nearest caches, is then fetched once for all of them. Answering is a matter of microseconds and needs no task; a
handler may return a future instead, or `Work` where an answer takes many turns. Either way the next request of the same
connection is not read until this one is answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, NamedTuple, cast

import httptools

from firstspin.service.http import head
from firstspin.serving.wire import LARGEST_BODY, Refusal

log = logging.getLogger(__name__)

JSON: Final = b"application/json"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
RETRY: Final = b"retry-after: 1\r\n"
LEFT: Final = 499
"""The status under which a request is counted whose client left before the answer, as nginx has it."""

NEVER: Final = float("inf")
IN_FLIGHT: Final = 32_768  # three requests of the size allowed by default, or about two seconds of work
TURN: Final = 512
"""How many requests are answered in one turn of the loop."""

HALF_CLOSED: Final = 1_024
"""A client that has closed its sending half may have left altogether. It gets an answer about at most so many."""

MAX_CHUNKS: Final = 1_024
"""A client that sends more chunks in one read is read on in another turn of the loop, since each costs as a request."""

COPIED: Final = 65_536
"""A body of up to so many bytes is written together with its head, a longer one without being copied."""

NO_TRAILERS: Final = frozenset((b"connection", b"content-length", b"host", b"transfer-encoding", b"upgrade"))
"""Fields by which the parser would go on after the trailers as after a head (RFC 9110, 6.5.1, forbids them there)."""

_BEGIN: Final = {int(status): f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Request(NamedTuple):
    """A request that arrived whole. Header names are in lower case; `path` and `query` are the target's origin form."""

    method: str
    path: str
    query: bytes
    headers: dict[bytes, bytes]
    body: bytes | bytearray


class Reply(NamedTuple):
    """What goes back. `headers` are further ones, each ended by CR LF."""

    status: int
    body: bytes | bytearray
    content_type: bytes = JSON
    headers: bytes = b""


class StreamedReply(NamedTuple):
    """A reply that is written piece by piece, each one when the client has read enough of those before it.

    In HTTP/1.1 each piece is a chunk. In HTTP/1.0, which has none, the end of the connection ends the reply.
    """

    status: int
    pieces: AsyncGenerator[bytes | bytearray, None]
    content_type: bytes = JSON


@dataclass(frozen=True, slots=True)
class Work(Awaitable[Reply]):
    """A reply that takes many turns of the loop to make. It ends when the client leaves.

    `registrations` says how much work it is; `reply` begins it. Awaited, it is a reply in one piece.
    """

    registrations: int
    reply: Callable[[], Coroutine[Any, Any, Reply | StreamedReply]]

    def __await__(self) -> Generator[Any, Any, Reply]:
        return self._whole().__await__()

    async def _whole(self) -> Reply:
        reply = await self.reply()
        if isinstance(reply, Reply):
            return reply
        return Reply(reply.status, b"".join([piece async for piece in reply.pieces]), reply.content_type)


Handler = Callable[[Sequence[Request]], Sequence[Reply | Awaitable[Reply]]]


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Sizes in bytes, times in seconds; per connection, except the last two, which are per worker.

    `in_flight` bounds the registrations that are in work, or answered in a reply that its client has not read yet.
    """

    head: int = 16_384
    body: int = LARGEST_BODY
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 75.0
    write_seconds: float = 30.0
    linger_seconds: float = 2.0
    connections: int = 4_096
    in_flight: int = IN_FLIGHT


class Hub:
    """All connections of a worker, and what they share."""

    def __init__(
        self,
        handler: Handler,
        limits: ConnectionLimits,
        loop: asyncio.AbstractEventLoop,
        refused: Callable[[int], None],
    ) -> None:
        """`refused` is told the status of every request that never reaches the handler."""
        self.handler, self.limits, self.loop, self.refused = handler, limits, loop, refused
        self.connections: dict[Connection, None] = {}
        self.idle: dict[Connection, None] = {}  # the longest idle first
        self.room = limits.connections
        self.closed_for_room = 0
        self.now = loop.time()  # as of the last sweep: near enough for deadlines
        self._asked: list[tuple[Connection, Request, bool]] = []  # in this turn of the loop
        self.working = 0  # registrations, of all `Work` that was begun and is not read yet
        self.head = b""  # further headers of every answer, each ended by CR LF
        self.closing = False  # every answer from now on is the connection's last

    def protocol(self) -> Connection:
        """A connection to come."""
        return Connection(self)

    def ask(self, connection: Connection, request: Request, keep_alive: bool) -> bool:
        """Have a request answered when this turn of the loop ends; False where there is no room for one more.

        Who would wait too long behind the others is told to come back, which takes a tenth of the time.
        """
        if len(self._asked) >= min(TURN, self.limits.in_flight) and request.path != "/ping":
            return False
        if not self._asked:
            self.loop.call_soon(self._answer)
        self._asked.append((connection, request, keep_alive))
        return True

    def begin(self, work: Work) -> bool:
        """Count this work in; False where so much is in work that it is one too many."""
        if self.working and self.working + work.registrations > self.limits.in_flight:
            return False
        self.working += work.registrations
        return True

    def _answer(self) -> None:
        asked, self._asked = self._asked, []
        try:
            replies = self.handler([request for _, request, _ in asked])
        except Exception:  # nobody is left waiting for what will not come
            log.exception("a turn of requests failed")
            replies = [Reply(500, Refusal(500, "internal", "this is our mistake").body())] * len(asked)
        for (connection, request, keep_alive), reply in zip(asked, replies, strict=True):
            connection.answer(reply, request.method, keep_alive)

    def sweep(self) -> None:
        """Close what is past its deadline. To be called about twice a second."""
        self.now = self.loop.time()
        for connection in [c for c in self.connections if c.deadline < self.now]:
            connection.expire()

    def opened(self, connection: Connection) -> None:
        self.connections[connection] = None
        if len(self.connections) > self.room:
            if self.idle:
                next(iter(self.idle)).close()
                self.closed_for_room += 1
            else:
                connection.refuse(Refusal(503, "too_many_connections", "try again in a moment"))
                return
        self.idle[connection] = None  # until it sends something

    def make_room(self) -> None:
        """Close the longest idle connections, as far as there are more than there is room for."""
        for connection in list(self.idle)[: max(0, len(self.connections) - self.room)]:
            connection.close()
            self.closed_for_room += 1

    def gone(self, connection: Connection) -> None:
        self.connections.pop(connection, None)
        self.idle.pop(connection, None)

    def close(self) -> None:
        """Answer what has begun to arrive, and nothing after it."""
        self.closing = True
        for connection in list(self.connections):
            if connection.resting:
                connection.close()


class Connection(asyncio.Protocol):
    """One client's connection."""

    __slots__ = (
        "_begun",
        "_body",
        "_chunks",
        "_drained",
        "_ending",
        "_framing",
        "_half_closed",
        "_has_chunks",
        "_head",
        "_headers",
        "_held",
        "_hub",
        "_in_head",
        "_owed",
        "_parser",
        "_paused",
        "_queue",
        "_refused",
        "_size",
        "_task",
        "_trailers",
        "_transport",
        "_url",
        "_working",
        "deadline",
    )

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[tuple[Request, bool]] = deque()
        self._owed = False  # a request has been handed over and is not yet answered
        self._held = False  # not reading on, because a request has begun or waits behind it
        self._half_closed = False  # the client sends nothing more
        self._task: asyncio.Task[Any] | None = None  # the work on the request handed over
        self._drained: asyncio.Future[None] | None = None  # awaited by a streamed reply while the client reads slowly
        self._has_chunks = True  # the client speaks HTTP/1.1
        self._working = 0  # its registrations, until the answer has left
        self._refused: Refusal | None = None
        self._paused = False  # the client reads more slowly than we write
        self._ending = False  # the last answer is written; what still arrives is thrown away
        self._begun, self._in_head, self._head = False, True, 0
        self._trailers = 0  # their bytes
        self._chunks = 0  # in this read
        self._framing = 0  # bytes that arrived since the last one of a body
        self._url, self._headers, self._size = b"", cast("dict[bytes, bytes]", {}), 0
        self._body: bytes | bytearray = b""
        self.deadline = hub.now + hub.limits.head_seconds

    # -------------------------------------------------------------------------------------------- the loop calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._hub.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._ending or self._refused:
            return
        if self._too_long(data) if self._in_head else self._too_much_framing(data):
            self.refuse(_headers_too_large(self._hub.limits))
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self._refused:
                self._stay(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.refuse(Refusal(400, "malformed_request", "this is not a request in HTTP/1.1"))
        if self._refused and not self._ending:
            self.refuse(self._refused)
        if self._chunks > MAX_CHUNKS:
            self._transport.pause_reading()
            self._hub.loop.call_soon(self._read_on)
        self._chunks = 0

    def _read_on(self) -> None:
        if not (self._held or self._paused or self._transport.is_closing()):
            self._transport.resume_reading()

    def eof_received(self) -> bool:
        """Whether to keep the connection open: a client that only half closed still gets the answer, if it is short."""
        self._half_closed = True
        return self._owed and self._working <= HALF_CLOSED

    def _stay(self, rest: bytes) -> None:
        """Somebody offers HTTP/2 or WebSocket: read the same request as HTTP/1.1, which a server may."""
        method = self._parser.get_method()
        if method == b"CONNECT":
            self.refuse(Refusal(400, "upgrade_refused", "this service is no proxy"))
            return
        kept = [
            name + b": " + value for name, value in self._headers.items() if name not in (b"upgrade", b"connection")
        ]
        version = self._parser.get_http_version().encode()
        self._parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join([method + b" " + self._url + b" HTTP/" + version, *kept, b"", rest]))

    def pause_writing(self) -> None:
        self._paused = True
        self._hub.idle.pop(self, None)
        self._transport.pause_reading()
        self.deadline = self._hub.now + self._hub.limits.write_seconds

    def resume_writing(self) -> None:
        self._paused = False
        self._worked()
        if self._drained and not self._drained.done():
            self._drained.set_result(None)
        if self._owed:
            self.deadline = NEVER
        elif not self._ending:
            self._rest()
            self._answer_queue()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._ending = True
        self._queue.clear()
        self._hub.gone(self)
        if self._task:
            self._task.cancel()
        self._worked()

    # ----------------------------------------------------------------------------------------- the parser calls these

    def on_message_begin(self) -> None:
        self._begun = self._in_head = True
        self._url, self._headers, self._body, self._size, self._trailers = b"", {}, b"", 0, 0
        if self._owed or self._queue:
            self._hold()
        else:
            self.deadline = self._hub.now + self._hub.limits.head_seconds
        self._hub.idle.pop(self, None)

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            self._drop_trailer(name, value)
            return
        name = name.lower()
        if name in self._headers:
            try:
                value = head.joined(name, self._headers[name], value)
            except Refusal as refusal:
                self._refused = refusal
        self._headers[name] = value

    def _drop_trailer(self, name: bytes, value: bytes) -> None:
        """Trailers are counted and dropped: they are no headers, and nothing that is said in one is heard."""
        self._trailers += len(name) + len(value) + 4
        if self._trailers > self._hub.limits.head:
            self._refused = _headers_too_large(self._hub.limits)
        elif name.lower() in NO_TRAILERS:
            self._refused = Refusal(400, "malformed_request", "this field can't be a trailer")

    def on_headers_complete(self) -> None:
        self._in_head, self._head, self._framing = False, 0, 0
        self._has_chunks = self._parser.get_http_version() != "1.0"
        if not self._owed:
            self.deadline = self._hub.now + self._hub.limits.body_seconds
        if self._refused:
            return
        try:
            self._url = head.origin_form(self._parser.get_http_version(), self._url, self._headers)
        except Refusal as refusal:
            self._refused = refusal
            return
        length = self._headers.get(b"content-length")
        if length is not None and int(length) > self._hub.limits.body:
            self._refused = self._too_large()
        elif b"expect" in self._headers and not (self._owed or self._ending):
            self._transport.write(CONTINUE)

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        self._chunks += 1
        self._framing = 0
        if self._size > self._hub.limits.body:
            self._refused, self._body = self._too_large(), b""
        elif not self._refused:
            if not self._body:
                self._body = body
            elif isinstance(self._body, bytearray):
                self._body += body
            else:
                self._body = bytearray(self._body) + body  # one piece of memory, however many chunks there are

    def on_message_complete(self) -> None:
        self._begun, self._in_head = False, True
        if self._refused or self._ending or self._parser.should_upgrade():
            return
        path, _, query = self._url.partition(b"?")
        method = self._parser.get_method().decode()
        request = Request(method, path.decode("latin-1"), query, self._headers, self._body)
        self._body = b""
        keep_alive = self._parser.should_keep_alive()
        if self._owed or self._queue or self._paused:
            self._queue.append((request, keep_alive))
            self._hold()
        else:
            self._ask(request, keep_alive)

    # -------------------------------------------------------------------------------------------------------- answering

    def _ask(self, request: Request, keep_alive: bool) -> None:
        if self._hub.ask(self, request, keep_alive):
            self._owed, self.deadline = True, NEVER
        else:
            self._write(self._overloaded(), request.method, keep_alive)

    def answer(self, reply: Reply | Awaitable[Reply], method: str, keep_alive: bool) -> None:
        """The request handed over is answered, or will be."""
        if isinstance(reply, Reply):
            self._done(reply, method, keep_alive)
        elif isinstance(reply, Work):
            self._work(reply, method, keep_alive)
        else:
            task = asyncio.ensure_future(reply, loop=self._hub.loop)
            task.add_done_callback(lambda task: self._done(task.result(), method, keep_alive))

    def _work(self, work: Work, method: str, keep_alive: bool) -> None:
        """Begin work that ends with the connection, where there is room for it and still a client."""
        if self._ending:
            return
        if self._half_closed and work.registrations > HALF_CLOSED:
            self._hub.refused(LEFT)
            self.close()
        elif not self._hub.begin(work):
            self._done(self._overloaded(), method, keep_alive)
        else:
            self._working = work.registrations
            self._task = self._hub.loop.create_task(work.reply())
            self._task.add_done_callback(lambda task: self._work_done(task, method, keep_alive))

    def _work_done(self, task: asyncio.Task[Reply | StreamedReply], method: str, keep_alive: bool) -> None:
        self._task = None
        if task.cancelled():
            self._hub.refused(LEFT)
        elif isinstance(reply := task.result(), StreamedReply):
            self._task = self._hub.loop.create_task(self._stream(reply, keep_alive))
            self._task.add_done_callback(self._streamed)
            return
        else:
            self._done(reply, method, keep_alive)
        if self._ending or not self._paused:
            self._worked()

    async def _stream(self, reply: StreamedReply, keep_alive: bool) -> bool:
        """Write a reply while its client reads it; whether it was the connection's last."""
        last = self._is_last(keep_alive) or not self._has_chunks
        framing = b"transfer-encoding: chunked\r\n" if self._has_chunks else b""
        self._transport.write(self._head_of(reply.status, reply.content_type, framing, last))
        async with aclosing(reply.pieces) as pieces:
            async for piece in pieces:
                if self._paused:
                    self._drained = self._hub.loop.create_future()
                    await self._drained
                if self._has_chunks:
                    self._transport.write(b"%x\r\n" % len(piece))
                self._transport.write(piece)
                if self._has_chunks:
                    self._transport.write(b"\r\n")
        if self._has_chunks:
            self._transport.write(b"0\r\n\r\n")
        return last or self._hub.closing

    def _streamed(self, task: asyncio.Task[bool]) -> None:
        """A reply is written, or can't be: what has begun can only be cut off."""
        self._task = None
        self._owed = False
        if task.cancelled():
            self._hub.refused(LEFT)
        elif problem := task.exception():
            self._hub.refused(500)
            log.error("a reply was cut off", extra={"problem": type(problem).__name__}, exc_info=problem)
            self._transport.abort()
        else:
            self._written(last=task.result())
            self._answered()
        if self._ending or not self._paused:
            self._worked()

    def _worked(self) -> None:
        """The answer has left, or nobody is there to read it."""
        if not self._task:
            self._hub.working -= self._working
            self._working = 0

    def _overloaded(self) -> Reply:
        self._hub.refused(503)
        return Reply(503, Refusal(503, "overloaded", "try again in a moment").body(), JSON, RETRY)

    def _hold(self) -> None:
        """Read no further request while one is being answered."""
        if not self._held:
            self._held = True
            self._transport.pause_reading()

    def _done(self, reply: Reply, method: str, keep_alive: bool) -> None:
        self._owed = False
        if self._ending:
            return
        self._write(reply, method, keep_alive)
        self._answered()

    def _answered(self) -> None:
        """Go on with what has arrived behind the request that is answered now."""
        if self._held:
            self._answer_queue()
        if self._refused and not (self._owed or self._queue or self._ending):
            self.refuse(self._refused)

    def _answer_queue(self) -> None:
        while self._queue and not (self._owed or self._paused or self._ending):
            self._ask(*self._queue.popleft())
        if not (self._queue or self._owed or self._paused or self._ending):
            self._held = False
            self._transport.resume_reading()

    def _write(self, reply: Reply, method: str, keep_alive: bool) -> None:
        last = self._is_last(keep_alive)
        body = b"" if method == "HEAD" else reply.body
        apart = len(body) > COPIED
        length = b"content-length: %d\r\n%b" % (len(reply.body), reply.headers)
        head_of = self._head_of(reply.status, reply.content_type, length, last)
        self._transport.write(head_of if apart else head_of + body)
        if apart:
            self._transport.write(body)
        self._written(last=last)

    def _is_last(self, keep_alive: bool) -> bool:
        return not keep_alive or self._hub.closing or (self._half_closed and not self._queue)

    def _head_of(self, status: int, content_type: bytes, headers: bytes, last: bool) -> bytes:
        end = b"connection: close\r\n\r\n" if last else b"\r\n"
        parts = (_BEGIN[status], b"content-type: ", content_type, b"\r\n", headers, self._hub.head, end)
        return b"".join(parts)

    def _written(self, *, last: bool) -> None:
        if last:
            self._end()
        elif not self._queue and not self._paused:
            self._rest()

    @property
    def resting(self) -> bool:
        """Whether nothing of a request is here."""
        return self._in_head and not (self._begun or self._head or self._owed or self._queue or self._paused)

    def _rest(self) -> None:
        """Between two requests, unless the next one has begun."""
        limits = self._hub.limits
        if self._begun or self._head:
            self.deadline = self._hub.now + (limits.head_seconds if self._in_head else limits.body_seconds)
            return
        self.deadline = self._hub.now + limits.idle_seconds
        self._hub.idle[self] = None

    # ---------------------------------------------------------------------------------------------------------- ending

    def refuse(self, refusal: Refusal) -> None:
        """Answer something that can't be served, after all that came before it, and end the connection."""
        self._refused = refusal
        if self._owed or self._queue:
            return
        self._hub.refused(refusal.status)
        headers = RETRY if refusal.status == 503 else b""
        self._write(Reply(refusal.status, refusal.body(), JSON, headers), "GET", keep_alive=False)

    def expire(self) -> None:
        """The deadline has passed."""
        if self._ending or self._paused:
            self._transport.abort()
        elif self in self._hub.idle:
            self.close()
        else:
            self.refuse(Refusal(408, "too_slow", "the request did not arrive in time"))

    def _end(self) -> None:
        """Half close, and read on for a moment: closing with unread data would take the answer away from the client."""
        self._ending = True
        self._queue.clear()
        self._hub.idle.pop(self, None)
        self.deadline = self._hub.now + self._hub.limits.linger_seconds
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def close(self) -> None:
        """End the connection when what is written has left."""
        self._ending = True
        self._hub.idle.pop(self, None)
        self.deadline = self._hub.now + self._hub.limits.linger_seconds
        self._transport.close()

    def _too_long(self, data: bytes) -> bool:
        """Whether the head, of which this is the next part, outgrows its limit."""
        limit = self._hub.limits.head
        self._head += len(data)
        return self._head > limit and data.find(b"\r\n\r\n", 0, limit + len(data) - self._head + 4) < 0

    def _too_much_framing(self, data: bytes) -> bool:
        """Whether trailers or a chunk's extensions, of which a parser takes any length, outgrow that limit too."""
        if self._framing > self._hub.limits.head:
            return True
        self._framing += len(data)
        return False

    def _too_large(self) -> Refusal:
        return Refusal(413, "body_too_large", f"a body may have {self._hub.limits.body} bytes")


def _headers_too_large(limits: ConnectionLimits) -> Refusal:
    return Refusal(431, "header_too_large", f"headers, and trailers, may be {limits.head} bytes in all")
