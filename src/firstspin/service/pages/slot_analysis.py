"""The analyses of the exploration slot: event store -> snapshot of the rates, which workers read -> its page.

This runs in a process of its own, as the analyses of experiments do; workers import nothing of it.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from scipy.special import gammaincinv

from firstspin.events.database import Database
from firstspin.events.slot_log import CLICK_HOURS, SlotLog, read_slot_log
from firstspin.experiment.look_back.off_policy import Log, Lookback, look_back
from firstspin.experiment.stats.lift import Estimate
from firstspin.experiment.verdict import true_minus
from firstspin.service.pages.analysis import rendered, write_page
from firstspin.service.pages.slot import PAGE
from firstspin.serving.bundle import STATIONS
from firstspin.serving.slot.carousel import RATES, save_rates
from firstspin.serving.slot.exploration import MIN_PROPENSITY, SlotSettings, StationRates
from firstspin.serving.stations import Catalogue

AGAINST: Final = "compared with always showing the best station by estimate"
SHOWN: Final = 20
"""Rows of the table of stations."""
ALPHA: Final = 0.05


class StationLearned(msgspec.Struct, frozen=True):
    """What the slot knows about a station: `users` who saw it first, and its rate with a 95% posterior interval.

    The rate is clicks per user of a stated relevance; `mean` is that of all stations together, where every estimate
    starts.
    """

    station_id: str
    users: int
    rate: float
    low: float
    high: float
    mean: float

    @property
    def has_moved(self) -> bool:
        """Whether the interval excludes the mean."""
        return not self.low <= self.mean <= self.high


def analyse_slot(
    database: Database,
    carousel: int,
    settings: SlotSettings,
    folder: Path,
    *,
    bundle: Path | None,
    has_page: bool,
    now: datetime,
) -> None:
    """Write the snapshot of the slot's rates into the folder, then its page. Names of stations are the bundle's.

    Raises Unavailable and InputError as the database does; the files of the last analysis then stay.
    """
    with database.snapshot() as session:
        log = read_slot_log(session, carousel)
    rates = StationRates.learned(log, settings.half_life_days)
    save_rates(rates, folder / RATES)
    if has_page:
        values = about(log, rates, carousel, settings, _names(bundle)) | {"now": now}
        write_page(folder / PAGE, rendered("slot.html.jinja", values))


def cost(log: SlotLog, alpha: float = ALPHA) -> Lookback:
    """The greedy policy's clicks per user by inverse propensity, and their difference to what the slot had.

    The level of the intervals is 1 - `alpha`.
    """
    shown = Log(log.shown, log.propensity, log.clicked.astype(np.float64))
    return look_back(shown, log.best, log.best >= 0, alpha=alpha)


def learned(rates: StationRates, relevance: float) -> list[StationLearned]:
    """The estimate of each station that was shown, the best first, for users of this relevance."""
    shape, rate = rates.posterior()
    rate /= relevance
    low, high = (gammaincinv(shape, quantile) / rate for quantile in (ALPHA / 2, 1 - ALPHA / 2))
    mean = relevance * rates.pooled()
    rows = zip(rates.station_ids, rates.shown, (shape / rate).tolist(), low.tolist(), high.tolist(), strict=True)
    of = [StationLearned(name, int(users), value, low, high, mean) for name, users, value, low, high in rows]
    return sorted(of, key=lambda one: (-one.rate, one.station_id))


def about(
    log: SlotLog, rates: StationRates, carousel: int, settings: SlotSettings, names: dict[str, str]
) -> dict[str, object]:
    """What the template shows."""
    relevance = float(log.relevance.mean()) if len(log.shown) else 1.0
    estimates, stations = cost(log), learned(rates, relevance)
    moved = [one for one in stations if one.has_moved]
    furthest = sorted(moved, key=lambda one: -abs(np.log(one.rate / one.mean)))[:SHOWN]
    lost = estimates.self_normalised.above_shown
    return {
        "carousel": carousel,
        "users": len(log.shown),
        "clicks": int(log.clicked.sum()),
        "explored": float((log.shown != log.best).mean()) if len(log.shown) else 0.0,
        "support": estimates.support,
        "min_propensity": MIN_PROPENSITY,
        "click_hours": CLICK_HOURS,
        "budget": settings.budget,
        "snapshot": f"{rates.version:x}",
        "shown": _of_100(estimates.shown),
        "greedy": _of_100(estimates.self_normalised.value),
        "cost": _of_100(lost),
        "verdict": _verdict(lost),
        "stations": [(names.get(one.station_id, one.station_id), one) for one in moved if one in furthest],
        "scale": 100 / max(one.high for one in furthest) if furthest else 0.0,
        "moved": len(moved),
        "known": len(stations),
        "mean": 100 * relevance * rates.pooled(),
    }


def _of_100(estimate: Estimate) -> dict[str, str]:
    """An estimate per user as clicks per 100 users: its value and its interval, or why it has none."""
    if estimate.value is None:
        return {"value": "–", "interval": estimate.reason}
    value = true_minus(f"{100 * estimate.value:.2f}")
    if estimate.low is None or estimate.high is None:
        return {"value": value, "interval": estimate.reason}
    return {
        "value": value,
        "interval": true_minus(f"95% interval {100 * estimate.low:.2f} to {100 * estimate.high:.2f}"),
    }


def _verdict(lost: Estimate) -> str:
    """The cost in one sentence."""
    if lost.value is None or lost.low is None or lost.high is None:
        return f"What exploring cost is not known yet: {lost.reason}."
    if lost.low <= 0 <= lost.high:
        return f"Exploring cost nothing that can be told from zero, {AGAINST}."
    verb = "cost" if lost.value > 0 else "gained"
    return f"Exploring {verb} {abs(100 * lost.value):.2f} clicks per 100 users, {AGAINST}."


def _names(bundle: Path | None) -> dict[str, str]:
    """The names of the bundle's stations by id; none where the bundle can't be read."""
    try:
        catalogue = msgspec.json.decode((bundle / STATIONS).read_bytes(), type=Catalogue) if bundle else None
    except (OSError, msgspec.DecodeError):
        catalogue = None
    return {station.station_id: station.name for station in catalogue.stations()} if catalogue else {}
