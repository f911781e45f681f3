"""The sockets of a port: one for each worker, and the kernel deals the connections out (SO_REUSEPORT).

A socket listens from the moment on when its worker is ready. The supervisor keeps it open, so that connections that
wait in a killed worker's socket are accepted by the worker that replaces it. A socket without a worker for longer is
shut: the kernel then gives its share to the other sockets, and refuses connections where none listens.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final

BACKLOG: Final = 2048


def reserve(host: str, port: int) -> socket.socket:
    """A socket that holds the port and does not listen; port 0 is any that is free.

    No other service can take the port while this is open, also while all listening sockets are shut. Raises OSError
    where another process has it.
    """
    if port:
        with socket.create_server((host, port)):  # without SO_REUSEPORT: fails where another service has the port
            pass
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((host, port))
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # or others could, while nothing listens here
    return held


def listener(host: str, port: int) -> socket.socket:
    """A socket on a port that is reserved; it does not listen yet."""
    bound = socket.socket()
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        bound.setsockopt(socket.SOL_SOCKET, option, 1)
    bound.bind((host, port))
    return bound


def shut(listener: socket.socket) -> None:
    """Refuse connections, those that wait too, until it listens again."""
    with suppress(OSError):  # it did not listen
        listener.shutdown(socket.SHUT_RD)
