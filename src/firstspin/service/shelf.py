"""Bundles as the service keeps them: its own verified copies, so that nobody can change a model under it.

A bundle that comes in is copied, and the copy is checked; what happens to the original later does not matter. The
folder holds `<id>/` for the current and the previous bundle and `current.json`, which names both; it is replaced in one
step, so after any crash it names bundles that were whole.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

import msgspec

from firstspin import bundle
from firstspin.files import written_beside
from firstspin.records import InputError

LARGEST: Final = 2_000_000_000
_NAMES: Final = "current.json"


class Names(msgspec.Struct, frozen=True):
    """The ids of the bundle in use and the one before."""

    current: str | None = None
    previous: str | None = None


class Shelf:
    """The copies in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".incoming-*"):
            shutil.rmtree(left, ignore_errors=True)
        self.names = self._read()

    def incoming(self, number: int) -> Path:
        """Where the copy of a bundle goes that is not checked yet."""
        return self._folder / f".incoming-{number}"

    def path(self, name: str) -> Path:
        """Where a bundle lies that was accepted."""
        return self._folder / name

    def accept(self, incoming: Path, name: str) -> None:
        """Make a checked copy the current bundle."""
        if self.path(name).exists():
            shutil.rmtree(incoming, ignore_errors=True)
        else:
            incoming.rename(self.path(name))
        if name != self.names.current:
            self._write(Names(name, self.names.current))

    def roll_back(self) -> str:
        """Make the previous bundle the current one, and the other way round. Raises InputError when there is none."""
        if self.names.previous is None:
            raise InputError("there is no previous bundle to roll back to")
        self._write(Names(self.names.previous, self.names.current))
        assert self.names.current is not None
        return self.names.current

    def _read(self) -> Names:
        """What an earlier run left, as far as it is there."""
        try:
            names = msgspec.json.decode((self._folder / _NAMES).read_bytes(), type=Names)
        except (OSError, msgspec.MsgspecError):
            return Names()
        there = [name for name in (names.current, names.previous) if name and (self._folder / name).is_dir()]
        return Names(*there)

    def _write(self, names: Names) -> None:
        with written_beside(self._folder / _NAMES, shared=True) as beside:
            beside.write_bytes(msgspec.json.encode(names))
        self.names = names
        kept = {names.current, names.previous, _NAMES}
        for path in self._folder.iterdir():
            if path.name not in kept and (path / bundle.MANIFEST).is_file():
                shutil.rmtree(path, ignore_errors=True)


def copy(source: Path, to: Path) -> str:
    """Copy a bundle and check the copy by loading it; its id.

    Raises InputError where it is not a bundle to the last byte. Only plain files directly in the folder are copied.
    """
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
    try:
        return bundle.load(to).id
    except InputError as problem:  # told of the folder that was given
        raise InputError(str(problem).replace(str(to), str(source))) from problem
