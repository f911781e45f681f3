"""Means with 95% percentile bootstrap intervals, and paired differences and ratios of them.

All means of one call share the resamples, so differences are paired by user. Figures have six decimals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from firstspin.evaluation import metrics

Array = NDArray[np.float64]

RESAMPLES: Final = 1000


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean with its 95% interval, from `low` to `high`."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """The mean with the half-width of its interval: three decimals, without the zero before the point."""
        return f"{bare(self.value)} ±{bare((self.high - self.low) / 2)}"

    def percent(self) -> str:
        """A relative lift in percent, and the half-width of its interval in percentage points."""
        if self.value != self.value:  # the baseline has no hit
            return "–"
        return f"{self.value:+.1%} ±{(self.high - self.low) * 50:.1f}"


def bare(value: float) -> str:
    """Three decimals, without the zero before the point.

    >>> bare(0.6784)
    '.678'
    """
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0.") else text


@dataclass(frozen=True, slots=True)
class PairedLift:
    """Lift over a baseline, absolute and relative to the baseline, paired by user."""

    difference: Figure
    relative: Figure


@dataclass(frozen=True, slots=True)
class Resampled:
    """A mean, and its value in each bootstrap resample (resamples,)."""

    mean: float
    resamples: Array

    def figure(self) -> Figure:
        """The mean with its interval."""
        return figure(self.mean, self.resamples)

    def over(self, other: Resampled) -> PairedLift:
        """The lift over a baseline of the same resamples."""
        return PairedLift(
            figure(self.mean - other.mean, self.resamples - other.resamples), _less_one(self.share_of(other))
        )

    def share_of(self, other: Resampled) -> Figure:
        """The ratio to another mean of the same resamples; NaN where the other mean is zero."""
        undefined = np.full_like(self.resamples, np.nan)
        shares = np.divide(self.resamples, other.resamples, out=undefined, where=other.resamples != 0)
        return figure(self.mean / other.mean if other.mean else float("nan"), shares)


def _less_one(share: Figure) -> Figure:
    return Figure(round(share.value - 1, 6), round(share.low - 1, 6), round(share.high - 1, 6))


def resample(values: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Resampled]:
    """Paired bootstrap means of the `values` (n,) of each name."""
    table = np.stack(list(values.values()), axis=1)
    means = metrics.paired_bootstrap(table, RESAMPLES, rng)
    return {name: Resampled(float(table[:, i].mean()), means[:, i]) for i, name in enumerate(values)}


def figure(value: float, resamples: Array) -> Figure:
    """A mean with the percentile interval of its `resamples` (resamples,)."""
    low, high = metrics.interval(resamples)
    return Figure(round(float(value), 6), round(low, 6), round(high, 6))
