"""Stores are checked at startup: one that can never work is an error, one that is unavailable is logged.

A service with an unavailable store still answers. The check runs in a child process, because it may hang, and because
the supervisor itself opens no store.
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
    """The result of opening a store: the reason why it is refused or unavailable; both empty where it can be used."""

    refused: str = ""
    unavailable: str = ""


def event_store_secret(url: str, path: Path) -> Secret:
    """The secret of the event store at `url`, kept in the file at `path`, which is written for a new store.

    Raises InputError where the store is not an event store or has another secret. A store that is unavailable or of
    another version is logged.
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
    """Check a store. Raises InputError where opening it does; logs any other reason why it can't be used yet."""
    state = try_to_open(opening)
    if state.refused:
        raise InputError(state.refused)
    if state.unavailable:
        log.error("a store can't be used yet", extra={"store": what, "reason": state.unavailable})


def try_to_open(opening: Callable[[], None]) -> StoreState:
    """Open a store in a child process, with a timeout."""
    reading, writing = os.pipe()
    pid = children.fork(partial(_try, opening, writing))
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        ready, _, _ = select.select([pipe], [], [], TRY_SECONDS)
        output = pipe.read(MAX_ANSWER) if ready else b""
    if not ready:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0 if ready else os.WNOHANG)  # a child that hangs in the kernel survives SIGKILL
    if output:
        return msgspec.json.decode(output, type=StoreState)
    return StoreState(unavailable="opening it crashed" if ready else f"no answer within {TRY_SECONDS:g} s")


def _try(opening: Callable[[], None], pipe: int) -> int:
    try:
        opening()
        state = StoreState()
    except (Unavailable, OtherVersion) as problem:
        state = StoreState(unavailable=str(problem)[:MAX_REASON])
    except InputError as problem:
        state = StoreState(refused=str(problem)[:MAX_REASON])
    except Exception as problem:
        state = StoreState(unavailable=f"{type(problem).__name__}: {problem}"[:MAX_REASON])
    os.write(pipe, msgspec.json.encode(state))
    return 0
