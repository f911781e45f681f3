"""All connections of a worker: their limits, and the requests that are answered together.

All requests that have arrived in one turn of the loop are handed over together when it ends: the model, too large for
the nearest caches, is then fetched once for all of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from firstspin.service.http.messages import Handler, Reply, Request, Work
from firstspin.serving.bodies.limits import MAX_BODY_BYTES
from firstspin.serving.refusal import Refusal

log = logging.getLogger(__name__)

NEVER: Final = float("inf")
IN_FLIGHT: Final = 32_768  # three requests of the size allowed by default, or about two seconds of work
TURN: Final = 512
"""Max requests answered in one turn of the loop."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Sizes in bytes, times in seconds; per connection, except the last two, which are per worker.

    `in_flight` is the max number of registrations in work, or in replies that their clients have not read yet.
    """

    head: int = 16_384
    body: int = MAX_BODY_BYTES
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 75.0
    write_seconds: float = 30.0
    linger_seconds: float = 2.0
    connections: int = 4_096
    in_flight: int = IN_FLIGHT


class Client(Protocol):
    """A connection, as the hub handles it; `deadline` in seconds of the loop's clock."""

    deadline: float

    @property
    def resting(self) -> bool:
        """Whether no part of a request has arrived."""

    def answer(self, reply: Reply | Awaitable[Reply], method: str, keep_alive: bool) -> None:
        """Write the reply to the request handed over, or begin it."""

    def refuse(self, refusal: Refusal) -> None:
        """Reply with an error and end the connection."""

    def expire(self) -> None:
        """End the connection, whose deadline has passed."""

    def close(self) -> None:
        """End the connection when what is written has left."""


class Hub:
    """All connections of a worker, and the limits that they share."""

    def __init__(
        self,
        handler: Handler,
        limits: ConnectionLimits,
        loop: asyncio.AbstractEventLoop,
        refused: Callable[[int], None],
    ) -> None:
        """`refused` is called with the status of every request that does not reach the handler."""
        self.handler, self.limits, self.loop, self.refused = handler, limits, loop, refused
        self.connections: dict[Client, None] = {}
        self.idle: dict[Client, None] = {}  # the longest idle first
        self.room = limits.connections
        self.closed_for_room = 0
        self.now = loop.time()  # as of the last sweep: near enough for deadlines
        self._asked: list[tuple[Client, Request, bool]] = []  # in this turn of the loop
        self.working = 0  # registrations, of all `Work` that was begun and is not read yet
        self.head = b""  # further headers of every answer, each ended by CR LF
        self.closing = False  # every answer from now on is the connection's last

    def ask(self, connection: Client, request: Request, keep_alive: bool) -> bool:
        """Queue a request for the end of this turn of the loop; False where the turn is full.

        A reply 503 costs a tenth of an answer, so that an overloaded worker recovers.
        """
        if len(self._asked) >= min(TURN, self.limits.in_flight) and request.path != "/ping":
            return False
        if not self._asked:
            self.loop.call_soon(self._answer)
        self._asked.append((connection, request, keep_alive))
        return True

    def begin(self, work: Work) -> bool:
        """Count the work's registrations; False where they exceed the max in work. Alone, any number is accepted."""
        if self.working and self.working + work.registrations > self.limits.in_flight:
            return False
        self.working += work.registrations
        return True

    def _answer(self) -> None:
        asked, self._asked = self._asked, []
        try:
            replies = self.handler([request for _, request, _ in asked])
        except Exception:  # every client gets a reply
            log.exception("a turn of requests failed")
            replies = [Reply(500, Refusal(500, "internal", "this is our mistake").body())] * len(asked)
        for (connection, request, keep_alive), reply in zip(asked, replies, strict=True):
            connection.answer(reply, request.method, keep_alive)

    def sweep(self) -> None:
        """Close the connections past their deadlines. To be called about twice a second."""
        self.now = self.loop.time()
        for connection in [c for c in self.connections if c.deadline < self.now]:
            connection.expire()

    def opened(self, connection: Client) -> None:
        """Register a connection; above the max, the one idle for longest is closed, or this one gets a 503."""
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
        """Close the connections idle for longest until the max is kept."""
        for connection in list(self.idle)[: max(0, len(self.connections) - self.room)]:
            connection.close()
            self.closed_for_room += 1

    def gone(self, connection: Client) -> None:
        """Forget a connection that has ended."""
        self.connections.pop(connection, None)
        self.idle.pop(connection, None)

    def close(self) -> None:
        """Close idle connections now, the others after their next reply."""
        self.closing = True
        for connection in list(self.connections):
            if connection.resting:
                connection.close()
