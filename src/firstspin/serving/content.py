"""Decision -> the whole answer as an object; `responses` gives the same as bytes."""

from __future__ import annotations

import msgspec

from firstspin.records import Recommendation, Registration
from firstspin.serving.bundle import Bundle
from firstspin.serving.policy import Decision
from firstspin.serving.stations import Catalogue, fill

NO_STATIONS = Catalogue.of([])


def recommendation(registration: Registration, decision: Decision, bundle: Bundle | None) -> Recommendation:
    """The whole answer: genres, stations, message, carousels. Without a bundle no station is known."""
    return filled(registration, decision, bundle.catalogue if bundle else NO_STATIONS)


def filled(registration: Registration, decision: Decision, catalogue: Catalogue) -> Recommendation:
    """The whole answer from the stations of this catalogue."""
    picks = catalogue.picked(registration.genres)
    answer = fill(decision.ranking, picks, catalogue.of_country(registration.country), decision.model, decision.slot)
    if decision.rows or decision.listens:
        answer = msgspec.structs.replace(answer, rows=decision.rows, listens=decision.listens or None)
    if decision.experiment and decision.assignment:
        return msgspec.structs.replace(answer, experiment=decision.experiment, arm=decision.assignment.arm)
    return answer
