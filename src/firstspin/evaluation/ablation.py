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
from firstspin.evaluation.cross_validation import HoldOutAnswers, Split, answer, held_out, joined
from firstspin.models.predictor import Predictor
from firstspin.models.task import Progress
from firstspin.records import Examples, Registration, is_answered, without_answers

Array = NDArray[np.float64]
FitWithout = Callable[[Examples, tuple[str, ...]], Predictor]
"""Train on these users without the answers to these questions."""

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
    fit: FitWithout,
    questions: Sequence[str],
    seed: int,
    progress: Progress,
) -> Study:
    """Train with all questions, without each, and without demographics; score the hold-out of each split."""
    rng = np.random.default_rng(seed)
    names = answered(examples, questions)
    parts = [
        _Part.of(examples, split, fit, names, rng, _within(progress, i, len(splits))) for i, split in enumerate(splits)
    ]
    progress("done", 1.0)
    everyone = held_out(examples, splits)
    full = joined([part.full for part in parts])
    bare = joined([part.bare for part in parts])
    without = {name: joined([part.without[name] for part in parts]) for name in names}
    hits = {"": _hits(full), "bare": _hits(bare)} | {f"-{q}": _hits(answers) for q, answers in without.items()}
    resampled = resample(hits, rng)

    def worth(name: str) -> QuestionValue:
        has_answer = np.array([is_answered(registration, name) for registration in everyone.registrations])
        withheld, changed = (
            np.concatenate([getattr(part, way)[name] for part in parts]) for way in ("withheld", "changed")
        )
        lost = resampled[""].over(resampled[f"-{name}"]).difference
        return QuestionValue(name, int(has_answer.sum()), lost, _share(withheld, rng), _share(changed, rng))

    return Study(
        model=model,
        people=len(everyone),
        full=resampled[""].figure(),
        questions=[worth(name) for name in names],
        no_demographics=resampled["bare"].figure(),
        demographics_lost=resampled[""].over(resampled["bare"]).difference,
        gaps=list(_gaps(everyone, full, rng)),
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
class _Part:
    """One split: the models' hold-out answers, and whether (1, 0) the first three change, of the users who answered."""

    full: HoldOutAnswers
    bare: HoldOutAnswers
    without: dict[str, HoldOutAnswers]
    withheld: dict[str, Array]
    changed: dict[str, Array]

    @staticmethod
    def of(
        examples: Examples,
        split: Split,
        fit: FitWithout,
        names: Sequence[str],
        rng: np.random.Generator,
        progress: Progress,
    ) -> _Part:
        learn, ask = examples.take(split.train), examples.take(split.hold_out)
        steps = len(names) + 2
        progress("with all questions", 0.0)
        predictor = fit(learn, ())
        full = answer(predictor, ask)
        progress("without demographics", 1 / steps)
        bare = answer(fit(learn, DEMOGRAPHICS), ask) if set(DEMOGRAPHICS) & set(names) else full
        without, withheld, changed = {}, {}, {}
        for i, name in enumerate(names):
            progress(f"without {name}", (i + 2) / steps)
            without[name] = answer(fit(learn, (name,)), ask)
            withheld[name], changed[name] = _changes(predictor, ask, full, name, rng)
        return _Part(full, bare, without, withheld, changed)


def _changes(
    predictor: Predictor, ask: Examples, full: HoldOutAnswers, question: str, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Whether the first three genres of each user who answered change without the answer, and with another one."""
    answered = np.flatnonzero([is_answered(registration, question) for registration in ask.registrations])
    if not len(answered):
        return np.empty(0), np.empty(0)
    those, now = ask.take(answered), _first(full)[answered]

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


def _within(progress: Progress, part: int, parts: int) -> Progress:
    return lambda step, done: progress(f"questions, {step}, part {part + 1} of {parts}", (part + done) / parts)
