"""Failure containment of a loop: each failing step is counted and logged at a bounded rate, and the loop goes on."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import Any, Final

log = logging.getLogger(__name__)

QUIET_SECONDS: Final = 10.0  # minimum between two log lines about the same failure


class Containment:
    """Runs the steps of one loop; `count` is called with a failed step, `now` is a monotonic clock in seconds."""

    def __init__(self, loop: str, count: Callable[[str], None], now: Callable[[], float]) -> None:
        self._loop, self._count, self._now = loop, count, now
        self._quiet: dict[object, float] = {}  # until when a failure is not logged again

    def __call__(self, step: str, work: Callable[..., object], *arguments: Any) -> bool:
        """Run a step; False where it failed."""
        try:
            work(*arguments)
        except Exception as problem:
            self._count(step)
            number = problem.errno if isinstance(problem, OSError) else None
            kind, now = (step, type(problem), number), self._now()
            if self._quiet.get(kind, 0.0) <= now:
                self._quiet[kind] = now + QUIET_SECONDS
                name = errno.errorcode.get(number, "") if number else ""
                fields = {"step": step, "problem": f"{type(problem).__name__} {name}".strip()}
                log.error("a step of the %s failed", self._loop, extra=fields, exc_info=True)
            return False
        return True
