"""The state of incremental labels: a folder of Parquet files, and a manifest with the SHA-256 of each.

DuckDB reads and writes its workspace alone, so the files are linked there before an update, and new ones from there
after it. Files that remain as they are get hard links in the new folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from firstspin import files
from firstspin.records import InputError

FORMAT: Final = 3
MANIFEST: Final = "manifest.json"
LATE_DAYS: Final = 7
"""Days, before the last listens, whose listens are stored one by one, by default."""

REBUILD: Final = "remove the folder of the state, and give all listens again"


class TakenFile(msgspec.Struct, frozen=True):
    """A file of listens whose rows the state has: the path in its folder, the size (bytes) and the time of change."""

    name: str
    size: int
    changed: int


class LabelState(msgspec.Struct, frozen=True):
    """What the manifest records of a state.

    Listens before `summed_to` (UTC) are in sums; later ones are there one by one. `late`: the listens that came after
    those of their day were summed. `rejected`: the bad rows that were skipped, by reason. `taken`: the files of
    listens, by SHA-256; `tables`: the SHA-256 of each file of the state, in the order of its table. `runs`: how many
    there were.
    """

    gap_days: int
    window_days: int
    summed_to: datetime
    late: int = 0
    rejected: dict[str, int] = {}
    taken: dict[str, TakenFile] = {}
    tables: dict[str, str] = {}
    runs: int = 0
    format: int = FORMAT


class _Sealed(msgspec.Struct, frozen=True):
    """The file of the manifest: the JSON of a state, and the SHA-256 of this JSON."""

    sha256: str
    state: msgspec.Raw


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Lock the folder of a state, which is created. Raises InputError where another run has the lock."""
    files.make_private_folder(folder)
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not files.holds(opened, folder):
            raise InputError(f"{folder} is in use by another run of `firstspin label`: run it again after that")
        try:
            yield
        finally:
            with suppress(OSError):  # a first run that failed leaves no folder; one with files is never removed
                folder.rmdir()
    finally:
        os.close(opened)


def load(folder: Path, workspace: Path) -> LabelState | None:
    """The state of a folder, with its files linked into the workspace; None where the folder is empty.

    Raises InputError where it is no state, of another format, or damaged.
    """
    if not any(folder.iterdir()):
        return None
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder} is not a state of `firstspin label`: it has no {MANIFEST}; name another folder")
    content = (folder / MANIFEST).read_bytes()
    try:
        sealed = msgspec.json.decode(content, type=_Sealed)
        version = msgspec.json.decode(sealed.state, type=dict)["format"]
        if version != FORMAT:
            raise InputError(f"{folder} has format {version}, this version has {FORMAT}: {REBUILD}")
        state = msgspec.json.decode(sealed.state, type=LabelState)
    except (msgspec.MsgspecError, KeyError, UnicodeError):
        raise InputError(f"{folder}: {MANIFEST} is damaged: {REBUILD}") from None
    if hashlib.sha256(sealed.state).hexdigest() != sealed.sha256:
        raise InputError(f"{folder}: {MANIFEST} was changed: {REBUILD}")
    for name, digest in state.tables.items():
        if not (folder / name).is_file() or sha256(folder / name) != digest:
            raise InputError(f"{folder}: {name} is missing, damaged or was changed: {REBUILD}")
        _link(folder / name, workspace / name)
    return state


def save(state: LabelState, new: Path, earlier: Path, folder: Path) -> None:
    """Write a new folder for the owner alone: `state.tables` of the `earlier` folder, `new` files, and the manifest."""
    folder.mkdir(0o700)
    for name in state.tables:
        _link(earlier / name, folder / name)
    tables = dict(state.tables)
    for path in sorted(new.iterdir()):
        _link(path, folder / path.name)
        tables[path.name] = sha256(path)
    content = msgspec.json.encode(msgspec.structs.replace(state, tables=tables))
    sealed = _Sealed(hashlib.sha256(content).hexdigest(), msgspec.Raw(content))
    (folder / MANIFEST).write_bytes(msgspec.json.encode(sealed))
    for path in folder.iterdir():
        path.chmod(files.PRIVATE)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _link(path: Path, link: Path) -> None:
    """A hard link to a file, or a copy on another file system; a symbolic link is followed, as DuckDB would not."""
    try:
        link.hardlink_to(path.resolve())
    except OSError:
        shutil.copyfile(path, link)
