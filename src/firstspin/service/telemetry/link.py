"""The channel from the workers to the process that exports their spans, where the environment asks for an export."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping
from typing import NamedTuple

from firstspin.installation.extras import need
from firstspin.records import InputError
from firstspin.service.metrics import ProcessMetrics
from firstspin.service.telemetry.spans import AnswerSpans, TelemetrySettings, read_telemetry

log = logging.getLogger(__name__)


class Telemetry(NamedTuple):
    """What is exported, and the two ends of the channel, which all processes inherit."""

    settings: TelemetrySettings
    receiver: socket.socket
    sender: socket.socket

    def spans(self, tally: ProcessMetrics, now: Callable[[], int], date: Callable[[], int]) -> AnswerSpans | None:
        """The spans of a worker, if spans are exported; `now` is monotonic, `date` the time of day, in nanoseconds."""
        if not self.settings.traces:
            return None

        def dropped(number: int) -> None:
            tally.count("firstspin_spans", "dropped", more=number)

        return AnswerSpans(self.sender, self.settings, dropped, now, date)


def connected(environment: Mapping[str, str]) -> Telemetry | None:
    """The telemetry that the environment asks for. Where it can't be, the service goes on without, and logs why."""
    settings = read_telemetry(environment)
    problem = settings.problem
    if settings:
        try:
            need("otel", "the export")
        except InputError as missing:
            problem = str(missing)
    if problem:
        log.warning("telemetry is off", extra={"reason": problem})
    if problem or not settings:
        return None
    return Telemetry(settings, *socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
