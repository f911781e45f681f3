"""What a worker sends of its answers: bounded, without waiting, and nothing about a person."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import pytest

from firstspin.experiment.assign import Assignment
from firstspin.records import Ranking
from firstspin.service.telemetry.spans import AnswerSpan, AnswerSpans, TelemetrySettings, read_telemetry
from firstspin.serving.policy import Decision

SAMPLED = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOT_SAMPLED = SAMPLED[:-1] + b"0"
ANSWER = Decision(Ranking((), (), "model"), "3f2a9c1b")
IN_ARM = Decision(Ranking((), (), "rule-arm"), "3f2a9c1b", assignment=Assignment("rule", 0.5))


class Asked(NamedTuple):
    parent: bytes = b""
    start: int = 1_000
    read: int = 2_000
    route: str = "/invocations"


class Worker:
    def __init__(self, settings: TelemetrySettings) -> None:
        self.received, sent = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sent, self.dropped = sent, 0
        self.spans = AnswerSpans(sent, settings, self.drop, lambda: 5_000, lambda: 1_000_000)

    def drop(self, number: int) -> None:
        self.dropped += number

    def arrived(self) -> list[AnswerSpan]:
        spans: list[AnswerSpan] = []
        self.received.setblocking(False)
        while True:
            try:
                spans += msgspec.msgpack.decode(self.received.recv(1 << 20), type=list[AnswerSpan])
            except BlockingIOError:
                return spans


@pytest.fixture
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    settings = getattr(request, "param", TelemetrySettings(True, True))
    made = Worker(settings)
    yield made
    made.sent.close()
    made.received.close()


def test_an_answer_is_a_span_with_what_answered_and_its_exposure(worker: Worker) -> None:
    worker.spans.add([ANSWER, IN_ARM], [Asked(SAMPLED), Asked(start=0)], {1: b"\x01\x02"}, b"", 0)
    worker.spans.flush("first@3f2a9c1b")
    first, second = worker.arrived()
    assert first == AnswerSpan(SAMPLED, 996_000, 1_000_000, "/invocations", "3f2a9c1b", "model", "", "", None, b"")
    assert second == AnswerSpan(
        b"", 997_000, 1_000_000, "/invocations", "3f2a9c1b", "rule-arm", "first@3f2a9c1b", "rule", 0.5, b"\x01\x02"
    )


def test_the_answers_of_one_request_have_its_parent(worker: Worker) -> None:
    worker.spans.add([ANSWER] * 600, (), {}, SAMPLED, 4_000)
    worker.spans.flush("")
    spans = worker.arrived()
    assert len(spans) == 204
    assert {(span.parent, span.start) for span in spans} == {(SAMPLED, 999_000)}
    assert worker.dropped == 396


def test_a_caller_with_a_long_header_does_not_lose_the_spans_of_others(worker: Worker) -> None:
    asked = [Asked(SAMPLED)] + [Asked(b"0" * 8_000)] * 100  # 800 kB: more than a datagram can be
    worker.spans.add([ANSWER] * 101, asked, {}, b"", 0)
    worker.spans.flush("")
    assert [span.parent for span in worker.arrived()] == [SAMPLED] + [b""] * 100
    assert worker.dropped == 0


def test_a_user_under_the_minimum_age_has_no_span(worker: Worker) -> None:
    """Its source would be in the caller's trace, beside whatever the caller knows of the user."""
    young = Decision(Ranking((), (), "under-age"), "3f2a9c1b")
    worker.spans.add([young, ANSWER], [Asked(SAMPLED)] * 2, {}, b"", 0)
    worker.spans.add([ANSWER] * 203, [Asked()] * 203, {}, b"", 0)
    worker.spans.add([young] * 2, [Asked()] * 2, {}, b"", 0)  # beyond the max
    worker.spans.flush("")
    assert {span.source for span in worker.arrived()} == {"model"}
    assert worker.dropped == 0


def test_a_span_has_no_field_of_a_person() -> None:
    assert set(AnswerSpan.__struct_fields__) == {
        "parent", "start", "end", "route", "model", "source", "experiment", "arm", "propensity", "exposure_id"
    }  # fmt: skip


@pytest.mark.parametrize(
    "worker", [TelemetrySettings(True, True, 3), TelemetrySettings(True, True, 3, False)], indirect=True
)
def test_a_caller_that_does_not_sample_is_followed_by_samplers_that_ask_the_parent(worker: Worker) -> None:
    worker.spans.add([ANSWER] * 2, [Asked(NOT_SAMPLED), Asked(SAMPLED)], {}, b"", 0)
    worker.spans.flush("")
    follows = worker.spans._settings.follows_parent
    assert len(worker.arrived()) == (1 if follows else 2)
    worker.spans.add([ANSWER] * 3, [Asked()] * 3, {}, b"", 0)  # no more fit
    worker.spans.add([ANSWER] * 2, [Asked(NOT_SAMPLED), Asked(SAMPLED)], {}, b"", 0)
    worker.spans.flush("")
    assert worker.dropped == (1 if follows else 2)


def test_what_the_exporter_does_not_take_is_dropped_at_once_and_counted(worker: Worker) -> None:
    for _ in range(50):
        worker.spans.add([ANSWER] * 100, [Asked()] * 100, {}, b"", 0)
        worker.spans.flush("")
    arrived = len(worker.arrived())
    assert arrived > 0
    assert arrived + worker.dropped == 5_000
    worker.received.close()
    worker.spans.add([ANSWER], [Asked()], {}, b"", 0)
    worker.spans.flush("")
    assert arrived + worker.dropped == 5_001


@pytest.mark.parametrize(
    ("variables", "traces", "metrics"),
    [
        ({}, False, False),
        ({"OTEL_SERVICE_NAME": "music"}, False, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False, False),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True, False),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318/v1/metrics"}, False, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, False, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_METRICS_EXPORTER": "prometheus"}, True, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "TRUE"}, False, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False, False),
    ],
)
def test_the_standard_variables_say_what_is_exported(variables: dict[str, str], traces: bool, metrics: bool) -> None:
    settings = read_telemetry(variables)
    assert (settings.traces, settings.metrics) == (traces, metrics)
    assert bool(settings.problem) is ("grpc" in variables.values())


@pytest.mark.parametrize(
    ("variables", "most"),
    [
        ({}, 204),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "20480"}, 2_048),
        ({"OTEL_BSP_SCHEDULE_DELAY": "500"}, 2_048),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "many", "OTEL_BSP_SCHEDULE_DELAY": "0"}, 204),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "1"}, 1),
    ],
)
def test_a_worker_sends_at_most_a_queue_per_schedule_delay(variables: dict[str, str], most: int) -> None:
    assert read_telemetry(variables).max_spans == most
