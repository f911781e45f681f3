"""The training task: soft labels, folds and log loss."""

from __future__ import annotations

import numpy as np
import pytest
from predictor_contract import KNOWN, checkerboard

from firstspin.models import network
from firstspin.models.features import fit_encoder
from firstspin.models.task import Task, Tuned, folds, log_losses, mean_log_loss
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
