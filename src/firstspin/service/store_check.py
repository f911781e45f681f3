"""Stores are tried before a port is open and before a worker starts: what can never work is refused, once, by name.

A store that is only away is no reason not to answer newcomers. Which of the two it is, a child finds out, because an
attempt may hang, and because the process that starts the workers opens nothing itself.
"""

from __future__ import annotations

import logging
import os
import select
import signal
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from firstspin.data.formats import sqlite_file
from firstspin.events.database import OtherVersion
from firstspin.events.schema import KEY_BYTES, Secret, Unavailable, read_secret
from firstspin.events.store import POSTGRES, open_database, sqlite_path
from firstspin.records import InputError
from firstspin.service.process import children

log = logging.getLogger(__name__)

TRY_SECONDS: Final = 4.0
MAX_REASON: Final = 4_000
MAX_ANSWER: Final = 65_536


class StoreState(msgspec.Struct, frozen=True):
    """What came of opening a store: why it is refused, or why it can't be used yet; both empty where it can."""

    refused: str = ""
    away: str = ""


def event_store_secret(url: str, path: Path) -> Secret:
    """The secret of the event store at `url`, kept in the file at `path`, which is written for a new store.

    Raises InputError for a store that isn't one or has another secret. One of another version, or out of reach, is
    logged: newcomers are answered all the same.
    """
    if not url.startswith(POSTGRES):
        sqlite_file.refuse_unusable(sqlite_path(url))
    is_new = not path.exists()
    secret = read_secret(path, os.urandom(KEY_BYTES))

    def opening() -> None:
        with closing(open_database(url, secret)) as database:
            database.open()

    try:
        refuse_unusable("event store", opening)
    except InputError as problem:
        if not is_new:
            raise
        path.unlink(missing_ok=True)
        raise InputError(f"{problem} ({path} did not exist; if it was lost, put its copy back)") from None
    return secret


def refuse_unusable(what: str, opening: Callable[[], None]) -> None:
    """Raise InputError where opening a store does; log any other reason why it can't be used yet."""
    tried = try_to_open(opening)
    if tried.refused:
        raise InputError(tried.refused)
    if tried.away:
        log.error("a store can't be used yet", extra={"store": what, "reason": tried.away})


def try_to_open(opening: Callable[[], None], seconds: float = TRY_SECONDS) -> StoreState:
    """Open something in a child that is given so many seconds."""
    reading, writing = os.pipe()
    pid = children.fork(partial(_try, opening, writing))
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        ready, _, _ = select.select([pipe], [], [], seconds)
        said = pipe.read(MAX_ANSWER) if ready else b""
    if not ready:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0 if ready else os.WNOHANG)  # a child that hangs in the kernel outlives even that
    if said:
        return msgspec.json.decode(said, type=StoreState)
    return StoreState(away="opening it crashed" if ready else f"no answer within {seconds:g} s")


def _try(opening: Callable[[], None], pipe: int) -> int:
    try:
        opening()
        tried = StoreState()
    except (Unavailable, OtherVersion) as problem:
        tried = StoreState(away=str(problem)[:MAX_REASON])
    except InputError as problem:
        tried = StoreState(refused=str(problem)[:MAX_REASON])
    except Exception as problem:
        tried = StoreState(away=f"{type(problem).__name__}: {problem}"[:MAX_REASON])
    os.write(pipe, msgspec.json.encode(tried))
    return 0
