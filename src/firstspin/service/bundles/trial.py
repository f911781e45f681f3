"""A bundle is copied, loaded and probed in a process of its own, so that a corrupt or huge model harms no worker.

`python -m firstspin.service.bundles.trial BUNDLE COPY ROOM MANNERS SECONDS` is that process for models of a multi-model
endpoint; the supervisor forks one for its own. One line of JSON comes out, and the exit status says which: 0 `Taken`,
1 the reason why the bundle is refused, 2 that ROOM bytes of memory are too few.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from firstspin.files import sync_tree
from firstspin.records import readable
from firstspin.service.app import ServedModel
from firstspin.service.bundles.probe import probe
from firstspin.service.bundles.store import copy_files, told_of
from firstspin.service.process.worker import MAX_REASON, WorkerConfig
from firstspin.serving import bundle

REFUSED: Final = 1
NO_ROOM: Final = 2
LEAST: Final = 2**20
"""No model counts for fewer bytes, for what it needs may have fitted into what was free before."""
GRACE_SECONDS: Final = 5.0
PROBE_BYTES: Final = 64 * 2**20
"""What the requests of the probe and their answers may take, whatever the model takes."""
FIRST_TO_GO: Final = b"1000"
"""Where a machine has no memory left, Linux ends this process rather than a worker."""


class Taken(msgspec.Struct, frozen=True):
    """A bundle's id, and the bytes of memory by which a process grows that answers from it."""

    id: str
    bytes: int


def outcome(source: Path, to: Path, room: int, manners: WorkerConfig, seconds: float) -> tuple[int, bytes]:
    """Try a bundle: the exit status, and what is to be said (see above). To be called in a process that then ends.

    Its parent gives it so many seconds; where the parent has ended it ends by itself soon after.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds + GRACE_SECONDS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_bytes(FIRST_TO_GO)
    try:
        return 0, msgspec.json.encode(_taken(source, to, room, manners))
    except MemoryError:
        return NO_ROOM, msgspec.json.encode(f"it needs more than {room:,} bytes")
    except BaseException as problem:  # a bundle can make a library do anything
        reason = str(problem) or type(problem).__name__
        return REFUSED, msgspec.json.encode(readable(reason)[:MAX_REASON])


def _taken(source: Path, to: Path, room: int, manners: WorkerConfig) -> Taken:
    if source.is_dir() and sum(entry.stat().st_size for entry in os.scandir(source)) > room:
        raise MemoryError
    copy_files(source, to)
    before = _status("VmRSS")
    _limit_memory(room)
    with told_of(source, to):
        loaded = bundle.load(to)
        served = ServedModel.of(loaded, max_instances=manners.most_newcomers)
        grown = _status("VmRSS") - before
        _limit_memory(PROBE_BYTES)
        probe(loaded, served)
    sync_tree(to)
    return Taken(loaded.id, max(LEAST, grown, sum(path.stat().st_size for path in to.iterdir())))


def _limit_memory(room: int) -> None:
    """Take no more than so many bytes from now on."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_status("VmData") + room, most))


def _status(field: str) -> int:
    """A figure that Linux keeps of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"this system does not tell {field}")


def main() -> None:
    """Run the probe of a multi-model endpoint's bundle, with the arguments in the module's docstring."""
    source, to, room, manners, seconds = sys.argv[1:]
    status, said = outcome(
        Path(source), Path(to), int(room), msgspec.json.decode(manners, type=WorkerConfig), float(seconds)
    )
    sys.stdout.buffer.write(said + b"\n")
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
