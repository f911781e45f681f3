"""Content for a ranking of genres: the station of the message, the carousels and their tiles.

The rules, in order:

1. Unavailable stations are not in the catalogue.
2. A station with markets is shown to registrations from those countries. Registrations without a country, or from one
   that is no market, get the stations without markets; where every station has markets, all stations.
3. The message has the best station of the first shown genre that has one, or else the most popular station.
4. A carousel for each of the first genres with a station, in the order of the ranking, then of popularity. No carousel
   is empty.
5. Within a genre, stations are sorted by popularity, then by id.
6. The exploration slot, where there is one, replaces one carousel by that of a station of another genre or the same,
   with this station first. No other carousel has this genre.
7. A station is in one carousel only. A carousel with too few stations of its genre is filled up with the most popular
   stations that are in no carousel, the first carousel first; it stays short only where the catalogue ends. The title
   of one with stations of other genres ends in AND_MORE.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
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
AND_MORE = ", and more"


class StationDetails(msgspec.Struct, frozen=True, omit_defaults=True):
    """A station's colour as #rrggbb, and the countries it is limited to; None and empty where it has none."""

    colour: Annotated[str, msgspec.Meta(pattern="^#[0-9a-f]{6}$")] | None = None
    market: tuple[str, ...] = ()


NO_DETAILS = StationDetails()


class Catalogue(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """The stations that answers can show, best first: TILES of each genre, and the most popular of all.

    `markets`: a catalogue per country that is a market of a station, by `market_name`; the catalogue itself is for all
    other countries. `details` by station id, of the stations that have any.
    """

    by_genre: dict[str, Annotated[tuple[Station, ...], msgspec.Meta(min_length=1)]]
    popular: tuple[Station, ...]
    markets: dict[str, Catalogue] = {}
    details: dict[str, StationDetails] = {}

    @staticmethod
    def of(
        stations: Iterable[tuple[Station, float]],
        markets: Mapping[str, Collection[str]] | None = None,
        colours: Mapping[str, str] | None = None,
    ) -> Catalogue:
        """The catalogue of stations with their popularity (in any unit); markets and colours by station id."""
        ordered = [s for s, _ in sorted(stations, key=lambda item: (-item[1], item[0].station_id))]
        named = {station_id: set(map(market_name, of)) for station_id, of in (markets or {}).items() if of}
        everywhere = [station for station in ordered if station.station_id not in named]
        catalogue = _catalogue(
            everywhere or ordered,
            {
                market: _catalogue([s for s in ordered if market in named.get(s.station_id, (market,))], {})
                for market in sorted(set().union(*(named[s.station_id] for s in ordered if s.station_id in named)))
            },
        )
        of = {
            station.station_id: StationDetails(
                (colours or {}).get(station.station_id), tuple((markets or {}).get(station.station_id, ()))
            )
            for station in catalogue.stations()
        }
        return msgspec.structs.replace(catalogue, details={name: one for name, one in of.items() if one != NO_DETAILS})

    def stations(self) -> tuple[Station, ...]:
        """All stations of the catalogue and of those of its markets, each once."""
        lists = [stations for one in (self, *self.markets.values()) for stations in one.by_genre.values()]
        return tuple({station.station_id: station for of in lists for station in of}.values())

    def check(self) -> None:
        """Raises InputError where the catalogue has more stations than `of` selects: its answers would be too large."""
        lists = [(TILES, stations) for stations in self.by_genre.values()] + [(CAROUSELS * TILES, self.popular)]
        if any(len(stations) > limit for limit, stations in lists):
            raise InputError("the catalogue holds more stations of a genre, or of all, than answers can show")
        for market in self.markets.values():
            if market.markets:
                raise InputError("the catalogue of a market has markets of its own")
            market.check()

    def of_country(self, country: str | None) -> Catalogue:
        """The catalogue for a country."""
        market = self.market_of(country)
        return self if market is None else self.markets[market]

    def market_of(self, country: str | None) -> str | None:
        """The market of a country, or None."""
        return None if country is None or not self.markets else self._find_market(country)

    def picked(self, picks: Iterable[str]) -> set[str]:
        """The picks by the genre names of the stations; "" stands for every pick that is none of them."""
        return self._genre_names.find_all(picks)

    @cached_property
    def _find_market(self) -> Callable[[str], str | None]:
        return lru_cache(maxsize=1_024)(NameIndex(self.markets).find)

    @cached_property
    def _genre_names(self) -> NameIndex:
        return NameIndex(set(self.by_genre).union(*(of.by_genre for of in self.markets.values())))


class SlotChoice(msgspec.Struct, frozen=True):
    """What the exploration slot shows a user: a carousel of this station's genre, led by the station.

    `carousel`: its position, from 1 · `propensity`: the exact probability of the station · `relevance` of the station
    to the user · `greedy`: the id of the station with the best estimate, None where the slot had nearly no chance to
    show it.
    """

    carousel: int
    station: Station
    propensity: float
    relevance: float
    greedy: str | None


class ListedStation(msgspec.Struct, frozen=True, omit_defaults=True):
    """A station with its details."""

    station_id: str
    name: str
    genre: str
    colour: str | None = None
    market: tuple[str, ...] = ()


class StationList(msgspec.Struct, frozen=True):
    """The stations that answers of a model can name, each once, in no particular order."""

    model: str
    stations: tuple[ListedStation, ...]

    @staticmethod
    def of(model: str, catalogue: Catalogue) -> StationList:
        """All stations of a catalogue and of those of its markets."""

        def listed(station: Station) -> ListedStation:
            of = catalogue.details.get(station.station_id, NO_DETAILS)
            return ListedStation(station.station_id, station.name, station.genre, of.colour, of.market)

        return StationList(model, tuple(map(listed, catalogue.stations())))


def market_name(country: str) -> str:
    """A country in normal form, without case."""
    return normal(country).casefold()


def _catalogue(ordered: Sequence[Station], markets: dict[str, Catalogue]) -> Catalogue:
    by_genre: dict[str, list[Station]] = {}
    for station in ordered:
        by_genre.setdefault(station.genre, []).append(station)
    best = {genre: tuple(of_genre[:TILES]) for genre, of_genre in sorted(by_genre.items())}
    return Catalogue(best, tuple(ordered[: CAROUSELS * TILES]), markets)


def fill(
    ranking: Ranking, picks: Collection[str], catalogue: Catalogue, model: str, slot: SlotChoice | None = None
) -> Recommendation:
    """The recommendation for one registration, from the catalogue of its country; `picks` as of `Catalogue.picked`."""
    shown = ranking.genres[:SHOWN_GENRES]
    stations = first_stations(shown, catalogue)
    return Recommendation(
        model=model,
        source=ranking.source,
        genres=tuple(map(GenreProbability, shown, ranking.probabilities[:SHOWN_GENRES])),
        stations=stations,
        message=message(stations[0], picks) if stations else None,
        carousels=_carousels(ranking.genres, picks, catalogue, slot),
    )


def first_stations(genres: Iterable[str], catalogue: Catalogue) -> tuple[Station, ...]:
    """The best station of each genre in turn, filled up with the most popular of all."""
    best = [catalogue.by_genre[genre][0] for genre in genres if genre in catalogue.by_genre]
    distinct = {station.station_id: station for station in (*best, *catalogue.popular)}
    return tuple(distinct.values())[:SHOWN_STATIONS]


def message(station: Station, picks: Collection[str]) -> Message:
    """The in-app message about a station, for a registration with these picks."""
    return Message(station.station_id, f"Start with {station.name}", _reason(station.genre, picks))


def _reason(genre: str, picks: Collection[str]) -> str:
    if genre in picks:
        return f"Because you picked {genre}"
    return f"{genre} is popular with people like you" if picks else f"{genre} is popular with newcomers"


def carousel(genre: str, tiles: Iterable[Station], picks: Collection[str], *, filled: bool = False) -> Carousel:
    """The carousel of a genre, for a registration with these picks; `filled`: it has stations of other genres too."""
    title = (f"Because you picked {genre}" if genre in picks else genre) + AND_MORE * filled
    return Carousel(title, genre, tuple(station.station_id for station in tiles))


def titled_genres(genres: Iterable[str], catalogue: Catalogue) -> list[str]:
    """The genre of each carousel, for a ranking of genres."""
    in_order = dict.fromkeys((*genres, *(station.genre for station in catalogue.popular)))
    return [genre for genre in in_order if genre in catalogue.by_genre][:CAROUSELS]


def _carousels(
    genres: Iterable[str], picks: Collection[str], catalogue: Catalogue, slot: SlotChoice | None
) -> tuple[Carousel, ...]:
    titled = titled_genres(genres, catalogue)
    if slot:
        titled[slot.carousel - 1] = slot.station.genre
    own = {station.station_id for genre in titled for station in catalogue.by_genre[genre]}
    others = iter([station for station in catalogue.popular if station.station_id not in own])
    carousels = []
    for genre in titled:
        tiles = catalogue.by_genre[genre]
        if slot and genre == slot.station.genre:
            tiles = tuple(dict.fromkeys((slot.station, *tiles)))
        more = [station for _, station in zip(range(TILES - len(tiles)), others, strict=False)]
        carousels.append(carousel(genre, (*tiles, *more), picks, filled=bool(more)))
    return tuple(carousels)
