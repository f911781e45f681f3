"""Raw bytes on a connection: HTTP as others write it, and what is none."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from made_app import new_app
from made_bundles import pack

from firstspin.service.http.connection import Connection
from firstspin.service.http.hub import ConnectionLimits, Hub
from firstspin.service.process.worker import load
from fuzz import http, values
from fuzz.inputs import Broken, Check, Input

SMALL = ConnectionLimits(head=2_000, body=3_000, in_flight=4)
"""Limits that inputs of a few kB can pass."""

UNAVAILABLE = (b'"code":"overloaded"', b'"code":"events_unavailable"')
"""What a 503 may say here: too many requests in one turn, and no event store."""


@contextmanager
def opened(folder: Path) -> Iterator[Check]:
    pack(folder / "b")
    app = new_app()
    app.serve(load(folder / "b"))
    loop = asyncio.new_event_loop()
    problems: list[object] = []
    loop.set_exception_handler(lambda _, told: problems.append(told.get("exception") or told["message"]))
    with http.logged() as log:

        def check(made: Input) -> str:
            hub = Hub(app, SMALL, loop, lambda _: None)
            parts = parts_of(made, stream(made))
            received = loop.run_until_complete(_exchange(hub, parts))
            made.note("received", received)
            log.check()
            if problems:
                raise Broken(f"an exception in the loop: {problems.pop()!r}")
            for left in list(hub.connections):
                left.deadline = -1.0  # it waits a moment for an end that has come already
            hub.sweep()
            loop.run_until_complete(asyncio.sleep(0))
            if hub.connections:
                raise Broken("the connection is still counted after its end")
            return check_replies(b"".join(parts), received)

        try:
            yield check
        finally:
            loop.close()


async def _exchange(hub: Hub, parts: list[bytes]) -> bytes:
    """Send the parts one after the other, then nothing more; what came back until the other side closed."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    loop = asyncio.get_running_loop()
    await loop.connect_accepted_socket(lambda: Connection(hub), theirs)
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0)
        if writer.can_write_eof():
            writer.write_eof()
        received = await reader.read()
    except ConnectionError:
        received = b""  # it closed while we were still sending
    writer.close()
    for _ in range(5):
        await asyncio.sleep(0)
    return received


def check_replies(sent: bytes, received: bytes) -> str:
    """The replies are whole, none is a 5xx, and nothing follows a refusal that ends the connection."""
    statuses = []
    while received:
        head, end, rest = received.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        words = lines[0].split(b" ", 2)
        if not end or len(words) != 3 or words[0] != b"HTTP/1.1" or not words[1].isdigit():
            raise Broken(f"this is no reply: {received[:200]!r}")
        if words[1] == b"100":
            received = rest
            continue
        headers = dict(line.lower().split(b": ", 1) for line in lines[1:])
        if headers.get(b"transfer-encoding") == b"chunked":
            _, end, rest = rest.partition(b"\r\n0\r\n\r\n")
            length = 0 if end else len(rest) + 1
        else:
            length = int(headers[b"content-length"])
        if b"HEAD" in sent and (not rest or rest.startswith(b"HTTP/1.1 ")):
            length = 0
        if len(rest) < length:
            raise Broken(f"a reply was cut off: {received[-200:]!r}")
        status, body, received = int(words[1]), rest[:length], rest[length:]
        if length and not (status == 503 and any(code in body for code in UNAVAILABLE)):
            http.check_reply(status, body)
        if received and headers.get(b"connection") == b"close":
            raise Broken(f"a reply after the last one: {received[:200]!r}")
        statuses.append(status)
    return " ".join(map(str, statuses[:2])) or "none"


# --------------------------------------------------------------------------------------------------------------- bytes


METHODS = b"GET|POST|HEAD|PUT|OPTIONS|TRACE|CONNECT|PRI|get|POST ||\x16\x03\x01".split(b"|")
TARGETS = (
    *b"/ping|/invocations|/|*|http://x/ping|//ping|/ping?a=b#c|/%70ing|/ping%00|/../ping||/a b|/\xff".split(b"|"),
    *b"https://user:pw@x/ping|x:443|/metrics|/openapi.json|/v1/events|http://x|http:///ping".split(b"|"),
    b"/" + b"a" * 3000,
)
VERSIONS = b"HTTP/1.1|HTTP/1.0|HTTP/2.0|HTTP/0.9|HTTP/1.2|http/1.1|HTTP/1.1 ||HTTP/11|X/1.1".split(b"|")
HEADERS = (
    *b"Host: y|Host:|host : x| Host: x|Content-Length: 0|Content-Length: +5|Content-Length: 5, 5".split(b"|"),
    *b"Content-Length: -1|Content-Length: 99999999999999999999|Content-Length: 0x5|Content-Length: 5\r\n 5".split(b"|"),
    *b"Transfer-Encoding: chunked|Transfer-Encoding: gzip, chunked|Transfer-Encoding: chunked, identity".split(b"|"),
    *b"Transfer-Encoding: xchunked|Transfer-Encoding : chunked|Transfer-Encoding:\x0bchunked|TE: trailers".split(b"|"),
    *b"Connection: close|Connection: keep-alive|Connection: Upgrade, HTTP2-Settings|Upgrade: h2c".split(b"|"),
    *b"Upgrade: websocket|Expect: 100-continue|Expect: x|Accept: */*|Accept: text/html|Trailer: Host".split(b"|"),
    *b"Content-Type: text/csv|Content-Encoding: gzip|Range: bytes=0-1|If-None-Match: *|Cookie: a=b".split(b"|"),
    *b"\xff: \xff|X\x00Y: z|X: a\x00b|X: a\rb|: x|x|X-Forwarded-For: 1".split(b"|"),
    b"X-API-Key: " + values.MARK.encode(),
    b"X: " + b"a" * 2500,
)


def stream(made: Input) -> bytes:
    """What one client sends: a few requests, some of them damaged, or no request at all."""
    if made.chance(0.04):
        return made.random.randbytes(made.number(0, 500))
    sent = b"".join(_request(made) for _ in range(made.pick((1, 1, 1, 2, 3, 8))))
    return values.mutated(made, sent) if made.chance(0.2) else sent


def parts_of(made: Input, sent: bytes) -> list[bytes]:
    """The same bytes as they may arrive: at once, in a few pieces, or one by one."""
    if made.chance(0.5):
        return [sent]
    if len(sent) < 200 and made.chance(0.2):
        return [sent[i : i + 1] for i in range(len(sent))]
    cuts = sorted(made.number(0, len(sent)) for _ in range(made.number(1, 6)))
    return [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]


def _request(made: Input) -> bytes:
    good = made.chance(0.6)
    method = made.pick((b"GET", b"POST", b"POST")) if good or made.chance(0.7) else made.pick(METHODS)
    path = b"/invocations" if method == b"POST" else b"/ping"
    target = path if good or made.chance(0.7) else made.pick(TARGETS)
    version = b"HTTP/1.1" if good or made.chance(0.8) else made.pick(VERSIONS)
    headers = [b"Host: x"] if good or made.chance(0.9) else []
    body = b""
    if method == b"POST":
        headers.append(b"Content-Type: application/json")
        content = made.pick((b"{}", b'{"age":31}', b'{"genres":["Rock"]}', b"", http.json_body(made)))[:8_000]
        body = _chunked(made, content, good) if made.chance(0.4) else content
        headers.append(b"Transfer-Encoding: chunked" if body != content else b"Content-Length: %d" % len(content))
    if not good:
        headers += [made.pick(HEADERS) for _ in range(made.number(0, 3))]
        made.random.shuffle(headers)
    end = b"\r\n" if good or made.chance(0.9) else made.pick((b"\n", b"\r", b"\r\r\n", b" \r\n"))
    return b" ".join((method, target, version)) + end + b"".join(header + end for header in headers) + end + body


def _chunked(made: Input, content: bytes, good: bool) -> bytes:
    """The content in chunks; the sizes may lie, and something may stand after the last."""
    size = made.pick((1, 3, 100, 10_000))
    chunks = [content[i : i + size] for i in range(0, len(content), size)]
    lines = []
    for chunk in chunks:
        said = b"%x" % (
            len(chunk) if good or made.chance(0.95) else made.pick((0, len(chunk) + 1, 2**32, 2**64, 2**70))
        )
        more = (
            b""
            if good or made.chance(0.9)
            else made.pick((b";a=b", b";" + b"x" * 3000, b" ", b"\n", b"g", b";\xff", b"_"))
        )
        lines.append(said + more + b"\r\n" + chunk + b"\r\n")
    trailers = (
        b""
        if good or made.chance(0.7)
        else made.pick((b"Host: y\r\n", b"X-API-Key: k\r\n", b"A: b\r\n" * 900, b"x\r\n"))
    )
    return b"".join(lines) + b"0\r\n" + trailers + b"\r\n"
