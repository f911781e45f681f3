"""A figure is a mean with its 95% interval; figures drawn together can be subtracted and divided by person.

Intervals are percentile bootstraps: the people are drawn again, and one draw serves all columns, so that differences
are paired. Figures are kept to six decimals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from firstspin import metrics

Array = NDArray[np.float64]

RESAMPLES: Final = 1000


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Lift:
    """How much better than a baseline, as a difference and as a share of the baseline, paired by person."""

    difference: Figure
    relative: Figure


@dataclass(frozen=True, slots=True)
class Drawn:
    """A mean, and what it was each time the people were drawn again."""

    mean: float
    again: Array

    def figure(self) -> Figure:
        return figure(self.mean, self.again)

    def over(self, other: Drawn) -> Lift:
        return Lift(figure(self.mean - other.mean, self.again - other.again), _less_one(self.share_of(other)))

    def share_of(self, other: Drawn) -> Figure:
        """This as a part of another, not defined where the other is zero."""
        shares = np.divide(self.again, other.again, out=np.full_like(self.again, np.nan), where=other.again != 0)
        return figure(self.mean / other.mean if other.mean else float("nan"), shares)


def _less_one(share: Figure) -> Figure:
    return Figure(round(share.value - 1, 6), round(share.low - 1, 6), round(share.high - 1, 6))


def draw(values: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Drawn]:
    """Means of values (n,) by name, drawn again together."""
    table = np.stack(list(values.values()), axis=1)
    drawn = metrics.paired_bootstrap(table, RESAMPLES, rng)
    return {name: Drawn(float(table[:, i].mean()), drawn[:, i]) for i, name in enumerate(values)}


def figure(value: float, drawn: Array) -> Figure:
    """A mean with the interval of what it was when people were drawn again."""
    low, high = metrics.interval(drawn)
    return Figure(round(float(value), 6), round(low, 6), round(high, 6))
