"""Claim: with the default settings, traces and metrics over OTLP cost at most 3% CPU at full load.

One worker on a small simulated model answers as fast as a few connections ask, with and without an export to a
collector that discards what it reads. Both services take turns in short runs; the figure is the CPU time of all
processes of a service (user and system, its exporter included) per answer, the median of the ratios of neighbouring
runs with its bootstrap interval. Beside it the CPU time of the exporter per exported span, and the share of answers
traced.

    python bench/telemetry.py [SECONDS of a run] [RUNS]
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import numpy as np

from firstspin import learn
from firstspin.simulation.client import LoadClient, post
from firstspin.simulation.world import write_world

USERS, CONNECTIONS, CHUNK = 3_000, 16, 400
TICKS = os.sysconf("SC_CLK_TCK")


class Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Service(NamedTuple):
    process: subprocess.Popen[str]
    port: int

    def cpu(self) -> dict[int, float]:
        """CPU seconds of each process of the service."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return {pid: seconds_of(pid) for pid in (self.process.pid, *map(int, children))}

    def counted(self, name: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as reply:
            lines = reply.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def seconds_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def serving(bundle: Path, **variables: str) -> Iterator[Service]:
    command = [sys.executable, "-m", "firstspin.service", "--bundle", str(bundle), "--port", "0", "--drain-delay", "0"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")} | variables
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            service = Service(process, int(process.stdout.readline().rsplit(":", 1)[1]))
            while not ready(service):
                time.sleep(0.1)
            yield service
        finally:
            process.terminate()


def ready(service: Service) -> bool:
    try:
        return service.counted("firstspin_ready") == 1
    except OSError:
        return False


def load(service: Service, seconds: float) -> tuple[float, float, float]:
    """CPU microseconds per answer of all processes, those of the exporter alone, and the number of answers."""

    async def ask() -> int:
        client = LoadClient("127.0.0.1", service.port, CONNECTIONS, time.perf_counter_ns)
        await client.open()
        requests = [post("/invocations", json.dumps({"age": 18 + n % 60}).encode()) for n in range(CHUNK)]
        end, answers = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            answers += sum(reply.status == 200 for reply in await client.ask(requests))
        await client.close()
        return answers

    before = service.cpu()
    answers = asyncio.run(ask())
    spent = {pid: now - before.get(pid, 0.0) for pid, now in service.cpu().items()}
    exporter = max(spent)  # the last process that was started, where there is one
    return sum(spent.values()) / answers * 1e6, spent[exporter], answers


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.5
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    collector = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        write_world(Path(folder) / "data", USERS, seed=7)
        learn.train(Path(folder) / "data", bundle, "logistic")
        endpoint = f"http://127.0.0.1:{collector.server_port}"
        with serving(bundle) as off, serving(bundle, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) as on:
            for service in (off, on):
                load(service, 1.0)
            time.sleep(6)  # the exporter's imports
            exported = on.counted('firstspin_spans_total{outcome="exported"}')
            pairs, exporting, answers = [], 0.0, 0.0
            for _ in range(runs):
                without, _, _ = load(off, seconds)
                with_it, exporter, number = load(on, seconds)
                pairs.append((without, with_it))
                exporting, answers = exporting + exporter, answers + number
            time.sleep(6)
            exported = on.counted('firstspin_spans_total{outcome="exported"}') - exported
    without, with_it = np.array(pairs).T
    ratios = with_it / without
    resampled = np.median(np.random.default_rng(0).choice(ratios, (4_000, len(ratios))), axis=1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    print(f"{runs} pairs of runs of {seconds:g} s, one worker, CPU of all processes")
    print(f"without  {np.median(without):6.1f} us an answer")
    more = f"{np.median(ratios) - 1:+.1%} ({low - 1:+.1%} to {high - 1:+.1%})"
    print(f"with     {np.median(with_it):6.1f} us an answer: {more}")
    print(f"exported {exported / answers:6.1%} of the answers, {exporting / max(1, exported) * 1e6:.0f} us a span")


if __name__ == "__main__":
    main()
