"""Decision -> the bytes of its answer, in one pass.

What an answer is made of is known when the bundle is loaded. It is encoded as JSON once (`fragments`); answering puts
the parts together. The result is byte for byte what `msgspec.json.encode(recommendation(...))` gives. What ranks is
decided in `policy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import add
from typing import TypeVar

import msgspec

from firstspin.experiment.assign import Assignment
from firstspin.records import SHOWN_GENRES, SOURCES, Ranking, Registration
from firstspin.serving.bodies.encodings import Encoding, csv_row
from firstspin.serving.bundle import Bundle
from firstspin.serving.content import NO_STATIONS, filled
from firstspin.serving.fragments import CatalogueFragments, is_regular
from firstspin.serving.policy import NO_MODEL, Decision
from firstspin.serving.stations import first_stations

_encode = msgspec.json.Encoder().encode


def named_arm(experiment: str, assignment: Assignment | None) -> bytes:
    """The end of an answer in JSON that names its experiment and arm."""
    assert assignment is not None
    return b',"experiment":' + _encode(experiment) + b',"arm":' + _encode(assignment.arm) + b"}"


Policy = TypeVar("Policy")


class Responses:
    """Answers as bytes, from the content of one bundle, or of none while there is no model."""

    def __init__(self, bundle: Bundle | None) -> None:
        self.model = bundle.id if bundle else NO_MODEL
        self._catalogue = catalogue = bundle.catalogue if bundle else NO_STATIONS
        genres = {*bundle.predictor.genres, *bundle.rule.genres} if bundle else ()
        self._genres = {genre: b'{"genre":' + _encode(genre) + b',"probability":' for genre in genres}
        self._fragments = {
            market: CatalogueFragments(of_market)
            for market, of_market in [(None, catalogue), *catalogue.markets.items()]
            if is_regular(of_market)
        }
        self._begin: dict[str, bytes] = {
            s: f'{{"model":"{self.model}","source":"{s}","genres":['.encode() for s in SOURCES
        }

    def encoded(self, registration: Registration, decision: Decision, encoding: Encoding) -> bytes:
        """The answer in the encoding of the request; a row of CSV or a line has no line end."""
        return csv_row(decision.ranking) if encoding is Encoding.csv else self.json(registration, decision)

    def stations(self, registration: Registration, rankings: Mapping[Policy, Ranking]) -> dict[Policy, list[str]]:
        """The ids of the stations that an answer of each ranking names, the message's first."""
        fragments = self._fragments.get(self._catalogue.market_of(registration.country))
        if fragments is not None:
            return {policy: fragments.station_ids(ranking.genres) for policy, ranking in rankings.items()}
        catalogue = self._catalogue.of_country(registration.country)
        shown = {
            policy: first_stations(ranking.genres[:SHOWN_GENRES], catalogue) for policy, ranking in rankings.items()
        }
        return {policy: [station.station_id for station in stations] for policy, stations in shown.items()}

    def json(self, registration: Registration, decision: Decision) -> bytes:
        """The answer as JSON."""
        ranking = decision.ranking
        fragments = self._fragments.get(self._catalogue.market_of(registration.country))
        if fragments is None or decision.model != self.model or ranking.source == "batch" or decision.slot:
            return _encode(filled(registration, decision, self._catalogue))
        begin, genres = self._genres, ranking.genres
        probabilities = _encode(ranking.probabilities[:SHOWN_GENRES])[1:-1].split(b",")
        body = (
            self._begin[ranking.source],
            b"},".join(map(add, [begin[genre] for genre in genres[:SHOWN_GENRES]], probabilities)),
            b"}]" if genres else b"]",
            fragments.content(genres, self._catalogue.picked(registration.genres)),
            b',"rows":' + _encode(decision.rows) if decision.rows else b"",
            b',"listens":%d' % decision.listens if decision.listens else b"",
            named_arm(decision.experiment, decision.assignment) if decision.experiment else b"}",
        )
        return b"".join(body)
