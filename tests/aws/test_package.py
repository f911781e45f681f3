"""An archive is the bundle and nothing else, the same bytes from the same bundle."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import time
from pathlib import Path

import pytest
from made_bundles import pack

from firstspin.aws.package import package, read_manifest, unpack
from firstspin.records import InputError
from firstspin.serving import bundle


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    pack(tmp_path / "b")
    return tmp_path / "b"


def test_the_archive_unpacks_to_the_same_bundle(packed: Path, tmp_path: Path) -> None:
    made = package(packed, tmp_path / "out" / "model.tar.gz")
    with tarfile.open(made.path) as archive:
        archive.extractall(tmp_path / "model", filter="data")
    assert bundle.load(tmp_path / "model").id == made.id == bundle.load(packed).id
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == {
        path.name: path.read_bytes() for path in packed.iterdir()
    }
    assert made.bytes == made.path.stat().st_size


def test_the_same_bundle_gives_the_same_bytes_wherever_and_whenever(packed: Path, tmp_path: Path) -> None:
    one = package(packed, tmp_path / "one.tar.gz")
    again = tmp_path / "elsewhere" / "again"
    pack(again)
    for path in again.iterdir():
        os.utime(path, (time.time() + 5000, 1))
        path.chmod(0o600)
    two = package(again, tmp_path / "two.tar.gz")
    assert one.path.read_bytes() == two.path.read_bytes()
    assert (one.sha256, one.name) == (two.sha256, two.name)


def test_nothing_of_its_maker_is_in_it(packed: Path, tmp_path: Path) -> None:
    made = package(packed, tmp_path / "model.tar.gz")
    with tarfile.open(made.path) as archive:
        entries = archive.getmembers()
    assert [entry.name for entry in entries] == sorted(path.name for path in packed.iterdir())
    assert {(e.mtime, e.uid, e.gid, e.uname, e.gname, e.mode, e.type) for e in entries} == {
        (0, 0, 0, "", "", 0o644, tarfile.REGTYPE)
    }
    assert made.path.read_bytes()[4:8] == b"\0\0\0\0"  # the time in gzip's own head


def test_its_name_says_what_the_archive_holds(packed: Path, tmp_path: Path) -> None:
    made = package(packed, tmp_path / "model.tar.gz")
    inside = hashlib.sha256(gzip.decompress(made.path.read_bytes())).hexdigest()
    assert made.sha256 == inside
    assert made.name == f"{made.id}-{inside[:16]}/model.tar.gz"
    other = pack(tmp_path / "other", seed=3)
    assert package(tmp_path / "other", tmp_path / "other.tar.gz").name.startswith(other.id)


@pytest.mark.parametrize("wrong", ["changed", "stranger", "link", "nothing"])
def test_what_is_no_bundle_to_the_last_byte_is_not_packed(wrong: str, packed: Path, tmp_path: Path) -> None:
    if wrong == "changed":
        (packed / "stations.json").write_bytes(b"{}")
    elif wrong == "stranger":
        (packed / "notes.txt").write_text("mine")
    elif wrong == "link":
        (packed / "secret").symlink_to("/etc/passwd")
    with pytest.raises(InputError):
        package(packed if wrong != "nothing" else tmp_path / "nothing", tmp_path / "model.tar.gz")
    assert not (tmp_path / "model.tar.gz").exists()


@pytest.mark.parametrize("out", ["b/model.tar.gz", "b/deeper/model.tar.gz", "b", "link/model.tar.gz", "model.tar.gz"])
def test_an_archive_never_lies_in_its_own_bundle(
    out: str, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(packed)
    monkeypatch.chdir(packed if out == "model.tar.gz" else tmp_path)
    with pytest.raises(InputError, match=f"^--out {out} is inside the bundle"):
        package(packed, Path(out))
    bundle.load(packed)


def test_an_error_names_the_folder_that_was_given(packed: Path, tmp_path: Path) -> None:
    (packed / "stations.json").unlink()
    with pytest.raises(InputError, match=f"^{packed}: stations.json is missing$"):
        package(packed, tmp_path / "model.tar.gz")


def test_a_manifest_is_read_without_unpacking(packed: Path, tmp_path: Path) -> None:
    made = package(packed, tmp_path / "model.tar.gz")
    assert read_manifest(made.path.read_bytes(), "it") == bundle.load(packed).manifest


def test_it_is_put_back_in_place_of_an_older_one(packed: Path, tmp_path: Path) -> None:
    made = package(packed, tmp_path / "model.tar.gz")
    pack(tmp_path / "place", seed=3)
    assert unpack(made.path.read_bytes(), "it", tmp_path / "place") == made.id
    assert bundle.load(tmp_path / "place").id == made.id
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="is not a bundle"):
        unpack(made.path.read_bytes(), "it", tmp_path / "mine")


def archive_of(name: str, content: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        entry = tarfile.TarInfo(name)
        entry.size, entry.type, entry.linkname = len(content), kind, "/etc/passwd"
        archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize(
    "archive",
    [
        archive_of("../outside", b"x"),
        archive_of("/tmp/outside", b"x"),
        archive_of("deeper/manifest.json", b"{}"),
        archive_of("manifest.json", b"", tarfile.SYMTYPE),
        archive_of("manifest.json", b"", tarfile.FIFOTYPE),
        archive_of("manifest.json", b"{}"),
        archive_of("", b"x"),
    ],
    ids=["above", "anywhere", "deeper", "a link", "a pipe", "a manifest alone", "no name"],
)
def test_nothing_but_one_bundle_is_unpacked(archive: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^s3://models/theirs"):
        unpack(archive, "s3://models/theirs", tmp_path / "place" / "b")
    assert not list((tmp_path / "place").iterdir())
    assert not list(tmp_path.glob("outside"))


@pytest.mark.parametrize(
    "archive",
    [
        b"",
        b"not an archive",
        archive_of("model.pkl", b"x"),
        archive_of("manifest.json", b"{}"),
        archive_of("a", b"")[:-9],
    ],
    ids=["empty", "no archive", "a pickle", "a manifest alone", "cut off"],
)
def test_an_archive_that_is_none_of_ours_is_refused_with_its_name(archive: bytes) -> None:
    with pytest.raises(InputError, match="s3://models/theirs"):
        read_manifest(archive, "s3://models/theirs")
