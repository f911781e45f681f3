"""Cohorts of users: by number of picks, age band, gender, country and month of registration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from firstspin.records import AGE_EDGES, Examples, Registration, normal

NOT_GIVEN: Final = "not given"
OTHER: Final = "other"
AGE_BANDS: Final = ("under 18", "18-24", "25-34", "35-44", "45-54", "55+", NOT_GIVEN)
PICKS: Final = ("0", "1", "2", "3-5", "6+")

MIN_USERS: Final = 10
"""Smaller cohorts are withheld: their figures are noise, and reveal too much about each user."""
MAX_VALUES: Final = 8
MAX_MONTHS: Final = 24


@dataclass(frozen=True, slots=True)
class Cohort:
    """The users with the same value `name` of the attribute `by`; `members` (m,): their positions, ascending."""

    by: str
    name: str
    members: NDArray[np.int64]


def cohorts(users: Examples) -> list[Cohort]:
    """Every cohort of at least `MIN_USERS` users; an attribute with a single value makes none."""
    registrations = users.registrations
    candidates = [
        *_grouped("picks", [picks_of(registration) for registration in registrations], PICKS),
        *_grouped("age", [age_band(registration) for registration in registrations], AGE_BANDS),
        *_by_word("gender", [registration.gender for registration in registrations]),
        *_by_word("country", [registration.country for registration in registrations]),
        *_by_time(users.registered_at),
    ]
    several = Counter(cohort.by for cohort in candidates)
    return [cohort for cohort in candidates if several[cohort.by] > 1]


def picks_of(registration: Registration) -> str:
    """The band of the number of distinct picks."""
    n = len(registration.genres)
    if n > 1:
        n = len(set(map(_folded, registration.genres)))
    return PICKS[n] if n < 3 else PICKS[3] if n < 6 else PICKS[4]


@lru_cache(maxsize=4_096)
def _folded(pick: str) -> str:
    return normal(pick).casefold()


def age_band(registration: Registration) -> str:
    """The age band, or NOT_GIVEN."""
    return NOT_GIVEN if registration.age is None else AGE_BANDS[sum(registration.age >= edge for edge in AGE_EDGES)]


def words(given: Sequence[str | None]) -> list[str]:
    """Each answer in its most common spelling; rare answers become OTHER, missing ones NOT_GIVEN."""
    folded = [None if word is None else normal(word).casefold() for word in given]
    spelled: dict[str, Counter[str]] = {}
    for word, fold in zip(given, folded, strict=True):
        if word is not None and fold is not None:
            spelled.setdefault(fold, Counter())[normal(word)] += 1
    often = sorted(spelled, key=lambda fold: (-spelled[fold].total(), fold))[:MAX_VALUES]
    shown = {fold: min(spelled[fold], key=lambda word: (-spelled[fold][word], word)) for fold in often}
    return [NOT_GIVEN if fold is None else shown.get(fold, OTHER) for fold in folded]


def _by_word(by: str, given: Sequence[str | None]) -> list[Cohort]:
    answers = words(given)
    count = Counter(answers)
    last = {OTHER: 1, NOT_GIVEN: 2}
    return _grouped(by, answers, sorted(count, key=lambda word: (last.get(word, 0), -count[word], word)))


def _by_time(registered_at: NDArray[np.datetime64]) -> list[Cohort]:
    """By month, or by year for more than MAX_MONTHS months."""
    months = registered_at.astype("datetime64[M]")
    if len(np.unique(months)) <= MAX_MONTHS:
        return _grouped("month", months.astype(str).tolist(), np.unique(months).astype(str).tolist())
    years = registered_at.astype("datetime64[Y]")
    return _grouped("year", years.astype(str).tolist(), np.unique(years).astype(str).tolist())


def _grouped(by: str, values: Sequence[str], names: Iterable[str]) -> list[Cohort]:
    """The cohorts large enough to show, in the order of `names`."""
    array = np.array(values)
    cohorts = [Cohort(by, name, np.flatnonzero(array == name)) for name in names]
    return [cohort for cohort in cohorts if len(cohort.members) >= MIN_USERS]
