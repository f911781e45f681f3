"""Predictors x examples -> outcomes: what each model answers people it has not seen."""

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

KEPT = 5
AT_ONCE = 2


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


# ---------------------------------------------------------------------------- who learns, who is asked


@dataclass(frozen=True, slots=True)
class Split:
    """Positions of those a model learns from and of those it is then asked about."""

    learn: NDArray[np.int64]
    ask: NDArray[np.int64]


def folds(tops: NDArray[np.int64], k: int, seed: int) -> list[Split]:
    """Everyone is asked once, by a model that learned from the other k - 1 parts.

    `tops` (n,): the parts hold each top genre alike, so that no figure hangs on which part the rare genres fell into.
    """
    people = len(tops)
    if not 2 <= k <= people:
        raise InputError(f"{k} folds of {people} labelled users can't be made: 2 to {people} can")
    dealt = np.lexsort((np.random.default_rng(seed).random(people), tops))
    parts = [np.sort(dealt[i::k]) for i in range(k)]
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


def asked(examples: Examples, splits: Sequence[Split]) -> Examples:
    """Those who are asked, in the order in which `outcomes` has them."""
    return examples.take(np.concatenate([split.ask for split in splits]))


# ---------------------------------------------------------------------------------------- the outcomes


def outcomes(
    examples: Examples,
    splits: Sequence[Split],
    names: Sequence[str],
    fit: Fit,
    progress: Progress,
    at_once: int = AT_ONCE,
) -> dict[str, Outcome]:
    """What each model answers those it is asked about, in the order of the splits.

    `at_once` models are trained side by side: threads suffice, as numpy, SciPy and LightGBM let go of the interpreter
    while they work, and each training has a seed of its own, so the outcomes are the same however many there are.
    """
    jobs = [(split, name) for split in splits for name in names]
    done: list[str] = []

    def run(job: tuple[Split, str]) -> Outcome:
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
        pool.shutdown(cancel_futures=True)  # one failed, or somebody lost patience: what has not begun never does
    progress("done", 1.0)
    return {name: joined(found[i :: len(names)]) for i, name in enumerate(names)}


def answer(predictor: Predictor, ask: Examples) -> Outcome:
    """What a trained model answers these people."""
    found = [_answer(predictor, part) for part in _batches(ask)]
    return joined(found)


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


def joined(parts: Sequence[Outcome]) -> Outcome:
    """The outcomes of parts of the people, one after the other."""
    return Outcome(
        np.concatenate([part.position for part in parts]),
        np.concatenate([part.chance for part in parts]),
        np.concatenate([part.shown for part in parts]),
        np.concatenate([part.first_chance for part in parts]),
    )
