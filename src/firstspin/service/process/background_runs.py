"""Work outside the workers: each run in a niced child process, at intervals and when it is wanted.

The analyses of experiments and the delivery of webhooks run so. A child that takes too long is killed; its memory is
returned when it ends.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Final

from firstspin.service.process.crew import Crew

log = logging.getLogger(__name__)

MAX_NICENESS: Final = 19
"""For work that may wait while the workers are busy."""


@dataclass
class BackgroundRuns:
    """The runs of one kind of work; times are seconds of the supervisor's clock.

    `run` is called in the child. It is started `every` so many seconds, and when `is_wanted`,
    but not within `pause` of the last run; `begin` is called before. A run is killed after `max_seconds`; at the end
    of the service it gets SIGTERM and has `linger` seconds for it.
    """

    step: str  # of the supervisor's loop, which counts failures by it
    crew: Crew
    run: Callable[[], object]
    is_wanted: Callable[[], bool]
    begin: Callable[[], object] = lambda: None
    every: float = inf
    pause: float = 10.0
    max_seconds: float = 240.0
    linger: float = 0.0
    niceness: int = MAX_NICENESS
    when_idle: bool = False  # only where no worker wants the core: on a host that is always busy, never
    pid: int = 0
    due: float = 0.0
    free: float = 0.0  # from when on a run may start
    deadline: float = 0.0
    ending: float = 0.0  # since when it is to end

    def look(self, now: float) -> None:
        """Start a run that is due or wanted. Raises OSError where no process can be started."""
        self.due = self.due or now + self.every
        if self.pid or now < self.free or not (now >= self.due or self.is_wanted()):
            return
        self.free, self.due, self.deadline = now + self.pause, now + self.every, now + self.max_seconds
        self.begin()
        self.pid = self.crew.fork(self._niced)

    def _niced(self) -> int:
        os.nice(self.niceness)
        if self.when_idle and sys.platform == "linux":
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        os.setpgid(0, 0)  # Ctrl-C goes to the supervisor only
        self.run()
        return 0

    def ended(self, pid: int, status: int) -> None:
        """Handle the end of a child; what a failed run has left undone is done by a later one."""
        if pid != self.pid or not pid:
            return
        self.pid, self.free = 0, self.crew.now + self.pause
        if code := os.waitstatus_to_exitcode(status):
            self.crew.tally().count("firstspin_supervisor_errors", self.step)
            log.error("a process of the background failed", extra={"step": self.step, "status": code})

    def kill_late(self, now: float) -> None:
        """Kill a run past its deadline."""
        if self.pid and now > self.deadline:
            self.kill()

    def kill(self) -> None:
        """Kill the run, if there is one."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)

    def has_ended(self, now: float) -> bool:
        """Whether the service need not wait for the run: it has ended, or its time to linger is over."""
        if not self.pid or not self.linger:
            return True
        if not self.ending:
            self.ending = now
            os.kill(self.pid, signal.SIGTERM)
        return now > self.ending + self.linger

    def was_paused(self, seconds: float) -> None:
        """Extend the deadline after a pause of the machine."""
        self.deadline += seconds
