"""A catalogue as fragments of JSON, encoded once when the bundle is loaded: an answer's content is joined from them.

The content is byte for byte what `msgspec.json.encode(stations.fill(...))` gives. A genre with stations enough for its
carousel needs one lookup. The carousel of a genre with fewer is filled up, and so are the stations of an answer whose
genres have none, by the rules of `stations`, from popular stations that are encoded already.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice

import msgspec

from firstspin.records import SHOWN_GENRES, Station
from firstspin.serving.stations import CAROUSELS, SHOWN_STATIONS, TILES, Catalogue, carousel, message

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class GenreFragments:
    """A genre's parts of an answer, for registrations that picked it, or for those that did not.

    `carousel` lacks its end where `missing` stations are to be filled in. `message_for_all` is for registrations
    without picks.
    """

    station_id: str
    station: bytes
    message: bytes
    message_for_all: bytes
    carousel: bytes
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
        full = [genre for genre, stations in by_genre.items() if len(stations) >= TILES]
        self._full: Parts = (
            {genre: self._parts[False][genre] for genre in full},
            {genre: self._parts[True][genre] for genre in full},
        )
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
        full = self._full
        try:
            shown = [full[genre in picks][genre] for genre in genres[:SHOWN_GENRES]]
        except KeyError:
            shown = []
        if len(shown) != SHOWN_STATIONS or SHOWN_GENRES != CAROUSELS:
            return self._filled(genres, picks)
        first = shown[0]
        return b"".join(
            (
                b',"stations":[',
                b",".join([genre.station for genre in shown]),
                b'],"message":',
                first.message if picks else first.message_for_all,
                b',"carousels":[',
                b",".join([genre.carousel for genre in shown]),
                b"]",
            )
        )

    def station_ids(self, genres: Sequence[str]) -> list[str]:
        """The ids of the stations in `content`, the message's first."""
        parts = self._parts[False]
        best = [parts[genre].station_id for genre in genres[:SHOWN_GENRES] if genre in parts]
        if len(best) < SHOWN_STATIONS:
            best += [station_id for station_id, _, _ in self._popular if station_id not in best]
        return best[:SHOWN_STATIONS]

    def _filled(self, genres: Sequence[str], picks: Collection[str]) -> bytes:
        """`content` where some genre has too few stations."""
        if not self._popular:
            return b""
        parts = self._parts
        shown = [parts[genre in picks][genre] for genre in genres[:SHOWN_GENRES] if genre in parts[False]]
        stations = [genre.station for genre in shown]
        if len(stations) < SHOWN_STATIONS:
            ids = [genre.station_id for genre in shown]
            stations += [station for station_id, _, station in self._popular if station_id not in ids]
        most_popular = self._popular[0][1]
        first = shown[0] if shown else parts[most_popular in picks][most_popular]
        return b"".join(
            (
                b',"stations":[',
                b",".join(stations[:SHOWN_STATIONS]),
                b'],"message":',
                first.message if picks else first.message_for_all,
                b',"carousels":[',
                b",".join(self._carousels(genres, picks)),
                b"]",
            )
        )

    def _carousels(self, genres: Sequence[str], picks: Collection[str]) -> list[bytes]:
        parts = self._parts
        titled = list(islice((genre for genre in genres if genre in parts[False]), CAROUSELS))
        if len(titled) < CAROUSELS:
            titled = list(dict.fromkeys((*titled, *(genre for _, genre, _ in self._popular))))[:CAROUSELS]
        fillers = iter([tile for genre, tile in self._tiles if genre not in titled])
        carousels = []
        for genre in titled:
            part = parts[genre in picks][genre]
            if part.missing:
                carousels.append(b"".join((part.carousel, *islice(fillers, part.missing), b"]}")))
            else:
                carousels.append(part.carousel)
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
    missing = TILES - len(tiles)
    whole = _encode(carousel(genre, tiles, picks))
    return GenreFragments(
        station_id=best.station_id,
        station=_encode(best),
        message=_encode(message(best, picks)),
        message_for_all=_encode(message(best, ())),
        carousel=whole.removesuffix(b"]}") if missing else whole,
        missing=missing,
    )
