"""A bundle <-> model.tar.gz, SageMaker's format of a model.

The archive is made of a checked copy, in the order of names, without times, owners or rights: the same bundle gives the
same bytes on every machine. Its name in S3 is made of the bundle's id and the hash of the archive.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

import msgspec

from firstspin.files import workspace, written_beside
from firstspin.records import InputError
from firstspin.service.bundles.store import MAX_BUNDLE_BYTES, copy
from firstspin.serving.bundle import MANIFEST, MAX_MANIFEST_BYTES, Manifest, load, placed

ARCHIVE: Final = "model.tar.gz"
PACKAGED: Final = f"bundle/{MANIFEST}"
LEVEL: Final = 9


@dataclass(frozen=True, slots=True)
class Packed:
    """An archive: the bundle's id, the SHA-256 of the tar inside (which no version of zlib changes), and its size."""

    path: Path
    id: str
    sha256: str
    bytes: int

    @property
    def name(self) -> str:
        """The key below a prefix in S3, unique to the content."""
        return f"{self.id}-{self.sha256[:16]}/{ARCHIVE}"


class _Hashed:
    """A file for writing that computes the SHA-256 of its content."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file, self._hash = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        return self._file.write(data)

    def sha256(self) -> str:
        return self._hash.hexdigest()


def package(bundle: Path, out: Path) -> Packed:
    """Write a bundle as an archive. Raises InputError where it is not a valid bundle, or `out` is inside it."""
    if not (bundle / MANIFEST).is_file():
        raise InputError(f"{bundle} is not a bundle: it has no {MANIFEST}")
    if out.resolve().is_relative_to(bundle.resolve()):
        raise InputError(f"--out {out} is inside the bundle; choose a path outside {bundle}")
    with workspace("package") as folder, written_beside(out, shared=True) as beside:
        checked = folder / "bundle"
        name = copy(bundle, checked)
        with (
            beside.open("wb") as raw,
            gzip.GzipFile(filename="", mode="wb", compresslevel=LEVEL, fileobj=raw, mtime=0) as zipped,
        ):
            hashed = _Hashed(zipped)
            with tarfile.open(fileobj=hashed, mode="w|", format=tarfile.USTAR_FORMAT) as archive:  # type: ignore[call-overload]
                for path in sorted(checked.iterdir()):
                    with path.open("rb") as file:
                        archive.addfile(_bare(path), file)
        size = beside.stat().st_size
    return Packed(out, name, hashed.sha256(), size)


def _bare(path: Path) -> tarfile.TarInfo:
    """An entry without time, owner and rights of its own."""
    info = tarfile.TarInfo(path.name)
    info.size = path.stat().st_size
    info.mode = 0o644
    return info


def read_manifest(archive: bytes, where: str) -> Manifest:
    """The manifest in an untrusted archive, without unpacking.

    Raises InputError where it is missing or can't be read; `where` is the archive's name in the message.
    """
    with _readable(where), tarfile.open(fileobj=BytesIO(archive), mode="r|gz") as files:
        for entry in files:
            if entry.name.removeprefix("./") == MANIFEST and entry.isfile() and entry.size <= MAX_MANIFEST_BYTES:
                file = files.extractfile(entry)
                assert file is not None
                return msgspec.json.decode(file.read(), type=Manifest)
    raise InputError(f"{where} is not an archive of a bundle: it has no {MANIFEST}")


def zipped_manifest(path: Path) -> Manifest:
    """The manifest of the bundle in a Lambda's zip (deploy/aws/lambda.sh). Raises InputError where it can't be read."""
    try:
        with zipfile.ZipFile(path) as files:
            if files.getinfo(PACKAGED).file_size <= MAX_MANIFEST_BYTES:
                return msgspec.json.decode(files.read(PACKAGED), type=Manifest)
    except (KeyError, OSError, zipfile.BadZipFile, msgspec.MsgspecError) as problem:
        raise InputError(f"{path} is not a zip of deploy/aws/lambda.sh ({type(problem).__name__})") from None
    raise InputError(f"{path} has a {PACKAGED} of more than {MAX_MANIFEST_BYTES:,} bytes")


def unpack(archive: bytes, where: str, out: Path) -> str:
    """Unpack a bundle from an untrusted archive, check it and put it in place; its id.

    Raises InputError where the archive can't be read or has anything but the plain files of one bundle.
    """
    with placed(out) as beside:
        for name, content in _plain_files(archive, where):
            (beside / name).write_bytes(content)
        try:
            return load(beside).id
        except InputError as problem:  # named by the archive, not by its temporary path
            raise InputError(str(problem).replace(str(beside), where)) from None


def _plain_files(archive: bytes, where: str) -> Iterator[tuple[str, bytes]]:
    room = MAX_BUNDLE_BYTES
    with _readable(where), tarfile.open(fileobj=BytesIO(archive), mode="r|gz") as files:
        for entry in files:
            name = entry.name.removeprefix("./")
            if entry.isdir() and name in ("", "."):
                continue
            room -= entry.size
            if not name or not entry.isfile() or Path(name).name != name or room < 0:
                raise InputError(f"{where} has more than a bundle: {name[:80]!r}")
            file = files.extractfile(entry)
            assert file is not None
            yield name, file.read()


@contextmanager
def _readable(where: str) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, OSError, EOFError, msgspec.MsgspecError) as problem:
        raise InputError(f"{where} can't be read ({type(problem).__name__})") from None
