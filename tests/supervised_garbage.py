"""`python supervised_garbage.py FOLDER`: a supervisor whose worker and admin process say what no program of ours says.

Prints a line of JSON a finding; ends on SIGTERM like any other.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from firstspin.service.bundles.store import BundleStore
from firstspin.service.bundles.watch import BundleWatch
from firstspin.service.metrics import SharedMetrics
from firstspin.service.process import listening, logs, signals
from firstspin.service.process.children import Child
from firstspin.service.process.crew import Crew, Slot
from firstspin.service.process.supervisor import Supervisor, SupervisorContext
from firstspin.service.process.worker import Order

GARBAGE = (
    b"\xff\xfe",
    b"not JSON",
    b'{"what":"sing"}',
    b'{"what":5}',
    b"[]",
    '{"what":"refused","reason":"é'.encode()[:-1],
)
ENDLESS = b"x" * 3_000_000
TALLIES = SharedMetrics(3)


def say(**told: object) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def beat_until_alone(child: Child, line: socket.socket) -> int:
    line.settimeout(0.2)
    while True:
        TALLIES.row(child.number).beat()
        with suppress(TimeoutError):
            if not line.recv(100):
                return 0


def worker(slot: Slot, _: Sequence[Order], line: socket.socket) -> int:
    """The first one says all of it, the one that replaces it is as it should be."""
    if slot.starts == 0:
        line.sendall(b"\n".join((*GARBAGE, b"")))
        line.sendall(ENDLESS)
    line.sendall(b'{"what":"up"}\n')
    return beat_until_alone(slot, line)


def admin(child: Child, line: socket.socket) -> int:
    for order in (b"\xff\xff", b"x" * 1_000, b"state", b"state 6", b"state 7 inf", b"state 8 0", b"state 9 x"):
        line.send(order)
    for _ in range(3):
        told = json.loads(line.recv(65_536))
        say(ok=told["ok"], order=told["order"])
    return beat_until_alone(child, line)


def main() -> int:
    logs.start("info")
    held = listening.reserve("127.0.0.1", 0)
    slot = Slot(0, listening.listener("127.0.0.1", held.getsockname()[1]))
    crew = Crew([slot], Child(2, socket.create_server(("127.0.0.1", 0))), TALLIES, held)
    outside = SupervisorContext(time.monotonic, signals.as_bytes(), worker, admin, lambda: say(announced=True))
    models = BundleWatch(None, BundleStore(Path(sys.argv[1])), crew, lambda *_: (1, b""))
    status = Supervisor(models, crew, outside, without_model=True).run()
    say(words=TALLIES.total("firstspin_supervisor_errors", "word"), starts=TALLIES.total("firstspin_worker_starts"))
    return status


if __name__ == "__main__":
    sys.exit(main())
