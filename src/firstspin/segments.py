"""People in groups, as a study speaks of them: by picks, age band, gender, country and month of registration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from firstspin.records import Examples, Registration, normal

NOT_GIVEN: Final = "not given"
OTHER: Final = "other"
AGE_EDGES: Final = (18, 25, 35, 45, 55)
AGE_BANDS: Final = ("under 18", "18-24", "25-34", "35-44", "45-54", "55+", NOT_GIVEN)
PICKS: Final = ("0", "1", "2", "3-5", "6+")

LEAST: Final = 10
"""A group of fewer is not shown: its figures would say nothing, and too much about each of them."""
MOST_VALUES: Final = 8
MOST_MONTHS: Final = 24


@dataclass(frozen=True, slots=True)
class Group:
    """The people (positions, ascending) who are alike in one thing."""

    by: str
    name: str
    members: NDArray[np.int64]


def groups(asked: Examples) -> list[Group]:
    """Every group of at least `LEAST` people; a thing in which all are alike makes no groups."""
    told = asked.registrations
    found = [
        *_grouped("picks", [picks_of(registration) for registration in told], PICKS),
        *_grouped("age", [age_band(registration) for registration in told], AGE_BANDS),
        *_by_word("gender", [registration.gender for registration in told]),
        *_by_word("country", [registration.country for registration in told]),
        *_by_time(asked.registered_at),
    ]
    several = Counter(group.by for group in found)
    return [group for group in found if several[group.by] > 1]


def picks_of(registration: Registration) -> str:
    """How many genres were picked, each counted once."""
    n = len({normal(pick) for pick in registration.genres})
    return PICKS[n] if n < 3 else PICKS[3] if n < 6 else PICKS[4]


def age_band(registration: Registration) -> str:
    """The age band, or 'not given'."""
    return NOT_GIVEN if registration.age is None else AGE_BANDS[sum(registration.age >= edge for edge in AGE_EDGES)]


def words(given: Sequence[str | None]) -> list[str]:
    """Each answer as most people spell it; those seldom given as 'other', those not given as that."""
    folded = [None if word is None else normal(word).casefold() for word in given]
    spelled: dict[str, Counter[str]] = {}
    for word, fold in zip(given, folded, strict=True):
        if word is not None and fold is not None:
            spelled.setdefault(fold, Counter())[normal(word)] += 1
    often = sorted(spelled, key=lambda fold: (-spelled[fold].total(), fold))[:MOST_VALUES]
    shown = {fold: min(spelled[fold], key=lambda word: (-spelled[fold][word], word)) for fold in often}
    return [NOT_GIVEN if fold is None else shown.get(fold, OTHER) for fold in folded]


def _by_word(by: str, given: Sequence[str | None]) -> list[Group]:
    said = words(given)
    count = Counter(said)
    last = {OTHER: 1, NOT_GIVEN: 2}
    return _grouped(by, said, sorted(count, key=lambda word: (last.get(word, 0), -count[word], word)))


def _by_time(registered_at: NDArray[np.datetime64]) -> list[Group]:
    """By month, or by year where the months are many."""
    months = registered_at.astype("datetime64[M]")
    if len(np.unique(months)) <= MOST_MONTHS:
        return _grouped("month", months.astype(str).tolist(), np.unique(months).astype(str).tolist())
    years = registered_at.astype("datetime64[Y]")
    return _grouped("year", years.astype(str).tolist(), np.unique(years).astype(str).tolist())


def _grouped(by: str, said: Sequence[str], names: Iterable[str]) -> list[Group]:
    """In the order of `names`."""
    array = np.array(said)
    found = [Group(by, name, np.flatnonzero(array == name)) for name in names]
    return [group for group in found if len(group.members) >= LEAST]
