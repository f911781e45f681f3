from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr
from statsmodels.stats.power import normal_power
from statsmodels.stats.proportion import power_proportions_2indep

from firstspin.experiment.rules import Peeking
from firstspin.experiment.stats.proportions import ratio_z, table
from firstspin.experiment.stats.sizing import MAX_ANALYSES, Design, power, sizing, users_needed


@pytest.mark.parametrize(
    ("baseline", "wanted", "users"),
    [
        (0.01, 0.8, 214_158),
        (0.02, 0.8, 105_950),
        (0.02, 0.9, 141_836),
        (0.05, 0.8, 41_024),
        (0.05, 0.9, 54_919),
        (0.10, 0.8, 19_383),
        (0.10, 0.9, 25_947),
    ],
)
def test_the_reference_table_of_users_needed_for_a_lift_of_eight_point_seven_percent(
    baseline: float, wanted: float, users: int
) -> None:
    assert math.ceil(users_needed(Design(baseline, power=wanted), 0.087)) == users


@pytest.mark.parametrize("ratio", [1.0, 0.25, 3.0])
def test_power_is_that_of_statsmodels(ratio: float) -> None:
    theirs = power_proportions_2indep(0.05 * 0.087, 0.05, 30_000, ratio=1 / ratio, return_results=False)
    ours = power(Design(0.05), 0.087, 30_000 / ratio, ratio=ratio)
    assert ours == pytest.approx(theirs, abs=1e-6)
    mean = power(Design(60.0, 100.0), 0.05, 4_000)
    assert mean == pytest.approx(normal_power(3.0 / 100, 2_000, 0.05), abs=1e-6)


def test_the_users_needed_have_the_required_power() -> None:
    for peeking in ("none", "obrien-fleming", "always-valid"):
        design = Design(0.05, power=0.9, peeking=peeking)
        needed = users_needed(design, 0.087, ratio=0.5, days=10)
        assert power(design, 0.087, needed, ratio=0.5, days=10) == pytest.approx(0.9, abs=2e-3)


def test_power_is_how_often_the_test_finds_it() -> None:
    rng = np.random.default_rng(1)
    n, runs = 5_000, 40_000
    seen = table(rng.binomial(n, 0.05 * 1.2, runs), n, rng.binomial(n, 0.05, runs), n)
    found = (2 * ndtr(-np.abs(ratio_z(seen, np.ones(runs)))) <= 0.05).mean()
    assert power(Design(0.05), 0.2, n) == pytest.approx(found, abs=0.008)


def test_daily_analyses_cost_four_percent_more_users_and_always_valid_ones_a_third() -> None:
    once = users_needed(Design(0.05), 0.087)
    assert users_needed(Design(0.05, peeking="obrien-fleming"), 0.087, days=10) / once == pytest.approx(1.04, abs=0.005)
    assert 1.3 < users_needed(Design(0.05, peeking="always-valid"), 0.087, days=10) / once < 1.9


def test_the_smallest_arm_and_the_number_of_arms_set_the_need() -> None:
    even = sizing(Design(0.05), 0.087, "rule", {"rule": 1, "model": 1}, users_a_day=10_000, days=14)
    assert even.users == {"rule": 41_024, "model": 41_024}
    assert (even.days_needed, even.weeks_needed) == (9, 2)
    uneven = sizing(Design(0.05), 0.087, "rule", {"rule": 9, "model": 1}, users_a_day=10_000, days=14)
    assert uneven.days_needed > 2 * even.days_needed
    three = sizing(Design(0.05), 0.087, "rule", {"rule": 1, "model": 1, "bold": 1}, users_a_day=10_000, days=14)
    assert three.users["rule"] > even.users["rule"]


def test_the_curves_rise_with_the_days_and_with_the_effect() -> None:
    found = sizing(Design(0.05), 0.087, "rule", {"rule": 1, "model": 1}, users_a_day=4_000, days=10)
    assert [point.days for point in found.by_days] == [7, 10, 14, 21, 28, 35, 42]
    for curve in (found.by_days, found.by_effect):
        powers = [point.power for point in curve]
        assert powers == sorted(powers)
    (planned,) = (point.power for point in found.by_effect if point.effect == 0.087)
    assert planned == found.power_at_days == next(point.power for point in found.by_days if point.days == 10)


@pytest.mark.parametrize(
    ("peeking", "all_analyses", "error"), [("obrien-fleming", 1.05656, -0.0030), ("always-valid", 1.64788, 0.0257)]
)
def test_a_year_of_daily_analyses_is_sized_as_64_analyses(peeking: Peeking, all_analyses: float, error: float) -> None:
    """`all_analyses`: the inflation with all 365 analyses, by the same recursion without a max."""
    once = users_needed(Design(0.1), 0.1)
    needed = users_needed(Design(0.1, peeking=peeking), 0.1, days=365)
    assert needed / once / all_analyses - 1 == pytest.approx(error, abs=1e-4)
    assert needed == users_needed(Design(0.1, peeking=peeking), 0.1, days=MAX_ANALYSES)


@pytest.mark.parametrize("peeking", ["none", "obrien-fleming"])
def test_the_detectable_effect_is_the_lift_of_which_the_users_are_needed(peeking: Peeking) -> None:
    design = Design(0.1, peeking=peeking)
    arms = {"rule": 1.0, "model": 1.0}
    lift = sizing(design, 0.087, "rule", arms, users_a_day=50, days=28).detectable_effect
    assert lift is not None
    assert users_needed(design, lift, days=28) == pytest.approx(25 * 28, rel=0.01)
    assert sizing(Design(0.1), lift, "rule", arms, users_a_day=50, days=28).power_at_days >= 0.79
    assert sizing(Design(0.5), 0.087, "rule", arms, users_a_day=2, days=2).detectable_effect is None


@pytest.mark.parametrize(("baseline", "effect"), [(0.6, 0.5), (0.9, 0.1), (0.05, 15.0)])
def test_no_lift_of_a_rate_leads_beyond_all_users(baseline: float, effect: float) -> None:
    arms = {"rule": 1.0, "model": 1.0}
    found = sizing(Design(baseline), effect, "rule", arms, users_a_day=100, days=14)
    assert effect in (point.effect for point in found.by_effect)
    assert all(baseline * (1 + point.effect) < 1 for point in found.by_effect)


def test_all_pairs_of_three_arms_share_the_error() -> None:
    design = Design(0.05)
    three = sizing(design, 0.087, "a", {"a": 1.0, "b": 1.0, "c": 1.0}, users_a_day=20_000, days=14)
    assert three.users["b"] == math.ceil(users_needed(replace(design, alpha=0.05 / 3), 0.087))
