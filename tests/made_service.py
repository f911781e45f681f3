"""A running service for tests: the real process on a port of its own, and a client that speaks raw HTTP."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from forked_service import ForkedService
from in_threads import at_work

Process = subprocess.Popen[str] | ForkedService


@dataclass
class Service:
    """The process and where it answers."""

    process: Process
    port: int
    log: Path
    bundle: Path

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own: status, headers in lower case, body."""
        with self.connect() as connection:
            return exchange(connection, request(method, path, body, **headers))

    def recommend(self, **told: Any) -> dict[str, Any]:
        """An answer to one registration, which must be given."""
        status, _, body = self.ask("POST", "/invocations", json.dumps(told).encode())
        assert status == 200, body
        return json.loads(body)  # type: ignore[no-any-return]

    def connect(self, port: int | None = None) -> socket.socket:
        return socket.create_connection(("127.0.0.1", port or self.port), timeout=20)

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged."""
        whole = self.log.read_text().split("\n")[:-1]  # the last line may be half written
        return [json.loads(line) for line in whole if line.startswith("{")]

    def wait_for(self, words: str, times: int = 1, seconds: float = 20) -> None:
        """Until these words stand in the log."""
        until = time.monotonic() + seconds
        while self.log.read_text().count(words) < times:
            assert time.monotonic() < until, f"{words!r} never came: {self.log.read_text()[-2000:]}"
            time.sleep(0.02)


@contextmanager
def serving(
    bundle: Path,
    *options: str,
    ready: bool = True,
    through: Sequence[str] = (),
    stderr: IO[Any] | int | None = None,
    **process_options: Any,
) -> Iterator[Service]:
    """`firstspin serve` on a free port; killed at the end with all its children if it has not ended.

    `stderr` is a file in place of the log. `through` is a command that executes its arguments; `process_options` go to
    `Popen`. Without these two it is forked.
    """
    log = bundle.parent / f"serve-{time.monotonic_ns()}.log"
    words = ["--bundle", str(bundle), "--port", "0", *options]
    with log.open("w") as written:
        to = written if stderr is None else stderr
        if through or process_options or "LD_PRELOAD" in os.environ:
            command = [*through, sys.executable, "-m", "firstspin.service", *words]
            start: dict[str, Any] = {
                "stdout": subprocess.PIPE,
                "stderr": to,
                "text": True,
                "start_new_session": True,
            }
            process: Process = subprocess.Popen(command, **start | process_options)
        else:
            process = ForkedService(words, to)
    try:
        assert process.stdout is not None
        ready_to_read, _, _ = select.select([process.stdout], [], [], 60)
        assert ready_to_read, f"it never listened: {log.read_text()[-2000:]}"
        line = process.stdout.readline()
        assert "http://" in line, log.read_text()
        service = Service(process, int(line.rsplit(":", 1)[1].split()[0].strip("/")), log, bundle)
        if ready:
            wait_until_ready(service)
        yield service
    finally:
        try:
            end(process)
        finally:
            kill_group(process.pid)
            process.communicate()


def end(process: Process, seconds: float = 10) -> None:
    """End a service at once, by a further SIGTERM: two that arrive together are one, after which it drains first."""
    until = time.monotonic() + seconds
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
        assert time.monotonic() < until, "it never ended"


def wait_until_ready(service: Service, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with suppress(OSError):
            if service.ask("GET", "/ping")[0] == 200:
                return
        time.sleep(0.02)
    raise AssertionError(f"never ready: {service.log.read_text()[-2000:]}")


def kill_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """A request as bytes; JSON unless `content_type` says otherwise."""
    told = {"host": "test"}
    if body or method == "POST":
        told |= {"content-type": "application/json", "content-length": str(len(body))}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def exchange(connection: socket.socket, sent: bytes) -> tuple[int, dict[str, str], bytes]:
    connection.sendall(sent)
    return reply(connection)


def reply(connection: socket.socket, *, head: bool = False) -> tuple[int, dict[str, str], bytes]:
    """The next answer on a connection; an OSError where it ends before."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _more(connection)
    first, _, body = received.partition(b"\r\n\r\n")
    status, *lines = first.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        return int(status.split()[1]), headers, _chunked(connection, body)
    while not head and len(body) < int(headers.get("content-length", "0")):
        body += _more(connection)
    return int(status.split()[1]), headers, body


def _chunked(connection: socket.socket, received: bytes) -> bytes:
    """A body in chunks, of which this much has been received."""
    body = bytearray()
    while True:
        while b"\r\n" not in received:
            received += _more(connection)
        size, _, received = received.partition(b"\r\n")
        end = int(size, 16) + 2
        while len(received) < end:
            received += _more(connection)
        body += received[: end - 2]
        assert received[end - 2 : end] == b"\r\n"
        if end == 2:
            return bytes(body)
        received = received[end:]


def closes(connection: socket.socket) -> bool:
    """Whether the server ends the connection, within the socket's timeout."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def _more(connection: socket.socket) -> bytes:
    more = connection.recv(65536)
    if not more:
        raise ConnectionResetError("the service closed the connection")
    return more


QUICK = ("--drain-delay", "0.2")


def point(link: Path, to: Path) -> None:
    beside = link.with_name("beside")
    beside.symlink_to(to)
    beside.replace(link)


def workers(service: Service) -> list[int]:
    """The process ids of the children."""
    told = subprocess.run(["ps", "-o", "pid=", "--ppid", str(service.process.pid)], capture_output=True, text=True)
    return [int(line) for line in told.stdout.split()]


def until(true: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "this never came true"
        time.sleep(0.02)


class Callers:
    """Clients that ask without pause on connections they keep, and count what they get."""

    def __init__(self, service: Service, number: int = 4, requests_a_connection: int = 1 << 60) -> None:
        self._service, self._number = service, number
        self._requests_a_connection = requests_a_connection
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []

    @contextmanager
    def calling(self) -> Iterator[Callers]:
        with at_work(self._number, self._call):
            yield self

    def _call(self, _number: int, end: threading.Event) -> None:
        asked = request("POST", "/invocations", b'{"age":31,"genres":["Rock"]}')
        connection, sent = self._service.connect(), 0
        while not end.is_set():
            try:
                status, headers, body = exchange(connection, asked)
            except OSError as problem:
                self.failures.append(type(problem).__name__)
                status, headers = 0, {"connection": "close"}
            if status == 200:
                self.answers[json.loads(body)["model"]] += 1
            elif status:
                self.failures.append(f"{status} {json.loads(body)['error']['code']}")
            sent += 1
            if headers.get("connection") == "close" or sent % self._requests_a_connection == 0:
                connection.close()
                try:
                    connection = self._service.connect()
                except OSError:
                    return
        connection.close()


def admin(service: Service, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, object]]:
    """An order to the admin port, and what it says."""
    port = next(line["port"] for line in service.lines() if line["event"] == "admin port")
    with service.connect(port) as connection:
        status, _, body = exchange(connection, request(method, path, body, connection="close", **headers))
    return status, json.loads(body)


def click(event_id: str, user_id: str = "anna") -> dict[str, str]:
    return {"event_id": event_id, "type": "click", "user_id": user_id, "station_id": "1", "at": "2026-01-31T12:00:00Z"}


def send(service: Service, *events: object, **headers: str) -> tuple[int, list[str]]:
    """Events to the service: its status, and that of each."""
    status, _, body = service.ask("POST", "/v1/events", json.dumps({"events": events}).encode(), **headers)
    return status, [result["status"] for result in json.loads(body).get("results", [])]


def ask_for(service: Service, user_id: str, **headers: str) -> tuple[int, dict[str, Any]]:
    told = json.dumps({"user_id": user_id, "age": 31, "genres": ["Jazz"]}).encode()
    status, _, body = service.ask("POST", "/v1/recommendations", told, **headers)
    return status, json.loads(body)


def counted(service: Service, metric: str) -> float:
    """A metric as /metrics shows it, labels and all; 0 where there is none, or nobody to ask within two seconds."""
    try:
        with service.connect() as connection:
            connection.settimeout(2)
            text = exchange(connection, request("GET", "/metrics", connection="close"))[2].decode()
    except OSError:
        return 0.0
    return float(next((line.split()[-1] for line in text.splitlines() if line.startswith(f"{metric} ")), 0))


def resident(pid: int) -> float:
    """Megabytes in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024
