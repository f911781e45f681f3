"""Ablation: the value of each question of the registration form, and the gaps between cohorts.

A question is measured twice: by training without it (hit@3 lost), and by withholding or swapping single answers of a
trained model (how often the first three genres change).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from firstspin.data.schema import AGE, GENDER
from firstspin.evaluation import metrics
from firstspin.evaluation.bootstrap import Figure, Resampled, resample
from firstspin.evaluation.cohorts import OTHER, Cohort, cohorts
from firstspin.evaluation.cross_validation import (
    CrossValidated,
    Fold,
    HoldOutAnswers,
    Prepare,
    Split,
    answer,
    held_out,
    in_parallel,
    joined,
)
from firstspin.models.predictor import Predictor
from firstspin.models.task import Progress, Task
from firstspin.records import Examples, Registration, is_answered, without_answers

Array = NDArray[np.float64]
Refit = Callable[[Predictor, Task], Predictor]
"""Train a predictor's model on another task."""

DEMOGRAPHICS: Final = (AGE, GENDER)
FIRST: Final = 3
MIN_IN_GAP: Final = 50
GAPS: Final = ("picks", "age", "gender", "country")


@dataclass(frozen=True, slots=True)
class QuestionValue:
    """The value of one question. `answered`: held-out users who answered it.

    `lost`: hit@3 of the full model minus that of one trained without the question, over all held-out users.
    `withheld`, `changed`: of the users who answered, the share whose set of first three genres changes when the answer
    is withheld, or replaced by a different answer drawn from the other users.
    """

    name: str
    answered: int
    lost: Figure
    withheld: Figure
    changed: Figure


@dataclass(frozen=True, slots=True)
class Gap:
    """The difference in hit@3 between the best and the worst cohort of at least 50 users.

    Of many cohorts some difference is noise: the interval is that of these two cohorts, not corrected for selection.
    """

    by: str
    best: str
    worst: str
    distance: Figure


@dataclass(frozen=True, slots=True)
class Study:
    """The ablation study of `model`, and of the same model without demographics (age, gender)."""

    model: str
    people: int
    full: Figure
    questions: list[QuestionValue]
    no_demographics: Figure
    demographics_lost: Figure
    gaps: list[Gap]
    gaps_without_demographics: list[Gap]


def study(
    examples: Examples,
    splits: Sequence[Split],
    model: str,
    full: CrossValidated,
    prepare: Prepare,
    refit: Refit,
    questions: Sequence[str],
    seed: int,
    progress: Progress,
) -> Study:
    """Train the `full` model again without each question and without demographics; score the hold-out of each split.

    `full` was trained on these splits with all questions. Each split is encoded once (`prepare`).
    """
    names = answered(examples, questions)
    left_out: list[tuple[str, ...]] = [(name,) for name in names]
    left_out += [DEMOGRAPHICS] if set(DEMOGRAPHICS) & set(names) else []
    parts = _trained_without(examples, splits, full, left_out, prepare, refit, seed, progress)
    everyone = held_out(examples, splits)
    without = {left: joined([part.answers for part in of]) for left, of in parts.items()}
    bare = without.get(DEMOGRAPHICS, full.answers)
    rng = np.random.default_rng(seed)
    hits = {("all",): full.answers, ("bare",): bare} | without
    resampled = resample({"-".join(left): _hits(answers) for left, answers in hits.items()}, rng)

    def lost(left: str) -> Figure:
        return resampled["all"].over(resampled[left]).difference

    def worth(name: str) -> QuestionValue:
        withheld, changed = (
            np.concatenate([getattr(part, way) for part in parts[(name,)]]) for way in ("withheld", "changed")
        )
        return QuestionValue(name, len(withheld), lost(name), _share(withheld, rng), _share(changed, rng))

    return Study(
        model=model,
        people=len(everyone),
        full=resampled["all"].figure(),
        questions=[worth(name) for name in names],
        no_demographics=resampled["bare"].figure(),
        demographics_lost=lost("bare"),
        gaps=list(_gaps(everyone, full.answers, rng)),
        gaps_without_demographics=list(_gaps(everyone, bare, rng)),
    )


def answered(examples: Examples, questions: Sequence[str]) -> list[str]:
    """The questions that at least one user answered."""
    return [name for name in questions if any(is_answered(one, name) for one in examples.registrations)]


def with_anothers_answer(
    registrations: Sequence[Registration], question: str, rng: np.random.Generator
) -> list[Registration]:
    """Each registration with a different answer drawn from the others; unchanged where all answers are equal."""
    pool: list[Hashable] = [getattr(registration, question) for registration in registrations]
    if len(set(pool)) < 2:
        return list(registrations)
    return [
        msgspec.structs.replace(registration, **{question: _another(pool, own, rng)})
        for registration, own in zip(registrations, pool, strict=True)
    ]


def _another(pool: Sequence[Hashable], own: Hashable, rng: np.random.Generator) -> Hashable:
    while (drawn := pool[int(rng.integers(len(pool)))]) == own:
        pass
    return drawn


@dataclass(frozen=True, slots=True)
class _Job:
    """One training: split number `number`, without these questions."""

    fold: Fold
    number: int
    without: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The hold-out answers of a model trained without some questions.

    `withheld`, `changed` (m,): 1 where the first three genres of the full model change, of the users who answered.
    """

    answers: HoldOutAnswers
    withheld: Array
    changed: Array


def _trained_without(
    examples: Examples,
    splits: Sequence[Split],
    full: CrossValidated,
    left_out: Sequence[tuple[str, ...]],
    prepare: Prepare,
    refit: Refit,
    seed: int,
    progress: Progress,
) -> dict[tuple[str, ...], list[_Outcome]]:
    """The outcomes by what was left out, one for each split."""
    folds = [Fold(examples, split, prepare, len(left_out)) for split in splits]
    jobs = [_Job(fold, i, without) for i, fold in enumerate(folds) for without in left_out]

    def run(job: _Job) -> _Outcome:
        with job.fold as (task, users, rows):
            return _outcome(full.predictors[job.number], task, users, rows[:], job, refit, seed)

    outcomes = in_parallel(jobs, run, lambda step, done: progress(f"questions: {step}", done))
    return {without: outcomes[i :: len(left_out)] for i, without in enumerate(left_out)}


def _outcome(full: Predictor, task: Task, users: Examples, rows: Array, job: _Job, refit: Refit, seed: int) -> _Outcome:
    columns = task.encoder.columns_without(job.without)
    answers = answer(refit(full, task.without(job.without)), users, rows[:, columns])
    if len(job.without) > 1:
        return _Outcome(answers, np.empty(0), np.empty(0))
    (question,) = job.without
    rng = np.random.default_rng([seed, job.number, *question.encode()])
    return _Outcome(answers, *_changes(full, users, rows, question, rng))


def _changes(
    predictor: Predictor, ask: Examples, rows: Array, question: str, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Whether the first three genres of each user who answered change without the answer, and with another one."""
    answered = np.flatnonzero([is_answered(registration, question) for registration in ask.registrations])
    if not len(answered):
        return np.empty(0), np.empty(0)
    those = ask.take(answered)
    now = _first(answer(predictor, those, rows[answered]))

    def differs(registrations: Sequence[Registration]) -> Array:
        then = _first(answer(predictor, replace(those, registrations=tuple(registrations))))
        changed: Array = (then != now).any(axis=1).astype(np.float64)
        return changed

    silent = [without_answers(registration, question) for registration in those.registrations]
    return differs(silent), differs(with_anothers_answer(those.registrations, question, rng))


def _first(outcome: HoldOutAnswers) -> NDArray[np.int64]:
    """(n, 3) the first three genres as a set: sorted."""
    return np.sort(outcome.shown[:, :FIRST], axis=1)


def _hits(outcome: HoldOutAnswers) -> Array:
    return metrics.hit(outcome.position, FIRST)


def _share(values: Array, rng: np.random.Generator) -> Figure:
    """The mean of `values`; NaN where there are none."""
    return resample({"": values}, rng)[""].figure() if len(values) else Figure(float("nan"), float("nan"), float("nan"))


def _gaps(everyone: Examples, outcome: HoldOutAnswers, rng: np.random.Generator) -> Iterator[Gap]:
    hits = _hits(outcome)
    big = [one for one in cohorts(everyone) if len(one.members) >= MIN_IN_GAP and one.name != OTHER]
    for by in GAPS:
        these = [one for one in big if one.by == by]
        if len(these) < 2:
            continue
        best, worst = (choose(these, key=lambda one: hits[one.members].mean()) for choose in (max, min))
        distance = _resampled(hits, best, rng).over(_resampled(hits, worst, rng)).difference
        yield Gap(by, best.name, worst.name, distance)


def _resampled(hits: Array, cohort: Cohort, rng: np.random.Generator) -> Resampled:
    return resample({"": hits[cohort.members]}, rng)[""]
