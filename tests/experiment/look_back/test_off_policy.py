from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from firstspin.cli.output.verdict import estimate_text
from firstspin.experiment.look_back.off_policy import (
    Log,
    Lookback,
    crossfit_rewards,
    look_back,
    propensity_of,
    read_log,
)
from firstspin.records import InputError

SHARES = np.array([0.7, 0.3])
# click rates by segment (rows) and genre (columns): every segment has another favourite
RATES = np.array([[0.30, 0.10, 0.05], [0.05, 0.25, 0.10], [0.08, 0.12, 0.20]])
FAVOURITES = RATES.argmax(axis=1)
RULE = 0


@dataclass(frozen=True)
class Day:
    """A day's log of a rule that shows genre 0 and a model that shows something at random, and a policy's choices."""

    log: Log
    segments: np.ndarray
    candidates: np.ndarray
    chosen: np.ndarray
    truth: float

    @property
    def supported(self) -> np.ndarray:
        return propensity_of(self.chosen, self.candidates, SHARES) > 0


def a_day(rng: np.random.Generator, n: int) -> Day:
    """The policy shows the better of the two candidates; its truth is known from the rates that made the clicks."""
    segments = rng.integers(0, 3, n)
    candidates = np.column_stack([np.full(n, RULE), rng.integers(0, 3, n)])
    shown = candidates[np.arange(n), (rng.random(n) < SHARES[1]).astype(int)]
    chosen = candidates[np.arange(n), RATES[segments[:, None], candidates].argmax(axis=1)]
    clicked = (rng.random(n) < RATES[segments, shown]).astype(float)
    log = Log(shown, propensity_of(shown, candidates, SHARES), clicked)
    truth = np.mean([max(RATES[s, RULE], RATES[s, g]) for s in range(3) for g in range(3)])
    return Day(log, segments, candidates, chosen, float(truth))


def test_three_users_by_hand() -> None:
    log = Log(np.array([1, 2, 1]), np.array([0.5, 0.5, 0.25]), np.array([1.0, 1.0, 0.0]))
    found = look_back(log, np.array([1, 1, 1]), np.ones(3, bool))
    assert found.matched == 2
    assert found.shown.value == pytest.approx(2 / 3)
    assert found.ips.value.value == pytest.approx(2 / 3)  # (1/0.5 + 0 + 0/0.25) / 3
    assert found.self_normalised.value.value == pytest.approx(2 / 6)  # 2 of the weight of 6 clicked
    assert found.effective_users == pytest.approx(36 / 20)
    assert found.doubly_robust is None


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_rewards_without_spread_have_no_interval(reward: float) -> None:
    """Neither click of the two matched users, or both: an interval of width zero would be wrong."""
    log = Log(np.array([1, 2, 1, 2]), np.full(4, 0.5), np.array([reward, 1.0, reward, 0.0]))
    found = look_back(log, np.ones(4, int), np.ones(4, bool), expected=np.array([0.1, 0.2, 0.3, 0.4]))
    assert found.ips.value.value == found.self_normalised.value.value == reward
    assert found.doubly_robust is not None
    for one in (found.ips, found.self_normalised, found.doubly_robust):
        for of in (one.value, one.above_shown):
            assert of.low is of.high is None
            assert "had the same reward" in of.reason
    assert estimate_text(found.ips.value) == f"{reward:.2%}, no interval"


def test_two_arms_with_the_same_candidate_make_it_certain_and_another_item_impossible() -> None:
    candidates = np.array([[4, 4], [4, 7], [7, 4]])
    assert propensity_of(np.array([4, 4, 4]), candidates, SHARES).tolist() == [1.0, 0.7, 0.3]
    assert propensity_of(np.array([9, 9, 9]), candidates, SHARES).tolist() == [0.0, 0.0, 0.0]


def test_estimates_are_unbiased_and_their_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(1)
    runs, n = 1_500, 1_500
    values = {name: np.empty((runs, 3)) for name in ("ips", "self_normalised", "doubly_robust")}
    for run in range(runs):
        day = a_day(rng, n)
        expected = crossfit_rewards(day.log, day.chosen, day.segments, rng)
        found = look_back(day.log, day.chosen, day.supported, expected=expected)
        for name, kept in values.items():
            estimate = getattr(found, name).value
            kept[run] = estimate.value, estimate.low, estimate.high
    truth, widths = day.truth, {}
    for name, kept in values.items():
        standard_error = kept[:, 0].std() / runs**0.5
        assert kept[:, 0].mean() == pytest.approx(truth, abs=4 * standard_error), name
        assert 0.935 < ((kept[:, 1] <= truth) & (truth <= kept[:, 2])).mean() < 0.965, name
        widths[name] = (kept[:, 2] - kept[:, 1]).mean()
    assert widths["doubly_robust"] < widths["self_normalised"] < widths["ips"]


def test_the_gain_over_what_was_shown_is_paired_user_by_user() -> None:
    rng = np.random.default_rng(2)
    held, runs = 0, 600
    shown_truth = float(np.mean([SHARES @ [RATES[s, RULE], RATES[s, g]] for s in range(3) for g in range(3)]))
    for _ in range(runs):
        day = a_day(rng, 1_500)
        expected = crossfit_rewards(day.log, day.chosen, day.segments, rng)
        gain = look_back(day.log, day.chosen, day.supported, expected=expected).doubly_robust.above_shown
        held += gain.low <= day.truth - shown_truth <= gain.high
    assert 0.925 < held / runs < 0.975


def robust(day: Day, expected: np.ndarray, log: Log | None = None) -> float:
    found = look_back(log or day.log, day.chosen, day.supported, expected=expected)
    assert found.doubly_robust is not None
    return found.doubly_robust.value.value


def test_doubly_robust_holds_where_either_the_model_or_the_propensities_are_wrong_but_not_both() -> None:
    day = a_day(np.random.default_rng(3), 400_000)
    right, wrong = RATES[day.segments, day.chosen], np.full(400_000, 0.6)
    skewed = replace(day.log, propensity=np.clip(day.log.propensity * 0.6, 0, 1))
    assert robust(day, wrong) == pytest.approx(day.truth, abs=0.005)
    assert robust(day, right, skewed) == pytest.approx(day.truth, abs=0.005)
    assert robust(day, wrong, skewed) != pytest.approx(day.truth, abs=0.05)


def test_a_policy_that_shows_what_was_shown_earns_what_was_earned() -> None:
    day = a_day(np.random.default_rng(4), 5_000)
    certain = replace(day.log, propensity=np.ones(5_000))
    found = look_back(certain, day.log.shown, np.ones(5_000, bool))
    assert found.ips.value == found.shown
    assert (found.ips.above_shown.value, found.effective_users) == (0.0, 5_000.0)


def test_users_whom_no_arm_would_have_shown_the_item_have_no_support() -> None:
    day = a_day(np.random.default_rng(5), 20_000)
    everywhere = np.full(20_000, 2)
    supported = propensity_of(everywhere, day.candidates, SHARES) > 0
    found = look_back(day.log, everywhere, supported)
    assert found.support == pytest.approx(1 / 3, abs=0.02)
    assert found.self_normalised.value.value == pytest.approx(RATES[:, 2].mean(), abs=0.03)


@pytest.mark.parametrize("n", [0, 1, 50])
def test_where_nothing_matches_nothing_is_claimed(n: int) -> None:
    log = Log(np.zeros(n, int), np.ones(n), np.ones(n))
    found: Lookback = look_back(log, np.ones(n, int), np.ones(n, bool))
    assert (found.matched, found.ips.value.value, found.self_normalised.value.value) == (0, None, None)
    assert "fewer than two users" in found.ips.value.reason
    assert b"NaN" not in msgspec.json.encode(found)


@pytest.mark.parametrize("propensity", [0.0, -0.5, 1.5, float("nan")])
def test_a_propensity_that_is_none_is_refused(propensity: float) -> None:
    log = Log(np.array([1, 1]), np.array([0.5, propensity]), np.ones(2))
    with pytest.raises(InputError, match="propensity"):
        look_back(log, np.array([1, 1]), np.ones(2, bool))


def test_expected_rewards_come_from_other_users_and_near_the_truth() -> None:
    day = a_day(np.random.default_rng(6), 60_000)
    rng = np.random.default_rng(7)
    chosen = crossfit_rewards(day.log, day.chosen, day.segments, rng)
    assert np.abs(chosen - RATES[day.segments, day.chosen]).max() < 0.05
    flipped = replace(day.log, reward=day.log.reward.copy())
    flipped.reward[0] = 1 - flipped.reward[0]
    again = crossfit_rewards(flipped, day.chosen, day.segments, np.random.default_rng(7))
    assert again[0] == chosen[0]


def exposures(**columns: list[object]) -> pa.Table:
    return pa.table(columns)


def test_a_log_is_read_from_exposures_and_both_arms_candidates() -> None:
    table = exposures(
        station_id=["17", "9", "9", "4", "fallback"],
        candidates_rule=[["9", "17"], ["9"], ["9"], ["4"], ["9"]],
        candidates_model=[["17"], ["17", "9"], ["9"], ["4"], []],
        clicked=[1, 0, 1, None, 1],
    )
    log, chosen, supported = read_log(table, {"rule": 3, "model": 1}, ["17", "17", "17", "4", "9"])
    assert log.propensity.tolist() == [0.25, 0.75, 1.0, 1.0, 1.0]
    assert (log.shown == chosen).tolist() == [True, False, False, True, False]
    # the third could only be shown 9, the fourth has no answer yet, the fifth was shown what no arm proposed
    assert supported.tolist() == [True, True, False, False, False]
    found = look_back(log, chosen, supported)
    assert (found.users, found.support, found.matched) == (5, 0.4, 1)


def test_a_station_may_stand_for_its_genre() -> None:
    table = exposures(station_id=["1"], candidates_rule=[["1"]], candidates_model=[["2"]], clicked=[1])
    genres = {"1": "Rock", "2": "Rock", "3": "Rock"}
    assert not read_log(table, {"rule": 1, "model": 1}, ["3"])[2].any()
    log, chosen, supported = read_log(table, {"rule": 1, "model": 1}, ["3"], genres=genres)
    assert (log.shown[0], log.propensity[0], supported[0]) == (chosen[0], 1.0, True)
