"""Each arm's users in numbers, and two arms made comparable: the step between the table and the tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from firstspin.experiment.outcomes import Outcomes
from firstspin.experiment.rules import Metric, percentile
from firstspin.experiment.stats.adjust import adjusted, mean_of
from firstspin.experiment.stats.lift import NEGATIVE_DIVISOR, ZERO_DIVISOR, ClickRates, Clicks, Comparison, Means
from firstspin.records import InputError

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


class ArmSummary(msgspec.Struct, frozen=True):
    """An arm's users by one metric, before any cap; `missing` are those the table has no value for.

    `zero_share` and `quantiles` show the tail of a continuous metric, where a mean says little.
    """

    arm: str
    users: int
    missing: int
    mean: float | None
    zero_share: float | None = None
    quantiles: dict[str, float] = {}


def capped(values: Numbers, metric: Metric) -> tuple[Numbers, float | None]:
    """The values with the metric's cap applied, and the cap as a number. Raises InputError for a cap of nothing."""
    share = percentile(metric)
    seen = values[~np.isnan(values)]
    if metric.cap is None or not len(seen):
        return values, None
    cap = float(np.quantile(seen, share)) if share is not None else float(metric.cap)
    if cap <= 0:
        raise InputError(f"{metric.column}: {metric.cap} of all users is {cap:g}; choose a higher cap, or a number")
    return np.minimum(values, cap), cap


def arm_summary(outcomes: Outcomes, metric: int, arm: str, among: Mask) -> ArmSummary:
    """What the users of an arm did who are `among` (n,)."""
    here = among & of_arm(outcomes, arm)
    values, per = outcomes.values[metric][here], outcomes.per[metric]
    known = _known(outcomes, metric)[here]
    seen = values[known]
    if per is not None:
        total = float(per[here][known].sum())
        return ArmSummary(arm, len(values), int((~known).sum()), float(seen.sum()) / total if total else None)
    mean = float(seen.mean()) if len(seen) else None
    if outcomes.metrics[metric].kind == "binary" or mean is None:
        return ArmSummary(arm, len(values), int((~known).sum()), mean)
    quantiles = {name: float(np.quantile(seen, share)) for name, share in QUANTILES.items()}
    return ArmSummary(arm, len(values), int((~known).sum()), mean, float((seen == 0).mean()), quantiles)


def comparison(outcomes: Outcomes, metric: int, control: str, treatment: str, among: Mask) -> tuple[Comparison, float]:
    """The two arms' users `among` (n,) as the tests take them, and the share of variance that covariates took away.

    `outcomes.values` are taken as they are: apply the cap before.
    """
    known = among & _known(outcomes, metric)
    here = [known & of_arm(outcomes, arm) for arm in (control, treatment)]
    if outcomes.metrics[metric].kind == "binary" and not outcomes.covariates.shape[1]:
        clicks = (Clicks(int(arm.sum()), int(outcomes.values[metric][arm].sum())) for arm in here)
        return ClickRates(*clicks), 0.0
    values = [_per_user(outcomes, metric, arm) for arm in here]
    covariates = [outcomes.covariates[arm] for arm in here]
    if undefined := _undefined(outcomes.per[metric], here):
        return Means(mean_of(values[0]), mean_of(values[1]), undefined=undefined), 0.0
    return adjusted(values[0], covariates[0], values[1], covariates[1])


def of_arm(outcomes: Outcomes, arm: str) -> Mask:
    return np.equal(outcomes.arm, outcomes.arms.index(arm) if arm in outcomes.arms else -1)


def _known(outcomes: Outcomes, metric: int) -> Mask:
    known: Mask = ~np.isnan(outcomes.values[metric])
    per = outcomes.per[metric]
    return known if per is None else known & ~np.isnan(per)


def _undefined(per: Numbers | None, here: Sequence[Mask]) -> str:
    """Why an arm of a ratio has users and yet no ratio; empty where each has one."""
    totals = [float(per[arm].sum()) for arm in here if arm.any()] if per is not None else []
    if all(total > 0 for total in totals):
        return ""
    return NEGATIVE_DIVISOR if min(totals) < 0 else ZERO_DIVISOR


def _per_user(outcomes: Outcomes, metric: int, here: Mask) -> Numbers:
    """Values a user whose mean and spread are the metric's, a ratio's by the delta method; none without a divisor."""
    values, per = outcomes.values[metric][here], outcomes.per[metric]
    if per is None:
        return values
    divisor = per[here]
    if not divisor.sum() > 0:
        return values[:0]
    ratio = values.sum() / divisor.sum()
    return np.asarray(ratio + (values - ratio * divisor) / divisor.mean(), dtype=np.float64)
