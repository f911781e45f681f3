"""A server that answers as a test says, byte by byte: at the outermost seam of whatever calls out."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

Step = bytes | Callable[[socket.socket], None]
"""What is sent back to a request, or what is done with its connection."""


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    told = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} x\r\ncontent-length: {len(body)}\r\n{told}\r\n".encode() + body


def close(connection: socket.socket) -> None:
    connection.close()


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    connection.close()


def hang(connection: socket.socket) -> None:
    """Nothing, until the client leaves."""
    with suppress(OSError):
        connection.recv(1)


def drip(connection: socket.socket) -> None:
    """A header without end, a byte at a time, until the client leaves."""
    stop = threading.Event()
    with suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 x\r\nx: ")
        while not stop.wait(0.01):
            connection.sendall(b"y")


class StandInServer:
    """Takes the steps in order, one a request; the last one again and again. `received` has the requests."""

    def __init__(self, steps: Sequence[Step], tls: ssl.SSLContext | None = None) -> None:
        self.steps, self.received, self.connections = list(steps), list[bytes](), 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._tls = tls
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()

    def accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def end(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, ssl.SSLError, ValueError):
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            while received := _request(connection):
                with self._lock:
                    self.received.append(received)
                    step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
                if callable(step):
                    step(connection)
                else:
                    connection.sendall(step)


def _request(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        more = connection.recv(65536)
        if not more:
            return b""
        received += more
    head, _, body = received.partition(b"\r\n\r\n")
    lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while lengths and len(body) < lengths[0]:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def standing_in(*steps: Step, tls: ssl.SSLContext | None = None) -> Iterator[StandInServer]:
    server = StandInServer(steps, tls)
    thread = threading.Thread(target=server.accept, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.end()
        thread.join(10)
