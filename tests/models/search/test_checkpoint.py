"""An interrupted tuning run resumes with the same result to the last bit, and ignores trials of another task."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_people
import pytest

from firstspin.models.features import fit_encoder
from firstspin.models.predictor import Scorer
from firstspin.models.search.tuning import SPACES, tune
from firstspin.models.task import Task, Tuned

TEAM = ("logistic", "lightgbm", "network")
TRIALS = {"logistic": 14, "auto": 12}  # the first ten are drawn, then the sampler learns from those before

Uncut = dict[str, tuple[tuple[Tuned, ...], Path]]


class CutOff(Exception):
    """The machine was taken away."""


def made(people: int = 60, seed: int = 4) -> Task:
    examples = made_people.examples(people)
    encoder = fit_encoder(examples, known_genres=made_people.GENRES)
    rows = encoder.matrix(examples.registrations)
    return Task(encoder, examples.genres, rows, examples.tops, examples.shares, seed=seed)


def read(folder: Path) -> Any:
    return json.loads((folder / "tuning.json").read_bytes())


def without_seconds(folder: Path) -> dict[str, list[dict[str, object]]]:
    return {
        name: [{key: value for key, value in one.items() if key != "seconds"} for one in tried]
        for name, tried in read(folder)["tried"].items()
    }


def run_cut_off(name: str, model: str, after: int, folder: Path) -> None:
    """A run that ends without a word in the middle of this model's next trial after so many."""
    space, seen = SPACES[model], set()

    def train(task: Task) -> Scorer:
        seen.add(task.tuned)
        if len(seen) > after:
            raise CutOff
        return space.train(task)

    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(SPACES, model, replace(space, train=train))
        with pytest.raises(CutOff):
            tune(name, made(), None, TRIALS[name], folder)


@pytest.fixture(scope="module")
def uncut(tmp_path_factory: pytest.TempPathFactory) -> Uncut:
    """What a run that is never cut off finds, and the folder with all that it tried."""
    folders = {name: tmp_path_factory.mktemp(name) for name in TRIALS}
    return {name: (tune(name, made(), None, TRIALS[name], folder), folder) for name, folder in folders.items()}


def test_keeping_what_was_tried_changes_nothing_that_is_found(uncut: Uncut) -> None:
    found, folder = uncut["logistic"]
    assert found == tune("logistic", made(), None, TRIALS["logistic"])
    assert {one["state"] for one in read(folder)["tried"]["logistic"]} == {"COMPLETE", "PRUNED"}
    assert [path.name for path in folder.iterdir()] == ["tuning.json"]


@pytest.mark.parametrize(
    ("name", "cuts"),
    [
        ("logistic", [("logistic", 7)]),
        ("logistic", [("logistic", 0), ("logistic", 1), ("logistic", 6), ("logistic", 5)]),  # trials 1, 2, 8 and 13
        # in rounds 7, 7, 10 and 12; where the cut is within a round, some have had their turn
        ("auto", [("logistic", 6), ("lightgbm", 0), ("network", 3), ("lightgbm", 1)]),
    ],
)
def test_a_run_that_was_cut_off_finds_what_it_would_have_found(
    name: str, cuts: list[tuple[str, int]], uncut: Uncut, tmp_path: Path
) -> None:
    for model, after in cuts:
        run_cut_off(name, model, after, tmp_path)
    found, folder = uncut[name]
    assert tune(name, made(), None, TRIALS[name], tmp_path) == found
    assert without_seconds(tmp_path) == without_seconds(folder)


def test_a_run_that_is_over_tries_nothing_again(uncut: Uncut) -> None:
    found, folder = uncut["auto"]
    before = (folder / "tuning.json").stat().st_mtime_ns
    assert tune("auto", made(), None, TRIALS["auto"], folder) == found
    assert (folder / "tuning.json").stat().st_mtime_ns == before


def test_fewer_trials_find_the_same_whatever_was_tried_beyond_them(uncut: Uncut) -> None:
    _, folder = uncut["logistic"]
    assert tune("logistic", made(), None, 3, folder) == tune("logistic", made(), None, 3)
    assert len(read(folder)["tried"]["logistic"]) == TRIALS["logistic"]


@pytest.mark.parametrize("trials", [None, 0])  # the container's word for no number of trials is 0
def test_time_that_was_spent_is_spent(trials: int | None, tmp_path: Path) -> None:
    tune("logistic", made(), None, 3, tmp_path)
    kept = read(tmp_path)
    for one, seconds in zip(kept["tried"]["logistic"], (10.0, 20.5, 10.0), strict=True):
        one["seconds"] = seconds
    (tmp_path / "tuning.json").write_text(json.dumps(kept))
    (found,) = tune("logistic", made(), 1.0, trials, tmp_path)  # 40.5 s, and the longest once more, are over a minute
    assert found.trials == 3
    (found,) = tune("logistic", made(), 1.1, 5, tmp_path)
    assert found.trials == 5


def torn(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


@pytest.mark.parametrize("spoil", [torn, lambda _: b"", lambda _: b"\xff", lambda _: b"{}", lambda _: b'["a journal"]'])
def test_an_unreadable_checkpoint_is_ignored(spoil: Any, tmp_path: Path) -> None:
    found, whole = tune("logistic", made(), None, 3, tmp_path), without_seconds(tmp_path)
    (tmp_path / "tuning.json").write_bytes(spoil((tmp_path / "tuning.json").read_bytes()))
    told: list[str] = []
    assert tune("logistic", replace(made(), progress=lambda step, _: told.append(step)), None, 3, tmp_path) == found
    assert ["starting anew" in step for step in told] == [True, False, False, False]
    assert without_seconds(tmp_path) == whole


@pytest.mark.parametrize("other", [made(seed=5), made(people=61), replace(made(), shares=made().shares[::-1])])
def test_what_was_tried_with_another_seed_or_other_tables_is_not_taken_up(other: Task, tmp_path: Path) -> None:
    tune("logistic", other, None, 4, tmp_path)
    before = (tmp_path / "tuning.json").read_bytes()
    told: list[str] = []

    def tell(step: str, _: float) -> None:
        told.append(step)
        if "starting anew" in step:
            assert (tmp_path / "tuning.json").read_bytes() == before

    found = tune("logistic", replace(made(), progress=tell), None, 3, tmp_path)
    assert found == tune("logistic", made(), None, 3)
    assert ["starting anew" in step for step in told] == [True, False, False, False]
    assert len(read(tmp_path)["tried"]["logistic"]) == 3


def test_another_model_does_not_take_it_up_either(tmp_path: Path) -> None:
    tune("logistic", made(), None, 2, tmp_path)
    tune("auto", made(), None, 1, tmp_path)
    assert {name: len(tried) for name, tried in read(tmp_path)["tried"].items()} == dict.fromkeys(TEAM, 1)


def test_no_message_about_a_new_start_without_a_checkpoint_or_on_resuming(tmp_path: Path) -> None:
    told: list[str] = []
    task = replace(made(), progress=lambda step, _: told.append(step))
    tune("logistic", task, None, 2, tmp_path / "is" / "made")
    tune("logistic", task, None, 3, tmp_path / "is" / "made")
    assert [step.split(",")[1] for step in told] == [" 1 tried", " 2 tried", " 3 tried"]


def test_a_checkpoint_holds_settings_and_scores_only(uncut: Uncut) -> None:
    kept = read(uncut["auto"][1])
    assert kept.keys() == {"fingerprint", "tried"}
    assert len(kept["fingerprint"]) == 64
    for name, tried in kept["tried"].items():
        for one in tried:
            assert one.keys() == {"params", "state", "value", "losses", "seconds"}
            assert one["params"].keys() == SPACES[name].ranges.keys()
            figures = [*one["params"].values(), *one["losses"], one["value"], one["seconds"]]
            assert {type(figure) for figure in figures} <= {int, float}
            assert len(one["losses"]) <= 3
