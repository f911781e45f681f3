"""What a service takes from the machine at its start: memory, open files, the state folder's lock, and its sockets.

A supervisor that was killed may hold lock and port for a moment longer: both are asked for again, for two seconds.
"""

from __future__ import annotations

import resource
import socket
import time
from pathlib import Path
from typing import Final

from firstspin.service.bundles.store import BundleStore, InUse
from firstspin.service.metrics import SharedMetrics
from firstspin.service.process import listening
from firstspin.service.process.children import Child
from firstspin.service.process.crew import Crew, Slot

ATTEMPTS: Final = 20
ATTEMPT_SECONDS: Final = 0.1


def allow_many_files() -> None:
    """Raise the limit of open files as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))


def locked_store(state: Path, private: set[int] | None = None) -> BundleStore:
    """The bundle store in the state folder, with these `private` descriptors. Raises InUse where another has it."""
    for _ in range(ATTEMPTS):
        try:
            return BundleStore(state, private)
        except InUse as problem:
            last = problem
            time.sleep(ATTEMPT_SECONDS)
    raise last


def new_crew(
    at: tuple[str, int], workers: int, admin_at: tuple[str, int] | None, tallies: SharedMetrics, private: set[int]
) -> Crew:
    """The processes to start, each with its socket; addresses are host and port. Raises OSError where one is taken."""
    reserved = _reserve(*at)
    port = reserved.getsockname()[1]
    slots = [Slot(number, listening.listener(at[0], port)) for number in range(workers)]
    admin = Child(workers + 1, socket.create_server(admin_at)) if admin_at else None
    return Crew(slots, admin, tallies, reserved, private=private)


def _reserve(host: str, port: int) -> socket.socket:
    for _ in range(ATTEMPTS):
        try:
            return listening.reserve(host, port)
        except OSError as problem:
            last = problem
            time.sleep(ATTEMPT_SECONDS)
    raise OSError(f"can't listen on {host}:{port}: {last.strerror}")
