"""Many inputs in several processes; whatever ends one of them is a failure of the input it was at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from fuzz.worker import OPENING, Failure, Job, Progress, Tally

TESTS = Path(__file__).parent.parent
SECONDS = 30.0
"""An input that takes longer is counted as a hang. The usual ones take milliseconds."""
MOST_ENDS = 20
"""Processes that inputs may end; what comes after is not looked at."""


@dataclass
class Found:
    """What came of a run."""

    failures: list[Failure] = field(default_factory=list)
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    megabytes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, one: Failure | Tally) -> None:
        if isinstance(one, Failure):
            self.failures.append(one)
            return
        self.outcomes.setdefault(one.entry, Counter()).update(one.outcomes)
        self.megabytes[one.entry] = max(one.megabytes, self.megabytes.get(one.entry, 0))


def run(
    entries: Sequence[str],
    indexes: range,
    *,
    seed: int,
    processes: int = 1,
    seconds: float = SECONDS,
    environment: Mapping[str, str] | None = None,
    most_ends: int = MOST_ENDS,
) -> Found:
    """Check inputs of some entries. `environment` is added to that of the processes."""
    found = Found()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="firstspin-fuzz-") as folder:
        parts = [
            _Part(
                Job(tuple(entries), seed, indexes.start + p, indexes.stop, processes, f"{folder}/{p}", seconds),
                dict(os.environ) | {"PYTHONPATH": str(TESTS), **(environment or {})},
                most_ends,
            )
            for p in range(min(processes, max(len(indexes), 1)))
        ]
        try:
            while running := [part for part in parts if not part.ended()]:
                running[0].wait(0.2)
        finally:
            for part in parts:
                part.stop()
        for part in parts:
            for one in part.found():
                found.add(one)
    found.seconds = time.monotonic() - start
    return found


class _Part:
    """A share of the inputs: a process, started again after the input that ended it."""

    def __init__(self, job: Job, environment: dict[str, str], most_ends: int) -> None:
        self._job, self._environment, self._most_ends = job, environment, most_ends
        self._folder = Path(job.folder)
        self._folder.mkdir()
        self._killed: list[Failure] = []
        self._start(job)

    def _start(self, job: Job) -> None:
        command = [sys.executable, "-m", "fuzz.worker", msgspec.json.encode(job).decode()]
        with (self._folder / "said").open("wb") as said:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=self._environment
            )

    def wait(self, seconds: float) -> None:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return

    def ended(self) -> bool:
        """Whether all is checked; a process that ended before is followed by another."""
        status = self._process.poll()
        if not status:
            return status == 0
        said = (self._folder / "said").read_text(errors="replace")[-6000:]
        try:
            entry, index = Progress.read(self._folder / "progress")
        except (OSError, ValueError):
            entry, index = 0, OPENING
        if index == OPENING:
            raise RuntimeError(f"{self._job.entries[entry]} can't be opened or closed: {said}")
        how = "hangs" if status == -signal.SIGALRM else f"ends the process with status {status}"
        self._killed.append(Failure(self._job.entries[entry], index, f"{how}\n{said}"))
        if len(self._killed) == self._most_ends:
            return True
        self._start(msgspec.structs.replace(self._job, entry=entry, resumed=index + self._job.step))
        return False

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def found(self) -> Iterable[Failure | Tally]:
        yield from self._killed
        path = self._folder / "found.jsonl"
        for line in path.read_bytes().splitlines() if path.exists() else ():
            yield msgspec.json.decode(line, type=Failure | Tally)
