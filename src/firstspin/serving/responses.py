"""Registration -> the bytes of its answer, in one pass.

What an answer is made of is known when the bundle is loaded: a genre's name and best station, its carousel, its
message. They are written down once as JSON; answering puts them together. The result is byte for byte what
`msgspec.json.encode(recommender.recommend(registration))` gives, which is also what answers wherever a genre has too
few stations for its own carousel.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import add
from typing import Protocol

import msgspec

from firstspin.records import SHOWN_GENRES, SOURCES, Ranking, Recommendation, Registration, Station, StoredAnswer
from firstspin.serving.explanations import Explanation, explain
from firstspin.serving.policy import Recommender
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
from firstspin.serving.wire import Asked, Encoding, Refusal, csv_row

log = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode


class Answering(Protocol):
    """Whoever answers: a model, or what stands in for it."""

    @property
    def model(self) -> str:
        """The bundle's id, as every answer names it."""

    def one(self, registration: Registration) -> tuple[bytes, str]:
        """The answer as JSON, and the source it names."""

    def several(self, asked: Asked) -> Iterable[tuple[bytes, str]]:
        """The answers in the encoding of the question, in order, and the source of each."""

    def kept(self, registration: Registration, kept: StoredAnswer) -> tuple[bytes, str] | None:
        """An answer that batch kept, as JSON, and its source; None where it is another bundle's."""

    def explained(self, registration: Registration) -> bytes:
        """Why the answer is as it is, as JSON. Refusal 503 while the model can't tell."""


@dataclass(frozen=True, slots=True)
class _Written:
    """A genre's parts of an answer as JSON, to someone who picked it, or did not."""

    chance: bytes
    station: bytes
    carousel: bytes
    message: bytes
    message_for_all: bytes  # to people who picked nothing


class Answers:
    """Answers from one bundle."""

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender
        self.model = recommender.bundle.id
        self._catalogue = catalogue = recommender.bundle.catalogue
        self._genres = self._written(catalogue)
        self._markets = {market: self._written(of) for market, of in catalogue.markets.items()}
        self._begin: dict[str, bytes] = {
            s: f'{{"model":"{self.model}","source":"{s}","genres":['.encode() for s in SOURCES
        }
        self._told = False

    def one(self, registration: Registration) -> tuple[bytes, str]:
        return self.filled(registration, self._ranked(registration))

    def several(self, asked: Asked) -> Iterable[tuple[bytes, str]]:
        rankings = self._all_ranked(asked.registrations)
        if asked.encoding is Encoding.csv:
            return [(csv_row(ranking), ranking.source) for ranking in rankings]
        return [self.filled(*pair) for pair in zip(asked.registrations, rankings, strict=True)]

    def kept(self, registration: Registration, kept: StoredAnswer) -> tuple[bytes, str] | None:
        if kept.model != self.model:
            return None
        return _encode(self._recommender.fill(registration, kept.ranking)), kept.ranking.source

    def explained(self, registration: Registration) -> bytes:
        try:
            return _encode(explain(self._recommender, registration))
        except Exception as problem:
            self._tell(problem)
            raise Refusal(503, "no_explanation", "the model failed, and the rule answers in its place") from None

    def source(self, registration: Registration) -> str:
        """What will answer this registration."""
        return self._recommender.source(registration)

    def ranked(self, registration: Registration, policy: str) -> Ranking:
        """What an arm of an experiment goes by: the business rule for `rule`, or else the model."""
        return self._recommender.by_rule(registration) if policy == "rule" else self._ranked(registration)

    def stations(self, registration: Registration, ranking: Ranking) -> list[str]:
        """The ids of the stations that the answer of this ranking names, the message's first."""
        catalogue = self._catalogue.of_country(registration.country)
        shown = first_stations(ranking.genres[:SHOWN_GENRES], catalogue)
        return [station.station_id for station in shown]

    def _ranked(self, registration: Registration) -> Ranking:
        try:
            return self._recommender.rank(registration)
        except Exception as problem:  # the newcomer gets an answer all the same; its `source` tells, and is counted
            self._tell(problem)
            return self._recommender.by_rule(registration)

    def _all_ranked(self, registrations: Sequence[Registration]) -> list[Ranking]:
        try:
            return list(self._recommender.rankings(registrations))
        except Exception:  # as above, and only for those whom it concerns
            return [self._ranked(registration) for registration in registrations]

    def _tell(self, problem: Exception) -> None:
        """Log the cause, once."""
        if not self._told:
            log.error("the model failed; the business rule answers", extra={"problem": type(problem).__name__})
        self._told = True

    def filled(self, registration: Registration, ranking: Ranking) -> tuple[bytes, str]:
        """The answer of this ranking as JSON, and the source it names."""
        genres, source = ranking.genres[:SHOWN_GENRES], ranking.source
        picks = self._catalogue.picked(registration.genres)
        market = self._catalogue.market_of(registration.country)
        written = self._genres if market is None else self._markets[market]
        try:
            shown = [written[genre in picks][genre] for genre in genres]
        except KeyError:  # a genre with few stations
            return _encode(self._recommender.fill(registration, ranking)), source
        chances = _encode(ranking.probabilities[:SHOWN_GENRES])[1:-1].split(b",")
        first = shown[0]
        body = (
            self._begin[source],
            b"},".join(map(add, [genre.chance for genre in shown], chances)),
            b'}],"stations":[',
            b",".join([genre.station for genre in shown]),
            b'],"message":',
            first.message if picks else first.message_for_all,
            b',"carousels":[',
            b",".join([genre.carousel for genre in shown]),
            b"]}",
        )
        return b"".join(body), source

    def _written(self, catalogue: Catalogue) -> tuple[dict[str, _Written], dict[str, _Written]]:
        """The parts of every genre that has stations enough to need no other's; none unless all lists are as long.

        First as they are to someone who did not pick the genre, then to someone who did.
        """
        if (
            not SHOWN_GENRES == SHOWN_STATIONS == CAROUSELS
            or len(self._recommender.bundle.predictor.genres) < CAROUSELS
        ):
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


class NoModel:
    """Answers while there is no model yet: nothing is recommended, and `source` says so."""

    model = "none"

    def one(self, registration: Registration) -> tuple[bytes, str]:  # noqa: ARG002
        return _encode(Recommendation(self.model, "no-model", ())), "no-model"

    def several(self, asked: Asked) -> Iterable[tuple[bytes, str]]:
        if asked.encoding is Encoding.csv:
            return [(csv_row(Ranking((), (), "no-model")), "no-model")] * len(asked.registrations)
        return [self.one(registration) for registration in asked.registrations]

    def kept(self, registration: Registration, kept: StoredAnswer) -> tuple[bytes, str] | None:
        nowhere = Catalogue.of([])  # which stations there are, only the bundle knows
        return _encode(fill(kept.ranking, registration.genres, nowhere, kept.model)), kept.ranking.source

    def explained(self, registration: Registration) -> bytes:  # noqa: ARG002
        return _encode(Explanation(self.model, "no-model", ()))
