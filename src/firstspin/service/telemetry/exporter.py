"""The process that exports spans and metrics over OTLP/HTTP with the SDK of OpenTelemetry (extra `otel`).

It reads the datagrams of the workers in turn with its exports, so that a collector that is slow or dead holds up this
process alone: the workers' datagrams are then dropped and counted. The SDK reads its own environment variables.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any, Final

import msgspec
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from firstspin.installation.version import package_version
from firstspin.service.metrics import ProcessMetrics, SharedMetrics
from firstspin.service.telemetry.spans import AnswerSpan, TelemetrySettings, positive

log = logging.getLogger(__name__)

MAX_DATAGRAM_BYTES: Final = 1 << 20
TURN_SECONDS: Final = 0.5
NAME: Final = "recommend"
_parents: Final = TraceContextTextMapPropagator()
_batches: Final = msgspec.msgpack.Decoder(list[AnswerSpan])


def run(
    channel: socket.socket,
    settings: TelemetrySettings,
    environment: Mapping[str, str],
    shared: SharedMetrics,
    tally: ProcessMetrics,
) -> None:
    """Export until SIGTERM, which is blocked so far, then what is there."""
    stop, parent = threading.Event(), os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def is_over() -> bool:
        return stop.is_set() or os.getppid() != parent  # the supervisor was killed

    sdk = logging.getLogger("opentelemetry")
    sdk.handlers, sdk.propagate = [logging.NullHandler()], False  # its messages have the endpoint
    service = {"service.name": "firstspin", "service.version": package_version()}
    resource = Resource.create(service).merge(OTELResourceDetector().detect())
    reader = None
    if settings.metrics:
        reader = PeriodicExportingMetricReader(CountedMetricExporter(OTLPMetricExporter(), tally))
        provider = MeterProvider([reader], resource)
        observe(provider.get_meter("firstspin", package_version()), shared)
    if settings.traces:
        SpanExport(OTLPSpanExporter(), environment, resource, tally).run(channel, is_over)
    while not is_over():
        stop.wait(TURN_SECONDS)
    if reader:
        reader.shutdown(timeout_millis=1_000)


class SpanExport:
    """Makes spans of answers, samples and exports them, in one thread.

    Spans are made whole, not started and ended by a tracer, which takes four times as long.
    """

    def __init__(
        self, exporter: OTLPSpanExporter, environment: Mapping[str, str], resource: Resource, tally: ProcessMetrics
    ) -> None:
        self._exporter, self._tally = exporter, tally
        self._most = positive(environment.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE"), 512)
        self._delay = positive(environment.get("OTEL_BSP_SCHEDULE_DELAY"), 5_000) / 1_000
        self._ended: list[ReadableSpan] = []
        self._fails = False
        provider = TracerProvider(shutdown_on_exit=False)
        self._sampler, self._ids = provider.sampler, provider.id_generator
        self._resource, self._scope = resource, InstrumentationScope("firstspin", package_version())

    def run(self, channel: socket.socket, is_over: Callable[[], bool]) -> None:
        """Export what comes over the channel until `is_over`: a full batch at once, others after the schedule delay."""
        channel.settimeout(TURN_SECONDS)
        due = monotonic() + self._delay
        while not is_over():
            self._receive(channel)
            if len(self._ended) >= self._most or monotonic() >= due:
                self.export()
                due = monotonic() + self._delay
        channel.settimeout(0.0)
        while self._receive(channel):
            pass
        self.export()

    def _receive(self, channel: socket.socket) -> bool:
        """Make the spans of the next datagram; whether there was one."""
        try:
            datagram = channel.recv(MAX_DATAGRAM_BYTES)
        except (BlockingIOError, TimeoutError):
            return False
        for one in _batches.decode(datagram):
            self._span(one)
        return True

    def _span(self, one: AnswerSpan) -> None:
        """Make a span, where it is sampled."""
        context = _parents.extract({"traceparent": one.parent.decode("latin-1")}) if one.parent else None
        parent = trace.get_current_span(context).get_span_context() if context else trace.INVALID_SPAN_CONTEXT
        trace_id = parent.trace_id if parent.is_valid else self._ids.generate_trace_id()
        attributes = attributes_of(one)
        sampling = self._sampler.should_sample(context, trace_id, NAME, trace.SpanKind.SERVER, attributes)
        if sampling.decision is not Decision.RECORD_AND_SAMPLE:
            return
        sampled = trace.TraceFlags(trace.TraceFlags.SAMPLED)
        self._ended.append(
            ReadableSpan(
                NAME,
                trace.SpanContext(trace_id, self._ids.generate_span_id(), False, sampled, sampling.trace_state),
                parent if parent.is_valid else None,
                self._resource,
                attributes,
                kind=trace.SpanKind.SERVER,
                start_time=one.start,
                end_time=one.end,
                instrumentation_scope=self._scope,
            )
        )

    def export(self) -> None:
        """Export the spans so far, and count them."""
        spans, self._ended = self._ended, []
        for first in range(0, len(spans), self._most):
            batch = spans[first : first + self._most]
            is_done = self._exporter.export(batch) is SpanExportResult.SUCCESS
            self._tally.count("firstspin_spans", "exported" if is_done else "failed", more=len(batch))
            if is_done is self._fails:
                self._fails = not is_done
                log.log(
                    logging.WARNING if self._fails else logging.INFO,
                    "the collector takes no spans" if self._fails else "the collector takes spans again",
                )


def attributes_of(one: AnswerSpan) -> dict[str, str | float]:
    """The attributes of a span; those without a value are absent."""
    attributes: dict[str, str | float | None] = {
        "http.route": one.route,
        "firstspin.model": one.model,
        "firstspin.source": one.source,
        "firstspin.experiment": one.experiment,
        "firstspin.arm": one.arm,
        "firstspin.propensity": one.propensity,
        "firstspin.exposure_id": one.exposure_id.hex(),
    }
    return {name: value for name, value in attributes.items() if value not in (None, "")}


class CountedMetricExporter(MetricExporter):
    """Counts the exports of another exporter by their outcome."""

    def __init__(self, exporter: MetricExporter, tally: ProcessMetrics) -> None:
        super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)
        self._exporter, self._tally = exporter, tally

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Export, and count."""
        result = self._exporter.export(metrics_data, timeout_millis, **kwargs)
        outcome = "exported" if result is MetricExportResult.SUCCESS else "failed"
        self._tally.count("firstspin_metric_exports", outcome)
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Nothing waits."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """End the connections."""
        self._exporter.shutdown(timeout_millis, **kwargs)


def observe(meter: metrics.Meter, shared: SharedMetrics) -> None:
    """Observe the service's counters and gauges, with the names and labels of /metrics, without the histogram."""

    def reading(name: str, labels: Sequence[str]) -> Callable[[metrics.CallbackOptions], Iterable[metrics.Observation]]:
        def read(_: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
            for values, total in shared.by_label(name).items():
                yield metrics.Observation(total, dict(zip(labels, map(str, values), strict=True)))

        return read

    for name, help_text, labels in shared.counters():
        meter.create_observable_counter(name, [reading(name, labels)], description=help_text)
    for name, help_text in shared.gauges():
        meter.create_observable_gauge(name, [reading(name, ())], description=help_text)
