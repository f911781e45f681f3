"""The exploration slot as it is served: one carousel of `/v1/recommendations` explores (`exploration`).

Its candidates are the stations of all genres that no other carousel of the answer has. The rates come from a snapshot,
a file that one process makes of the event store and replaces; every worker reads it when it changes. Seed, user,
snapshot and bundle determine the choice.

Nothing is explored for users under the minimum age, for users of the running experiment, whose arms it would blur, and
where the model did not rank: their answers are those of a service without a slot. The same holds before the first
snapshot, and while the event store takes nothing, because nothing could be learned.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from firstspin.files import written_beside
from firstspin.records import InputError, Registration, Station
from firstspin.serving.bundle import Bundle
from firstspin.serving.fragments import is_regular
from firstspin.serving.policy import Decision
from firstspin.serving.slot.exploration import (
    MIN_PROPENSITY,
    Explorer,
    SlotSettings,
    StationRates,
    choose,
    relevance,
    uniform_of,
)
from firstspin.serving.stations import Catalogue, SlotChoice, titled_genres

log = logging.getLogger(__name__)

RATES: Final = "rates.json"
"""The name of the snapshot's file."""
EXPLORED: Final = ("model", "popular")
"""The sources of rankings that the slot explores."""
OUTCOMES: Final = ("explored", "no-snapshot", "no-store", "failed")
RELEVANCE_DIGITS: Final = 2
"""What is computed with is what is logged, and it is no finer than needed, as it depends on the registration."""


def save_rates(rates: StationRates, path: Path) -> None:
    """Write the snapshot, where it has changed: the file is replaced, so that readers see it whole."""
    if read_rates(path) != rates:
        with written_beside(path, shared=True) as beside:
            beside.write_bytes(msgspec.json.encode(rates))


def read_rates(path: Path) -> StationRates | None:
    """The snapshot in a file; None where there is none, or it can't be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=StationRates)
    except (OSError, msgspec.DecodeError):
        return None


@dataclass(frozen=True, slots=True)
class _Market:
    """The S stations of a catalogue, the genre of each as a position in `genres` (S,), and their explorer."""

    catalogue: Catalogue
    genres: tuple[str, ...]
    stations: tuple[Station, ...]
    genre_of: NDArray[np.int64]
    explorer: Explorer


class CarouselSlot:
    """The slot at one position of the carousels, from 1. `count` is called with an outcome for each eligible answer."""

    def __init__(self, carousel: int, settings: SlotSettings, path: Path, count: Callable[[str], None]) -> None:
        self._carousel, self._settings, self._path, self._count = carousel, settings, path, count
        self._rates: StationRates | None = None
        self._file: tuple[int, int] | None = None  # the snapshot that was read
        self._markets: dict[tuple[str, str | None], _Market] = {}
        self._has_store = False
        self._has_failed = False

    def refresh(self, *, has_store: bool) -> None:
        """Read the snapshot if it has changed. A file that is gone or can't be read leaves the last one in use."""
        self._has_store = has_store
        try:
            stat = self._path.stat()
        except OSError:
            return
        if (stat.st_ino, stat.st_mtime_ns) != self._file:
            self._file = stat.st_ino, stat.st_mtime_ns
            if rates := read_rates(self._path):
                self._rates = rates
                self._markets.clear()

    def explored(self, registration: Registration, user: str, decision: Decision, bundle: Bundle | None) -> Decision:
        """The decision with what the slot shows this user, or as it is where nothing is explored."""
        is_ranked = decision.source in EXPLORED and not decision.by_rule
        if bundle is None or not is_ranked or decision.assignment or decision.model != bundle.id:
            return decision
        choice, outcome = None, "explored"
        if self._rates is None:
            outcome = "no-snapshot"
        elif not self._has_store:
            outcome = "no-store"
        else:
            try:
                choice = self._choice(registration, user, decision, bundle, self._rates)
            except Exception:  # every newcomer gets an answer
                outcome = "failed"
                if not self._has_failed:
                    log.exception("the exploration slot failed; answers are those without it")
                self._has_failed = True
        self._count(outcome)
        return msgspec.structs.replace(decision, slot=choice) if choice else decision

    def _choice(
        self, registration: Registration, user: str, decision: Decision, bundle: Bundle, rates: StationRates
    ) -> SlotChoice:
        market = self._market(bundle, registration.country, rates)
        genres = decision.ranking.genres
        titled = titled_genres(genres, market.catalogue)
        if len(titled) < self._carousel:
            raise InputError(f"the catalogue has {len(titled)} carousels; the slot is at {self._carousel}")
        elsewhere = {*titled} - {titled[self._carousel - 1]}
        probability = dict(zip(genres, decision.ranking.probabilities, strict=False))
        of_genre = relevance(np.array([probability.get(genre, 0.0) for genre in market.genres]))
        there = np.array([genre not in elsewhere for genre in market.genres])
        relevant = (of_genre.round(RELEVANCE_DIGITS) * there)[market.genre_of]
        [propensities] = market.explorer.propensities(relevant[None])
        [shown] = choose(propensities[None], np.array([uniform_of(self._settings.seed, user)]))
        best = int(market.explorer.values(relevant).argmax())
        return SlotChoice(
            self._carousel,
            market.stations[shown],
            min(float(propensities[shown]), 1.0),
            float(relevant[shown]),
            market.stations[best].station_id if propensities[best] >= MIN_PROPENSITY else None,
        )

    def _market(self, bundle: Bundle, country: str | None, rates: StationRates) -> _Market:
        """The stations for a country, with the draws of this snapshot, made once."""
        key = bundle.id, bundle.catalogue.market_of(country)
        if key not in self._markets:
            if any(known != bundle.id for known, _ in self._markets):  # of the bundle before
                self._markets.clear()
            catalogue = bundle.catalogue.of_country(country)
            if not is_regular(catalogue):
                raise InputError("the catalogue has a station under two genres")
            stations = {station.station_id: station for of in catalogue.by_genre.values() for station in of}
            known = rates.among(stations)
            genres = tuple(catalogue.by_genre)
            ordered = tuple(stations[station_id] for station_id in known.station_ids)
            place = {genre: i for i, genre in enumerate(genres)}
            genre_of = np.array([place[station.genre] for station in ordered], dtype=np.int64)
            self._markets[key] = _Market(catalogue, genres, ordered, genre_of, Explorer(known, self._settings))
        return self._markets[key]
