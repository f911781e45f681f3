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
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO

from command_server import FORKED, MAX_BYTES, Command, run

MODULES = (
    *("firstspin.service.__main__", "firstspin.service.admin.__main__", "firstspin.service.pages.analysis"),
    *("firstspin.service.watch_run", "firstspin.events.databases.postgres", "importlib.metadata"),
)


class ForkedService:
    """A service, as `Popen` shows a process."""

    stdout: IO[str]
    returncode: int | None

    def __init__(self, words: Sequence[str], stderr: IO[str]) -> None:
        command = Command.here(words, os.environ, Path.cwd())
        reading, writing = os.pipe()
        self.stdout, self.returncode = os.fdopen(reading), None
        self.args = [sys.executable, "-m", "firstspin.service", *words]
        self._keeper, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(_server(), [json.dumps(command).encode()], [writing, stderr.fileno(), theirs.fileno()])
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
    # with its children, which would wait for a service
    atexit.register(lambda: (os.killpg(server.pid, signal.SIGKILL), server.wait()))
    return ours


def main() -> None:
    """Serve until the tests end."""
    for module in MODULES:
        importlib.import_module(module)
    gc.freeze()  # a collection in a service copies none of their pages
    with socket.socket(fileno=int(sys.argv[1])) as tests:
        while True:
            content, streams, _, _ = socket.recv_fds(tests, MAX_BYTES, 3)
            if not content:
                return
            FORKED.Process(target=keep, args=(Command(*json.loads(content)), streams)).start()
            for stream in streams:
                os.close(stream)


def keep(command: Command, streams: list[int]) -> None:
    """Start a service, and say how it ends."""
    *streams, keeper = streams
    service = FORKED.Process(target=serve, args=(command, streams))
    service.start()
    for stream in streams:
        os.close(stream)
    with socket.socket(fileno=keeper) as asked:
        asked.send(b"%d" % service.pid)
        service.join()
        with suppress(BrokenPipeError):  # nobody waits
            asked.send(b"%d" % service.exitcode)


def serve(command: Command, streams: list[int]) -> None:
    """Become the service."""
    os.setsid()
    run("firstspin.service", command, streams)


if __name__ == "__main__":
    main()
