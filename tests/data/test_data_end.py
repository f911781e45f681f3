"""The data end with the last listen, apart from a few listens with wrong clocks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta

import pytest

from firstspin.data.checks.data_end import DayOfListens, days_of_data

START = date(2025, 1, 1)
NOW = datetime(2025, 12, 1, 12)


def ends(listens: Mapping[int, int], *, now: datetime | None = None, label_days: int = 60) -> int:
    """The last day of the data, from listens by day since START."""
    days = [_day(START + timedelta(days=at), n) for at, n in sorted(listens.items())]
    return (days[days_of_data(days, now=now, label_days=label_days) - 1].day - START).days


def _day(day: date, listens: int) -> DayOfListens:
    return DayOfListens(day, listens, datetime(day.year, day.month, day.day, 23))


def daily(days: int, listens: int) -> dict[int, int]:
    return dict.fromkeys(range(days), listens)


@pytest.mark.parametrize("now", [None, NOW])
def test_the_last_listen_ends_the_data(now: datetime | None) -> None:
    assert ends({0: 1}, now=now) == 0
    assert ends({0: 3, 33: 1}, now=now) == 33
    assert ends(daily(200, 20), now=now) == 199
    assert ends(daily(200, 20) | {209: 1}, now=now) == 209  # a service so small may have such days


def test_a_listen_of_the_future_does_not() -> None:
    assert ends({35: 3, 68: 1, 83: 1, 27_000: 1}, now=NOW) == 83
    assert ends(daily(330, 20) | {335: 1}, now=NOW) == 335  # ahead by a day: clocks may be
    assert ends(daily(330, 20) | {336: 1}, now=NOW) == 329
    assert ends(daily(330, 20) | {340: 90, 27_000: 1}, now=NOW) == 329


def test_where_many_listens_are_of_the_future_the_clock_of_this_machine_is_wrong() -> None:
    assert ends(daily(400, 20), now=NOW) == 399
    assert ends({0: 1, 400: 1}, now=NOW) == 0
    assert ends({400: 1}, now=NOW) == 400


def test_without_a_present_a_gap_far_beyond_all_others_tells() -> None:
    assert ends({35: 3, 68: 1, 83: 1, 27_000: 1}) == 83
    assert ends({35: 3, 68: 1, 83: 1, 2_000: 1, 27_000: 1}) == 83
    assert ends({0: 3, 365: 1}) == 365
    assert ends({0: 3, 366: 1}) == 0
    assert ends({0: 3, 366: 1}, label_days=400) == 366  # so far away may a label be
    assert ends(daily(200, 20) | {240: 1}) == 199
    assert ends(daily(200, 20) | {229: 1}) == 229
    assert ends({at * 7: 20 for at in range(100)} | {99 * 7 + 60: 1}) == 99 * 7 + 60  # the gaps before are weeks


def test_days_that_are_too_thin_for_the_service_do_not_end_the_data() -> None:
    assert ends(daily(200, 10_000) | {200: 3, 205: 2}) == 199
    assert ends(daily(200, 10_000) | {200: 100}) == 200  # a last day that the export has in part
    assert ends(daily(200, 10_000) | {200: 3, 201: 9_000}) == 201
    assert ends({0: 10_000, 33: 1}) == 33  # of a few days nobody knows what is usual


def test_more_than_a_few_listens_are_no_wrong_clocks() -> None:
    assert ends({0: 30, 1: 30, 500: 11}) == 500
    assert ends({0: 30, 1: 30, 500: 10}) == 1
    assert ends({0: 1, 500: 2}) == 500  # never more than half
