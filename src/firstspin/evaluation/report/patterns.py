"""Examples -> tables of numbers: listening by group, picks against top genres, log-odds of each answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from firstspin.data.names import NameIndex
from firstspin.evaluation.cohorts import AGE_BANDS, NOT_GIVEN, OTHER, age_band, words
from firstspin.models.predictor import Predictor
from firstspin.records import Examples, LabelRule, Registration, normal

Array = NDArray[np.float64]
Positions = NDArray[np.int64]

MIN_USERS: Final = 10
"""Means over fewer users are withheld."""
AGES: Final = (16, 21, 30, 40, 50, 60)
COUNTRIES_SHOWN: Final = 6


@dataclass(frozen=True, slots=True)
class Grid:
    """Numbers (r, c) by row and column; `people` (r,): users behind each row."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: Array
    people: tuple[int, ...]

    def first(self, rows: int, columns: int) -> Grid:
        """The upper left corner."""
        part = self.values[:rows, :columns]
        return Grid(self.rows[:rows], self.columns[:columns], part, self.people[:rows])


def arrivals(registered_at: NDArray[np.datetime64], unit: str) -> dict[str, int]:
    """Registrations (n,) per month or year, from the first to the last, those without any included."""
    of = registered_at.astype(f"datetime64[{unit[0].upper()}]")
    calendar = np.arange(of.min(), of.max() + 1)
    return {str(when): int((of == when).sum()) for when in calendar}


def has_open_windows(when: str, rule: LabelRule) -> bool:
    """Whether the data end before the label windows of all users who registered in a month or year."""
    if rule.data_ends is None:
        return False
    ends = (np.datetime64(when) + 1).astype("datetime64[s]") + np.timedelta64(rule.gap_days + rule.window_days, "D")
    return bool(ends > np.datetime64(rule.data_ends, "s"))


def genders(examples: Examples) -> dict[str, Positions]:
    """The positions (m,) of the users of each gender, the frequent genders first."""
    answers = words([registration.gender for registration in examples.registrations])
    return _grouped(answers, sorted(set(answers) - {NOT_GIVEN, OTHER}, key=lambda word: (-answers.count(word), word)))


def ages(examples: Examples) -> dict[str, Positions]:
    """The positions (m,) of the users of each age band."""
    return _grouped([age_band(registration) for registration in examples.registrations], AGE_BANDS[:-1])


def mean_shares(examples: Examples, groups: Mapping[str, Positions]) -> Grid:
    """Mean share of a user's listening of each genre, over the positions (m,) of each group; genres by that of all.

    Every user has the same weight, however long they listened: it is not a genre's share of all listening.
    """
    order = _by(examples.shares.mean(axis=0))
    values = [examples.shares[members].mean(axis=0)[order] for members in groups.values()]
    genres = tuple(examples.genres[i] for i in order)
    people = tuple(len(members) for members in groups.values())
    return Grid(tuple(groups), genres, _stacked(values, len(genres)), people)


def picked_and_played(examples: Examples) -> Grid:
    """Of the users who picked a genre (rows), the share with each top genre (columns); both sorted by popularity."""
    order = _by(np.bincount(examples.tops, minlength=len(examples.genres)))
    played = tuple(examples.genres[i] for i in order)
    pickers: dict[str, list[int]] = {}
    names = NameIndex(played)
    for i, registration in enumerate(examples.registrations):
        for pick in {names.find(pick) or normal(pick) for pick in registration.genres}:
            pickers.setdefault(pick, []).append(i)
    often = {pick for pick, people in pickers.items() if len(people) >= MIN_USERS}
    rows = [*(genre for genre in played if genre in often), *sorted(often - set(played))]
    tops = np.eye(len(examples.genres))[:, order]
    values = [tops[examples.tops[pickers[pick]]].mean(axis=0) for pick in rows]
    return Grid(tuple(rows), played, _stacked(values, len(played)), tuple(len(pickers[pick]) for pick in rows))


def answers_and_genres(predictor: Predictor, examples: Examples) -> Grid:
    """The effect of each single answer on each genre: log-odds against the mean genre, relative to no answers.

    For a logistic model these are the sums of the weights of the answer's columns. Rows: genders, ages, countries
    and picks given by at least `MIN_USERS` users; columns: genres by number of users with that top genre.
    """
    order = _by(np.bincount(examples.tops, minlength=len(examples.genres)))
    answers = _given_answers(examples, [examples.genres[i] for i in order])
    scores = predictor.scores([Registration(), *(registration for _, registration, _ in answers)])
    where = {genre: i for i, genre in enumerate(predictor.genres)}
    moved = (scores[1:] - scores[0])[:, [where[examples.genres[i]] for i in order]]
    moved -= moved.mean(axis=1, keepdims=True)
    names, people = tuple(name for name, _, _ in answers), tuple(n for _, _, n in answers)
    return Grid(names, tuple(examples.genres[i] for i in order), moved, people)


def _given_answers(examples: Examples, genres: Sequence[str]) -> list[tuple[str, Registration, int]]:
    """Each answer in words, the registration with this answer alone, and the number of users who gave it."""
    registrations = examples.registrations

    def often(name: str, answer: Registration, n: int) -> list[tuple[str, Registration, int]]:
        return [(name, answer, n)] if n >= MIN_USERS else []

    answers, names = [], NameIndex(genres)
    for word in _common([one.gender for one in registrations], 4):
        answers += often(word, Registration(gender=word), sum(_same(one.gender, word) for one in registrations))
    bands = Counter(map(age_band, registrations))
    for age in AGES:
        answers += often(f"age {age}", Registration(age=age), bands[age_band(Registration(age=age))])
    for word in _common([one.country for one in registrations], COUNTRIES_SHOWN):
        answers += often(word, Registration(country=word), sum(_same(one.country, word) for one in registrations))
    picked = Counter(genre for one in registrations for genre in set(map(names.find, one.genres)))
    for genre in genres:
        answers += often(f"picked {genre}", Registration(genres=(genre,)), picked[genre])
    return answers


def _common(given: Sequence[str | None], limit: int) -> list[str]:
    answers = words(given)
    return sorted(set(answers) - {NOT_GIVEN, OTHER}, key=lambda word: (-answers.count(word), word))[:limit]


def _same(answer: str | None, word: str) -> bool:
    return answer is not None and normal(answer).casefold() == word.casefold()


def _grouped(answers: Sequence[str], names: Sequence[str]) -> dict[str, Positions]:
    """The positions (m,) of each name, of at least `MIN_USERS` users."""
    array = np.array(answers)
    groups = {name: np.flatnonzero(array == name) for name in names}
    return {name: members for name, members in groups.items() if len(members) >= MIN_USERS}


def _by(amount: NDArray[np.generic]) -> list[int]:
    """Positions in descending order of the amount."""
    order: list[int] = np.argsort(-amount.astype(np.float64), kind="stable").tolist()
    return order


def _stacked(values: Sequence[Array], columns: int) -> Array:
    return np.stack(values) if values else np.empty((0, columns))
