from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtri

from firstspin.experiment.stats.proportions import ratio_z, table
from firstspin.experiment.stats.sequential import always_valid_alpha, crossing_probability, spending_alphas, spent

POWER_OF_80 = 1.959964 + 0.841621


def z(levels: list[float]) -> list[float]:
    return [-float(ndtri(level / 2)) for level in levels]


def equal_looks(k: int) -> tuple[list[float], list[float]]:
    return [i / k for i in range(1, k + 1)], [1000.0 * i for i in range(1, k + 1)]


def test_published_bounds_of_five_equal_interim_analyses_are_reproduced() -> None:
    # Lan and DeMets' spending of O'Brien-Fleming's kind at 5%, two-sided; printed in most texts to three digits
    assert z(spending_alphas(*equal_looks(5), 0.05)) == pytest.approx([4.877, 3.357, 2.680, 2.290, 2.031], abs=6e-4)


@pytest.mark.parametrize(("looks", "constant"), [(2, 1.977), (5, 2.040), (10, 2.087), (20, 2.126)])
def test_o_brien_and_flemings_published_constants_spend_one_in_twenty(looks: int, constant: float) -> None:
    bounds = [constant * math.sqrt(looks / k) for k in range(1, looks + 1)]
    assert crossing_probability(bounds, range(1, looks + 1)) == pytest.approx(0.05, abs=2e-4)


def test_stopping_at_the_first_of_ten_daily_fixed_tests_errs_nineteen_times_in_a_hundred() -> None:
    assert crossing_probability([1.959964] * 10, range(1, 11)) == pytest.approx(0.193, abs=5e-4)


def test_ten_interim_analyses_cost_hardly_any_power() -> None:
    once = crossing_probability([1.959964], [1.0], drift=POWER_OF_80)
    fractions, users = equal_looks(10)
    daily = crossing_probability(z(spending_alphas(fractions, users, 0.05)), users, drift=POWER_OF_80)
    assert once == pytest.approx(0.8, abs=1e-5)
    assert 0.78 < daily < 0.8


@pytest.mark.parametrize(
    "users",
    [
        [100, 250, 260, 700, 701, 1500, 2000],  # a busy weekend, a day next to nothing
        [1, 2, 3, 4, 5, 6, 1000],
        [1000, 1001, 1002, 1003, 1004, 1005, 1006],
    ],
)
def test_uneven_days_still_spend_what_was_planned_by_then(users: list[float]) -> None:
    fractions = [k / 7 for k in range(1, 8)]
    bounds = z(spending_alphas(fractions, users, 0.05))
    for k in range(1, 8):
        assert crossing_probability(bounds[:k], users[:k]) == pytest.approx(spent(k / 7, 0.05), abs=2e-4)


def test_days_left_out_are_not_lost() -> None:
    assert crossing_probability(z(spending_alphas([0.5, 1.0], [500, 1000], 0.05)), [500, 1000]) == pytest.approx(0.05)
    assert spending_alphas([1.0], [1000], 0.05) == pytest.approx([0.05])


def test_the_first_of_a_hundred_interim_analyses_has_a_finite_level_that_no_z_reaches() -> None:
    levels = spending_alphas([1e-6, 0.5, 1.0], [1, 500, 1000], 0.05)
    assert 0 < levels[0] < 1e-200


def paths(seed: int, *, runs: int, looks: int, drift: float = 0.0) -> np.ndarray:
    """z of each run at each of `looks` equal looks."""
    steps = np.random.default_rng(seed).normal(drift / math.sqrt(looks), 1, (runs, looks))
    return steps.cumsum(axis=1) / np.sqrt(np.arange(1, looks + 1))


def test_daily_peeking_with_the_spending_rule_errs_no_more_than_one_time_in_twenty() -> None:
    bounds = z(spending_alphas(*equal_looks(14), 0.05))
    seen = (np.abs(paths(14, runs=100_000, looks=14)) > bounds).any(axis=1).mean()
    assert 0.0475 < seen < 0.0525


def test_fourteen_daily_analyses_of_an_a_a_test_err_at_most_one_time_in_twenty() -> None:
    runs, a_day = 20_000, 1_000
    clicked, control = np.random.default_rng(15).binomial(a_day, 0.05, (2, runs, 14)).cumsum(axis=2)
    users = a_day * np.arange(1, 15)
    seen = np.abs(ratio_z(table(clicked, users, control, users), np.ones((runs, 14))))
    assert 0.045 < (seen > z(spending_alphas(*equal_looks(14), 0.05))).any(axis=1).mean() < 0.055
    assert (seen > 1.959964).any(axis=1).mean() > 0.2  # without the rule


def test_an_always_valid_rule_errs_seldom_even_over_a_thousand_analyses() -> None:
    users = 100.0 * np.arange(1, 1001)
    bounds = np.array(z([always_valid_alpha(n, 0.05, tuned_for=20_000) for n in users]))
    seen = (np.abs(paths(7, runs=5_000, looks=1000)) > bounds).any(axis=1).mean()
    assert 0.005 < seen < 0.05


def test_crossing_with_a_drift_is_what_simulation_sees() -> None:
    bounds = z(spending_alphas(*equal_looks(10), 0.05))
    seen = (np.abs(paths(3, runs=100_000, looks=10, drift=POWER_OF_80)) > bounds).any(axis=1).mean()
    assert crossing_probability(bounds, range(1, 11), drift=POWER_OF_80) == pytest.approx(seen, abs=0.005)


def test_the_always_valid_interval_of_the_known_case_is_the_published_one() -> None:
    # GrowthBook's sequential engine at tuning 5000 gives [-6.20%, +23.60%] around the delta method's +8.7%.
    fixed_half_width = (0.17789 + 0.00389) / 2
    level = always_valid_alpha(40_000, 0.05, tuned_for=5_000)
    half = fixed_half_width * -ndtri(level / 2) / 1.959964
    assert (0.087 - half, 0.087 + half) == pytest.approx((-0.0620, 0.2360), abs=5e-5)
