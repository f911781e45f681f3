"""The business rule and its plainer relatives: what anyone would do without a model."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.optimize import minimize_scalar

from firstspin.features import PICKED
from firstspin.models.predictor import Array
from firstspin.models.scorers import Indexes, Rule
from firstspin.models.task import Task, log_loss

PSEUDOCOUNT: Final = 0.5
MOST_LIFT: Final = 12.0


def popularity(task: Task) -> Rule:
    """The picks, ordered by overall popularity, then the most popular rest."""
    return _with_lift(Rule(log_popularity(task), pick_columns(task), 0.0), task)


def single_pick(task: Task) -> Rule:
    """The most popular of the picks, then the most popular rest."""
    return _with_lift(Rule(log_popularity(task), pick_columns(task), 0.0, only_one=True), task)


def overall(task: Task) -> Rule:
    """The most popular genres for everyone."""
    nothing = np.full(len(task.genres), -1, dtype=np.int64)
    return Rule(log_popularity(task), nothing, 0.0)


def log_popularity(task: Task) -> Array:
    """(k,) log of the share of people whose top genre it is; half a person more each, so that nothing is impossible."""
    counts = np.bincount(task.tops, minlength=len(task.genres)) + PSEUDOCOUNT
    logs: Array = np.log(counts / counts.sum())
    return logs


def pick_columns(task: Task) -> Indexes:
    """(k,) the column that tells whether a genre was picked, -1 where there is none."""
    where = {task.encoder.columns[i]: i for i in task.encoder.of_kind(PICKED)}
    return np.array([where.get(f"picked={genre}", -1) for genre in task.genres], dtype=np.int64)


def _with_lift(rule: Rule, task: Task) -> Rule:
    """The rule's order stays; its probabilities say how often picks come true."""

    def lifted(lift: float) -> Rule:
        return Rule(rule.log_popularity, rule.columns, lift, rule.only_one)

    best = minimize_scalar(
        lambda lift: log_loss(lifted(lift).scores(task.rows), task.tops), bounds=(0.0, MOST_LIFT), method="bounded"
    )
    return lifted(float(best.x))
