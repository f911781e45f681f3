"""bench/quality.py on a small simulated service, and its table on outcomes that can be counted by hand."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent.parent / "bench"))

from quality import RIVALS, Trained, a_fifth_out, main, of_rival, table

from firstspin.models import registry
from firstspin.records import Examples, Registration

GENRES = ("Jazz", "Pop", "Rock")


def test_every_model_gets_the_same_folds_and_a_second_run_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["world", "--world-users", "100", "--folds", "2", "--models", "popularity,logistic,lightgbm default"]
    main([*command, "--cache", str(tmp_path)])
    once, stored = (
        capsys.readouterr().out.split("\n\n")[1],
        {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()},
    )
    hits = {name: float(hit) for name, hit in (line[2:].split(" | ")[:2] for line in once.splitlines()[2:])}
    assert [*hits] == ["auto", "popularity", "logistic", "lightgbm default", "optimum"]
    assert max(hits.values()) == hits["optimum"] < 1
    assert len(stored) == 4 * 2
    main([*command, "--cache", str(tmp_path)])
    assert capsys.readouterr().out.split("\n\n")[1] == once
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == stored


def users_of(picks: list[str]) -> Examples:
    """Users whose favourite is their only pick."""
    tops = np.array([GENRES.index(pick) for pick in picks])
    registrations = tuple(Registration(age=30, genres=(pick,)) for pick in picks)
    at = np.full(len(picks), np.datetime64(datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None), "s"))
    return Examples(tuple(map(str, range(len(picks)))), registrations, at, GENRES, tops, np.eye(3)[tops])


@pytest.mark.parametrize("name", ["logistic", "lightgbm default", "lightgbm"])
def test_a_rival_learns_that_users_play_what_they_picked(name: str) -> None:
    task = registry.prepare(users_of(["Rock"] * 80 + ["Jazz"] * 80), GENRES)
    shown, probability = of_rival(RIVALS[name], task, users_of(["Jazz", "Rock", "Pop"]), seed=0)
    assert [GENRES[first] for first in shown[:2, 0]] == ["Jazz", "Rock"]
    assert probability[:2].min() > 0.8
    assert probability[2] == 0  # no training user has it


def test_a_class_of_the_last_fifth_alone_is_left_out_of_it() -> None:
    rows, tops = np.arange(11.0)[:, None], np.array([0] * 5 + [1] + [2] * 5)
    for seed in range(5):
        train, labels, held_out, truth = a_fifth_out(rows, tops, seed)
        classes = np.unique(tops[train[:, 0].astype(int)])
        assert (classes[labels] == tops[train[:, 0].astype(int)]).all()
        assert (classes[truth] == tops[held_out[:, 0].astype(int)]).all()


def test_differences_are_paired_by_user() -> None:
    users = users_of(["Rock", "Jazz"] * 50)
    right, wrong = np.stack([users.tops, users.tops - 1, users.tops - 2], axis=1), np.full((100, 3), -1)
    better = Trained(np.where(np.arange(100)[:, None] < 60, right, wrong), np.full(100, 0.5), 1.25)
    worse = Trained(np.where(np.arange(100)[:, None] < 30, right, wrong), np.full(100, 0.25), 0.5)
    lines = list(table({"auto": better, "other": worse}, users, None, seed=0))
    assert lines[2] == "| auto | 0.600 |  | 0.693 |  | 1.2 |"
    gain, loss = (cell.split(" (")[0] for cell in lines[3].split(" | ")[2:5:2])
    assert lines[3].startswith("| other | 0.300 | ")
    assert (gain, loss) == ("+0.300", "-0.693")
    assert "(-0.693 to -0.693)" in lines[3]  # the same for every user: no width
