"""The process that starts the workers: no threads, no loop of asyncio, and no model, so that nothing can bring it down.

It forks workers and starts them again when they end; it tries every new bundle in a child of its own, where a corrupt
file may crash, abort or hang, before any worker hears of it; and it passes on what operators ask for.

Every worker has its own listening socket on the same port (SO_REUSEPORT), and the supervisor keeps them all open: the
connections that wait in a killed worker's socket are not lost, the one in its place accepts them.
"""

from __future__ import annotations

import logging
import os
import random
import select
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from firstspin.records import InputError
from firstspin.service.metrics import Tallies
from firstspin.service.shelf import Shelf, copy
from firstspin.service.worker import Order, Word

log = logging.getLogger(__name__)

MOST_WORKERS: Final = 64
TRIAL_SECONDS: Final = 30.0
WATCH_SECONDS: Final = 1.0
STOP_SECONDS: Final = 28.0  # SageMaker kills after 30
SETTLED_SECONDS: Final = 10.0  # a worker that lived so long did not fail at its start
LONGEST_BACKOFF: Final = 30.0


@dataclass
class Slot:
    """Where one worker is, or will be again."""

    number: int
    listener: socket.socket
    pid: int = 0
    channel: socket.socket | None = None
    heard: bytes = b""
    started: float = 0.0
    failures: int = 0
    due: float = 0.0
    model: str = ""
    up: bool = False


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
    """What the supervisor is given from outside: clock in seconds, source of signal numbers, and how to be a worker."""

    now: Callable[[], float]
    signals: int  # a file descriptor: one byte a signal
    be_worker: Callable[[Slot, socket.socket, Order | None], NoReturn]
    announce: Callable[[], None]
    admin: socket.socket | None = None


@dataclass
class Supervisor:
    """All workers of a service, and the model they serve."""

    bundle: Path | None  # None: models come by other ways
    shelf: Shelf
    slots: list[Slot]
    tallies: Tallies
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

    def run(self) -> int:
        """Until told to stop; the exit status."""
        while True:
            now = self.outside.now()
            if self.stopping is None:
                self._start_due(now)
                self._look(now)
            elif not any(slot.pid for slot in self.slots):
                self._kill()
                return 0
            elif now > self.stopping:
                self._kill()
                return 1
            if self.trial and now > self.trial.deadline:
                os.kill(self.trial.pid, signal.SIGKILL)
            if self._listen():
                self._kill()
                return 128 + signal.SIGTERM
            self._reap()

    # --------------------------------------------------------------------------------------------------------- workers

    def _start_due(self, now: float) -> None:
        for slot in self.slots:
            if not slot.pid and now >= slot.due:
                self._start(slot, now)

    def _start(self, slot: Slot, now: float) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        slot.started, slot.model, slot.up, slot.heard = now, "", False, b""
        pid = os.fork()
        if pid == 0:
            self._forget(slot)
            ours.close()
            self.outside.be_worker(slot, theirs, self._order())
        theirs.close()
        slot.pid, slot.channel = pid, ours
        self._count("firstspin_worker_starts")

    def _forget(self, own: Slot) -> None:
        """In a child: close what belongs to the others."""
        for slot in self.slots:
            if slot.channel:
                slot.channel.close()
            if slot is not own:
                slot.listener.close()
        if self.outside.admin:
            self.outside.admin.close()
        if self.trial:
            os.close(self.trial.pipe)

    def _order(self) -> Order | None:
        name = self.shelf.names.current
        return Order(str(self.shelf.path(name)), name) if name else None

    def _hear(self, slot: Slot) -> None:
        assert slot.channel is not None
        try:
            read = slot.channel.recv(65536)
        except OSError:
            read = b""
        if not read:
            slot.channel.close()
            slot.channel = None
            return
        *lines, slot.heard = (slot.heard + read).split(b"\n")
        for line in lines:
            self._heard(slot, msgspec.json.decode(line, type=Word))

    def _heard(self, slot: Slot, word: Word) -> None:
        if word.what == "loaded":
            slot.model = word.id
            log.info("a worker answers from a model", extra={"worker": slot.number, "model": word.id})
        elif word.what == "refused":
            log.error("a worker could not load a model", extra={"worker": slot.number, "reason": word.reason})
            os.kill(slot.pid, signal.SIGTERM)  # the one in its place tries again
        elif word.what == "up":
            slot.up = True
        if not self.announced and all(slot.up and (slot.model or self.without_model) for slot in self.slots):
            self.announced = True
            self.tallies.row(len(self.slots)).gauge("firstspin_started", 1)
            self.outside.announce()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self.trial and pid == self.trial.pid:
                self._judge(self.trial, status)
            for slot in self.slots:
                if slot.pid == pid:
                    self._buried(slot, status)

    def _buried(self, slot: Slot, status: int) -> None:
        now = self.outside.now()
        self.tallies.row(slot.number).died()
        slot.pid = 0
        if slot.channel:
            slot.channel.close()
            slot.channel = None
        if self.stopping is not None:
            return
        self._count("firstspin_worker_deaths")
        slot.failures = 0 if now - slot.started > SETTLED_SECONDS else slot.failures + 1
        wait = min(LONGEST_BACKOFF, 0.05 * 2.0**slot.failures) if slot.failures else 0.0
        slot.due = now + wait
        log.error(
            "a worker ended",
            extra={"worker": slot.number, "status": os.waitstatus_to_exitcode(status), "starts_again_in": wait},
        )

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
        reading, writing = os.pipe()
        incoming = self.shelf.incoming(os.getpid())
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _try_in_child(bundle, incoming, writing)
        os.close(writing)
        self.trial = Trial(pid, reading, incoming, signature, self.outside.now() + self.trial_seconds)

    def _judge(self, trial: Trial, status: int) -> None:
        self.trial = None
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
        for slot in self.slots:
            try:
                if slot.channel and slot.model != self.shelf.names.current:
                    slot.channel.send(order)
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

    # --------------------------------------------------------------------------------------------------------- orders

    def _listen(self) -> bool:
        """Wait for whatever comes first; whether to end at once."""
        channels = {slot.channel: slot for slot in self.slots if slot.channel}
        sources: list[int | socket.socket] = [self.outside.signals, *channels]
        if self.outside.admin:
            sources.append(self.outside.admin)
        ready, _, _ = select.select(sources, [], [], 0.25)
        for source in ready:
            if isinstance(source, int):
                at_once = [self._signal(number) for number in os.read(source, 512)]
                if any(at_once):
                    return True
            elif source is self.outside.admin:
                self._obey(source)
            else:
                self._hear(channels[source])
        return False

    def _signal(self, number: int) -> bool:
        if number in (signal.SIGTERM, signal.SIGINT):
            if self.stopping is not None:
                return True
            self._stop()
        elif number == signal.SIGHUP:
            self._look_now()
        return False

    def _obey(self, admin: socket.socket) -> None:
        """An order from the admin process: one word; the answer is JSON."""
        order = admin.recv(64).decode()
        if not order:
            log.error("the admin process has ended")
            self.outside = replace(self.outside, admin=None)
            return
        told: dict[str, object] = {"ok": True}
        if order == "reload":
            self._look_now()
        elif order == "rollback":
            try:
                self.roll_back()
            except InputError as problem:
                told = {"ok": False, "reason": str(problem)}
        workers = [{"worker": s.number, "pid": s.pid, "model": s.model, "failures": s.failures} for s in self.slots]
        names = self.shelf.names
        state = {"model": names.current, "previous": names.previous, "refusal": self.last_refusal, "workers": workers}
        admin.send(msgspec.json.encode(told | state | {"trying": self.trial is not None}))

    def _stop(self) -> None:
        log.info("stopping")
        self.stopping = self.outside.now() + STOP_SECONDS
        for slot in self.slots:
            if slot.pid:
                os.kill(slot.pid, signal.SIGTERM)

    def _kill(self) -> None:
        """End whoever is left, the child that tries a bundle too."""
        for pid in (*(slot.pid for slot in self.slots), self.trial.pid if self.trial else 0):
            if pid:
                os.kill(pid, signal.SIGKILL)

    def _count(self, name: str, *labels: str) -> None:
        self.tallies.row(len(self.slots)).count(name, *labels)


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


def _try_in_child(bundle: Path, incoming: Path, pipe: int) -> NoReturn:
    """Whatever happens here happens to this child alone."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    status = 1
    try:
        said = copy(bundle, incoming)
        status = 0
    except Exception as problem:
        said = str(problem) or type(problem).__name__
    os.write(pipe, said.encode()[:4000])
    os._exit(status)


def listeners(host: str, port: int, number: int) -> list[socket.socket]:
    """So many listening sockets on one port. Raises OSError where somebody else listens there."""
    with socket.create_server((host, port)):  # without SO_REUSEPORT: fails where another service has the port
        pass
    found: list[socket.socket] = []
    for _ in range(number):
        at = found[0].getsockname()[1] if found else port
        found.append(socket.create_server((host, at), backlog=2048, reuse_port=True))
    return found
