"""Multinomial logistic regression on what was picked, in which order, and who picked it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_array

from firstspin.features import CATEGORY, HAT, MISSING, PICKED, RANK
from firstspin.models.popularity import log_popularity
from firstspin.models.predictor import Array, log_probabilities
from firstspin.models.scorers import Linear
from firstspin.models.task import Task

COLUMNS: Final = (HAT, MISSING, CATEGORY, PICKED, RANK)


@dataclass(frozen=True, slots=True)
class Settings:
    """`penalty`: how strongly weights are pulled to zero. `softness`: 0 learns the top genre alone, 1 the shares."""

    penalty: float = 4.0
    softness: float = 0.5


def logistic(task: Task) -> Linear:
    """The weights under which people's top genres, and the shares of their listening, are most likely."""
    settings = task.chosen(Settings) or Settings()
    columns = task.encoder.of_kind(*COLUMNS)
    goal = task.targets(settings.softness)
    weights, bias = fit_weights(task.rows[:, columns], goal, settings.penalty, log_popularity(task))
    return Linear(columns, weights, bias)


def fit_weights(values: Array, goal: Array, penalty: float, start: Array) -> tuple[Array, Array]:
    """The weights (m, k) and bias (k,) with the least `cross_entropy`, from bias `start` on."""
    first = np.concatenate([np.zeros(values.shape[1] * len(start)), start])
    found = minimize(
        cross_entropy(values, goal, penalty), first, jac=True, method="L-BFGS-B", options={"maxiter": 300, "ftol": 1e-6}
    )
    return found.x[: -len(start)].reshape(-1, len(start)).copy(), found.x[-len(start) :].copy()


def cross_entropy(values: Array, goal: Array, penalty: float) -> Callable[[Array], tuple[float, Array]]:
    """Flat weights and bias -> cross entropy to `goal` (n, k) plus penalty/2 x sum of squared weights, and its slope.

    The products run on a sparse matrix, which adds in one fixed order: the same weights however many threads there are.
    """
    sparse = csr_array(values)
    across = csr_array(sparse.T)
    k = goal.shape[1]

    def loss(flat: Array) -> tuple[float, Array]:
        weights, bias = flat[:-k].reshape(-1, k), flat[-k:]
        logs = log_probabilities(sparse @ weights + bias)
        excess = np.exp(logs) - goal
        value = penalty / 2 * (weights * weights).sum() - (goal * logs).sum()
        return float(value), np.concatenate([(across @ excess + penalty * weights).ravel(), excess.sum(axis=0)])

    return loss
