"""The end of the data: the time of the last listen, without a few listens with wrong clocks.

A label window that ends after the data is incomplete. A single listen dated 2099 would make every window look complete,
and users who have just registered look inactive. So the last days are left out where they have few listens and

- lie in the future, or
- come after a gap far longer than any before, or
- have far fewer listens than the usual day.

The reasons: docs/decisions/0002-when-the-data-end.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import accumulate, pairwise
from statistics import median
from typing import Final

FEW: Final = 10
FEW_OF: Final = 1_000
"""Limit for listens with wrong clocks: ten, or one in a thousand, and never more than half."""

FEW_OF_FUTURE: Final = 20
"""Limit in the future: one in twenty. With more, the clock of this machine is wrong, or the data are simulated."""

AHEAD: Final = timedelta(days=1)
"""Tolerance for clocks that are ahead, and for time zones."""

MANY_DAYS: Final = 90
"""Number of days with listens after which gaps and the usual number of listens can be estimated."""

FAR: Final = timedelta(days=365)
FAR_OF_MANY: Final = timedelta(days=30)
TIMES_FAR: Final = 10
"""A gap is far where it is longer than a year and than the time from registration to the end of the label window;
after MANY_DAYS, where it is longer than thirty days and than ten times the longest gap before."""

THIN: Final = 100
"""After MANY_DAYS, a day with less than a hundredth of the median day's listens is thin."""


@dataclass(frozen=True, slots=True)
class DayOfListens:
    """A day (UTC) with its number of listens, and the time at which the last of them started."""

    day: date
    listens: int
    last: datetime


def days_of_data(days: Sequence[DayOfListens], *, now: datetime | None, label_days: int) -> int:
    """The number of days, from the first on, that belong to the data; the later ones have wrong clocks.

    Times are UTC. `now` is None where the current time is unknown. `label_days`: days from a registration to the end of
    its label window.
    """
    n_days = len(days) - (0 if now is None else _future_days(days, now))
    median_listens = median(day.listens for day in days[:n_days])
    far = _far_gaps(days[:n_days], label_days)
    left_out, limit = 0, _limit(days, FEW_OF)
    for i in range(n_days - 1, 0, -1):
        left_out += days[i].listens
        if left_out > limit:
            break
        is_thin = i >= MANY_DAYS and days[i].listens * THIN < median_listens and n_days == i + 1
        if is_thin or days[i].day - days[i - 1].day > far[i]:
            n_days = i
    return n_days


def is_future(day: date, now: datetime) -> bool:
    """Whether a whole day lies further in the future than AHEAD."""
    return day > (now + AHEAD).date()


def _future_days(days: Sequence[DayOfListens], now: datetime) -> int:
    """The number of last days that lie in the future; 0 where they have more than a few listens."""
    future = [day for day in days if is_future(day.day, now)]
    return len(future) if sum(day.listens for day in future) <= _limit(days, FEW_OF_FUTURE) else 0


def _limit(days: Sequence[DayOfListens], few_of: int) -> int:
    listens = sum(day.listens for day in days)
    return min(max(FEW, listens // few_of), listens // 2)


def _far_gaps(days: Sequence[DayOfListens], label_days: int) -> list[timedelta]:
    """For each day, the length above which the gap before it is far."""
    gaps = [timedelta(0), *(later.day - earlier.day for earlier, later in pairwise(days))]
    max_before = [timedelta(0), *accumulate(gaps, max)]
    year = max(FAR, timedelta(days=label_days))
    return [max(FAR_OF_MANY, TIMES_FAR * max_before[i]) if i >= MANY_DAYS else year for i in range(len(days))]
