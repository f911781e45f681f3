"""A month of the exploration slot on simulated users: its regret beside other policies, and off-policy estimates.

Users of the simulated service register every day. Each sees one station and clicks it with a true probability: that of
its genre (`world.click_probabilities`) times the station's appeal. A new station appears every week, and half-way the
appeal of a third of the stations is sampled anew. All policies see the same users, whose clicks are decided by the same
random numbers, and each learns from its own log only. The genre probabilities of the model are the true ones, so that
regret is that of the stations' rates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from firstspin.experiment.look_back.off_policy import Log, look_back
from firstspin.models.task import Progress, silent
from firstspin.serving.slot.exploration import (
    MIN_PROPENSITY,
    Explorer,
    SlotSettings,
    StationRates,
    choose,
    relevance,
    uniform_of,
)
from firstspin.simulation.oracle import NeverShown
from firstspin.simulation.world import CLICK_FAVOURITE, CLICK_OTHER, make_world, newcomers

Array = NDArray[np.float64]
Stations = NDArray[np.int64]

STREAM: Final = 4  # the seed's random stream of the slot's users
STATIONS_A_GENRE: Final = 2
NEW_EVERY_DAYS: Final = 7
APPEAL_SPREAD: Final = 0.5  # standard deviation of the log of a station's appeal
EPSILON: Final = 0.1
SLOT: Final = "slot"
GREEDY: Final = "greedy"
DEFAULTS: Final = SlotSettings()


@dataclass(frozen=True, slots=True)
class SlotMonth:
    """The setting of a simulation; clicks reach the policies `updates_a_day` times a day."""

    users_a_day: int = 2000
    days: int = 30
    seed: int = 0
    updates_a_day: int = 4
    slot: SlotSettings = DEFAULTS


@dataclass(frozen=True, slots=True)
class SlotAudience:
    """n users in the order of registration, S stations, and everything that decides the clicks.

    `p` (n, k): genre probabilities · `genre` (S,): genre of each station · `appeal` (days, S), 0 before its first day ·
    `uniform`, `reluctance` (n,): a user is shown the station at this quantile, and clicks where the probability is
    higher.
    """

    p: Array
    genre: Stations
    appeal: Array
    uniform: Array
    reluctance: Array

    def truth(self, users: slice, day: int) -> Array:
        """(m, S) true click probabilities on a day."""
        of_genre = CLICK_OTHER + (CLICK_FAVOURITE - CLICK_OTHER) * self.p[users]
        return np.asarray(of_genre[:, self.genre] * self.appeal[day])

    def relevance(self, users: slice, day: int) -> Array:
        """(m, S) relevance of the stations to the users, as the service computes it; 0 where a station is not there."""
        return np.asarray(relevance(self.p[users][:, self.genre]) * (self.appeal[day] > 0))


class PolicyMonth(msgspec.Struct, frozen=True):
    """One policy's month: expected clicks and regret (clicks fewer than the oracle), in all and by week.

    `given_up`: the share of the greedy choice's clicks that it gave up by its own posterior means, at the time ·
    `newest`: the share of users who were shown a station in its first week.
    """

    policy: str
    clicks: float
    regret: float
    regret_by_week: tuple[float, ...]
    given_up: float
    newest: float


class NewStation(msgspec.Struct, frozen=True):
    """What the slot and greedy learned about a station that appeared on `day` (from 0).

    `shown` is a number of users, `rate` the click rate if all users of the last week saw it on the last day, by
    the posterior mean; `truth` is the true one.
    """

    day: int
    shown: int
    shown_by_greedy: int
    rate: float
    rate_by_greedy: float
    truth: float


class SlotSimulated(msgspec.Struct, frozen=True):
    """The result: every policy's month, and off-policy estimates from the slot's log beside their true values."""

    users: int
    days: int
    seed: int
    stations: int
    oracle_clicks: float
    policies: tuple[PolicyMonth, ...]
    new_stations: tuple[NewStation, ...]
    off_policy: tuple[NeverShown, ...]


@dataclass(frozen=True, slots=True)
class SlotRun:
    """A policy's month in full: per user the station shown, its propensity, and whether it was clicked, all (n,).

    `propensities`, `truth` (n, S), `greedy` (n,): the station with the best posterior mean at the time · `given_up`
    (n,) · `rates`: what was learned by the end.
    """

    shown: Stations
    propensities: Array
    clicked: NDArray[np.bool_]
    truth: Array
    greedy: Stations
    given_up: Array
    rates: StationRates


Policy = Callable[[Explorer, Array], Array]
"""An explorer and relevances (m, S) -> propensities (m, S)."""


def simulate_slot(month: SlotMonth, progress: Progress = silent) -> SlotSimulated:
    """Run every policy over the month. Takes about a second per 10,000 users and policy."""
    progress("newcomers", 0.0)
    audience = make_audience(month)
    found = []
    for i, name in enumerate(POLICIES):
        progress(name, (i + 1) / (len(POLICIES) + 1))
        found.append(_measured(name, month, audience))
    progress("done", 1.0)
    months, rates, (oracle_clicks, *_), (off_policy, *_) = zip(*found, strict=True)
    learned = dict(zip(POLICIES, rates, strict=True))
    return SlotSimulated(
        users=len(audience.p),
        days=month.days,
        seed=month.seed,
        stations=len(audience.genre),
        oracle_clicks=oracle_clicks,
        policies=months,
        new_stations=_new_stations(month, audience, learned[SLOT], learned[GREEDY]),
        off_policy=off_policy,
    )


def make_audience(month: SlotMonth) -> SlotAudience:
    """Draw the users and the stations of a month."""
    rng = np.random.default_rng([month.seed, STREAM])
    world = make_world(month.seed)
    n, k = month.users_a_day * month.days, len(world.genres)
    people = newcomers(world, n, rng)
    launched = np.arange(NEW_EVERY_DAYS, month.days, NEW_EVERY_DAYS)
    genre = np.concatenate(
        [np.repeat(np.arange(k), STATIONS_A_GENRE), rng.choice(k, len(launched), p=people.p.mean(axis=0))]
    )
    first_day = np.concatenate([np.zeros(k * STATIONS_A_GENRE, dtype=np.int64), launched])
    before, after = np.exp(rng.normal(-(APPEAL_SPREAD**2) / 2, APPEAL_SPREAD, (2, len(genre))))
    shifted = rng.random(len(genre)) < 1 / 3
    day = np.arange(month.days)[:, None]
    appeal = np.where((day >= month.days // 2) & shifted, after, before) * (day >= first_day)
    uniform = np.array([uniform_of(month.slot.seed, f"u{i}") for i in range(n)])
    return SlotAudience(people.p, genre, appeal, uniform, people.reluctance)


def run_policy(month: SlotMonth, audience: SlotAudience, policy: Policy) -> SlotRun:
    """The month of one policy, which learns from its own clicks."""
    established = int((audience.appeal[0] > 0).sum())
    rates = StationRates.of([f"s{i}" for i in range(len(audience.genre))], established)
    steps = month.days * month.updates_a_day
    bounds = np.linspace(0, len(audience.p), steps + 1).round().astype(int).tolist()
    parts = []
    for step in range(steps):
        users, day = slice(bounds[step], bounds[step + 1]), step // month.updates_a_day
        explorer = Explorer(rates, month.slot)
        relevant, truth = audience.relevance(users, day), audience.truth(users, day)
        propensities = policy(explorer, relevant)
        chosen = choose(propensities, audience.uniform[users])
        rows = np.arange(len(chosen))
        clicks = audience.reluctance[users] < truth[rows, chosen]
        best = explorer.values(relevant).argmax(axis=1)
        parts.append((chosen, propensities, clicks, truth, best, explorer.expected_loss(relevant, propensities)))
        rates = rates.updated(
            chosen, relevant[rows, chosen], clicks, 1 / month.updates_a_day, month.slot.half_life_days
        )
    shown, propensities, clicked, truth, greedy, given_up = (np.concatenate(of) for of in zip(*parts, strict=True))
    return SlotRun(shown, propensities, clicked, truth, greedy, given_up, rates)


def look_back_all(month: SlotMonth, audience: SlotAudience, run: SlotRun) -> tuple[NeverShown, ...]:
    """Off-policy estimates of two policies from the log of one, each beside its true value for the same users.

    The log always has a chance to show what they choose: the best station, and the newest one by its floor. Where the
    probability of a choice falls with its own luck, the number of its users depends on their clicks, and intervals have
    less than their coverage (Hadad and others, Confidence intervals for policy evaluation in adaptive experiments, PNAS
    118, 2021).
    """
    rows = np.arange(len(run.shown))
    day = rows // month.users_a_day
    launched = (audience.appeal > 0).argmax(axis=0)
    newest = np.array([np.flatnonzero(launched <= on)[-1] for on in range(month.days)])[day]
    log = Log(run.shown, run.propensities[rows, run.shown], run.clicked.astype(np.float64))
    policies = {
        "best posterior mean": (run.greedy, np.ones(len(rows), dtype=bool)),
        "newest station": (newest, day >= NEW_EVERY_DAYS),
    }
    estimates = []
    for name, (chosen, about) in policies.items():
        supported = about & (run.propensities[rows, chosen] >= MIN_PROPENSITY)
        truth = float(run.truth[rows, chosen][supported].mean()) if supported.any() else None
        estimates.append(NeverShown(name, look_back(log, chosen, supported), truth))
    return tuple(estimates)


def _greedy(explorer: Explorer, relevant: Array) -> Array:
    propensities = np.zeros_like(relevant)
    propensities[np.arange(len(relevant)), explorer.values(relevant).argmax(axis=1)] = 1.0
    return propensities


def _epsilon_greedy(explorer: Explorer, relevant: Array) -> Array:
    there = relevant > 0
    return np.asarray((1 - EPSILON) * _greedy(explorer, relevant) + EPSILON * there / there.sum(axis=1, keepdims=True))


POLICIES: Final[Mapping[str, Policy]] = MappingProxyType(
    {
        SLOT: Explorer.propensities,
        "Thompson, no budget": Explorer.sampled,
        "epsilon-greedy": _epsilon_greedy,
        GREEDY: _greedy,
    }
)


def _measured(
    name: str, month: SlotMonth, audience: SlotAudience
) -> tuple[PolicyMonth, StationRates, float, tuple[NeverShown, ...]]:
    """A policy's month, what it learned, the oracle's clicks, and for the slot the off-policy estimates.

    The run in full is not kept: it has n x S numbers, gigabytes in a large month.
    """
    run = run_policy(month, audience, POLICIES[name])
    best = run.truth.max(axis=1)
    off_policy = look_back_all(month, audience, run) if name == SLOT else ()
    return _month(name, run, best, month, audience), run.rates, round(float(best.sum()), 1), off_policy


def _month(name: str, run: SlotRun, best: Array, month: SlotMonth, audience: SlotAudience) -> PolicyMonth:
    expected = (run.propensities * run.truth).sum(axis=1)
    regret = best - expected
    first_week = _in_first_week(month, audience)
    weeks = np.arange(0, len(best), 7 * month.users_a_day)
    return PolicyMonth(
        policy=name,
        clicks=round(float(expected.sum()), 1),
        regret=round(float(regret.sum()), 1),
        regret_by_week=tuple(round(one, 1) for one in np.add.reduceat(regret, weeks).tolist()),
        given_up=round(float(run.given_up.mean()), 6),
        newest=round(float((run.propensities * first_week).sum() / first_week.any(axis=1).sum()), 6),
    )


def _new_stations(
    month: SlotMonth, audience: SlotAudience, slot: StationRates, greedy: StationRates
) -> tuple[NewStation, ...]:
    launched = (audience.appeal > 0).argmax(axis=0)
    users = slice(-7 * month.users_a_day, None)
    relevant, truth = audience.relevance(users, -1).mean(axis=0), audience.truth(users, -1).mean(axis=0)
    rates = [relevant * np.divide(*learned.posterior()) for learned in (slot, greedy)]
    return tuple(
        NewStation(
            day=int(launched[i]),
            shown=int(slot.shown[i]),
            shown_by_greedy=int(greedy.shown[i]),
            rate=round(float(rates[0][i]), 6),
            rate_by_greedy=round(float(rates[1][i]), 6),
            truth=round(float(truth[i]), 6),
        )
        for i in np.flatnonzero(launched)
    )


def _in_first_week(month: SlotMonth, audience: SlotAudience) -> NDArray[np.bool_]:
    """(n, S) whether a station that was launched during the month is in its first week."""
    launched = (audience.appeal > 0).argmax(axis=0)
    age = np.arange(month.days)[:, None] - launched
    young = (launched > 0) & (age >= 0) & (age < NEW_EVERY_DAYS)
    return np.repeat(young, month.users_a_day, axis=0)
