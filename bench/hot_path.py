"""Claim: bytes of a request to bytes of its response, in process: no socket, no event loop.

The small model of bench/http_stacks.py. Requests arrive alone, or 64 in one turn of the event loop. CPU time of the
process per request, medians over the turns; with an experiment the thread that writes exposures counts too, and the
figure of the calling thread alone stands beside it.

    python bench/hot_path.py [a folder with the tables and the bundle from an earlier run, kept for the next]
"""

from __future__ import annotations

import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import http_stacks
import msgspec

from firstspin.events.schema import Secret
from firstspin.events.store import open_store
from firstspin.experiment.plan import read_plan
from firstspin.records import Registration
from firstspin.service.app import App, AppOptions, Clock
from firstspin.service.exposures import ExposureLog
from firstspin.service.http.connection import Connection
from firstspin.service.http.hub import ConnectionLimits, Hub
from firstspin.service.metrics import SharedMetrics
from firstspin.service.process.worker import load
from firstspin.service.telemetry.spans import AnswerSpans
from firstspin.serving.experiment import running
from firstspin.watch.answered_users import AnsweredUsers

TURNS, REQUESTS, TOGETHER = 15, 6_400, 64


class Loop:
    """The event loop's part that a hub uses: `turn` runs what was put off to the end of the turn."""

    def __init__(self) -> None:
        self._callbacks: list[tuple[Callable[..., None], tuple[object, ...]]] = []

    def time(self) -> float:
        return time.monotonic()

    def call_soon(self, callback: Callable[..., None], *arguments: object) -> None:
        self._callbacks.append((callback, arguments))

    def turn(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback, arguments in callbacks:
            callback(*arguments)


class Transport:
    """Counts responses and their bytes."""

    def __init__(self) -> None:
        self.written = 0
        self.ok = 0

    def write(self, data: bytes) -> None:
        self.written += len(data)
        self.ok += data.startswith(b"HTTP/1.1 200")

    def is_closing(self) -> bool:
        return False


def request(path: str, registration: Registration, user: int) -> bytes:
    """A request as wrk sends it."""
    body = msgspec.json.encode(registration)
    if path.startswith("/v1"):
        body = b'{"user_id":"user-%08d",' % user + body[1:]
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\ncontent-type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


class Service:
    """A worker's app and connections, without its loop."""

    def __init__(self, folder: Path, experiment: bool, spans: AnswerSpans | None = None) -> None:
        secret = Secret(bytes(32))
        self.store = open_store(f"sqlite:///{folder / 'events.sqlite'}", secret) if experiment else None
        plan = running(read_plan(folder / "plan.toml")) if experiment else None
        log = ExposureLog(self.store, secret, lambda: datetime.now(UTC), plan, AnsweredUsers()) if self.store else None
        metrics = SharedMetrics(1)
        clock = Clock(time.perf_counter_ns, lambda: datetime.now(UTC))
        app = App(metrics, metrics.row(0), clock, AppOptions(ledger=log, spans=spans))
        app.serve(load(folder / "bundle"))
        self.loop = Loop()
        hub = Hub(app, ConnectionLimits(), self.loop, lambda _: None)  # type: ignore[arg-type]
        hub.head = b"date: Sat, 28 Nov 2026 12:00:00 GMT\r\n"
        self.transport = Transport()
        self.connections = [Connection(hub) for _ in range(TOGETHER)]
        for connection in self.connections:
            connection.connection_made(self.transport)  # type: ignore[arg-type]

    def answer(self, requests: list[bytes], together: int) -> tuple[float, float]:
        """CPU microseconds per request: of the process, and of this thread."""
        ok = self.transport.ok
        before, mine = time.process_time(), time.thread_time()
        for start in range(0, len(requests), together):
            for connection, data in zip(self.connections, requests[start : start + together], strict=False):
                connection.data_received(data)
            self.loop.turn()
        mine = time.thread_time() - mine
        while self.store and self.store.health().waiting_exposures:
            time.sleep(0.01)
        whole = time.process_time() - before
        assert self.transport.ok - ok == len(requests)
        return whole / len(requests) * 1e6, mine / len(requests) * 1e6


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="firstspin-bench-"))
    if not (folder / "bundle").exists():
        http_stacks.small(folder)
        http_stacks.own_stacks(folder)
    for path in folder.glob("events.sqlite*"):
        path.unlink()
    registrations = http_stacks.world_registrations(folder, REQUESTS)
    services = {
        "/invocations": Service(folder, experiment=False),
        "/v1/recommendations": Service(folder, experiment=True),
    }
    gc.freeze()  # as a worker does
    cases = [(path, together) for path in services for together in (1, TOGETHER)]
    figures: dict[tuple[str, int], list[tuple[float, float]]] = {case: [] for case in cases}
    for turn in range(TURNS):
        for path, together in cases:
            users = time.time_ns() // 1_000 % 10**10
            requests = [request(path, one, users + n) for n, one in enumerate(registrations)]
            if turn == 0:
                services[path].answer(requests[:640], together)
            figures[path, together].append(services[path].answer(requests, together))
    print(f"{TURNS} turns of {REQUESTS} requests, medians, CPU microseconds per request")
    print(f"{'path':24}{'per turn':>9}{'process':>10}{'thread':>9}{'min':>8}")
    for (path, together), runs in figures.items():
        whole, mine = (statistics.median(run[i] for run in runs) for i in (0, 1))
        print(f"{path:24}{together:9}{whole:10.1f}{mine:9.1f}{min(run[1] for run in runs):8.1f}")
    for service in services.values():
        if service.store:
            service.store.close()


if __name__ == "__main__":
    main()
