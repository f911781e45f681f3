"""What a process may run out of: descriptors, processes, room in a pipe."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def limited(pid: int, what: str, to: int, through: Sequence[str] = ()) -> Iterator[None]:
    """A process that may have so much of something for a while."""
    ask = [*through, "prlimit", "--pid", str(pid), f"--{what}", "--raw", "--noheadings", "--output", "SOFT"]
    before = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    change = [*through, "prlimit", "--pid", str(pid)]
    subprocess.run([*change, f"--{what}={to}:"], check=True)
    try:
        yield
    finally:
        subprocess.run([*change, f"--{what}={before}:"], check=False)


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def fill_pipe(descriptor: int) -> None:
    """Take all the room of a pipe, without a change to what others see of it."""
    ours = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(ours, b"\n" * 4096)
    os.close(ours)
