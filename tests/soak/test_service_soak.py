"""Half an hour under load: a reload every 10 seconds, a worker killed every minute, and nothing else may fail.

SOAK_SECONDS shortens it. Figures of the last whole run are in docs/performance.md.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from made_bundles import pack
from made_service import Callers, point, serving, workers

SECONDS = float(os.environ.get("SOAK_SECONDS", "1800"))
CALLERS = 4  # they change connections, or all may sit at the worker that is never killed


def resources(pid: int) -> tuple[float, int, int]:
    """Resident MB, threads and open files of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"]), len(list(Path(f"/proc/{pid}/fd").iterdir()))


def together(*pids: int) -> tuple[float, int, int]:
    """The sums of several processes' resources."""
    megabytes, threads, files = zip(*map(resources, pids), strict=True)
    return sum(megabytes), sum(threads), sum(files)


@pytest.mark.soak
def test_case_48_nothing_fails_and_nothing_grows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundles = [tmp_path / "one", tmp_path / "two"]
    for seed, folder in enumerate(bundles):
        pack(folder, seed=seed)
    current = tmp_path / "current"
    current.symlink_to(bundles[0])
    seen: list[tuple[float, int, int]] = []
    kills = 0
    with (
        serving(current, "--workers", "2", "--drain-delay", "0") as service,
        Callers(service, CALLERS, 200).calling() as c,
    ):
        end = time.monotonic() + SECONDS
        for turn in range(1, 1 << 30):
            if time.monotonic() > end:
                break
            time.sleep(10)
            point(current, bundles[turn % 2])
            seen.append(together(service.process.pid, sorted(workers(service))[0]))
            if turn % 6 == 0:
                os.kill(sorted(workers(service))[-1], signal.SIGKILL)
                kills += 1
        answers, failures = sum(c.answers.values()), len(c.failures)
        statuses = {failure for failure in c.failures if failure[0].isdigit()}
    grown = f"first {seen[0]}, last {seen[-1]} (MB, threads, files of the supervisor and the longest-lived worker)"
    told = f"{answers:,} answers, {len(seen)} reloads, {kills} kills, {failures} cut off by a kill"
    with capsys.disabled():
        sys.stdout.write(f"\n{SECONDS:.0f} s: {told}; {grown}\n")
    assert statuses == set()
    assert failures <= CALLERS * kills
    assert seen[-1][0] < seen[len(seen) // 10][0] * 1.1 + 2
    assert seen[-1][1] <= seen[len(seen) // 10][1] + 1
    assert seen[-1][2] <= seen[len(seen) // 10][2] + 2 * CALLERS
