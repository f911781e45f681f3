"""Services that are forked from a process that has imported them: imports are most of the start of a service.

Its Unix socket receives the arguments of a service with its standard output and error, and a socket which gets the
process id of the service and, when it ends, its exit status.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from command_server import FORKED, MAX_BYTES, Command, run

MODULES = (
    *("firstspin.service.__main__", "firstspin.service.admin.__main__", "firstspin.service.pages.analysis"),
    *("firstspin.service.watch_run", "firstspin.events.databases.postgres", "importlib.metadata"),
)


class ForkedService:
    """A service, as `Popen` shows a process."""

    stdout: IO[str]
    returncode: int | None

    def __init__(self, words: Sequence[str], stderr: IO[Any] | int) -> None:
        command = Command.here(words, os.environ, Path.cwd())
        reading, writing = os.pipe()
        self.stdout, self.returncode = os.fdopen(reading), None
        self.args = [sys.executable, "-m", "firstspin.service", *words]
        self._keeper, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        errors = stderr if isinstance(stderr, int) else stderr.fileno()
        with theirs:
            socket.send_fds(_server(), [json.dumps(command).encode()], [writing, errors, theirs.fileno()])
        os.close(writing)
        self.pid = int(self._keeper.recv(100))

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._keeper.settimeout(timeout)
            try:
                self.returncode = int(self._keeper.recv(100))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._keeper.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self) -> tuple[str, None]:
        with self.stdout:
            said = self.stdout.read()
        self.wait()
        return said, None


def ended(words: Sequence[object], seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """A service that ends by itself."""
    with tempfile.TemporaryFile("w+") as stderr:
        service = ForkedService(list(map(str, words)), stderr)
        status, (out, _) = service.wait(seconds), service.communicate()
        stderr.seek(0)
        return subprocess.CompletedProcess(service.args, status, out, stderr.read())


@cache
def _server() -> socket.socket:
    """The connection to the server."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        words = [sys.executable, __file__, str(theirs.fileno())]
        server = subprocess.Popen(words, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, process_group=0)
    atexit.register(lambda: (server.kill(), server.wait()))
    return ours


def main() -> None:
    """Serve until the tests end."""
    for module in MODULES:
        importlib.import_module(module)
    gc.freeze()  # a collection in a service copies none of their pages
    running: dict[int, Kept] = {}  # by the descriptor of the process
    with socket.socket(fileno=int(sys.argv[1])) as tests:
        while True:
            ready, _, _ = select.select([tests.fileno(), *running], [], [])
            for over in running.keys() & set(ready):
                running.pop(over).report()
                os.close(over)
            if tests.fileno() in ready:
                content, streams, _, _ = socket.recv_fds(tests, MAX_BYTES, 3)
                if not content:
                    return
                kept = Kept(Command(*json.loads(content)), *streams)
                running[os.pidfd_open(kept.pid)] = kept


class Kept:
    """A service of the server, and the socket of its test."""

    def __init__(self, command: Command, out: int, err: int, asked: int) -> None:
        self._service = FORKED.Process(target=serve, args=(command, [out, err]))
        self._service.start()
        for stream in (out, err):
            os.close(stream)
        self._asked, self.pid = socket.socket(fileno=asked), self._service.pid or 0
        self._asked.send(b"%d" % self.pid)

    def report(self) -> None:
        """Say how it ended."""
        self._service.join()
        with self._asked, suppress(BrokenPipeError):  # nobody waits
            self._asked.send(b"%d" % self._service.exitcode)


def serve(command: Command, streams: list[int]) -> None:
    """Become the service."""
    os.setsid()
    run("firstspin.service", command, streams)


if __name__ == "__main__":
    main()
