"""Drift: whether a column of the service's registrations, or its answers, differ from those that training had.

Each week of a bundle is compared with the training tables and all earlier weeks together. Under no drift, the
differences z of successive weeks are independent and standard normal, however small the training sample is. The share
of each category gets the variance-stabilising arcsine (Freeman and Tukey, Annals of Mathematical Statistics 21, 1950).

For a change of size b from week s on, exp(b z - b^2 / 2) multiplied over the weeks since s is the likelihood ratio. Its
sum over all s is the Shiryaev-Roberts statistic, an e-detector (Shin, Ramdas and Rinaldo, E-detectors, New England
Journal of Statistics in Data Science 2, 2024): without drift its mean after t weeks is at most t. The statistic of a
column is the mean over its categories and over sizes b, so the same holds. By Doob's inequality a column exceeds 52 K
within 52 weeks with a probability of at most 1 / K, so K columns have at most one false alarm a year.

The first genres of the answers have no training counts, as a model's answers to its own training users are no sample of
its answers to others: their weeks are compared with the bundle's earlier weeks.

Weeks, not days: registrations of a Sunday differ from those of a Monday every week. For the same reason a week counts
only where the bundle has answered on each of its days, and on the day before, so that its Monday is whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from datetime import date, datetime, timedelta
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from firstspin.evaluation.cohorts import OTHER
from firstspin.events.answer_counts import DayCounts
from firstspin.models.input_reference import InputReference
from firstspin.serving.bundle import Bundle
from firstspin.watch.inputs import PICKS, REGISTRATIONS, Counts
from firstspin.watch.quality import monday

Numbers = NDArray[np.float64]

WEEKS_A_YEAR: Final = 52
SIZES: Final = np.array([sign * size for size in (0.25, 0.5, 1.0, 2.0, 3.0) for sign in (1, -1)])
MIN_VARIANCE: Final = 10.0
"""Of a category's count in a week, less where rounding adds to it, as that many users fewer would have.

Below it a category is not tested, as the normal distribution is not close enough.
"""
ROUNDING_VARIANCE: Final = 25.0
"""The max variance of a count that is rounded at random to 0 or 10."""


_OTHER_PICKS: Final = (PICKS, OTHER)
"""Not tested: a user can have several, so their number is not binomial. Other first picks are."""


class InputWeek(msgspec.Struct, frozen=True):
    """Counts of a week's inputs and answers of one bundle; `rounded` is how often each count was rounded."""

    week: str
    columns: Counts
    rounded: int


class ColumnDrift(msgspec.Struct, frozen=True):
    """The state of a column: `value` of its statistic, and the week in which it first reached `threshold`, if any.

    `category` moved most in that week, from the share `before` to `after`.
    """

    column: str
    value: float
    threshold: float
    since: str | None = None
    category: str | None = None
    before: float | None = None
    after: float | None = None


def differences(
    counts: Numbers,
    totals: Numbers,
    reference: Numbers,
    reference_total: float,
    rounded: Numbers,
    *,
    several: bool = False,
) -> Numbers:
    """(t, c) differences z of t weeks from all before them, by category.

    `counts` (t, c) of c categories, `totals` and `rounded` (t,), `reference` (c,). Axes before these are allowed.
    `several`: a user has several categories, and the totals are counted by themselves; else they are the sums of the
    counts, and have the rounding errors of all of them.
    """
    pool = np.cumsum(np.concatenate([reference[..., None, :], counts[..., :-1, :]], axis=-2), axis=-2)
    pool_total = _before(totals, reference_total)
    total = totals[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (counts + pool) / (total + pool_total)
        variance = np.maximum(0, total * share * (1 - share))  # a rounded count can be above its total
        errors = 1 + share**2 if several else (1 - share) ** 2 + (counts.shape[-1] - 1) * share**2
        added = ROUNDING_VARIANCE * rounded[..., None] * errors  # of count - share * total
        is_tested = (variance / (1 + added / variance) >= MIN_VARIANCE) & (pool_total > 0)
        now, before = np.clip(counts / total, 0, 1), np.clip(pool / pool_total, 0, 1)
        z = 2 * (np.arcsin(np.sqrt(now)) - np.arcsin(np.sqrt(before)))
        added_before = ROUNDING_VARIANCE * _before(rounded, 0.0) * errors
        added_to_shares = (added / total**2 + added_before / pool_total**2) / (share * (1 - share))
        z /= np.sqrt(1 / total + 1 / pool_total + added_to_shares)
    return np.where(is_tested, z, 0.0)


def _before(numbers: Numbers, first: float) -> Numbers:
    """(t, 1) the sum of `first` and all earlier of t `numbers`. Axes before these are allowed."""
    start = np.full_like(numbers[..., :1], first)
    return np.cumsum(np.concatenate([start, numbers[..., :-1]], axis=-1), axis=-1)[..., None]


def statistic(z: Numbers) -> Numbers:
    """(t,) the logarithm of a column's statistic after each week, from `z` (t, c). Axes before these are allowed."""
    state = np.full((*z.shape[:-2], z.shape[-1], len(SIZES)), -np.inf)
    after = np.empty(z.shape[:-1])
    for week in range(z.shape[-2]):
        state = np.logaddexp(0, state) + z[..., week, :, None] * SIZES - SIZES**2 / 2
        peak = state.max(axis=(-2, -1), keepdims=True)
        after[..., week] = np.log(np.exp(state - peak).mean(axis=(-2, -1))) + peak[..., 0, 0]
    return after


class BundleDrift(msgspec.Struct, frozen=True):
    """The columns of a bundle after its whole `weeks`; none where the bundle has no reference."""

    model: str
    weeks: int
    columns: tuple[ColumnDrift, ...]


def bundle_drift(counts: Sequence[DayCounts], bundles: Sequence[Bundle], now: datetime) -> list[BundleDrift]:
    """The drift of every bundle, from its whole weeks that are over at `now` (UTC)."""
    drifts = []
    for one in bundles:
        days = {day.day for day in counts if any(sums.cell.model == one.id for sums in day.answers)}
        over = [week for week in input_weeks(counts, one.id) if week.week < monday(now.date())]
        weeks = [week for week in over if _is_whole(week.week, days)]
        columns = tuple(drift(one.manifest.inputs, weeks)) if one.manifest.inputs else ()
        drifts.append(BundleDrift(one.id, len(weeks), columns))
    return drifts


def _is_whole(week: str, days: Set[str]) -> bool:
    """Whether each day of the week, and the one before, is among `days` with answers."""
    first = date.fromisoformat(week)
    return all((first + timedelta(days=i)).isoformat() in days for i in range(-1, 7))


def input_weeks(counts: Sequence[DayCounts], model: str) -> list[InputWeek]:
    """The inputs of one bundle by week, ascending."""
    weeks: dict[str, tuple[dict[str, Counter[str]], list[int]]] = {}
    for day in counts:
        for inputs in day.inputs:
            if inputs.model == model:
                columns, rounded = weeks.setdefault(monday(date.fromisoformat(day.day)), ({}, []))
                rounded.append(inputs.rounded)
                for column, of in inputs.columns.items():
                    columns.setdefault(column, Counter()).update(of)
    return [
        InputWeek(week, {name: dict(of) for name, of in columns.items()}, sum(rounded))
        for week, (columns, rounded) in sorted(weeks.items())
    ]


def drift(reference: InputReference, weeks: Sequence[InputWeek]) -> list[ColumnDrift]:
    """The state of every column of a bundle after its whole `weeks`, ascending. An alarm stays."""
    columns = [column for column in reference.columns if column != REGISTRATIONS]
    threshold = float(WEEKS_A_YEAR * len(columns))
    return [_column(column, reference, weeks, threshold) for column in columns]


def _column(column: str, reference: InputReference, weeks: Sequence[InputWeek], threshold: float) -> ColumnDrift:
    names = [name for name in reference.columns[column] if (column, name) != _OTHER_PICKS]
    if not weeks or not names:
        return ColumnDrift(column, 0.0, threshold)
    counts = np.array([[week.columns.get(column, {}).get(name, 0) for name in names] for week in weeks], dtype=float)
    known = np.array([reference.columns[column][name] for name in names], dtype=float)
    totals = np.array([_total(column, week.columns) for week in weeks], dtype=float)
    known_total = float(_total(column, reference.columns))
    rounded = np.array([week.rounded for week in weeks], dtype=float)
    z = differences(counts, totals, known, known_total, rounded, several=column == PICKS)
    values = statistic(z)
    value = round(float(np.exp(min(values[-1], 700.0))), 3)
    alarms = np.flatnonzero(values >= np.log(threshold))
    if not len(alarms):
        return ColumnDrift(column, value, threshold)
    first = int(alarms[0])
    moved = int(np.abs(z[first]).argmax())
    before = (known[moved] + counts[:first, moved].sum()) / (known_total + totals[:first].sum())
    after = counts[first, moved] / totals[first]
    shares = (round(float(before), 4), round(float(after), 4))
    return ColumnDrift(column, value, threshold, weeks[first].week, names[moved], *shares)


def _total(column: str, columns: Mapping[str, Mapping[str, int]]) -> int:
    return sum(columns.get(REGISTRATIONS if column == PICKS else column, {}).values())
