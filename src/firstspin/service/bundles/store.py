"""The bundle store: the service's own verified copies, independent of later changes to the originals.

The state folder has `<id>/` for the current and the previous bundle and `current.json`, which names both. Each is put
in place in one step and synced to the disk, so after a crash or power cut it names complete bundles. One service at a
time uses the folder: it holds the lock on `lock`, which the system releases when the process ends.
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
from firstspin.service.bundles.facts import bundle_facts
from firstspin.serving import bundle

log = logging.getLogger(__name__)

MAX_BUNDLE_BYTES: Final = 2_000_000_000
CURRENT: Final = "current.json"
"""The file that makes a folder the state folder of a service."""
_LOCK, _INCOMING, _BUNDLE = "lock", ".incoming", "bundle"
_ID: Final = re.compile(r"[0-9a-f]{8}")

Content = frozenset[tuple[str, int, int, int]]


class BundleIds(msgspec.Struct, frozen=True):
    """The ids of the current and the previous bundle."""

    current: str | None = None
    previous: str | None = None


class InUse(InputError):
    """Another service uses the state folder."""


class BundleStore:
    """The copies in one state folder. Raises InUse where another service uses it, OSError where it can't be written.

    `private` are the descriptors that a child process must close, or it would hold the lock too; several stores can
    share the set.
    """

    def __init__(self, folder: Path, private: set[int] | None = None) -> None:
        self._folder = folder
        self.private: set[int] = set() if private is None else private
        self._lock = self._locked()
        for incomplete in folder.glob(f"{_INCOMING}*"):
            shutil.rmtree(incomplete, ignore_errors=True)
        self.names = self._read()
        self._content = self._current_content(self.names)

    def incoming(self) -> Path:
        """The path for the copy of a bundle that is not checked yet. The folder is made again where it was removed."""
        if not self._is_ours():
            log.error("the state folder was removed or replaced; it is made again")
            fresh = self._locked()
            self.private.discard(self._lock)
            os.close(self._lock)
            self._lock = fresh
        (self._folder / _INCOMING).mkdir(exist_ok=True)
        return self._folder / _INCOMING / _BUNDLE

    def path(self, name: str) -> Path:
        """The path of an accepted bundle."""
        return self._folder / name

    def data_ends(self, name: str) -> str | None:
        """When the data of an accepted bundle end, as its manifest has it; None where it can't be read."""
        facts = bundle_facts(self.path(name))
        return facts.data_ends if facts else None

    def accept(self, incoming: Path, name: str) -> None:
        """Make a checked copy the current bundle, in place of an existing copy of the same bundle."""
        put_in_place(incoming, self.path(name))
        self._write(self.names if name == self.names.current else BundleIds(name, self.names.current))
        self.discard_incoming()

    def discard_incoming(self) -> None:
        """Remove the unaccepted copy."""
        shutil.rmtree(self._folder / _INCOMING, ignore_errors=True)

    def roll_back(self) -> str:
        """Swap the current and the previous bundle. Raises InputError where there is no previous one."""
        if self.names.previous is None:
            raise InputError("there is no previous bundle to roll back to")
        self._write(BundleIds(self.names.previous, self.names.current))
        assert self.names.current is not None
        return self.names.current

    def give_up(self) -> str | None:
        """Remove the current bundle; the id of the previous one, which replaces it, if there is one."""
        names = BundleIds(self.names.previous)
        try:
            self._write(names)
        except OSError as problem:  # after a restart it would be given up again
            log.error("the state folder can't be written", extra={"reason": problem.strerror})
            self.names, self._content = names, self._current_content(names)
        return self.names.current

    def is_damaged(self) -> bool:
        """Whether the current copy was changed or removed since the last call."""
        before, self._content = self._content, self._current_content(self.names)
        return before != self._content

    def _locked(self) -> int:
        """The descriptor that holds the lock: of the lock file, or of the folder where no file can be made.

        Raises InUse where another service holds the lock.
        """
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

    def _open_lock(self, flags: int) -> int:
        try:
            return os.open(self._folder / _LOCK, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # the disk is full or read-only: its bundles can still be served
            return os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)

    def _is_ours(self) -> bool:
        for path in (self._folder / _LOCK, self._folder):
            with suppress(OSError):
                if os.path.samestat(path.stat(), os.fstat(self._lock)):
                    return True
        return False

    def _current_content(self, names: BundleIds) -> Content | None:
        """Name, size, time of change and inode of every file of the current copy."""
        if names.current is None:
            return frozenset()
        try:
            with os.scandir(self.path(names.current)) as entries:
                stats = [(entry.name, entry.stat()) for entry in entries]
        except OSError:
            return None
        return frozenset((name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in stats)

    def _read(self) -> BundleIds:
        """The ids of an earlier run, as far as their folders exist."""
        try:
            names = msgspec.json.decode((self._folder / CURRENT).read_bytes(), type=BundleIds)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return BundleIds()
        named = [name for name in (names.current, names.previous) if name and _ID.fullmatch(name)]
        return BundleIds(*[name for name in named if (self._folder / name).is_dir()])

    def _write(self, names: BundleIds) -> None:
        with written_beside(self._folder / CURRENT, shared=True) as beside:
            beside.write_bytes(msgspec.json.encode(names))
        self.names, self._content = names, self._current_content(names)
        in_use = {names.current, names.previous}
        for path in self._folder.iterdir():
            if path.name not in in_use and _ID.fullmatch(path.name) and path.is_dir():
                shutil.rmtree(path, ignore_errors=True)


def copy(source: Path, to: Path) -> str:
    """Copy a bundle and check the copy by loading it; its id. Raises InputError where it is not a valid bundle."""
    copy_files(source, to)
    with naming_source(source, to):
        return bundle.load(to).id


def copy_files(source: Path, to: Path) -> None:
    """Copy the plain files of a bundle. Raises InputError where the folder has others, or is larger than a bundle."""
    if not source.is_dir():
        raise InputError(f"{source} is not a folder")
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    room = MAX_BUNDLE_BYTES
    for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
        if not entry.is_file(follow_symlinks=False):
            raise InputError(f"{source}: {entry.name} is not a plain file")
        room -= entry.stat(follow_symlinks=False).st_size
        if room < 0:
            raise InputError(f"{source} is larger than {MAX_BUNDLE_BYTES:,} bytes")
        shutil.copyfile(entry.path, to / entry.name, follow_symlinks=False)


@contextmanager
def naming_source(source: Path, copied: Path) -> Iterator[None]:
    """Raises InputError about the copy again with the name of the original folder."""
    try:
        yield
    except InputError as problem:
        raise InputError(str(problem).replace(readable(str(copied)), str(source))) from problem
