"""Claim: with the default settings, traces over OTLP cost at most 3% CPU at full load.

The worker: bytes of a request to bytes of its response, in process (`hot_path.Service`), 64 requests in one turn of the
event loop, with and without spans. Windows of requests take turns; the overhead is the median of the ratios of
neighbouring windows, with its bootstrap interval. A window stands for its share of the half second between two
datagrams, which have as many spans as a worker sends at most. The exporter: CPU time of the thread that makes spans of
datagrams and exports them to a collector in another process. Times are those of the threads, without waiting.

    python bench/telemetry.py [WINDOWS]
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import hot_path
import msgspec
import numpy as np
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource

from firstspin import learn
from firstspin.records import Registration
from firstspin.service.metrics import SharedMetrics
from firstspin.service.telemetry.exporter import SpanExport
from firstspin.service.telemetry.spans import FLUSH_SECONDS, AnswerSpan, AnswerSpans, read_telemetry
from firstspin.simulation.world import write_world

USERS, WINDOW, DATAGRAMS = 3_000, 1_280, 40
COLLECTOR = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *_): pass
server = HTTPServer(("127.0.0.1", 0), Collector)
print(server.server_port, flush=True)
server.serve_forever()
"""


def window(service: hot_path.Service, requests: list[bytes], spans: AnswerSpans | None) -> float:
    """CPU microseconds of an answer."""
    _, mine = service.answer(requests, hot_path.TOGETHER)
    if spans is None:
        return mine
    before = time.thread_time()
    spans.flush("")
    return mine + (time.thread_time() - before) / len(requests) * 1e6


def of_worker(folder: Path, windows: int, max_spans: int) -> np.ndarray:
    """(windows, 2) CPU microseconds of an answer, without and with spans."""
    requests = [hot_path.request("/invocations", Registration(age=18 + n % 60), n) for n in range(WINDOW)]
    off = hot_path.Service(folder, experiment=False)
    answer_seconds = min(window(off, requests, None) for _ in range(5)) / 1e6
    share = max(1, round(max_spans * WINDOW * answer_seconds / FLUSH_SECONDS))
    received, sent = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    settings = replace(read_telemetry({"OTEL_TRACES_EXPORTER": "otlp"}), max_spans=share)
    spans = AnswerSpans(sent, settings, lambda _: None, time.perf_counter_ns, time.time_ns)
    on = hot_path.Service(folder, experiment=False, spans=spans)
    figures = []
    for _ in range(windows):
        figures.append((window(off, requests, None), window(on, requests, spans)))
        received.recv(1 << 20)
    for end in (received, sent):
        end.close()
    return np.array(figures)


def of_exporter(port: int) -> float:
    """CPU microseconds of a span, from a worker's datagram to the collector's answer."""
    received, sent = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    exporter = OTLPSpanExporter(f"http://127.0.0.1:{port}/v1/traces")
    export = SpanExport(exporter, {}, Resource.create({}), SharedMetrics(1).row(0))
    now = time.time_ns()
    experiment = "home@3f2a9c1b", "model", 0.5, bytes(16)
    span = AnswerSpan(b"", now, now, "/v1/recommendations", "3f2a9c1b", "model", *experiment)
    datagram = msgspec.msgpack.encode([span] * 204)
    turns = []
    for _ in range(DATAGRAMS):
        sent.send(datagram)
        before = time.thread_time()
        export._receive(received)
        export.export()
        turns.append((time.thread_time() - before) / 204 * 1e6)
    for end in (received, sent):
        end.close()
    return float(np.median(turns))


def main() -> None:
    windows = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    max_spans = read_telemetry({}).max_spans
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([sys.executable, "-c", COLLECTOR], stdout=subprocess.PIPE, text=True) as collector,
    ):
        assert collector.stdout is not None
        span = of_exporter(int(collector.stdout.readline()))
        collector.kill()
        write_world(Path(folder) / "data", USERS, seed=7)
        learn.train(Path(folder) / "data", Path(folder) / "bundle", "logistic")
        without, with_spans = of_worker(Path(folder), windows, max_spans).T
    ratios = with_spans / without
    medians = np.median(np.random.default_rng(0).choice(ratios, (2_000, len(ratios))), axis=1)
    low, high = (float(np.quantile(medians, q)) - 1 for q in (0.025, 0.975))
    worker, exporter = float(np.median(ratios)) - 1, span * max_spans / FLUSH_SECONDS / 1e6
    print(f"worker    {np.median(without):6.1f} us an answer, with spans {worker:+.1%} ({low:+.1%} to {high:+.1%})")
    rate = max_spans / FLUSH_SECONDS
    print(f"exporter  {span:6.1f} us a span, at most {rate:.0f} spans a second: {exporter:.1%} of a core")
    print(f"together  {worker + exporter:+.1%} CPU at full load")


if __name__ == "__main__":
    main()
