"""Forks a process for each command of the tests, and has imported the commands: imports are most of a short one.

Its Unix socket receives commands with their standard output and error, and sends exit statuses. The environment is that
of the command: no module reads it when it is imported.
"""

from __future__ import annotations

import gc
import importlib
import json
import multiprocessing
import os
import pkgutil
import runpy
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

LIBRARIES = (
    *("duckdb", "ibis.backends.duckdb", "numpy", "pandas", "pyarrow.dataset", "pyarrow.parquet", "rich.progress"),
    *("pydantic.fields", "rich.table", "scipy.optimize", "scipy.stats", "threadpoolctl", "typer"),
)
MAX_BYTES = 1 << 18
PACKAGES = ("cli", "data", "evaluation", "events", "experiment", "models", "serving", "simulation")
"""Of firstspin, with all their modules."""
FORKED = multiprocessing.get_context("fork")  # its processes end without the clean-up of all modules, which takes 0.4 s


class Command(NamedTuple):
    """The arguments of `firstspin`, and what its process would inherit: environment, working directory and umask."""

    words: list[str]
    environment: dict[str, str]
    folder: str
    umask: int

    @classmethod
    def here(cls, words: Sequence[object], environment: Mapping[str, str], folder: Path) -> Command:
        """With the umask of this process."""
        os.umask(umask := os.umask(0o077))
        return cls(list(map(str, words)), dict(environment), str(folder), umask)


def main() -> None:
    """Serve until the tests end."""
    for name in () if "bare" in sys.argv else (*LIBRARIES, *modules()):
        importlib.import_module(name)
    importlib.import_module("pydantic").TypeAdapter(int)  # the first one looks for plugins of pydantic in all packages
    gc.freeze()  # a collection in a child copies none of their pages
    with socket.socket(fileno=int(sys.argv[1])) as tests:
        while True:
            content, streams, _, _ = socket.recv_fds(tests, MAX_BYTES, 2)
            if not content:
                return
            child = FORKED.Process(target=run, args=("firstspin", Command(*json.loads(content)), streams))
            child.start()
            for stream in streams:
                os.close(stream)
            child.join()
            tests.send(b"%d" % child.exitcode)


def modules() -> Iterator[str]:
    """The modules of the packages, without programs."""
    for package in PACKAGES:
        found = importlib.import_module(f"firstspin.{package}")
        for module in pkgutil.walk_packages(found.__path__, f"{found.__name__}."):
            if not module.name.endswith("__main__"):
                yield module.name


def run(module: str, command: Command, streams: list[int]) -> None:
    """Become the program, with no other open file."""
    for target, stream in enumerate(streams, 1):
        os.dup2(stream, target)
    os.closerange(3, 1024)
    os.chdir(command.folder)
    os.environ.clear()
    os.environ.update(command.environment)
    os.umask(command.umask)
    time.tzset()
    tempfile.tempdir = None
    sys.argv[1:], sys.path[0] = command.words, command.folder
    sys.orig_argv[1:] = ["-m", module, *command.words]
    sys.modules.pop(f"{module}.__main__", None)  # of which runpy would warn
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
