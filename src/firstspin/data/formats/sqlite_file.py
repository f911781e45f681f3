"""The file of an SQLite store: where it can be, who may read it, and whether it is still the one that was opened."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from firstspin.files import PRIVATE
from firstspin.records import InputError

_HEADER: Final = b"SQLite format 3\0"

LOCK_TRIES, LOCK_PAUSE = 20, 0.01
"""How often the lock of a store's folder is tried for, and the seconds between."""

Identity = tuple[tuple[int, int] | None, ...]


def refuse_unusable(path: Path, *, writing: bool = True) -> None:
    """Raise InputError where no store can be at `path` until somebody changes the path or the permissions.

    A full disk, one that is mounted read-only and a locked file are not refused: they pass.
    """
    folder = path.absolute().parent
    try:
        if not folder.is_dir():
            raise InputError(f"{path}: the folder {folder} does not exist; create it or correct the path")
        if path.is_dir():
            raise InputError(f"{path} is a folder; name a file in it")
        if path.exists():
            _refuse_file(path, writing)
        # SQLite keeps its log in files beside the store, even for a reader
        if not os.access(folder, os.R_OK | os.X_OK | os.W_OK) and not _is_read_only(folder):
            raise InputError(f"{path}: this user may not write files in {folder}; change its permissions")
    except OSError as problem:
        raise InputError(f"{path}: {problem.strerror}") from problem


def _refuse_file(path: Path, writing: bool) -> None:
    if not path.is_file():
        raise InputError(f"{path} is not a file")
    if not os.access(path, os.R_OK | (os.W_OK if writing else 0)) and not _is_read_only(path):
        raise InputError(f"{path}: this user may not read{' and write' if writing else ''} it; change its permissions")
    with path.open("rb") as file:
        start = file.read(len(_HEADER))
    if start and start != _HEADER:
        raise InputError(f"{path} is not an SQLite file; name another one, it is left as it is")


def _is_read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def make_private(path: Path, before: Identity = ()) -> None:
    """Create an empty file that nobody else may read, where there is none; SQLite gives its log the same permissions.

    `before` is what the path led to earlier in this process. The log of a file that was deleted or replaced is not that
    of the file in its place: it is removed, and processes that have it open keep it.
    """
    there, logs = path.exists(), before[1:] or (None, None)
    if there and (not before or _device_and_inode(path) == before[0]):
        return
    with _locked(path.absolute().parent):
        there = path.exists()
        for log, opened in zip(_logs(path), logs, strict=True):
            if not there or (opened is not None and _device_and_inode(log) == opened):
                log.unlink(missing_ok=True)
        if not there:
            with suppress(FileExistsError):  # the lock is not waited for without end
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process of ours at a time, each for microseconds.

    The wait has an end: others may hold the folder's lock for as long as they live, as a workspace and flock(1) do.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(LOCK_TRIES):
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(LOCK_PAUSE)
        yield
    finally:
        os.close(descriptor)


def tables(connection: sqlite3.Connection) -> set[str]:
    """The names of the tables in the file; asking changes nothing in it."""
    named = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    return {str(name) for (name,) in connection.execute(named)}


def identity(path: Path) -> Identity:
    """Which files the path and its log lead to now; the first is another one once the file was deleted or replaced."""
    return tuple(map(_device_and_inode, (path, *_logs(path))))


def _logs(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def _device_and_inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
