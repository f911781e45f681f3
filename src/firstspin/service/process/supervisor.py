"""The supervisor: the parent process, without threads, asyncio or a model, so that it does not fail with them.

It forks the workers and the admin process and restarts those that end or hang. It probes every new bundle in a child
process, where a corrupt file may crash, abort or hang, before any worker loads it. It carries out the operators' orders
from the admin port. Only SIGTERM and SIGINT end it: its loop is a sequence of steps, and a failing step is contained,
logged and counted in `_contained`.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from firstspin.models.compiled import MISSING
from firstspin.records import InputError
from firstspin.service.bundles.watch import BundleWatch
from firstspin.service.challenger.canary import stop_in_force
from firstspin.service.process.background_runs import BackgroundRuns
from firstspin.service.process.children import Child
from firstspin.service.process.containment import Containment
from firstspin.service.process.crew import HUNG_SECONDS, Crew, Slot
from firstspin.service.process.worker import Order, WorkerMessage

log = logging.getLogger(__name__)

MAX_WORKERS: Final = 64
STOP_SECONDS: Final = 28.0  # SageMaker kills after 30
TURN_SECONDS: Final = 0.25  # max time of a turn of the loop without events
PAUSE_SECONDS: Final = 1.5  # a longer turn means that this process itself was paused
REST_SECONDS: Final = 0.1  # after a turn in which something failed: a lasting failure must not cost a core
MAX_MESSAGE: Final = 65_536


@dataclass(frozen=True)
class SupervisorContext:
    """The supervisor's dependencies: a monotonic clock in seconds, a source of signal numbers, children's functions."""

    now: Callable[[], float]
    signals: int  # a file descriptor: one byte a signal
    run_worker: Callable[[Slot, Sequence[Order], socket.socket], int]
    run_admin: Callable[[Child, socket.socket], int]
    announce: Callable[[], None]


@dataclass
class Supervisor:
    """The loop over the processes of a service and the model they serve, and a canary's challenger if there is one."""

    models: BundleWatch
    crew: Crew
    context: SupervisorContext
    challenger: BundleWatch | None = None
    canary_stop: Path | None = None
    without_model: bool = False
    background: tuple[BackgroundRuns, ...] = ()
    announced: bool = False
    stopping: float | None = None
    status: int | None = None
    troubled: bool = False  # a step of this turn failed
    containment: Containment = field(init=False)

    def __post_init__(self) -> None:
        count = partial(self.crew.tally().count, "firstspin_supervisor_errors")
        self.containment = Containment("supervisor", count, self.context.now)

    @property
    def _bundles(self) -> tuple[BundleWatch, ...]:
        return (self.models, self.challenger) if self.challenger else (self.models,)

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; the exit status."""
        self.crew.now = self.context.now()
        self.crew.private.add(self.context.signals)
        while self.status is None:
            self._notice_pause(self.context.now())
            self.troubled = False
            self._turn()
            if self.troubled:
                time.sleep(REST_SECONDS)
        self._kill()
        return self.status

    def _turn(self) -> None:
        """Run every step once. A failing step does not prevent the others."""
        crew, now = self.crew, self.crew.now
        if self.stopping is None:
            self._start()
            for bundles in self._bundles:
                self._contained("bundle", bundles.look, now)
            for runs in self.background:
                self._contained(runs.step, runs.look, now)
        else:
            self._contained("stop", self._finish, self.stopping)
        for child in crew.running():
            self._contained("watch", crew.watch, child)
        for slot in crew.slots:
            self._contained("watch", crew.shut_uncovered, slot)
        for bundles in self._bundles:
            self._contained("bundle", bundles.kill_late, now)
        for runs in self.background:
            self._contained(runs.step, runs.kill_late, now)
        self._contained("listen", self._listen)
        self._contained("word", self._announce_once)
        self._contained("reap", self._reap)

    def _contained(self, step: str, work: Callable[..., object], *arguments: Any) -> None:
        """Run a step; an exception in it ends here."""
        if not self.containment(step, work, *arguments):
            self.troubled = True

    def _notice_pause(self, now: float) -> None:
        """After a pause (Ctrl-Z, a suspended machine) the children were paused too: extend their deadlines."""
        paused, self.crew.now = now - self.crew.now, now
        if paused < PAUSE_SECONDS:
            return
        log.warning("the service was paused", extra={"seconds": round(paused, 1)})
        self.crew.was_paused(paused)
        for bundles in self._bundles:
            bundles.was_paused(paused)
        for runs in self.background:
            runs.was_paused(paused)

    def _start(self) -> None:
        """Start every process that is due; one that can't be started does not prevent the others."""
        for slot in self.crew.slots:
            orders = [order for bundles in self._bundles if (order := bundles.order())]
            run = partial(self.context.run_worker, slot, orders)
            self._contained("start", self.crew.start_due, slot, run, socket.SOCK_STREAM)
        if admin := self.crew.admin:
            run = partial(self.context.run_admin, admin)
            self._contained("start", self.crew.start_due, admin, run, socket.SOCK_SEQPACKET)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for bundles in self._bundles:
                self._contained("bundle", bundles.ended, pid, status)
            for runs in self.background:
                self._contained(runs.step, runs.ended, pid, status)
            for child in self.crew.running():
                if child.pid == pid:
                    for bundles in self._bundles:
                        self._contained("bundle", bundles.worker_ended, child)
                    self._contained("reap", self.crew.ended, child, status)

    # -------------------------------------------------------------------------------------------- signals and messages

    def _listen(self) -> None:
        """Wait for the next signals, messages and orders, and handle them."""
        sources: dict[int, tuple[str, Callable[[], None]]] = {self.context.signals: ("signal", self._read_signals)}
        for slot in self.crew.slots:
            if slot.line:
                sources[slot.line.fileno()] = "word", partial(self._read_messages, slot, slot.line)
        if (admin := self.crew.admin) and admin.line:
            sources[admin.line.fileno()] = "order", partial(self._obey, admin, admin.line)
        waiting = select.poll()
        for source in sources:
            waiting.register(source, select.POLLIN)
        try:
            ready = waiting.poll(TURN_SECONDS * 1000)
        except OSError:  # fewer descriptors are allowed now than are open: SIGTERM must end this all the same
            self._contained("signal", self._read_signals)
            raise
        for source, _ in ready:
            self._contained(*sources[source])

    def _read_signals(self) -> None:
        try:
            numbers = os.read(self.context.signals, MAX_MESSAGE)
        except BlockingIOError:
            return
        for number in numbers:
            self._contained("signal", self._signal, number)

    def _signal(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            if self.stopping is not None:
                self.status = 128 + signal.SIGTERM
            else:
                self._stop()
        elif number == signal.SIGHUP:
            self._look_now()

    def _look_now(self) -> None:
        for bundles in self._bundles:
            bundles.look_now()

    def _read_messages(self, slot: Slot, line: socket.socket) -> None:
        try:
            read = line.recv(MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            read = b""
        *lines, slot.buffer = (slot.buffer + read).split(b"\n")
        for line_read in lines:
            self._contained("word", self._handle, slot, line_read)
        if not read or len(slot.buffer) > MAX_MESSAGE:  # the worker has ended, or sends garbage
            slot.hang_up()
            slot.kill()

    def _handle(self, slot: Slot, line: bytes) -> None:
        message = msgspec.json.decode(line, type=WorkerMessage)
        bundles = self.challenger if message.challenger and self.challenger else self.models
        if message.what == "loaded":
            bundles.worker_loaded(slot, message.id)
        elif message.what == "refused":
            bundles.worker_refused(slot, message.number, message.reason)
        elif message.what == "up":
            self.crew.is_up(slot)
        elif message.what == "store":
            slot.store_trouble = message.reason
        elif message.what == "closed":
            self.crew.accepts_no_more(slot)

    def _announce_once(self) -> None:
        """Announce the service when all workers are up, with a model, and with the challenger unless it is refused."""
        is_settled = self.challenger.is_settled if self.challenger else lambda _: True
        if not self.announced and all(
            slot.up and (slot.model or self.without_model) and is_settled(slot) for slot in self.crew.slots
        ):
            self.announced = True
            self.crew.tally().gauge("firstspin_started", 1)
            self.context.announce()

    # --------------------------------------------------------------------------------------------------------- orders

    def _obey(self, admin: Child, line: socket.socket) -> None:
        """Carry out an order of the admin process, and answer it in JSON.

        An order is a word, a number, its deadline, and for a rollback perhaps the bundle expected. An overdue one is
        not carried out: its client has been told that it failed.
        """
        order = line.recv(64)
        if not order:  # the admin process has ended; its replacement gets another line
            admin.hang_up()
            return
        word, number, until, *expected = order.decode().split()
        outcome: dict[str, object] = {"ok": False, "reason": "this could not be done; the log says why"}
        try:
            overdue = self.context.now() > float(until)
            outcome = {"ok": False, "overdue": True} if overdue else self._carried_out(word, *expected)
        finally:
            line.send(msgspec.json.encode(self._state() | outcome | {"order": int(number)}))

    def _carried_out(self, order: str, expected: str | None = None) -> dict[str, object]:
        try:
            if order == "reload":
                self._look_now()
            elif order == "rollback":
                return {"ok": True, "model": self.models.roll_back(expected)}
        except InputError as problem:
            return {"ok": False, "reason": str(problem)}
        except OSError as problem:
            log.error("an order failed", extra={"order": order, "reason": problem.strerror})
            return {"ok": False, "reason": f"the state folder can't be written: {problem.strerror}"}
        return {"ok": True}

    def _state(self) -> dict[str, object]:
        crew = self.crew
        state = self.models.state() | {"workers": [slot.state(crew.now) for slot in crew.slots]}
        state["compiled"] = not MISSING
        if self.challenger:
            state["challenger"] = self.challenger.state()
        if self.canary_stop and (stop := stop_in_force(self.canary_stop, crew.tallies)):
            state["canary_stop"] = stop
        return state | ({"admin": {"restarts": crew.admin.starts - 1}} if crew.admin else {})

    # --------------------------------------------------------------------------------------------------------- the end

    def _stop(self) -> None:
        log.info("stopping")
        self.stopping = self.context.now() + STOP_SECONDS
        self.crew.stopping = True
        for slot in self.crew.slots:
            if slot.pid:
                self._contained("stop", os.kill, slot.pid, signal.SIGTERM)

    def _finish(self, deadline: float) -> None:
        """Set the exit status once all workers have ended, or at the deadline."""
        if not any(slot.pid for slot in self.crew.slots):
            if all(runs.has_ended(self.crew.now) for runs in self.background):
                self.status = 0
        elif self.crew.now > deadline:
            self.status = 1

    def _kill(self) -> None:
        """Kill the remaining workers and the bundle probe. The admin process ends by itself, unless it hangs."""
        for slot in self.crew.slots:
            self._contained("stop", slot.kill)
        for bundles in self._bundles:
            if bundles.probe:
                self._contained("stop", os.kill, bundles.probe.pid, signal.SIGKILL)
        for runs in self.background:
            self._contained("stop", runs.kill)
        if (admin := self.crew.admin) and admin.silence(self.crew.now) > HUNG_SECONDS:
            self._contained("stop", admin.kill)
