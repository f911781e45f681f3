"""The admin process. `firstspin serve --admin-port` starts it; it is not a command of its own."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

from firstspin.experiment.events import read_secret
from firstspin.experiment.store import open_database
from firstspin.service.admin import Office, run
from firstspin.service.keys import Keys, read_keys


def main(line: str, listener: str, keys: str, events: str, secret: str) -> None:
    """Numbers of the inherited sockets; files and addresses as `serve` was given them."""
    store = None
    if events:
        known = read_secret(Path(secret))
        store = (open_database(events, known), known)
        store[0].open()
    office = Office(
        supervisor=socket.socket(fileno=int(line)),
        now=lambda: datetime.now(UTC),
        keys=Keys(read_keys(Path(keys)), path=Path(keys)) if keys else None,
        store=store,
    )
    Thread(target=_end_with, args=(office.supervisor,), daemon=True).start()
    run(office, socket.socket(fileno=int(listener)))


def _end_with(line: socket.socket) -> None:
    """End when the supervisor is gone, however it went."""
    waiting = select.poll()
    waiting.register(line, 0)  # nothing but the end of the line
    waiting.poll()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(*sys.argv[1:])
