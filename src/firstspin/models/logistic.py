"""Multinomial logistic regression on picks, their order, and demographics, trained on soft labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from firstspin.models.features import CATEGORY, HAT, MISSING, PICKED, RANK
from firstspin.models.popularity import log_popularity
from firstspin.models.predictor import Array, log_probabilities
from firstspin.models.scorers import Linear
from firstspin.models.task import Task

COLUMNS: Final = (HAT, MISSING, CATEGORY, PICKED, RANK)


@dataclass(frozen=True, slots=True)
class LogisticSettings:
    """`penalty`: L2 penalty. `soft_label_weight`: 0 trains on the top genre alone, 1 on the listening shares alone."""

    penalty: float = 4.0
    soft_label_weight: float = 0.5


def logistic(task: Task) -> Linear:
    """The linear scorer with minimal penalised cross entropy to the soft labels."""
    settings = task.chosen(LogisticSettings) or LogisticSettings()
    columns = task.encoder.of_kind(*COLUMNS)
    target = task.targets(settings.soft_label_weight)
    weights, bias = fit_weights(task.rows[:, columns], target, settings.penalty, log_popularity(task))
    return Linear(columns, weights, bias)


def fit_weights(values: Array, target: Array, penalty: float, start: Array) -> tuple[Array, Array]:
    """The weights (m, k) and bias (k,) that minimise `cross_entropy` of `values` (n, m), by L-BFGS from `start`."""
    from scipy.optimize import minimize

    first = np.concatenate([np.zeros(values.shape[1] * len(start)), start])
    solution = minimize(
        cross_entropy(values, target, penalty),
        first,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 300, "ftol": 1e-6},
    )
    return solution.x[: -len(start)].reshape(-1, len(start)).copy(), solution.x[-len(start) :].copy()


def cross_entropy(values: Array, target: Array, penalty: float) -> Callable[[Array], tuple[float, Array]]:
    """A function of the flat weights and bias: the loss and its gradient.

    The loss is the cross entropy of `values` (n, m) to `target` (n, k) plus penalty/2 x squared weights. The products
    use a sparse matrix, which adds in one fixed order, so the result does not depend on the threads.
    """
    from scipy.sparse import csr_array

    sparse = csr_array(values)
    across = csr_array(sparse.T)
    k = target.shape[1]

    def loss(flat: Array) -> tuple[float, Array]:
        weights, bias = flat[:-k].reshape(-1, k), flat[-k:]
        logs = log_probabilities(sparse @ weights + bias)
        excess = np.exp(logs) - target
        value = penalty / 2 * (weights * weights).sum() - (target * logs).sum()
        return float(value), np.concatenate([(across @ excess + penalty * weights).ravel(), excess.sum(axis=0)])

    return loss
