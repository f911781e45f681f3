"""The simulation of bench/autoscaling.py, on loads whose outcome can be counted by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent.parent / "bench"))

from autoscaling import Policy, simulate, traffic

MINUTE = Policy(60, rps=10, safety=0.5, start=100, least=1, most=4)
TEN_SECONDS = Policy(10, rps=10, safety=0.5, start=100, least=1, most=4)


def steps(*parts: tuple[int, int]) -> np.ndarray:
    """So many seconds of so many requests, one after the other."""
    return np.concatenate([np.full(seconds, asked, np.int64) for seconds, asked in parts])


def test_a_load_at_the_target_moves_nothing() -> None:
    found = simulate(steps((3600, 5)), MINUTE)
    assert (found.requests, found.overload, found.instance_seconds, found.most) == (18_000, 0, 3600, 1)


@pytest.mark.parametrize(
    ("policy", "asked_at"),
    [
        (MINUTE, 240),  # three minutes above the target, and one until the third is known
        (TEN_SECONDS, 40),
    ],
)
def test_help_comes_after_three_periods_one_more_to_know_and_the_start(policy: Policy, asked_at: int) -> None:
    found = simulate(steps((600, 20)), policy)
    serves = asked_at + policy.start
    assert found.overload == 10 * serves  # one instance holds 10 of the 20; four hold them all
    assert found.instance_seconds == asked_at + 4 * (600 - asked_at)  # paid for from the moment they are asked for
    assert found.most == 4


def test_one_period_above_is_no_alarm() -> None:
    assert simulate(steps((60, 20), (600, 1)), MINUTE).most == 1


def test_an_endpoint_that_is_changing_takes_no_further_change() -> None:
    slow = Policy(10, rps=10, safety=0.5, start=500, least=1, most=10)
    found = simulate(steps((40, 10), (560, 50)), slow)  # asks for 2 at 40 s, and could ask for 10 only at 540 s
    assert found.overload == 40 * 500 + 30 * 60
    assert found.most == 10


def test_the_night_gives_instances_back_after_fifteen_quiet_minutes() -> None:
    found = simulate(steps((600, 20), (3600, 1)), MINUTE)
    # the last loud period ends at 600 s; the fifteenth quiet one at 1500 s is known a minute later
    assert found.instance_seconds == 240 + 4 * (1560 - 240) + (4200 - 1560)


def test_more_than_the_most_is_never_asked_for() -> None:
    found = simulate(steps((1000, 200)), MINUTE)
    assert found.most == 4
    assert found.overload == 190 * 340 + 160 * 660


def test_the_same_seed_is_the_same_day() -> None:
    days = [traffic(np.random.default_rng(seed), 2.0) for seed in (1, 1, 2)]
    assert np.array_equal(days[0], days[1])
    assert not np.array_equal(days[0], days[2])
    assert days[0][:86_400].mean() == pytest.approx(2.0, rel=0.02)
    assert days[0][86_400 + 68_430 :][:870].mean() > 15 * days[0][68_430:][:870].mean()
