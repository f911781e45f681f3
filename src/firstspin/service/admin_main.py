"""The admin process, which the supervisor starts with `--admin-port`, and again whenever it ends or hangs."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

from firstspin.experiment.database import Database
from firstspin.experiment.events import KEY_BYTES, Secret, Unavailable, read_secret
from firstspin.experiment.store import open_database
from firstspin.records import InputError
from firstspin.service.admin import Office, run
from firstspin.service.keys import Keys, read_keys

log = logging.getLogger(__name__)


def main(
    line: socket.socket,
    listener: socket.socket,
    keys: Path | None,
    events: str | None,
    secret: Path | None,
    beat: Callable[[], None],
) -> None:
    """Answer on the listener until SIGTERM; `line` leads to the supervisor, `beat` says that the loop turns."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    office = Office(
        supervisor=line,
        now=lambda: datetime.now(UTC),
        keys=Keys(read_keys(keys), path=keys) if keys else None,
        store=_store(events, secret) if events and secret else None,
    )
    Thread(target=_end_with, args=(line,), daemon=True).start()
    run(office, listener, beat)


def _store(events: str, path: Path) -> tuple[Database, Secret]:
    """The event store. Where it is away or not ours to use, all but erasure works, and erasure tries it again."""
    secret = read_secret(path, os.urandom(KEY_BYTES))
    database = open_database(events, secret)
    try:
        database.open()
    except (Unavailable, InputError) as problem:
        log.warning("the admin process has no event store yet", extra={"reason": str(problem)})
    return database, secret


def _end_with(line: socket.socket) -> None:
    """End when the supervisor is gone, however it went."""
    waiting = select.poll()
    waiting.register(line, 0)  # nothing but the end of the line
    waiting.poll()
    os.kill(os.getpid(), signal.SIGTERM)
