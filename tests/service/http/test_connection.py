"""Whatever the handler does, nobody who asked is left without an answer."""

from __future__ import annotations

import asyncio
import gc
import select
import socket
import threading
import weakref
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
import uvloop
from in_threads import at_work
from served_handler import asked

from firstspin.service.http.connection import MAX_CHUNKS, Connection
from firstspin.service.http.hub import ConnectionLimits, Hub
from firstspin.service.http.messages import Reply, Request
from firstspin.simulation.client import get


def test_a_turn_that_fails_is_answered_and_the_connections_go_on() -> None:
    def sometimes(request: Request) -> Reply:
        if request.path == "/fail":
            raise ZeroDivisionError
        return Reply(200, b"fine")

    found = asyncio.run(asked(sometimes, [get("/fail"), get("/fine"), get("/fail"), get("/fine")], connections=1))
    assert [status for status, _ in found] == [500, 200, 500, 200]


class Watched(Connection):
    """A connection that notes what happens: bytes are read, or the loop turns."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self.seen: list[str] = []

    def data_received(self, data: bytes) -> None:
        self.seen.append("read")
        super().data_received(data)


def test_after_many_chunks_of_one_client_the_loop_turns_before_more_of_them_are_read() -> None:
    """libuv reads up to 32 times in a turn while there is something to read: more than a million chunks of a byte."""
    number = MAX_CHUNKS * 400
    sent = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * number + b"0\r\n\r\n"

    async def answered(ours: socket.socket) -> tuple[int, list[str]]:
        loop = asyncio.get_running_loop()
        length = loop.create_future()

        def handler(requests: Sequence[Request]) -> list[Reply]:
            length.set_result(len(requests[0].body))
            return [Reply(200, b"")]

        connection = Watched(Hub(handler, ConnectionLimits(), loop, lambda _: None))

        async def turn() -> None:
            while not length.done():
                connection.seen.append("turn")
                await asyncio.sleep(0)

        turning = loop.create_task(turn())
        transport, _ = await loop.connect_accepted_socket(lambda: connection, ours)
        await turning
        transport.abort()
        await asyncio.sleep(0)
        return length.result(), connection.seen

    left = threading.Event()

    def send(_number: int, _end: threading.Event) -> None:
        theirs.sendall(sent)
        left.set()

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    with theirs, at_work(1, send):
        while not left.wait(0.01) and select.select([], [theirs], [], 0)[1]:
            continue  # until the kernel holds as much as it can
        length, seen = uvloop.run(answered(ours))
    assert length == number
    assert seen.count("read") > 2
    assert ("read", "read") not in pairwise(seen)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_client_that_leaves_just_before_its_last_answer_is_no_failure(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    failures: list[object] = []

    async def served(ours: socket.socket, theirs: socket.socket) -> None:
        def handler(_: Sequence[Request]) -> list[Reply]:
            theirs.close()  # what is written now is answered with a reset, before the connection is shut down
            return [Reply(200, b"")]

        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: failures.append(context))
        hub = Hub(handler, ConnectionLimits(), loop, lambda _: None)
        await loop.connect_accepted_socket(lambda: Connection(hub), ours)
        theirs.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        while hub.connections:
            await asyncio.sleep(0)

    with socket.create_server(("127.0.0.1", 0)) as server, asyncio.Runner(loop_factory=new_loop) as runner:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
        runner.run(served(ours, theirs))
    assert failures == []


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_lost_connection_and_its_half_of_a_body_do_not_wait_for_the_garbage_collector(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    class Referenced(Connection):
        """A connection that may have weak references."""

    async def lost(ours: socket.socket, theirs: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        hub = Hub(lambda _: [], ConnectionLimits(), loop, lambda _: None)
        await loop.connect_accepted_socket(lambda: Referenced(hub), ours)
        [of_client] = map(weakref.ref, hub.connections)
        theirs.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2000000\r\n\r\n" + bytes(1_000_000))
        theirs.close()
        async with asyncio.timeout(30):
            while of_client() is not None:
                await asyncio.sleep(0.01)

    gc.disable()
    try:
        with socket.create_server(("127.0.0.1", 0)) as server, asyncio.Runner(loop_factory=new_loop) as runner:
            theirs = socket.create_connection(server.getsockname())
            ours, _ = server.accept()
            runner.run(lost(ours, theirs))
    finally:
        gc.enable()


def test_while_no_connection_is_idle_a_new_one_above_the_max_is_refused() -> None:
    async def refused() -> tuple[bytes, bytes]:
        loop = asyncio.get_running_loop()
        hub = Hub(lambda turn: [Reply(200, b"") for _ in turn], ConnectionLimits(connections=1), loop, lambda _: None)
        server = await loop.create_server(lambda: Connection(hub), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        whole = get("/")
        writer.write(whole + whole[:10])
        await reader.readuntil(b"\r\n\r\n")  # and the second request has begun
        other, of_other = await asyncio.open_connection(*address)
        refusal = await other.read()
        writer.write(whole[10:])
        answered = await reader.readuntil(b"\r\n\r\n")
        for one in (writer, of_other):
            one.close()
        server.close()
        await asyncio.sleep(0.02)
        return refusal, answered

    refusal, answered = asyncio.run(refused())
    assert refusal.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1\r\n" in refusal
    assert b"too_many_connections" in refusal
    assert answered.startswith(b"HTTP/1.1 200 ")
