"""HTTP/1.1 on one socket: requests are parsed and checked, replies are written.

httptools (Node's llhttp) parses strictly. This module enforces the limits that Python servers leave out by default: the
size of the head, of trailers and of chunk framing (431), and of the body (413, before all of it is read); deadlines for
the head and the body (408), for an idle connection and for a slow reader. The limits that connections share are in
`hub`: connections, requests per turn of the loop, and registrations in work (503 with Retry-After).

Most replies take microseconds and need no task. A handler may return an awaitable instead, or `Work` where one takes
many turns. The next request of a connection is not read before the reply to this one is written.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable
from contextlib import aclosing, suppress
from http import HTTPStatus
from typing import Any, Final, cast

import httptools

from firstspin.service.http import head
from firstspin.service.http.hub import NEVER, ConnectionLimits, Hub
from firstspin.service.http.messages import JSON, RETRY, Reply, Request, StreamedReply, Work
from firstspin.serving.refusal import Refusal

log = logging.getLogger(__name__)

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LEFT: Final = 499
"""The status that counts requests whose client left before the reply (499 in nginx too)."""

HALF_CLOSED: Final = 1_024
"""Max registrations of a request whose client has closed its sending half: it may have left altogether."""

MAX_CHUNKS: Final = 1_024
"""Max chunks per read; the rest is read in another turn of the loop, since a chunk costs as much as a request."""

COPIED: Final = 65_536
"""Max bytes of a body that is copied behind its head; a longer one is written without a copy."""

NO_TRAILERS: Final = frozenset((b"connection", b"content-length", b"host", b"transfer-encoding", b"upgrade"))
"""Fields that the parser would obey in trailers as in a head; RFC 9110, 6.5.1, forbids them there."""

_BEGIN: Final = {int(status): f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Connection(asyncio.Protocol):
    """One client's connection: asyncio calls its methods for the socket, httptools for the parts of a request."""

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
        """Register with the hub."""
        self._transport = cast("asyncio.Transport", transport)
        self._hub.opened(self)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived; what is not HTTP/1.1 is refused with 400."""
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
        """Read a request that offers HTTP/2 or WebSocket as HTTP/1.1, as RFC 9110, 7.8, allows."""
        method = self._parser.get_method()
        if method == b"CONNECT":
            self.refuse(Refusal(400, "upgrade_refused", "this service is no proxy"))
            return
        lines = [
            name + b": " + value for name, value in self._headers.items() if name not in (b"upgrade", b"connection")
        ]
        version = self._parser.get_http_version().encode()
        self._parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join([method + b" " + self._url + b" HTTP/" + version, *lines, b"", rest]))

    def pause_writing(self) -> None:
        """The client reads more slowly than replies are written: read no further request."""
        self._paused = True
        self._hub.idle.pop(self, None)
        self._transport.pause_reading()
        self.deadline = self._hub.now + self._hub.limits.write_seconds

    def resume_writing(self) -> None:
        """The client has read enough: go on."""
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
        """Cancel the work for a client that has left, and free the body that has begun."""
        self._ending = True
        self._queue.clear()
        self._body = b""
        del self._parser  # the two refer to each other, and would be left to the garbage collector
        self._hub.gone(self)
        if self._task:
            self._task.cancel()
        self._worked()

    # ----------------------------------------------------------------------------------------- the parser calls these

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._begun = self._in_head = True
        self._url, self._headers, self._body, self._size, self._trailers = b"", {}, b"", 0, 0
        if self._owed or self._queue:
            self._hold()
        else:
            self.deadline = self._hub.now + self._hub.limits.head_seconds
        self._hub.idle.pop(self, None)

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field, or trailer field."""
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
        """Trailers are counted and dropped: they are no headers and have no effect."""
        self._trailers += len(name) + len(value) + 4
        if self._trailers > self._hub.limits.head:
            self._refused = _headers_too_large(self._hub.limits)
        elif name.lower() in NO_TRAILERS:
            self._refused = Refusal(400, "malformed_request", "this field can't be a trailer")

    def on_headers_complete(self) -> None:
        """The head is complete: check it before any of the body is read."""
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
        """A part of the body."""
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
        """The request is complete: hand it over, or queue it behind the one in work."""
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
        """Write the reply to the request handed over, or start the work that makes it."""
        if isinstance(reply, Reply):
            self._done(reply, method, keep_alive)
        elif isinstance(reply, Work):
            self._work(reply, method, keep_alive)
        else:
            task = asyncio.ensure_future(reply, loop=self._hub.loop)
            task.add_done_callback(lambda task: self._done(task.result(), method, keep_alive))

    def _work(self, work: Work, method: str, keep_alive: bool) -> None:
        """Start work, which is cancelled with the connection; 503 where too much is in work already."""
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
        """Write a reply piece by piece as the client reads; whether it was the connection's last."""
        last = self._is_last(keep_alive) or not self._has_chunks
        framing = b"transfer-encoding: chunked\r\n" if self._has_chunks else b""
        self._transport.write(self._head_of(reply.status, reply.content_type, reply.headers + framing, last))
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
        """A streamed reply has ended. After a failure the connection is cut off, since its status has been sent."""
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
        """The reply is written, or its client has left: its registrations are no longer in work."""
        if not self._task:
            self._hub.working -= self._working
            self._working = 0

    def _overloaded(self) -> Reply:
        self._hub.refused(503)
        return Reply(503, Refusal(503, "overloaded", "try again in a moment").body(), JSON, RETRY)

    def _hold(self) -> None:
        """Read no further request while one is in work."""
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
        """Go on with the requests that arrived behind the one answered now."""
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
        body = b"" if method == "HEAD" or reply.status == 304 else reply.body
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
        """Whether no part of a request has arrived."""
        return self._in_head and not (self._begun or self._head or self._owed or self._queue or self._paused)

    def _rest(self) -> None:
        """Set the deadline of an idle connection, unless the next request has begun."""
        limits = self._hub.limits
        if self._begun or self._head:
            self.deadline = self._hub.now + (limits.head_seconds if self._in_head else limits.body_seconds)
            return
        self.deadline = self._hub.now + limits.idle_seconds
        self._hub.idle[self] = None

    # ---------------------------------------------------------------------------------------------------------- ending

    def refuse(self, refusal: Refusal) -> None:
        """Reply with an error, after the replies to earlier requests, and end the connection."""
        self._refused = refusal
        if self._owed or self._queue:
            return
        self._hub.refused(refusal.status)
        headers = RETRY if refusal.status == 503 else b""
        self._write(Reply(refusal.status, refusal.body(), JSON, headers), "GET", keep_alive=False)

    def expire(self) -> None:
        """End the connection, whose deadline has passed: 408 where a request was incomplete."""
        if self._ending or self._paused:
            self._transport.abort()
        elif self in self._hub.idle:
            self.close()
        else:
            self.refuse(Refusal(408, "too_slow", "the request did not arrive in time"))

    def _end(self) -> None:
        """Half close and drain input for a moment: closing with unread data would reset the reply in transit."""
        self._ending = True
        self._queue.clear()
        self._hub.idle.pop(self, None)
        self.deadline = self._hub.now + self._hub.limits.linger_seconds
        if self._transport.can_write_eof():
            with suppress(OSError):  # the client has left; the loop reports it next
                self._transport.write_eof()

    def close(self) -> None:
        """End the connection when what is written has left."""
        self._ending = True
        self._hub.idle.pop(self, None)
        self.deadline = self._hub.now + self._hub.limits.linger_seconds
        self._transport.close()

    def _too_long(self, data: bytes) -> bool:
        """Whether the head exceeds its limit with this part."""
        limit = self._hub.limits.head
        self._head += len(data)
        return self._head > limit and data.find(b"\r\n\r\n", 0, limit + len(data) - self._head + 4) < 0

    def _too_much_framing(self, data: bytes) -> bool:
        """Whether trailers or chunk extensions, whose length the parser does not limit, exceed the limit of a head."""
        if self._framing > self._hub.limits.head:
            return True
        self._framing += len(data)
        return False

    def _too_large(self) -> Refusal:
        return Refusal(413, "body_too_large", f"a body may have {self._hub.limits.body} bytes")


def _headers_too_large(limits: ConnectionLimits) -> Refusal:
    return Refusal(431, "header_too_large", f"headers, and trailers, may be {limits.head} bytes in all")
