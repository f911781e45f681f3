"""File descriptor limit: idle connections are closed before a process runs out of descriptors."""

from __future__ import annotations

import logging
import os
import resource
from pathlib import Path
from typing import Final

from firstspin.service.http.hub import Hub
from firstspin.service.metrics import ProcessMetrics
from firstspin.service.process.containment import QUIET_SECONDS

log = logging.getLogger(__name__)

SPARE: Final = 24
"""Descriptors reserved for other uses: each array of the next bundle needs one, and so does the event store."""

COUNT_SECONDS: Final = 10.0  # between two counts of the descriptors
SHORT_SECONDS: Final = 0.5  # the same, while no descriptor is left


class Descriptors:
    """Limits the connections of a hub, and counts the idle ones closed so that new clients are served."""

    def __init__(self, hub: Hub, tally: ProcessMetrics) -> None:
        self._hub, self._tally = hub, tally
        self._reported = 0
        self._next_count = self._quiet_until = 0.0

    def bound(self) -> None:
        """Close the connections idle for longest where descriptors run short. To be called about twice a second."""
        hub = self._hub
        if not _one_is_left():  # other open files use them
            hub.room = max(1, len(hub.connections) - SPARE)
            self._next_count = hub.now + SHORT_SECONDS
        elif hub.now >= self._next_count:
            self._next_count = hub.now + COUNT_SECONDS
            self._count()
        hub.make_room()
        self._report()

    def _count(self) -> None:
        hub = self._hub
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        others = sum(1 for _ in Path("/proc/self/fd").iterdir()) - len(hub.connections)
        room = max(1, min(hub.limits.connections, allowed - others - SPARE))
        if room < hub.limits.connections <= hub.room:
            log.warning("descriptors limit the connections", extra={"connections": room, "descriptors": allowed})
        hub.room = room

    def _report(self) -> None:
        hub = self._hub
        closed, self._reported = hub.closed_for_room - self._reported, hub.closed_for_room
        if not closed:
            return
        self._tally.count("firstspin_connections_closed_for_others", more=closed)
        if hub.now >= self._quiet_until:
            self._quiet_until = hub.now + QUIET_SECONDS
            log.warning("idle connections were closed to make room for new ones", extra={"room": hub.room})


def _one_is_left() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    return True
