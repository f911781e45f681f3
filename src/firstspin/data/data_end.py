"""When the data end: with the last listen, apart from a few listens whose clocks are wrong.

A label window that ends after the data is not over. One listen dated 2099 would make every window look over, and users
who have just registered inactive. So the last days are left out where they are few listens and

- lie in the future, or
- come after a gap that is far beyond any before, or
- are so thin that they can't be days of this service.

docs/decisions/0002-when-the-data-end.md tells why.
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
"""Wrong clocks are at most ten listens, or one in a thousand, and never more than half."""

FEW_OF_FUTURE: Final = 20
"""In the future, at most one in twenty: where more are, this machine's clock is wrong, or the data are simulated."""

AHEAD: Final = timedelta(days=1)
"""How far a clock may be ahead, or a time zone off, and still be right."""

MANY_DAYS: Final = 90
"""After so many days with listens it is known what the service is like."""

FAR: Final = timedelta(days=365)
FAR_OF_MANY: Final = timedelta(days=30)
TIMES_FAR: Final = 10
"""A gap is far where it is longer than a year and than the label's window is away; after many days, where it is longer
than thirty days and than ten times any gap before."""

THIN: Final = 100
"""After many days, one with less than a hundredth of the median day's listens is thin."""


@dataclass(frozen=True, slots=True)
class DayOfListens:
    """A day (UTC) that has listens: how many, and when the last of them started."""

    day: date
    listens: int
    last: datetime


def days_of_data(days: Sequence[DayOfListens], *, now: datetime | None, label_days: int) -> int:
    """How many of these days, in order, belong to the data; those after them hold wrong clocks alone.

    Times are UTC. `now` is None where the present is not known; `label_days` from a registration to its window's end.
    """
    kept = len(days) - (0 if now is None else _future_days(days, now))
    usual = median(day.listens for day in days[:kept])
    far = _far_gaps(days[:kept], label_days)
    left_out, limit = 0, _limit(days, FEW_OF)
    for i in range(kept - 1, 0, -1):
        left_out += days[i].listens
        if left_out > limit:
            break
        is_thin = i >= MANY_DAYS and days[i].listens * THIN < usual and kept == i + 1
        if is_thin or days[i].day - days[i - 1].day > far[i]:
            kept = i
    return kept


def is_future(day: date, now: datetime) -> bool:
    """Whether all of a day lies further ahead than a clock may be wrong."""
    return day > (now + AHEAD).date()


def _future_days(days: Sequence[DayOfListens], now: datetime) -> int:
    """The number of last days that lie in the future; 0 where they are not just a few listens."""
    future = [day for day in days if is_future(day.day, now)]
    return len(future) if sum(day.listens for day in future) <= _limit(days, FEW_OF_FUTURE) else 0


def _limit(days: Sequence[DayOfListens], few_of: int) -> int:
    listens = sum(day.listens for day in days)
    return min(max(FEW, listens // few_of), listens // 2)


def _far_gaps(days: Sequence[DayOfListens], label_days: int) -> list[timedelta]:
    """For each day, the gap before it that would be far."""
    gaps = [timedelta(0), *(later.day - earlier.day for earlier, later in pairwise(days))]
    longest = [timedelta(0), *accumulate(gaps, max)]  # of the days before each
    year = max(FAR, timedelta(days=label_days))
    return [max(FAR_OF_MANY, TIMES_FAR * longest[i]) if i >= MANY_DAYS else year for i in range(len(days))]
