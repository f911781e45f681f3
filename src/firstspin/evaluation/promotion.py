"""The promotion gate: may a challenger replace the champion? Both are compared on one hold-out, paired by user.

The hold-out are the users who registered after the last label window of either bundle's training, so neither bundle was
trained on them, nor on listens from their time (`cross_validation.by_date` splits in the same way). A challenger is
promoted where it is better in the chosen metric than the champion and than its own business rule, and non-inferior in
the other metrics and in every segment of at least `MIN_SHARE` of the hold-out; smaller segments are pooled by
attribute. Each of these requirements is a one-sided t-test of per-user differences at alpha / 2, corrected for
negative skewness. All must hold, so the probability to promote a challenger that violates one is at most alpha / 2
without a correction for their number (intersection-union test; Berger, Technometrics 24, 1982). A requirement that is
refuted ends the comparison: these tests share alpha / 2 by Holm's correction.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from firstspin.evaluation.bootstrap import Figure
from firstspin.evaluation.cohorts import cohorts
from firstspin.evaluation.cross_validation import HoldOutAnswers, answer
from firstspin.evaluation.metrics import MARGIN, RankingMetric
from firstspin.evaluation.scorecard import METRICS
from firstspin.experiment.stats.holm import holm_p_values
from firstspin.models.predictor import RULE, in_words
from firstspin.records import Examples, InputError, listed, readable
from firstspin.serving.bundle import Bundle

Array = NDArray[np.float64]

ALPHA: Final = 0.05
POWER: Final = 0.8
"""Power of the number of users that a requirement needs."""
MIN_USERS: Final = 100
"""Fewer users decide nothing: a t-test of rare differences needs so many."""
MIN_SHARE: Final = 0.1
SECONDARY: Final = (RankingMetric.HIT_3, RankingMetric.NDCG_5, RankingMetric.LOG_LOSS)
POOLED: Final = "all others"
SHOWN: Final = 3
"""Requirements that a reason names."""


class PromotionDecision(StrEnum):
    """What the comparison decides."""

    PROMOTE = "promote"
    KEEP = "keep"
    MORE_USERS = "not enough users"


class Requirement(msgspec.Struct, frozen=True):
    """A requirement of the gate: superiority (`margin` 0), or non-inferiority, in a metric on some of the users.

    `champion` and `challenger` are the means over these `users`; `over` names the business rule where it takes the
    champion's place. `difference` is positive where the challenger is better, with its 1 - alpha interval. `outcome`:
    holds, fails, or open with the hold-out users `needed` to decide.
    """

    metric: RankingMetric
    by: str
    segment: str
    over: str
    users: int
    champion: float
    challenger: float
    difference: Figure
    margin: float
    outcome: str
    needed: int = 0

    @property
    def name(self) -> str:
        """The metric, and where it is that of a segment or over the rule."""
        segment = f", {self.by}: {self.segment}" if self.by else ""
        return f"{self.metric}{segment}" + (f" over the {in_words(self.over)}" if self.over else "")


class PromotionVerdict(msgspec.Struct, frozen=True):
    """The decision, its reason as a sentence, and the figures behind it.

    `champion` and `challenger` are bundle ids, `since` (UTC) is when the hold-out's registrations begin. `needed`: the
    number of hold-out users that decides with 80% power, where there are not enough.
    """

    decision: PromotionDecision
    why: str
    champion: str
    challenger: str
    metric: RankingMetric
    margin: float
    alpha: float
    since: str
    users: int
    needed: int = 0
    requirements: tuple[Requirement, ...] = ()

    @property
    def passes(self) -> bool:
        """Whether the challenger may replace the champion."""
        return self.decision is PromotionDecision.PROMOTE


def compare(
    champion: Bundle,
    challenger: Bundle,
    examples: Examples,
    *,
    metric: RankingMetric = RankingMetric.HIT_3,
    margin: float = MARGIN,
    alpha: float = ALPHA,
) -> PromotionVerdict:
    """Whether `challenger` may replace `champion`, on those of these labelled users that neither was trained on.

    Raises InputError where a bundle does not record the end of its training data, was trained on users of the hold-out,
    or `margin` or `alpha` is not between 0 and 1.
    """
    if not 0 < margin < 1 or not 0 < alpha < 1:
        raise InputError(f"margin {margin!r} and alpha {alpha!r} must be between 0 and 1")
    since = max(training_end(champion), training_end(challenger))
    users = examples.take(np.flatnonzero(examples.registered_at >= since))
    for bundle in (champion, challenger):
        _must_be_new_to(bundle, users, since)
    about = (champion.id, challenger.id, metric, margin, alpha, f"{since}Z", len(users))
    if len(users) < MIN_USERS:
        why = f"{len(users):,} labelled users registered since {since}Z, the end of training; {MIN_USERS} are needed"
        return PromotionVerdict(PromotionDecision.MORE_USERS, why, *about, needed=MIN_USERS)
    answers = {"champion": answer(champion.predictor, users), "challenger": answer(challenger.predictor, users)}
    answers[RULE] = answer(challenger.rule, users)
    requirements = judged(paired(answers, users, metric, margin), len(users), alpha)
    decision, why, needed = _decision(requirements, len(users))
    return PromotionVerdict(decision, why, *about, needed, requirements)


def training_end(bundle: Bundle) -> np.datetime64:
    """The end (UTC) of the last label window of the bundle's training. Raises InputError where it is not recorded."""
    ends = bundle.manifest.data.get("labels_end")
    try:
        return np.datetime64(str(ends), "s")
    except ValueError:
        raise InputError(
            f"bundle {bundle.id} does not record the end of its training data (it was packed by an earlier version, or "
            "not by `firstspin train`), so no user is known to be new to it: train it again"
        ) from None


def _must_be_new_to(bundle: Bundle, users: Examples, since: np.datetime64) -> None:
    """Raises InputError where the sketch of the bundle's training users shows that it was trained on these.

    False alarms: one in 30,000 comparisons, see `data.overlap`.
    """
    if share := bundle.training_share(users.user_ids):
        raise InputError(
            f"about {share:.0%} of the users who registered since {since}Z are in the training set of bundle "
            f"{bundle.id}, whose training data end by then: the tables have other registration times, or other users' "
            "ids, than those it was trained on"
        )


# ----------------------------------------------------------------------------------------------- the requirements


class Paired(msgspec.Struct, frozen=True):
    """Values of a requirement by user: of the champion, or the rule (`over`), and of the challenger; each (n,)."""

    metric: RankingMetric
    margin: float
    champion: Array
    challenger: Array
    by: str = ""
    segment: str = ""
    over: str = ""

    def gains(self) -> Array:
        """(n,) The challenger's gain by user: positive is better."""
        gains = self.challenger - self.champion
        return -gains if self.metric.lower_is_better else gains

    def excess(self) -> Array:
        """(n,) Values whose mean is positive where the requirement holds: the gain over a loss of the margin."""
        return self.gains() + self.margin * self.champion


def paired(
    answers: Mapping[str, HoldOutAnswers], users: Examples, metric: RankingMetric, margin: float
) -> Iterator[Paired]:
    """The requirements: first superiority over champion and rule, then non-inferiority by metric and by segment."""
    values = {one: {name: METRICS[one](of) for name, of in answers.items()} for one in {metric, *SECONDARY}}
    of_metric = values[metric]
    yield Paired(metric, 0.0, of_metric["champion"], of_metric["challenger"])
    yield Paired(metric, 0.0, of_metric[RULE], of_metric["challenger"], over=RULE)
    for other in SECONDARY:
        if other is not metric:
            yield Paired(other, margin, values[other]["champion"], values[other]["challenger"])
    for by, name, members in segments(users):
        yield Paired(metric, margin, of_metric["champion"][members], of_metric["challenger"][members], by, name)


def segments(users: Examples) -> Iterator[tuple[str, str, NDArray[np.int64]]]:
    """Attribute, name and members (m,) of each segment of at least `MIN_SHARE` of the users; the rest is pooled."""
    of_attribute: dict[str, list[tuple[str, NDArray[np.int64]]]] = {}
    for cohort in cohorts(users):
        if cohort.by not in ("month", "year") and len(cohort.members) >= MIN_SHARE * len(users):
            of_attribute.setdefault(cohort.by, []).append((cohort.name, cohort.members))
    for by, large in of_attribute.items():
        yield from ((by, name, members) for name, members in large)
        pooled = np.setdiff1d(np.arange(len(users)), np.concatenate([members for _, members in large]))
        if len(pooled) >= MIN_SHARE * len(users):
            yield by, POOLED, pooled


def judged(requirements: Iterator[Paired], hold_out: int, alpha: float) -> tuple[Requirement, ...]:
    """The outcome of each requirement, on a hold-out of so many users."""
    pairs = list(requirements)
    refuted = holm_p_values([_below_zero(one.excess()) for one in pairs])
    return tuple(_judged(one, p, hold_out, alpha) for one, p in zip(pairs, refuted, strict=True))


def _judged(one: Paired, refuted: float, hold_out: int, alpha: float) -> Requirement:
    n, gains, excess = len(one.champion), one.gains(), one.excess()
    low, high = _t_interval(gains, alpha)
    outcome, needed = "open", 0
    if refuted <= alpha / 2:
        outcome = "fails"
    elif n >= _min_users(one, alpha) and (_is_above_zero(excess, alpha) or (one.margin and not gains.any())):
        outcome = "holds"
    elif (enough := _users_needed(one, alpha)) is None or enough <= n:
        outcome = "fails"
    else:
        needed = math.ceil(enough * hold_out / n)
    champion, challenger, gain = (round(float(of.mean()), 6) for of in (one.champion, one.challenger, gains))
    difference = Figure(gain, round(low, 6), round(high, 6))
    about = (one.metric, one.by, one.segment, one.over, n)
    return Requirement(*about, champion, challenger, difference, one.margin, outcome, needed)


def _users_needed(one: Paired, alpha: float) -> float | None:
    """The users that show this requirement with `POWER`; None where a challenger like this one never does.

    Superiority is sized for the difference that was measured, non-inferiority for no difference, or that measured where
    it is better; for that measured, as corrected, where the correction of the skewness alone is in the way. At least
    `_min_users`.
    """
    from scipy.special import ndtri

    excess = one.excess()
    expected = float(max(excess.mean(), one.margin * one.champion.mean()))
    if expected <= 0:
        return None
    deviation = float(excess.std(ddof=1))
    if _t_interval(excess, alpha)[0] > 0 and deviation > 0:
        expected = _without_skewness(excess) * deviation
    z = float(ndtri(1 - alpha / 2) + ndtri(POWER))
    return max((z * deviation / expected) ** 2, _min_users(one, alpha))


def _min_users(one: Paired, alpha: float) -> float:
    """The users that a requirement takes to hold: `MIN_USERS`, and so many that no loss among them shows the margin.

    Where losses of the margin are hits, one in 1 / margin of the champion's, none is seen with a probability of
    e^-(margin * hits). It must be at most alpha / 2: the rule of three of a one-sided 95% limit.
    """
    at_the_margin = 0.0 if one.metric.lower_is_better else one.margin * float(one.champion.sum())
    return max(MIN_USERS, len(one.champion) * math.log(2 / alpha) / at_the_margin) if at_the_margin else MIN_USERS


def _is_above_zero(values: Array, alpha: float) -> bool:
    """Whether the mean of `values` (n,) is shown to be above zero at alpha / 2: Student's test without skewness.

    Where few users lose much, as many as are missing by chance make mean and variance better at once: a segment of 100
    users that only loses, by the margin, would hold with a probability of 13% instead of 2.5%.
    """
    from scipy.special import stdtrit

    if not values.std(ddof=1):
        return bool(values.mean() > 0)
    n = len(values)
    return math.sqrt(n) * _without_skewness(values) > -float(stdtrit(n - 1, alpha / 2))


def _without_skewness(values: Array) -> float:
    """The mean of `values` (n,) in standard deviations, corrected for skewness where it is negative: lower, above 0.

    Hall's transformation (On the removal of skewness by transformation, J. R. Stat. Soc. B 54, 1992). Positive skewness
    is not corrected: that of a few gains would be estimated from them alone.
    """
    mean, deviation = float(values.mean()), float(values.std(ddof=1))
    z, skewness = mean / deviation, min(float(((values - mean) ** 3).mean()) / deviation**3, 0.0)
    return z + skewness * z**2 / 3 + skewness**2 * z**3 / 27 + skewness / (6 * len(values))


def _t_interval(values: Array, alpha: float) -> tuple[float, float]:
    """Student's interval of the mean of `values` (n,), of confidence 1 - alpha."""
    from scipy.special import stdtrit

    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    half = -float(stdtrit(len(values) - 1, alpha / 2)) * error
    return mean - half, mean + half


def _below_zero(values: Array) -> float:
    """p-value of Student's one-sided test that the mean of `values` (n,) is below zero."""
    from scipy.special import stdtr

    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(stdtr(len(values) - 1, mean / error)) if error > 0 else float(mean >= 0)


# --------------------------------------------------------------------------------------------------- the decision


def _decision(requirements: tuple[Requirement, ...], users: int) -> tuple[PromotionDecision, str, int]:
    """The decision, the reason, and the hold-out users needed where there are not enough."""
    main = requirements[0]
    figures = f"{main.metric} {main.challenger:.4f} against the champion's {main.champion:.4f} on {users:,} users"
    interval = f"difference {main.difference.value:+.4f} ({main.difference.low:+.4f} to {main.difference.high:+.4f})"
    if failing := [one.name for one in requirements if one.outcome == "fails"]:
        named = readable(listed(failing, SHOWN))
        return PromotionDecision.KEEP, f"the challenger fails {named}: {figures}, {interval}", 0
    if unclear := [one for one in requirements if one.outcome == "open"]:
        most = max(unclear, key=lambda one: one.needed)
        why = f"about {most.needed:,} users are needed for {readable(most.name)}: {figures}, {interval}"
        return PromotionDecision.MORE_USERS, why, most.needed
    return PromotionDecision.PROMOTE, f"better, and nowhere inferior: {figures}, {interval}", 0
