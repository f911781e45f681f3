"""The command line as a user runs it, in a process of its own."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock

from command_server import Command

SECONDS = 240
ONE_AT_A_TIME = Lock()


def firstspin(*words: object) -> subprocess.CompletedProcess[str]:
    """The command, with the environment and the working directory of this process."""
    done = run(list(map(str, words)), os.environ, Path.cwd())
    assert "…" not in done.stdout, f"{words} cuts its output"
    return done


def run(words: list[str], environment: Mapping[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A command in a process that the command server forks."""
    command = Command.here(words, environment, folder)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err, ONE_AT_A_TIME:
        status = _status(command, out.fileno(), err.fileno())
        for stream in (out, err):
            stream.seek(0)
        return subprocess.CompletedProcess(words, status, out.read(), err.read())


def started(*words: object) -> subprocess.CompletedProcess[str]:
    """The same by a new interpreter, which has a hash seed of its own: sets have another order."""
    command = [sys.executable, "-m", "firstspin", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


def failed(*words: object) -> str:
    """The one line of a command that fails."""
    done = firstspin(*words)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    return done.stderr.rstrip("\n")


def sagemaker(*words: object) -> subprocess.CompletedProcess[str]:
    return firstspin("sagemaker", *words)


def _status(command: Command, *streams: int) -> int:
    server, _ = _server()
    try:
        socket.send_fds(server, [json.dumps(command).encode()], streams)
        return int(server.recv(100))
    except BaseException as problem:  # a test's timeout too: else the next command would read this one's status
        _end()
        if isinstance(problem, TimeoutError):
            raise subprocess.TimeoutExpired(command.words, SECONDS) from None
        raise


def start_server(*words: str) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start a command server, with `bare` one that has imported nothing."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        script = Path(__file__).with_name("command_server.py")
        command = [sys.executable, str(script), str(theirs.fileno()), *words]
        alone = os.environ | {"OMP_NUM_THREADS": "1"}  # numpy's threads would not survive a fork
        fds, null = [theirs.fileno()], subprocess.DEVNULL
        process = subprocess.Popen(command, env=alone, pass_fds=fds, stdin=null, process_group=0)
    ours.settimeout(SECONDS)
    return ours, process


_server = cache(start_server)


def _end() -> None:
    """End the server with the command that it runs; the next command starts another."""
    if _server.cache_info().currsize:
        server, process = _server()
        _server.cache_clear()
        server.close()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


atexit.register(_end)
