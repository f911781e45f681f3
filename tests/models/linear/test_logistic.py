from __future__ import annotations

import numpy as np
import pytest
from predictor_contract import KNOWN, PredictorContract, people
from scipy.optimize import check_grad

from firstspin.models.linear.logistic import cross_entropy, fit_weights
from firstspin.models.registry import fit, prepare
from firstspin.records import Registration


class TestLogistic(PredictorContract):
    name = "logistic"


def test_the_first_pick_can_weigh_more_than_the_second() -> None:
    both = [("Rock", "Jazz"), ("Jazz", "Rock")] * 30
    examples = people([Registration(genres=picks) for picks in both], [picks[0] for picks in both])
    model = fit("logistic", prepare(examples, KNOWN))
    assert model.rank(Registration(genres=("Rock", "Jazz"))).genres[0] == "Rock"
    assert model.rank(Registration(genres=("Jazz", "Rock"))).genres[0] == "Jazz"


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    rng = np.random.default_rng(3)
    values = rng.integers(0, 2, (20, 5)).astype(float)
    goal = rng.dirichlet(np.ones(3), 20)
    loss = cross_entropy(values, goal, rng.uniform(0.1, 3, (5, 3)), rng.normal(size=(2, 5, 3)))
    assert check_grad(lambda x: loss(x)[0], lambda x: loss(x)[1], rng.normal(size=20)) < 1e-4


def test_without_penalty_the_frequencies_of_each_group_come_back() -> None:
    values = np.array([[0.0], [0.0], [1.0], [1.0], [1.0], [1.0]])
    goal = np.eye(2)[[0, 1, 0, 1, 1, 1]]
    weights, bias = fit_weights(values, goal, np.full((1, 2), 1e-9), np.zeros(2))
    odds = (weights[0] + bias)[1] - (weights[0] + bias)[0]
    assert bias[1] - bias[0] == pytest.approx(0, abs=1e-4)
    assert odds == pytest.approx(np.log(3), abs=1e-3)
