"""One process that makes inputs and checks them: `python -m fuzz.worker JOB`, started by `runs`.

Failures are appended to a file as they are found. Which input is being checked is always written in a small map of a
file, so that the parent knows it whatever ends this process; SIGALRM does where one input takes too long, even in C.
"""

from __future__ import annotations

import faulthandler
import gc
import mmap
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from fuzz import sanitized
from fuzz.entries import opened
from fuzz.inputs import Broken, Check, Input

MOST_FAILURES = 20
"""Of an entry in one process; what comes after is not looked at."""

MOST_LINES = 14
"""Of a traceback."""

SPARE_FILES, SPARE_THREADS = 40, 20
"""What libraries may keep open for themselves between inputs."""


OPENING = -1
"""In place of an index: the entry is being opened, or closed."""


class Job(msgspec.Struct, frozen=True):
    """Inputs first, first + step, … below `end` of some entries, from the entry number `entry` on."""

    entries: tuple[str, ...]
    seed: int
    first: int
    end: int
    step: int
    folder: str
    seconds: float
    entry: int = 0
    resumed: int | None = None
    """The input to go on with in that entry, after a process that did not live to its end."""


class Failure(msgspec.Struct, frozen=True, tag=True):
    """An input, what it broke, and what it was made of."""

    entry: str
    index: int
    said: str
    notes: tuple[str, ...] = ()


class Tally(msgspec.Struct, frozen=True, tag=True):
    """How the inputs of an entry ended, and how large the process has grown, in MB."""

    entry: str
    outcomes: dict[str, int]
    megabytes: int


class Progress:
    """The input that is being checked, kept where the parent can read it."""

    FORMAT = "qq"

    def __init__(self, path: Path) -> None:
        with path.open("w+b") as file:
            file.truncate(struct.calcsize(self.FORMAT))
            self._map = mmap.mmap(file.fileno(), 0)

    def at(self, entry: int, index: int) -> None:
        struct.pack_into(self.FORMAT, self._map, 0, entry, index)

    @staticmethod
    def read(path: Path) -> tuple[int, int]:
        entry, index = struct.unpack(Progress.FORMAT, path.read_bytes())
        return entry, index


def main() -> None:
    sanitized.take_extensions()
    job = msgspec.json.decode(sys.argv[1], type=Job)
    folder = Path(job.folder)
    faulthandler.enable()
    faulthandler.register(signal.SIGALRM, chain=True)  # says where, then the process ends
    progress = Progress(folder / "progress")
    with _at_home(folder / "work"), (folder / "found.jsonl").open("ab", buffering=0) as found:
        for number in range(job.entry, len(job.entries)):
            name = job.entries[number]
            progress.at(number, OPENING)
            with opened(name)(folder / "work") as check:
                gc.freeze()  # or else modules are looked through every few inputs
                gc.set_threshold(20_000)  # an input makes thousands of objects
                first = job.first if job.resumed is None or number != job.entry else job.resumed
                for one in _checked(name, number, check, job, first, progress):
                    found.write(msgspec.json.encode(one) + b"\n")
                gc.unfreeze()


def _checked(
    name: str, number: int, check: Check, job: Job, first: int, progress: Progress
) -> Iterator[Failure | Tally]:
    outcomes: Counter[str] = Counter()
    failures = 0
    held = _held()
    for index in range(first, job.end, job.step):
        progress.at(number, index)
        signal.setitimer(signal.ITIMER_REAL, job.seconds)
        made = Input(name, job.seed, index, Path(job.folder) / "work")
        try:
            outcomes[check(made)] += 1
        except Broken as problem:
            failures += 1
            yield Failure(name, index, str(problem), made.notes())
        except BaseException:
            failures += 1
            yield Failure(name, index, "".join(traceback.format_exc().splitlines(True)[-MOST_LINES:]), made.notes())
        signal.setitimer(signal.ITIMER_REAL, 0)
        if failures >= MOST_FAILURES:
            break
    progress.at(number, OPENING)
    files, threads = (now - before for now, before in zip(_held(), held, strict=True))
    if files > SPARE_FILES or threads > SPARE_THREADS:
        yield Failure(name, -1, f"all inputs together leave {files} files and {threads} threads behind")
    yield Tally(name, dict(outcomes), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def _held() -> tuple[int, int]:
    """Open files and threads, without what only waits for the garbage collector."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


@contextmanager
def _at_home(folder: Path) -> Iterator[None]:
    """Work in a folder of this process, temporary files included."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tmp").mkdir(parents=True)
    os.chdir(folder)
    tempfile.tempdir = str(folder / "tmp")
    os.environ["TMPDIR"] = tempfile.tempdir
    yield


if __name__ == "__main__":
    main()
