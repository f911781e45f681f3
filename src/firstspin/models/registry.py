"""The models by name. Training is heavy and serving is light, so a model's code is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Final

from firstspin.features import fit_encoder
from firstspin.models.predictor import Predictor, Scorer
from firstspin.models.task import Progress, Task, silent
from firstspin.records import Examples, InputError

MODELS: Final[dict[str, str]] = {
    "auto": "firstspin.models.auto:auto",
    "popularity": "firstspin.models.popularity:popularity",
    "logistic": "firstspin.models.logistic:logistic",
    "forest": "firstspin.models.forest:forest",
    "network": "firstspin.models.network:network",
    "lightgbm": "firstspin.models.boosting:boosting",
    "age_gender": "firstspin.models.popularity:age_gender",
    "overall": "firstspin.models.popularity:overall",
    "single_pick": "firstspin.models.popularity:single_pick",
}


def fit(
    name: str,
    examples: Examples,
    *,
    known_genres: Sequence[str],
    extra: Sequence[str] = (),
    without: Sequence[str] = (),
    seed: int = 0,
    progress: Progress = silent,
) -> Predictor:
    """The model of this name, trained on these people.

    :raises InputError: if there is no such model, or nobody to learn from
    """
    if name not in MODELS:
        raise InputError(f"no model is called {name!r}; there are {', '.join(MODELS)}")
    if not len(examples):
        raise InputError("there is nobody to learn from: no user has a label")
    encoder = fit_encoder(examples, known_genres=known_genres, extra=extra, without=without)
    rows = encoder.matrix(examples.registrations)
    task = Task(encoder, examples.genres, rows, examples.tops, examples.shares, seed, progress=progress)
    return Predictor(encoder, examples.genres, train(name, task), name)


def train(name: str, task: Task) -> Scorer:
    """The scorer of the model of this name."""
    module, function = MODELS[name].split(":")
    return getattr(import_module(module), function)(task)  # type: ignore[no-any-return]
