"""Settings found by trying: Optuna proposes, people kept aside judge, and a hopeless trial ends early.

The models of a team take turns, so that one number of trials says what was done, and the same number does it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Any, Final

import numpy as np
import optuna
from scipy.optimize import minimize_scalar

from firstspin.models import auto, boosting, forest, logistic, network
from firstspin.models.predictor import Array, Scorer
from firstspin.models.task import Indexes, Task, Tuned, folds, log_loss
from firstspin.records import InputError

PARTS: Final = 3
MOST_PEOPLE: Final = 40_000
"""Settings are told apart on so many; of more, these are drawn."""


@dataclass(frozen=True, slots=True)
class Space:
    """How a model is trained, what it does untuned, and between which values each setting is sought."""

    train: Callable[[Task], Scorer]
    usual: Callable[[int], Any]
    ranges: Mapping[str, tuple[int, int] | tuple[float, float]]


SPACES: Final[Mapping[str, Space]] = {
    "logistic": Space(
        logistic.logistic,
        lambda _people: logistic.Settings(),
        {"penalty": (0.5, 200.0), "softness": (0.0, 1.0)},
    ),
    "forest": Space(
        forest.forest,
        forest.settings_for,
        {
            "num_leaves": (8, 64),
            "min_data_in_leaf": (3, 200),
            "columns_a_split": (0.1, 1.0),
            "softness": (0.0, 1.0),
        },
    ),
    "network": Space(
        network.network,
        lambda _people: network.Settings(),
        {
            "hidden": (16, 256),
            "epochs": (5, 80),
            "learning_rate": (0.001, 0.02),
            "penalty": (1.0, 200.0),
            "softness": (0.0, 1.0),
        },
    ),
    "lightgbm": Space(
        boosting.boosting,
        boosting.settings_for,
        {
            "num_leaves": (2, 31),
            "learning_rate": (0.03, 0.3),
            "min_data_in_leaf": (3, 200),
            "lambda_l2": (0.1, 100.0),
            "feature_fraction": (0.2, 1.0),
            "softness": (0.0, 1.0),
        },
    ),
}


def tune(name: str, task: Task, minutes: float | None, trials: int | None) -> tuple[Tuned, ...]:
    """The best settings found for this model, or for each of `auto`'s, the usual ones among those tried.

    It ends after so many `trials`, or before one that would end after so many `minutes`, judged by the longest so far;
    the first is always made. The same task and number of trials give the same settings, to the last bit; how many there
    are in a time is the machine's affair.

    :raises InputError: if the model has no settings
    """
    names = [one for one in (auto.TRAINERS if name == "auto" else [name]) if one in SPACES]
    if not names:
        raise InputError(f"{name} has nothing to tune; auto, {', '.join(SPACES)} have")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    few = task.take(np.sort(np.random.default_rng(task.seed).permutation(len(task))[:MOST_PEOPLE]))
    studies = {one: _study(SPACES[one], few) for one in names}
    budget, most = 60.0 * minutes if minutes else inf, trials or inf
    made, spent, longest = 0, 0.0, 0.0
    while made < most and (not made or spent + longest <= budget):
        for one, study in studies.items():
            study.optimize(_objective(SPACES[one], few), n_trials=1)
        took = sum(_seconds(study.trials[-1]) for study in studies.values())
        made, spent, longest = made + 1, spent + took, max(longest, took)
        losses = ", ".join(f"{one} {study.best_value:.4f}" for one, study in studies.items())
        task.progress(f"tuning, {made} tried, log loss {losses}", min(1.0, max(made / most, spent / budget)))
    return tuple(Tuned(one, _settings(SPACES[one], study.best_trial, few), made) for one, study in studies.items())


def best_loss(scores: Array, tops: Indexes) -> float:
    """The log loss of these scores when they are as bold as serves them best (a temperature; Guo et al., ICML 2017)."""
    found = minimize_scalar(lambda bold: log_loss(scores * np.exp(bold), tops), bounds=(-2.0, 2.0), method="bounded")
    return float(found.fun)


def _study(space: Space, task: Task) -> optuna.Study:
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=task.seed), pruner=optuna.pruners.MedianPruner()
    )
    usual = asdict(space.usual(len(task)))
    study.enqueue_trial({name: usual[name] for name in space.ranges})
    return study


def _objective(space: Space, task: Task) -> Callable[[optuna.Trial], float]:
    def loss(trial: optuna.Trial) -> float:
        tried = replace(task, tuned=(Tuned("", _settings(space, trial, task), 0),))
        losses: list[float] = []
        for rest, part in folds(len(task), PARTS, task.seed):
            scores = space.train(tried.take(rest)).scores(task.rows[part])
            losses.append(best_loss(scores, task.tops[part]))
            trial.report(float(np.mean(losses)), len(losses))
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(np.mean(losses))

    return loss


def _settings(space: Space, trial: optuna.Trial | optuna.trial.FrozenTrial, task: Task) -> object:
    """What a trial proposes, in few digits; a setting that is never zero is sought by its order of magnitude."""
    found: dict[str, int | float] = {}
    for name, (low, high) in space.ranges.items():
        if isinstance(low, int) and isinstance(high, int):
            found[name] = trial.suggest_int(name, low, high, log=True)
        else:
            found[name] = float(f"{trial.suggest_float(name, low, high, log=low > 0):.4g}")
    return replace(space.usual(len(task)), **found)


def _seconds(trial: optuna.trial.FrozenTrial) -> float:
    return trial.duration.total_seconds() if trial.duration else 0.0
