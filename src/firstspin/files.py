"""Atomic writes: a file or folder is either whole or absent, whenever a process is killed or the power fails.

New content is written in a hidden folder beside its destination, synced to the disk, and moved there by one rename.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

PRIVATE: Final = 0o600
"""Permissions of files with data about users: for the owner alone, from creation on."""

_PARTIAL: Final = ".partial"
_REPLACED: Final = "replaced"
_MAX_NAME: Final = 100  # characters of a name that becomes part of another
_NOT_SUPPORTED: Final = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
_RENAME_EXCHANGE: Final = 2
_AT_FDCWD: Final = -100

_workspaces: dict[tuple[Path, str], Path] = {}


@contextmanager
def written_beside(out: Path, *, shared: bool = False) -> Iterator[Path]:
    """A path to write a file to; the file replaces `out` on success and is removed on an error.

    The file, and the folders created for it, have permissions for the owner alone, from creation on; `shared` files,
    which hold nothing about users, have the usual ones. Raises IsADirectoryError, before anything is written, where
    `out` is a folder.
    """
    if out.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(out))
    if not shared:
        make_private_folder(out.parent)
    with beside(out) as path:
        if not shared:
            path.touch(PRIVATE)
        yield path
        sync(path)
        path.replace(out)
        sync(out.parent)


@contextmanager
def written_together(outs: Sequence[Path], *, shared: bool = False) -> Iterator[list[Path]]:
    """`written_beside` for several files of one result.

    The old first file is removed before, and the new one put in place last. So a kill in between leaves no first file,
    rather than files of two different runs.
    """
    with ExitStack() as stack:
        new = [stack.enter_context(written_beside(out, shared=shared)) for out in outs]
        yield new
        for path in new:
            sync(path)  # a full disk raises here at the latest
        outs[0].unlink(missing_ok=True)


@contextmanager
def beside(out: Path) -> Iterator[Path]:
    """A path of the same name in a hidden folder beside `out`; the folder is removed at the end.

    Folders left behind by killed processes are removed too; a live process holds a lock on its folder.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with _owned_folder(out.parent, f".{out.name[:_MAX_NAME]}.", _PARTIAL, recover=out) as folder:
        yield folder / out.name


def is_partial(path: Path) -> bool:
    """Whether this is a folder of `beside`, which a killed process may have left behind."""
    return path.name.startswith(".") and path.name.endswith(_PARTIAL)


@contextmanager
def workspace(command: str) -> Iterator[Path]:
    """A temporary folder for this process alone, removed at the end.

    The next one of the process has the same path, if it is free: databases are open for it (`formats.connections`).
    Temporary folders left behind by this user's killed processes, of any command, are removed too.
    """
    temporary = Path(tempfile.gettempdir())
    of = (temporary, command)
    prefix, abandoned = f"firstspin-{command}-", r"firstspin-[a-z-]+-"
    with _owned_folder(temporary, prefix, ".tmp", abandoned=abandoned, again=_workspaces.get(of)) as folder:
        _workspaces[of] = folder
        yield folder


def make_private_folder(folder: Path) -> None:
    """Create a folder and its missing parents, with permissions for the owner alone."""
    for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        missing.mkdir(0o700, exist_ok=True)


def private(path: str, flags: int) -> int:
    """An `opener` for `open` that creates files with permissions for the owner alone."""
    return os.open(path, flags, PRIVATE)


def locked(opened: int) -> bool | None:
    """Whether this process holds the lock of an open file or folder now; None where the file system has no locks."""
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def holds(opened: int, folder: Path) -> bool:
    """Whether an opened folder has the lock of this process, and is still the one at its path, not made anew since."""
    return locked(opened) is not False and folder.exists() and os.path.samestat(os.fstat(opened), folder.stat())


def put_in_place(new: Path, out: Path) -> None:
    """Move the folder `new`, made by `beside(out)`, to `out` in one step. Synced before and after.

    A folder at `out` is exchanged with `new`. File systems without an exchange need two renames; after a kill between
    them, the next `beside(out)` restores the old folder.
    """
    sync_tree(new)
    if not os.path.lexists(out) or (out.is_dir() and not out.is_symlink() and not any(out.iterdir())):
        new.rename(out)
    elif not _exchanged(new, out):
        out.rename(new.parent / _REPLACED)
        new.rename(out)
    sync(out.parent)


def sync_tree(folder: Path) -> None:
    """Sync the files directly in a folder, and the folder itself."""
    for path in folder.iterdir():
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Write a file's content, or a folder's entries, to the disk (fsync)."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as problem:
        if problem.errno not in _NOT_SUPPORTED:  # of folders, on some network file systems
            raise
    finally:
        os.close(opened)


def printable(text: str) -> str:
    r"""The text with characters that UTF-8 can't encode escaped: the name of a file may be any bytes.

    >>> printable("\udcff.npy")
    '\\udcff.npy'
    """
    return text.encode("utf-8", "backslashreplace").decode()


@contextmanager
def _owned_folder(
    parent: Path,
    prefix: str,
    suffix: str,
    *,
    abandoned: str = "",
    recover: Path | None = None,
    again: Path | None = None,
) -> Iterator[Path]:
    """A new folder, at the path `again` if that is free, locked by this process and removed at the end.

    First, abandoned folders are removed: they are unlocked and have the prefix and suffix of this one, or a prefix that
    matches `abandoned`. The folder that one of them had replaced is restored to `recover` where nothing is there.
    """
    names = re.compile((abandoned or re.escape(prefix)) + "[a-z0-9_]+" + re.escape(suffix))
    _clear_up(parent, names, recover)
    folder, lock = _locked_folder(parent, prefix, suffix, again)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked_folder(parent: Path, prefix: str, suffix: str, again: Path | None) -> tuple[Path, int]:
    """A new folder, and the descriptor of its lock."""
    while True:
        folder = _made(again) or Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=parent))
        with suppress(FileNotFoundError):  # another process or thread removed it at the same moment
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            if holds(lock, folder):
                return folder, lock
            os.close(lock)


def _made(folder: Path | None) -> Path | None:
    """The folder, where it could be created."""
    with suppress(OSError):
        if folder:
            folder.mkdir(0o700)
            return folder
    return None


def _clear_up(parent: Path, names: re.Pattern[str], recover: Path | None) -> None:
    for folder in _named(parent, names):
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                # its process may have removed the folder meanwhile, and made its next one at this path
                if os.fstat(lock).st_uid == os.geteuid() and locked(lock) and holds(lock, folder):
                    if recover:
                        _recover(folder / _REPLACED, recover)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _recover(replaced: Path, out: Path) -> None:
    if os.path.lexists(replaced) and not os.path.lexists(out):
        replaced.rename(out)


def _named(parent: Path, names: re.Pattern[str]) -> list[Path]:
    with suppress(PermissionError):
        return [path for path in parent.iterdir() if names.fullmatch(path.name)]
    return []


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two paths in one step (Linux, renameat2); False where the system or the file system can't."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    problem = ctypes.get_errno()
    if problem in _NOT_SUPPORTED:
        return False
    raise OSError(problem, os.strerror(problem), str(other))
