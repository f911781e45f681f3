"""The admin port's application: any request to its paths, in this process."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from made_app import NOW
from made_experiments import SECRET

from firstspin.experiment.store import open_database
from firstspin.service.admin import Office, make
from fuzz import http, values
from fuzz.inputs import Broken, Check, Input

PATHS = ("/state", "/reload", "/rollback", "/erase", "/docs", "/openapi.json", "/", "/nothing", "/docs/oauth2-redirect")
HOSTS = (
    b"127.0.0.1:9000",
    b"localhost:9000",
    b"localhost",
    b"evil.example",
    b"",
    b"[::1]:9000",
    b"\xff",
    b"127.0.0.1.evil.example",
)
ORIGINS = (b"http://evil.example", b"null", b"http://127.0.0.1:9000", b"http://localhost:9000", b"", b"\xff")
TYPES = (
    b"application/json",
    b"application/json",
    b"text/plain",
    b"application/x-www-form-urlencoded",
    b"multipart/form-data; boundary=x",
)


@contextmanager
def opened(folder: Path) -> Iterator[Check]:
    database = open_database(f"sqlite:///{folder / 'events.sqlite'}", SECRET)
    database.open()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    threading.Thread(target=_obey, args=(theirs,), daemon=True).start()
    app = make(Office(ours, lambda: NOW, store=(database, SECRET)))
    loop = asyncio.new_event_loop()
    with http.logged() as log, closing(ours), closing(loop), closing(database):

        def check(made: Input) -> str:
            scope, body = _request(made)
            made.note("request", (scope, body))
            status, said = loop.run_until_complete(_asked(app, scope, body))
            made.note("reply", (status, said))
            log.check()
            if not (status == 409 and b'"ok":false' in said):
                http.check_reply(
                    status, said if scope["method"] != "HEAD" or said else b'{"error":{"code":"x","message":"x"}}'
                )
            return f"{scope['path'] if scope['path'] in PATHS else 'other'} {status}"

        yield check


def _obey(line: socket.socket) -> None:
    """The supervisor: it does what it is told, or can't."""
    while order := line.recv(65536):
        line.send(b'{"ok":false,"reason":"there is no previous bundle"}' if order == b"rollback" else b'{"ok":true}')


async def _asked(app: Any, scope: dict[str, Any], body: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to one ASGI request."""
    status, said = 0, b""
    sent = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> MutableMapping[str, Any]:
        return sent.pop() if sent else {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status, said
        status = message.get("status", status)
        said += message.get("body", b"")

    await app(scope, receive, send)
    if not status:
        raise Broken("no answer")
    return status, said


def _request(made: Input) -> tuple[dict[str, Any], bytes]:
    path = made.pick(PATHS) if made.chance(0.9) else "/" + values.name(made)
    method = "POST" if path in ("/reload", "/rollback", "/erase") else "GET"
    if made.chance(0.1):
        method = made.pick(("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "X"))
    headers = [(b"host", HOSTS[0] if made.chance(0.8) else made.pick(HOSTS))]
    if method == "POST":
        headers.append((b"content-type", TYPES[0] if made.chance(0.8) else made.pick(TYPES)))
    if made.chance(0.1):
        headers.append((b"origin", made.pick(ORIGINS)))
    if made.chance(0.1):
        headers.append((made.pick((b"x-api-key", b"accept", b"cookie", b"sec-fetch-site")), values.cell(made).encode()))
    body = _body(made) if method == "POST" else b""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"" if made.chance(0.9) else values.cell(made).encode(),
        "headers": headers,
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 9000),
    }
    return scope, body


def _body(made: Input) -> bytes:
    kind = made.number(0, 9)
    if kind < 4:
        return values.as_json(
            made, {"user_ids": [made.pick(("anna", "007", values.MARK)) for _ in range(made.number(0, 3))]}
        )
    if kind < 6:
        return values.as_json(made, {"user_ids": values.json_value(made)})
    if kind == 6:
        return values.as_json(made, values.json_value(made))
    if kind == 7:
        return values.mutated(made, b'{"user_ids": ["anna", "%s"]}' % values.MARK.encode())
    return made.pick((b"", b"{}", b"user_ids=anna", b"[" * 5000, b"\xff"))
