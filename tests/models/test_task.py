"""The training task: soft labels, folds and log loss."""

from __future__ import annotations

from dataclasses import replace

import made_people
import numpy as np
import pytest
from predictor_contract import KNOWN, checkerboard

from firstspin.models import network, registry
from firstspin.models.features import fit_encoder
from firstspin.models.registry import Learning
from firstspin.models.task import Task, Tuned, folds, log_losses, mean_log_loss, stage
from firstspin.models.trees import forest


@pytest.fixture
def task() -> Task:
    examples = checkerboard(1)
    encoder = fit_encoder(examples, known_genres=KNOWN)
    return Task(encoder, examples.genres, encoder.matrix(examples.registrations), examples.tops, examples.shares)


def test_targets_lie_between_the_top_genre_alone_and_the_shares(task: Task) -> None:
    alone = np.eye(len(task.genres))[task.tops]
    assert np.array_equal(task.targets(0.0), alone)
    assert np.array_equal(task.targets(1.0), task.shares)
    assert task.targets(0.5) == pytest.approx((alone + task.shares) / 2)


def test_a_model_finds_the_settings_meant_for_it(task: Task) -> None:
    tuned = Task(
        *(getattr(task, name) for name in task.__slots__[:5]),
        tuned=(Tuned("forest", forest.ForestSettings(trees=3), 9),),
    )
    assert tuned.chosen(forest.ForestSettings) == forest.ForestSettings(trees=3)
    assert tuned.chosen(network.NetworkSettings) is None
    assert tuned.take(np.array([0])).chosen(forest.ForestSettings) == forest.ForestSettings(trees=3)


def test_every_user_is_held_out_once() -> None:
    parts = list(folds(11, 3, seed=5))
    assert sorted(np.concatenate([part for _, part in parts]).tolist()) == list(range(11))
    for rest, part in parts:
        assert sorted([*rest.tolist(), *part.tolist()]) == list(range(11))


def test_log_loss_is_minus_the_log_of_the_probability_of_the_true_genre() -> None:
    scores = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    assert log_losses(scores, np.array([0, 1])) == pytest.approx([-np.log(0.5), -np.log(0.1)])
    assert mean_log_loss(scores, np.array([0, 1])) == pytest.approx((-np.log(0.5) - np.log(0.1)) / 2)


def test_a_task_without_a_question_is_the_task_that_was_encoded_without_it() -> None:
    examples = made_people.examples(60)
    whole = registry.prepare(examples, made_people.GENRES)
    for left in (("age",), ("age", "gender"), ("genres",), ()):
        alone = registry.prepare(examples, made_people.GENRES, learning=Learning(without=left))
        assert whole.without(left).encoder.state() == alone.encoder.state()
        assert whole.without(left).rows.tobytes() == alone.rows.tobytes()


def test_a_model_is_trained_once_for_a_task_and_anew_for_a_changed_one() -> None:
    task = registry.prepare(made_people.examples(60), made_people.GENRES)
    trained: list[Task] = []

    def train(of: Task) -> int:
        trained.append(of)
        return len(trained)

    assert [task.once("a", train), task.once("a", train), task.once("b", train)] == [1, 1, 2]
    for changed in (task.take(np.arange(30)), task.without(("age",)), replace(task, seed=3)):
        assert changed.once("a", train) == len(trained)
    assert len(trained) == 5


def test_a_stage_is_a_part_of_the_progress() -> None:
    seen: list[tuple[str, float]] = []
    half = stage(lambda step, done: seen.append((step, done)), 0.5, 1.0)
    half("one", 0.0)
    half("two", 0.5)
    half("done", 1.0)
    assert seen == [("one", 0.5), ("two", 0.75), ("done", 1.0)]
