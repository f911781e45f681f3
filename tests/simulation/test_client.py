from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest
from served_handler import asked

from firstspin.service.http.messages import Reply, Request
from firstspin.simulation.client import NO_ANSWER, LoadClient, get, post


def test_replies_come_in_the_order_of_the_requests() -> None:
    async def slowly(request: Request) -> Reply:
        await asyncio.sleep(0.001 * (int(request.body) % 3))
        return Reply(200, request.body * 3)

    found = asyncio.run(asked(slowly, [post("/", b"%d" % n) for n in range(50)]))
    assert found == [(200, b"%d" % n * 3) for n in range(50)]


def test_large_and_empty_answers_and_refusals_are_read_whole() -> None:
    sizes = {"/large": 300_000, "/empty": 0, "/refused": 10}

    def answer(request: Request) -> Reply:
        return Reply(404 if request.path == "/refused" else 200, b"x" * sizes[request.path])

    found = asyncio.run(asked(answer, [get(path) for path in sizes], connections=1))
    assert [(status, len(body)) for status, body in found] == [(200, 300_000), (200, 0), (404, 10)]


def test_a_request_that_is_cut_off_has_no_answer_and_the_others_go_on() -> None:
    async def cutting() -> list[int]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(asyncio.IncompleteReadError):
                while b"3!" not in await reader.readuntil(b"!"):
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        client = LoadClient("127.0.0.1", server.sockets[0].getsockname()[1], 2, time.perf_counter_ns)
        statuses = [reply.status for reply in await client.ask([post("/", b"%d!" % n) for n in range(8)])]
        server.close()
        await asyncio.sleep(0.02)
        return statuses

    assert asyncio.run(cutting()) == [200, 200, 200, NO_ANSWER, 200, 200, 200, 200]


def test_a_service_that_is_gone_leaves_the_rest_without_an_answer() -> None:
    async def leaving() -> list[int]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"!")
            server.close()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            await reader.readuntil(b"!")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        client = LoadClient("127.0.0.1", server.sockets[0].getsockname()[1], 1, time.perf_counter_ns)
        statuses = [reply.status for reply in await client.ask([post("/", b"%d!" % n) for n in range(5)])]
        await asyncio.sleep(0.02)
        return statuses

    assert asyncio.run(leaving()) == [200, NO_ANSWER, NO_ANSWER, NO_ANSWER, NO_ANSWER]


def test_a_connection_that_can_not_be_opened_loses_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    connect, refused = asyncio.open_connection, [OSError("refused")]

    async def open_connection(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if refused:
            raise refused.pop()
        return await connect(host, port)

    monkeypatch.setattr(asyncio, "open_connection", open_connection)
    found = asyncio.run(asked(lambda request: Reply(200, request.body), [post("/", b"%d" % n) for n in range(3)], 2))
    assert found == [(200, b"0"), (200, b"1"), (200, b"2")]


def test_a_port_without_a_server_is_an_error() -> None:
    async def alone() -> None:
        await LoadClient("127.0.0.1", 1, 1, time.perf_counter_ns).check()

    with pytest.raises(OSError, match="Connect"):
        asyncio.run(alone())
