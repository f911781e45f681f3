"""A ranking of genres -> real content: the message's station, the carousels and their tiles.

The rules, in the order they apply: the first genre gives the message; each of the first genres gives a carousel, in the
order of the ranking; inside a genre the most popular stations come first (ties by station_id); a station stands in one
place only; where a genre has too few, the most popular stations of all fill up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from firstspin.records import SHOWN_GENRES, Carousel, GenreChance, Message, Ranking, Recommendation, Station

SHOWN_STATIONS = 5
CAROUSELS = 5
TILES = 8
KEPT_A_GENRE = 50


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The stations worth showing: the most popular of each genre, and of all, best first."""

    by_genre: Mapping[str, tuple[Station, ...]]
    popular: tuple[Station, ...]

    @staticmethod
    def of(stations: Iterable[tuple[Station, float]]) -> Catalogue:
        """From stations with their popularity (any unit, more is more popular)."""
        ordered = [s for s, _ in sorted(stations, key=lambda item: (-item[1], item[0].station_id))]
        by_genre: dict[str, list[Station]] = {}
        for station in ordered:
            by_genre.setdefault(station.genre, []).append(station)
        kept = {genre: tuple(found[:KEPT_A_GENRE]) for genre, found in sorted(by_genre.items())}
        return Catalogue(kept, tuple(ordered[:KEPT_A_GENRE]))


def fill(ranking: Ranking, picks: Collection[str], catalogue: Catalogue, model: str) -> Recommendation:
    """The whole answer for one newcomer. `picks` are the normal names of the genres they picked."""
    shown = ranking.genres[:SHOWN_GENRES]
    stations = first_stations(shown, catalogue)
    return Recommendation(
        model=model,
        source=ranking.source,
        genres=tuple(map(GenreChance, shown, ranking.probabilities[:SHOWN_GENRES])),
        stations=stations,
        message=message(stations[0], picks) if stations else None,
        carousels=_carousels(ranking.genres, picks, catalogue),
    )


def first_stations(genres: Sequence[str], catalogue: Catalogue) -> tuple[Station, ...]:
    """The best station of each genre in turn, filled up with the most popular of all."""
    best = [catalogue.by_genre[genre][0] for genre in genres if genre in catalogue.by_genre]
    return _filled(best, catalogue.popular, SHOWN_STATIONS, set())


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


def _carousels(genres: Sequence[str], picks: Collection[str], catalogue: Catalogue) -> tuple[Carousel, ...]:
    used: set[str] = set()
    carousels = []
    for genre in genres[:CAROUSELS]:
        tiles = _filled(catalogue.by_genre.get(genre, ()), catalogue.popular, TILES, used)
        used.update(station.station_id for station in tiles)
        carousels.append(carousel(genre, tiles, picks))
    return tuple(carousels)


def _filled(first: Iterable[Station], rest: Iterable[Station], n: int, used: Collection[str]) -> tuple[Station, ...]:
    """Up to n stations, the first ones before the rest, none twice and none already used."""
    found: dict[str, Station] = {}
    for stations in (first, rest):
        for station in stations:
            if len(found) < n and station.station_id not in used:
                found.setdefault(station.station_id, station)
    return tuple(found.values())
