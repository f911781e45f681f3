"""Where failures of a loop end: each is counted, logged at a bounded rate, and survived."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import Any, Final

log = logging.getLogger(__name__)

QUIET_SECONDS: Final = 10.0  # between two log lines about the same failure


class Containment:
    """Does the steps of one loop; `count` is given the step that failed, `now` is a monotonic clock in seconds."""

    def __init__(self, loop: str, count: Callable[[str], None], now: Callable[[], float]) -> None:
        self._loop, self._count, self._now = loop, count, now
        self._quiet: dict[object, float] = {}  # until when a failure is not logged again

    def __call__(self, step: str, work: Callable[..., object], *given: Any) -> bool:
        """Do a step; False where it failed."""
        try:
            work(*given)
        except Exception as problem:
            self._count(step)
            number = problem.errno if isinstance(problem, OSError) else None
            kind, now = (step, type(problem), number), self._now()
            if self._quiet.get(kind, 0.0) <= now:
                self._quiet[kind] = now + QUIET_SECONDS
                name = errno.errorcode.get(number, "") if number else ""
                told = {"step": step, "problem": f"{type(problem).__name__} {name}".strip()}
                log.error("a step of the %s failed", self._loop, extra=told, exc_info=True)
            return False
        return True
