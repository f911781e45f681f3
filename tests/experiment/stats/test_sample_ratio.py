from __future__ import annotations

import itertools
import math

import msgspec
import numpy as np
import pytest
from scipy.special import gammaln

from firstspin.experiment.stats.sample_ratio import log_e_value, sample_ratio

EVEN = {"control": 1.0, "model": 1.0}


def check(control: int, model: int) -> tuple[bool, float | None]:
    checked = sample_ratio([{"control": control, "model": model}], EVEN)
    return checked.sound, checked.p_value


def test_an_even_split_is_sound() -> None:
    assert check(20_000, 20_000) == (True, 1.0)


def test_fifty_two_to_forty_eight_is_not() -> None:
    sound, p = check(20_800, 19_200)
    assert not sound
    assert p == pytest.approx(1.244e-15, rel=1e-3)


def test_the_players_of_cookie_cats_raise_the_alarm() -> None:
    checked = sample_ratio([{"control": 44_700, "model": 45_489}], EVEN)
    assert checked.chi_square == pytest.approx(6.90, abs=0.005)
    assert checked.p_value == pytest.approx(0.0086, abs=5e-5)
    assert not checked.sound
    assert "0.0086" in checked.reason


def test_before_the_end_only_the_sequential_check_may_raise_the_alarm() -> None:
    assert sample_ratio([{"control": 44_700, "model": 45_489}], EVEN, final=False).sound
    assert not sample_ratio([{"control": 20_800, "model": 19_200}], EVEN, final=False).sound


def test_three_arms_of_uneven_weights_are_held_to_them() -> None:
    weights = {"control": 2.0, "a": 1.0, "b": 1.0}
    checked = sample_ratio([{"control": 500, "a": 260, "b": 240}], weights)
    assert checked.expected == {"control": 500.0, "a": 250.0, "b": 250.0}
    assert checked.chi_square == pytest.approx(100 / 250 + 100 / 250)


def test_a_missing_arm_counts_as_zero_users() -> None:
    assert not sample_ratio([{"control": 1_000}], EVEN).sound


@pytest.mark.parametrize("looks", [[], [{}], [{"control": 0, "model": 0}]])
def test_without_users_nothing_is_known(looks: list[dict[str, int]]) -> None:
    checked = sample_ratio(looks, EVEN)
    assert (checked.p_value, checked.log10_e_value, checked.sound) == (None, None, False)
    assert checked.reason == "no users"


def test_one_user_is_no_reason_for_alarm() -> None:
    assert check(1, 0)[0]


def test_a_mismatch_that_was_mended_later_is_still_a_mismatch() -> None:
    looks = [{"control": 5_800, "model": 4_200}, {"control": 50_000, "model": 50_000}]
    checked = sample_ratio(looks, EVEN)
    assert checked.p_value == 1.0
    assert not checked.sound
    assert "at an interim analysis" in checked.reason


def test_millions_of_users_all_in_one_arm_still_make_a_number() -> None:
    encoded = msgspec.json.encode(sample_ratio([{"control": 50_000_000, "model": 0}], EVEN))
    assert b"null" not in encoded
    assert b"inf" not in encoded


def test_the_e_value_is_the_average_likelihood_ratio_over_splits_near_the_promised_one() -> None:
    share = (np.arange(200_000) + 0.5) / 200_000
    near = np.exp(49 * np.log(share) + 49 * np.log(1 - share) - 2 * gammaln(50) + gammaln(100))
    ratio = (share / 0.5) ** 60 * ((1 - share) / 0.5) ** 40
    assert math.exp(log_e_value([60, 40], [0.5, 0.5])) == pytest.approx(float((near * ratio).mean()), rel=1e-6)


def e_values(share: float, *, runs: int, seed: int) -> np.ndarray:
    """The largest e-value's logarithm of each run: 40,000 users, looked at after every 400."""
    heads = np.random.default_rng(seed).binomial(400, share, (runs, 100)).cumsum(axis=1)
    return np.array(
        [max(log_e_value([h, n - h], [0.5, 0.5]) for h, n in zip(run, itertools.count(400, 400))) for run in heads]
    )


def test_a_hundred_interim_analyses_of_a_sound_split_hardly_ever_raise_the_alarm() -> None:
    assert (e_values(0.5, runs=400, seed=2) > math.log(1000)).mean() <= 0.005


def test_a_hundred_interim_analyses_of_a_split_off_by_two_points_nearly_always_do() -> None:
    assert (e_values(0.52, runs=200, seed=3) > math.log(1000)).mean() > 0.98
