"""Predictors x examples -> scorecard: how good a model is on people it has not seen, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from firstspin import metrics
from firstspin.models.predictor import Predictor, order, probabilities
from firstspin.records import Examples, InputError

Array = NDArray[np.float64]
Fit = Callable[[str, Examples], Predictor]
Progress = Callable[[str, float], None]

BASELINES = ("overall", "popularity")
"""What a model must beat: most popular overall, and the business rule."""

KEPT = 5
METRICS: Mapping[str, Callable[[Outcome], Array]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one model answered n people it had not seen.

    `position` (n,): where the true genre stood, from 0, or -1 if not ranked · `chance` (n,): what it was given ·
    `shown` (n, 5): the first five, as positions in `Examples.genres` · `first_chance` (n,): the chance of the first.
    """

    position: NDArray[np.int64]
    chance: Array
    shown: NDArray[np.int64]
    first_chance: Array


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Lift:
    """How much better than a baseline, as a difference and as a share of the baseline, paired by person."""

    difference: Figure
    relative: Figure


@dataclass(frozen=True, slots=True)
class Scorecard:
    """All figures of an evaluation, as the terminal shows and scorecard.json keeps them."""

    protocol: dict[str, object]
    people: int
    figures: dict[str, dict[str, Figure]]
    lifts: dict[str, dict[str, dict[str, Lift]]]

    def state(self) -> dict[str, object]:
        """As JSON keeps it."""
        return asdict(self)


METRICS = {
    "hit@1": lambda outcome: metrics.hit(outcome.position, 1),
    "hit@3": lambda outcome: metrics.hit(outcome.position, 3),
    "hit@5": lambda outcome: metrics.hit(outcome.position, 5),
    "ndcg@5": lambda outcome: metrics.ndcg(outcome.position, 5),
    "log_loss": lambda outcome: metrics.log_loss(outcome.chance),
}


# ---------------------------------------------------------------------------- who learns, who is asked


@dataclass(frozen=True, slots=True)
class Split:
    """Positions of those a model learns from and of those it is then asked about."""

    learn: NDArray[np.int64]
    ask: NDArray[np.int64]


def folds(people: int, k: int, seed: int) -> list[Split]:
    """Everyone is asked once, by a model that learned from the other k - 1 parts."""
    if not 2 <= k <= people:
        raise InputError(f"{k} folds of {people} labelled users can't be made: 2 to {people} can")
    shuffled = np.random.default_rng(seed).permutation(people)
    parts = [np.sort(shuffled[i::k]) for i in range(k)]
    return [Split(np.sort(np.concatenate(parts[:i] + parts[i + 1 :])), parts[i]) for i in range(k)]


def by_date(examples: Examples, at: datetime, label_days: int) -> Split:
    """Learn from those whose label was known at that moment, ask those who registered from then on.

    People between (registered before, label known only later) are left out: at that moment nobody knew their label.
    """
    moment = np.datetime64(at, "s")
    known = examples.registered_at + np.timedelta64(label_days, "D") <= moment
    split = Split(np.flatnonzero(known), np.flatnonzero(examples.registered_at >= moment))
    if not len(split.learn) or not len(split.ask):
        raise InputError(
            f"split at {at.isoformat()}: {len(split.learn)} users with a label known by then, {len(split.ask)} "
            f"registered later; registrations run from {examples.registered_at.min()} to {examples.registered_at.max()}"
        )
    return split


# ---------------------------------------------------------------------------------------- the outcomes


def outcomes(
    examples: Examples, splits: Sequence[Split], names: Sequence[str], fit: Fit, progress: Progress
) -> dict[str, Outcome]:
    """What each model answers those it is asked about, in the order of the splits."""
    parts: dict[str, list[Outcome]] = {name: [] for name in names}
    steps = len(splits) * len(names)
    for number, split in enumerate(splits):
        learn, ask = examples.take(split.learn), examples.take(split.ask)
        for i, name in enumerate(names):
            progress(f"{name}, part {number + 1} of {len(splits)}", (number * len(names) + i) / steps)
            parts[name].append(answer(fit(name, learn), ask))
    progress("done", 1.0)
    return {name: _joined(found) for name, found in parts.items()}


def answer(predictor: Predictor, ask: Examples) -> Outcome:
    """What a trained model answers these people."""
    found = [_answer(predictor, part) for part in _batches(ask)]
    return _joined(found)


def _batches(examples: Examples, size: int = 20_000) -> Iterator[Examples]:
    for start in range(0, len(examples), size):
        yield examples.take(np.arange(start, min(start + size, len(examples))))


def _answer(predictor: Predictor, ask: Examples) -> Outcome:
    scores = predictor.scores(ask.registrations)
    best = order(scores)
    chances = probabilities(scores)
    there = {genre: i for i, genre in enumerate(predictor.genres)}
    here = {genre: i for i, genre in enumerate(ask.genres)}
    truth = np.array([there.get(genre, -1) for genre in ask.genres])[ask.tops]
    rows = np.arange(len(ask))
    place = np.argsort(best, axis=1)  # where each column stands
    known = truth >= 0
    to_here = np.array([here.get(genre, -1) for genre in predictor.genres])
    shown = np.full((len(ask), KEPT), -1)
    shown[:, : best.shape[1]] = to_here[best[:, :KEPT]]
    return Outcome(
        position=np.where(known, place[rows, truth], -1),
        chance=np.where(known, chances[rows, truth], 0.0),
        shown=shown,
        first_chance=chances[rows, best[:, 0]],
    )


def _joined(parts: Sequence[Outcome]) -> Outcome:
    return Outcome(
        np.concatenate([part.position for part in parts]),
        np.concatenate([part.chance for part in parts]),
        np.concatenate([part.shown for part in parts]),
        np.concatenate([part.first_chance for part in parts]),
    )


# --------------------------------------------------------------------------------------- the scorecard


def score(
    found: Mapping[str, Outcome], protocol: dict[str, object], *, seed: int, baselines: Sequence[str] = BASELINES
) -> Scorecard:
    """Means with 95% percentile bootstrap intervals over people, and each model's lift over each baseline, paired."""
    columns = [(name, metric) for name in found for metric in METRICS]
    values = np.stack([METRICS[metric](found[name]) for name, metric in columns], axis=1)
    resampled = metrics.paired_bootstrap(values, _resamples(len(values)), np.random.default_rng(seed))
    means = dict(zip(columns, values.mean(axis=0), strict=True))
    drawn = dict(zip(columns, resampled.T, strict=True))

    def lift(name: str, baseline: str, metric: str) -> Lift:
        mean, other = means[name, metric], means[baseline, metric]
        draws, others = drawn[name, metric], drawn[baseline, metric]
        return Lift(_figure(mean - other, draws - others), _figure(_ratio(mean, other), _ratios(draws, others)))

    return Scorecard(
        protocol=protocol,
        people=len(values),
        figures={n: {m: _figure(means[n, m], drawn[n, m]) for m in METRICS} for n in found},
        lifts={n: {b: {m: lift(n, b, m) for m in METRICS} for b in baselines if b in found and b != n} for n in found},
    )


def _resamples(people: int) -> int:
    return 2000 if people <= 50_000 else 1000


def _figure(value: float, drawn: Array) -> Figure:
    return Figure(float(value), *metrics.interval(drawn))


def _ratio(mean: float, other: float) -> float:
    return float(mean / other - 1) if other else float("nan")


def _ratios(draws: Array, others: Array) -> Array:
    return np.divide(draws, others, out=np.full_like(draws, np.nan), where=others != 0) - 1
