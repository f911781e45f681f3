"""A catalogue as fragments of JSON, encoded once when the bundle is loaded: an answer's content is joined from them.

The content is byte for byte what `msgspec.json.encode(stations.fill(...))` gives. A genre with stations enough for its
carousel needs one lookup. The carousel of a genre with fewer is filled up, and so are the stations of an answer whose
genres have none, by the rules of `stations`, from popular stations that are encoded already.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec

from firstspin.records import SHOWN_GENRES, Station
from firstspin.serving.stations import CAROUSELS, SHOWN_STATIONS, TILES, Catalogue, carousel, message

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class GenreFragments:
    """A genre's parts of an answer, for registrations that picked it, or for those that did not.

    `filled` is the beginning of the carousel where some of its `missing` stations can be filled in. `message_for_all`
    is for registrations without picks.
    """

    genre: str
    station_id: str
    station: bytes
    message: bytes
    message_for_all: bytes
    carousel: bytes
    filled: bytes
    missing: int


Parts = tuple[dict[str, GenreFragments], dict[str, GenreFragments]]
"""By genre: not picked, picked."""


class CatalogueFragments:
    """The catalogue of a market, or of all others; one that `is_regular`."""

    def __init__(self, catalogue: Catalogue) -> None:
        assert is_regular(catalogue)
        by_genre = catalogue.by_genre
        self._parts: Parts = (
            {genre: _encoded(genre, stations, False) for genre, stations in by_genre.items()},
            {genre: _encoded(genre, stations, True) for genre, stations in by_genre.items()},
        )
        self._station_ids = {genre: stations[0].station_id for genre, stations in by_genre.items()}
        self._popular = [(one.station_id, one.genre, _encode(one)) for one in catalogue.popular]
        # Fillers of carousels. One that stands in no carousel of its own genre fits whatever genres are shown.
        self._tiles = [
            (one.genre if one in by_genre[one.genre] else None, b"," + _encode(one.station_id))
            for one in catalogue.popular
        ]

    def content(self, genres: Sequence[str], picks: Collection[str]) -> bytes:
        """Stations, message and carousels for a ranking of genres, to a registration with these picks.

        They are members of a JSON object, each with a comma before it.
        """
        parts = self._parts
        try:
            shown = [parts[genre in picks][genre] for genre in genres[:SHOWN_GENRES]]
        except KeyError:  # a genre without stations
            shown = []
        if len(shown) == SHOWN_STATIONS == CAROUSELS:
            stations, titled = [genre.station for genre in shown], shown
        elif self._popular:
            stations, titled = self._filled(genres, picks)
        else:
            return b""
        first = shown[0] if shown else self._first(genres, picks)
        return b"".join(
            (
                b',"stations":[',
                b",".join(stations),
                b'],"message":',
                first.message if picks else first.message_for_all,
                b',"carousels":[',
                b",".join(self._carousels(titled)),
                b"]",
            )
        )

    def station_ids(self, genres: Sequence[str]) -> list[str]:
        """The ids of the stations in `content`, the message's first."""
        ids = self._station_ids
        try:
            best = [ids[genre] for genre in genres[:SHOWN_GENRES]]
        except KeyError:  # a genre without stations
            best = [ids[genre] for genre in genres[:SHOWN_GENRES] if genre in ids]
        if len(best) < SHOWN_STATIONS:
            best += [station_id for station_id, _, _ in self._popular if station_id not in best]
        return best[:SHOWN_STATIONS]

    def _filled(self, genres: Sequence[str], picks: Collection[str]) -> tuple[list[bytes], list[GenreFragments]]:
        """Stations, and the genres with a carousel, where some of the genres shown have no station."""
        parts = self._parts
        shown = [parts[genre in picks][genre] for genre in genres[:SHOWN_GENRES] if genre in parts[False]]
        ids = [genre.station_id for genre in shown]
        more = [station for station_id, _, station in self._popular if station_id not in ids]
        known = [genre for genre in genres if genre in parts[False]]
        titled = list(dict.fromkeys((*known, *(genre for _, genre, _ in self._popular))))[:CAROUSELS]
        stations = [*(genre.station for genre in shown), *more][:SHOWN_STATIONS]
        return stations, [parts[genre in picks][genre] for genre in titled]

    def _first(self, genres: Sequence[str], picks: Collection[str]) -> GenreFragments:
        """The genre of the message where some of the genres shown have no station."""
        parts = self._parts
        known = (genre for genre in genres[:SHOWN_GENRES] if genre in parts[False])
        genre = next(known, self._popular[0][1])
        return parts[genre in picks][genre]

    def _carousels(self, titled: Sequence[GenreFragments]) -> list[bytes]:
        """The carousels of these genres, filled up where they have too few stations."""
        carousels = [genre.carousel for genre in titled]
        short = [place for place, genre in enumerate(titled) if genre.missing]
        if short:
            shown = {genre.genre for genre in titled}
            tiles = [tile for genre, tile in self._tiles if genre not in shown]
            start = 0
            for place in short:
                end = start + titled[place].missing
                if more := tiles[start:end]:
                    carousels[place] = b"".join((titled[place].filled, *more, b"]}"))
                start = end
        return carousels


def is_regular(catalogue: Catalogue) -> bool:
    """Whether a catalogue is as `Catalogue.of` makes it: each station under its own genre and once, all in order.

    The file of a bundle may hold another one. Answers from it are filled and encoded one by one.
    """
    of_genres = [station for stations in catalogue.by_genre.values() for station in stations]
    known = {station.station_id: station for station in of_genres}
    popular = {station.station_id: station for station in catalogue.popular}
    best = catalogue.popular[0] if catalogue.popular else None
    return (
        len(known) == len(of_genres)
        and len(popular) == len(catalogue.popular)
        and bool(known) == bool(popular)
        and all(one.genre == genre for genre, stations in catalogue.by_genre.items() for one in stations)
        and all(one.genre in catalogue.by_genre and known.get(name, one) == one for name, one in popular.items())
        and (best is None or catalogue.by_genre[best.genre][0] == best)
    )


def _encoded(genre: str, stations: Sequence[Station], picked: bool) -> GenreFragments:
    best, tiles = stations[0], stations[:TILES]
    picks = {genre} if picked else {""}
    return GenreFragments(
        genre=genre,
        station_id=best.station_id,
        station=_encode(best),
        message=_encode(message(best, picks)),
        message_for_all=_encode(message(best, ())),
        carousel=_encode(carousel(genre, tiles, picks)),
        filled=_encode(carousel(genre, tiles, picks, filled=True)).removesuffix(b"]}"),
        missing=TILES - len(tiles),
    )
