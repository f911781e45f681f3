"""The business rule and the other baselines: what a service does without a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from firstspin.data.schema import AGE, GENDER
from firstspin.models.coded_rows import AT_ONCE, parts
from firstspin.models.features import CATEGORY, NUMBER, PICKED
from firstspin.models.predictor import Array
from firstspin.models.scorers import Cells, Indexes, RuleScorer
from firstspin.models.task import Task, mean_log_loss
from firstspin.records import AGE_EDGES

PSEUDOCOUNT: Final = 0.5
MAX_LIFT: Final = 12.0
CELL_STRENGTH: Final = 20.0


def popularity(task: Task) -> RuleScorer:
    """The business rule: the picks by overall popularity, then the most popular rest."""
    return _with_lift(RuleScorer(log_popularity(task), pick_columns(task), 0.0), task)


def single_pick(task: Task) -> RuleScorer:
    """The most popular of the picks, then the most popular rest."""
    return _with_lift(RuleScorer(log_popularity(task), pick_columns(task), 0.0, only_one=True), task)


def overall(task: Task) -> RuleScorer:
    """The most popular genres for everyone."""
    nothing = np.full(len(task.genres), -1, dtype=np.int64)
    return RuleScorer(log_popularity(task), nothing, 0.0)


def age_gender(task: Task) -> Cells:
    """Popularity within age band and gender, shrunk towards overall popularity in small cells."""
    questions = task.encoder.questions
    age = [i for i in task.encoder.of_kind(NUMBER) if questions[i] == AGE]
    genders = np.array([i for i in task.encoder.of_kind(CATEGORY) if questions[i] == GENDER], dtype=np.int64)
    edges = np.array(AGE_EDGES, dtype=np.float64)
    k = len(task.genres)
    cells = Cells(age[0] if age else -1, edges, genders, np.zeros((len(edges) + 2, len(genders) + 1, k)))
    counts = np.zeros(cells.table.shape)
    for part in parts(len(task)):
        np.add.at(counts, (*cells.places(task.rows[part]), task.tops[part]), 1.0)
    shrunk = counts + CELL_STRENGTH * np.exp(log_popularity(task))
    return replace(cells, table=np.log(shrunk / shrunk.sum(axis=2, keepdims=True)))


def log_popularity(task: Task) -> Array:
    """(k,) log of the share of users with each top genre, with a pseudocount of 0.5."""
    counts = np.bincount(task.tops, minlength=len(task.genres)) + PSEUDOCOUNT
    logs: Array = np.log(counts / counts.sum())
    return logs


def pick_columns(task: Task) -> Indexes:
    """(k,) the column that is 1 where a genre was picked, -1 where there is none."""
    where = {task.encoder.columns[i]: i for i in task.encoder.of_kind(PICKED)}
    return np.array([where.get(f"picked={genre}", -1) for genre in task.genres], dtype=np.int64)


def _with_lift(rule: RuleScorer, task: Task) -> RuleScorer:
    """The rule with its pick lift calibrated: the order stays, the probabilities minimise log loss."""
    from scipy.optimize import minimize_scalar

    def lifted(lift: float) -> RuleScorer:
        return RuleScorer(rule.log_popularity, rule.columns, lift, rule.only_one)

    some = task.sample(AT_ONCE)
    best = minimize_scalar(
        lambda lift: mean_log_loss(lifted(lift).scores(some.rows[:]), some.tops),
        bounds=(0.0, MAX_LIFT),
        method="bounded",
    )
    return lifted(float(best.x))
