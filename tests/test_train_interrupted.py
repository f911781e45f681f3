"""A run of `train` that is killed, or finds the disk full, leaves the earlier bundle and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import made_people
import pytest
from command_line import failed
from made_bundles import pack
from small_disk import BALLAST, fill_up, small_disk

from firstspin.files import is_partial
from firstspin.serving import bundle

DIES_IN_TURN = """
import os, signal, sys
import duckdb, pyarrow.parquet, scipy.optimize  # once, and not in each child
from itertools import product
from pathlib import Path
from unittest import mock
from firstspin import learn

def dies(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

data, *outs = sys.argv[1:]
for out, moment in product(outs, ("firstspin.models.registry.fit", "numpy.save", "firstspin.files.put_in_place")):
    child = os.fork()
    if not child:
        with mock.patch(moment, dies):
            learn.train(Path(data), Path(out), "popularity")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, moment
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_people.tables(tmp_path_factory.mktemp("data"), 80)


def test_a_run_killed_at_any_moment_leaves_the_bundle_of_the_run_before(data: Path, tmp_path: Path) -> None:
    outs = [tmp_path / name / "b" for name in ("empty", "before")]
    for out in outs:
        out.parent.mkdir()
    earlier = pack(outs[1]).id
    subprocess.run([sys.executable, "-c", DIES_IN_TURN, data, *outs], check=True)
    left = [[path.name for path in out.parent.iterdir() if not is_partial(path)] for out in outs]
    assert left == [[], ["b"]]
    assert bundle.load(outs[1]).id == earlier


@pytest.mark.parametrize("free", [0, 12_288])
def test_a_full_disk_is_named_and_leaves_the_bundle_before(data: Path, tmp_path: Path, free: int) -> None:
    with small_disk(tmp_path / "disk", 2) as disk:
        earlier = pack(disk / "b").id
        fill_up(disk)
        with (disk / BALLAST).open("r+b") as ballast:
            ballast.truncate((disk / BALLAST).stat().st_size - free)
        problem = failed("train", "--data", data, "--model", "popularity", "--out", disk / "b")
        assert "No space left on device" in " ".join(problem.split())
        assert sorted(path.name for path in disk.iterdir()) == ["b", BALLAST]
        assert bundle.load(disk / "b").id == earlier
