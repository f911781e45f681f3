"""A run of `score` that is killed, or finds the disk full, leaves the earlier answers and nothing else."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import made_people
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import firstspin
from made_columns import columns
from small_disk import fill_up, small_disk

from firstspin.files import is_partial
from firstspin.score import score
from firstspin.serving.score_stores import read_scores

USERS = 300
DIES_AFTER_A_BATCH = """
import os, signal, sys
import duckdb, pandas, pyarrow.parquet  # once, and not in each child
from datetime import UTC, datetime
from pathlib import Path
from firstspin.score import score
from firstspin.serving import batch

batch.ROWS_AT_ONCE = 100
bundle, registrations, *outs = sys.argv[1:]
progress = lambda name, share: os.kill(os.getpid(), signal.SIGKILL)
for out in outs:
    child = os.fork()
    if not child:
        score(Path(bundle), Path(registrations), out, 2, now=datetime.now(UTC), progress=progress)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, out
"""


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("people") / "registrations.parquet"
    batch = columns(made_people.examples(USERS).registrations)
    pq.write_table(pa.table(batch), file)
    return file


def left(folder: Path) -> dict[str, bytes]:
    """The files of a folder, without those that a killed process was still writing."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not is_partial(path)}


def test_a_killed_run_leaves_the_answers_of_the_run_before(folder: Path, people: Path, tmp_path: Path) -> None:
    first, later, store = tmp_path / "first", tmp_path / "later", f"sqlite:{tmp_path / 'scores.db'}"
    first.mkdir()
    later.mkdir()
    files = [place / name for place in (first, later) for name in ("answers.parquet", "answers.csv")]
    for out in (*files[2:], store):
        score(folder, people, str(out), 1, now=datetime.now(UTC))
    earlier = left(later)
    subprocess.run([sys.executable, "-c", DIES_AFTER_A_BATCH, folder, people, *files, store], check=True)
    assert (left(first), left(later)) == ({}, earlier)
    assert sorted(earlier) == ["answers.csv", "answers.parquet"]
    reader = read_scores(store)
    answers = [reader.get(f"u{number}") for number in range(USERS)]
    reader.close()
    assert {len(answer.ranking.genres) for answer in answers if answer} == {1}
    assert None not in answers


@pytest.mark.parametrize("name", ["answers.parquet", "answers.csv"])
def test_a_full_disk_is_named_and_leaves_the_file_before(folder: Path, people: Path, name: str, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        (disk / name).write_text("earlier answers")
        fill_up(disk)
        earlier = set(left(disk))
        done = firstspin("score", "--bundle", folder, "--registrations", people, "--out", disk / name)
        assert done.returncode == 1
        assert "No space left on device" in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr
        assert {path.name for path in disk.iterdir()} == earlier
        assert (disk / name).read_text() == "earlier answers"
