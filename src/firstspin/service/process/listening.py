"""The listening sockets of a port: one for each worker; the kernel distributes connections (SO_REUSEPORT).

A socket listens once its worker is ready. The supervisor keeps it open, so that connections in the backlog of a killed
worker are accepted by its replacement. A socket without a worker for longer is shut: the kernel then gives its share to
the other sockets, and refuses connections where none listens.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final

BACKLOG: Final = 2048


def reserve(host: str, port: int) -> socket.socket:
    """A socket that reserves the port and does not listen; port 0 is any free one.

    No other service can bind the port while this is open, also while all listening sockets are shut. Raises OSError
    where another process has it.
    """
    if port:
        with socket.create_server((host, port)):  # without SO_REUSEPORT: fails where another service has the port
            pass
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind((host, port))
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # or others could bind it, while nothing listens
    return reserved


def listener(host: str, port: int) -> socket.socket:
    """A socket on a reserved port; it does not listen yet."""
    bound = socket.socket()
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        bound.setsockopt(socket.SOL_SOCKET, option, 1)
    bound.bind((host, port))
    return bound


def shut(listener: socket.socket) -> None:
    """Refuse connections, those in the backlog too, until the socket listens again."""
    with suppress(OSError):  # it did not listen
        listener.shutdown(socket.SHUT_RD)
