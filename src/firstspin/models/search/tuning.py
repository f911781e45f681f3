"""Hyperparameter search: Optuna's TPE sampler with median pruning, scored by cross-validated log loss.

The models of an ensemble are tuned in turn, so that the number of trials alone determines the result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from firstspin.models import ensemble, network
from firstspin.models.linear import logistic
from firstspin.models.predictor import Scorer
from firstspin.models.search import checkpoint
from firstspin.models.task import Task, Tuned, best_loss, folds
from firstspin.models.trees import boosting, forest
from firstspin.records import InputError

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

FOLDS: Final = 3
MAX_USERS: Final = 40_000
"""Trials run on a random sample of at most this many users."""


@dataclass(frozen=True, slots=True)
class Space:
    """A search space: the training function, the default settings for n users, and each setting's range."""

    train: Callable[[Task], Scorer]
    usual: Callable[[int], Any]
    ranges: Mapping[str, tuple[int, int] | tuple[float, float]]


SPACES: Final[Mapping[str, Space]] = {
    "logistic": Space(
        logistic.logistic,
        lambda _people: logistic.LogisticSettings(),
        {"penalty": (0.5, 200.0), "soft_label_weight": (0.0, 1.0)},
    ),
    "forest": Space(
        forest.forest,
        forest.settings_for,
        {
            "num_leaves": (8, 64),
            "min_data_in_leaf": (3, 200),
            "columns_a_split": (0.1, 1.0),
            "soft_label_weight": (0.0, 1.0),
        },
    ),
    "network": Space(
        network.network,
        lambda _people: network.NetworkSettings(),
        {
            "hidden": (16, 256),
            "epochs": (5, 80),
            "learning_rate": (0.001, 0.02),
            "penalty": (1.0, 200.0),
            "soft_label_weight": (0.0, 1.0),
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
            "soft_label_weight": (0.0, 1.0),
        },
    ),
}


def tune(
    name: str, task: Task, minutes: float | None, trials: int | None, checkpoints: Path | None = None
) -> tuple[Tuned, ...]:
    """The best settings of this model, or of each model of `auto`. The first trial has the default settings.

    The search ends after `trials` trials, or before a trial that would exceed `minutes`, as estimated by the slowest so
    far. The same task and number of trials give the same settings, to the last bit; how many trials fit in a time
    depends on the machine. With the folder `checkpoints` an interrupted run resumes: it gives the result of an
    uninterrupted run, and the minutes that it has used count.

    Raises InputError where the model has no settings, OSError where the folder can't be written to.
    """
    import optuna

    names = [one for one in (ensemble.TRAINERS if name == "auto" else [name]) if one in SPACES]
    if not names:
        raise InputError(f"{name} has no settings to tune; auto, {', '.join(SPACES)} have")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sample = task.sample(MAX_USERS)
    fingerprint = _fingerprint(names, sample)
    studies = _studies(names, sample, trials or None, checkpoints, fingerprint)
    budget, max_trials = 60.0 * minutes if minutes else inf, trials or inf
    rounds = _rounds(studies)
    while (finished := len(rounds)) < max_trials and (not finished or sum(rounds) + max(rounds) <= budget):
        for one, study in studies.items():
            if len(_trials(study)) > finished:  # the run was interrupted within this round, after this model's trial
                continue
            _try(study, SPACES[one], sample)
            if checkpoints:
                checkpoint.save(checkpoints, fingerprint, {each: _trials(studies[each]) for each in names})
        rounds = _rounds(studies)
        losses = ", ".join(f"{one} {study.best_value:.4f}" for one, study in studies.items())
        done = min(1.0, max(len(rounds) / max_trials, sum(rounds) / budget))
        task.progress(f"tuning, {len(rounds)} tried, log loss {losses}", done)
    users = min(len(task), ensemble.MAX_USERS) if name == "auto" else len(task)
    return tuple(Tuned(one, _best(SPACES[one], study, len(sample), users), finished) for one, study in studies.items())


def _studies(
    names: Sequence[str], task: Task, max_trials: int | None, checkpoints: Path | None, fingerprint: str
) -> dict[str, optuna.Study]:
    """A study per model, with its earlier trials; trials of another task are ignored."""
    import optuna

    studies = {one: optuna.create_study(pruner=optuna.pruners.MedianPruner()) for one in names}
    if not checkpoints:
        return studies
    try:
        earlier = checkpoint.load(checkpoints, fingerprint, {one: _distributions(SPACES[one]) for one in names})
    except (OSError, ValueError):
        task.progress(f"tuning, starting anew: the trials in {checkpoints} are of another task or unreadable", 0.0)
        return studies
    for one, study in studies.items():
        study.add_trials(earlier[one][:max_trials])  # N trials give the same result, whatever was tried beyond them
    return studies


def _fingerprint(names: Sequence[str], task: Task) -> str:
    """SHA-256 of the task, the seed, the models and their ranges; it reveals nothing about a user."""
    spaces = [(one, SPACES[one].usual(len(task)), SPACES[one].ranges) for one in names]
    digest = hashlib.sha256(repr((task.seed, task.encoder.columns, task.genres, spaces)).encode())
    for figures in (task.rows[:], task.tops, task.shares):
        digest.update(figures.tobytes())
    return digest.hexdigest()


def _try(study: optuna.Study, space: Space, task: Task) -> None:
    """One more trial: a function of the task and the earlier trials alone. The first has the default settings."""
    import optuna

    number = len(_trials(study))
    # a new sampler per trial: the random state of a lasting one would be lost with an interrupted run
    seed = int(np.random.default_rng((task.seed, number)).integers(2**32))
    study.sampler = optuna.samplers.TPESampler(seed=seed)
    if not number:
        usual = asdict(space.usual(len(task))) | {"soft_label_weight": task.soft_label_weight}
        study.enqueue_trial({name: usual[name] for name in space.ranges})
    trial = study.ask(_distributions(space))
    tried = replace(task, tuned=(Tuned("", _settings(space, trial.params, len(task)), 0),))
    losses: list[float] = []
    for rest, part in folds(len(task), FOLDS, task.seed):
        scores = space.train(tried.take(rest)).scores(task.rows[part])
        losses.append(best_loss(scores, task.tops[part]))
        trial.report(float(np.mean(losses)), len(losses))
        if trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return
    study.tell(trial, float(np.mean(losses)))


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    return {name: _distribution(low, high) for name, (low, high) in space.ranges.items()}


def _distribution(low: float, high: float) -> BaseDistribution:
    """The distribution of a setting: log-uniform where the range excludes zero."""
    import optuna

    if isinstance(low, int):
        return optuna.distributions.IntDistribution(low, high, log=True)
    return optuna.distributions.FloatDistribution(low, high, log=low > 0)


def _settings(space: Space, params: Mapping[str, int | float], people: int) -> object:
    """The settings of a trial, rounded to four digits."""
    rounded = {name: value if isinstance(value, int) else float(f"{value:.4g}") for name, value in params.items()}
    return replace(space.usual(people), **rounded)


def _best(space: Space, study: optuna.Study, tried: int, users: int) -> object:
    """The settings of the best trial, on `tried` users; where it has the defaults, those for all `users` instead."""
    if study.best_trial.number:
        return _settings(space, study.best_params, tried)
    return _settings(space, {"soft_label_weight": study.best_params["soft_label_weight"]}, users)


def _trials(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False)  # type: ignore[no-any-return]


def _rounds(studies: Mapping[str, optuna.Study]) -> list[float]:
    """Seconds of each round in which every model had its trial."""
    return [sum(map(checkpoint.seconds, turns)) for turns in zip(*map(_trials, studies.values()), strict=False)]
