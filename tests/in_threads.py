"""What runs beside a test, in threads of its process, and ends with the block."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import HTTPServer
from typing import TypeVar

Server = TypeVar("Server", bound=HTTPServer)


@contextmanager
def served(server: Server, *, poll: float = 0.02) -> Iterator[Server]:
    """A server that answers."""
    thread = threading.Thread(target=server.serve_forever, args=(poll,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def at_work(number: int, work: Callable[[int, threading.Event], None]) -> Iterator[None]:
    """So many at the same work; each is given its number and what tells it to end."""
    end = threading.Event()
    threads = [threading.Thread(target=work, args=(one, end)) for one in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join()
