"""The exploration slot: the station of one carousel position, and the exact probability of each station (propensity).

A station's rate is its clicks per relevant user who is shown it. A user's relevance to a station grows with the model's
probability of its genre, so the model is the prior. Clicks are Poisson with mean rate times relevance, so the posterior
of a rate is a gamma distribution: shape = clicks, rate = relevance shown, each plus the prior's. The prior's mean is
the rate of all stations together (empirical Bayes): stations with little exposure are shrunk towards it. Clicks and
exposures lose half of their weight per half-life, so that the rates follow a shift in taste.

Thompson sampling (Thompson, Biometrika 25, 1933) shows the best station of one posterior draw of the rates. Here the
draw is one of a stated finite set, so that the probability of a station is the share of draws in which it is the best
for this user: exact, not estimated. Around it:

- Budget: the expected clicks given up, by the posterior means, are at most the share `budget` of the clicks of the
  greedy choice, for every user. The mixture of Thompson sampling and the greedy choice is chosen accordingly.
- Floors: a station that joins later has at least a probability `floor`, until it was shown to `new_until` users. All
  floors together are at most the budget, so that they never exceed it; of too many new stations, the last have them.

All is reproducible from a seed: the draws from the seed and the version of the rates, the choice from a hash of the
user's id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from math import inf
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from firstspin.events.slot_log import SlotLog
from firstspin.records import MAX_SEED, InputError

Array = NDArray[np.float64]

DRAWS_STREAM: Final = int.from_bytes(b"draw")
"""The seed's random stream of the posterior draws: no small number, as those are the streams of a simulation."""
OFF_GENRE: Final = 0.25
"""Relevance of a station whose genre is surely not the user's favourite."""
PRIOR_RELEVANCE: Final = 20.0
"""The weight of the prior of a station's rate, in relevant users."""
PRIOR_CLICKS, PRIOR_SHOWN = 1.0, 20.0
"""The prior of the rate of all stations together: 5% of 20 relevant users."""
_ROUNDING: Final = 1e-12
"""Three floors of 0.1 are within a budget of 0.3, which is a little less than 3 * 0.1 in binary."""

FLOOR: Final = 0.01
MIN_PROPENSITY: Final = 0.01
"""Users whose log would have shown a policy's choice with less are left out of its off-policy estimate."""
MAX_DRAWS: Final = 4096


class SlotSettings(msgspec.Struct, frozen=True):
    """What an operator decides about the slot; see the module. Raises InputError where a value is out of range."""

    seed: int = 0
    budget: float = 0.05
    floor: float = FLOOR
    new_until: float = 200.0
    half_life_days: float = 14.0
    draws: int = 256

    def __post_init__(self) -> None:
        ranges = {
            "seed": 0 <= self.seed <= MAX_SEED,
            "budget": 0 <= self.budget <= 1,
            "floor": 0 <= self.floor <= self.budget,  # or no station would have it
            "new_until": 0 <= self.new_until < inf,
            "half_life_days": 0 < self.half_life_days < inf,
            "draws": 1 <= self.draws <= MAX_DRAWS,
        }
        if wrong := [name for name, is_valid in ranges.items() if not is_valid]:
            below = f"; it is from 0 to the budget, {self.budget:g}" if wrong[0] == "floor" else ""
            raise InputError(f"exploration slot: {wrong[0]} {getattr(self, wrong[0])!r} is out of range{below}")


class StationRates(msgspec.Struct, frozen=True):
    """What is known about the rates of S stations, in the order in which they joined. JSON restores it exactly.

    The first `established` stations were there before the slot and are never new. `shown`: users who were shown each ·
    `relevance`, `clicks`: sums over them, with forgetting · `version`: number of updates, or a hash of the counts.
    """

    station_ids: tuple[str, ...]
    shown: tuple[float, ...]
    relevance: tuple[float, ...]
    clicks: tuple[float, ...]
    established: int
    version: int = 0

    @staticmethod
    def of(station_ids: Iterable[str], established: int | None = None) -> StationRates:
        """Nothing is known yet; by default all stations are established."""
        names = tuple(station_ids)
        nothing = (0.0,) * len(names)
        return StationRates(names, nothing, nothing, nothing, len(names) if established is None else established)

    @staticmethod
    def learned(log: SlotLog, half_life: float) -> StationRates:
        """The counts of a log, as of the day of its last exposure: the same from the same log, at any time and place.

        The last one is the last to arrive: one with a time in the future, of a host whose clock was wrong, would else
        take the weight of all that follow. Stations are in descending order of users; all of them are new until the
        slot has shown them to `new_until`.
        """
        k, day = len(log.station_ids), log.at.astype("datetime64[D]").astype(np.int64)
        weight = 0.5 ** (np.maximum(day[-1:] - day, 0) / half_life)
        shown = np.bincount(log.shown, minlength=k)
        order = sorted(np.flatnonzero(shown).tolist(), key=lambda i: (-shown[i], log.station_ids[i]))
        rates = StationRates(
            station_ids=tuple(log.station_ids[i] for i in order),
            shown=tuple(shown[order].astype(np.float64).tolist()),
            relevance=tuple(np.bincount(log.shown, log.relevance * weight, k)[order].tolist()),
            clicks=tuple(np.bincount(log.shown, log.clicked * weight, k)[order].tolist()),
            established=0,
        )
        digest = hashlib.blake2b(msgspec.json.encode(rates), digest_size=7).digest()
        return msgspec.structs.replace(rates, version=int.from_bytes(digest))

    def among(self, station_ids: Iterable[str]) -> StationRates:
        """The rates of these stations alone: those with exposures in their order here, then the others by id."""
        place, wanted = {name: i for i, name in enumerate(self.station_ids)}, set(station_ids)
        names = [name for name in self.station_ids if name in wanted] + sorted(wanted - place.keys())
        shown, relevant, clicks = (
            tuple(column[place[name]] if name in place else 0.0 for name in names)
            for column in (self.shown, self.relevance, self.clicks)
        )
        return StationRates(tuple(names), shown, relevant, clicks, self.established, self.version)

    def updated(
        self, stations: NDArray[np.int64], relevance: Array, clicked: NDArray[np.bool_], days: float, half_life: float
    ) -> StationRates:
        """After m exposures of `stations` (m,) to users of this `relevance` (m,), `days` after the last update."""
        remaining, k = 0.5 ** (days / half_life), len(self.station_ids)
        return msgspec.structs.replace(
            self,
            shown=_added(self.shown, 1.0, np.bincount(stations, minlength=k)),
            relevance=_added(self.relevance, remaining, np.bincount(stations, relevance, k)),
            clicks=_added(self.clicks, remaining, np.bincount(stations, clicked, k)),
            version=self.version + 1,
        )

    def pooled(self) -> float:
        """The rate of all stations together: the mean of each station's prior."""
        return float((PRIOR_CLICKS + np.sum(self.clicks)) / (PRIOR_SHOWN + np.sum(self.relevance)))

    def posterior(self) -> tuple[Array, Array]:
        """Shape (S,) and rate (S,) of the gamma posterior of each station's rate; shape / rate is its mean."""
        relevance, clicks = np.array(self.relevance), np.array(self.clicks)
        return PRIOR_RELEVANCE * self.pooled() + clicks, PRIOR_RELEVANCE + relevance


class Explorer:
    """The slot of one version of the rates: the posterior draws are made once, when it is built."""

    def __init__(self, rates: StationRates, settings: SlotSettings) -> None:
        shape, rate = rates.posterior()
        rng = np.random.default_rng([settings.seed, DRAWS_STREAM, rates.version])
        self._settings = settings
        self._means = shape / rate
        draws = rng.gamma(shape, 1 / rate, (settings.draws, len(shape)))
        self._draws = np.maximum(draws, np.finfo(float).tiny)  # 0 would tie with a station that must not be shown
        joined = np.arange(len(shape)) >= rates.established
        self._is_new = joined & (np.array(rates.shown) < settings.new_until)

    def propensities(self, relevance: Array) -> Array:
        """(n, S) probability that each user is shown each station; the rows sum to 1, but for rounding.

        `relevance` (n, S) is 0 for a station that a user must not be shown; each user has at least one that may be.
        """
        users, values, sampled = np.arange(len(relevance)), self.values(relevance), self.sampled(relevance)
        best = values.argmax(axis=1)
        floors = self._floors(relevance)
        rest = np.maximum(1 - floors.sum(axis=1), 0.0)  # never less but by rounding, as `left`
        greedy = values[users, best]
        lost_by_floors = (floors * (greedy[:, None] - values)).sum(axis=1)
        lost_by_sampling = rest * (greedy - (sampled * values).sum(axis=1))
        left = np.maximum(self._settings.budget * greedy - lost_by_floors, 0.0)
        share = np.minimum(
            np.divide(left, lost_by_sampling, out=np.ones_like(left), where=lost_by_sampling > left), 1.0
        )
        chosen = floors + (rest * share)[:, None] * sampled
        chosen[users, best] += rest * (1 - share)
        return np.asarray(chosen)  # not divided by the sum: rounding would take floors below `floor`

    def sampled(self, relevance: Array) -> Array:
        """(n, S) the share of draws in which each station is the best for a user: Thompson sampling by itself."""
        draws, stations = self._draws.shape
        best = [(self._draws * user).argmax(axis=1) for user in relevance]
        return np.asarray(np.reshape([np.bincount(one, minlength=stations) for one in best], relevance.shape) / draws)

    def values(self, relevance: Array) -> Array:
        """(n, S) expected clicks of each station, by the posterior means; the greedy choice has the most."""
        return np.asarray(relevance * self._means)

    def expected_loss(self, relevance: Array, propensities: Array) -> Array:
        """(n,) the share of the greedy choice's expected clicks that is given up, by the posterior means."""
        values = self.values(relevance)
        return np.asarray(1 - (propensities * values).sum(axis=1) / values.max(axis=1))

    def _floors(self, relevance: Array) -> Array:
        new = self._is_new & (relevance > 0)
        newer = new[:, ::-1].cumsum(axis=1)[:, ::-1]  # how many new stations from each one on
        within = newer * self._settings.floor <= self._settings.budget * (1 + _ROUNDING)
        return np.where(new & within, self._settings.floor, 0.0)


def relevance(genre_probabilities: Array) -> Array:
    """(n, S) relevance of stations to users, from the probabilities (n, S) that a station's genre is the favourite."""
    return np.asarray(OFF_GENRE + (1 - OFF_GENRE) * genre_probabilities)


def uniform_of(seed: int, user_id: str) -> float:
    """The user's uniform number in [0, 1), by hash: the same in every process, independent of experiments' arms."""
    digest = hashlib.blake2b(user_id.encode(), key=b"slot %d" % seed, digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / 2**53


def choose(propensities: Array, uniform: Array) -> NDArray[np.int64]:
    """(n,) the station shown to each user: the inverse of the cumulative `propensities` (n, S) at `uniform` (n,)."""
    cumulative = propensities.cumsum(axis=1)
    return np.asarray((cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(axis=1))


def _added(before: tuple[float, ...], remaining: float, more: NDArray[np.int64] | Array) -> tuple[float, ...]:
    return tuple((np.array(before) * remaining + more).tolist())
