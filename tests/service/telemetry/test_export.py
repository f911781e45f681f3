"""A real service exports with the real SDK to a real OTLP/HTTP receiver in a process of its own."""

from __future__ import annotations

import base64
import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from made_bundles import pack
from made_experiments import PLAN
from made_service import Service, ask_for, counted, resident, serving, until, workers
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from firstspin.experiment.plan import freeze
from firstspin.service.metrics import SharedMetrics
from firstspin.service.telemetry.exporter import SpanExport
from firstspin.service.telemetry.spans import AnswerSpan

COLLECTOR = Path(__file__).parents[2] / "stand_in_collector.py"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PERSONAL = ("anna", "female", "31", "age", "gender", "user_id")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("traced")
    pack(made / "b")
    freeze(PLAN, made / "experiment.toml")
    return made


@contextmanager
def collecting(out: Path, *more: str, port: int = 0) -> Iterator[int]:
    """The port of a collector that writes into a file."""
    command = [sys.executable, str(COLLECTOR), str(port), str(out), *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


@contextmanager
def traced(folder: Path, monkeypatch: pytest.MonkeyPatch, port: int, **variables: str) -> Iterator[Service]:
    usual = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    for name, value in (usual | {"OTEL_METRIC_EXPORT_INTERVAL": "300"} | variables).items():
        monkeypatch.setenv(name, value)
    options = ["--state", str(folder / "state"), "--events", f"sqlite:///{folder / 'events.sqlite'}"]
    options += ["--experiment", str(folder / "experiment.toml"), "--drain-delay", "0"]
    with serving(folder / "b", *options) as service:
        yield service


def received(out: Path, path: str) -> list[dict[str, Any]]:
    lines = out.read_text().splitlines() if out.exists() else []
    return [line["message"] for line in map(json.loads, lines) if line["path"] == path]


def spans(out: Path) -> list[dict[str, Any]]:
    """The spans received so far, with their attributes and those of their resource as dicts."""
    found = []
    for message in received(out, "/v1/traces"):
        for of_resource in message["resourceSpans"]:
            resource = attributes(of_resource["resource"])
            for scope in of_resource["scopeSpans"]:
                found += [span | {"attributes": attributes(span), "resource": resource} for span in scope["spans"]]
    return found


def attributes(thing: dict[str, Any]) -> dict[str, Any]:
    return {one["key"]: next(iter(one["value"].values())) for one in thing.get("attributes", [])}


def exported(service: Service, outcome: str) -> float:
    return counted(service, f'firstspin_spans_total{{outcome="{outcome}"}}')


def test_every_answer_is_one_span_with_its_model_source_arm_and_exposure(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "received"
    with collecting(out) as port, traced(folder, monkeypatch, port, OTEL_SERVICE_NAME="music") as service:
        answer = ask_for(service, "anna", traceparent=PARENT)[1]
        service.recommend(age=31, gender="female", genres=["Jazz"])
        service.ask("POST", "/invocations", b'{"instances": [{}, {"age": 9}]}', traceparent=PARENT)
        service.ask("POST", "/invocations", b"{}", traceparent=PARENT[:-1] + "0")  # its caller does not sample
        service.ask("POST", "/invocations", b"{}", traceparent="what is this")
        service.ask("POST", "/invocations", b'{"age": 500}')  # refused: no answer
        until(lambda: len(spans(out)) >= 4)
        until(lambda: received(out, "/v1/metrics"))
        until(lambda: exported(service, "exported") == 4)
        assert exported(service, "failed") == exported(service, "dropped") == 0
    found = spans(out)
    assert len(found) == 4  # of the child none
    for_user = next(span for span in found if span["attributes"].get("http.route") == "/v1/recommendations")
    assert (for_user["traceId"], for_user["parentSpanId"]) == base64_of(PARENT)
    about = for_user["attributes"]
    assert about["firstspin.model"] == answer["model"]
    assert about["firstspin.source"] == answer["source"]
    assert about["firstspin.experiment"].startswith("first@")
    assert about["firstspin.propensity"] == 0.5
    with closing(sqlite3.connect(folder / "events.sqlite")) as store:
        [[arm, exposure_id]] = store.execute("SELECT arm, exposure_id FROM exposures").fetchall()
    assert (about["firstspin.arm"], about["firstspin.exposure_id"]) == (arm, exposure_id.hex())
    children = [span for span in found if span.get("parentSpanId") == base64_of(PARENT)[1]]
    assert [span["attributes"]["firstspin.source"] for span in children if span is not for_user] == ["popular"]
    for span in found:
        assert span["name"] == "recommend"
        assert 0 < int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"]) < 60e9
        assert span["resource"]["service.name"] == "music"
        assert not set(PERSONAL) & {str(word) for pair in span["attributes"].items() for word in pair}


def base64_of(traceparent: str) -> tuple[str, str]:
    _, trace, parent, _ = traceparent.split("-")
    return tuple(base64.b64encode(bytes.fromhex(one)).decode() for one in (trace, parent))  # type: ignore[return-value]


def test_metrics_are_those_of_the_page_with_the_labels_of_prometheus(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "received"
    with collecting(out) as port, traced(folder, monkeypatch, port, OTEL_TRACES_EXPORTER="none") as service:
        service.recommend(age=31, genres=["Jazz"])

        def answers() -> list[dict[str, Any]]:
            points = []
            for message in received(out, "/v1/metrics"):
                for metric in message["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]:
                    if metric["name"] == "firstspin_answers":
                        points += metric["sum"]["dataPoints"]
            return points

        until(answers)
        point = answers()[-1]
        assert (attributes(point), point["asInt"]) == ({"source": "model"}, "1")
        until(lambda: counted(service, 'firstspin_metric_exports_total{outcome="exported"}') > 0)
        assert exported(service, "dropped") == 0
    assert spans(out) == []


def test_with_a_dead_collector_answers_go_on_and_the_loss_is_counted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting(tmp_path / "unused") as port:
        pass
    timeout = {"OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    with traced(folder, monkeypatch, port, **timeout) as service:
        for _ in range(20):
            assert service.recommend(age=31)["source"] == "model"
        until(lambda: exported(service, "failed") + exported(service, "dropped") >= 20)
        until(lambda: counted(service, 'firstspin_metric_exports_total{outcome="failed"}') > 0)
        assert service.recommend(age=31)["source"] == "model"
        service.wait_for("the collector takes no spans")
        assert str(port) not in "".join(json.dumps(line) for line in service.lines() if "collector" in line["event"])
        out = tmp_path / "received"
        with collecting(out, port=port):
            service.recommend(age=31)
            until(lambda: spans(out))
        service.wait_for("the collector takes spans again")
    assert [line for line in service.lines() if line["level"] == "error"] == []


def takes_sigterm(pid: int) -> bool:
    """Whether the process is ready to end in order: SIGTERM is blocked until then."""
    blocked = re.search(r"^SigBlk:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert blocked
    return not int(blocked[1], 16) >> (signal.SIGTERM - 1) & 1


def test_spans_that_wait_are_exported_at_the_end_of_the_service(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "received"
    with collecting(out) as port:
        with traced(folder, monkeypatch, port, OTEL_BSP_SCHEDULE_DELAY="60000") as service:
            service.recommend(age=31)
            until(lambda: len(workers(service)) == 2 and all(map(takes_sigterm, workers(service))))
            service.process.terminate()
            assert service.process.wait(20) == 0
        assert len(spans(out)) == 1


def test_a_killed_exporter_is_started_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "received"
    with collecting(out) as port, traced(folder, monkeypatch, port) as service:
        service.recommend(age=31)
        until(lambda: spans(out))
        exporter = max(workers(service), key=resident)
        subprocess.run(["kill", "-9", str(exporter)], check=True)
        service.wait_for("a process of the background failed")
        before = len(spans(out))

        def again() -> bool:
            service.recommend(age=31)
            return len(spans(out)) > before

        until(again)


def test_without_the_variables_there_is_no_exporter_and_without_the_extra_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "music")
    with serving(folder / "b", "--drain-delay", "0") as service:
        assert len(workers(service)) == 1
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with serving(folder / "b", "--drain-delay", "0") as service:
        service.wait_for("telemetry is off")
        assert len(workers(service)) == 1


@pytest.mark.parametrize(
    ("sampler", "argument", "number"),
    [
        ("always_off", "", 0),
        ("always_on", "", 100),
        ("traceidratio", "0.0", 0),
        ("parentbased_traceidratio", "1.0", 100),
    ],
)
def test_the_sampler_of_the_environment_decides(
    sampler: str, argument: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    exporter, tally = InMemorySpanExporter(), SharedMetrics(1)
    export = SpanExport(exporter, {}, Resource.create({}), tally.row(0))  # type: ignore[arg-type]
    receiver, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with receiver, sender:
        one = AnswerSpan(b"", 1, 2, "/invocations", "3f2a9c1b", "model", "", "", None, b"")
        sender.send(msgspec.msgpack.encode([one] * 100))
        ended = iter([False, True])
        export.run(receiver, lambda: next(ended))
    spans = exporter.get_finished_spans()
    assert len(spans) == tally.total("firstspin_spans", "exported") == number
    assert len({span.context.trace_id for span in spans if span.context}) == number
