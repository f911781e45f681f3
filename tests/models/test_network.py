"""The feed-forward network: correct gradients, and interactions that a linear model can't learn."""

from __future__ import annotations

import numpy as np
import pytest
from predictor_contract import KNOWN, PredictorContract, people

from firstspin.models.network import Adam, first_layers, gradients
from firstspin.models.registry import fit, prepare
from firstspin.models.scorers import Network
from firstspin.records import Registration


class TestNetwork(PredictorContract):
    name = "network"


def test_the_gradients_are_those_of_the_loss() -> None:
    rng = np.random.default_rng(3)
    values = rng.integers(0, 2, (20, 5)).astype(np.float64)
    goal = rng.dirichlet(np.ones(3), 20)
    layers = [layer + rng.normal(size=layer.shape) for layer in first_layers(5, 4, np.zeros(3), rng)]
    found = gradients(layers, values, goal, 0.7)  # type: ignore[arg-type]
    for number, layer in enumerate(layers):
        for place in np.ndindex(layer.shape):
            around = []
            for step in (1e-5, -1e-5):
                moved = [each.copy() for each in layers]
                moved[number][place] += step
                around.append(_loss(moved, values, goal, 0.7))
            assert found[number][place] == pytest.approx((around[0] - around[1]) / 2e-5, abs=1e-5)


def _loss(layers: list[np.ndarray], values: np.ndarray, goal: np.ndarray, decay: float) -> float:
    """The loss by the definition, with the scores of the scorer that answers."""
    scores = Network(np.arange(values.shape[1]), *layers).scores(values)
    logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return float(-(goal * logs).sum() / len(values) + decay / 2 * ((layers[0] ** 2).sum() + (layers[2] ** 2).sum()))


def test_adam_first_steps_by_the_length_whatever_the_slope() -> None:
    layer = np.array([1.0, 1.0], np.float32)
    Adam([layer]).step([np.array([1e-3, -50.0], np.float32)], 0.1)
    assert layer == pytest.approx([0.9, 1.1], abs=1e-4)


def test_two_picks_can_mean_what_neither_means_alone() -> None:
    """Exclusive or: Jazz or Pop alone is played as picked, both together or nothing mean Talk or Rock."""
    picks = [("Jazz",), ("Pop",), ("Jazz", "Pop"), ()] * 60
    tops = ["Folk", "Folk", "Rock", "Rock"] * 60
    examples = people([Registration(genres=genres) for genres in picks], tops)
    model = fit("network", prepare(examples, KNOWN))
    for genres, top in zip(picks[:4], tops[:4], strict=True):
        assert model.rank(Registration(genres=genres)).genres[0] == top
