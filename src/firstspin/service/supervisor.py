"""The process that starts the others: no threads, no loop of asyncio, and no model, so that nothing can bring it down.

It forks the workers and the admin process and replaces those that end or hang; it tries every new bundle in a child of
its own, where a corrupt file may crash, abort or hang, before any worker hears of it; and it passes on what operators
ask for. Only SIGTERM and SIGINT end it: its loop takes one step after another, and what fails in a step is contained,
logged and counted in `_contained`.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from firstspin.records import InputError
from firstspin.service.children import Child
from firstspin.service.crew import HUNG_SECONDS, Crew, Slot
from firstspin.service.shelf import Shelf, copy
from firstspin.service.worker import Order, Word

log = logging.getLogger(__name__)

MOST_WORKERS: Final = 64
TRIAL_SECONDS: Final = 30.0
WATCH_SECONDS: Final = 1.0
STOP_SECONDS: Final = 28.0  # SageMaker kills after 30
TURN_SECONDS: Final = 0.25
PAUSE_SECONDS: Final = 1.5  # a turn that takes so long says that this process itself stood still
REST_SECONDS: Final = 0.1  # after a turn in which something failed: a lasting failure must not cost a core
QUIET_SECONDS: Final = 10.0  # between two log lines about the same failure
MAX_WORD: Final = 65_536


@dataclass
class Trial:
    """A bundle being copied and checked in a child."""

    pid: int
    pipe: int
    incoming: Path
    signature: object
    deadline: float
    said: bytes = b""


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

    bundle: Path | None  # None: models come by other ways
    shelf: Shelf
    crew: Crew
    outside: Outside
    without_model: bool = False
    trial_seconds: float = TRIAL_SECONDS
    trial: Trial | None = None
    accepted: object = None  # signature of the bundle that came in last, taken or rolled back from
    refused: object = None  # signature of the bundle that was refused last, so many times
    refusals: int = 0
    last_refusal: str = ""
    next_look: float = 0.0
    next_try: float = 0.0  # of the one that was refused
    announced: bool = False
    stopping: float | None = None
    status: int | None = None
    troubled: bool = False  # something failed in this turn
    quiet: dict[object, float] = field(default_factory=dict)  # until when a failure is not logged again

    def run(self) -> int:
        """Until told to stop; the exit status."""
        self.crew.begin(self.outside.now())
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
            self._contained("bundle", self._look, now)
        else:
            self._contained("stop", self._finish, self.stopping)
        for child in crew.running():
            self._contained("watch", crew.watch, child)
        for slot in crew.slots:
            self._contained("watch", crew.shut_uncovered, slot)
        if self.trial and now > self.trial.deadline:
            self._contained("bundle", os.kill, self.trial.pid, signal.SIGKILL)
        self._contained("listen", self._listen)
        self._contained("reap", self._reap)

    def _contained(self, step: str, work: Callable[..., object], *given: Any) -> None:
        """Do a part of the supervisor's work. Every failure ends here: it is counted, logged at times, and survived."""
        try:
            work(*given)
        except Exception as problem:
            self.troubled = True
            self._count("firstspin_supervisor_errors", step)
            number = problem.errno if isinstance(problem, OSError) else None
            kind = step, type(problem), number
            if self.quiet.get(kind, 0.0) > self.crew.now:
                return
            self.quiet[kind] = self.crew.now + QUIET_SECONDS
            name = errno.errorcode.get(number, "") if number else ""
            told = {"step": step, "problem": f"{type(problem).__name__} {name}".strip()}
            log.error("a step of the supervisor failed", extra=told, exc_info=True)

    def _notice_pause(self, now: float) -> None:
        """Where this process stood still (Ctrl-Z, a suspended machine), so did the others: they get time to wake."""
        paused, self.crew.now = now - self.crew.now, now
        if paused < PAUSE_SECONDS:
            return
        log.warning("the service stood still", extra={"seconds": round(paused, 1)})
        self.crew.was_paused()
        if self.trial:
            self.trial.deadline += paused

    def _start(self) -> None:
        """Start what is due, each by itself: one that can't be started does not keep the others from it."""
        for slot in self.crew.slots:
            be = partial(self.outside.be_worker, slot, self._order())
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
            if self.trial and pid == self.trial.pid:
                self._contained("bundle", self._judge, self.trial, status)
            for child in self.crew.running():
                if child.pid == pid:
                    self._contained("reap", self.crew.buried, child, status)

    # --------------------------------------------------------------------------------------------------------- models

    def _look(self, now: float) -> None:
        """See whether there is another bundle; one that was refused is tried again, more and more seldom."""
        if self.bundle is None or now < self.next_look or self.trial:
            return
        self.next_look = now + WATCH_SECONDS
        signature = _signature(self.bundle)
        if signature != self.accepted and (signature != self.refused or now >= self.next_try):
            self._try(self.bundle, signature)

    def _look_now(self) -> None:
        """Take the bundle that lies there as new."""
        self.accepted = self.refused = None
        self.next_look = 0.0

    def _try(self, bundle: Path, signature: object) -> None:
        """Copy and check the bundle in a child."""
        incoming = self.shelf.incoming(os.getpid())
        reading, writing = os.pipe()
        self.crew.private.add(reading)
        try:
            pid = self.crew.fork(partial(_try_in_child, bundle, incoming, writing))
        except OSError:
            self.crew.private.discard(reading)
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self.trial = Trial(pid, reading, incoming, signature, self.outside.now() + self.trial_seconds)

    def _judge(self, trial: Trial, status: int) -> None:
        self.trial = None
        self.crew.private.discard(trial.pipe)
        with os.fdopen(trial.pipe, "rb") as pipe:
            said = pipe.read()
        ended = os.waitstatus_to_exitcode(status)
        if ended == 0:
            self._accept(trial, said.decode())
        elif ended == 1 and said:
            self._refuse(trial, said.decode())
        else:
            self._refuse(trial, f"loading it ended with {ended}: it crashed, or took over {self.trial_seconds:g} s")

    def _accept(self, trial: Trial, name: str) -> None:
        self.accepted, self.refused, self.last_refusal = trial.signature, None, ""
        self.shelf.accept(trial.incoming, name)
        self._count("firstspin_reloads", "done")
        log.info("a bundle was accepted", extra={"model": name})
        self._tell_all()

    def _refuse(self, trial: Trial, reason: str) -> None:
        self.refusals = self.refusals + 1 if trial.signature == self.refused else 0
        self.refused = trial.signature
        wait = min(60.0, WATCH_SECONDS * 2.0**self.refusals) * random.uniform(0.5, 1.0)
        self.next_try = self.outside.now() + wait
        self.last_refusal = reason
        self._count("firstspin_reloads", "refused")
        log.error("a bundle was refused", extra={"reason": reason, "tried_again_in": round(wait, 1)})

    def _tell_all(self) -> None:
        order = msgspec.json.encode(self._order()) + b"\n"
        for slot in self.crew.slots:
            try:
                if slot.line and slot.model != self.shelf.names.current:
                    slot.line.send(order)
                    slot.loading_until = self.crew.now + self.trial_seconds
            except OSError:
                log.warning("a worker could not be told about a model", extra={"worker": slot.number})

    def roll_back(self) -> str:
        """Serve the previous bundle; the id of that. Raises InputError when there is none."""
        name = self.shelf.roll_back()
        self.accepted = _signature(self.bundle)  # what lies there now was not wanted; the next one will be looked at
        self._count("firstspin_reloads", "rollback")
        log.warning("rolled back", extra={"model": name})
        self._tell_all()
        return name

    def _order(self) -> Order | None:
        name = self.shelf.names.current
        return Order(str(self.shelf.path(name)), name) if name else None

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
            self._look_now()

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
            os.kill(slot.pid, signal.SIGKILL)

    def _heard(self, slot: Slot, line: bytes) -> None:
        word = msgspec.json.decode(line, type=Word)
        if word.what == "loaded":
            slot.model, slot.loading_until = word.id, 0.0
            log.info("a worker answers from a model", extra={"worker": slot.number, "model": word.id})
        elif word.what == "refused":
            log.error("a worker could not load a model", extra={"worker": slot.number, "reason": word.reason})
            os.kill(slot.pid, signal.SIGTERM)  # the one in its place tries again
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
            line.send(msgspec.json.encode(told | self._state() | {"order": int(number)}))

    def _carried_out(self, order: str) -> dict[str, object]:
        try:
            if order == "reload":
                self._look_now()
            elif order == "rollback":
                self.roll_back()
        except InputError as problem:
            return {"ok": False, "reason": str(problem)}
        except OSError as problem:
            log.error("an order failed", extra={"order": order, "reason": problem.strerror})
            return {"ok": False, "reason": f"the state folder can't be written: {problem.strerror}"}
        return {"ok": True}

    def _state(self) -> dict[str, object]:
        names, crew = self.shelf.names, self.crew
        state = {
            "model": names.current,
            "previous": names.previous,
            "refusal": self.last_refusal,
            "trying": self.trial is not None,
            "workers": [slot.state(crew.now) for slot in crew.slots],
        }
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
        """End whoever is left, the child that tries a bundle too. The admin process ends by itself, unless it hangs."""
        left = [slot.pid for slot in self.crew.slots]
        if self.trial:
            left.append(self.trial.pid)
        if (admin := self.crew.admin) and admin.silence(self.crew.now) > HUNG_SECONDS:
            left.append(admin.pid)
        for pid in left:
            if pid:
                self._contained("stop", os.kill, pid, signal.SIGKILL)

    def _count(self, name: str, *labels: str) -> None:
        self.crew.tally().count(name, *labels)


def _signature(bundle: Path | None) -> object:
    """What changes when another bundle comes to lie there; None where there is none."""
    if bundle is None:
        return "nothing"
    try:
        folder = bundle.resolve(strict=True)
        found = (folder / "manifest.json").stat()
    except OSError:
        return "nothing"
    return folder, found.st_ino, found.st_mtime_ns, found.st_size


def _try_in_child(bundle: Path, incoming: Path, pipe: int) -> int:
    """Whatever happens here happens to this child alone."""
    status = 1
    try:
        said = copy(bundle, incoming)
        status = 0
    except Exception as problem:
        said = str(problem) or type(problem).__name__
    os.write(pipe, said.encode()[:4000])
    return status
