"""The model that a service serves: a new bundle is seen, probed in a child process, and given to the workers.

A bundle that the probe refuses is probed again, more and more seldom. One that the probe accepts and a worker can't
load is taken back: the previous one is served again. Where the service's own copy is damaged or gone, the bundle is
copied again.
"""

from __future__ import annotations

import logging
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from firstspin.records import InputError
from firstspin.service.bundles.store import BundleStore
from firstspin.service.bundles.trial import Taken
from firstspin.service.process.children import Child
from firstspin.service.process.crew import Crew, Slot
from firstspin.service.process.worker import Order

log = logging.getLogger(__name__)

TRIAL_SECONDS: Final = 30.0
WATCH_SECONDS: Final = 1.0
MAX_DEATHS: Final = 3
"""So many workers in a row may end while they load a model that none has loaded yet."""


@dataclass
class Trial:
    """A bundle being copied and probed in a child."""

    pid: int
    pipe: int
    incoming: Path
    signature: object
    deadline: float


@dataclass
class BundleWatch:
    """What is known of the bundle, the copies of it, and which of them the workers answer from."""

    bundle: Path | None  # None: models come by other ways
    shelf: BundleStore
    crew: Crew
    try_out: Callable[[Path, Path], tuple[int, bytes]]
    seconds: float = TRIAL_SECONDS
    trial: Trial | None = None
    accepted: object = None  # signature of the bundle that came in last, taken or rolled back from
    refused: object = None  # signature of the bundle that was refused last, so many times
    refusals: int = 0
    last_refusal: str = ""
    next_look: float = 0.0
    next_try: float = 0.0  # of the one that was refused
    restoring: bool = False  # the current copy is to be replaced
    restored: str = ""  # the model whose copy was replaced last
    loaded: str = ""  # the model that a worker loaded last
    deaths: int = 0  # of workers that were loading, in a row
    given_up: set[str] = field(default_factory=set)
    number: int = 0  # of the order that holds now

    def look(self, now: float) -> None:
        """See whether there is another bundle, or the copy of this one needs to be replaced."""
        if now < self.next_look or self.trial:
            return
        self.next_look = now + WATCH_SECONDS
        if self._is_damaged():
            self.restoring = True
        if self.bundle is None:
            return
        signature = _signature(self.bundle)
        if (self.restoring or signature != self.accepted) and (signature != self.refused or now >= self.next_try):
            self._try(self.bundle, signature, now)

    def look_now(self) -> None:
        """Take the bundle that lies there as new."""
        self.accepted = self.refused = None
        self.given_up.clear()
        self.next_look = 0.0

    def kill_late(self, now: float) -> None:
        """End a probe that takes too long."""
        if self.trial and now > self.trial.deadline:
            os.kill(self.trial.pid, signal.SIGKILL)

    def was_paused(self, seconds: float) -> None:
        """The probe has had no time."""
        if self.trial:
            self.trial.deadline += seconds

    def order(self) -> Order | None:
        """What a worker is to serve."""
        name = self.shelf.names.current
        return Order(os.fsencode(self.shelf.path(name)), name, self.number) if name else None

    def roll_back(self) -> str:
        """Serve the previous bundle; the id of that. Raises InputError when there is none."""
        name = self.shelf.roll_back()
        self.accepted = _signature(self.bundle)  # what lies there now was not wanted; the next one will be looked at
        self._count("rollback")
        log.warning("rolled back", extra={"model": name})
        self._tell_all()
        return name

    def state(self) -> dict[str, object]:
        """As `/state` shows it. `model` is what workers answer from, `wanted` what all are to answer from."""
        names, answering = self.shelf.names, Counter(slot.model for slot in self.crew.slots if slot.model)
        answering[""] = 0  # where no worker answers from any
        return {
            "model": names.current if names.current in answering else answering.most_common(1)[0][0] or None,
            "wanted": names.current,
            "previous": names.previous,
            "refusal": self.last_refusal,
            "trying": self.trial is not None,
        }

    # ------------------------------------------------------------------------------------------------------- the probe

    def _try(self, bundle: Path, signature: object, now: float) -> None:
        """Copy and probe the bundle in a child."""
        try:
            incoming = self.shelf.incoming()
        except (InputError, OSError) as problem:
            self._refuse(signature, str(problem))
            return
        reading, writing = os.pipe()
        self.crew.private.add(reading)
        try:
            pid = self.crew.fork(partial(_say, self.try_out, bundle, incoming, writing))
        except OSError:
            self.crew.private.discard(reading)
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self.trial = Trial(pid, reading, incoming, signature, now + self.seconds)

    def ended(self, pid: int, status: int) -> None:
        """A child has ended; where it was the probe, see what it said."""
        trial = self.trial
        if trial is None or trial.pid != pid:
            return
        self.trial = None
        self.crew.private.discard(trial.pipe)
        with os.fdopen(trial.pipe, "rb") as pipe:
            said = pipe.read()
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            self._accept(trial, msgspec.json.decode(said, type=Taken).id)
        elif said:
            self._refuse(trial.signature, msgspec.json.decode(said, type=str))
        else:
            self._refuse(trial.signature, f"loading it ended with {code}: it crashed, or took over {self.seconds:g} s")

    def _accept(self, trial: Trial, name: str) -> None:
        current = self.shelf.names.current
        if self.restoring and name != current and trial.signature == self.accepted and not self._is_waited_for(current):
            self.restoring = False  # it was rolled back from; all workers have the other one in memory
            self.shelf.discard_incoming()
            log.error("the copy of the model can't be replaced: the bundle is another one", extra={"model": current})
        elif name in self.given_up and current not in (None, name):
            self._refuse(trial.signature, self.last_refusal)
        else:
            self._take(trial, name)

    def _take(self, trial: Trial, name: str) -> None:
        try:
            self.shelf.accept(trial.incoming, name)
        except OSError as problem:
            self._refuse(trial.signature, f"the state folder can't be written: {problem.strerror}")
            return
        everyone, self.restoring, self.deaths = self.restoring, False, 0
        self.restored = name if everyone else ""
        self.accepted, self.last_refusal = trial.signature, ""
        self._count("done")
        log.info("a bundle was accepted", extra={"model": name})
        self._tell_all(everyone=everyone)

    def _refuse(self, signature: object, reason: str) -> None:
        wait = self._try_later(signature, reason)
        log.error("a bundle was refused", extra={"reason": reason, "tried_again_in": round(wait, 1)})
        self.shelf.discard_incoming()
        if self.restoring and self._is_waited_for(self.shelf.names.current):
            self._give_up()

    def _try_later(self, signature: object, reason: str) -> float:
        """Seconds until the bundle is tried again."""
        self.refusals = self.refusals + 1 if signature == self.refused else 0
        self.refused, self.last_refusal = signature, reason
        wait = min(60.0, WATCH_SECONDS * 2.0**self.refusals) * random.uniform(0.5, 1.0)
        self.next_try = self.crew.now + wait
        self._count("refused")
        return wait

    # ----------------------------------------------------------------------------------------------------- the workers

    def heard_loaded(self, slot: Slot, name: str) -> None:
        """A worker answers from a model."""
        slot.model, slot.loading_until, self.loaded, self.deaths = name, 0.0, name, 0
        log.info("a worker answers from a model", extra={"worker": slot.number, "model": name})

    def heard_refused(self, slot: Slot, number: int, reason: str) -> None:
        """A worker could not carry out an order; it goes on with the model it had."""
        log.error("a worker could not load a model", extra={"worker": slot.number, "reason": reason})
        if number == self.number:
            slot.loading_until = 0.0
            self._doubt(reason)

    def worker_ended(self, slot: Child) -> None:
        """A worker has ended, perhaps by what it was loading."""
        if isinstance(slot, Slot) and slot.model != self.shelf.names.current != self.loaded:
            self.deaths += 1
            if self.deaths >= MAX_DEATHS and self.shelf.names.previous:
                self._doubt(f"{self.deaths} workers ended while they loaded it")

    def _doubt(self, reason: str) -> None:
        """The current copy can't be loaded: it is copied again, and where that has been in vain it is given up."""
        if self._is_damaged():
            self.restored = ""
        if self.bundle is None or self.shelf.names.current == self.restored:
            self._try_later(_signature(self.bundle), reason)
            self._give_up()
        elif not self.restoring:
            self.restoring, self.next_look, self.next_try = True, 0.0, 0.0

    def _is_damaged(self) -> bool:
        damaged = self.shelf.is_damaged()
        if damaged:
            log.error("the copy of the model in the state folder was changed or removed")
        return damaged

    def _give_up(self) -> None:
        """Go back to the previous model. Where there is none, the bundle is tried again later."""
        gone = self.shelf.names.current
        if gone is None:
            return
        name = self.shelf.give_up()
        self.given_up.add(gone)
        self.restoring, self.restored, self.deaths = False, "", 0
        if name is None:
            self.accepted = None
        log.error("a model that a worker could not load was given up", extra={"model": gone, "previous": name})
        self._tell_all()

    def _is_waited_for(self, name: str | None) -> bool:
        """Whether a worker has yet to load this model."""
        return any(slot.pid and slot.model != name for slot in self.crew.slots)

    def _tell_all(self, *, everyone: bool = False) -> None:
        """Give the order to all who do not answer from its model yet; or to everyone, where its copy is another one."""
        self.number += 1
        order = self.order()
        if order is None:
            return
        for slot in self.crew.slots:
            try:
                if slot.line and (everyone or slot.model != order.id):
                    slot.line.send(msgspec.json.encode(order) + b"\n")
                    slot.loading_until = self.crew.now + self.seconds
            except OSError:
                log.warning("a worker could not be told about a model", extra={"worker": slot.number})

    def _count(self, outcome: str) -> None:
        self.crew.tally().count("firstspin_reloads", outcome)


def _signature(bundle: Path | None) -> object:
    """What changes when another bundle comes to lie there; "nothing" where there is none."""
    if bundle is None:
        return "nothing"
    try:
        folder = bundle.resolve(strict=True)
        found = (folder / "manifest.json").stat()
    except OSError:
        return "nothing"
    return folder, found.st_ino, found.st_mtime_ns, found.st_size


def _say(try_out: Callable[[Path, Path], tuple[int, bytes]], bundle: Path, incoming: Path, pipe: int) -> int:
    """In the child: what came of it, through the pipe."""
    status, said = try_out(bundle, incoming)
    os.write(pipe, said)
    return status
