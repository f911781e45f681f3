"""Multinomial logistic regression on picks, their order, and demographics, trained on soft labels.

The weights are a deviation plus a combination of `templates`, whose few coefficients all users learn together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from firstspin.data.schema import GENRES
from firstspin.models.coded_rows import AT_ONCE, parts
from firstspin.models.features import CATEGORY, HAT, MISSING, PICKED, RANK
from firstspin.models.linear.templates import own_cells, templates
from firstspin.models.popularity import log_popularity
from firstspin.models.predictor import Array, log_probabilities
from firstspin.models.scorers import Linear
from firstspin.models.task import Indexes, Task

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    Values: TypeAlias = Array | csr_matrix

COLUMNS: Final = (HAT, MISSING, CATEGORY, PICKED, RANK)
OTHERS: Final = 4.0
"""The penalty of a pick's weights for other genres, and of the number of picks, in penalties of an own pick."""
SHARED_PENALTY: Final = 0.5
BLOCK: Final = 2**14
"""Users that are added up at a time where they are many."""


@dataclass(frozen=True, slots=True)
class LogisticSettings:
    """`penalty`: L2 penalty of the deviations. `soft_label_weight`: that of the soft labels; None is the task's own."""

    penalty: float = 4.0
    soft_label_weight: float | None = None


def logistic(task: Task) -> Linear:
    """The linear scorer with minimal penalised cross entropy to the soft labels."""
    settings = task.chosen(LogisticSettings) or LogisticSettings()
    columns = task.encoder.of_kind(*COLUMNS)
    target = task.targets(settings.soft_label_weight)
    penalties = settings.penalty * _relative_penalties(task, columns)
    weights, bias = fit_weights(task.sparse(columns), target, penalties, log_popularity(task), templates(task, columns))
    return Linear(columns, weights, bias)


def _relative_penalties(task: Task, columns: Indexes) -> Array:
    """(m, k) penalty of each deviation, in penalties of demographics and own picks."""
    of_picks = np.array([task.encoder.questions[column] == GENRES for column in columns], dtype=np.bool_)
    own = own_cells(task, columns, PICKED, "picked") + own_cells(task, columns, RANK, "rank")
    penalties: Array = np.where(of_picks[:, None] & (own == 0), OTHERS, 1.0)
    return penalties


def fit_weights(
    values: Values, target: Array, penalties: Array, start: Array, shared: Array | None = None
) -> tuple[Array, Array]:
    """The weights (m, k) and bias (k,) that minimise `cross_entropy` of `values` (n, m), by L-BFGS from `start`."""
    from scipy.optimize import minimize

    m, k = values.shape[1], len(start)
    shared = np.zeros((0, m, k)) if shared is None else shared
    first = np.concatenate([np.zeros(m * k + len(shared)), start])
    solution = minimize(
        cross_entropy(values, target, penalties, shared),
        first,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 300, "ftol": 1e-6},
    )
    deviation, coefficients, bias = np.split(solution.x, [m * k, m * k + len(shared)])
    return deviation.reshape(m, k) + np.tensordot(coefficients, shared, 1), bias.copy()


def cross_entropy(
    values: Values, target: Array, penalties: Array, shared: Array
) -> Callable[[Array], tuple[float, Array]]:
    """A function of the flat deviation, template coefficients and bias: the loss and its gradient.

    The loss is the cross entropy of `values` (n, m) to `target` (n, k) plus half of the squared deviations (m, k) times
    their `penalties`, plus SHARED_PENALTY/2 x squared coefficients of the templates `shared` (t, m, k). The products
    use a sparse matrix, which adds in one fixed order, so the result does not depend on the threads. Many users are
    added up in blocks that stay in the cache.
    """
    from scipy.sparse import csr_array

    sparse = csr_array(values)
    n, m, k = len(target), sparse.shape[1], target.shape[1]
    blocks = [
        (sparse[part], csr_array(sparse[part].T), target[part]) for part in parts(n, n if n <= AT_ONCE else BLOCK)
    ]
    patterns = shared.reshape(len(shared), m * k)

    def loss(flat: Array) -> tuple[float, Array]:
        deviation, coefficients, bias = np.split(flat, [m * k, m * k + len(shared)])
        weights = (deviation + coefficients @ patterns).reshape(m, k)
        charged = penalties.ravel() * deviation
        value = (charged @ deviation + SHARED_PENALTY * coefficients @ coefficients) / 2
        gradients = []
        for rows, across, goal in blocks:
            logs = log_probabilities(rows @ weights + bias)
            excess = np.exp(logs) - goal
            value -= (goal * logs).sum()
            gradients.append((np.asarray(across @ excess).ravel(), excess.sum(axis=0)))
        back, of_bias = (reduce(np.add, part) for part in zip(*gradients, strict=True))
        of_shared = patterns @ back + SHARED_PENALTY * coefficients
        return float(value), np.concatenate([back + charged, of_shared, of_bias])

    return loss
