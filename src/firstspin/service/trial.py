"""`python -m firstspin.service.trial BUNDLE COPY ROOM`: copy a bundle, load the copy, and say what it took.

A process of its own, for whatever a corrupt or huge model does on its way in, it does here alone. One line of JSON
comes out, and the exit status says which: 0 `Taken`, 1 the reason why it is no bundle, 2 that ROOM bytes are too few.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import Final

import msgspec

from firstspin.records import InputError
from firstspin.service.shelf import copy
from firstspin.service.worker import load

NO_ROOM: Final = 2
LEAST: Final = 2**20
"""No model counts for fewer bytes, for what it needs may have fitted into what was free before."""


class Taken(msgspec.Struct, frozen=True):
    """A bundle's id, and the bytes of memory by which a process grows that answers from it."""

    id: str
    bytes: int


def main() -> None:
    source, to, room = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    _, data = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_status("VmData") + room, data))
    try:
        taken = _taken(source, to, room)
    except (InputError, OSError) as problem:
        _say(str(problem))
        sys.exit(1)
    except MemoryError:
        _say(f"it needs more than {room:,} bytes")
        sys.exit(NO_ROOM)
    _say(taken)


def _taken(source: Path, to: Path, room: int) -> Taken:
    if source.is_dir() and sum(entry.stat().st_size for entry in os.scandir(source)) > room:
        raise MemoryError
    name = copy(source, to)
    before = _status("VmRSS")
    load(to)
    return Taken(name, max(LEAST, _status("VmRSS") - before, sum(path.stat().st_size for path in to.iterdir())))


def _status(field: str) -> int:
    """A figure that Linux keeps of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"this system does not tell {field}")


def _say(what: Taken | str) -> None:
    sys.stdout.write(msgspec.json.encode(what).decode() + "\n")


if __name__ == "__main__":
    main()
