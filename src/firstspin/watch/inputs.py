"""Columns of registrations as categories, counted the same way in training and in the service.

The service counts only categories that training knows: no text of a request is stored. Small counts never leave the
memory of a worker: it reports a category once it has counted 10, and at the end of a week, or its own, rounds the
rest at random to 0 or 10, so that the expected counts stay right.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

import numpy as np

from firstspin.data.schema import NUMBER
from firstspin.evaluation.cohorts import MIN_USERS, NOT_GIVEN, OTHER, age_band, picks_of
from firstspin.models.input_reference import InputReference
from firstspin.records import AGE_EDGES, Registration, normal

REGISTRATIONS: Final = "registrations"
"""The column with one category, all: the denominator of picks, of which a registration has several."""
PICKS: Final = "picks"
FIRST_GENRE: Final = "first genre"
"""Of the model's answer. Names with a space can't be further columns."""
MAX_CATEGORIES: Final = 20
MAX_SKETCHED: Final = 2_000
"""Registrations that a worker counts between two reports: the rest adds nothing to what a week shows."""

_COUNTED_ABOVE: Final = ("age", "genres", "listens", "user_id")

Counts = dict[str, dict[str, int]]


@lru_cache(maxsize=4_096)
def _folded(text: str) -> str:
    return normal(text).casefold()


def _values(registration: Registration, edges: Mapping[str, Sequence[float]]) -> Iterator[tuple[str, str]]:
    """Column and value of each answer, before rare values are put together; `edges` has the numeric columns."""
    yield REGISTRATIONS, "all"
    yield "age", age_band(registration)
    yield "number of picks", picks_of(registration)
    picks = [_folded(pick) for pick in registration.genres]
    yield "first pick", picks[0] if picks else NOT_GIVEN
    for pick in dict.fromkeys(picks):
        yield PICKS, pick
    for name in registration.__struct_fields__:
        if name not in _COUNTED_ABOVE:
            value = getattr(registration, name)
            if value is None:
                yield name, NOT_GIVEN
            elif name in edges:
                yield name, f"quarter {1 + bisect_right(edges[name], float(value))}"
            else:
                yield name, _folded(str(value))


def is_minor(registration: Registration) -> bool:
    """Whether the registration is not counted: under 18, so that no minimum age of a service is drift."""
    return registration.age is not None and registration.age < AGE_EDGES[0]


def reference_of(
    registrations: Sequence[Registration], kinds: Mapping[str, str], genres: Sequence[str]
) -> InputReference:
    """The reference of the registrations of the tables; `kinds` are those of the further columns.

    `genres` are those that the model ranks, which no count of answers refers to.
    """
    adults = [one for one in registrations if not is_minor(one)]
    numbers = {
        name: [float(value) for one in adults if (value := getattr(one, name, None)) is not None]
        for name, kind in kinds.items()
        if kind == NUMBER
    }
    edges = {name: tuple(np.quantile(values, [0.25, 0.5, 0.75]).tolist()) for name, values in numbers.items() if values}
    counts: dict[str, Counter[str]] = {}
    for registration in adults:
        for column, value in _values(registration, edges):
            counts.setdefault(column, Counter())[value] += 1
    columns = {column: _frequent(of) for column, of in counts.items()}
    return InputReference(columns | {FIRST_GENRE: dict.fromkeys(genres, 0)}, edges)


def _frequent(counts: Counter[str]) -> dict[str, int]:
    """The most frequent categories, and the others as one, whose count may be 0."""
    often = {name: n for name, n in counts.most_common(MAX_CATEGORIES) if n >= MIN_USERS and name != OTHER}
    others = counts.total() - sum(often.values())
    return often | {OTHER: others if others >= MIN_USERS else 0}


class InputSketch:
    """Counts of the inputs and answers of one bundle in a worker; `rng` rounds what is left."""

    def __init__(self, reference: InputReference, rng: random.Random) -> None:
        self._reference, self._rng = reference, rng
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, registration: Registration, first_genre: str | None) -> None:
        """Count a registration of an adult, and the first genre of the answer where the model ranked."""
        if is_minor(registration):
            return
        columns, counts = self._reference.columns, self._counts
        for column, value in _values(registration, self._reference.edges):
            known = columns.get(column)
            if known is not None:
                counts[column, value if value in known else OTHER] += 1
        if first_genre is not None:
            counts[FIRST_GENRE, first_genre] += 1

    def taken(self, *, rounded: bool) -> Counts:
        """The counts of at least 10, which begin at 0 again; with `rounded` the others too, as 0 or 10."""
        taken: Counts = {}
        for (column, category), n in list(self._counts.items()):
            if n >= MIN_USERS or rounded:
                del self._counts[column, category]
                shown = n if n >= MIN_USERS else MIN_USERS * (self._rng.random() * MIN_USERS < n)
                if shown:
                    taken.setdefault(column, {})[category] = shown
        return taken
