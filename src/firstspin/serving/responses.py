"""Decision -> the bytes of its answer, in one pass.

What an answer is made of is known when the bundle is loaded: a genre's name and best station, its carousel, its
message. They are encoded as JSON once; answering puts them together. The result is byte for byte what
`msgspec.json.encode(recommendation(...))` gives, which is also what answers wherever a genre has too few stations for
its own carousel. What ranks is decided in `policy`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import add

import msgspec

from firstspin.records import SHOWN_GENRES, SOURCES, Ranking, Recommendation, Registration, Station
from firstspin.serving.bundle import Bundle
from firstspin.serving.policy import NO_MODEL, Decision
from firstspin.serving.stations import (
    CAROUSELS,
    SHOWN_STATIONS,
    TILES,
    Catalogue,
    carousel,
    fill,
    first_stations,
    message,
)
from firstspin.serving.wire import Encoding, csv_row

_encode = msgspec.json.Encoder().encode

_NO_STATIONS = Catalogue.of([])


def recommendation(registration: Registration, decision: Decision, bundle: Bundle | None) -> Recommendation:
    """The whole answer: genres, stations, message, carousels. Without a bundle no station is known."""
    return _filled(registration, decision, bundle.catalogue if bundle else _NO_STATIONS)


def _filled(registration: Registration, decision: Decision, catalogue: Catalogue) -> Recommendation:
    picks = catalogue.picked(registration.genres)
    return fill(decision.ranking, picks, catalogue.of_country(registration.country), decision.model)


@dataclass(frozen=True, slots=True)
class _Written:
    """A genre's parts of an answer as JSON, to someone who picked it, or did not."""

    chance: bytes
    station: bytes
    carousel: bytes
    message: bytes
    message_for_all: bytes  # to people who picked nothing


class Responses:
    """Answers as bytes, from the content of one bundle, or of none while there is no model."""

    def __init__(self, bundle: Bundle | None) -> None:
        self.model = bundle.id if bundle else NO_MODEL
        self._catalogue = catalogue = bundle.catalogue if bundle else _NO_STATIONS
        self._is_short = bundle is None or len(bundle.predictor.genres) < CAROUSELS
        self._genres = self._written(catalogue)
        self._markets = {market: self._written(of) for market, of in catalogue.markets.items()}
        self._begin: dict[str, bytes] = {
            s: f'{{"model":"{self.model}","source":"{s}","genres":['.encode() for s in SOURCES
        }

    def encoded(self, registration: Registration, decision: Decision, encoding: Encoding) -> bytes:
        """The answer in the encoding of the request; a row of CSV or a line has no line end."""
        return csv_row(decision.ranking) if encoding is Encoding.csv else self.json(registration, decision)

    def stations(self, registration: Registration, ranking: Ranking) -> list[str]:
        """The ids of the stations that the answer of this ranking names, the message's first."""
        catalogue = self._catalogue.of_country(registration.country)
        shown = first_stations(ranking.genres[:SHOWN_GENRES], catalogue)
        return [station.station_id for station in shown]

    def json(self, registration: Registration, decision: Decision) -> bytes:
        """The answer as JSON."""
        ranking = decision.ranking
        genres = ranking.genres[:SHOWN_GENRES]
        picks = self._catalogue.picked(registration.genres)
        market = self._catalogue.market_of(registration.country)
        written = self._genres if market is None else self._markets[market]
        try:
            shown = [written[genre in picks][genre] for genre in genres]
        except KeyError:  # a genre with few stations
            shown = []
        if not shown or decision.model != self.model:
            return _encode(_filled(registration, decision, self._catalogue))
        chances = _encode(ranking.probabilities[:SHOWN_GENRES])[1:-1].split(b",")
        body = (
            self._begin[ranking.source],
            b"},".join(map(add, [genre.chance for genre in shown], chances)),
            b'}],"stations":[',
            b",".join([genre.station for genre in shown]),
            b'],"message":',
            shown[0].message if picks else shown[0].message_for_all,
            b',"carousels":[',
            b",".join([genre.carousel for genre in shown]),
            b"]}",
        )
        return b"".join(body)

    def _written(self, catalogue: Catalogue) -> tuple[dict[str, _Written], dict[str, _Written]]:
        """The parts of every genre that has stations enough to need no other's; none unless all lists are as long.

        First as they are to someone who did not pick the genre, then to someone who did.
        """
        if not SHOWN_GENRES == SHOWN_STATIONS == CAROUSELS or self._is_short:
            return {}, {}
        full = {genre: stations for genre, stations in catalogue.by_genre.items() if len(stations) >= TILES}
        unpicked, picked = ({g: _write(g, s, picked) for g, s in full.items()} for picked in (False, True))
        return unpicked, picked


def _write(genre: str, stations: Sequence[Station], picked: bool) -> _Written:
    best, tiles = stations[0], stations[:TILES]
    picks = {genre} if picked else {""}
    return _Written(
        chance=b'{"genre":' + _encode(genre) + b',"probability":',
        station=_encode(best),
        carousel=_encode(carousel(genre, tiles, picks)),
        message=_encode(message(best, picks)),
        message_for_all=_encode(message(best, ())),
    )
