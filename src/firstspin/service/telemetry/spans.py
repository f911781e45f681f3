"""Spans of answers, from the workers to the process that exports them.

A worker appends an answer to a list, and sends the list twice a second as one datagram, without waiting: what the
exporter does not take is dropped and counted. Workers know nothing of OpenTelemetry but its environment variables. A
span has no age, gender or user id; its exposure id joins it with the exposure in the event store. Users under the
minimum age have no span.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import msgspec

from firstspin.events.slot_log import SLOT
from firstspin.serving.policy import Decision

TRACEPARENT: Final = b"traceparent"
FLUSH_SECONDS: Final = 0.5
MAX_DATAGRAM: Final = 256  # spans
MAX_PARENT: Final = 256
"""Bytes of a traceparent, of 55 in version 00; a longer one begins a trace, as an invalid one does."""
_NOT_SAMPLED: Final = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f][02468ace]")
"""A traceparent whose sampled bit is not set; another text is either sampled, or none at all and begins a trace."""


class TracedRequest(Protocol):
    """A request about one registration, as far as its span needs it."""

    @property
    def parent(self) -> bytes:
        """The caller's traceparent."""

    @property
    def start(self) -> int:
        """When its answering began; 0 where only `read` is known."""

    @property
    def read(self) -> int:
        """When its body had been read."""

    @property
    def route(self) -> str:
        """Its route in the metrics."""


class AnswerSpan(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An answer about one registration; times are nanoseconds since 1970. `parent` is the caller's traceparent."""

    parent: bytes
    start: int
    end: int
    route: str
    model: str
    source: str
    experiment: str
    arm: str
    propensity: float | None
    exposure_id: bytes


class _Answered(NamedTuple):
    """An answer as a worker keeps it until it is sent; times of its monotonic clock."""

    parent: bytes
    start: int
    end: int
    route: str
    decision: Decision
    exposure_id: bytes


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """What is exported, and how many spans a worker sends: the first `max_spans` of each FLUSH_SECONDS.

    `follows_parent`: a caller's decision not to sample is followed, as by the samplers `parentbased_…`. `problem` says
    why nothing is exported although it is wanted.
    """

    traces: bool
    metrics: bool
    max_spans: int = 204
    follows_parent: bool = True
    problem: str = ""

    def __bool__(self) -> bool:
        return self.traces or self.metrics


def read_telemetry(environment: Mapping[str, str]) -> TelemetrySettings:
    """The settings in the standard variables OTEL_*: nothing is exported where no endpoint is set.

    A worker sends at most OTEL_BSP_MAX_QUEUE_SIZE spans per OTEL_BSP_SCHEDULE_DELAY. Invalid values are the defaults,
    as the specification says.
    """

    def is_wanted(signal: str) -> bool:
        exporters = environment.get(f"OTEL_{signal}_EXPORTER", "").split(",")
        endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
        return "otlp" in exporters or (exporters == [""] and any(map(environment.get, endpoints)))

    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return TelemetrySettings(False, False)
    protocols = {environment.get(f"OTEL_EXPORTER_OTLP_{signal}PROTOCOL", "") for signal in ("", "TRACES_", "METRICS_")}
    wanted = is_wanted("TRACES"), is_wanted("METRICS")
    if any(wanted) and (other := protocols - {"", "http/protobuf"}):
        return TelemetrySettings(
            False, False, problem=f"OTEL_EXPORTER_OTLP_PROTOCOL is {other.pop()}, not http/protobuf"
        )
    queue = positive(environment.get("OTEL_BSP_MAX_QUEUE_SIZE"), 2_048)
    delay = positive(environment.get("OTEL_BSP_SCHEDULE_DELAY"), 5_000)
    sampler = environment.get("OTEL_TRACES_SAMPLER", "parentbased_always_on")
    max_spans = max(1, int(queue * FLUSH_SECONDS * 1_000 / delay))
    return TelemetrySettings(*wanted, max_spans, sampler.startswith("parentbased"))


def positive(text: str | None, default: int) -> int:
    """A positive integer of a variable, or the default."""
    return int(text) if text and text.isdecimal() and int(text) > 0 else default


class AnswerSpans:
    """The answers of one worker that wait to be sent; `dropped` is called with the number of those that are not.

    `now` is the monotonic clock of their times, `date` the time of day; both in nanoseconds.
    """

    def __init__(
        self,
        channel: socket.socket,
        settings: TelemetrySettings,
        dropped: Callable[[int], None],
        now: Callable[[], int],
        date: Callable[[], int],
    ) -> None:
        self._channel, self._settings, self._dropped = channel, settings, dropped
        self._now, self._date = now, date
        self._answered: list[_Answered] = []
        self._too_many = 0

    def add(
        self,
        decisions: Sequence[Decision],
        asked: Sequence[TracedRequest],
        exposure_ids: Mapping[int, bytes],
        parent: bytes,
        start: int,
    ) -> None:
        """Add answers; each has its request in `asked`, or all are of one request, with this `parent` and `start`."""
        answered, most = self._answered, self._settings.max_spans
        if len(answered) >= most:  # at full load nearly always
            parents = [one.parent for one in asked] or [parent] * len(decisions)
            self._too_many += len(parents) - sum(map(self._is_left_out, parents, decisions))
            return
        end = self._now()
        for place, decision in enumerate(decisions):
            route = ""
            if asked:
                one = asked[place]
                parent, start, route = one.parent, one.start or one.read, one.route
            if self._is_left_out(parent, decision):
                continue
            if len(answered) >= most:
                self._too_many += 1
                continue
            answered.append(_Answered(parent, start, end, route, decision, exposure_ids.get(place, b"")))

    def _is_left_out(self, parent: bytes, decision: Decision) -> bool:
        """Whether the caller does not sample, and is followed, or the user is under the minimum age.

        The source would tell that in the caller's trace, where the user may be named.
        """
        if decision.source == "under-age":
            return True
        return bool(parent) and self._settings.follows_parent and _NOT_SAMPLED.match(parent) is not None

    def flush(self, experiment: str) -> None:
        """Send what is there; answers of users of the experiment have its key `experiment`."""
        answered, self._answered = self._answered, []
        lost, self._too_many = self._too_many, 0
        offset = self._date() - self._now()
        for first in range(0, len(answered), MAX_DATAGRAM):
            spans = [_span(one, offset, experiment) for one in answered[first : first + MAX_DATAGRAM]]
            try:
                self._channel.send(msgspec.msgpack.encode(spans), socket.MSG_DONTWAIT)
            except OSError:  # the exporter is behind, or restarts
                lost += len(spans)
        if lost:
            self._dropped(lost)


def _span(one: _Answered, offset: int, experiment: str) -> AnswerSpan:
    decision, assignment, slot = one.decision, one.decision.assignment, one.decision.slot
    return AnswerSpan(
        one.parent if len(one.parent) <= MAX_PARENT else b"",
        one.start + offset,
        one.end + offset,
        one.route,
        decision.model,
        decision.source,
        experiment if assignment else SLOT if slot else "",
        assignment.arm if assignment else SLOT if slot else "",
        assignment.propensity if assignment else slot.propensity if slot else None,
        one.exposure_id,
    )
