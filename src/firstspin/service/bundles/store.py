"""Bundles as the service keeps them: its own verified copies, so that nobody can change a model under it.

A bundle that comes in is copied, and the copy is checked; what happens to the original later does not matter. The
folder holds `<id>/` for the current and the previous bundle and `current.json`, which names both. Each is put in place
in one step and synced to the disk, so after any crash or power cut it names bundles that were whole. One service at a
time uses the folder: it holds the lock on `lock`, which the system takes back when the process ends, however it ends.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from firstspin.files import put_in_place, written_beside
from firstspin.records import InputError, readable
from firstspin.serving import bundle

log = logging.getLogger(__name__)

LARGEST: Final = 2_000_000_000
_NAMES, _LOCK, _INCOMING, _BUNDLE = "current.json", "lock", ".incoming", "bundle"
_ID: Final = re.compile(r"[0-9a-f]{8}")

Content = frozenset[tuple[str, int, int, int]]


class BundleIds(msgspec.Struct, frozen=True):
    """The ids of the bundle in use and the one before."""

    current: str | None = None
    previous: str | None = None


class InUse(InputError):
    """Another service uses the state folder."""


class BundleStore:
    """The copies in one folder. Raises InUse where another service uses it, OSError where it can't be written.

    `private` are the descriptors that a child process must close, or it would hold the lock in its turn.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.private: set[int] = set()
        self._lock = self._locked()
        for left in folder.glob(f"{_INCOMING}*"):
            shutil.rmtree(left, ignore_errors=True)
        self.names = self._read()
        self._content = self._seen(self.names)

    def incoming(self) -> Path:
        """Where the copy of a bundle goes that is not checked yet. Makes the folder again where it was removed."""
        if not self._is_ours():
            log.error("the state folder was removed or replaced; it is made again")
            fresh = self._locked()
            self.private.discard(self._lock)
            os.close(self._lock)
            self._lock = fresh
        (self._folder / _INCOMING).mkdir(exist_ok=True)
        return self._folder / _INCOMING / _BUNDLE

    def path(self, name: str) -> Path:
        """Where a bundle lies that was accepted."""
        return self._folder / name

    def accept(self, incoming: Path, name: str) -> None:
        """Make a checked copy the current bundle; of one that is there already, it takes the place."""
        put_in_place(incoming, self.path(name))
        self._write(self.names if name == self.names.current else BundleIds(name, self.names.current))
        self.discard_incoming()

    def discard_incoming(self) -> None:
        """Remove the copy that came in last."""
        shutil.rmtree(self._folder / _INCOMING, ignore_errors=True)

    def roll_back(self) -> str:
        """Make the previous bundle the current one, and the other way round. Raises InputError when there is none."""
        if self.names.previous is None:
            raise InputError("there is no previous bundle to roll back to")
        self._write(BundleIds(self.names.previous, self.names.current))
        assert self.names.current is not None
        return self.names.current

    def give_up(self) -> str | None:
        """Forget the current bundle; the id of the previous one, which takes its place if there is one."""
        names = BundleIds(self.names.previous)
        try:
            self._write(names)
        except OSError as problem:  # after a restart it would be given up again
            log.error("the state folder can't be written", extra={"reason": problem.strerror})
            self.names, self._content = names, self._seen(names)
        return self.names.current

    def is_damaged(self) -> bool:
        """Whether the current copy was changed or removed since this was asked last."""
        before, self._content = self._content, self._seen(self.names)
        return before != self._content

    def _locked(self) -> int:
        """The descriptor that holds the lock: of the file, or of the folder where no file can be made."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        opened = self._open_lock(os.O_RDONLY)  # a file open for writing would keep its disk from turning read-only
        try:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as problem:
                if problem.errno != errno.EBADF:  # NFS locks what is open for writing
                    raise
                os.close(opened)
                opened = self._open_lock(os.O_RDWR)
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(opened)
            raise InUse(f"another service uses the state folder {self._folder}; give this one its own") from None
        except OSError as problem:  # a file system without locks
            log.warning("the state folder can't be locked", extra={"reason": problem.strerror})
        self.private.add(opened)
        return opened

    def _open_lock(self, how: int) -> int:
        try:
            return os.open(self._folder / _LOCK, how | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # a disk that is full or read-only: what it holds can be served
            return os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)

    def _is_ours(self) -> bool:
        for place in (self._folder / _LOCK, self._folder):
            with suppress(OSError):
                if os.path.samestat(place.stat(), os.fstat(self._lock)):
                    return True
        return False

    def _seen(self, names: BundleIds) -> Content | None:
        """Name, size, time of change and inode of every file of the current copy."""
        if names.current is None:
            return frozenset()
        try:
            with os.scandir(self.path(names.current)) as entries:
                found = [(entry.name, entry.stat()) for entry in entries]
        except OSError:
            return None
        return frozenset((name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in found)

    def _read(self) -> BundleIds:
        """What an earlier run left, as far as it is there."""
        try:
            names = msgspec.json.decode((self._folder / _NAMES).read_bytes(), type=BundleIds)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return BundleIds()
        named = [name for name in (names.current, names.previous) if name and _ID.fullmatch(name)]
        return BundleIds(*[name for name in named if (self._folder / name).is_dir()])

    def _write(self, names: BundleIds) -> None:
        with written_beside(self._folder / _NAMES, shared=True) as beside:
            beside.write_bytes(msgspec.json.encode(names))
        self.names, self._content = names, self._seen(names)
        kept = {names.current, names.previous}
        for path in self._folder.iterdir():
            if path.name not in kept and _ID.fullmatch(path.name) and path.is_dir():
                shutil.rmtree(path, ignore_errors=True)


def copy(source: Path, to: Path) -> str:
    """Copy a bundle and check the copy by loading it; its id.

    Raises InputError where it is not a bundle to the last byte. Only plain files directly in the folder are copied.
    """
    copy_files(source, to)
    with told_of(source, to):
        return bundle.load(to).id


def copy_files(source: Path, to: Path) -> None:
    """Copy the files of what may be a bundle; nothing else may lie there. Raises InputError where it can be none."""
    if not source.is_dir():
        raise InputError(f"{source} is not a folder")
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    left = LARGEST
    for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
        if not entry.is_file(follow_symlinks=False):
            raise InputError(f"{source}: {entry.name} is not a plain file")
        left -= entry.stat(follow_symlinks=False).st_size
        if left < 0:
            raise InputError(f"{source} is larger than {LARGEST:,} bytes")
        shutil.copyfile(entry.path, to / entry.name, follow_symlinks=False)


@contextmanager
def told_of(source: Path, copied: Path) -> Iterator[None]:
    """Raises InputError with the name of the source folder where one about its copy is raised."""
    try:
        yield
    except InputError as problem:
        raise InputError(str(problem).replace(readable(str(copied)), str(source))) from problem
