"""Hyperparameter search: repeatable, never worse on the hold-out than the defaults, and within its time."""

from __future__ import annotations

import json
import sys
from dataclasses import fields, replace
from pathlib import Path

import made_people
import numpy as np
import pytest
from command_line import firstspin

from firstspin import learn
from firstspin.cli import container
from firstspin.models import ensemble, registry
from firstspin.models.features import fit_encoder
from firstspin.models.linear import logistic
from firstspin.models.registry import Learning
from firstspin.models.search import tuning
from firstspin.models.search.tuning import SPACES, tune
from firstspin.models.task import Task, Tuned, best_loss
from firstspin.models.trees import boosting
from firstspin.records import InputError
from firstspin.serving import bundle


@pytest.fixture(scope="module")
def task() -> Task:
    examples = made_people.examples(150)
    encoder = fit_encoder(examples, known_genres=made_people.GENRES)
    rows = encoder.matrix(examples.registrations)
    return Task(encoder, examples.genres, rows, examples.tops, examples.shares, seed=4)


def test_as_many_trials_find_the_same_settings_again(task: Task) -> None:
    found = tune("logistic", task, None, 12)
    assert found == tune("logistic", task, None, 12)
    assert found[0].trials == 12
    assert found[0].settings != logistic.LogisticSettings()


def test_the_usual_settings_are_tried_first(task: Task) -> None:
    for name, space in SPACES.items():
        (found,) = tune(name, task, None, 1)
        assert found == Tuned(name, replace(space.usual(len(task)), soft_label_weight=task.soft_label_weight), 1)


@pytest.mark.parametrize(("name", "most", "leaves"), [("lightgbm", 0, 8), ("auto", 150, 8), ("auto", 100, 4)])
def test_where_the_usual_settings_are_the_best_those_for_all_users_are_kept(
    task: Task, monkeypatch: pytest.MonkeyPatch, name: str, most: int, leaves: int
) -> None:
    for module, constant, users in ((tuning, "MAX_USERS", 90), (ensemble, "MAX_USERS", most)):
        monkeypatch.setattr(module, constant, users)
    for constant, users in {"MANY_USERS": 80, "MAX_HELD_OUT": 14}.items():  # 8 leaves of more than 140
        monkeypatch.setattr(boosting, constant, users)
    (found,) = (one.settings for one in tune(name, task, None, 1) if one.name == "lightgbm")
    assert found == replace(
        boosting.settings_for(150 if leaves == 8 else 100), soft_label_weight=found.soft_label_weight
    )
    assert found.num_leaves == leaves


def test_every_setting_that_is_sought_is_one_of_the_model(task: Task) -> None:
    for space in SPACES.values():
        usual = replace(space.usual(len(task)), soft_label_weight=task.soft_label_weight)
        assert set(space.ranges) <= {field.name for field in fields(usual)}
        for name, (low, high) in space.ranges.items():
            assert low <= getattr(usual, name) <= high


def test_the_models_of_the_ensemble_have_equally_many_trials(task: Task) -> None:
    found = tune("auto", task, None, 2)
    assert [one.name for one in found] == ["logistic", "lightgbm", "network"]
    assert {one.trials for one in found} == {2}


def test_no_trial_begins_that_would_end_too_late(task: Task) -> None:
    (found,) = tune("network", task, 1e-6, None)
    assert found.trials == 1


def test_progress_reports_the_number_of_trials_and_the_best_losses(task: Task) -> None:
    told: list[tuple[str, float]] = []
    again = Task(*(getattr(task, name) for name in task.__slots__[:6]), progress=lambda *step: told.append(step))
    tune("logistic", again, None, 4)
    assert [done for _, done in told] == [0.25, 0.5, 0.75, 1.0]
    assert told[0][0].startswith("tuning, 1 tried, log loss logistic ")


def test_a_loss_is_measured_at_the_best_temperature() -> None:
    chances = np.array([[0.7, 0.2, 0.1]] * 10)
    tops = np.array([0] * 7 + [1] * 2 + [2])
    best = -float(np.mean(np.log(chances[np.arange(10), tops])))
    for bold in (0.3, 1.0, 4.0):
        assert best_loss(bold * np.log(chances), tops) == pytest.approx(best, abs=1e-6)


def test_the_bundle_tells_what_tuning_chose() -> None:
    tuned = (Tuned("logistic", logistic.LogisticSettings(penalty=9.0, soft_label_weight=0.25), 31),)
    examples = made_people.examples(80)
    usual = registry.fit("logistic", registry.prepare(examples, made_people.GENRES))
    prepared = registry.prepare(examples, made_people.GENRES, learning=Learning(tuned=tuned))
    found = registry.fit("logistic", prepared)
    assert found.made_of == "logistic tuned in 31 trials (penalty=9.0, soft_label_weight=0.25)"
    assert not np.array_equal(found.scores(examples.registrations), usual.scores(examples.registrations))
    assert registry.fit("popularity", prepared).made_of == ""


def test_a_model_without_settings_is_refused(task: Task) -> None:
    with pytest.raises(InputError, match="popularity has no settings to tune; auto, logistic, forest"):
        tune("popularity", task, 1.0, None)


def test_without_optuna_the_error_names_the_extra_to_install(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"tuning needs optuna: pip install 'firstspin\[tune\]'"):
        registry.tune("logistic", task, Learning(tune_trials=1))


def test_training_tunes_before_it_learns_and_the_same_trials_pack_the_same_bundle(tmp_path: Path) -> None:
    data = made_people.tables(tmp_path / "data", 120)
    learning = Learning(tune_trials=2)
    packed = [learn.train(data, tmp_path / name, "logistic", learning=learning)[0] for name in ("one", "two")]
    assert packed[0].manifest.predictor.made_of.startswith("logistic tuned in 2 trials (penalty=")
    assert packed[0].manifest.rule.made_of == ""
    assert packed[0].id == packed[1].id


def test_in_the_container_tuning_is_a_hyperparameter(tmp_path: Path) -> None:
    made_people.tables(tmp_path / "input/data/training", 60)
    (tmp_path / "input/config").mkdir()
    told = {"model": "logistic", "tune": "60", "trials": "2"}
    (tmp_path / "input/config/hyperparameters.json").write_text(json.dumps(told))
    (tmp_path / "model").mkdir()
    assert container.train(tmp_path) == 0
    assert "tuned in 2 trials" in bundle.load(tmp_path / "model").predictor.made_of
    assert (tmp_path / "checkpoints" / "tuning.json").is_file()


def test_training_goes_on_from_a_folder_and_packs_the_same_bundle(tmp_path: Path) -> None:
    data = made_people.tables(tmp_path / "data", 60)
    words = ("--model", "logistic", "--trials", 2, "--checkpoints", tmp_path / "kept", "--out", tmp_path / "before")
    done = firstspin("train", "--data", data, *words)
    assert done.returncode == 0, done.stderr
    told: list[str] = []
    learning = Learning(tune_trials=3)
    uncut, *_ = learn.train(data, tmp_path / "uncut", "logistic", learning=learning)
    learning = replace(learning, checkpoints=tmp_path / "kept")
    after, *_ = learn.train(
        data, tmp_path / "after", "logistic", learning=learning, progress=lambda step, _: told.append(step)
    )
    assert after.id == uncut.id
    assert [step.split(",")[1] for step in told if step.startswith("tuning")] == [" 3 tried"]
