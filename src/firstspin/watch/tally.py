"""The answers of a worker since its last report, as sums: no registration is kept, and no attribute of a user.

The service cannot know the quality of an answer before its label, two months later. It records what the model
expects: the probability that the first 1, 3 and 5 genres contain the favourite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import product
from typing import Final

from firstspin.evaluation.cohorts import picks_of
from firstspin.events.answer_counts import AnswerCell, AnswerSum, DayCounts
from firstspin.models.calibration import MILLION, PLACES, TOPS, place_of
from firstspin.records import Registration
from firstspin.serving.policy import Decision

REPORT_SECONDS: Final = 300.0

Kind = tuple[str, str, str, str]
"""Of an answer: the bundle's id, the source, what ranked, and the band of the number of picks."""


class AnswerTally:
    """Sums of answers by day, kind and place of their probability; `now` is the time of day.

    Each kind has a list with the number of answers and the sum of their millionths for each k and place: an answer
    costs the service a few microseconds.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._start = now()
        self._kinds: dict[Kind, list[int]] = {}

    def add(self, registrations: Sequence[Registration], decisions: Sequence[Decision]) -> None:
        """Count these answers; one without genres is none."""
        for registration, decision in zip(registrations, decisions, strict=True):
            probable = first_genres(decision.ranking.probabilities)
            if not probable:
                continue
            kind = kind_of(registration, decision)
            sums = self._kinds.get(kind)
            if sums is None:
                sums = self._kinds[kind] = [0] * (2 * PLACES * len(TOPS))
            offset = 0
            for millionths in probable:
                at = offset + 2 * place_of(millionths)
                sums[at] += 1
                sums[at + 1] += millionths
                offset += 2 * PLACES

    def due(self, *, closing: bool = False) -> DayCounts | None:
        """The sums where a report is due, after which counting begins at 0: every 5 minutes, and at a day's end."""
        now, start = self._now(), self._start
        is_due = closing or now.date() != start.date() or (now - start).total_seconds() >= REPORT_SECONDS
        if not is_due:
            return None
        self._start = now
        kinds, self._kinds = self._kinds, {}
        return DayCounts(start.date().isoformat(), tuple(_sums(kinds))) if kinds else None


def _sums(kinds: Mapping[Kind, Sequence[int]]) -> Iterator[AnswerSum]:
    for kind, sums in kinds.items():
        for i, (top, place) in enumerate(product(TOPS, range(PLACES))):
            if sums[2 * i]:
                yield AnswerSum(AnswerCell(*kind, top, place), sums[2 * i], sums[2 * i + 1])


def first_genres(probabilities: Sequence[float]) -> tuple[int, ...]:
    """The probability of the first 1, 3 and 5 genres in millionths, best first; empty without genres.

    >>> first_genres((0.41, 0.2, 0.11, 0.08, 0.05, 0.15)), first_genres((0.7, 0.3)), first_genres(())
    ((410000, 720000, 850000), (700000, 1000000, 1000000), ())
    """
    return tuple([min(round(sum(probabilities[:top]) * MILLION), MILLION) for top in TOPS]) if probabilities else ()


def kind_of(registration: Registration, decision: Decision) -> Kind:
    """The kind of an answer; "listens" ranked where listens of the request moved the ranking."""
    predicted = "listens" if decision.moved else "rule" if decision.by_rule else "model"
    return decision.model, decision.ranking.source, predicted, picks_of(registration)
