"""A worker process: an event loop that answers on one socket and takes orders from the supervisor.

A worker loads the current model before it listens, so that the replacement of a worker answers its first connection.
Another model comes by an order; it is loaded in a thread and put in place between two requests. When the supervisor's
end of the channel is closed, the worker shuts down gracefully: it finishes the requests in work and ends.
"""

from __future__ import annotations

import _thread
import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from firstspin.records import InputError, readable
from firstspin.service.app import App
from firstspin.service.http.connection import Connection
from firstspin.service.http.hub import ConnectionLimits, Hub
from firstspin.service.metrics import ProcessMetrics
from firstspin.service.process.containment import Containment
from firstspin.service.process.descriptors import Descriptors
from firstspin.service.process.listening import BACKLOG
from firstspin.service.served_model import ServedModel
from firstspin.serving import bundle
from firstspin.serving.bodies.limits import MAX_INSTANCES

log = logging.getLogger(__name__)

SWEEP_SECONDS = 0.5
BEAT_SECONDS = 0.5
MAX_REASON = 1_000
LOAD_SECONDS = 30.0
RETRY_SECONDS = 1.0
GARBAGE = 20_000
"""New objects between two runs of the garbage collector: those of an answer have no cycles, and need none."""
OTHER_ORDER_SECONDS = 5.0
"""How long a worker without a model waits for another order before it listens and answers 503."""


class Order(msgspec.Struct, frozen=True):
    """A message to a worker: serve the bundle in this folder, or have it as `challenger` of a canary.

    The name of a folder may be any bytes.
    """

    folder: bytes
    id: str
    number: int
    challenger: bool = False


class WorkerMessage(msgspec.Struct, frozen=True):
    """A message from a worker, by `what`.

    `up`: it accepts connections. `loaded`: it serves the bundle `id`. `refused`: it could not load the bundle of the
    order `number`. Both say whether that is a `challenger`. `closed`: it accepts no more connections. `store`: its
    event store is unavailable, or available again where `reason` is empty.
    """

    what: Literal["up", "loaded", "refused", "closed", "store"]
    id: str = ""
    reason: str = ""
    number: int = -1  # of the order
    challenger: bool = False


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """Limits of a worker's connections and requests, and the times of its graceful shutdown, in seconds."""

    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    max_registrations: int | None = MAX_INSTANCES
    drain_delay: float = 2.0  # from not ready to no new connections
    drain_seconds: float = 20.0
    close_seconds: float = 26.0  # from the end of readiness to the end of the process


@dataclass(frozen=True, slots=True)
class WorkerIO:
    """A worker's listening socket, its channel to the supervisor, its metrics, and a clock for the Date header."""

    listener: socket.socket
    channel: socket.socket
    tally: ProcessMetrics
    date: Callable[[], str]


def load(folder: Path, config: WorkerConfig = WorkerConfig()) -> ServedModel:
    """A bundle, checked and ready to serve. Raises InputError with the reason where it can't be loaded."""
    return ServedModel.of(bundle.load(folder), max_instances=config.max_registrations)


class Worker:
    """The worker's loop."""

    def __init__(self, io: WorkerIO, app: App, config: WorkerConfig) -> None:
        self._io, self._app, self._config = io, app, config
        self._stop = asyncio.Event()
        self._orphan = False
        self._orders: asyncio.Queue[Order] = asyncio.Queue()
        self._buffer = b""
        self._model = ""
        self._reported_trouble = ""

    async def run(self, first: Sequence[Order]) -> float:
        """Serve, from the `first` models on, until SIGTERM, then drain; the seconds left until the process must end."""
        loop = asyncio.get_running_loop()
        count = partial(self._io.tally.count, "firstspin_worker_errors")
        self._contained = Containment("worker", count, loop.time)
        beating = loop.create_task(self._beat())
        hub = Hub(self._app, self._config.limits, loop, self._app.refused)
        self._descriptors = Descriptors(hub, self._io.tally)
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        self._io.channel.setblocking(False)
        loop.add_reader(self._io.channel, self._read_orders)
        for order in first:
            await (self._take(order) if order.challenger else self._take_first(order))
        gc.freeze()  # the model stays, so the garbage collector need not traverse it
        gc.set_threshold(GARBAGE)
        server = await loop.create_server(partial(Connection, hub), sock=self._io.listener, backlog=BACKLOG)
        obeying = loop.create_task(self._obey())
        self._send(WorkerMessage("up"))
        await self._until_stopped(hub)
        end = loop.time() + self._config.close_seconds
        await self._drain(hub, server)
        obeying.cancel()
        beating.cancel()
        return end - loop.time()

    async def _beat(self) -> None:
        """Send heartbeats from the loop's first turn on: the supervisor kills a worker without them."""
        while True:
            self._io.tally.beat()
            await asyncio.sleep(BEAT_SECONDS)

    async def _until_stopped(self, hub: Hub) -> None:
        while not self._stop.is_set():
            self._sweep(hub)
            try:
                await asyncio.wait_for(self._stop.wait(), SWEEP_SECONDS)
            except TimeoutError:
                continue

    def _sweep(self, hub: Hub) -> None:
        """Run the periodic steps, twice a second; a failing step does not prevent the others."""
        self._contained("deadlines", hub.sweep)
        self._contained("room", self._descriptors.bound)
        self._contained("refresh", self._app.refresh)
        if self._app.store_trouble != self._reported_trouble:
            self._reported_trouble = self._app.store_trouble
            self._send(WorkerMessage("store", reason=self._reported_trouble[:MAX_REASON]))
        hub.head = f"date: {self._io.date()}\r\n".encode()
        self._io.tally.gauge("firstspin_connections", len(hub.connections))
        self._io.tally.gauge("firstspin_ready", int(self._app.ready))

    async def _drain(self, hub: Hub, server: asyncio.Server) -> None:
        """Shut down gracefully: not ready, `drain_delay` for load balancers, no new connections, finish requests."""
        loop = asyncio.get_running_loop()
        self._app.draining = hub.closing = True
        end = loop.time() + self._config.drain_seconds
        if not self._orphan:
            await self._wait(hub, loop.time() + self._config.drain_delay, until_empty=False)
        server.close()
        self._send(WorkerMessage("closed"))
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
            read = self._io.channel.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            read = b""
        if not read:
            asyncio.get_running_loop().remove_reader(self._io.channel)
            self._orphan = True
            self._stop.set()
        *lines, self._buffer = (self._buffer + read).split(b"\n")
        for line in lines:
            try:
                self._orders.put_nowait(msgspec.json.decode(line, type=Order))
            except Exception as problem:
                self._refuse(None, problem)

    async def _take_first(self, first: Order) -> None:
        """Load a model before this worker listens. Where it can't be loaded, wait for another order for a while."""
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
        """Serve another model; where it can't be loaded, report the reason and continue with the old one."""
        try:
            try:
                serving = await self._load(order)
            except (OSError, MemoryError):  # may be temporary: retry once
                await asyncio.sleep(RETRY_SECONDS)
                serving = await self._load(order)
            if serving.responses.model != order.id:
                raise InputError(f"the folder has the model {serving.responses.model}")
            (self._app.challenge if order.challenger else self._app.serve)(serving)
        except Exception as problem:
            self._refuse(order, problem)
            return
        self._model = self._model if order.challenger else order.id
        self._io.tally.gauge("firstspin_ready", int(self._app.ready))
        self._send(WorkerMessage("loaded", order.id, challenger=order.challenger))

    async def _load(self, order: Order) -> ServedModel:
        """Load in a thread, with a timeout of LOAD_SECONDS; a hanging thread does not delay the end of the process."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[ServedModel | Exception] = loop.create_future()

        def settle(outcome: ServedModel | Exception) -> None:
            if not done.done():  # not after the timeout
                done.set_result(outcome)

        def work() -> None:
            outcome: ServedModel | Exception
            try:
                outcome = load(Path(os.fsdecode(order.folder)), self._config)
            except Exception as problem:
                outcome = problem
            except BaseException as problem:
                outcome = InputError(f"loading it ended with {type(problem).__name__}")
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(settle, outcome)

        _thread.start_new_thread(work, ())  # `Thread.start` would wait for a thread that can't begin for lack of memory
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
        number, challenger = (order.number, order.challenger) if order else (-1, False)
        reason = readable(reason)[:MAX_REASON]
        self._send(WorkerMessage("refused", reason=reason, number=number, challenger=challenger))

    def _send(self, message: WorkerMessage) -> None:
        try:
            self._io.channel.send(msgspec.json.encode(message) + b"\n")
        except OSError:
            log.warning("the supervisor does not read the messages of this worker")
