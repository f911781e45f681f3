"""The admin port's application: any request to its paths, in this process."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from made_app import NOW
from made_experiments import SECRET

from firstspin.events.store import open_database
from firstspin.service.admin.app import AdminApp, AdminContext
from firstspin.service.admin.operations import Operations, ServiceFacts
from firstspin.service.admin.recorder import Recorder
from firstspin.service.http.cross_origin import hosts
from firstspin.service.http.messages import Request
from firstspin.service.metrics import SharedMetrics
from fuzz import http, values
from fuzz.inputs import Broken, Check, Input

PATHS = ("/state", "/reload", "/rollback", "/erase", "/docs", "/openapi.json", "/", "/ops.json", "/nothing")
ORDERS = ("/reload", "/rollback", "/erase")
HOSTS = b"127.0.0.1:9000|localhost:9000|localhost|evil.example||[::1]:9000|\xff|127.0.0.1.evil.example".split(b"|")
ORIGINS = b"http://evil.example|null|http://127.0.0.1:9000|http://localhost:9000||\xff".split(b"|")
TYPES = b"application/json|text/plain|application/x-www-form-urlencoded|multipart/form-data; boundary=x|".split(b"|")
FOREIGN_HOSTS = (b"evil.example", b"127.0.0.1.evil.example")


@contextmanager
def opened(folder: Path) -> Iterator[Check]:
    database = partial(open_database, f"sqlite:///{folder / 'events.sqlite'}", SECRET)
    with closing(database()) as made:
        made.open()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    threading.Thread(target=_obey, args=(theirs,), daemon=True).start()
    operations = Operations(Recorder(SharedMetrics(2), lambda: 0.0, lambda: NOW), ServiceFacts())
    app = AdminApp(
        AdminContext(ours, lambda: NOW, lambda: 0.0, hosts("127.0.0.1"), operations, store=(database, SECRET))
    )
    loop = asyncio.new_event_loop()
    with http.logged() as log, closing(ours), closing(loop):

        def check(made: Input) -> str:
            request = _request(made)
            made.note("request", request)
            reply = http.replied(loop, app, request)
            made.note("reply", reply)
            log.check()
            http.check_reply(reply.status, reply.body)
            foreign = request.headers.get(b"host") in FOREIGN_HOSTS or request.headers.get(b"origin") == ORIGINS[0]
            if foreign and reply.status != 403:
                raise Broken("a page of another name or origin was answered")
            return f"{request.path if request.path in PATHS else 'other'} {reply.status}"

        yield check


def _obey(line: socket.socket) -> None:
    """The supervisor: it does what it is told, or can't."""
    while order := line.recv(65_536):
        word, number, *_ = order.decode().split()
        done = {"ok": False, "reason": "there is no previous bundle"} if word == "rollback" else {"ok": True}
        line.send(json.dumps(done | {"order": int(number)}).encode())


def _request(made: Input) -> Request:
    path = made.pick(PATHS) if made.chance(0.9) else "/" + values.name(made)
    method = "POST" if path in ORDERS else "GET"
    if made.chance(0.1):
        method = made.pick(("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "X"))
    headers = {b"host": HOSTS[0] if made.chance(0.8) else made.pick(HOSTS)}
    if method == "POST":
        headers[b"content-type"] = TYPES[0] if made.chance(0.8) else made.pick(TYPES)
    if made.chance(0.1):
        headers[b"origin"] = made.pick(ORIGINS)
    if made.chance(0.1):
        headers[made.pick((b"x-api-key", b"accept", b"cookie", b"sec-fetch-site"))] = values.cell(made).encode()
    query = b"" if made.chance(0.9) else values.cell(made).encode()
    return Request(method, path, query, headers, _body(made) if method == "POST" else b"")


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
