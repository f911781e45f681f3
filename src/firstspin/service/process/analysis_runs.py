"""The analyses of experiments: each in a niced child process, at intervals and when its page is opened.

A worker that serves such a page touches the file `wanted`. The child writes files that workers serve; it is killed when
it takes too long, and its memory is returned when it ends.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firstspin.service.process.crew import Crew

log = logging.getLogger(__name__)

EVERY_SECONDS: Final = 300.0
MIN_PAUSE_SECONDS: Final = 10.0
"""From the end of an analysis to the next one, however often pages are opened."""
MAX_SECONDS: Final = 240.0
NICENESS: Final = 19
STEP: Final = "analysis"


@dataclass
class AnalysisRuns:
    """Times are seconds of the supervisor's clock; `run` is called in the child, whose status it returns."""

    crew: Crew
    run: Callable[[], int]
    wanted: Path
    pid: int = 0
    due: float = 0.0
    free: float = 0.0  # from when on an analysis may start
    deadline: float = 0.0

    def look(self, now: float) -> None:
        """Start an analysis that is due or wanted. Raises OSError where no process can be started."""
        self.due = self.due or now + EVERY_SECONDS
        if self.pid or now < self.free or not (now >= self.due or self.wanted.exists()):
            return
        self.free, self.due, self.deadline = now + MIN_PAUSE_SECONDS, now + EVERY_SECONDS, now + MAX_SECONDS
        self.wanted.unlink(missing_ok=True)
        self.pid = self.crew.fork(self._niced)

    def _niced(self) -> int:
        os.nice(NICENESS)
        if sys.platform == "linux":  # and only where no worker wants the core
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        os.setpgid(0, 0)  # Ctrl-C goes to the supervisor only
        return self.run()

    def ended(self, pid: int, status: int) -> None:
        """Handle the end of a child: a failed analysis leaves the files of the last one."""
        if pid != self.pid or not pid:
            return
        self.pid, self.free = 0, self.crew.now + MIN_PAUSE_SECONDS
        if code := os.waitstatus_to_exitcode(status):
            self.crew.tally().count("firstspin_supervisor_errors", STEP)
            log.error("the analysis of the experiment failed", extra={"status": code})

    def kill_late(self, now: float) -> None:
        """Kill an analysis past its deadline."""
        if self.pid and now > self.deadline:
            self.kill()

    def kill(self) -> None:
        """Kill the analysis, if one runs."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)

    def was_paused(self, seconds: float) -> None:
        """Extend the deadline after a pause of the machine."""
        self.deadline += seconds
