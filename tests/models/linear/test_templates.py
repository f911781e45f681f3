"""Templates of shared weights: the right values of small cases, and what a few users learn with them."""

from __future__ import annotations

from dataclasses import replace

import made_people
import numpy as np
import pytest

from firstspin.models.linear.logistic import COLUMNS, logistic
from firstspin.models.linear.templates import log_lift, templates
from firstspin.models.registry import prepare
from firstspin.models.task import Task, mean_log_loss


def test_the_log_lift_is_that_of_observed_over_expected_pairs() -> None:
    """Four users, genres a, b, c: a and b are picked together twice, a and c once; b and c never.

    Expected: 3 x 2 / 4, 3 x 1 / 4 and 2 x 1 / 4 pairs, in all 2 x 2.75, of which 2 x 3 were observed.
    """
    picks = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 1], [0, 0, 0]], dtype=float)
    lift = log_lift([(picks, picks)], np.eye(3, dtype=bool))
    scale = 3 / 2.75
    assert lift[0, 1] == lift[1, 0] == pytest.approx(np.log((2 + 5) / (1.5 * scale + 5)))
    assert lift[0, 2] == pytest.approx(np.log((1 + 5) / (0.75 * scale + 5)))
    assert lift[1, 2] == pytest.approx(np.log((0 + 5) / (0.5 * scale + 5)))
    assert (np.diag(lift) == 0).all()


def test_without_any_pick_no_pair_is_lifted() -> None:
    nothing = np.zeros((3, 2))
    assert (log_lift([(nothing, nothing)], np.eye(2, dtype=bool)) == 0).all()


@pytest.fixture(scope="module")
def task() -> Task:
    return prepare(made_people.examples(400), made_people.GENRES)


def test_a_template_has_a_weight_for_the_own_pick_alone(task: Task) -> None:
    columns = task.encoder.of_kind(*COLUMNS)
    own, by_popularity, *lifts = templates(task, columns)
    for j, genre in enumerate(task.genres):
        [i] = np.flatnonzero(own[:, j])
        assert task.encoder.columns[columns[i]] == f"picked={genre}"
        for lift in lifts[: len(lifts) // 2]:
            assert lift[i, j] == 0
    assert ((by_popularity != 0) <= (own != 0)).all()
    assert by_popularity.sum() == pytest.approx(0, abs=1e-9)


def test_listening_to_one_genre_each_has_no_template(task: Task) -> None:
    columns = task.encoder.of_kind(*COLUMNS)
    one_hot = replace(task, shares=np.eye(len(task.genres))[task.tops])
    assert len(templates(task, columns)) == 8
    assert len(templates(one_hot, columns)) == 6


def test_from_a_hundred_users_shared_weights_learn_more_than_single_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = made_people.examples(100), made_people.examples(3000, seed=1)
    task = prepare(few, made_people.GENRES)
    rows = task.encoder.matrix(many.registrations)
    shared = mean_log_loss(logistic(task).scores(rows), many.tops)
    monkeypatch.setattr(
        "firstspin.models.linear.logistic.templates", lambda task, columns: templates(task, columns)[:0]
    )
    assert shared < mean_log_loss(logistic(task).scores(rows), many.tops) - 0.05
