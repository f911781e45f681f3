"""Claim: an open console and a running analysis leave the p99 of `/invocations` as it is.

The service of a small model with a simulated experiment of 20,000 users, two workers. A client of a process of its own
sends RATE registrations a second on one connection, in turns of SECONDS: alone, and beside READERS of the live page of
operations and a reader who opens the experiment's page twice a second, which starts the analysis whenever it may run.
The browsers that would show the pages run on other machines, so none runs here.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import console
import http_stacks

RATE, SECONDS, TURNS, READERS = 200, 20, 10, 4
T_95 = 2.262
"""Student's t for TURNS - 1 degrees of freedom."""

BODY = json.dumps({"age": 31, "country": "US", "genres": ["Jazz", "Rock"]})


def latencies(seconds: float) -> list[float]:
    """Milliseconds of each answer, rising; the time starts when a request is due, so that waiting counts."""
    connection = http.client.HTTPConnection("127.0.0.1", http_stacks.PORT)
    times, start = [], time.perf_counter()
    for number in range(int(seconds * RATE)):
        due = start + number / RATE
        time.sleep(max(0.0, due - time.perf_counter()))
        connection.request("POST", "/invocations", BODY, {"content-type": "application/json"})
        connection.getresponse().read()
        times.append(1000 * (time.perf_counter() - due))
    return sorted(times)


def read_live(stop: threading.Event) -> None:
    """Read the events of the page of operations."""
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{console.ADMIN_PORT}/ops/live") as events:
        while not stop.is_set():
            events.readline()


def open_pages(stop: threading.Event) -> None:
    """Open the page of the experiment twice a second."""
    while not stop.wait(0.5):
        with suppress(OSError):
            urllib.request.urlopen(f"{console.URL}/experiments/simulated").read()


@contextmanager
def open_console() -> Iterator[None]:
    """The readers and the analyses that they start."""
    stop = threading.Event()
    threads = [threading.Thread(target=read_live, args=(stop,)) for _ in range(READERS)]
    threads.append(threading.Thread(target=open_pages, args=(stop,)))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def main() -> None:
    """Print p50 and p99 of each turn, and the medians."""
    with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(1) as client:
        work = Path(folder)
        http_stacks.small(work)
        command = [*http_stacks.service(work), *console.simulated_experiment(work)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as service:
            assert service.stdout
            service.stdout.readline()
            client.apply(latencies, (3,))
            turns: dict[str, list[tuple[float, float]]] = {"alone": [], "beside the console": []}
            for turn in range(TURNS):
                for name in sorted(turns, reverse=turn % 2 == 1):  # each is first in half of the turns
                    with open_console() if name != "alone" else nullcontext():
                        times = client.apply(latencies, (SECONDS,))
                    turns[name].append((statistics.median(times), times[len(times) * 99 // 100]))
            service.terminate()
    print(f"{RATE} requests a second, {TURNS} turns of {SECONDS} s each, milliseconds, medians of the turns")
    for name, figures in turns.items():
        p50, p99 = (statistics.median(column) for column in zip(*figures, strict=True))
        print(
            f"{name:20} p50 {p50:.3f}  p99 {p99:.3f}   p99 of each: {', '.join(f'{each:.2f}' for _, each in figures)}"
        )
    p99s = [[p99 for _, p99 in figures] for figures in turns.values()]
    added = [beside - alone for alone, beside in zip(*p99s, strict=True)]
    error = T_95 * statistics.stdev(added) / TURNS**0.5
    print(f"p99 beside the console minus alone, paired: {statistics.mean(added):+.3f} ms (95% CI ± {error:.3f})")


if __name__ == "__main__":
    main()
