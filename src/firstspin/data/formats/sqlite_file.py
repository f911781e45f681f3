"""The file of an SQLite store: path checks, permissions, and whether it is still the file that was opened."""

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
"""Attempts to lock the folder of a store, and the seconds between them."""

Identity = tuple[tuple[int, int] | None, ...]


def refuse_unusable(path: Path, *, writing: bool = True) -> None:
    """Raises InputError where no store can be opened at `path` without changing the path or the permissions.

    A full disk, a read-only file system and a locked file are not refused: these conditions are temporary.
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
    """Create an empty file readable by the owner alone, where none exists; SQLite's log gets the same permissions.

    `before` is the `identity` of the path earlier in this process. The log of a file that was deleted or replaced does
    not belong to the new file: it is removed; processes that have it open can go on.
    """
    exists, logs = path.exists(), before[1:] or (None, None)
    if exists and (not before or _device_and_inode(path) == before[0]):
        return
    with _locked(path.absolute().parent):
        exists = path.exists()
        for log, opened in zip(_logs(path), logs, strict=True):
            if not exists or (opened is not None and _device_and_inode(log) == opened):
                log.unlink(missing_ok=True)
        if not exists:
            with suppress(FileExistsError):  # the wait for the lock is bounded
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder, for microseconds. The wait is bounded: a workspace or flock(1) may hold the lock for long."""
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
    """The names of the tables in the file, which is not changed."""
    named = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    return {str(name) for (name,) in connection.execute(named)}


def identity(path: Path) -> Identity:
    """Device and inode of the file and its logs; the first differs once the file was deleted or replaced."""
    return tuple(map(_device_and_inode, (path, *_logs(path))))


def _logs(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def _device_and_inode(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
