"""The admin port: state, reload, rollback, erasure. A process of its own, with FastAPI and its documentation at /docs.

It holds no model and answers no newcomer; it passes orders to the supervisor over a socket and says what came of them.
Whoever may reach the port may give orders, so it listens on 127.0.0.1 unless told otherwise, and asks for an admin key
where the service has keys.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Annotated, Any, Final

import msgspec
import uvicorn
from fastapi import Body, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.exceptions import HTTPException

from firstspin.experiment.database import Database
from firstspin.experiment.erase import erase
from firstspin.experiment.events import Secret
from firstspin.records import MAX_TEXT
from firstspin.service.keys import Keys
from firstspin.service.wire import Refusal
from firstspin.service.worker import BEAT_SECONDS

LONGEST_WORD = 65_536
UserId = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]  # a limit makes pydantic refuse lone surrogates too
_ERROR: Final = {"schema": {"type": "object", "required": ["error"], "properties": {"error": {"type": "object"}}}}
_REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"description": what, "content": {"application/json": _ERROR}}
    for status, what in {
        400: "The body can't be read.",
        401: "A key is needed.",
        403: "The key has ended, or is no admin key.",
        422: "The body is not what is asked for.",
    }.items()
}
_CONFLICT: Final[dict[int | str, dict[str, Any]]] = {409: {"description": "This can't be done now; `reason` says why."}}


@dataclass(frozen=True, slots=True)
class Office:
    """What the admin process has: the line to the supervisor, the keys and the event store if there are any."""

    supervisor: socket.socket
    now: Callable[[], datetime]
    keys: Keys | None = None
    store: tuple[Database, Secret] | None = None


def make(office: Office) -> FastAPI:
    """The application."""
    app = FastAPI(title="firstspin: admin", openapi_url="/openapi.json", responses=_REFUSALS)
    one_at_a_time, erasing = Lock(), Lock()

    def order(word: str) -> JSONResponse:
        with one_at_a_time:
            office.supervisor.send(word.encode())
            told: Mapping[str, Any] = msgspec.json.decode(office.supervisor.recv(LONGEST_WORD))
        return JSONResponse(told, 200 if told["ok"] else 409)

    @app.middleware("http")
    async def keyed(request: Request, call_next: Callable[[Request], Any]) -> Response:
        try:
            if office.keys:
                office.keys.refresh()
                office.keys.check(dict(request.headers.raw), office.now(), admin=True)
        except Refusal as refusal:
            return _refused(refusal)
        answer: Response = await call_next(request)
        return answer

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, __: Exception) -> Response:  # FastAPI's own would repeat what was sent
        return _refused(Refusal(422, "invalid", "the body is not what /docs shows"))

    @app.exception_handler(HTTPException)
    def unread(_: Request, problem: HTTPException) -> Response:
        return _refused(Refusal(problem.status_code, "malformed", "this can't be read, or is not there"))

    @app.get("/state")
    def state() -> JSONResponse:
        """The model in use, the one before, why a bundle was refused last, and the workers."""
        return order("state")

    @app.post("/reload")
    def reload() -> JSONResponse:
        """Look at the bundle again now; /state tells what came of it."""
        return order("reload")

    @app.post("/rollback", responses=_CONFLICT)
    def rollback() -> JSONResponse:
        """Serve the previous bundle; 409 when there is none."""
        return order("rollback")

    @app.post("/erase", responses=_CONFLICT)
    def erase_users(
        user_ids: Annotated[list[UserId], Body(embed=True, min_length=1, max_length=1_000)],
    ) -> JSONResponse:
        """Forget users: what was kept of them is deleted, and what comes later is refused."""
        if office.store is None:
            return JSONResponse({"ok": False, "reason": "this service has no event store"}, 409)
        database, secret = office.store
        with erasing:  # calls come in threads, and a database is used by one at a time
            done = erase(database, secret, user_ids, now=office.now())
        return JSONResponse({"ok": True, "deleted": msgspec.to_builtins(done.deleted), "compacted": done.compacted})

    return app


def _refused(refusal: Refusal) -> Response:
    return Response(refusal.body(), refusal.status, media_type="application/json")


def run(office: Office, listener: socket.socket, beat: Callable[[], None]) -> None:
    """Answer until SIGTERM; `beat` is called twice a second for as long as the loop turns."""
    server = uvicorn.Server(uvicorn.Config(make(office), log_config=None, access_log=False, lifespan="off"))
    asyncio.run(_serve(server, listener, beat))


async def _serve(server: uvicorn.Server, listener: socket.socket, beat: Callable[[], None]) -> None:
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not serving.done():
        beat()
        await asyncio.wait([serving], timeout=BEAT_SECONDS)
    await serving
