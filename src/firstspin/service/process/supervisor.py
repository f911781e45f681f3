"""The process that starts the others: no threads, no loop of asyncio, and no model, so that nothing can bring it down.

It forks the workers and the admin process and replaces those that end or hang; it tries every new bundle in a child of
its own, where a corrupt file may crash, abort or hang, before any worker hears of it; and it passes on what operators
ask for. Only SIGTERM and SIGINT end it: its loop takes one step after another, and what fails in a step is contained,
logged and counted in `_contained`.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import msgspec

from firstspin.models.compiled import MISSING
from firstspin.records import InputError
from firstspin.service.bundles.watch import BundleWatch
from firstspin.service.process.children import Child
from firstspin.service.process.containment import Containment
from firstspin.service.process.crew import HUNG_SECONDS, Crew, Slot
from firstspin.service.process.worker import Order, Word

log = logging.getLogger(__name__)

MOST_WORKERS: Final = 64
STOP_SECONDS: Final = 28.0  # SageMaker kills after 30
TURN_SECONDS: Final = 0.25
PAUSE_SECONDS: Final = 1.5  # a turn that takes so long says that this process itself stood still
REST_SECONDS: Final = 0.1  # after a turn in which something failed: a lasting failure must not cost a core
MAX_WORD: Final = 65_536


@dataclass(frozen=True)
class Outside:
    """What the supervisor is given from outside: clock in seconds, source of signal numbers, what its children do."""

    now: Callable[[], float]
    signals: int  # a file descriptor: one byte a signal
    be_worker: Callable[[Slot, Order | None, socket.socket], int]
    be_admin: Callable[[Child, socket.socket], int]
    announce: Callable[[], None]


@dataclass
class Supervisor:
    """The processes of a service, and the model they serve."""

    models: BundleWatch
    crew: Crew
    outside: Outside
    without_model: bool = False
    announced: bool = False
    stopping: float | None = None
    status: int | None = None
    troubled: bool = False  # something failed in this turn
    containment: Containment = field(init=False)

    def __post_init__(self) -> None:
        count = partial(self.crew.tally().count, "firstspin_supervisor_errors")
        self.containment = Containment("supervisor", count, self.outside.now)

    def run(self) -> int:
        """Until told to stop; the exit status."""
        self.crew.now = self.outside.now()
        self.crew.private.add(self.outside.signals)
        while self.status is None:
            self._notice_pause(self.outside.now())
            self.troubled = False
            self._turn()
            if self.troubled:
                time.sleep(REST_SECONDS)
        self._kill()
        return self.status

    def _turn(self) -> None:
        """Every step once. What fails in one keeps none of the others from being done."""
        crew, now = self.crew, self.crew.now
        if self.stopping is None:
            self._start()
            self._contained("bundle", self.models.look, now)
        else:
            self._contained("stop", self._finish, self.stopping)
        for child in crew.running():
            self._contained("watch", crew.watch, child)
        for slot in crew.slots:
            self._contained("watch", crew.shut_uncovered, slot)
        self._contained("bundle", self.models.kill_late, now)
        self._contained("listen", self._listen)
        self._contained("reap", self._reap)

    def _contained(self, step: str, work: Callable[..., object], *given: Any) -> None:
        """Do a part of the supervisor's work; whatever fails in it ends here."""
        if not self.containment(step, work, *given):
            self.troubled = True

    def _notice_pause(self, now: float) -> None:
        """Where this process stood still (Ctrl-Z, a suspended machine), so did the others: they get time to wake."""
        paused, self.crew.now = now - self.crew.now, now
        if paused < PAUSE_SECONDS:
            return
        log.warning("the service stood still", extra={"seconds": round(paused, 1)})
        self.crew.was_paused(paused)
        self.models.was_paused(paused)

    def _start(self) -> None:
        """Start what is due, each by itself: one that can't be started does not keep the others from it."""
        for slot in self.crew.slots:
            be = partial(self.outside.be_worker, slot, self.models.order())
            self._contained("start", self.crew.start_due, slot, be, socket.SOCK_STREAM)
        if admin := self.crew.admin:
            be = partial(self.outside.be_admin, admin)
            self._contained("start", self.crew.start_due, admin, be, socket.SOCK_SEQPACKET)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._contained("bundle", self.models.ended, pid, status)
            for child in self.crew.running():
                if child.pid == pid:
                    self._contained("bundle", self.models.worker_ended, child)
                    self._contained("reap", self.crew.buried, child, status)

    # ----------------------------------------------------------------------------------------------- signals and words

    def _listen(self) -> None:
        """Wait for whatever comes first, and attend to it."""
        sources: dict[int, tuple[str, Callable[[], None]]] = {self.outside.signals: ("signal", self._hear_signals)}
        for slot in self.crew.slots:
            if slot.line:
                sources[slot.line.fileno()] = "word", partial(self._hear, slot, slot.line)
        if (admin := self.crew.admin) and admin.line:
            sources[admin.line.fileno()] = "order", partial(self._obey, admin, admin.line)
        waiting = select.poll()
        for source in sources:
            waiting.register(source, select.POLLIN)
        for source, _ in waiting.poll(TURN_SECONDS * 1000):
            self._contained(*sources[source])

    def _hear_signals(self) -> None:
        for number in os.read(self.outside.signals, MAX_WORD):
            self._contained("signal", self._signal, number)

    def _signal(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            if self.stopping is not None:
                self.status = 128 + signal.SIGTERM
            else:
                self._stop()
        elif number == signal.SIGHUP:
            self.models.look_now()

    def _hear(self, slot: Slot, line: socket.socket) -> None:
        try:
            read = line.recv(MAX_WORD)
        except BlockingIOError:
            return
        except OSError:
            read = b""
        *words, slot.heard = (slot.heard + read).split(b"\n")
        for word in words:
            self._contained("word", self._heard, slot, word)
        if not read or len(slot.heard) > MAX_WORD:  # it has ended, or is out of its mind
            slot.hang_up()
            slot.kill()

    def _heard(self, slot: Slot, line: bytes) -> None:
        word = msgspec.json.decode(line, type=Word)
        if word.what == "loaded":
            self.models.heard_loaded(slot, word.id)
        elif word.what == "refused":
            self.models.heard_refused(slot, word.number, word.reason)
        elif word.what == "up":
            self.crew.is_up(slot)
        elif word.what == "store":
            slot.store_trouble = word.reason
        elif word.what == "closed":
            self.crew.accepts_no_more(slot)
        if not self.announced and all(slot.up and (slot.model or self.without_model) for slot in self.crew.slots):
            self.announced = True
            self.crew.tally().gauge("firstspin_started", 1)
            self.outside.announce()

    # --------------------------------------------------------------------------------------------------------- orders

    def _obey(self, admin: Child, line: socket.socket) -> None:
        """An order from the admin process: a word and a number; the answer is JSON, and there is one in any case."""
        order = line.recv(64)
        if not order:  # it has ended; whatever replaces it gets another line
            admin.hang_up()
            return
        word, number = order.decode().split()
        told: dict[str, object] = {"ok": False, "reason": "this could not be done; the log says why"}
        try:
            told = self._carried_out(word)
        finally:
            line.send(msgspec.json.encode(self._state() | told | {"order": int(number)}))

    def _carried_out(self, order: str) -> dict[str, object]:
        try:
            if order == "reload":
                self.models.look_now()
            elif order == "rollback":
                return {"ok": True, "model": self.models.roll_back()}
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
        return state | ({"admin": {"restarts": crew.admin.starts - 1}} if crew.admin else {})

    # --------------------------------------------------------------------------------------------------------- the end

    def _stop(self) -> None:
        log.info("stopping")
        self.stopping = self.outside.now() + STOP_SECONDS
        self.crew.stopping = True
        for slot in self.crew.slots:
            if slot.pid:
                self._contained("stop", os.kill, slot.pid, signal.SIGTERM)

    def _finish(self, deadline: float) -> None:
        """Whether the end has come, and the status."""
        if not any(slot.pid for slot in self.crew.slots):
            self.status = 0
        elif self.crew.now > deadline:
            self.status = 1

    def _kill(self) -> None:
        """End all remaining processes, with the bundle probe. The admin process ends by itself, unless it hangs."""
        for slot in self.crew.slots:
            self._contained("stop", slot.kill)
        if self.models.trial:
            self._contained("stop", os.kill, self.models.trial.pid, signal.SIGKILL)
        if (admin := self.crew.admin) and admin.silence(self.crew.now) > HUNG_SECONDS:
            self._contained("stop", admin.kill)
