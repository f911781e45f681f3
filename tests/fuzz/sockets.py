"""The same bytes to a real service on its port, and to its admin port: no process of it may end."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from made_bundles import pack
from made_service import serving, workers

from fuzz import connection
from fuzz.inputs import Broken, Check, Input

PATIENCE = 10.0
EVERY = 200
"""So many inputs lie between two looks at the processes."""


@contextmanager
def opened(folder: Path) -> Iterator[Check]:
    pack(folder / "b")
    folder.joinpath("logs").mkdir(exist_ok=True)
    with serving(folder / "b", "--drain-delay", "0", "--admin-port", "0") as service:
        service.wait_for('"admin port"')
        admin = int(next(line["port"] for line in service.lines() if line["event"] == "admin port"))
        before = sorted(workers(service))
        count = 0

        def check(made: Input) -> str:
            nonlocal count
            count += 1
            to_admin = made.chance(0.1)
            parts = connection.parts_of(made, connection.stream(made))
            received = _exchange(admin if to_admin else service.port, parts)
            made.note("received", received)
            if count % EVERY == 1 and (service.ask("GET", "/ping")[0] != 200 or sorted(workers(service)) != before):
                raise Broken(f"the processes {before} have become {workers(service)}: {service.lines()[-5:]}")
            if to_admin:
                return "admin"
            return connection.check_replies(b"".join(parts), received)

        yield check
        if problems := [line for line in service.lines() if line["level"] in ("error", "critical")]:
            raise Broken(f"the service logged {problems[:3]}")
        os.kill(service.process.pid, 0)


def _exchange(port: int, parts: list[bytes]) -> bytes:
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for part in parts:
                client.sendall(part)
            client.shutdown(socket.SHUT_WR)
            while more := client.recv(65536):
                received += more
        except TimeoutError:
            raise Broken(f"no end of the connection after {PATIENCE} s; received {received[:200]!r}") from None
        except OSError:
            return b""  # closed while we were still sending: what came before is lost with it
    return received
