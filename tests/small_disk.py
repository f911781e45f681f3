"""A disk that is soon full: a small tmpfs, which takes the right to mount one."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BALLAST = "ballast"


@contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[Path]:
    """The disk at a place, which is made; where it can't be mounted, the test is skipped."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", place]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small tmpfs (root)")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill_up(disk: Path) -> None:
    """Take every byte that is left, by a file that can be taken away."""
    with pytest.raises(OSError) as full, (disk / BALLAST).open("wb", buffering=0) as file:  # noqa: PT011, PT012
        while True:
            file.write(bytes(4096))
    assert full.value.errno == errno.ENOSPC
