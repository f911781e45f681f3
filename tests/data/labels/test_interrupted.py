"""A run of `label` that is killed, or finds the disk full, leaves the earlier labels and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import made_tables
import pytest
from command_line import failed
from small_disk import fill_up, small_disk

from firstspin.files import is_partial

DIES_AFTER_A_BATCH = """
import os, signal, sys
from pathlib import Path
import pyarrow.parquet as pq
from firstspin import learn

write_batch = pq.ParquetWriter.write_batch

def dies(writer, batch):
    write_batch(writer, batch)
    assert "pandas" not in sys.modules, "its import costs half a second, and the labels need nothing of it"
    os.kill(os.getpid(), signal.SIGKILL)

pq.ParquetWriter.write_batch = dies
data, *outs = map(Path, sys.argv[1:])
for out in outs:
    child = os.fork()
    if not child:
        learn.label(data, out)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, out
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    people = [(f"u{number}", "2025-01-01T00:00:00Z", "", "", "", "") for number in range(300)]
    listens = [(user, "2025-02-05T00:00:00Z", "1", 900) for user, *_ in people]
    listens.append(("u0", "2025-04-01T00:00:00Z", "1", 1))  # the windows are over
    return made_tables.tables(tmp_path_factory.mktemp("data"), people, listens)


def test_a_killed_run_leaves_the_labels_of_the_run_before(data: Path, tmp_path: Path) -> None:
    first, later = tmp_path / "labels.parquet", tmp_path / "later.parquet"
    later.write_text("earlier labels")
    subprocess.run([sys.executable, "-c", DIES_AFTER_A_BATCH, data, first, later], check=True)
    remaining = {path.name: path.read_text() for path in tmp_path.iterdir() if not is_partial(path)}
    assert remaining == {later.name: "earlier labels"}


def test_a_full_disk_is_named_and_leaves_the_labels_before(data: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        out = disk / "labels.parquet"
        out.write_text("earlier labels")
        fill_up(disk)
        names = {path.name for path in disk.iterdir()}
        problem = failed("label", "--data", data, "--out", out)
        assert " ".join(problem.split()) == "the labels can't be written: no space left for labels.parquet"
        assert {path.name for path in disk.iterdir()} == names
        assert out.read_text() == "earlier labels"
