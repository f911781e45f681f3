"""The answers of a worker since its last report, as sums: no registration is kept, and no attribute of a user.

The service cannot know the quality of an answer before its label, two months later. It records what the model
expects: the probability that the first 1, 3 and 5 genres contain the favourite.

The exact probabilities of one answer, with the bundle, would tell the age and gender they were made from, and the time
of the report whose they are. So kinds of fewer than 10 answers wait until the end of the day, or the worker's, and
their sums are then rounded to whole percents at random, so that the expected sums stay right.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import product, repeat
from typing import Final

import numpy as np
from numpy.typing import NDArray

from firstspin.evaluation.cohorts import MIN_USERS, picks_of
from firstspin.events.answer_counts import AnswerCell, AnswerSum, DayCounts, InputCounts
from firstspin.models.calibration import MILLION, PLACES, TOPS, places_of
from firstspin.models.input_reference import InputReference
from firstspin.records import Registration
from firstspin.serving.bundle import Bundle
from firstspin.serving.policy import Decision
from firstspin.watch.answered_users import AnsweredUsers
from firstspin.watch.inputs import MAX_SKETCHED, InputSketch

REPORT_SECONDS: Final = 300.0
PERCENT: Final = MILLION // 100
SUMMED_AT_ONCE: Final = 256
"""Answers of a kind that wait to be added up together: one by one, that costs three times as much."""

Kind = tuple[str, str, str, str]
"""Of an answer: the bundle's id, the source, what ranked, and the band of the number of picks."""


class KindSums:
    """The sums of a kind: (k, place) `answers`, and `millionths` of their probabilities; `add` is cheap."""

    def __init__(self) -> None:
        self._answers = np.zeros(len(TOPS) * PLACES, dtype=np.int64)
        self._millionths = np.zeros(len(TOPS) * PLACES, dtype=np.int64)
        self._waiting: list[float] = []

    def add(self, probabilities: tuple[float, ...]) -> None:
        """Count an answer with these probabilities, best first."""
        self._waiting += probabilities[: TOPS[-1]]
        if len(probabilities) < TOPS[-1]:
            self._waiting += [0.0] * (TOPS[-1] - len(probabilities))
        if len(self._waiting) >= SUMMED_AT_ONCE * TOPS[-1]:
            self._add_up()

    def _add_up(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            millionths = _first_genres(np.array(waiting).reshape(-1, TOPS[-1]))
            cells = (places_of(millionths) + np.arange(len(TOPS)) * PLACES).ravel()
            self._answers += np.bincount(cells, minlength=len(self._answers))
            np.add.at(self._millionths, cells, millionths.ravel())

    def rows(self) -> Iterator[tuple[int, int, int, int]]:
        """The k, the place, the number of answers and the sum of their millionths, where there are answers."""
        self._add_up()
        cells = zip(product(TOPS, range(PLACES)), self._answers.tolist(), self._millionths.tolist(), strict=True)
        return ((top, place, answers, millionths) for (top, place), answers, millionths in cells if answers)

    @property
    def is_small(self) -> bool:
        """Whether these are fewer than 10 answers; each is in one place of the first k."""
        return len(self._waiting) // TOPS[-1] + int(self._answers[:PLACES].sum()) < MIN_USERS


class AnswerTally:
    """Sums of answers by day, kind and place of their probability; `now` is the time of day.

    A user counts once, as long as `answered` has them; an answer without a user id always counts.
    """

    def __init__(self, now: Callable[[], datetime], rng: random.Random, answered: AnsweredUsers | None = None) -> None:
        self._now, self._rng, self._answered = now, rng, answered
        self._start = now()
        self._kinds: dict[Kind, KindSums] = {}
        self._sketches: dict[str, InputSketch] = {}
        self._sketched = 0

    def add(
        self,
        registrations: Sequence[Registration],
        decisions: Sequence[Decision],
        bundle: Bundle | None = None,
        users: Sequence[str | None] | None = None,
    ) -> None:
        """Count these answers, and their inputs where the `bundle` has a reference; `users` are their ids, where known.

        Not those without genres, nor those under the minimum age, of whom nothing is stored.
        """
        now = self._now()
        answers = [
            (registration, decision)
            for registration, decision, user in zip(registrations, decisions, users or repeat(None), strict=False)
            if decision.ranking.probabilities and decision.ranking.source != "under-age" and self._is_first(user, now)
        ]
        if answers and bundle and bundle.manifest.inputs and self._sketched < MAX_SKETCHED:
            self._sketch(answers, bundle.id, bundle.manifest.inputs)
        for registration, decision in answers:
            kind = kind_of(registration, decision)
            sums = self._kinds.get(kind)
            if sums is None:
                sums = self._kinds[kind] = KindSums()
            sums.add(decision.ranking.probabilities)

    def due(self, *, closing: bool = False) -> DayCounts | None:
        """The sums where a report is due, after which counting begins at 0: every 5 minutes, and at a day's end."""
        now, start = self._now(), self._start
        is_last = closing or now.date() != start.date()
        if not is_last and 0 <= (now - start).total_seconds() < REPORT_SECONDS:  # or the clock was set back
            return None
        self._start, self._sketched = now, 0
        kinds, self._kinds = self._kinds, {}
        if not is_last:
            self._kinds = {kind: sums for kind, sums in kinds.items() if sums.is_small}
            kinds = {kind: sums for kind, sums in kinds.items() if not sums.is_small}
        ends_week = now.isocalendar()[:2] != start.isocalendar()[:2]
        inputs = tuple(self._inputs(rounded=closing or ends_week))
        return DayCounts(start.date().isoformat(), tuple(_sums(kinds, self._rng)), inputs) if kinds or inputs else None

    def _is_first(self, user: str | None, now: datetime) -> bool:
        return user is None or self._answered is None or self._answered.is_first(user, now)

    def _sketch(self, answers: Sequence[tuple[Registration, Decision]], model: str, reference: InputReference) -> None:
        """Count inputs; those of a lookup of a stored answer are left out, as such a request has the user's id only."""
        sketch = self._sketches.get(model)
        if sketch is None:
            sketch = self._sketches[model] = InputSketch(reference, self._rng)
        for registration, decision in answers:
            if decision.ranking.source != "batch":
                is_model = decision.ranking.source == "model" and not (decision.by_rule or decision.moved)
                is_model = is_model and decision.model == model  # and not that of a challenger
                sketch.add(registration, decision.ranking.genres[0] if is_model else None)
                self._sketched += 1

    def _inputs(self, *, rounded: bool) -> Iterator[InputCounts]:
        """The counts that may be reported; where they are rounded, all are, and the bundles' sketches are new."""
        for model, sketch in self._sketches.items():
            columns = sketch.taken(rounded=rounded)
            if columns or rounded:
                yield InputCounts(model, columns, int(rounded))
        if rounded:
            self._sketches.clear()


def _sums(kinds: Mapping[Kind, KindSums], rng: random.Random) -> Iterator[AnswerSum]:
    for kind, sums in kinds.items():
        unit = PERCENT if sums.is_small else 1
        for top, place, answers, millionths in sums.rows():
            rounded = (millionths + rng.randrange(unit)) // unit * unit
            yield AnswerSum(AnswerCell(*kind, top, place), answers, rounded)


def first_genres(rankings: Sequence[Sequence[float]]) -> NDArray[np.int64]:
    """(n, 3) probability of the first 1, 3 and 5 genres in millionths, of n rankings' probabilities, best first.

    >>> first_genres([(0.41, 0.2, 0.11, 0.08, 0.05, 0.15), (0.7, 0.3)]).tolist()
    [[410000, 720000, 850000], [700000, 1000000, 1000000]]
    """
    last = TOPS[-1]
    return _first_genres(np.array([(*row[:last], *[0.0] * (last - len(row))) for row in rankings]))


def _first_genres(first: NDArray[np.float64]) -> NDArray[np.int64]:
    """`first_genres` of the first 5 probabilities (n, 5)."""
    sums = np.add.accumulate(first, axis=1)[:, np.array(TOPS) - 1]
    millionths: NDArray[np.int64] = np.rint(sums * MILLION).astype(np.int64)
    return np.minimum(millionths, MILLION)


def kind_of(registration: Registration, decision: Decision) -> Kind:
    """The kind of an answer; "listens" ranked where listens of the request moved the ranking."""
    predicted = "listens" if decision.moved else "rule" if decision.by_rule else "model"
    return decision.model, decision.ranking.source, predicted, picks_of(registration)
