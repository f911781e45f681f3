"""A replaced file or folder is whole at any moment, the old one or the new one, on the disk too."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path

import pytest
from preloaded import preloaded

from firstspin import files

REPLACE_FOLDER = """
import sys
from pathlib import Path
from firstspin import files
out = Path(sys.argv[1])
with files.beside(out) as new:
    new.mkdir()
    for name in ("a", "b"):
        (new / name).write_text("new")
    files.put_in_place(new, out)
"""
REPLACE_FILE = """
import sys
from pathlib import Path
from firstspin import files
with files.written_beside(Path(sys.argv[1])) as beside:
    beside.write_text("new")
"""


REPLACE_TWO = """
import sys
from pathlib import Path
from firstspin import files
with files.written_together([Path(sys.argv[1]) / name for name in ("a", "b")]) as new:
    for path in new:
        path.write_text("new")
"""


def run(program: str, out: Path, library: Path, **settings: str) -> int:
    told = {"LD_PRELOAD": str(library), "PYTHONDONTWRITEBYTECODE": "1"} | settings
    return subprocess.run([sys.executable, "-c", program, out], env=os.environ | told, check=False).returncode


def folder(out: Path, content: str) -> Path:
    out.mkdir()
    for name in ("a", "b"):
        (out / name).write_text(content)
    return out


def content(out: Path) -> str:
    """Of a whole folder: "old" or "new"."""
    assert sorted(path.name for path in out.iterdir()) == ["a", "b"]
    [read] = {path.read_text() for path in out.iterdir()}
    return read


def test_a_folder_replaced_by_a_process_killed_at_any_step_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    library, seen = preloaded("dies_at", tmp_path), []
    for step in count(1):
        out = folder(tmp_path / f"out{step}", "old")
        status = run(REPLACE_FOLDER, out, library, DIES_AT=str(step))
        seen.append(content(out))
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert set(seen) == {"old", "new"}
    assert seen == sorted(seen, reverse=True)  # old up to some step, new from then on


def test_where_folders_can_not_be_exchanged_the_next_run_brings_back_what_a_kill_took_away(tmp_path: Path) -> None:
    library, missing = preloaded("dies_at", tmp_path), 0
    for step in count(1):
        out = folder(tmp_path / f"out{step}", "old")
        status = run(REPLACE_FOLDER, out, library, DIES_AT=str(step), NO_EXCHANGE="1")
        missing += not out.exists()
        with files.beside(out):
            pass
        assert content(out) in ("old", "new")
        assert not list(tmp_path.glob(f".out{step}.*"))
        if status == 0:
            break
    assert missing  # the case did occur
    assert content(out) == "new"


def test_a_file_replaced_by_a_process_killed_at_any_step_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    library, out = preloaded("dies_at", tmp_path), tmp_path / "out"
    for step in count(1):
        out.write_text("old")
        if run(REPLACE_FILE, out, library, DIES_AT=str(step)) == 0:
            break
        assert out.read_text() in ("old", "new")
    assert out.read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dies_at.so", "out"]  # the last run cleared up


def test_files_that_belong_together_are_never_of_two_runs(tmp_path: Path) -> None:
    library, seen = preloaded("dies_at", tmp_path), []
    for step in count(1):
        out = folder(tmp_path / f"out{step}", "old")
        status = run(REPLACE_TWO, out, library, DIES_AT=str(step))
        seen.append((out / "b").read_text() if (out / "a").exists() else "no first file")
        if (out / "a").exists():
            assert (out / "a").read_text() == (out / "b").read_text()
        if status == 0:
            break
    assert set(seen) == {"old", "no first file", "new"}


@pytest.mark.parametrize("program", [REPLACE_FILE, REPLACE_FOLDER], ids=["file", "folder"])
def test_what_is_put_in_place_is_on_the_disk_when_the_power_goes(tmp_path: Path, program: str) -> None:
    library, synced, out = preloaded("synced_only", tmp_path), tmp_path / "synced", tmp_path / "out"
    synced.mkdir()
    assert run(program, out, library, SYNCED=str(synced), SYNCED_NAME="") == 0
    written = [out] if out.is_file() else list(out.iterdir())
    assert written
    assert {path.name: path.read_bytes() for path in written}.items() <= {
        path.name: path.read_bytes() for path in synced.iterdir() if path.name != "beside"
    }.items()


def test_only_folders_that_no_process_writes_to_are_cleared_up(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with files.beside(out) as live:
        left = tmp_path / ".out.abandoned.partial"
        left.mkdir()
        (left / "out").write_text("half")
        other = tmp_path / ".out.mine.abandoned.partial"  # of a path "out.mine"
        other.mkdir()
        with files.written_beside(out) as beside:
            beside.write_text("done")
        assert not left.exists()
        assert live.parent.exists()
        assert other.exists()
    assert out.read_text() == "done"


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old")
    with pytest.raises(FileNotFoundError), files.written_beside(tmp_path / "out") as beside:
        beside.rename(beside.with_name("lost"))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out", "old")]


def test_a_folder_is_not_replaced_by_a_file_and_the_work_is_not_begun(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(IsADirectoryError), files.written_beside(tmp_path / "out"):
        raise AssertionError("this comes before the work")


def test_a_link_is_replaced_by_the_folder_and_what_it_led_to_stays(tmp_path: Path) -> None:
    old, out = folder(tmp_path / "old", "old"), tmp_path / "out"
    out.symlink_to(old)
    with files.beside(out) as new:
        files.put_in_place(folder(new, "new"), out)
    assert content(out) == "new"
    assert not out.is_symlink()
    assert content(old) == "old"


def test_a_name_as_long_as_a_name_can_be_is_written(tmp_path: Path) -> None:
    out = tmp_path / ("x" * 255)
    with files.written_beside(out) as beside:
        beside.write_text("done")
    assert out.read_text() == "done"


def test_a_lock_that_another_program_holds_on_the_folder_does_not_block(tmp_path: Path) -> None:
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with files.written_beside(tmp_path / "out") as beside:
        beside.write_text("done")
    os.close(held)
    assert (tmp_path / "out").read_text() == "done"


def test_a_workspace_that_another_thread_made_anew_is_not_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the opening of the folder and its lock, the other thread clears it up and makes its own at this path."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with files.workspace("label") as first:
        pass
    real = files.locked

    def locked_late(opened: int) -> bool | None:
        monkeypatch.setattr(files, "locked", real)
        first.rmdir()
        first.mkdir()
        return real(opened)

    monkeypatch.setattr(files, "locked", locked_late)
    with files.workspace("label") as second:
        assert second != first


def test_a_workspace_that_is_made_anew_while_another_process_clears_up_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the opening of the old folder and its lock, its process ends with it and makes the next at this path."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / "firstspin-analyse-other.tmp"
    folder.mkdir()
    real, held = files.locked, []

    def locked_late(opened: int) -> bool | None:
        monkeypatch.setattr(files, "locked", real)
        folder.rename(tmp_path / "removed")  # the old inode lives on, as it does while it is open
        folder.mkdir()
        (folder / "outcomes").write_text("of the other process")
        held.append(os.open(folder, os.O_RDONLY))
        assert real(held[0])
        return real(opened)

    monkeypatch.setattr(files, "locked", locked_late)
    with files.workspace("label"):
        assert (folder / "outcomes").read_text() == "of the other process"
    os.close(held[0])
