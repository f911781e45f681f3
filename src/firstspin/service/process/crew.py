"""The workers and the admin process of a service: started, watched, replaced when they end or hang, stopped."""

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
"""How long connections wait for the worker that replaces theirs, before the socket is shut."""

# How long a process may be silent. A heartbeat is due twice a second, from the first turn of its loop on.
HUNG_SECONDS: Final = 3.5  # it is stopped, or its loop is blocked
LOADING_SECONDS: Final = 15.0  # a worker that loads a model
STARTING_SECONDS: Final = 30.0  # until the first heartbeat
STOPPING_SECONDS: Final = 10.0


@dataclass
class Slot(Child):
    """Where one worker is, or will be again."""

    listens: bool = False
    uncovered: float = 0.0  # since when no worker accepts what arrives at the listener
    heard: bytes = b""
    model: str = ""
    loading_until: float = 0.0
    store_trouble: str = ""  # why its event store takes nothing

    def begin(self, pid: int, now: float) -> None:
        """Start with a new process, at `now` (seconds)."""
        super().begin(pid, now)
        self.heard, self.model, self.loading_until, self.store_trouble = b"", "", 0.0, ""

    def state(self, now: float) -> dict[str, object]:
        """As `/state` shows it."""
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
    """The children that are kept running. `now` is the same for a whole turn of the supervisor."""

    slots: list[Slot]
    admin: Child | None
    tallies: SharedMetrics
    port: socket.socket  # holds the port while no worker listens
    now: float = 0.0
    stopping: bool = False
    private: set[int] = field(default_factory=set)  # further descriptors that no child may have

    def running(self) -> list[Child]:
        """Those that run."""
        return [child for child in (*self.slots, self.admin) if child and child.pid]

    def was_paused(self, seconds: float) -> None:
        """They have had no time to send a heartbeat."""
        for child in self.running():
            child.beat = min(self.now, child.beat + seconds)

    # -------------------------------------------------------------------------------------------------------- to start

    def start_due(self, child: Child, be: Callable[[socket.socket], int], kind: socket.SocketKind) -> None:
        """Start a process that is due, with a line to it. Raises OSError where that can't be; then it is due later."""
        if child.pid or self.now < child.due:
            return
        try:
            child.begin(self._started(child, be, kind), self.now)
        except OSError:  # no process, memory or descriptor is left
            child.hang_up()
            child.ended(self.now)
            raise
        self._count(child, "starts")

    def _started(self, child: Child, be: Callable[[socket.socket], int], kind: socket.SocketKind) -> int:
        child.line, theirs = socket.socketpair(socket.AF_UNIX, kind)
        child.line.setblocking(False)
        with theirs:
            return self.fork(partial(be, theirs), child.listener)

    def fork(self, be: Callable[[], int], kept: socket.socket | None = None) -> int:
        """The id of a child that does this, and has nothing of what is open here but one socket."""

        def alone() -> int:
            for ours in self._open():
                if ours is not kept:
                    ours.close()
            for descriptor in self.private:
                os.close(descriptor)
            return be()

        return fork(alone)

    def _open(self) -> Iterator[socket.socket]:
        yield self.port
        for child in (*self.slots, self.admin):
            if child:
                yield child.listener
                if child.line:
                    yield child.line

    # -------------------------------------------------------------------------------------------------------- to watch

    def watch(self, child: Child) -> None:
        """Kill a process whose loop stands still; it is then replaced like any other that ends."""
        child.seen(self.tallies.row(child.number).beats(), self.now)
        silence = child.silence(self.now)
        if silence > self._patience(child):
            log.error("a process hangs and is killed", extra=_named(child) | {"silent_for": round(silence, 1)})
            self._count(child, "hangs")
            child.beat = self.now
            child.kill()

    def _patience(self, child: Child) -> float:
        if self.stopping:
            return STOPPING_SECONDS
        if not child.turns:
            return STARTING_SECONDS
        if isinstance(child, Slot) and (not child.up or self.now < child.loading_until):
            return LOADING_SECONDS
        return HUNG_SECONDS

    def shut_uncovered(self, slot: Slot) -> None:
        """Let no connection wait for a worker that does not come."""
        patience = 0.0 if self.stopping else UNCOVERED_SECONDS
        if slot.listens and not slot.up and self.now - slot.uncovered > patience:
            listening.shut(slot.listener)
            slot.listens = False
            if not self.stopping:
                log.warning("a worker's socket is shut until there is one", extra={"worker": slot.number})

    def is_up(self, slot: Slot) -> None:
        """A worker accepts connections."""
        slot.up = slot.listens = True
        slot.listener.listen(listening.BACKLOG)  # again, where it was shut just now

    def accepts_no_more(self, slot: Slot) -> None:
        """A worker is about to end, or has ended."""
        if slot.up:
            slot.up, slot.uncovered = False, self.now

    def buried(self, child: Child, status: int) -> None:
        """A process has ended."""
        self.tallies.row(child.number).died()
        if isinstance(child, Slot):
            self.accepts_no_more(child)
            child.model = ""
        child.hang_up()
        named, wait = _named(child), child.ended(self.now)
        if not self.stopping:
            self._count(child, "deaths")
            told = named | {"status": os.waitstatus_to_exitcode(status), "starts_again_in": wait}
            log.error("a worker ended" if isinstance(child, Slot) else "the admin process ended", extra=told)

    def _count(self, child: Child, what: str) -> None:
        kind = "worker" if isinstance(child, Slot) else "admin"
        self.tally().count(f"firstspin_{kind}_{what}")

    def tally(self) -> ProcessMetrics:
        """The supervisor's own row."""
        return self.tallies.row(len(self.slots))


def _named(child: Child) -> dict[str, object]:
    return {"worker": child.number} if isinstance(child, Slot) else {"admin_pid": child.pid}
