"""Archives are read in place: nothing is extracted, and decompression bombs are refused."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from firstspin.data.importers import archives
from firstspin.records import InputError


def zipped(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def contents(path: Path) -> dict[str, bytes]:
    with archives.opened(path) as files:
        return {name: file.open().read() for name, file in files.items()}


def test_names_that_lead_elsewhere_are_only_names(tmp_path: Path) -> None:
    escape = "../../escaped.txt"
    (tmp_path / "deep" / "er").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "deep" / "er" / "a.zip", "w") as archive:
        archive.writestr(escape, b"x")
        archive.writestr("/tmp/absolute.txt", b"y")
    assert escape in contents(tmp_path / "deep" / "er" / "a.zip")
    assert contents(tarred(tmp_path / "deep" / "er" / "a.tar.gz", (tarfile.TarInfo(escape), b"x"))) == {escape: b"x"}
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_links_and_devices_of_a_tar_file_are_no_files(tmp_path: Path) -> None:
    link, hard, device, real = (tarfile.TarInfo(name) for name in ("link", "hard", "device", "real"))
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    hard.type, hard.linkname = tarfile.LNKTYPE, "/etc/passwd"
    device.type = tarfile.CHRTYPE
    path = tarred(tmp_path / "a.tar.gz", (link, b""), (hard, b""), (device, b""), (real, b"x"))
    assert contents(path) == {"real": b"x"}


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SMALL", 1000)
    zeros = bytes(2_000_000)
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        zipped(path, u=zeros)
    else:
        tarred(path, (tarfile.TarInfo("u"), zeros))
    with pytest.raises(InputError, match="refused as a decompression bomb"):
        contents(path)
    monkeypatch.setattr(archives, "SMALL", 10**9)
    assert len(contents(path)["u"]) == 2_000_000
    monkeypatch.setattr(archives, "MAX_BYTES", 1_000_000)
    with pytest.raises(InputError, match="refused as a decompression bomb"):
        contents(path)


@pytest.mark.parametrize("content", [b"PK\x03\x04 cut", b"\x1f\x8b\x08 cut", b"nothing", b""])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"is neither a folder nor a zip or tar archive|damaged or cut off"):
        contents(tmp_path / "a.zip")
    with pytest.raises(InputError, match="does not exist"):
        contents(tmp_path / "none")


def test_an_archive_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    whole = tarred(tmp_path / "a.tar.gz", (tarfile.TarInfo("u"), bytes(range(256)) * 400)).read_bytes()
    (tmp_path / "b.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged or cut off"):
        contents(tmp_path / "b.tar.gz")


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", u=b"x")
    data = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + at] |= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="is encrypted: unpack it first"):
        contents(path)


def test_files_are_looked_up_by_name_in_any_folder(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", **{"ml-1m/u.data": b"x", "__MACOSX/._u.data": b"y"})
    with archives.opened(path) as files:
        assert [file.name for file in archives.matching(files, "u.data")] == ["ml-1m/u.data"]


def test_a_compression_that_is_not_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("u.data", "1\t2\t3\t4\n")
    method = (0).to_bytes(2, "little")
    content = path.read_bytes()
    local, central = content.index(b"PK\x03\x04") + 8, content.index(b"PK\x01\x02") + 10
    for at in (local, central):
        assert content[at : at + 2] == method
        content = content[:at] + (97).to_bytes(2, "little") + content[at + 2 :]
    path.write_bytes(content)
    with pytest.raises(InputError, match="unpack it and import the folder"), archives.opened(path) as files:
        files["u.data"].open()
