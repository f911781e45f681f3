"""Forks a process for each command of the tests, and has imported the libraries: imports are most of a short command.

Its Unix socket receives commands with their standard output and error, and sends process ids and exit statuses. Nothing
of firstspin is imported before the fork: each command reads its own environment, and imports what it needs.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import socket
import sys
import time
from typing import NamedTuple

LIBRARIES = (
    *(
        "duckdb",
        "ibis.backends.duckdb",
        "numpy",
        "pandas",
        "pyarrow.parquet",
        "pydantic",
        "rich.progress",
        "rich.table",
    ),
    *("scipy.optimize", "scipy.stats", "threadpoolctl", "typer"),
)
MAX_BYTES = 1 << 18


class Command(NamedTuple):
    """The arguments of `firstspin`, and what its process would inherit: environment, working directory and umask."""

    words: list[str]
    environment: dict[str, str]
    folder: str
    umask: int


def main() -> None:
    """In the server: serve until the tests end. In each of its children: run one command."""
    for library in LIBRARIES:
        importlib.import_module(library)
    with socket.socket(fileno=int(sys.argv[1])) as tests:
        command = next_command(tests)
    if command is None:
        return
    os.chdir(command.folder)
    os.environ.clear()
    os.environ.update(command.environment)
    os.umask(command.umask)
    time.tzset()
    sys.argv[1:], sys.path[0] = command.words, command.folder
    runpy.run_module("firstspin", run_name="__main__", alter_sys=True)


def next_command(tests: socket.socket) -> Command | None:
    """Fork for each command. The child returns it; the server itself returns None when the tests have ended."""
    while True:
        content, streams, _, _ = socket.recv_fds(tests, MAX_BYTES, 2)
        if not content:
            return None
        child = os.fork()
        if not child:
            for target, stream in enumerate(streams, 1):
                os.dup2(stream, target)
                os.close(stream)
            return Command(*json.loads(content))
        for stream in streams:
            os.close(stream)
        tests.send(b"%d" % child)
        tests.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()
