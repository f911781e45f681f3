"""The stop of a canary: a file in the state folder, after which everyone is answered by the bundle in service.

The service's own analysis writes it, and `firstspin experiment stop`; workers look for it twice a second. It stays
across restarts: a stopped canary is not started again, and the next one has a plan, and so a key, of its own. The
analysis also sets a metric, which stops the workers where the disk is full or read-only.
"""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from firstspin.files import written_beside
from firstspin.service.metrics import ProcessMetrics, SharedMetrics

if TYPE_CHECKING:
    from firstspin.experiment.monitor import Progress  # which workers do not import

log = logging.getLogger(__name__)

STOPPED: Final = "firstspin_canary_stopped"
"""The metric that stops the workers."""


class CanaryStop(msgspec.Struct, frozen=True):
    """Why and when the canary of this key was stopped; `at` is None where the file does not say."""

    experiment: str
    reason: str
    at: datetime | None


def stop_file(state: Path, experiment: str) -> Path:
    """The file of the stop of the canary with this key."""
    return state / "canary" / f"{experiment}.json"


def challenger_copies(state: Path, experiment: str) -> Path:
    """The folder with the service's copies of the challenger of the canary with this key, and of no other canary."""
    return state / "challenger" / experiment


def is_stopped(path: Path) -> bool:
    """Whether the file of the stop is there, or may be: where its folder can't be searched, the canary is stopped.

    No file is opened: a process that has too many open files must not stop the canary.
    """
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def read_stop(path: Path) -> CanaryStop | None:
    """The stop in the file; None where there is none. One that can't be read is a stop all the same."""
    if not is_stopped(path):
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=CanaryStop)
    except (OSError, msgspec.MsgspecError):
        return CanaryStop(path.stem, "the file of the stop can't be read", None)


def stop_in_force(path: Path, tallies: SharedMetrics) -> CanaryStop | None:
    """The stop in the file, or the one that the workers were given without a file."""
    stopped = read_stop(path)
    if stopped is None and tallies.total(STOPPED):
        return CanaryStop(path.stem, "its file is missing; the stop ends with the service", None)
    return stopped


def stop(path: Path, reason: str, at: datetime) -> CanaryStop:
    """Stop the canary, unless it is stopped; the first stop stands. Raises OSError where the file can't be written."""
    if earlier := read_stop(path):
        return earlier
    stopped = CanaryStop(path.stem, reason, at)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path, shared=True) as beside:
        beside.write_bytes(msgspec.json.encode(stopped))
    return stopped


def stop_as_decided(path: Path, progress: Progress, tally: ProcessMetrics) -> None:
    """Stop the canary where its sealed rule says so.

    The metric stops it in all workers. Where the file can't be written, that is logged, and the next analysis tries
    again.
    """
    if progress.experiment != path.stem or progress.status != "stop the canary":
        return
    try:
        stop(path, progress.sentence, progress.as_of)
    except OSError as problem:
        log.error("the stop of the canary can't be written, and ends with the service", extra={"reason": str(problem)})
    tally.gauge(STOPPED, 1)
