"""The models by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor, inf
from pathlib import Path
from typing import Final

from firstspin.installation.extras import need
from firstspin.models import ensemble, network, popularity
from firstspin.models.coded_rows import rows_of
from firstspin.models.features import fit_encoder, selected_questions
from firstspin.models.linear import logistic
from firstspin.models.predictor import RULE, Predictor, Scorer, in_words
from firstspin.models.scorers import Blend
from firstspin.models.search import tuning
from firstspin.models.task import Progress, Task, Tuned, silent
from firstspin.models.trees import boosting, forest
from firstspin.records import MAX_SEED, Examples, InputError

MODELS: Final[Mapping[str, Callable[[Task], Scorer]]] = {
    "auto": ensemble.auto,
    "popularity": popularity.popularity,
    "logistic": logistic.logistic,
    "forest": forest.forest,
    "network": network.network,
    "lightgbm": boosting.boosting,
    "age_gender": popularity.age_gender,
    "overall": popularity.overall,
    "single_pick": popularity.single_pick,
}

TUNABLE: Final = ("auto", *tuning.SPACES)

NAMES: Final = {"rule": RULE, "linear": "logistic", "trees": "lightgbm"}
"""The models of the scorers whose kind has another name."""


@dataclass(frozen=True, slots=True)
class Learning:
    """How models are trained: answers left out, the seed, and how long or how often settings are searched before.

    `tuned` are settings chosen before; without them and without a search, defaults are used. The folder `checkpoints`
    stores finished trials, so that an interrupted search resumes.

    Raises InputError for a seed or a search out of range.
    """

    without: tuple[str, ...] = ()
    seed: int = 0
    tune_minutes: float | None = None
    tune_trials: int | None = None
    tuned: tuple[Tuned, ...] = ()
    checkpoints: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"a seed is a whole number from 0 to {MAX_SEED}")
        if not (0 <= (self.tune_minutes or 0) < inf and (self.tune_trials or 0) >= 0):
            raise InputError("tuning takes a finite number of minutes, or of trials, none of them below 0")

    @property
    def tunes(self) -> bool:
        """Whether settings are searched before training."""
        return bool(self.tune_minutes or self.tune_trials)


def prepare(
    users: Examples,
    known_genres: Sequence[str],
    *,
    extra: Sequence[str] = (),
    learning: Learning = Learning(),
    progress: Progress = silent,
) -> Task:
    """The training task of these users: their registrations are encoded here, once for all models trained on them.

    Raises InputError where there are no users.
    """
    if not len(users):
        raise InputError("there is nobody to learn from: no user has a label")
    encoder = fit_encoder(users, known_genres=known_genres, extra=extra, without=learning.without)
    rows = rows_of(encoder, users.registrations)
    return Task(
        encoder, users.genres, rows, users.tops, users.shares, learning.seed, tuned=learning.tuned, progress=progress
    )


def fit(name: str, task: Task) -> Predictor:
    """The model of this name, trained on a task. Raises InputError for an unknown name."""
    check_name(name)
    scorer = task.once(name, MODELS[name])
    return Predictor(task.encoder, task.genres, scorer, name, _described(name, scorer, task))


def refit(like: Predictor, task: Task) -> Predictor:
    """The model of a predictor, trained on another task: an ensemble keeps its members and their weights."""
    scorer = _refit(like.scorer, task.sample(ensemble.MAX_USERS)) if like.name == "auto" else MODELS[like.name](task)
    made_of = _described(like.name, scorer, task)
    return replace(like, encoder=task.encoder, genres=task.genres, scorer=scorer, made_of=made_of)


def tune(name: str, task: Task, learning: Learning) -> tuple[Tuned, ...]:
    """The best settings of this model, or of each model of `auto`, by cross-validated log loss.

    Raises InputError for an unknown name, a model without settings, or where Optuna is not installed; OSError where
    the folder of checkpoints can't be written.
    """
    check_name(name)
    check_tunable(name)
    need("tune", "tuning")
    return tuning.tune(name, task, learning.tune_minutes, learning.tune_trials, learning.checkpoints)


def check_training(models: Sequence[str], extra: Sequence[str], without: Sequence[str], *, tuned: bool = False) -> None:
    """Check the names of models and questions, and the requirements of tuning.

    Raises InputError where there is no model, a model or a question does not exist, a model has no settings, or Optuna
    is missing.
    """
    if not models:
        raise InputError(f"at least one model is needed; there are {', '.join(MODELS)}")
    for model in models:
        check_name(model)
    selected_questions(extra, without)
    if tuned:
        need("tune", "tuning")
        for model in models:
            check_tunable(model)


def check_name(name: str) -> None:
    """Raises InputError where no model has this name."""
    if name not in MODELS:
        raise InputError(f"no model is called {name!r}; there are {', '.join(MODELS)}")


def check_tunable(name: str) -> None:
    """Raises InputError where a model has no settings to tune."""
    if name not in TUNABLE:
        raise InputError(f"{name} has no settings to tune; {', '.join(TUNABLE)} have")


def _refit(scorer: Scorer, task: Task) -> Scorer:
    if isinstance(scorer, Blend):
        target = scorer.soft_label_weight
        task = task if target is None else replace(task, soft_label_weight=target)
        return replace(scorer, members=tuple(_refit(member, task) for member in scorer.members))
    return MODELS[NAMES.get(scorer.kind, scorer.kind)](task)


def _described(name: str, scorer: Scorer, task: Task) -> str:
    """What a model trained on a task is made of: members and weights of `auto`, its sample, and tuned settings."""
    parts = [_made_of(scorer)] if name == "auto" else []
    if name == "auto" and len(task) > ensemble.MAX_USERS:
        parts.append(f"trained on {ensemble.MAX_USERS:,} random users of {len(task):,}")
    parts += [str(one) for one in task.tuned if name in ("auto", one.name)]
    return "; ".join(parts)


def _made_of(scorer: Scorer) -> str:
    if isinstance(scorer, Blend):
        parts = zip(_hundredths(scorer.weights), scorer.members, strict=True)
        return " + ".join(f"{part / 100:.2f} {_made_of(member)}" for part, member in parts)
    return in_words(NAMES.get(scorer.kind, scorer.kind))


def _hundredths(weights: Sequence[float]) -> list[int]:
    """The weights as whole hundredths of their sum, which add up to 100: rounded down, the largest remainders up.

    >>> _hundredths((0.13, 0.49, 0.56)), _hundredths((1.0, 1.0, 1.0))
    ([11, 42, 47], [34, 33, 33])
    """
    shares = [100 * weight / (sum(weights) or 1.0) for weight in weights]
    parts = [floor(share) for share in shares]
    for i in sorted(range(len(parts)), key=lambda i: parts[i] - shares[i])[: 100 - sum(parts)]:
        parts[i] += 1
    return parts
