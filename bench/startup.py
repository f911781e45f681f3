"""Claim: a command loads only what it runs: no command starts slower than in the version before, given beside it.

Run as `python bench/startup.py [NAME=PYTHON ...]`, with the Python of each further environment to measure beside this
one. The versions take turns. For a command: CPU seconds of the process (user and system) and seconds to its end; for
`serve`: seconds to the first 200 of /ping, and CPU seconds until then.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

TURNS = 11
USERS = 300
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def ended(command: list[str]) -> tuple[float, float]:
    """CPU seconds and seconds of a command that succeeds."""
    start = time.perf_counter()
    process = subprocess.Popen(command, **QUIET)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"{command} failed")
    return used.ru_utime + used.ru_stime, seconds


def served(command: list[str], port: int) -> tuple[float, float]:
    """CPU seconds of all its processes and seconds until /ping answers 200."""
    start = time.perf_counter()
    process = subprocess.Popen([*command, "--port", str(port)], **QUIET, start_new_session=True)
    try:
        while time.perf_counter() - start < 60:
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).read()
                seconds = time.perf_counter() - start
                return cpu_seconds(process.pid), seconds
            time.sleep(0.005)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
    raise TimeoutError("no answer in a minute")


def cpu_seconds(group: int) -> float:
    """CPU seconds of the processes of a group, and of their children that have ended."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


def main() -> None:
    pythons = dict(word.split("=", 1) for word in sys.argv[1:]) | {"this version": sys.executable}
    work = Path(tempfile.mkdtemp(prefix="firstspin-bench-"))
    data, bundle = str(work / "data"), str(work / "bundle")
    ours = [sys.executable, "-m", "firstspin"]
    ended([*ours, "world", data, "--users", str(USERS)])
    ended([*ours, "train", "--data", data, "--out", bundle, "--model", "logistic"])
    commands = {
        "--help": ["--help"],
        "train --help": ["train", "--help"],
        "experiment --help": ["experiment", "--help"],
        "recommend": ["recommend", "--bundle", bundle, "--age", "31", "--genres", "Rock"],
        f"label, {USERS} users": ["label", "--data", data, "--out", str(work / "labels.parquet")],
        "serve, first /ping": ["serve", "--bundle", bundle],
    }
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for _ in range(TURNS):
        for name, words in commands.items():
            for version, python in pythons.items():
                command = [python, "-m", "firstspin", *words]
                figures = served(command, free_port()) if words[0] == "serve" else ended(command)
                found.setdefault((name, version), []).append(figures)
    print(f"medians of {TURNS} turns")
    print(f"{'command':22} {'version':14} {'CPU ms':>8} {'ms':>8}")
    for (name, version), figures in found.items():
        cpu, seconds = (statistics.median(column) * 1000 for column in zip(*figures, strict=True))
        print(f"{name:22} {version:14} {cpu:8.0f} {seconds:8.0f}")


if __name__ == "__main__":
    main()
