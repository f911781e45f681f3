from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from firstspin.experiment.outcomes import Outcomes, read_outcomes
from firstspin.experiment.rules import Metric, parse_metric
from firstspin.experiment.stats.lift import ClickRates, Clicks, Means, lift
from firstspin.experiment.summary import arm_summary, capped, comparison
from firstspin.records import InputError


def outcomes(metric: str, **columns: list[object]) -> Outcomes:
    return read_outcomes(pa.table(columns), arm="arm", metrics=[parse_metric(metric)])


def everybody(found: Outcomes) -> np.ndarray:
    return np.ones(len(found), dtype=bool)


def test_a_percentile_caps_all_arms_together_and_gaps_stay_gaps() -> None:
    values = np.array([*range(1, 101), 10_000, np.nan], dtype=float)
    cut, cap = capped(values, Metric("s", "continuous", cap="p90"))
    assert cap == 91.0
    assert np.nanmax(cut) == 91.0
    assert np.isnan(cut[-1])


def test_a_number_caps_as_it_stands_and_no_cap_leaves_all() -> None:
    values = np.array([1.0, 50.0])
    assert capped(values, Metric("s", "continuous", cap=20.0))[0].tolist() == [1.0, 20.0]
    assert capped(values, Metric("s", "continuous"))[1] is None


def test_a_percentile_cap_of_zero_is_refused() -> None:
    with pytest.raises(InputError, match="choose a higher percentile"):
        capped(np.array([0.0] * 99 + [5.0]), Metric("s", "continuous", cap="p90"))


def test_a_summary_shows_the_tail_that_a_mean_hides() -> None:
    found = outcomes("s:continuous", arm=["a"] * 4 + ["b"], s=[0.0, 0.0, 10.0, None, 1.0])
    a = arm_summary(found, 0, "a", everybody(found))
    assert (a.users, a.missing, a.mean, a.zero_share) == (4, 1, pytest.approx(10 / 3), pytest.approx(2 / 3))
    assert a.quantiles["max"] == 10.0


def test_an_arm_without_users_has_an_empty_summary() -> None:
    found = outcomes("s:continuous", arm=["a", "b"], s=[1.0, 2.0])
    nobody = arm_summary(found, 0, "c", everybody(found))
    assert (nobody.users, nobody.mean, nobody.quantiles) == (0, None, {})


def test_yes_or_no_is_compared_by_its_counts() -> None:
    found = outcomes("c:binary", arm=["a", "a", "a", "b", "b"], c=[1, 0, None, 1, 1])
    assert comparison(found, 0, "a", "b", everybody(found)) == (ClickRates(Clicks(2, 1), Clicks(2, 2)), 0.0)


def test_a_ratio_is_the_sum_over_the_sum_with_the_error_of_the_delta_method() -> None:
    rng = np.random.default_rng(1)
    visits = rng.integers(1, 9, 4_000)
    clicks = rng.binomial(visits, 0.3)
    found = outcomes("c:ratio=v", arm=["a", "b"] * 2_000, c=clicks.tolist(), v=visits.tolist())
    means, _ = comparison(found, 0, "a", "b", everybody(found))
    assert isinstance(means, Means)
    a, v = clicks[0::2], visits[0::2]
    assert means.control.mean == pytest.approx(a.sum() / v.sum())
    resampled = rng.integers(0, 2_000, (2_000, 2_000))
    spread = (a[resampled].sum(axis=1) / v[resampled].sum(axis=1)).std()
    assert means.control.variance**0.5 == pytest.approx(spread, rel=0.06)


def test_a_ratio_over_nothing_is_not_known() -> None:
    found = outcomes("c:ratio=v", arm=["a", "a", "b", "b"], c=[1.0, 2.0, 0.0, 0.0], v=[3, 3, 0, 0])
    assert arm_summary(found, 0, "b", everybody(found)).mean is None
    seen = lift(comparison(found, 0, "a", "b", everybody(found))[0])
    assert seen.p_value is None
    assert seen.relative.reason
