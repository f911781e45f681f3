"""Quality before labels: the hit@1, 3 and 5 that each week's answers can be expected to have, then beside the observed.

The expected share of hits is the mean probability of the first k genres, minus what the same bundle's hold-out showed
to be too much for such probabilities (`models.calibration`). Its 95% interval is that of the share that will be
observed; its variance has two parts: of the answers, whose hits are independent given their probabilities, and of the
calibration, which the answers of a bundle share. The errors of two predictors are added as if they were the same error,
because their hold-outs can have users in common; so the interval is never too narrow for that reason.

Observed hits need the labels of `firstspin label`. Labelled users are ranked again by the bundle that gave most answers
on the day of their registration, because the event store can't tell who got which answer. Their observed hits
are compared with the expected hits of the same users: a label needs a minimum of listening, so users with a label are
not a random sample of those answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from math import erfc, sqrt
from typing import Final

import msgspec
import numpy as np

from firstspin.evaluation.bootstrap import Figure
from firstspin.evaluation.cohorts import MIN_USERS
from firstspin.events.answer_counts import AnswerCell, AnswerSum, DayCounts
from firstspin.experiment.stats.holm import holm_p_values
from firstspin.models.calibration import MILLION, TOPS, CalibrationBin, bin_of, place_of
from firstspin.models.task import Progress, silent
from firstspin.records import Examples, LabelRule, Registration
from firstspin.serving.bundle import Bundle
from firstspin.serving.policy import DEFAULTS, PolicySettings, decide_many
from firstspin.watch.below_rule import TOP, Hits, RuleComparison, rule_comparisons
from firstspin.watch.tally import first_genres, kind_of

ALPHA: Final = 0.05
"""Probability that a report flags any difference where there is none."""
Z95: Final = 1.959964
MIN_VARIANCE: Final = 10.0
"""Of the number of hits: below it the normal distribution is not close enough in its tails, and nothing is flagged."""
ALL_WEEKS: Final = "all"

_COHORTS: Final[tuple[tuple[str, Callable[[AnswerCell], str]], ...]] = (
    ("all", lambda cell: ALL_WEEKS),  # noqa: ARG005
    ("source", lambda cell: cell.source),
    ("model", lambda cell: cell.model),
    ("picks", lambda cell: cell.picks),
)


class HitRate(msgspec.Struct, frozen=True):
    """Expected hit@k of `answers`, with its 95% interval; once there are labels, `observed` of the `labelled` users.

    `expected_labelled` is the expected hit@k of the labelled users. `differs`: the observed hit@k is not explained by
    chance, after Holm's correction for all comparisons of the report.
    """

    answers: int
    expected: Figure | None
    labelled: int = 0
    expected_labelled: Figure | None = None
    observed: float | None = None
    p_value: float | None = None
    differs: bool = False


class CohortQuality(msgspec.Struct, frozen=True):
    """Answers of one cohort of a week; `uncalibrated` ones have no expected hits, because their bundle is unknown."""

    by: str
    name: str
    answers: int
    uncalibrated: int
    hits: dict[str, HitRate]


class WeekQuality(msgspec.Struct, frozen=True):
    """A week, named by its Monday, or all of them. From `labels_complete` on (UTC), all of its users have a label."""

    week: str
    labels_complete: datetime
    complete: bool
    cohorts: tuple[CohortQuality, ...]


class Quality(msgspec.Struct, frozen=True):
    """The report. `without_calibration` names bundles that answered and whose calibration is not known.

    `rule`: the model of each bundle beside its business rule, once there are labels.
    """

    weeks: tuple[WeekQuality, ...]
    without_calibration: tuple[str, ...]
    differs: bool
    rule: tuple[RuleComparison, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelledAnswers:
    """Labelled users as answers of a bundle: sums and hits of cells by week; `beside_rule`: hits by bundle."""

    sums: dict[str, dict[AnswerCell, AnswerSum]]
    hits: dict[str, Counter[AnswerCell]]
    beside_rule: dict[str, Hits]


@dataclass(frozen=True, slots=True)
class ExpectedHits:
    """The mean and variance of the number of hits of `answers`; `uncalibrated` answers are not part of them."""

    answers: int
    uncalibrated: int
    hits: float
    own_variance: float
    calibration_variance: float

    def figure(self) -> Figure | None:
        """The expected share of hits and the 95% interval of the observed one; None without answers."""
        if not self.answers:
            return None
        share, half = self.hits / self.answers, Z95 * self.deviation() / self.answers
        return Figure(*(round(min(1.0, max(0.0, end)), 6) for end in (share, share - half, share + half)))

    def deviation(self) -> float:
        """The standard deviation of the number of hits."""
        return sqrt(self.own_variance + self.calibration_variance)

    def p_value(self, hits: int) -> float | None:
        """Two-sided p-value of the observed number of hits; None where there are too few for a normal distribution."""
        if self.own_variance < MIN_VARIANCE:
            return None
        return erfc(abs(hits - self.hits) / self.deviation() / sqrt(2))


Kinds = Mapping[tuple[str, str, int], Sequence[CalibrationBin]]


def monday(day: date) -> str:
    """The name of the week of a day.

    >>> monday(date(2026, 11, 29))
    '2026-11-23'
    """
    return (day - timedelta(days=day.weekday())).isoformat()


def labels_complete(week: str, rule: LabelRule) -> datetime:
    """The end of the label window of those who registered last in a week (UTC).

    >>> labels_complete("2026-01-05", LabelRule(gap_days=30, window_days=30)).isoformat()
    '2026-03-13T00:00:00+00:00'
    """
    end = datetime.combine(date.fromisoformat(week), time(), UTC) + timedelta(days=7)
    return end + timedelta(days=rule.gap_days + rule.window_days)


def expected_hits(sums: Iterable[AnswerSum], kinds: Mapping[str, Kinds]) -> ExpectedHits:
    """The expected hits of answers of one k; `kinds` are the bins of each known bundle."""
    answers, uncalibrated, hits, own = 0, 0, 0.0, 0.0
    shared: dict[tuple[str, str], Counter[CalibrationBin]] = {}
    for one in _merged(sums):
        cell = one.cell
        found = bin_of(kinds.get(cell.model, {}), cell.predicted, cell.picks, cell.top, cell.place)
        if found is None:
            uncalibrated += one.answers
            continue
        mean = one.millionths / MILLION / one.answers - found.excess
        share = min(1.0, max(0.0, mean))
        answers += one.answers
        hits += one.answers * mean
        own += one.answers * share * (1 - share)
        shared.setdefault((cell.model, cell.predicted), Counter())[found] += one.answers
    errors = [sqrt(sum(n * n * one.variance for one, n in of.items())) for of in shared.values()]
    return ExpectedHits(answers, uncalibrated, hits, own, sum(errors) ** 2)


def quality(
    counts: Sequence[DayCounts],
    bundles: Sequence[Bundle],
    rule: LabelRule,
    now: datetime,
    labels: Examples | None = None,
    *,
    settings: PolicySettings = DEFAULTS,
    progress: Progress = silent,
) -> Quality:
    """The expected hits of each week's answers, with the observed ones where `labels` are given.

    `settings` are those of the service, with which labelled users are ranked again. Cohorts of fewer than 10 answers
    are withheld.
    """
    calibrated = {one.id: one.manifest.calibration for one in bundles if one.manifest.calibration}
    kinds = {model: calibration.by_kind() for model, calibration in calibrated.items()}
    weeks = _by_week(counts)
    labelled = label_answers(counts, bundles, labels, settings, progress) if labels else LabelledAnswers({}, {}, {})
    made = [_week(week, weeks, labelled, kinds, rule, now) for week in (*sorted(weeks), ALL_WEEKS) if weeks]
    flagged = _flagged(made)
    models = {one.cell.model for day in counts for one in day.answers}
    any_differs = any(hit.differs for week in flagged for cohort in week.cohorts for hit in cohort.hits.values())
    beside = rule_comparisons(labelled.beside_rule)
    return Quality(tuple(flagged), tuple(sorted(models - calibrated.keys())), any_differs, beside)


def label_answers(
    counts: Sequence[DayCounts],
    bundles: Sequence[Bundle],
    labels: Examples,
    settings: PolicySettings,
    progress: Progress = silent,
) -> LabelledAnswers:
    """The labelled users (n,) of days with answers, ranked by the bundle that answered most on their day.

    Users of a day on which another bundle than the given ones answered most are left out.
    """
    by_id = {one.id: one for one in bundles}
    of_day = {day.day: by_id[model] for day in counts if (model := _most_answers(day)) in by_id}
    days = labels.registered_at.astype("datetime64[D]").astype(str)
    answered = LabelledAnswers({}, {}, {})
    ranked = 0
    for day in sorted(of_day.keys() & set(days.tolist())):
        users = labels.take(np.flatnonzero(days == day))
        _rank(users, of_day[day], monday(date.fromisoformat(day)), settings, answered)
        ranked += len(users)
        progress("ranking the labelled users", ranked / len(labels))
    return answered


def _rank(users: Examples, bundle: Bundle, week: str, settings: PolicySettings, answered: LabelledAnswers) -> None:
    """Add the answers and hits of users of a day to those of their week."""
    sums = answered.sums.setdefault(week, {})
    hits = answered.hits.setdefault(week, Counter())
    beside = answered.beside_rule.setdefault(bundle.id, Counter())
    decisions = list(decide_many(users.registrations, None, bundle, settings))
    probable = first_genres([decision.ranking.probabilities for decision in decisions]).tolist()
    by_rule = bundle.rule.rankings([Registration(genres=one.genres) for one in users.registrations])
    for registration, top, decision, millionths_of, rule in zip(
        users.registrations, users.tops.tolist(), decisions, probable, by_rule, strict=True
    ):
        favourite = users.genres[top]  # by name: the labels' genres have another order than the bundle's
        if not decision.by_rule:
            beside[favourite in decision.ranking.genres[:TOP], favourite in rule.genres[:TOP]] += 1
        kind = kind_of(registration, decision)
        for k, millionths in zip(TOPS, millionths_of, strict=True):
            cell = AnswerCell(*kind, k, place_of(millionths))
            before = sums.get(cell)
            n, total = (before.answers, before.millionths) if before else (0, 0)
            sums[cell] = AnswerSum(cell, n + 1, total + millionths)
            hits[cell] += favourite in decision.ranking.genres[:k]


def _merged(sums: Iterable[AnswerSum]) -> list[AnswerSum]:
    """One sum per cell, whatever days and workers they come from."""
    answers, millionths = Counter[AnswerCell](), Counter[AnswerCell]()
    for one in sums:
        answers[one.cell] += one.answers
        millionths[one.cell] += one.millionths
    return [AnswerSum(cell, n, millionths[cell]) for cell, n in answers.items()]


def _most_answers(day: DayCounts) -> str:
    of_model = Counter[str]()
    for one in day.answers:
        of_model[one.cell.model] += one.answers
    return max(of_model, key=lambda model: (of_model[model], model), default="")


def _by_week(counts: Sequence[DayCounts]) -> dict[str, list[AnswerSum]]:
    weeks: dict[str, list[AnswerSum]] = {}
    for day in counts:
        weeks.setdefault(monday(date.fromisoformat(day.day)), []).extend(day.answers)
    return weeks


def _week(
    week: str,
    weeks: Mapping[str, Sequence[AnswerSum]],
    labelled: LabelledAnswers,
    kinds: Mapping[str, Kinds],
    rule: LabelRule,
    now: datetime,
) -> WeekQuality:
    of = weeks if week == ALL_WEEKS else {week: weeks[week]}
    answers = [one for sums in of.values() for one in sums]
    again = [one for name in of for one in labelled.sums.get(name, {}).values()]
    hits: Counter[AnswerCell] = sum((labelled.hits.get(name, Counter()) for name in of), Counter())
    complete = labels_complete(max(of), rule)
    cohorts = tuple(_cohorts(answers, again, hits, kinds))
    return WeekQuality(week, complete, complete <= now, cohorts)


def _cohorts(
    answers: Sequence[AnswerSum],
    again: Sequence[AnswerSum],
    hits: Counter[AnswerCell],
    kinds: Mapping[str, Kinds],
) -> Iterator[CohortQuality]:
    for by, name_of in _COHORTS:
        for name in sorted({name_of(one.cell) for one in answers}):
            own = [one for one in answers if name_of(one.cell) == name]
            of_labelled = [one for one in again if name_of(one.cell) == name]
            n = sum(one.answers for one in own if one.cell.top == TOPS[0])
            if n < MIN_USERS:
                continue
            rates = {f"hit@{top}": _rate(_of(top, own), _of(top, of_labelled), hits, kinds) for top in TOPS}
            yield CohortQuality(by, name, n, n - rates[f"hit@{TOPS[0]}"].answers, rates)


def _of(top: int, sums: Iterable[AnswerSum]) -> list[AnswerSum]:
    return [one for one in sums if one.cell.top == top]


def _rate(
    answers: Sequence[AnswerSum],
    again: Sequence[AnswerSum],
    hits: Counter[AnswerCell],
    kinds: Mapping[str, Kinds],
) -> HitRate:
    before = expected_hits(answers, kinds)
    after = expected_hits(again, kinds)
    if after.answers < MIN_USERS or after.uncalibrated:
        return HitRate(before.answers, before.figure())
    right = sum(hits[cell] for cell in {one.cell for one in again})
    return HitRate(
        before.answers,
        before.figure(),
        after.answers,
        after.figure(),
        round(right / after.answers, 6),
        after.p_value(right),
    )


def _flagged(weeks: Sequence[WeekQuality]) -> list[WeekQuality]:
    """The weeks with `differs` set, by Holm's procedure over all comparisons."""
    rates = [hit for week in weeks for cohort in week.cohorts for hit in cohort.hits.values()]
    tested = [hit.p_value for hit in rates if hit.p_value is not None]
    adjusted = iter(holm_p_values(tested))

    def flag(hit: HitRate) -> HitRate:
        differs = hit.p_value is not None and next(adjusted) < ALPHA
        return msgspec.structs.replace(hit, differs=differs)

    def cohort_flagged(one: CohortQuality) -> CohortQuality:
        return msgspec.structs.replace(one, hits={name: flag(hit) for name, hit in one.hits.items()})

    return [msgspec.structs.replace(week, cohorts=tuple(cohort_flagged(one) for one in week.cohorts)) for week in weeks]
