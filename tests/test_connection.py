"""Whatever the handler does, nobody who asked is left without an answer."""

from __future__ import annotations

import asyncio

from served_handler import asked

from firstspin.service.connection import Reply, Request
from firstspin.simulation.client import get


def test_a_turn_that_fails_is_answered_and_the_connections_go_on() -> None:
    def sometimes(request: Request) -> Reply:
        if request.path == "/fail":
            raise ZeroDivisionError
        return Reply(200, b"fine")

    found = asyncio.run(asked(sometimes, [get("/fail"), get("/fine"), get("/fail"), get("/fine")], connections=1))
    assert [status for status, _ in found] == [500, 200, 500, 200]
