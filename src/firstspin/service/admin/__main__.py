"""The admin process. The supervisor starts it with `--admin-port`, and restarts it when it ends or hangs."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from datetime import UTC, datetime
from functools import partial
from threading import Thread

from firstspin.events.schema import Secret
from firstspin.events.store import open_database
from firstspin.service.admin.app import AdminContext, run
from firstspin.service.admin.operations import Operations, ServiceFacts
from firstspin.service.admin.recorder import Recorder
from firstspin.service.api_keys import Keys
from firstspin.service.http.cross_origin import Hosts
from firstspin.service.metrics import ProcessMetrics, SharedMetrics


def main(
    line: socket.socket,
    listener: socket.socket,
    keys: Keys | None,
    events: str | None,
    secret: Secret | None,
    hosts: Hosts,
    metrics: SharedMetrics,
    tally: ProcessMetrics,
    service: ServiceFacts,
) -> None:
    """Serve the admin port until SIGTERM; `line` is the socket to the supervisor."""
    context = AdminContext(
        supervisor=line,
        now=_now,
        clock=time.monotonic,
        hosts=hosts,
        operations=Operations(Recorder(metrics, time.monotonic, _now), service),
        keys=keys,
        store=(partial(open_database, events, secret), secret) if events and secret else None,
    )
    Thread(target=_end_with, args=(line,), daemon=True).start()
    run(context, listener, tally)


def _now() -> datetime:
    return datetime.now(UTC)


def _end_with(line: socket.socket) -> None:
    """End the process when the supervisor has ended."""
    waiting = select.poll()
    waiting.register(line, 0)  # only the end of the connection
    waiting.poll()
    os.kill(os.getpid(), signal.SIGTERM)
