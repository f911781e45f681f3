"""The workers and the admin process of a service: started, watched by heartbeat, restarted, stopped."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from firstspin.service.metrics import ProcessMetrics, SharedMetrics
from firstspin.service.process import listening
from firstspin.service.process.children import Child, fork

log = logging.getLogger(__name__)

UNCOVERED_SECONDS: Final = 2.0
"""How long connections wait for a replacement of their worker before the socket is shut."""

# Max seconds without a heartbeat. One is due twice a second, from the first turn of a process's loop on.
HUNG_SECONDS: Final = 3.5  # the process is stopped, or its loop is blocked
LOADING_SECONDS: Final = 15.0  # a worker that loads a model
STARTING_SECONDS: Final = 30.0  # until the first heartbeat
STOPPING_SECONDS: Final = 10.0


@dataclass
class Slot(Child):
    """One worker and its state, across restarts."""

    listens: bool = False
    uncovered: float = 0.0  # since when no worker accepts the listener's connections
    buffer: bytes = b""  # an incomplete line from the worker
    model: str = ""
    challenger: str = ""  # the bundle that it has for a canary
    loading_until: float = 0.0
    store_trouble: str = ""  # why its event store is unavailable

    def begin(self, pid: int, now: float) -> None:
        """Reset the state for a worker that has just started."""
        super().begin(pid, now)
        self.buffer, self.model, self.challenger, self.loading_until, self.store_trouble = b"", "", "", 0.0, ""

    def state(self, now: float) -> dict[str, object]:
        """The worker's state, as `/state` shows it."""
        return {
            "worker": self.number,
            "pid": self.pid,
            "state": "answering" if self.up else "starting" if self.pid else "waiting",
            "model": self.model,
            "heartbeat_age": round(self.silence(now), 1) if self.pid else None,
            "restarts": max(0, self.starts - 1),
            "failures": self.failures,
            "event_store": self.store_trouble,
        }


@dataclass
class Crew:
    """The child processes of a service. `now` is the same for a whole turn of the supervisor."""

    slots: list[Slot]
    admin: Child | None
    tallies: SharedMetrics
    port: socket.socket  # holds the port while no worker listens
    now: float = 0.0
    stopping: bool = False
    private: set[int] = field(default_factory=set)  # further descriptors that are closed in children

    def running(self) -> list[Child]:
        """The children that run."""
        return [child for child in (*self.slots, self.admin) if child and child.pid]

    def was_paused(self, seconds: float) -> None:
        """Extend the deadlines of heartbeats after a pause of the machine or of the supervisor."""
        for child in self.running():
            child.beat = min(self.now, child.beat + seconds)

    # -------------------------------------------------------------------------------------------------------- to start

    def start_due(self, child: Child, run: Callable[[socket.socket], int], kind: socket.SocketKind) -> None:
        """Start a process that is due, with a line to it. Raises OSError where it can't be started; it is due later."""
        if child.pid or self.now < child.due:
            return
        try:
            child.begin(self._started(child, run, kind), self.now)
        except OSError:  # no process, memory or descriptor is left
            child.hang_up()
            child.ended(self.now)
            raise
        self._count(child, "starts")

    def _started(self, child: Child, run: Callable[[socket.socket], int], kind: socket.SocketKind) -> int:
        child.line, theirs = socket.socketpair(socket.AF_UNIX, kind)
        child.line.setblocking(False)
        with theirs:
            return self.fork(partial(run, theirs), child.listener)

    def fork(self, run: Callable[[], int], inherited: socket.socket | None = None) -> int:
        """Fork a child that calls `run` with all of the parent's sockets closed except one; the child's process id."""

        def run_alone() -> int:
            for ours in self._open():
                if ours is not inherited:
                    ours.close()
            for descriptor in self.private:
                os.close(descriptor)
            return run()

        return fork(run_alone)

    def _open(self) -> Iterator[socket.socket]:
        yield self.port
        for child in (*self.slots, self.admin):
            if child:
                yield child.listener
                if child.line:
                    yield child.line

    # -------------------------------------------------------------------------------------------------------- to watch

    def watch(self, child: Child) -> None:
        """Kill a process without a recent heartbeat; it is then restarted like any other that ends."""
        child.seen(self.tallies.row(child.number).beats(), self.now)
        silence = child.silence(self.now)
        if silence > self._max_silence(child):
            log.error("a process hangs and is killed", extra=_named(child) | {"silent_for": round(silence, 1)})
            self._count(child, "hangs")
            child.beat = self.now
            child.kill()

    def _max_silence(self, child: Child) -> float:
        if self.stopping:
            return STOPPING_SECONDS
        if not child.turns:
            return STARTING_SECONDS
        if isinstance(child, Slot) and (not child.up or self.now < child.loading_until):
            return LOADING_SECONDS
        return HUNG_SECONDS

    def shut_uncovered(self, slot: Slot) -> None:
        """Shut the listening socket of a worker that has been missing for too long."""
        seconds = 0.0 if self.stopping else UNCOVERED_SECONDS
        if slot.listens and not slot.up and self.now - slot.uncovered > seconds:
            listening.shut(slot.listener)
            slot.listens = False
            if not self.stopping:
                log.warning("a worker's socket is shut until there is one", extra={"worker": slot.number})

    def is_up(self, slot: Slot) -> None:
        """Record that a worker accepts connections."""
        slot.up = slot.listens = True
        slot.listener.listen(listening.BACKLOG)  # again, where it was shut just now

    def accepts_no_more(self, slot: Slot) -> None:
        """Record that a worker accepts no more connections."""
        if slot.up:
            slot.up, slot.uncovered = False, self.now

    def ended(self, child: Child, status: int) -> None:
        """Record that a process has ended, and schedule its restart."""
        self.tallies.row(child.number).died()
        if isinstance(child, Slot):
            self.accepts_no_more(child)
            child.model = child.challenger = ""
        child.hang_up()
        named = _named(child)
        wait = child.ended(self.now)
        if not self.stopping:
            self._count(child, "deaths")
            fields = named | {"status": os.waitstatus_to_exitcode(status), "starts_again_in": wait}
            log.error("a worker ended" if isinstance(child, Slot) else "the admin process ended", extra=fields)

    def _count(self, child: Child, what: str) -> None:
        kind = "worker" if isinstance(child, Slot) else "admin"
        self.tally().count(f"firstspin_{kind}_{what}")

    def tally(self) -> ProcessMetrics:
        """The supervisor's own row of the metrics."""
        return self.tallies.row(len(self.slots))


def _named(child: Child) -> dict[str, object]:
    return {"worker": child.number} if isinstance(child, Slot) else {"admin_pid": child.pid}
