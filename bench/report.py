"""Claim: the report on 20,000 registrations takes less than two minutes on two cores.

`python bench/report.py [NAME=PYTHON ...] [--users N]`: this version, beside those of other environments. Each version
makes the simulated tables, trains its bundle and writes its report. CPU time is that of the process: on a machine with
other work it is the figure to compare.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds of the clock and of CPU that a command takes."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("versions", nargs="*", help="NAME=PYTHON")
    arguments.add_argument("--users", type=int, default=20_000)
    given = arguments.parse_args()
    pythons = dict(word.split("=", 1) for word in given.versions) | {"this version": sys.executable}
    work = Path(tempfile.mkdtemp(prefix="firstspin-bench-"))
    print(f"{given.users:,} registrations, load of the machine {os.getloadavg()[0]:.1f}")
    print(f"{'version':14} {'s':>8} {'CPU s':>8} {'kB':>8}", flush=True)
    for i, (version, python) in enumerate(pythons.items()):
        data, bundle, page = (str(work / f"{i}{name}") for name in ("data", "bundle", "report.html"))
        measured([python, "-m", "firstspin", "world", data, "--users", str(given.users)])
        measured([python, "-m", "firstspin", "train", "--data", data, "--out", bundle])
        command = [python, "-m", "firstspin", "report", "--data", data, "--bundle", bundle, "--out", page]
        seconds, cpu = measured(command)
        print(f"{version:14} {seconds:8.1f} {cpu:8.1f} {Path(page).stat().st_size / 1000:8.0f}", flush=True)


if __name__ == "__main__":
    main()
