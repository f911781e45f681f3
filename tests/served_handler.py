"""A handler of requests behind a real socket, in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from firstspin.service.http.connection import Connection
from firstspin.service.http.hub import ConnectionLimits, Hub
from firstspin.service.http.messages import Reply, Request
from firstspin.simulation.client import LoadClient

Handler = Callable[[Request], Reply | Awaitable[Reply]]


async def asked(handler: Handler, requests: list[bytes], connections: int = 3) -> list[tuple[int, bytes]]:
    """Status and body of each reply of a service that answers so, on a port of its own."""
    loop = asyncio.get_running_loop()
    hub = Hub(lambda turn: [handler(request) for request in turn], ConnectionLimits(), loop, lambda _: None)
    server = await loop.create_server(lambda: Connection(hub), "127.0.0.1", 0)
    client = LoadClient("127.0.0.1", server.sockets[0].getsockname()[1], connections, time.perf_counter_ns)
    try:
        replies = await client.ask(requests)
        assert all(reply.nanoseconds > 0 for reply in replies)
        return [(reply.status, reply.body) for reply in replies]
    finally:
        server.close()
        await asyncio.sleep(0.02)  # until the server has seen it
