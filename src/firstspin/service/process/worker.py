"""One worker: a loop that answers on one socket, and takes orders from the process that started it.

Where there is a model already it loads that first and then begins to listen, so that a worker in the place of another
never turns anyone away. Another model comes by an order; it is loaded in a thread and put in place between two
requests. When the other end of the channel is gone, so is the service: the
worker finishes what has begun and ends.
"""

from __future__ import annotations

import _thread
import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from firstspin.records import InputError, readable
from firstspin.service.app import App, ServedModel
from firstspin.service.http.connection import Connection
from firstspin.service.http.hub import ConnectionLimits, Hub
from firstspin.service.metrics import ProcessMetrics
from firstspin.service.process.containment import Containment
from firstspin.service.process.descriptors import Descriptors
from firstspin.service.process.listening import BACKLOG
from firstspin.serving import bundle
from firstspin.serving.wire import MAX_INSTANCES

log = logging.getLogger(__name__)

SWEEP_SECONDS = 0.5
BEAT_SECONDS = 0.5
MAX_REASON = 1_000
LOAD_SECONDS = 30.0
AGAIN_SECONDS = 1.0
OTHER_ORDER_SECONDS = 5.0
"""How long a worker without a model waits for another order before it listens and answers 503."""


class Order(msgspec.Struct, frozen=True):
    """To a worker: serve the bundle in this folder. The name of a folder may be any bytes."""

    folder: bytes
    id: str
    number: int


class Word(msgspec.Struct, frozen=True):
    """From a worker: it accepts connections, has taken a bundle, could not, or accepts no more connections.

    Or why its event store takes nothing; an empty `reason` says that it does again.
    """

    what: Literal["up", "loaded", "refused", "closed", "store"]
    id: str = ""
    reason: str = ""
    number: int = -1  # of the order that was refused


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """How a worker answers and ends."""

    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    most_newcomers: int | None = MAX_INSTANCES
    drain_delay: float = 2.0
    drain_seconds: float = 20.0
    close_seconds: float = 26.0  # from the end of readiness to the end of the process


@dataclass(frozen=True, slots=True)
class WorkerIO:
    """Where a worker works: its listening socket, its channel, what it counts, and a clock for the Date header."""

    listener: socket.socket
    channel: socket.socket
    tally: ProcessMetrics
    date: Callable[[], str]


def load(folder: Path, manners: WorkerConfig = WorkerConfig()) -> ServedModel:
    """A bundle, checked and ready to answer. Raises InputError with the reason where it is not."""
    return ServedModel.of(bundle.load(folder), max_instances=manners.most_newcomers)


class Worker:
    """The worker's loop and what it is waiting for."""

    def __init__(self, place: WorkerIO, app: App, manners: WorkerConfig) -> None:
        self._place, self._app, self._manners = place, app, manners
        self._stop = asyncio.Event()
        self._orphan = False
        self._orders: asyncio.Queue[Order] = asyncio.Queue()
        self._left = b""
        self._model = ""
        self._said_of_store = ""

    async def run(self, first: Order | None) -> float:
        """Answer, from the `first` model on, until told to stop; then finish what has begun.

        The seconds that are left then for what else has to end.
        """
        loop = asyncio.get_running_loop()
        count = partial(self._place.tally.count, "firstspin_worker_errors")
        self._contained = Containment("worker", count, loop.time)
        beating = loop.create_task(self._beat())
        hub = Hub(self._app, self._manners.limits, loop, self._app.refused)
        self._descriptors = Descriptors(hub, self._place.tally)
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        self._place.channel.setblocking(False)
        loop.add_reader(self._place.channel, self._read_orders)
        if first:
            await self._take_first(first)
        gc.freeze()  # what is loaded stays: the collector need not go through it again and again
        server = await loop.create_server(partial(Connection, hub), sock=self._place.listener, backlog=BACKLOG)
        obeying = loop.create_task(self._obey())
        self._say(Word("up"))
        await self._until_stopped(hub)
        end = loop.time() + self._manners.close_seconds
        await self._drain(hub, server)
        obeying.cancel()
        beating.cancel()
        return end - loop.time()

    async def _beat(self) -> None:
        """Say that this loop turns, from its first turn on: the supervisor kills a worker that is silent."""
        while True:
            self._place.tally.beat()
            await asyncio.sleep(BEAT_SECONDS)

    async def _until_stopped(self, hub: Hub) -> None:
        while not self._stop.is_set():
            self._sweep(hub)
            try:
                await asyncio.wait_for(self._stop.wait(), SWEEP_SECONDS)
            except TimeoutError:
                continue

    def _sweep(self, hub: Hub) -> None:
        """What is due twice a second, each by itself: one that fails does not keep the others from being done."""
        self._contained("deadlines", hub.sweep)
        self._contained("room", self._descriptors.bound)
        self._contained("refresh", self._app.refresh)
        if self._app.store_trouble != self._said_of_store:
            self._said_of_store = self._app.store_trouble
            self._say(Word("store", reason=self._said_of_store[:MAX_REASON]))
        hub.head = f"date: {self._place.date()}\r\n".encode()
        self._place.tally.gauge("firstspin_connections", len(hub.connections))
        self._place.tally.gauge("firstspin_ready", int(self._app.ready))

    async def _drain(self, hub: Hub, server: asyncio.Server) -> None:
        """Readiness off; a delay for load balancers to notice; no new connections; finish; end."""
        loop = asyncio.get_running_loop()
        self._app.draining = hub.closing = True
        end = loop.time() + self._manners.drain_seconds
        if not self._orphan:
            await self._wait(hub, loop.time() + self._manners.drain_delay, until_empty=False)
        server.close()
        self._say(Word("closed"))
        hub.close()
        await self._wait(hub, end, until_empty=True)

    async def _wait(self, hub: Hub, end: float, *, until_empty: bool) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < end and not (until_empty and not hub.connections):
            self._sweep(hub)
            await asyncio.sleep(0.02)

    # ---------------------------------------------------------------------------------------------------------- orders

    def _read_orders(self) -> None:
        try:
            read = self._place.channel.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            read = b""
        if not read:
            asyncio.get_running_loop().remove_reader(self._place.channel)
            self._orphan = True
            self._stop.set()
        *lines, self._left = (self._left + read).split(b"\n")
        for line in lines:
            try:
                self._orders.put_nowait(msgspec.json.decode(line, type=Order))
            except Exception as problem:
                self._refuse(None, problem)

    async def _take_first(self, first: Order) -> None:
        """Load a model before this worker listens; where it can't be loaded, the supervisor may send another one."""
        loop = asyncio.get_running_loop()
        end = loop.time() + OTHER_ORDER_SECONDS
        await self._take(first)
        while not self._model and not self._stop.is_set() and loop.time() < end:
            with suppress(TimeoutError):
                await self._take(await asyncio.wait_for(self._orders.get(), SWEEP_SECONDS))

    async def _obey(self) -> None:
        while True:
            await self._take(await self._orders.get())

    async def _take(self, order: Order) -> None:
        """Serve another model, or say why not and go on with the old one: no failure ends the loop of a worker."""
        try:
            try:
                serving = await self._load(order)
            except (OSError, MemoryError):  # what is short now may not be in a moment
                await asyncio.sleep(AGAIN_SECONDS)
                serving = await self._load(order)
            if serving.responses.model != order.id:
                raise InputError(f"the folder holds {serving.responses.model}")
            self._app.serve(serving)
        except Exception as problem:
            self._refuse(order, problem)
            return
        self._model = order.id
        self._place.tally.gauge("firstspin_ready", int(self._app.ready))
        self._say(Word("loaded", order.id))

    async def _load(self, order: Order) -> ServedModel:
        """Load in a thread that nothing waits for longer than LOAD_SECONDS, not even the end of the process."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[ServedModel | Exception] = loop.create_future()

        def settle(outcome: ServedModel | Exception) -> None:
            if not done.done():  # it may have taken too long
                done.set_result(outcome)

        def work() -> None:
            outcome: ServedModel | Exception
            try:
                outcome = load(Path(os.fsdecode(order.folder)), self._manners)
            except Exception as problem:
                outcome = problem
            except BaseException as problem:
                outcome = InputError(f"loading it ended with {type(problem).__name__}")
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(settle, outcome)

        _thread.start_new_thread(work, ())  # `Thread.start` would wait for a thread that finds no memory to begin
        try:
            outcome = await asyncio.wait_for(done, LOAD_SECONDS)
        except TimeoutError:
            raise InputError(f"loading it takes over {LOAD_SECONDS:g} s") from None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _refuse(self, order: Order | None, problem: Exception) -> None:
        known = isinstance(problem, (InputError, OSError, MemoryError))
        log.log(logging.WARNING if known else logging.ERROR, "an order failed", exc_info=not known)
        reason = str(problem) or type(problem).__name__
        self._say(Word("refused", reason=readable(reason)[:MAX_REASON], number=order.number if order else -1))

    def _say(self, word: Word) -> None:
        try:
            self._place.channel.send(msgspec.json.encode(word) + b"\n")
        except OSError:
            log.warning("nobody listens to this worker")
