"""Cross-validation: each model's answers for held-out users."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from datetime import datetime
from threading import Lock
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from firstspin.models import prediction_sets
from firstspin.models.coded_rows import CodedRows, rows_of
from firstspin.models.predictor import Predictor, order, probabilities
from firstspin.models.task import Progress, Task
from firstspin.records import Examples, InputError, LabelRule

Array = NDArray[np.float64]
Fit = Callable[[str, Task], Predictor]
Job = TypeVar("Job")
Result = TypeVar("Result")
Prepare = Callable[[Examples], Task]

FOLDS = 5
FOLDS_OF_MANY, MANY_USERS = 3, 100_000
MAX_SHOWN = 5
AT_ONCE = 2
BATCH = 20_000


@dataclass(frozen=True, slots=True)
class HoldOutAnswers:
    """One model's answers for n held-out users.

    `position` (n,): rank of the true genre from 0, or -1 if not ranked · `probability` (n,): that of the true genre ·
    `shown` (n, 5): the first five, as positions in `Examples.genres` · `first_probability` (n,):
    that of the first · `truth_before` (n,), `shown_before` (n, 6): probability of the genres before the true one, and
    before each of the first six, in millionths, see `prediction_sets`.
    """

    position: NDArray[np.int64]
    probability: Array
    shown: NDArray[np.int64]
    first_probability: Array
    truth_before: prediction_sets.Millionths
    shown_before: prediction_sets.Millionths


# ------------------------------------------------------------------------------------------ the splits


@dataclass(frozen=True, slots=True)
class Split:
    """Positions of the training users, `train` (n - m,), and of the hold-out, `hold_out` (m,)."""

    train: NDArray[np.int64]
    hold_out: NDArray[np.int64]


def stratified_folds(tops: NDArray[np.int64], k: int, seed: int) -> list[Split]:
    """Folds for k-fold cross-validation, stratified by top genre: every user is held out once.

    `tops` (n,): top genres. Stratified folds keep the figures independent of where the rare genres fall.

    Raises InputError where k is not from 2 to n.
    """
    return [_split(part, len(tops)) for part in _dealt(tops, k, seed)]


def stratified_split(tops: NDArray[np.int64], k: int, seed: int) -> Split:
    """The first of `stratified_folds` of `tops` (n,). Raises InputError as that."""
    return _split(_dealt(tops, k, seed)[0], len(tops))


def _dealt(tops: NDArray[np.int64], k: int, seed: int) -> list[NDArray[np.int64]]:
    people = len(tops)
    if not 2 <= k <= people:
        raise InputError(f"{k} folds of {people} labelled users can't be made: 2 to {people} can")
    dealt = np.lexsort((np.random.default_rng(seed).random(people), tops))
    return [np.sort(dealt[i::k]) for i in range(k)]


def _split(hold_out: NDArray[np.int64], people: int) -> Split:
    return Split(np.delete(np.arange(people), hold_out), hold_out)


def by_date(examples: Examples, at: datetime, label_days: int) -> Split:
    """Train on users whose label was known at `at`, hold out the users who registered from then on.

    Users in between (registered before, label known only later) are left out: at that moment their label was unknown.

    Raises InputError where either side is empty.
    """
    moment = np.datetime64(at, "s")
    is_labelled = examples.registered_at + np.timedelta64(label_days, "D") <= moment
    split = Split(np.flatnonzero(is_labelled), np.flatnonzero(examples.registered_at >= moment))
    if not len(split.train) or not len(split.hold_out):
        first, last = examples.registered_at.min(), examples.registered_at.max()
        raise InputError(
            f"split at {at.isoformat()}Z: {len(split.train)} users with a label known by then, {len(split.hold_out)} "
            f"registered later; registrations run from {first}Z to {last}Z"
        )
    return split


@dataclass(frozen=True, slots=True)
class Protocol:
    """How users are split for an evaluation: in folds, or at a moment in time.

    Without either: five folds, or three from 100,000 users, where training on 2/3 is as good as on 4/5.

    Raises InputError where there are fewer than two folds, or both folds and a date.
    """

    folds: int | None = None
    split_at: datetime | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folds is not None and self.folds < 2:
            raise InputError(f"{self.folds} folds: at least 2 are needed")
        if self.folds is not None and self.split_at is not None:
            raise InputError("either folds or a date to split at, not both")


def planned_splits(examples: Examples, rule: LabelRule, protocol: Protocol) -> tuple[list[Split], dict[str, object]]:
    """The splits of a protocol, and its description for the scorecard. Raises InputError as `folds` and `by_date`."""
    if protocol.split_at is None:
        k = protocol.folds or (FOLDS if len(examples) < MANY_USERS else FOLDS_OF_MANY)
        return stratified_folds(examples.tops, k, protocol.seed), {
            "protocol": f"{k} folds over users",
            "seed": protocol.seed,
        }
    split = by_date(examples, protocol.split_at, rule.gap_days + rule.window_days)
    return [split], {
        "protocol": f"split at {protocol.split_at.isoformat()}Z",
        "learned from": len(split.train),
        "label not yet known at the split": len(examples) - len(split.train) - len(split.hold_out),
    }


def held_out(examples: Examples, splits: Sequence[Split]) -> Examples:
    """The held-out users, in the order of `hold_out_answers`."""
    return examples.take(np.concatenate([split.hold_out for split in splits]))


# ----------------------------------------------------------------------------------------- the answers


@dataclass(frozen=True, slots=True)
class CrossValidated:
    """One model: its answers for all held-out users, in the order of the splits, and the predictor of each split."""

    answers: HoldOutAnswers
    predictors: tuple[Predictor, ...]


def cross_validate(
    examples: Examples,
    splits: Sequence[Split],
    names: Sequence[str],
    prepare: Prepare,
    fit: Fit,
    progress: Progress,
    at_once: int = AT_ONCE,
) -> dict[str, CrossValidated]:
    """Train every model on each split and score it on the held-out users.

    `prepare` encodes the training users of a split, once for all models. Each training has a seed of its own, so the
    answers do not depend on `at_once`, the number of models trained in parallel.
    """
    folds = [Fold(examples, split, prepare, len(names)) for split in splits]

    def run(job: tuple[Fold, str]) -> tuple[HoldOutAnswers, Predictor]:
        fold, name = job
        with fold as (task, users, rows):
            predictor = fit(name, task)
            return answer(predictor, users, rows), predictor

    parts = in_parallel([(fold, name) for fold in folds for name in names], run, progress, at_once)
    by_name = {name: parts[i :: len(names)] for i, name in enumerate(names)}
    return {
        name: CrossValidated(joined([answers for answers, _ in of]), tuple(predictor for _, predictor in of))
        for name, of in by_name.items()
    }


def in_parallel(
    jobs: Sequence[Job], run: Callable[[Job], Result], progress: Progress, at_once: int = AT_ONCE
) -> list[Result]:
    """The result of each job, in order; `at_once` trainings run in parallel.

    Threads are enough: numpy, SciPy and LightGBM release the interpreter lock.
    """
    done: list[None] = []

    def counted(job: Job) -> Result:
        result = run(job)
        done.append(None)
        progress(f"{len(done)} of {len(jobs)} models trained and scored", len(done) / len(jobs))
        return result

    progress(f"training {len(jobs)} times", 0.0)
    pool = ThreadPoolExecutor(at_once)
    try:
        results = list(pool.map(counted, jobs))
    finally:
        pool.shutdown(cancel_futures=True)  # after a failure or Ctrl-C the remaining jobs are dropped
    progress("done", 1.0)
    return results


class Fold:
    """A split whose registrations are encoded by the first of `uses` models and freed after the last."""

    def __init__(self, examples: Examples, split: Split, prepare: Prepare, uses: int) -> None:
        self._examples, self._split, self._prepare, self._left = examples, split, prepare, uses
        self._lock = Lock()
        self._encoded: tuple[Task, Examples, Array | CodedRows] | None = None

    def __enter__(self) -> tuple[Task, Examples, Array | CodedRows]:
        """The training task, the held-out users, and their rows (n, c)."""
        with self._lock:
            if self._encoded is None:
                users = self._examples.take(self._split.hold_out)
                task = self._prepare(self._examples.take(self._split.train))
                self._encoded = task, users, rows_of(task.encoder, users.registrations)
            return self._encoded

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._left -= 1
            if not self._left:
                self._encoded = None


def answer(predictor: Predictor, users: Examples, rows: Array | CodedRows | None = None) -> HoldOutAnswers:
    """A trained model's answers for these users; `rows` (n, c) where they are encoded already."""
    parts = []
    for start in range(0, len(users), BATCH):
        part = users.take(np.arange(start, min(start + BATCH, len(users))))
        encoded = rows_of(predictor.encoder, part.registrations)[:] if rows is None else rows[start : start + BATCH]
        parts.append(_answer(predictor, part, predictor.scorer.scores(encoded)))
    return joined(parts)


def _answer(predictor: Predictor, users: Examples, scores: Array) -> HoldOutAnswers:
    best = order(scores)
    values = probabilities(scores)
    of_model = {genre: i for i, genre in enumerate(predictor.genres)}
    of_users = {genre: i for i, genre in enumerate(users.genres)}
    truth = np.array([of_model.get(genre, -1) for genre in users.genres])[users.tops]
    rows = np.arange(len(users))
    place = np.argsort(best, axis=1)  # the rank of each column
    is_ranked = truth >= 0
    to_users = np.array([of_users.get(genre, -1) for genre in predictor.genres])
    shown = np.full((len(users), MAX_SHOWN), -1)
    shown[:, : best.shape[1]] = to_users[best[:, :MAX_SHOWN]]
    before = prediction_sets.mass_before(np.take_along_axis(values, best, axis=1))
    shown_before = np.full((len(users), MAX_SHOWN + 1), prediction_sets.UNRANKED, dtype=np.int32)
    shown_before[:, : before.shape[1]] = before[:, : MAX_SHOWN + 1]
    return HoldOutAnswers(
        position=np.where(is_ranked, place[rows, truth], -1),
        probability=np.where(is_ranked, values[rows, truth], 0.0),
        shown=shown,
        first_probability=values[rows, best[:, 0]],
        truth_before=np.where(is_ranked, before[rows, place[rows, truth]], prediction_sets.UNRANKED),
        shown_before=shown_before,
    )


def joined(parts: Sequence[HoldOutAnswers]) -> HoldOutAnswers:
    """The answers of several parts as one."""
    return HoldOutAnswers(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(HoldOutAnswers)
        }
    )
