"""The bundle probe's process: it copies, loads and probes a bundle, so that a corrupt or huge model harms no worker.

The supervisor forks it for the service's own bundle. For models of a multi-model endpoint it is
`python -m firstspin.service.bundles.probe_process BUNDLE COPY MAX_BYTES CONFIG SECONDS`. The output is a line of JSON,
by exit status: 0 `AcceptedBundle`, 1 the reason of the refusal, 2 the model needs more than MAX_BYTES of memory.
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
from firstspin.service.bundles.probe import probe
from firstspin.service.bundles.store import copy_files, naming_source
from firstspin.service.process.worker import MAX_REASON, WorkerConfig
from firstspin.service.served_model import ServedModel
from firstspin.serving import bundle

REFUSED: Final = 1
OUT_OF_MEMORY: Final = 2
MIN_BUNDLE_BYTES: Final = 2**20
"""Min size of a model: a small one may fit into memory that was allocated but free."""
GRACE_SECONDS: Final = 5.0
PROBE_BYTES: Final = 64 * 2**20
"""Memory for the requests of the probe and their answers, beside the model's."""
OOM_SCORE: Final = b"1000"
"""The OOM killer ends this process before a worker."""


class AcceptedBundle(msgspec.Struct, frozen=True):
    """The id of an accepted bundle, and the bytes by which it increases a process's memory."""

    id: str
    bytes: int


def outcome(source: Path, to: Path, max_bytes: int, config: WorkerConfig, seconds: float) -> tuple[int, bytes]:
    """Probe a bundle: the exit status and the output (see above). To be called in a process that then ends.

    The parent kills this process after `seconds`; without a parent it ends by itself soon after.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds + GRACE_SECONDS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_bytes(OOM_SCORE)
    try:
        return 0, msgspec.json.encode(_accepted(source, to, max_bytes, config))
    except MemoryError:
        return OUT_OF_MEMORY, msgspec.json.encode(f"it needs more than {max_bytes:,} bytes")
    except BaseException as problem:  # a corrupt bundle can cause any error in a library
        reason = str(problem) or type(problem).__name__
        return REFUSED, msgspec.json.encode(readable(reason)[:MAX_REASON])


def _accepted(source: Path, to: Path, max_bytes: int, config: WorkerConfig) -> AcceptedBundle:
    if source.is_dir() and sum(entry.stat().st_size for entry in os.scandir(source)) > max_bytes:
        raise MemoryError
    copy_files(source, to)
    before = _status("VmRSS")
    _limit_memory(max_bytes)
    with naming_source(source, to):
        loaded = bundle.load(to)
        served = ServedModel.of(loaded, max_instances=config.max_registrations)
        grown = _status("VmRSS") - before
        _limit_memory(PROBE_BYTES)
        probe(loaded, served)
    sync_tree(to)
    return AcceptedBundle(loaded.id, max(MIN_BUNDLE_BYTES, grown, sum(path.stat().st_size for path in to.iterdir())))


def _limit_memory(max_bytes: int) -> None:
    """Limit further allocations to so many bytes."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_status("VmData") + max_bytes, hard_limit))


def _status(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no field {field}")


def main() -> None:
    """Probe the bundle named on the command line."""
    source, to, max_bytes, config, seconds = sys.argv[1:]
    status, output = outcome(
        Path(source), Path(to), int(max_bytes), msgspec.json.decode(config, type=WorkerConfig), float(seconds)
    )
    sys.stdout.buffer.write(output + b"\n")
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
