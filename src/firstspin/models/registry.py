"""The models by name. Training is heavy and serving is light, so a model's code is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Final

from firstspin.extras import need
from firstspin.models.features import fit_encoder
from firstspin.models.predictor import Predictor, Scorer
from firstspin.models.scorers import Blend
from firstspin.models.task import Progress, Task, Tuned, silent
from firstspin.records import Examples, InputError

MODELS: Final[dict[str, str]] = {
    "auto": "firstspin.models.ensemble:auto",
    "popularity": "firstspin.models.popularity:popularity",
    "logistic": "firstspin.models.logistic:logistic",
    "forest": "firstspin.models.trees.forest:forest",
    "network": "firstspin.models.network:network",
    "lightgbm": "firstspin.models.trees.boosting:boosting",
    "age_gender": "firstspin.models.popularity:age_gender",
    "overall": "firstspin.models.popularity:overall",
    "single_pick": "firstspin.models.popularity:single_pick",
}

TUNABLE: Final = ("auto", "logistic", "forest", "network", "lightgbm")

NAMES: Final = {"rule": "popularity", "linear": "logistic", "trees": "lightgbm"}
"""What the members of `auto`'s team are called whose scorers have a name of their own."""


def fit(
    name: str,
    examples: Examples,
    *,
    known_genres: Sequence[str],
    extra: Sequence[str] = (),
    without: Sequence[str] = (),
    seed: int = 0,
    tuned: tuple[Tuned, ...] = (),
    progress: Progress = silent,
) -> Predictor:
    """The model of this name, trained on these people, with the settings that tuning chose if it did.

    :raises InputError: if there is no such model, or nobody to learn from
    """
    task = replace(_task(name, examples, known_genres, extra, without), seed=seed, tuned=tuned, progress=progress)
    scorer = train(name, task)
    told = [_made_of(scorer)] if name == "auto" else []
    told += [str(one) for one in tuned if name in ("auto", one.name)]
    return Predictor(task.encoder, task.genres, scorer, name, "; ".join(told))


def tune(
    name: str,
    examples: Examples,
    *,
    known_genres: Sequence[str],
    minutes: float | None = None,
    trials: int | None = None,
    checkpoints: Path | None = None,
    extra: Sequence[str] = (),
    without: Sequence[str] = (),
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[Tuned, ...]:
    """The settings with which the model of this name, or each of `auto`'s, does best on people kept aside.

    The folder `checkpoints` keeps what was tried, and a run that was cut off goes on from there.

    :raises InputError: if there is no such model, it has no settings, nobody to learn from, or Optuna is not installed
    :raises OSError: if the folder can't be written to
    """
    task = replace(_task(name, examples, known_genres, extra, without), seed=seed, progress=progress)
    need("tune", "tuning")
    tuning = import_module("firstspin.models.tuning")
    return tuning.tune(name, task, minutes, trials, checkpoints)  # type: ignore[no-any-return]


def check_name(name: str) -> None:
    """Raises InputError where no model has this name."""
    if name not in MODELS:
        raise InputError(f"no model is called {name!r}; there are {', '.join(MODELS)}")


def check_tunable(name: str) -> None:
    """Raises InputError where a model has no settings to tune."""
    if name not in TUNABLE:
        raise InputError(f"{name} has no settings to tune; {', '.join(TUNABLE)} have")


def train(name: str, task: Task) -> Scorer:
    """The scorer of the model of this name."""
    module, function = MODELS[name].split(":")
    return getattr(import_module(module), function)(task)  # type: ignore[no-any-return]


def _task(
    name: str, examples: Examples, known_genres: Sequence[str], extra: Sequence[str], without: Sequence[str]
) -> Task:
    check_name(name)
    if not len(examples):
        raise InputError("there is nobody to learn from: no user has a label")
    encoder = fit_encoder(examples, known_genres=known_genres, extra=extra, without=without)
    rows = encoder.matrix(examples.registrations)
    return Task(encoder, examples.genres, rows, examples.tops, examples.shares)


def _made_of(scorer: Scorer) -> str:
    if isinstance(scorer, Blend):
        parts = zip(scorer.weights, scorer.members, strict=True)
        return " + ".join(f"{weight:.2f} {_made_of(member)}" for weight, member in parts)
    return NAMES.get(scorer.kind, scorer.kind)
