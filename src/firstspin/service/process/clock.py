"""A simulated time of day, shared between processes in a file. Only simulations use it."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from firstspin.events.schema import EPOCH, microseconds
from firstspin.records import InputError

_MOMENT: Final = struct.Struct("<q")  # microseconds since 1970


def set_clock(path: Path, moment: datetime) -> None:
    """Set the simulated time of the clock at `path`; the file is created if missing."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(file, _MOMENT.pack(microseconds(moment)), 0)
    finally:
        os.close(file)


def read_clock(path: Path) -> Callable[[], datetime]:
    """A function that returns the current time of the clock at `path`. Raises InputError where it is not a clock."""

    def current() -> datetime:
        return EPOCH + timedelta(microseconds=_MOMENT.unpack_from(mapped)[0])

    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), _MOMENT.size, access=mmap.ACCESS_READ)
        current()
    except (OSError, ValueError, OverflowError) as problem:
        raise InputError(f"{path} is not a clock of a simulation") from problem
    return current
