"""Sample size and power of an experiment."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import msgspec
from scipy.optimize import brentq
from scipy.special import ndtri

from firstspin.experiment.plan import Plan
from firstspin.experiment.rules import Peeking
from firstspin.experiment.stats.holm import pairs
from firstspin.experiment.stats.sequential import always_valid_alpha, crossing_probability, spending_alphas

WEEK: Final = 7
CURVE_WEEKS: Final = 6
MIN_LIFT: Final = 1e-6
MAX_LIFT: Final = 1e6
TO_ALL: Final = 1e-9
"""What a rate lacks to 100% at its max lift, where its variance is 0."""
MAX_ANALYSES: Final = 64
"""A design with more interim analyses is sized as one with this number: the work grows with their square.

The required users then differ from those of a year of daily analyses by -0.3% (O'Brien-Fleming) and +2.6% (always
valid).
"""

EFFECTS: Final = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)


@dataclass(frozen=True, slots=True)
class Design:
    """Parameters of a sample-size calculation: the control's mean and its standard deviation (None: binary metric)."""

    baseline: float
    deviation: float | None = None
    alpha: float = 0.05
    power: float = 0.8
    peeking: Peeking = "none"


class Point(msgspec.Struct, frozen=True):
    """A point of a power curve: the power to detect a relative lift `effect` after `days` days, with `users` in all."""

    days: int
    users: int
    effect: float
    power: float


class Sizing(msgspec.Struct, frozen=True):
    """Required sample size of a plan, and the power of its days.

    `users` by arm and `days_needed` reach the required power; `weeks_needed` rounds up to whole weeks. `by_days` has
    the power of other durations, `by_effect` that of other relative lifts after the planned days. `detectable_effect`
    is the min relative lift that the planned days detect with the required power; None where none is detected.
    """

    users: dict[str, int]
    days_needed: int
    weeks_needed: int
    power_at_days: float
    by_days: tuple[Point, ...]
    by_effect: tuple[Point, ...]
    detectable_effect: float | None = None


def plan_sizing(plan: Plan) -> Sizing:
    """Users and days that the plan needs, and the power of its planned days.

    Those of a canary rule out a loss of `minimum_effect` where there is none, one-sided and at the planned end.
    """
    design = Design(plan.baseline, plan.deviation, plan.alpha, plan.power, plan.peeking)
    if plan.harm_margin is not None:
        design = replace(design, alpha=2 * plan.alpha, peeking="none")
    a_day = plan.registrations_a_day * plan.coverage
    return sizing(design, plan.minimum_effect, plan.control, plan.arms, users_a_day=a_day, days=plan.days)


def sizing(
    design: Design, effect: float, control: str, arms: Mapping[str, float], *, users_a_day: float, days: int
) -> Sizing:
    """Users by arm and days needed to detect a relative lift of `effect`, and the power of the planned days.

    All pairs of several arms share `alpha` equally (Holm's first step); the arm with the smallest weight determines the
    users.
    """
    shares = {arm: weight / math.fsum(arms.values()) for arm, weight in arms.items()}
    min_share = min(share for arm, share in shares.items() if arm != control)
    design = replace(design, alpha=design.alpha / len(pairs([*arms])))
    total = users_needed(design, effect, ratio=min_share / shares[control], days=days) / shares[control]
    days_needed = math.ceil(total / users_a_day)

    lifts = [effect * times for times in EFFECTS]
    if design.deviation is None:
        lifts = [lift for lift in lifts if design.baseline * (1 + lift) < 1]  # a rate is below 100%

    def point(days: int, effect: float) -> Point:
        n = users_a_day * days
        reached = power(design, effect, n * shares[control], ratio=min_share / shares[control], days=days)
        return Point(days, round(n), effect, reached)

    return Sizing(
        users={arm: math.ceil(total * share) for arm, share in shares.items()},
        days_needed=days_needed,
        weeks_needed=math.ceil(days_needed / WEEK),
        power_at_days=point(days, effect).power,
        by_days=tuple(point(d, effect) for d in sorted({days, *range(WEEK, WEEK * CURVE_WEEKS + 1, WEEK)})),
        by_effect=tuple(point(days, lift) for lift in lifts),
        detectable_effect=_detectable(design, lambda lift: point(days, lift).power),
    )


def _detectable(design: Design, power_of: Callable[[float], float]) -> float | None:
    """The min relative lift with the design's power; None where even the max lift, of a rate to 100%, has less."""
    low, high = MIN_LIFT, MAX_LIFT if design.deviation is not None else (1 - TO_ALL) / design.baseline - 1
    if high <= low or power_of(high) < design.power or power_of(low) >= design.power:
        return None
    return float(brentq(lambda lift: power_of(lift) - design.power, low, high, rtol=1e-6))


def users_needed(design: Design, effect: float, *, ratio: float = 1.0, days: int = 1) -> float:
    """Users in the control that detect a relative lift of `effect` with the design's power.

    The treatment has `ratio` times as many users. Two-sided, with the pooled rate under the hypothesis, as in the score
    test (Fleiss, Levin and Paik, Statistical Methods for Rates and Proportions, section 4.3). `days` is the number of
    interim analyses where the design has a rule for peeking.
    """
    gap, null, alternative = _spread(design, effect, ratio)
    once = -float(ndtri(design.alpha / 2)) * math.sqrt(null) + float(ndtri(design.power)) * math.sqrt(alternative)
    return (once / gap) ** 2 * _sequential_inflation(
        design.peeking, design.alpha, design.power, min(days, MAX_ANALYSES)
    )


@lru_cache(maxsize=256)  # the points of a plan's curves, which a monitored experiment shows again and again
def power(design: Design, effect: float, users: float, *, ratio: float = 1.0, days: int = 1) -> float:
    """Probability of detecting a relative lift of `effect` with `users` users in the control after `days` days.

    Formula of `users_needed`; with a rule for peeking, `crossing_probability` of its bounds.
    """
    gap, null, alternative = _spread(design, effect, ratio)
    at, bounds = _interims(design.peeking, design.alpha, days)
    bounds = [bound * math.sqrt(null / alternative) for bound in bounds]
    return crossing_probability(bounds, at, drift=gap / math.sqrt(alternative / users))


def _spread(design: Design, effect: float, ratio: float) -> tuple[float, float, float]:
    """The difference, and its variance with one user in the control under the hypothesis and the alternative."""
    before, after = design.baseline, design.baseline * (1 + effect)
    if design.deviation is not None:
        variance = design.deviation**2 * (1 + 1 / ratio)
        return after - before, variance, variance
    pooled = (before + ratio * after) / (1 + ratio)
    return after - before, pooled * (1 - pooled) * (1 + 1 / ratio), before * (1 - before) + after * (1 - after) / ratio


@lru_cache(maxsize=64)
def _sequential_inflation(peeking: Peeking, alpha: float, power: float, days: int) -> float:
    """Inflation factor of the sample size under daily interim analyses, at the same power."""
    if peeking == "none":
        return 1.0
    at, bounds = _interims(peeking, alpha, days)
    once = float(ndtri(power) - ndtri(alpha / 2))

    def missing(drift: float) -> float:
        return crossing_probability(bounds, at, drift=drift) - power

    return (float(brentq(missing, 0.9 * once, 3 * once, xtol=1e-6)) / once) ** 2


@lru_cache(maxsize=64)
def _interims(peeking: Peeking, alpha: float, days: int) -> tuple[list[float], list[float]]:
    """Times of the interim analyses, as fractions of all users, and their bounds on |z|."""
    if peeking == "none":
        return [1.0], [-float(ndtri(alpha / 2))]
    analyses = min(days, MAX_ANALYSES)
    at = [(number + 1) / analyses for number in range(analyses)]
    if peeking == "always-valid":
        levels = [always_valid_alpha(share, alpha, tuned_for=1.0) for share in at]
    else:
        levels = spending_alphas(at, at, alpha)
    return at, [-float(ndtri(level / 2)) for level in levels]
