"""Cross-validation: what each model answers held-out users."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from firstspin.models.predictor import Predictor, order, probabilities
from firstspin.records import Examples, InputError

Array = NDArray[np.float64]
Fit = Callable[[str, Examples], Predictor]
Progress = Callable[[str, float], None]

MAX_SHOWN = 5
AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class HoldOutAnswers:
    """One model's answers for n held-out users.

    `position` (n,): rank of the true genre from 0, or -1 if not ranked · `chance` (n,): its probability ·
    `shown` (n, 5): the first five, as positions in `Examples.genres` · `first_chance` (n,): probability of the first.
    """

    position: NDArray[np.int64]
    chance: Array
    shown: NDArray[np.int64]
    first_chance: Array


# ------------------------------------------------------------------------------------------ the splits


@dataclass(frozen=True, slots=True)
class Split:
    """Positions of the training users (`learn`) and of the hold-out (`ask`)."""

    learn: NDArray[np.int64]
    ask: NDArray[np.int64]


def folds(tops: NDArray[np.int64], k: int, seed: int) -> list[Split]:
    """Folds for k-fold cross-validation, stratified by top genre: every user is held out once.

    `tops` (n,): top genres. Stratified folds keep the figures independent of where the rare genres fall.

    Raises InputError for a k that is not from 2 to n.
    """
    people = len(tops)
    if not 2 <= k <= people:
        raise InputError(f"{k} folds of {people} labelled users can't be made: 2 to {people} can")
    dealt = np.lexsort((np.random.default_rng(seed).random(people), tops))
    parts = [np.sort(dealt[i::k]) for i in range(k)]
    return [Split(np.sort(np.concatenate(parts[:i] + parts[i + 1 :])), parts[i]) for i in range(k)]


def by_date(examples: Examples, at: datetime, label_days: int) -> Split:
    """Train on users whose label was known at `at`, hold out the users who registered from then on.

    Users in between (registered before, label known only later) are left out: at that moment their label was unknown.

    Raises InputError where either side is empty.
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


def held_out(examples: Examples, splits: Sequence[Split]) -> Examples:
    """The held-out users, in the order of `outcomes`."""
    return examples.take(np.concatenate([split.ask for split in splits]))


# ----------------------------------------------------------------------------------------- the answers


def outcomes(
    examples: Examples,
    splits: Sequence[Split],
    names: Sequence[str],
    fit: Fit,
    progress: Progress,
    at_once: int = AT_ONCE,
) -> dict[str, HoldOutAnswers]:
    """Every model's answers for the held-out users, in the order of the splits.

    `at_once` models are trained in parallel, in threads: numpy, SciPy and LightGBM release the interpreter lock. Each
    training has a seed of its own, so the answers do not depend on `at_once`.
    """
    jobs = [(split, name) for split in splits for name in names]
    done: list[str] = []

    def run(job: tuple[Split, str]) -> HoldOutAnswers:
        split, name = job
        found = answer(fit(name, examples.take(split.learn)), examples.take(split.ask))
        done.append(name)
        progress(f"{len(done)} of {len(jobs)} trained and asked, {name} last", len(done) / len(jobs))
        return found

    progress(f"training {len(jobs)} times", 0.0)
    pool = ThreadPoolExecutor(at_once)
    try:
        found = list(pool.map(run, jobs))
    finally:
        pool.shutdown(cancel_futures=True)  # after a failure or Ctrl-C the remaining jobs are dropped
    progress("done", 1.0)
    return {name: joined(found[i :: len(names)]) for i, name in enumerate(names)}


def answer(predictor: Predictor, ask: Examples) -> HoldOutAnswers:
    """A trained model's answers for these users."""
    found = [_answer(predictor, part) for part in _batches(ask)]
    return joined(found)


def _batches(examples: Examples, size: int = 20_000) -> Iterator[Examples]:
    for start in range(0, len(examples), size):
        yield examples.take(np.arange(start, min(start + size, len(examples))))


def _answer(predictor: Predictor, ask: Examples) -> HoldOutAnswers:
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
    shown = np.full((len(ask), MAX_SHOWN), -1)
    shown[:, : best.shape[1]] = to_here[best[:, :MAX_SHOWN]]
    return HoldOutAnswers(
        position=np.where(known, place[rows, truth], -1),
        chance=np.where(known, chances[rows, truth], 0.0),
        shown=shown,
        first_chance=chances[rows, best[:, 0]],
    )


def joined(parts: Sequence[HoldOutAnswers]) -> HoldOutAnswers:
    """The answers of several parts as one."""
    return HoldOutAnswers(
        np.concatenate([part.position for part in parts]),
        np.concatenate([part.chance for part in parts]),
        np.concatenate([part.shown for part in parts]),
        np.concatenate([part.first_chance for part in parts]),
    )
