"""The simulated month of the exploration slot: within its budget, reproducible, and with unbiased estimates."""

from __future__ import annotations

import json
import re
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from command_line import firstspin
from slot_months import errors

from firstspin.records import MAX_SEED
from firstspin.serving.slot.exploration import SlotSettings
from firstspin.simulation.exploration import (
    POLICIES,
    SLOT,
    SlotMonth,
    look_back_all,
    make_audience,
    run_policy,
    simulate_slot,
)
from firstspin.simulation.world import CLICK_FAVOURITE, CLICK_OTHER

MONTH = SlotMonth(users_a_day=60, updates_a_day=1, slot=SlotSettings(draws=32))


def test_the_slot_stays_within_its_budget_and_shows_new_stations() -> None:
    simulated = simulate_slot(MONTH)
    months = {month.policy: month for month in simulated.policies}
    assert months.keys() == POLICIES.keys()
    assert all(
        month.clicks + month.regret == pytest.approx(simulated.oracle_clicks, abs=0.2) for month in months.values()
    )
    assert all(month.regret == pytest.approx(sum(month.regret_by_week), abs=0.5) for month in months.values())
    assert months["greedy"].given_up == 0
    assert 0 < months[SLOT].given_up <= MONTH.slot.budget < months["Thompson, no budget"].given_up
    assert months[SLOT].newest >= MONTH.slot.floor
    assert [new.day for new in simulated.new_stations] == [7, 14, 21, 28]
    assert all(new.shown > new.shown_by_greedy for new in simulated.new_stations[:1])
    assert simulate_slot(MONTH) == simulated


def test_the_memory_is_that_of_one_policy() -> None:
    """The runs in full of all four would be four times as much."""
    audience = make_audience(MONTH)
    peaks = []
    for simulate in (lambda: run_policy(MONTH, audience, POLICIES[SLOT]), lambda: simulate_slot(MONTH)):
        tracemalloc.start()
        simulate()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.6 * peaks[0]


def test_a_new_station_every_week_and_a_shift_half_way() -> None:
    audience = make_audience(MONTH)
    there = (audience.appeal > 0).sum(axis=1)
    assert (there - there[0]).tolist() == [day // 7 for day in range(30)]
    changed = [(audience.appeal[day] != audience.appeal[day - 1])[: there[0]].mean() for day in range(1, 30)]
    assert [day for day, share in enumerate(changed, 1) if share] == [15]
    assert 0.1 < changed[14] < 0.6


def test_the_true_rate_of_a_new_station_is_that_of_the_last_day_however_late_it_appeared() -> None:
    audience = make_audience(MONTH)
    *_, newest = simulate_slot(MONTH).new_stations
    of_genre = audience.p[-7 * MONTH.users_a_day :, audience.genre[-1]].mean()
    assert newest.day == 28
    rate = (CLICK_OTHER + (CLICK_FAVOURITE - CLICK_OTHER) * of_genre) * audience.appeal[-1, -1]
    assert newest.truth == pytest.approx(rate, abs=1e-6)  # also of the users of five days without it


def test_no_policy_shows_a_station_before_it_is_there() -> None:
    audience = make_audience(MONTH)
    for policy in POLICIES.values():
        run = run_policy(MONTH, audience, policy)
        assert (run.propensities[np.repeat(audience.appeal == 0, MONTH.users_a_day, axis=0)] == 0).all()
        assert run.rates.version == MONTH.days


def test_a_floor_supports_every_user_from_the_launch_of_the_first_new_station_on() -> None:
    """The default floor is as large as the required propensity: rounding must not leave users out."""
    month = replace(MONTH, slot=SlotSettings(draws=8, new_until=1e9))
    audience = make_audience(month)
    *_, newest = look_back_all(month, audience, run_policy(month, audience, POLICIES[SLOT]))
    assert newest.lookback.support == 23 / 30


def test_off_policy_estimates_from_the_log_are_unbiased() -> None:
    """A short run of tests/soak/test_exploration_soak.py, which has the coverage to a percent."""
    month = replace(MONTH, slot=SlotSettings(draws=16, budget=0.3, floor=0.1))
    found = errors(month, 40)
    assert len(found) == 2
    for name, of in found.items():
        assert abs(of.bias) < 4 * of.bias_error, name
    assert 0.8 < found["best posterior mean"].coverage <= 1.0


def test_a_policy_that_the_log_says_nothing_about_has_neither_an_estimate_nor_a_true_value() -> None:
    month = SlotMonth(
        users_a_day=10, days=8, slot=SlotSettings(budget=0, floor=0)
    )  # no user is shown the newest station
    audience = make_audience(month)
    *_, newest = look_back_all(month, audience, run_policy(month, audience, POLICIES[SLOT]))
    assert newest.lookback.support == 0
    assert newest.lookback.ips.value.value is newest.truth is None
    shown = firstspin("experiment", "explore", "--users-a-day", 10, "--days", 8, "--budget", 0).stdout
    assert re.search(r"newest station +0% +- +- +-\n", shown)


@pytest.mark.parametrize("seed", [3, MAX_SEED])
def test_the_next_command_repeats_the_options_with_another_seed(seed: int) -> None:
    options = "--users-a-day", 10, "--days", 8, "--budget", 0.2
    done = firstspin("experiment", "explore", *options, "--seed", seed)
    assert done.returncode == 0
    following = f"--seed {seed + 1} " if seed < MAX_SEED else ""  # the default, 0
    assert f"Next: firstspin experiment explore --users-a-day 10 --days 8 {following}--budget 0.2" in done.stdout


def test_the_command_prints_what_the_simulation_found() -> None:
    done = firstspin("experiment", "explore", "--users-a-day", 10, "--days", 8, "--json")
    found = json.loads(done.stdout)
    assert (found["users"], found["days"], len(found["off_policy"])) == (80, 8, 2)
