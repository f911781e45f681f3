"""The model of a service: a new bundle is detected, probed in a child process, and loaded by the workers.

A canary's challenger has a watch of its own. A refused bundle is probed again with exponential backoff. A bundle that
the probe accepts and a worker can't load is rolled back to the previous one. Where the service's own copy is damaged or
missing, the bundle is copied again.
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
from firstspin.service.bundles.probe_process import AcceptedBundle
from firstspin.service.bundles.store import BundleStore
from firstspin.service.process.children import Child
from firstspin.service.process.crew import Crew, Slot
from firstspin.service.process.worker import Order

log = logging.getLogger(__name__)

PROBE_SECONDS: Final = 30.0
WATCH_SECONDS: Final = 1.0
MAX_DEATHS: Final = 3
"""Max number of workers in a row that end while they load a model that none has loaded yet."""


@dataclass
class ProbeRun:
    """A probe in work: a bundle that a child copies and probes."""

    pid: int
    pipe: int
    incoming: Path
    signature: object
    deadline: float


@dataclass
class BundleWatch:
    """The state of the bundle, its copies, and the copy that the workers serve, or have as the challenger."""

    bundle: Path | None  # None: models are loaded by the multi-model API
    store: BundleStore
    crew: Crew
    run_probe: Callable[[Path, Path], tuple[int, bytes]]
    seconds: float = PROBE_SECONDS
    is_challenger: bool = False
    probe: ProbeRun | None = None
    accepted: object = None  # signature of the last bundle accepted, also after a rollback
    refused: object = None  # signature of the last bundle refused; `refusals` is how many times
    refusals: int = 0
    last_refusal: str = ""
    next_look: float = 0.0
    next_try: float = 0.0  # of the refused bundle
    restoring: bool = False  # the current copy is to be replaced
    restored: str = ""  # the last model whose copy was replaced
    loaded: str = ""  # the last model that a worker loaded
    deaths: int = 0  # workers in a row that ended while loading
    given_up: set[str] = field(default_factory=set)
    number: int = 0  # of the current order
    outcomes: Counter[str] = field(default_factory=Counter)  # of the attempts to change the model
    ordered: str = ""  # the bundle of the current order, put in place at `since`
    since: float = 0.0

    def look(self, now: float) -> None:
        """Start a probe where the bundle is a new one, or its copy needs to be replaced."""
        if now < self.next_look or self.probe:
            return
        self.next_look = now + WATCH_SECONDS
        if self._is_damaged():
            self.restoring = True
        if self.bundle is None:
            return
        signature = _signature(self.bundle)
        if (self.restoring or signature != self.accepted) and (signature != self.refused or now >= self.next_try):
            self._start_probe(self.bundle, signature, now)

    def look_now(self) -> None:
        """Treat the bundle as a new one, at once."""
        self.accepted = self.refused = None
        self.given_up.clear()
        self.next_look = 0.0

    def kill_late(self, now: float) -> None:
        """Kill a probe past its deadline."""
        if self.probe and now > self.probe.deadline:
            os.kill(self.probe.pid, signal.SIGKILL)

    def was_paused(self, seconds: float) -> None:
        """Extend the probe's deadline after a pause."""
        if self.probe:
            self.probe.deadline += seconds

    def order(self) -> Order | None:
        """The order for a worker to serve the current bundle, if there is one."""
        name = self.store.names.current
        return Order(os.fsencode(self.store.path(name)), name, self.number, self.is_challenger) if name else None

    def is_settled(self, slot: Slot) -> bool:
        """Whether a worker has the bundle, or there is none that it could load."""
        return bool(self._of(slot) or self.last_refusal)

    def _of(self, slot: Slot) -> str:
        """The bundle that a worker has loaded."""
        return slot.challenger if self.is_challenger else slot.model

    def roll_back(self, to: str | None = None) -> str:
        """Serve the previous bundle; its id. Raises InputError where there is none, or it is another one than `to`."""
        previous = self.store.names.previous
        if previous and to not in (None, previous):
            raise InputError(f"the previous bundle is another one by now: {previous}")
        name = self.store.roll_back()
        self.accepted = _signature(self.bundle)  # the current bundle is not tried again; a new one will be
        self._count("rollback")
        log.warning("rolled back", extra={"model": name})
        self._send_order()
        return name

    def state(self) -> dict[str, object]:
        """The state, as `/state` shows it: `model` is served by most workers, `wanted` is to be served by all."""
        names, answering = self.store.names, Counter(filter(None, map(self._of, self.crew.slots)))
        answering[""] = 0  # where no worker has a model
        return {
            "model": names.current if names.current in answering else answering.most_common(1)[0][0] or None,
            "wanted": names.current,
            "previous": names.previous,
            "refusal": self.last_refusal,
            "trying": self.probe is not None,
            "reloads": self.outcomes,
            "wanted_seconds": round(self.crew.now - self.since, 1) if names.current == self.ordered else None,
            "data_ends": {name: self.store.data_ends(name) for name in (names.current, names.previous) if name},
        }

    # ------------------------------------------------------------------------------------------------------- the probe

    def _start_probe(self, bundle: Path, signature: object, now: float) -> None:
        """Copy and probe the bundle in a child."""
        try:
            incoming = self.store.incoming()
        except (InputError, OSError) as problem:
            self._refuse(signature, str(problem))
            return
        reading, writing = os.pipe()
        self.crew.private.add(reading)
        try:
            pid = self.crew.fork(partial(_report, self.run_probe, bundle, incoming, writing))
        except OSError:
            self.crew.private.discard(reading)
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self.probe = ProbeRun(pid, reading, incoming, signature, now + self.seconds)

    def ended(self, pid: int, status: int) -> None:
        """Handle the end of a child: where it was the probe, accept or refuse the bundle by its output."""
        probe = self.probe
        if probe is None or probe.pid != pid:
            return
        self.probe = None
        self.crew.private.discard(probe.pipe)
        with os.fdopen(probe.pipe, "rb") as pipe:
            output = pipe.read()
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            self._accept(probe, msgspec.json.decode(output, type=AcceptedBundle).id)
        elif output:
            self._refuse(probe.signature, msgspec.json.decode(output, type=str))
        else:
            self._refuse(probe.signature, f"loading it ended with {code}: it crashed, or took over {self.seconds:g} s")

    def _accept(self, probe: ProbeRun, name: str) -> None:
        current = self.store.names.current
        if self.restoring and name != current and probe.signature == self.accepted and not self._is_waited_for(current):
            self.restoring = False  # the bundle was rolled back; all workers have the other model in memory
            self.store.discard_incoming()
            log.error("the copy of the model can't be replaced: the bundle is another one", extra={"model": current})
        elif name in self.given_up and (self.is_challenger or current is not None) and name != current:
            self._refuse(probe.signature, self.last_refusal)
        else:
            self._take(probe, name)

    def _take(self, probe: ProbeRun, name: str) -> None:
        try:
            self.store.accept(probe.incoming, name)
        except OSError as problem:
            self._refuse(probe.signature, f"the state folder can't be written: {problem.strerror}")
            return
        everyone, self.restoring, self.deaths = self.restoring, False, 0
        self.restored = name if everyone else ""
        self.accepted, self.last_refusal = probe.signature, ""
        self._count("done")
        log.info("a bundle was accepted", extra={"model": name})
        self._send_order(everyone=everyone)

    def _refuse(self, signature: object, reason: str) -> None:
        wait = self._try_later(signature, reason)
        log.error("a bundle was refused", extra={"reason": reason, "tried_again_in": round(wait, 1)})
        self.store.discard_incoming()
        if self.restoring and self._is_waited_for(self.store.names.current):
            self._give_up()

    def _try_later(self, signature: object, reason: str) -> float:
        """Schedule another probe of the bundle; the backoff in seconds."""
        self.refusals = self.refusals + 1 if signature == self.refused else 0
        self.refused, self.last_refusal = signature, reason
        wait = min(60.0, WATCH_SECONDS * 2.0**self.refusals) * random.uniform(0.5, 1.0)
        self.next_try = self.crew.now + wait
        self._count("refused")
        return wait

    # ----------------------------------------------------------------------------------------------------- the workers

    def worker_loaded(self, slot: Slot, name: str) -> None:
        """Record that a worker serves a model."""
        slot.loading_until, self.loaded, self.deaths = 0.0, name, 0
        if self.is_challenger:
            slot.challenger = name
        else:
            slot.model = name
        log.info("a worker serves a model", extra={"worker": slot.number, "model": name})

    def worker_refused(self, slot: Slot, number: int, reason: str) -> None:
        """Handle a worker's report that it could not load a model and continues with the one it had."""
        log.error("a worker could not load a model", extra={"worker": slot.number, "reason": reason})
        if number == self.number:
            slot.loading_until = 0.0
            self._doubt(reason)

    def worker_ended(self, slot: Child) -> None:
        """Count a worker that ended while it was loading; after several the model is given up."""
        if isinstance(slot, Slot) and self._of(slot) != self.store.names.current != self.loaded:
            self.deaths += 1
            if self.deaths >= MAX_DEATHS and (self.is_challenger or self.store.names.previous):
                self._doubt(f"{self.deaths} workers ended while they loaded it")

    def _doubt(self, reason: str) -> None:
        """The current copy can't be loaded: copy it again, or give it up where that was already done."""
        if self._is_damaged():
            self.restored = ""
        if self.bundle is None or self.store.names.current == self.restored:
            self._try_later(_signature(self.bundle), reason)
            self._give_up()
        elif not self.restoring:
            self.restoring, self.next_look, self.next_try = True, 0.0, 0.0

    def _is_damaged(self) -> bool:
        damaged = self.store.is_damaged()
        if damaged:
            log.error("the copy of the model in the state folder was changed or removed")
        return damaged

    def _give_up(self) -> None:
        """Return to the previous model. Where there is none, the bundle is tried again later."""
        gone = self.store.names.current
        if gone is None:
            return
        name = self.store.give_up()
        self.given_up.add(gone)
        self.restoring, self.restored, self.deaths = False, "", 0
        if name is None:
            self.accepted = None
        log.error("a model that a worker could not load was given up", extra={"model": gone, "previous": name})
        self._send_order()

    def _is_waited_for(self, name: str | None) -> bool:
        """Whether a worker has yet to load this model."""
        return any(slot.pid and self._of(slot) != name for slot in self.crew.slots)

    def _send_order(self, *, everyone: bool = False) -> None:
        """Send the order to the workers that do not serve its model yet; to all with `everyone`, for a new copy."""
        self.number += 1
        order = self.order()
        if order is None:
            return
        if order.id != self.ordered:
            self.ordered, self.since = order.id, self.crew.now
        for slot in self.crew.slots:
            try:
                if slot.line and (everyone or self._of(slot) != order.id):
                    slot.line.send(msgspec.json.encode(order) + b"\n")
                    slot.loading_until = self.crew.now + self.seconds
            except OSError:
                log.warning("an order could not be sent to a worker", extra={"worker": slot.number})

    def _count(self, outcome: str) -> None:
        self.outcomes[outcome] += 1
        self.crew.tally().count("firstspin_reloads", outcome)


def _signature(bundle: Path | None) -> object:
    """A value that changes with the bundle at this path; "nothing" where there is none."""
    if bundle is None:
        return "nothing"
    try:
        folder = bundle.resolve(strict=True)
        manifest = (folder / "manifest.json").stat()
    except OSError:
        return "nothing"
    return folder, manifest.st_ino, manifest.st_mtime_ns, manifest.st_size


def _report(run_probe: Callable[[Path, Path], tuple[int, bytes]], bundle: Path, incoming: Path, pipe: int) -> int:
    """Run the probe in the child and write its output to the pipe; the exit status."""
    status, output = run_probe(bundle, incoming)
    os.write(pipe, output)
    return status
