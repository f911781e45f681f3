"""Claim: of three forms of evidence from early listens, calibrated naive Bayes has the lowest log loss.

`python bench/evidence_forms.py forms DATA …` scores, on the same held-out users of five folds of `logistic`: naive
Bayes (`models/evidence/training.py`), the same without the factor of listens to picks, the Dirichlet posterior mean
log(strength * p + counts) with a fitted power, and LightGBM on the scores and the counts by genre, each fitted on the
other folds' users. `movielens IMPORTED OUT` and `plays DATA OUT` make tables with early listens of real ones: of
MovieLens the first 20 listens, of sets without the order of time a random half of the plays.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import duckdb
import lightgbm
import numpy as np
from scipy.optimize import minimize

from firstspin import learn
from firstspin.data.dataset import read_dataset
from firstspin.evaluation.cross_validation import stratified_folds
from firstspin.models import registry
from firstspin.models.evidence.training import PREFIXES, HeldOut, fit_settings, log_ratios, moved
from firstspin.models.predictor import Array, log_probabilities
from firstspin.models.registry import Learning
from firstspin.models.task import log_losses, mean_log_loss

NUMBERS = (1, 2, 5, 20)
FIRST_MONTH = "interval 30 day"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("forms", "movielens", "plays"))
    parser.add_argument("paths", type=Path, nargs="+")
    given = parser.parse_args()
    if given.what == "forms":
        for data in given.paths:
            compare(data)
        return
    data, out = given.paths
    out.mkdir(parents=True)
    for path in data.iterdir():
        if path.stem in ("registrations", "stations"):
            shutil.copy(path, out)
    [listens] = [path for path in data.iterdir() if path.stem == "listens"]
    early = "nth <= 20" if given.what == "movielens" else "hash(user_id || '/' || station_id) % 2 = 0"
    at = "started_at::TIMESTAMPTZ"
    columns = "user_id::VARCHAR AS user_id, station_id::VARCHAR AS station_id, seconds"
    nth = f"row_number() OVER (PARTITION BY user_id ORDER BY {at}, station_id) AS nth"
    moved_back = f"CASE WHEN {early} THEN moment - {FIRST_MONTH} ELSE moment END AS started_at"
    duckdb.sql(
        f"COPY (SELECT user_id, {moved_back}, station_id, seconds FROM (SELECT {columns}, {at} AS moment, {nth} "
        f"FROM '{listens}')) TO '{out / 'listens.parquet'}'"
    )


def compare(data: Path) -> None:
    """Print the mean log loss of each form by the number of listens."""
    dataset = read_dataset(data, early=True)
    users, k = dataset.examples, len(dataset.examples.genres)
    scores = np.zeros((len(users), k))
    fold = np.zeros(len(users), dtype=np.int64)
    for i, split in enumerate(stratified_folds(users.tops, 5, 0)):
        fitted = registry.fit("logistic", learn.prepare(dataset, Learning(), users.take(split.train)))
        scores[split.hold_out] = fitted.scores(users.take(split.hold_out).registrations)
        fold[split.hold_out] = i
    whole = HeldOut(scores, users.tops, dataset.early)
    losses = {name: np.zeros((len(NUMBERS), len(users))) for name in ("model", *FORMS)}
    for i in range(5):
        train, where = whole.take(np.flatnonzero(fold != i)), np.flatnonzero(fold == i)
        test = whole.take(where)
        fits = {name: fit(train) for name, fit in FORMS.items()}
        for at, number in enumerate(NUMBERS):
            known = HeldOut(test.scores, test.tops, test.early.first(number))
            losses["model"][at, where] = log_losses(test.scores, test.tops)
            for name, apply in fits.items():
                losses[name][at, where] = log_losses(apply(known), test.tops)
    listened = np.unique(dataset.early.users)
    print(f"\n{data.name}: log loss of {len(listened):,} users with early listens, after so many listens")
    print(f"{'':14}", *(f"{number:>7}" for number in NUMBERS))
    for name, of in losses.items():
        print(f"{name:14}", *(f"{value:7.3f}" for value in of[:, listened].mean(axis=1)))


def counts(users: HeldOut, saturation: float = 60.0) -> Array:
    n, k = users.scores.shape
    early = users.early
    saturated = 1.0 - np.exp(-early.seconds / saturation)
    return np.bincount(early.users * k + early.genres, saturated, n * k).reshape(n, k)


def of_any_number(users: HeldOut) -> HeldOut:
    lengths = np.random.default_rng(0).choice(PREFIXES, len(users.tops))
    return HeldOut(users.scores, users.tops, users.early.first(lengths))


def naive_bayes(train: HeldOut) -> Callable[[HeldOut], Array]:
    ratios = log_ratios(train.early, train.tops, train.scores.shape[1])
    settings = fit_settings(train, ratios, np.random.default_rng(0))
    return lambda users: moved(users.scores, users.early, ratios, settings)


def no_picks(train: HeldOut) -> Callable[[HeldOut], Array]:
    """Naive Bayes in which listens to picks count as others."""

    def blind(users: HeldOut) -> HeldOut:
        return replace(users, early=replace(users.early, picked=np.zeros_like(users.early.picked)))

    apply = naive_bayes(blind(train))
    return lambda users: apply(blind(users))


def dirichlet(train: HeldOut) -> Callable[[HeldOut], Array]:
    some = of_any_number(train)

    def apply(users: HeldOut, at: Array) -> Array:
        logs = np.maximum(log_probabilities(users.scores), np.log(1e-6))
        strength, power = np.exp(at[0]), at[1]
        return (1.0 - power) * logs + power * np.log(strength * np.exp(logs) + counts(users, np.exp(at[2])))

    fitted = minimize(
        lambda at: mean_log_loss(apply(some, at), some.tops),
        np.array([2.0, 0.5, 4.0]),
        bounds=[(-5, 10), (0, 1.5), (1, 9)],
    ).x
    return lambda users: apply(users, fitted)


def trees(train: HeldOut) -> Callable[[HeldOut], Array]:
    k = train.scores.shape[1]
    copies = [HeldOut(train.scores, train.tops, train.early.first(number)) for number in NUMBERS]
    rows = np.concatenate([np.hstack([one.scores, counts(one)]) for one in copies])
    base = np.concatenate([log_probabilities(one.scores) for one in copies])
    data = lightgbm.Dataset(rows, np.tile(train.tops, len(copies)), init_score=base)
    settings = {"objective": "multiclass", "num_class": k, "num_leaves": 4, "learning_rate": 0.05, "verbosity": -1}
    booster = lightgbm.train(settings | {"min_data_in_leaf": 40, "num_threads": 1, "seed": 0}, data, 25)

    def apply(users: HeldOut) -> Array:
        rows = np.hstack([users.scores, counts(users)])
        return log_probabilities(users.scores) + booster.predict(rows, raw_score=True)

    return apply


FORMS = {"naive Bayes": naive_bayes, "without picks": no_picks, "Dirichlet": dirichlet, "trees": trees}

if __name__ == "__main__":
    main()
