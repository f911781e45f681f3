"""The exploration slot: exact propensities, the budget and the floors, and the same answer from the same seed."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from scipy import integrate, stats

from firstspin.events.slot_log import SlotLog
from firstspin.records import InputError
from firstspin.serving.slot.exploration import Explorer, SlotSettings, StationRates, choose, relevance, uniform_of
from firstspin.simulation.exploration import STREAM
from firstspin.simulation.run import NEWCOMERS
from firstspin.simulation.world import PEOPLE, WORLD

NAMES = tuple(f"s{i}" for i in range(6))
DAY = 1.0


def learned(seed: int = 0, users: int = 3000) -> StationRates:
    """Rates after users saw stations 0 to 3, the first the best, and few of them the new stations 4 and 5."""
    rng = np.random.default_rng(seed)
    shown = np.concatenate([rng.integers(0, 4, users), np.full(9, 4), np.full(4, 5)])
    clicked = rng.random(len(shown)) < np.array([0.12, 0.08, 0.05, 0.02, 0.1, 0.1])[shown]
    return StationRates.of(NAMES, established=4).updated(shown, np.full(len(shown), 0.6), clicked, DAY, 14)


def some_users(n: int = 200, seed: int = 1) -> np.ndarray:
    return relevance(np.random.default_rng(seed).dirichlet(np.full(6, 0.5), n))


def test_a_posterior_by_hand() -> None:
    shown = np.array([0, 0, 1])
    rates = StationRates.of(["a", "b"]).updated(
        shown, np.array([0.5, 1.0, 1.0]), np.array([True, False, True]), DAY, 14
    )
    assert (rates.shown, rates.relevance, rates.clicks, rates.version) == ((2, 1), (1.5, 1), (1, 1), 1)
    pooled = (1 + 2) / (20 + 2.5)
    shape, rate = rates.posterior()
    assert shape.tolist() == pytest.approx([20 * pooled + 1, 20 * pooled + 1])
    assert rate.tolist() == [21.5, 21]


def test_clicks_and_relevance_lose_half_of_their_weight_per_half_life() -> None:
    before = StationRates.of(["a"]).updated(np.zeros(8, int), np.full(8, 0.5), np.ones(8, bool), 1, 14)
    after = before.updated(np.zeros(0, int), np.zeros(0), np.zeros(0, bool), 14, 14)
    assert (after.shown, after.relevance, after.clicks) == ((8,), (2,), (4,))


def a_log(stations: list[int], clicked: list[bool], days: list[str]) -> SlotLog:
    n = len(stations)
    at = np.array(days, dtype="datetime64[us]")
    half = np.full(n, 0.5)
    return SlotLog(
        ("a", "b", "c"), np.array(stations, int), np.array(stations, int), half, half, at, np.array(clicked, bool)
    )


def test_rates_are_learned_from_a_log_as_of_its_last_day_with_the_station_of_most_users_first() -> None:
    log = a_log([2, 0, 2, 2], [True, True, False, True], ["2026-01-01", "2026-01-01T23", "2026-01-15", "2026-01-15"])
    rates = StationRates.learned(log, half_life=14)
    assert rates.station_ids == ("c", "a")  # b was the greedy choice of nobody and shown to nobody
    assert (rates.shown, rates.relevance, rates.clicks) == ((3, 1), (1.25, 0.25), (1.5, 0.5))
    assert rates.established == 0
    assert StationRates.learned(log, half_life=14) == rates
    assert StationRates.learned(log, half_life=7).version != rates.version
    nothing = StationRates.learned(a_log([], [], []), half_life=14)
    assert nothing.station_ids == ()


def test_an_exposure_of_a_clock_that_was_wrong_takes_no_weight_of_those_that_follow() -> None:
    days = ["2026-01-01", "2099-01-01", "2026-01-15", "2026-01-15"]
    rates = StationRates.learned(a_log([0, 1, 0, 2], [True, True, True, False], days), half_life=14)
    assert rates.station_ids == ("a", "b", "c")
    assert (rates.relevance, rates.clicks) == ((0.75, 0.5, 0.5), (1.5, 1, 0))


def test_the_rates_of_a_catalogue_have_its_stations_alone_and_the_version_of_the_snapshot() -> None:
    log = a_log([2, 0, 2], [True, False, False], ["2026-01-01"] * 3)
    rates = StationRates.learned(log, half_life=14)
    known = rates.among(["z", "a", "b", "a"])
    assert known.station_ids == ("a", "b", "z")
    assert (known.shown, known.clicks) == ((1, 0, 0), (0, 0, 0))
    assert known.version == rates.version
    assert (Explorer(known, SlotSettings())._is_new).all()


def test_a_station_of_little_exposure_is_shrunk_towards_all_stations_together() -> None:
    shape, rate = learned().posterior()
    means, pooled = shape / rate, sum(learned().clicks) / sum(learned().relevance)
    assert means[0] > pooled > means[3]
    raw = learned().clicks[5] / learned().relevance[5]
    assert abs(means[5] - pooled) < abs(raw - pooled) / 5


def test_the_propensity_of_thompson_sampling_is_the_probability_to_be_the_best() -> None:
    """By numeric integration of f_a(v) F_b(v) over independent gamma posteriors, to the error of the stated draws."""
    rates, [user] = learned(), some_users(1)
    shape, rate = rates.posterior()
    values = [stats.gamma(a, scale=user[i] / b) for i, (a, b) in enumerate(zip(shape, rate, strict=True))]
    sampled = Explorer(rates, SlotSettings(draws=4096)).sampled(user[None])[0]
    for i, of in enumerate(values):
        others = [one for j, one in enumerate(values) if j != i]
        exact, _ = integrate.quad(lambda v, of=of, rest=others: of.pdf(v) * np.prod([one.cdf(v) for one in rest]), 0, 1)
        assert sampled[i] == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 4096) ** 0.5 + 1e-4)


def test_the_propensity_is_exactly_the_share_of_the_draws() -> None:
    explorer = Explorer(learned(), SlotSettings(draws=16, budget=1.0, floor=0.0))
    for user in some_users(20):
        wins = [int((user * draw).argmax()) for draw in explorer._draws]
        assert explorer.propensities(user[None])[0].tolist() == pytest.approx([wins.count(i) / 16 for i in range(6)])


@pytest.mark.parametrize("budget", [0.0, 0.005, 0.02, 0.1, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_budget_and_floors_hold_for_every_user(budget: float, seed: int) -> None:
    floor = min(0.01, budget / 2)
    settings = SlotSettings(seed=seed, budget=budget, floor=floor)
    users = some_users(300, seed)
    users[:, 2] = 0  # not there
    explorer = Explorer(learned(seed), settings)
    propensities = explorer.propensities(users)
    assert propensities.sum(axis=1) == pytest.approx(1)
    assert (propensities >= 0).all()
    assert (propensities[:, 2] == 0).all()
    assert explorer.expected_loss(users, propensities).max() <= budget + 1e-12
    assert (propensities[:, 4:] >= floor).all()
    if budget == 0:
        assert (propensities.argmax(axis=1) == explorer.values(users).argmax(axis=1)).all()
        assert (propensities.max(axis=1) == 1).all()


def test_of_too_many_new_stations_the_last_have_the_floors_and_a_known_one_has_none() -> None:
    user = np.array([[1.0, 1, 1, 1, 1, 1]])
    one_floor = Explorer(learned(), SlotSettings(budget=0.015, floor=0.01))
    assert one_floor._floors(user).tolist() == [[0, 0, 0, 0, 0, 0.01]]
    known = learned().updated(np.full(200, 5), np.full(200, 0.6), np.zeros(200, bool), DAY, 14)
    assert Explorer(known, SlotSettings(budget=0.015, floor=0.01))._floors(user).tolist() == [[0, 0, 0, 0, 0.01, 0]]


def test_floors_that_are_the_whole_budget_are_all_there_and_leave_no_negative_rest() -> None:
    rates = StationRates.of([f"s{i}" for i in range(60)], established=1)
    user = np.ones((1, 60))
    for floor, budget, floors in ((0.1, 0.3, 3), (0.1, 0.7, 7), (0.1, 1.0, 10), (1 / 49, 1.0, 49), (0.3, 1.0, 3)):
        propensities = Explorer(rates, SlotSettings(budget=budget, floor=floor)).propensities(user)[0]
        assert (propensities[60 - floors :] >= floor).all()
        assert (propensities >= 0).all()
        assert propensities.sum() == pytest.approx(1, abs=1e-12)


def test_without_a_click_of_many_users_a_station_that_is_not_there_is_not_shown() -> None:
    """Clicks that are lost make the rates so small that their draws are zero in floating point."""
    shown = np.arange(1_000_000) % 6
    rates = StationRates.of(NAMES).updated(shown, np.ones(len(shown)), np.zeros(len(shown), bool), DAY, 14)
    user = np.array([[0.0, 0.25, 0.25, 0.25, 0.25, 0.25]])
    for settings in (SlotSettings(), SlotSettings(budget=1.0)):
        propensities = Explorer(rates, settings).propensities(user)[0]
        assert propensities[0] == 0
        assert propensities.sum() == pytest.approx(1)


def test_a_choice_has_exactly_its_propensity() -> None:
    propensities = np.array([0.25, 0.0, 0.5, 0.125, 0.125, 0.0])
    uniform = np.arange(1000) / 1000
    shown = choose(np.tile(propensities, (1000, 1)), uniform)
    assert np.bincount(shown, minlength=6).tolist() == [250, 0, 500, 125, 125, 0]


def test_restored_rates_give_the_same_propensities_to_the_last_bit() -> None:
    rates, users = learned(), some_users()
    restored = msgspec.json.decode(msgspec.json.encode(rates), type=StationRates)
    assert restored == rates
    first, again = (Explorer(one, SlotSettings(seed=3)).propensities(users) for one in (rates, restored))
    assert (first == again).all()
    alone = np.concatenate([Explorer(rates, SlotSettings(seed=3)).propensities(user[None]) for user in users])
    assert (first == alone).all()  # the same for one user as in any batch
    assert not (first == Explorer(rates, SlotSettings(seed=4)).propensities(users)).all()


@pytest.mark.parametrize("stream", [WORLD, PEOPLE, NEWCOMERS, STREAM])
def test_the_draws_are_independent_of_the_simulation_of_the_same_seed(stream: int) -> None:
    """At no version of the rates are the posterior draws those of the random stream that made users and stations."""
    rates = msgspec.structs.replace(learned(), version=stream)
    shape, rate = rates.posterior()
    draws = Explorer(rates, SlotSettings(seed=7))._draws
    assert not (draws == np.random.default_rng([7, stream]).gamma(shape, 1 / rate, draws.shape)).any()


def test_the_number_of_a_user_is_the_same_everywhere_and_another_under_another_seed() -> None:
    numbers = np.array([uniform_of(0, f"user-{i}") for i in range(5000)])
    assert uniform_of(0, "007") == pytest.approx(uniform_of(0, "007"))
    assert stats.kstest(numbers, "uniform").pvalue > 0.001
    others = np.array([uniform_of(1, f"user-{i}") for i in range(5000)])
    assert abs(np.corrcoef(numbers, others)[0, 1]) < 0.06


@pytest.mark.parametrize(
    "wrong", [{"budget": 1.5}, {"budget": math.nan}, {"floor": -0.1}, {"draws": 0}, {"half_life_days": 0}, {"seed": -1}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))} .* is out of range"):
        msgspec.convert(wrong, SlotSettings)
