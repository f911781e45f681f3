"""What is about users is for their owner alone, and nothing of it stays behind when a command is killed."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import made_people
import made_tables
import pytest
from command_line import firstspin
from made_bundles import pack
from made_columns import answers
from made_events import SECRET, shown
from made_experiments import PLAN
from made_service import kill_group, serving, until

from firstspin import files
from firstspin.data.formats.csv_cells import original
from firstspin.events.database import write
from firstspin.events.store import open_database
from firstspin.experiment.plan import experiment_key, freeze
from firstspin.serving.batch import Answers, file_sink

EVERYBODY = 0o077


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files, and the usual umask, which lets everybody read."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    before = os.umask(0o022)
    yield folder
    os.umask(before)


def started(*words: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "firstspin", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def left(temporary: Path) -> list[str]:
    return sorted(path.name for path in temporary.glob("firstspin-*"))


def test_the_workspace_of_a_killed_command_goes_with_the_next_run(tmp_path: Path, temporary: Path) -> None:
    data = made_people.tables(tmp_path / "data", 60)
    shutil.rmtree(tmp_path / "fifo", ignore_errors=True)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "data" / "listens.csv").rename(tmp_path / "listens.csv")
    (tmp_path / "data" / "listens.parquet").symlink_to(tmp_path / "fifo")
    killed = started("train", "--data", data, "--out", tmp_path / "b")
    until(lambda: left(temporary))
    killed.kill()
    killed.wait()
    (tmp_path / "data" / "listens.parquet").unlink()
    (tmp_path / "listens.csv").rename(tmp_path / "data" / "listens.csv")
    [folder] = left(temporary)
    (temporary / folder / "listens.parquet").write_text("user ids")
    done = firstspin("label", "--data", data, "--out", tmp_path / "labels.parquet")
    assert done.returncode == 0, done.stderr
    assert left(temporary) == []


def test_the_workspace_of_a_killed_service_goes_with_the_next_run(
    folder: Path, tmp_path: Path, temporary: Path
) -> None:
    bundle = tmp_path / "b"
    bundle.symlink_to(folder)
    with serving(bundle) as service:
        [state] = left(temporary)
        assert stat.S_IMODE((temporary / state).stat().st_mode) == 0o700
        with serving(bundle):  # another service does not take it away
            assert state in left(temporary)
        service.process.kill()
        service.process.wait()
        until(lambda: not service_lives(service.process.pid))
        kill_group(service.process.pid)
    assert left(temporary) == [state]
    with files.workspace("label"):
        assert len(left(temporary)) == 1
    assert left(temporary) == []


def service_lives(group: int) -> bool:
    told = subprocess.run(["ps", "-o", "stat=", "-g", str(group)], capture_output=True, text=True, check=False)
    return any(not line.startswith("Z") for line in told.stdout.split())


def test_only_what_a_dead_process_of_ours_left_is_removed(tmp_path: Path, temporary: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("stays")
    (temporary / "firstspin-label-abcdefgh.tmp").symlink_to(precious)
    (temporary / "firstspin-demo-abcdefgh").mkdir()
    (temporary / "firstspin-label-file0000.tmp").write_text("no folder")
    (temporary / "others-label-abcdefgh.tmp").mkdir()
    linked = temporary / "firstspin-look-back-abcdefgh.tmp"
    linked.mkdir()
    (linked / "link").symlink_to(precious)
    theirs = temporary / "firstspin-train-theirs00.tmp"
    theirs.mkdir()
    if not os.getuid():
        os.chown(theirs, 65534, 65534)
    with files.workspace("report") as mine, files.workspace("label"):
        assert mine.exists()
        assert not linked.exists()
    assert (precious / "file").read_text() == "stays"
    stays = {"firstspin-label-abcdefgh.tmp", "firstspin-demo-abcdefgh", "firstspin-label-file0000.tmp"}
    assert set(left(temporary)) == stays | (set() if os.getuid() else {theirs.name})
    assert (temporary / "others-label-abcdefgh.tmp").exists()


def test_commands_at_the_same_time_leave_each_other_alone(tmp_path: Path, temporary: Path) -> None:
    data = made_people.tables(tmp_path / "data", 60)
    running = [started("label", "--data", data, "--out", tmp_path / f"labels{n}.parquet") for n in range(4)]
    assert [process.wait(120) for process in running] == [0] * 4
    assert left(temporary) == []


def open_to_others(*paths: Path) -> list[str]:
    return [str(path) for path in paths if path.stat().st_mode & EVERYBODY]


def test_files_about_users_are_for_their_owner_alone(tmp_path: Path) -> None:
    data = made_people.tables(tmp_path / "data", 60)
    pack(tmp_path / "b")
    out, secret = tmp_path / "new" / "folder", tmp_path / "events.secret"
    secret.write_text(bytes(range(32)).hex())
    freeze(PLAN, tmp_path / "plan.toml")
    store = f"sqlite:///{tmp_path / 'events.sqlite'}"
    database = open_database(store, SECRET)
    database.transact(lambda session: write(session, [shown("anna", experiment_key(PLAN))], []))
    database.close()
    opening = ("--events", store, "--events-secret", secret)
    scored = ("score", "--bundle", tmp_path / "b", "--registrations", data / "registrations.csv", "--out")
    for words in (
        ("label", "--data", data, "--out", out / "labels.parquet"),
        (*scored, out / "scores.csv"),
        (*scored, out / "scores.parquet"),
        (*scored, f"sqlite:{out / 'store' / 'scores.db'}"),
        ("events", "export", "--out", out / "exported", "--plan", tmp_path / "plan.toml", *opening),
    ):
        done = firstspin(*words)
        assert done.returncode == 0, done.stderr
    written = [out, *out.rglob("*"), out.parent, *tmp_path.glob("events.sqlite*")]
    assert {path.name for path in written} >= {"labels.parquet", "scores.csv", "scores.parquet", "exposures.parquet"}
    assert open_to_others(*written) == []
    report = firstspin("evaluate", "--data", data, "--models", "popularity", "--out", tmp_path / "card.json")
    assert report.returncode == 0, report.stderr
    assert stat.S_IMODE((tmp_path / "card.json").stat().st_mode) == 0o644  # holds nothing about anybody


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_about_users_is_private_while_it_is_written(kind: str, tmp_path: Path) -> None:
    modes: list[str] = []

    def batches() -> Iterator[Answers]:
        for number in range(3):
            yield answers([f"u{number}"], "Rock")
            partial = [path for path in tmp_path.rglob(f"scores.{kind}") if path.is_file()]
            assert partial
            modes.extend(open_to_others(*partial, *(path.parent for path in partial)))

    file_sink(tmp_path / f"scores.{kind}")(batches())
    assert modes == []


def test_what_a_killed_score_left_beside_its_output_goes_with_the_next_run(folder: Path, tmp_path: Path) -> None:
    data = made_people.tables(tmp_path / "data", 60)
    out = tmp_path / "out" / "scores.csv"
    killed = """
import os, signal, sys
from pathlib import Path
from made_columns import answers
from firstspin.serving.batch import file_sink
def batches():
    yield answers(["u"] * 100_000, "Jazz")
    os.kill(os.getpid(), signal.SIGKILL)
file_sink(Path(sys.argv[1]))(batches())
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    ended = subprocess.run([sys.executable, "-c", killed, out], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [path.is_dir() for path in out.parent.iterdir()] == [True]
    done = firstspin("score", "--bundle", folder, "--registrations", data / "registrations.csv", "--out", out)
    assert done.returncode == 0, done.stderr
    assert list(out.parent.iterdir()) == [out]


def test_no_id_in_a_csv_of_scores_begins_a_formula_and_every_one_comes_back(folder: Path, tmp_path: Path) -> None:
    ids = ["=HYPERLINK(1)", "+49170", "-1", "@anna", "'=1", "O'Brien", "u;=1", "u,=1", "\uff1d1", "007"]
    rows = [(user, "2026-01-01T00:00:00Z", "31", "", "", "Rock") for user in ids]
    asked = made_tables.write(tmp_path, "registrations", made_tables.REGISTRATIONS, rows)
    done = firstspin("score", "--bundle", folder, "--registrations", asked, "--out", tmp_path / "o.csv")
    assert done.returncode == 0, done.stderr
    assert "6 user ids begin like a formula" in done.stderr
    text = (tmp_path / "o.csv").read_text()
    header, *found = csv.reader(text.splitlines())
    assert header == ["user_id", "genres", "probabilities"]
    assert [original(user) for user, _, _ in found] == ids
    assert all(float(probability) >= 0 for _, _, cell in found for probability in cell.split("|"))
    for separator in ",;\t":
        cells = [cell for row in csv.reader(text.splitlines(), delimiter=separator) for cell in row]
        assert not any(cell.startswith(tuple("=+-@\t\r\uff1d")) for cell in cells)
