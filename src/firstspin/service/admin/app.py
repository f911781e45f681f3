"""The admin port: state, reload, rollback, erasure, and the pages /ops and /docs, in its own process.

The process has no model. It sends orders to the supervisor over a socket and replies with their results. The port
listens on 127.0.0.1 by default, and requires an admin key where the service has keys. A web page in an operator's
browser could reach it too, so cross-origin requests are refused (`cross_origin`). Connections and errors are handled
as on the service's port.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from functools import partial
from itertools import count
from typing import Annotated, Any, Final, TypeVar

import msgspec

from firstspin.events.database import Database
from firstspin.events.erasure import Erasure, erase
from firstspin.events.schema import Secret, Unavailable
from firstspin.records import InputError
from firstspin.service.admin.operations import EVENTS, Operations
from firstspin.service.admin.recorder import SAMPLE_SECONDS, ServiceState
from firstspin.service.admin.routes import BUNDLE_ID, ROUTES, Erased, description, page
from firstspin.service.api_keys import Keys
from firstspin.service.http.connection import Connection
from firstspin.service.http.cross_origin import Hosts, refuse_foreign, refuse_other_types
from firstspin.service.http.hub import NEVER, ConnectionLimits, Hub
from firstspin.service.http.messages import RETRY, Reply, Request, Work
from firstspin.service.metrics import ProcessMetrics
from firstspin.service.pages.site import STATIC_FILES, static_file
from firstspin.service.process.containment import Containment
from firstspin.service.process.descriptors import Descriptors
from firstspin.service.process.worker import BEAT_SECONDS
from firstspin.service.routes import dispatch, not_taken
from firstspin.serving.bodies.wire import UserId
from firstspin.serving.refusal import Refusal

log = logging.getLogger(__name__)

MAX_ANSWER: Final = 65_536
ORDER_SECONDS: Final = 5.0
"""How long an order is valid, from its request on; its answer is awaited for a second more."""

ERASE_SECONDS: Final = 60.0
RESPONSE_SECONDS: Final = 1.5
"""How long an event store may take to open before an erasure: one that hangs is not waited for."""

FINISH_SECONDS: Final = 5.0
SILENT_SECONDS: Final = 15.0
"""How long the recording does not ask a supervisor again that did not answer: unread orders would pile up."""

MAX_STREAMS: Final = 16
"""Max readers of /ops/live; each is one unit of work in flight, and further ones get 503."""

LIMITS: Final = ConnectionLimits(body=4 * 2**20, connections=64, in_flight=MAX_STREAMS)
NO_STORE: Final = b"cache-control: no-store\r\n"

Done = TypeVar("Done")
Body = TypeVar("Body", bound=msgspec.Struct)


class Users(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of an erasure."""

    user_ids: Annotated[tuple[UserId, ...], msgspec.Meta(min_length=1, max_length=1_000)]


class Rollback(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a rollback: the bundle that is expected to be the previous one, if the caller names it."""

    to: Annotated[str, msgspec.Meta(pattern=BUNDLE_ID)] | None = None


@dataclass(frozen=True, slots=True)
class AdminContext:
    """The socket to the supervisor, clocks, the host names, the page /ops, the keys and the event store, if any.

    `now` is the time of day, `clock` the supervisor's monotonic clock in seconds.
    """

    supervisor: socket.socket
    now: Callable[[], datetime]
    clock: Callable[[], float]
    hosts: Hosts
    operations: Operations
    keys: Keys | None = None
    store: tuple[Callable[..., Database], Secret] | None = None
    """Makes the event store's database, with the `patience` of `open_database`; and the store's secret."""


class AdminApp:
    """Answers the admin port. Orders and erasures run in a thread each, one at a time, with a timeout."""

    def __init__(self, context: AdminContext) -> None:
        self._context = context
        self._ordering, self._erasing = ThreadPoolExecutor(1, "order"), ThreadPoolExecutor(1, "erase")
        self._numbers = count(1)
        self._ordered = asyncio.Event()
        self._silent_until = 0.0
        operations = context.operations
        answers: dict[str, Callable[[Request], Reply | Awaitable[Reply]]] = {
            "/state": lambda _: self._order("state"),
            "/reload": lambda _: self._order("reload"),
            "/rollback": lambda request: self._order("rollback", _body(request.body or b"{}", Rollback).to),
            "/erase": lambda request: self._erase(_body(request.body, Users)),
            "/": lambda request: operations.page(request, keyed=context.keys is not None),
            "/ops": lambda request: operations.page(request, keyed=context.keys is not None),
            "/ops.json": lambda _: operations.json(),
            "/ops/live": self._live,
            "/openapi.json": lambda _: Reply(200, description()),
            "/docs": lambda _: page(),
        }
        static = {(method, path): static_file for path in STATIC_FILES for method in ("GET", "HEAD")}
        self._answers = dispatch(ROUTES, answers) | static
        self._open = {route.path for route in ROUTES if not route.keyed} | STATIC_FILES.keys()

    def __call__(self, requests: Sequence[Request]) -> list[Reply | Awaitable[Reply]]:
        """Replies to these requests, in order."""
        return [self._reply(request) for request in requests]

    def _reply(self, request: Request) -> Reply | Awaitable[Reply]:
        try:
            reply = self._routed(request)
        except Refusal as refusal:
            return self._context.operations.error(request, _refused(refusal))
        except Exception as problem:
            return _failed(problem)
        if isinstance(reply, Work):
            return reply
        return _not_stored(reply) if isinstance(reply, Reply) else _awaited(reply)

    def _routed(self, request: Request) -> Reply | Awaitable[Reply]:
        context = self._context
        refuse_foreign(request.headers, context.hosts)
        if request.path not in self._open:
            self._admit(request)
        answer = self._answers.get((request.method, request.path))
        if answer is None:
            return not_taken(ROUTES, request.path)
        if request.method == "POST":
            refuse_other_types(request.headers)
        return answer(request)

    def _admit(self, request: Request) -> None:
        """Check the key, where the service has keys. Raises Refusal for a request without an admin key."""
        if keys := self._context.keys:
            keys.refresh()
            keys.check(request.headers, self._context.now(), admin=True)

    # ------------------------------------------------------------------------------------------------------- recording

    def _live(self, request: Request) -> Reply | Work:
        if request.method == "HEAD":
            return Reply(200, b"", EVENTS)
        return Work(1, lambda: self._context.operations.live(partial(self._admit, request)))

    async def record(self, contained: Containment) -> None:
        """Record every SAMPLE_SECONDS, and at once after an order, until cancelled."""
        while True:
            self._ordered.clear()
            state = await self._state()
            contained("record", self._context.operations.record, state)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ordered.wait(), SAMPLE_SECONDS)

    async def _state(self) -> ServiceState | None:
        """The supervisor's answer to `state`, or None where there is none."""
        now = asyncio.get_running_loop().time()
        if now < self._silent_until:
            return None
        try:
            return msgspec.convert(await self._outcome("state"), ServiceState)
        except Exception:  # whatever is wrong with the answer, the recording goes on
            self._silent_until = now + SILENT_SECONDS
            return None

    # ---------------------------------------------------------------------------------------------------------- orders

    async def _order(self, word: str, expected: str | None = None) -> Reply:
        outcome = await self._outcome(word, expected)
        self._silent_until = 0.0
        self._ordered.set()
        if not outcome["ok"]:
            raise Refusal(409, "conflict", str(outcome["reason"]))
        return Reply(200, msgspec.json.encode(outcome))

    async def _outcome(self, order: str, expected: str | None = None) -> dict[str, Any]:
        """The supervisor's answer. It carries out no overdue order, so one refused with 503 is not done later."""
        until = self._context.clock() + ORDER_SECONDS
        late = Refusal(503, "supervisor_unavailable", "the supervisor does not answer now; try again, and see /state")
        work = partial(self._send, order, until, expected, late)
        return await self._within(ORDER_SECONDS + 1, late, self._ordering, work)

    def _send(self, word: str, until: float, expected: str | None, late: Refusal) -> dict[str, Any]:
        """The supervisor's answer to an order. A late answer to an earlier order has another number and is skipped."""
        number, line = next(self._numbers), self._context.supervisor
        if (left := until - self._context.clock()) <= 0:  # it waited for another one
            raise late
        try:
            line.settimeout(left + 1)
            line.send(f"{word} {number} {until} {expected or ''}".encode())
            while True:
                outcome: dict[str, Any] = msgspec.json.decode(line.recv(MAX_ANSWER))
                if outcome.pop("order") == number:
                    if outcome.get("overdue"):
                        raise late
                    return outcome
        except (OSError, msgspec.DecodeError) as problem:  # an empty answer: the supervisor has ended
            raise late from problem

    # --------------------------------------------------------------------------------------------------------- erasure

    async def _erase(self, users: Users) -> Reply:
        if self._context.store is None:
            raise Refusal(409, "no_event_store", "this service has no event store")
        database, secret = self._context.store
        unusable = Refusal(503, "events_unavailable", "the event store can't be used now; try again")
        late = Refusal(503, "events_unavailable", "the erasure is not done yet; send it again, which is safe")

        def check() -> None:
            with closing(database(patience=RESPONSE_SECONDS / 3)) as opened:
                opened.open()

        def erasure() -> Erasure:
            with closing(database()) as opened:
                return erase(opened, secret, users.user_ids, now=self._context.now())

        try:
            await self._within(RESPONSE_SECONDS, unusable, self._erasing, check)
            done = await self._within(ERASE_SECONDS, late, self._erasing, erasure)
        except (Unavailable, OSError):
            raise unusable from None
        except InputError as problem:
            raise Refusal(409, "conflict", str(problem)) from None
        return Reply(200, msgspec.json.encode(Erased(True, done.deleted, done.compacted)))

    async def _within(
        self, seconds: float, late: Refusal, thread: ThreadPoolExecutor, work: Callable[[], Done]
    ) -> Done:
        try:
            return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(thread, work), seconds)
        except TimeoutError:
            raise late from None


def _body(body: bytes | bytearray, kind: type[Body]) -> Body:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError:
        raise Refusal(422, "invalid", "the body is not what /docs shows") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal(400, "malformed", "the body is not JSON") from None


async def _awaited(reply: Awaitable[Reply]) -> Reply:
    try:
        return _not_stored(await reply)
    except Refusal as refusal:
        return _refused(refusal)
    except Exception as problem:
        return _failed(problem)


def _refused(refusal: Refusal) -> Reply:
    return Reply(refusal.status, refusal.body(), headers=NO_STORE + (RETRY if refusal.status == 503 else b""))


def _not_stored(reply: Reply) -> Reply:
    """The reply, which no cache may store unless it says otherwise."""
    return reply if b"cache-control: " in reply.headers else reply._replace(headers=reply.headers + NO_STORE)


def _failed(problem: Exception) -> Reply:
    log.error("an admin request failed", extra={"problem": type(problem).__name__}, exc_info=True)
    return _refused(Refusal(500, "internal", "internal error; the log has its place"))


def run(context: AdminContext, listener: socket.socket, tally: ProcessMetrics) -> None:
    """Serve until SIGTERM, with a heartbeat twice a second."""
    asyncio.run(_serve(context, listener, tally))


async def _serve(context: AdminContext, listener: socket.socket, tally: ProcessMetrics) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    app = AdminApp(context)
    hub = Hub(app, LIMITS, loop, lambda _: None)
    descriptors = Descriptors(hub, tally)
    tally.beat()
    recording = loop.create_task(
        app.record(Containment("admin", partial(tally.count, "firstspin_admin_errors"), loop.time))
    )
    server = await loop.create_server(partial(Connection, hub), sock=listener)

    async def turns(seconds: float, done: Callable[[], bool]) -> None:
        end = loop.time() + seconds
        while not done() and loop.time() < end:
            tally.beat()
            hub.sweep()
            descriptors.bound()
            hub.head = f"date: {format_datetime(context.now(), usegmt=True)}\r\n".encode()
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait() if not stop.is_set() else asyncio.sleep(0.05), BEAT_SECONDS)

    await turns(NEVER, stop.is_set)
    recording.cancel()
    server.close()
    context.operations.close()
    hub.close()
    await turns(FINISH_SECONDS, lambda: not hub.connections)
