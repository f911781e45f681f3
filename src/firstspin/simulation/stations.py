"""The stations of the simulated service: several per genre and market, in descending order of listeners."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from firstspin.records import Station

CITIES: Final[Mapping[str, tuple[str, ...]]] = {
    # one station of every genre in each, in descending order of size
    "US": ("New York", "Los Angeles", "Chicago", "Houston", "Atlanta", "Seattle", "Denver", "Nashville"),
    "CA": ("Toronto", "Montréal", "Vancouver", "Calgary"),
    "MX": ("Ciudad de México", "Guadalajara", "Monterrey"),
    "AU": ("Sydney", "Melbourne", "Brisbane"),
    "NZ": ("Auckland", "Wellington"),
}

LISTENERS: Final[Mapping[str, int]] = {"US": 900_000, "CA": 260_000, "MX": 230_000, "AU": 210_000, "NZ": 140_000}

CALLED: Final[Mapping[str, str]] = {
    "Alternative": "The Edge",
    "Christian & Gospel": "Grace",
    "Classic Rock": "Legends",
    "Classical": "Andante",
    "Comedy": "Punchline",
    "Country": "The Bull",
    "Dance": "Pulse",
    "Hip Hop": "The Beat",
    "International": "Passport",
    "Jazz": "Blue Note",
    "Kids & Family": "Playground",
    "Latin": "Fuego",
    "Mix & Variety": "My Mix",
    "News & Talk": "Talk",
    "Oldies": "Jukebox",
    "Public Radio": "Public Radio",
    "R&B": "Velvet",
    "Reggae & Island": "Island",
    "Religious": "Chapel",
    "Rock": "Riff",
    "Soft Rock": "Lite",
    "Sports": "The Score",
    "Top 40 & Pop": "Hits",
    "World": "Caravan",
}


@dataclass(frozen=True, eq=False)
class Dial:
    """All s stations, ordered by market, then genre, then city; `first` (m, k) is over the m markets and k genres."""

    stations: tuple[Station, ...]
    markets: tuple[str, ...]  # (s,) the country a station broadcasts to
    popularity: tuple[int, ...]  # (s,) listeners a week
    colours: tuple[str, ...]  # (s,) of its artwork, "#rrggbb"
    first: NDArray[np.int64]  # (m, k) position of a market's first station of a genre
    cities: NDArray[np.float64]  # (m, max cities) cumulative shares of a market's listeners by city

    def tuned(self, market: NDArray[np.int16], genre: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """A station (n,) for each listen in `market` (n,) of `genre` (n,), drawn by the cities' shares."""
        station: NDArray[np.int64] = self.first[market, genre]
        station += (rng.random(len(market))[:, None] >= self.cities[market]).sum(axis=1)
        return station


def build_dial(genres: tuple[str, ...], fame: NDArray[np.float64], rng: np.random.Generator) -> Dial:
    """Stations for each of the k genres; `fame` (k,) is the genre's share of all listeners."""
    places = [
        (market, genre, city) for market in CITIES for genre in range(len(genres)) for city in range(_count(market))
    ]
    counts = np.array([_count(market) for market in CITIES])
    starts = len(genres) * np.concatenate([[0], counts[:-1].cumsum()])
    return Dial(
        stations=tuple(
            Station(str(number), _name(genres[genre], CITIES[market][city], rng), genres[genre])
            for number, (market, genre, city) in enumerate(places, start=1)
        ),
        markets=tuple(market for market, _, _ in places),
        popularity=tuple(
            round(LISTENERS[market] * fame[genre] * _city_shares(market)[city]) for market, genre, city in places
        ),
        colours=tuple(_colour(genre / len(genres), rng.uniform(0.35, 0.6)) for _, genre, _ in places),
        first=starts[:, None] + counts[:, None] * np.arange(len(genres)),
        cities=np.array([_summed_up(market, counts.max()) for market in CITIES]),
    )


def _count(market: str) -> int:
    return len(CITIES[market])


def _city_shares(market: str) -> NDArray[np.float64]:
    """Zipf's law: the sizes of the cities are 1, 1/2, 1/3, …, normalised."""
    sizes: NDArray[np.float64] = 1 / np.arange(1.0, _count(market) + 1)
    sizes /= sizes.sum()
    return sizes


def _summed_up(market: str, width: int) -> NDArray[np.float64]:
    """Cumulative shares of the cities, 1 from the last city on."""
    bounds = np.ones(width)
    bounds[: _count(market) - 1] = _city_shares(market).cumsum()[:-1]
    return bounds


def _name(genre: str, city: str, rng: np.random.Generator) -> str:
    """A radio station's name: the genre's name, an FM frequency, the city."""
    return f"{CALLED[genre]} {87.5 + 0.2 * rng.integers(102):.1f} {city}"


def _colour(hue: float, lightness: float) -> str:
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.65)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
