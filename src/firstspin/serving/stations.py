"""A ranking of genres -> real content: the message's station, the carousels and their tiles.

The rules, in the order they apply:

1. A station that is not available is never shown: it does not enter the catalogue.
2. A station that names its markets is for newcomers of those countries. Who tells no country, or one that no station
   names, sees the stations that name none; where every station names one, all of them.
3. The first of the genres shown that has a station gives the message; where none has, the most popular station does.
4. A carousel for each of the first genres that have a station, in the order of the ranking, and then of popularity.
   None is ever empty.
5. Inside a genre the most popular stations come first; equally popular ones in the order of their ids.
6. A station stands in one carousel only. One that is not full with its own genre is filled up with the most popular
   stations that stand nowhere yet, the first carousel first. Only where the catalogue ends does it stay short.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Annotated

import msgspec

from firstspin.data.names import NameIndex
from firstspin.records import (
    SHOWN_GENRES,
    Carousel,
    GenreProbability,
    InputError,
    Message,
    Ranking,
    Recommendation,
    Station,
    normal,
)

SHOWN_STATIONS = 5
CAROUSELS = 5
TILES = 8


class Catalogue(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """The stations worth showing: as many of each genre, and of all, as an answer can need, best first.

    `markets` holds a catalogue for each country that a station names, by `market_name`; itself it is for all others.
    """

    by_genre: dict[str, Annotated[tuple[Station, ...], msgspec.Meta(min_length=1)]]
    popular: tuple[Station, ...]
    markets: dict[str, Catalogue] = {}

    @staticmethod
    def of(
        stations: Iterable[tuple[Station, float]], markets: Mapping[str, Collection[str]] | None = None
    ) -> Catalogue:
        """From stations with their popularity (any unit, more is more popular) and the markets each id names."""
        ordered = [s for s, _ in sorted(stations, key=lambda item: (-item[1], item[0].station_id))]
        named = {station_id: set(map(market_name, of)) for station_id, of in (markets or {}).items() if of}
        everywhere = [station for station in ordered if station.station_id not in named]
        return _shelved(
            everywhere or ordered,
            {
                market: _shelved([s for s in ordered if market in named.get(s.station_id, (market,))], {})
                for market in sorted(set().union(*(named[s.station_id] for s in ordered if s.station_id in named)))
            },
        )

    def check(self) -> None:
        """Raise InputError for a catalogue that holds more than `of` would keep: its answers would be too large."""
        lists = [(TILES, stations) for stations in self.by_genre.values()] + [(CAROUSELS * TILES, self.popular)]
        if any(len(stations) > most for most, stations in lists):
            raise InputError("the catalogue holds more stations of a genre, or of all, than answers can show")
        for market in self.markets.values():
            if market.markets:
                raise InputError("the catalogue of a market has markets of its own")
            market.check()

    def of_country(self, country: str | None) -> Catalogue:
        """What newcomers of this country may see."""
        market = self.market_of(country)
        return self if market is None else self.markets[market]

    def market_of(self, country: str | None) -> str | None:
        """The market that this country is; None where no station names it."""
        return None if country is None or not self.markets else self._market_names.find(country)

    def picked(self, picks: Iterable[str]) -> set[str]:
        """The genres picked, by the names that stations have; "" stands for all that no station has."""
        names = self._genre_names
        return {names.find(pick) or "" for pick in picks}

    @cached_property
    def _market_names(self) -> NameIndex:
        return NameIndex(self.markets)

    @cached_property
    def _genre_names(self) -> NameIndex:
        return NameIndex(set(self.by_genre).union(*(of.by_genre for of in self.markets.values())))


def market_name(country: str) -> str:
    """A country as we compare it."""
    return normal(country).casefold()


def _shelved(ordered: Sequence[Station], markets: dict[str, Catalogue]) -> Catalogue:
    by_genre: dict[str, list[Station]] = {}
    for station in ordered:
        by_genre.setdefault(station.genre, []).append(station)
    kept = {genre: tuple(found[:TILES]) for genre, found in sorted(by_genre.items())}
    return Catalogue(kept, tuple(ordered[: CAROUSELS * TILES]), markets)


def fill(ranking: Ranking, picks: Collection[str], catalogue: Catalogue, model: str) -> Recommendation:
    """The whole answer for one newcomer, from the catalogue of their country.

    `picks` are the genres they picked, as `Catalogue.picked` names them.
    """
    shown = ranking.genres[:SHOWN_GENRES]
    stations = first_stations(shown, catalogue)
    return Recommendation(
        model=model,
        source=ranking.source,
        genres=tuple(map(GenreProbability, shown, ranking.probabilities[:SHOWN_GENRES])),
        stations=stations,
        message=message(stations[0], picks) if stations else None,
        carousels=_carousels(ranking.genres, picks, catalogue),
    )


def first_stations(genres: Iterable[str], catalogue: Catalogue) -> tuple[Station, ...]:
    """The best station of each genre in turn, filled up with the most popular of all."""
    best = [catalogue.by_genre[genre][0] for genre in genres if genre in catalogue.by_genre]
    found = {station.station_id: station for station in (*best, *catalogue.popular)}
    return tuple(found.values())[:SHOWN_STATIONS]


def message(station: Station, picks: Collection[str]) -> Message:
    """The in-app message about a station, to someone with these picks."""
    return Message(station.station_id, f"Start with {station.name}", _reason(station.genre, picks))


def _reason(genre: str, picks: Collection[str]) -> str:
    if genre in picks:
        return f"Because you picked {genre}"
    return f"{genre} is popular with people like you" if picks else f"{genre} is popular with newcomers"


def carousel(genre: str, tiles: Iterable[Station], picks: Collection[str]) -> Carousel:
    """A genre's row of the home page, to someone with these picks."""
    title = f"Because you picked {genre}" if genre in picks else genre
    return Carousel(title, genre, tuple(station.station_id for station in tiles))


def _carousels(genres: Iterable[str], picks: Collection[str], catalogue: Catalogue) -> tuple[Carousel, ...]:
    in_order = dict.fromkeys((*genres, *(station.genre for station in catalogue.popular)))
    titled = [genre for genre in in_order if genre in catalogue.by_genre][:CAROUSELS]
    own = {station.station_id for genre in titled for station in catalogue.by_genre[genre]}
    others = iter([station for station in catalogue.popular if station.station_id not in own])
    carousels = []
    for genre in titled:
        tiles = catalogue.by_genre[genre]
        more = [station for _, station in zip(range(TILES - len(tiles)), others, strict=False)]
        carousels.append(carousel(genre, (*tiles, *more), picks))
    return tuple(carousels)
