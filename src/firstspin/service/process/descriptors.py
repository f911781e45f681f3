"""Connections are closed before a process runs out of descriptors: without one, not even `accept` works."""

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
"""Descriptors that no connection takes: each array of the next bundle needs one, so does the event store."""

COUNT_SECONDS: Final = 10.0  # between two counts of the descriptors
SHORT_SECONDS: Final = 0.5  # and while there are none


class Descriptors:
    """Bounds the connections of a hub, and counts those that were closed so that new clients are served."""

    def __init__(self, hub: Hub, tally: ProcessMetrics) -> None:
        self._hub, self._tally = hub, tally
        self._told = 0
        self._next_count = self._quiet_until = 0.0

    def bound(self) -> None:
        """Close the longest idle connections that there is no room for. To be called about twice a second."""
        hub = self._hub
        if not _one_is_left():  # others than connections took them
            hub.room = max(1, len(hub.connections) - SPARE)
            self._next_count = hub.now + SHORT_SECONDS
        elif hub.now >= self._next_count:
            self._next_count = hub.now + COUNT_SECONDS
            self._count()
        hub.make_room()
        self._tell()

    def _count(self) -> None:
        hub = self._hub
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        others = sum(1 for _ in Path("/proc/self/fd").iterdir()) - len(hub.connections)
        room = max(1, min(hub.limits.connections, allowed - others - SPARE))
        if room < hub.limits.connections <= hub.room:
            log.warning("descriptors bound the connections", extra={"connections": room, "descriptors": allowed})
        hub.room = room

    def _tell(self) -> None:
        hub = self._hub
        closed, self._told = hub.closed_for_room - self._told, hub.closed_for_room
        if not closed:
            return
        self._tally.count("firstspin_connections_closed_for_others", more=closed)
        if hub.now >= self._quiet_until:
            self._quiet_until = hub.now + QUIET_SECONDS
            log.warning("idle connections were closed, because there is no room for more", extra={"room": hub.room})


def _one_is_left() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    return True
