"""The files of an archive, read in place: a folder, a zip file or a tar file, compressed or not.

Nothing is extracted, so no name in an archive becomes a path. Sizes are checked before a file is read: an archive that
would grow beyond all measure is refused.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Final

from firstspin.records import InputError

MAX_BYTES: Final = 20 * 2**30
"""Max size of all files of an archive."""

SMALL: Final = 100 * 2**20
MAX_RATIO: Final = 200
"""Files of more than SMALL bytes may be this many times as large as their compressed form; text is 3 to 30 times."""

MAX_FILES: Final = 100_000


@dataclass(frozen=True, slots=True)
class PackedFile:
    """A file of an archive: its path there, its size in bytes, and how it is opened."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


@contextmanager
def opened(path: Path) -> Iterator[dict[str, PackedFile]]:
    """The files of a folder or an archive, by path.

    Raises InputError where it is none, encrypted, damaged or a decompression bomb.
    """
    if path.is_dir():
        yield _of_folder(path)
        return
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as packed:
                yield _of_zip(path, packed)
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as tar:
                yield _of_tar(path, tar)
        else:
            raise InputError(f"{path} is neither a folder nor a zip or tar archive")
    except NotImplementedError as problem:  # zipfile's error for a compression method that it lacks
        raise InputError(f"{path} can't be read: {problem}; unpack it and import the folder") from problem
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as problem:
        raise InputError(f"{path} is damaged or cut off: {problem}") from problem


def matching(files: Mapping[str, PackedFile], pattern: str) -> list[PackedFile]:
    """The files whose name, without folders, matches a pattern such as u.data or *_genres.json, by path."""
    return [files[name] for name in sorted(files) if fnmatchcase(PurePosixPath(name).name, pattern)]


def _of_folder(path: Path) -> dict[str, PackedFile]:
    """The files of a folder and of its subfolders."""
    found = [file for pattern in ("*", "*/*") for file in path.glob(pattern) if file.is_file()]
    return {
        file.relative_to(path).as_posix(): PackedFile(file.name, file.stat().st_size, partial(_content_of, file))
        for file in found
    }


def _content_of(file: Path) -> IO[bytes]:
    return file.open("rb")


def _of_zip(path: Path, packed: zipfile.ZipFile) -> dict[str, PackedFile]:
    infos = [info for info in packed.infolist() if not info.is_dir()]
    if any(info.flag_bits & 0x1 for info in infos):
        raise InputError(f"{path} is encrypted: unpack it first")
    total = 0
    for info in infos:
        total += info.file_size
        _refuse_bomb(path, total, len(infos), info.file_size, info.compress_size)
    return {info.filename: PackedFile(info.filename, info.file_size, partial(packed.open, info)) for info in infos}


def _of_tar(path: Path, tar: tarfile.TarFile) -> dict[str, PackedFile]:
    """The regular files of a tar file; links and devices are none."""
    files: dict[str, PackedFile] = {}
    total, packed_size = 0, path.stat().st_size
    for member in tar:  # a header is checked before the content behind it is passed
        total += member.size
        _refuse_bomb(path, total, len(files), total, packed_size)
        if member.isreg():
            files[member.name] = PackedFile(member.name, member.size, partial(_content, tar, member))
    return files


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    if content is None:
        raise InputError(f"{member.name} is not a regular file")
    return content


def _refuse_bomb(path: Path, total: int, files: int, size: int, packed: int) -> None:
    if total > MAX_BYTES or files > MAX_FILES or (size > SMALL and size > MAX_RATIO * packed):
        raise InputError(f"{path} would unpack to {total:,} bytes or more: it is refused as a decompression bomb")
