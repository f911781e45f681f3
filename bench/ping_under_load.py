"""Claim: no single request within the size limits delays `/ping` by more than 100 ms, whatever it holds.

One worker with the model of `http_stacks.py`, an event store, and a client that asks `/ping` without pause on a
connection of its own, from a process of its own. Meanwhile each kind of request is sent a few times, one after the
other, and then by some connections at once. The first row is the machine with nothing else going on. RSS is the
worker's highest while the requests were answered, above what it was before.
"""

from __future__ import annotations

import json
import multiprocessing
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread

import http_stacks

LARGEST = 6_291_456
TIMES, AT_ONCE = 5, 8
JSON, LINES, CSV = "application/json", "application/jsonlines", "text/csv"
PEOPLE = ",".join(f'"genre {i:02}"' for i in range(100)).encode()
BOMB = "\ufdfa" * 199


@dataclass(frozen=True)
class Kind:
    """A request: what it is called, where it goes, and what it holds."""

    name: str
    body: bytes = b""
    content_type: str = JSON
    path: str = "/invocations"
    method: str = "POST"
    chunk: int = 0  # bytes of each chunk; none: the body is sent as one

    def bytes(self) -> bytes:
        """As it goes over the wire."""
        head = f"{self.method} {self.path} HTTP/1.1\r\nhost: bench\r\ncontent-type: {self.content_type}\r\n"
        if not self.chunk:
            return f"{head}content-length: {len(self.body)}\r\n\r\n".encode() + self.body
        parts = (self.body[at : at + self.chunk] for at in range(0, len(self.body), self.chunk))
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
        return f"{head}transfer-encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"


def filled(before: bytes, repeated: bytes, after: bytes = b"") -> bytes:
    """As long as a body may be."""
    return before + repeated * ((LARGEST - len(before) - len(after)) // len(repeated)) + after


def bombs(number: int) -> bytes:
    """So many registrations of a hundred genres, each of 200 characters that Unicode expands eighteenfold."""
    one = json.dumps({"genres": [BOMB + chr(65 + i % 26) for i in range(100)]}, ensure_ascii=False)
    return b'{"instances":[' + ",".join([one] * number).encode() + b"]}"


def events() -> bytes:
    """The longest batch."""
    one = {"type": "listen", "user_id": "u" * 200, "station_id": "s" * 200, "at": "2026-01-31T12:00:00Z", "seconds": 9}
    return json.dumps({"events": [one | {"event_id": f"{i:0200}"} for i in range(1_000)]}).encode()


def kinds() -> list[Kind]:
    """Everything that might take long."""
    registration = b'{"genres":[' + PEOPLE + b"]}"
    picks = PEOPLE.replace(b'"', b"").replace(b",", b"|")
    return [
        Kind("nothing else", method="GET", path="/nowhere"),
        Kind("6 MB of blanks around one", b'{"age":31}'.ljust(LARGEST)),
        Kind("6 MB in chunks of 2 bytes", b'{"age":31}'.ljust(LARGEST), chunk=2),
        Kind("JSON nested 6 million deep", filled(b'{"instances":[{"age":', b"[")),
        Kind("JSON, 6 MB of {}", filled(b'{"instances":[', b"{},", b"{}]}")),
        Kind("JSON, 10,000 x {}", b'{"instances":[' + b"{}," * 9_999 + b"{}]}"),
        Kind("JSON, 5,700 x 100 picks", b'{"instances":[' + b",".join([registration] * 5_700) + b"]}"),
        Kind("JSON, a million picks of one", filled(b'{"genres":[', b'"a",', b'"a"]}')),
        Kind("JSON, one key 700,000 times", filled(b"{", b'"age":31,', b'"age":31}')),
        Kind("JSON, a number of 6 million digits", filled(b'{"age":', b"9", b"}")),
        Kind("JSON, an unknown field of 6 MB", filled(b'{"', b"a - at `$.", b'":1}')),
        Kind("Unicode: one of 61 kB", bombs(1)[14:-2]),
        Kind("Unicode: 6 MB", bombs(104)),
        Kind("JSON Lines, 10,000 x {}", b"{}\n" * 10_000, LINES),
        Kind("JSON Lines, 6 MB of line ends", filled(b"", b"\n"), LINES),
        Kind("JSON Lines, 5,700 x 100 picks", (registration + b"\n") * 5_700, LINES),
        Kind("CSV, 10,000 x nothing told", b",,,\n" * 10_000, CSV),
        Kind("CSV, 6 MB of commas", filled(b"", b","), CSV),
        Kind("CSV, 6 MB of line ends", filled(b"", b"\n"), CSV),
        Kind("CSV, a cell of 3 million lines", filled(b'"', b"\n"), CSV),
        Kind("CSV, 6,200 x 100 picks", (b"31,,," + picks + b"\n") * 6_200, CSV),
        Kind("an explanation, 100 picks", registration, path="/v1/explanations"),
        Kind("an explanation, Unicode", bombs(1)[14:-2], path="/v1/explanations"),
        Kind("events, the longest batch", events(), path="/v1/events"),
        Kind("events, 3 million numbers", filled(b'{"events":[', b"1,", b"1]}"), path="/v1/events"),
        Kind("a report of 5 MB", method="GET", path="/report"),
        Kind("/metrics", method="GET", path="/metrics"),
        Kind("/openapi.json", method="GET", path="/openapi.json"),
    ]


@contextmanager
def serving(work: Path) -> Iterator[tuple[int, int]]:
    """The service: its port, and the process id of its worker."""
    http_stacks.make_bundle(work / "bundle")
    (work / "report.html").write_text("<!doctype html>".ljust(5_000_000))
    kept = ["--state", str(work / "state"), "--events", f"sqlite:///{work / 'events.sqlite'}"]
    command = [sys.executable, "-m", "firstspin.service", "--bundle", str(work / "bundle"), "--port", "0"]
    command += [*kept, "--report", str(work / "report.html"), "--drain-delay", "0", "--log-level", "error"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        while asked(port, b"GET /ping HTTP/1.1\r\nhost: bench\r\n\r\n") != 200:
            time.sleep(0.05)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        try:
            yield port, int(children[0])
        finally:
            process.terminate()


def ping(port: int, line: Connection) -> None:
    """Ask without pause; whenever asked, tell the longest wait since then, in seconds."""
    longest = 0.0
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while True:
            begun = time.perf_counter()
            connection.sendall(b"GET /ping HTTP/1.1\r\nhost: bench\r\n\r\n")
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
            longest = max(longest, time.perf_counter() - begun)
            if line.poll(0.0005):
                if not line.recv():
                    return
                line.send(longest)
                longest = 0.0


def asked(port: int, sent: bytes) -> int:
    """The status of the answer, which is read to its end."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        with suppress(ConnectionError):  # it may be refused before all of it was sent
            connection.sendall(sent)
        return answered(connection)


def answered(connection: socket.socket) -> int:
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65_536)
    head, _, body = received.partition(b"\r\n\r\n")
    found = re.search(rb"content-length: (\d+)", head)
    left = int(found[1]) - len(body) if found else 0
    while left > 0:
        left -= len(connection.recv(1_000_000))
    return int(head.split()[1])


def resident(pid: int, field: str = "VmRSS") -> int:
    """Kilobytes."""
    found = re.search(rf"{field}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) if found else 0


def measure(port: int, worker: int, kind: Kind, line: Connection) -> list[object]:
    """A row of the table."""
    sent = kind.bytes()
    Path(f"/proc/{worker}/clear_refs").write_text("5")  # VmHWM begins anew
    before = resident(worker)
    took, statuses = [], set()
    line.send(True)
    line.recv()
    for _ in range(TIMES):
        begun = time.perf_counter()
        statuses.add(asked(port, sent))
        took.append(time.perf_counter() - begun)
    line.send(True)
    alone = line.recv()
    threads = [Thread(target=asked, args=(port, sent)) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    line.send(True)
    together = line.recv()
    grown = (resident(worker, "VmHWM") - before) / 1024
    shown = "/".join(map(str, sorted(statuses)))
    return [kind.name, len(sent) / 1e6, shown, sorted(took)[TIMES // 2] * 1e3, alone * 1e3, together * 1e3, grown]


def main() -> None:
    work = Path(tempfile.mkdtemp(prefix="firstspin-bench-"))
    print(f"{'request':38}{'MB':>6}{'status':>9}{'ms':>8}{'/ping ms':>10}{f'{AT_ONCE} at once':>11}{'RSS MB':>8}")
    with serving(work) as (port, worker):
        ours, theirs = multiprocessing.Pipe()
        prober = multiprocessing.Process(target=ping, args=(port, theirs), daemon=True)
        prober.start()
        for kind in kinds():
            name, size, status, took, alone, together, grown = measure(port, worker, kind, ours)
            print(f"{name:38}{size:6.2f}{status:>9}{took:8.0f}{alone:10.1f}{together:11.1f}{grown:8.0f}")
        ours.send(False)
        prober.join()
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
