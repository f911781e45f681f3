"""Summaries of each arm, and the input of the tests for two arms: the step between outcomes and statistics."""

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
    """Summary of one metric over an arm's users, before any cap; `missing` users have no value.

    `zero_share` and `quantiles` describe the distribution of a continuous metric.
    """

    arm: str
    users: int
    missing: int
    mean: float | None
    zero_share: float | None = None
    quantiles: dict[str, float] = {}


def capped(values: Numbers, metric: Metric) -> tuple[Numbers, float | None]:
    """The values (n,) with the metric's cap applied, and the cap as a number (None without one).

    Raises InputError where a percentile's cap is 0 or less.
    """
    share = percentile(metric)
    seen = values[~np.isnan(values)]
    if metric.cap is None or not len(seen):
        return values, None
    cap = float(np.quantile(seen, share)) if share is not None else float(metric.cap)
    if cap <= 0:
        raise InputError(f"{metric.column}: the cap {metric.cap} is {cap:g}; choose a higher percentile, or a number")
    return np.minimum(values, cap), cap


def arm_summary(outcomes: Outcomes, metric: int, arm: str, among: Mask) -> ArmSummary:
    """The summary of one metric over the users of an arm within the mask `among` (n,)."""
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
    """The input of the tests for two arms within the mask `among` (n,), and the fraction of variance removed.

    Covariates adjust the means by regression (`adjusted`); ratios are linearised by the delta method. Caps must be
    applied before.
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
    """The mask (n,) of an arm's users."""
    return np.equal(outcomes.arm, outcomes.arms.index(arm) if arm in outcomes.arms else -1)


def _known(outcomes: Outcomes, metric: int) -> Mask:
    known: Mask = ~np.isnan(outcomes.values[metric])
    per = outcomes.per[metric]
    return known if per is None else known & ~np.isnan(per)


def _undefined(per: Numbers | None, here: Sequence[Mask]) -> str:
    """The reason why a ratio is undefined in an arm with users; empty where it is defined in each."""
    totals = [float(per[arm].sum()) for arm in here if arm.any()] if per is not None else []
    if all(total > 0 for total in totals):
        return ""
    return NEGATIVE_DIVISOR if min(totals) < 0 else ZERO_DIVISOR


def _per_user(outcomes: Outcomes, metric: int, here: Mask) -> Numbers:
    """Values per user with the mean and variance of the metric; a ratio is linearised by the delta method.

    Empty where the divisors of a ratio don't add up to more than 0.
    """
    values, per = outcomes.values[metric][here], outcomes.per[metric]
    if per is None:
        return values
    divisor = per[here]
    if not divisor.sum() > 0:
        return values[:0]
    ratio = values.sum() / divisor.sum()
    return np.asarray(ratio + (values - ratio * divisor) / divisor.mean(), dtype=np.float64)
