"""The taste of the simulated service as tables of weights, and the exact P(top genre | registration) they define.

Every number is a weight inside a softmax over the genres: +1 multiplies the odds of a genre by e = 2.7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Genre(NamedTuple):
    """The popularity of a genre among the picks, and the weights of becoming a user's top genre."""

    picked: float  # relative odds of being picked
    played: float  # relative odds of being the top genre without a pick
    own: float  # weight of a pick for the genre itself; near 0: picked but hardly ever played
    men: float  # weight for men; its negative for women
    years: float  # weight for each 20 years above 38


GENRES: Final[Mapping[str, Genre]] = {
    #                            picked played own   men   years
    "Alternative": Genre(         1.30,  0.90,  3.1,  0.2, -0.9),
    "Christian & Gospel": Genre(  0.90,  0.50,  3.5, -0.2,  0.1),
    "Classic Rock": Genre(        1.50,  1.40,  3.0,  0.3,  0.5),
    "Classical": Genre(           0.60,  0.20,  3.6,  0.0,  0.4),
    "Comedy": Genre(              0.90,  0.30,  3.0,  0.3, -0.3),
    "Country": Genre(             1.50,  1.60,  3.4, -0.1,  0.1),
    "Dance": Genre(               0.90,  0.45,  3.0, -0.1, -0.5),
    "Hip Hop": Genre(             1.40,  2.00,  3.1,  0.2, -0.6),
    "International": Genre(       0.30,  0.18,  3.4,  0.0,  0.1),
    "Jazz": Genre(                0.70,  0.28,  3.2,  0.1,  1.0),
    "Kids & Family": Genre(       0.80,  0.18, -0.2, -0.3,  0.0),
    "Latin": Genre(               0.80,  0.50,  3.3,  0.0, -0.1),
    "Mix & Variety": Genre(       1.00,  0.22, -0.3, -0.1,  0.0),
    "News & Talk": Genre(         1.00,  1.50,  3.2,  0.7,  0.6),
    "Oldies": Genre(              1.00,  0.60,  3.0,  0.0,  1.1),
    "Public Radio": Genre(        0.50,  0.45,  3.0,  0.0,  0.8),
    "R&B": Genre(                 1.30,  0.35,  0.0, -0.1, -0.1),
    "Reggae & Island": Genre(     0.50,  0.22,  3.2,  0.1, -0.1),
    "Religious": Genre(           0.40,  0.26,  3.2,  0.0,  0.4),
    "Rock": Genre(                1.50,  0.70,  2.9,  0.3, -0.1),
    "Soft Rock": Genre(           0.90,  0.60,  2.9, -0.4,  0.4),
    "Sports": Genre(              1.00,  0.90,  3.3,  1.2,  0.0),
    "Top 40 & Pop": Genre(        2.00,  2.80,  3.1, -0.4, -1.1),
    "World": Genre(               0.30,  0.18,  3.5,  0.0,  0.1),
}  # fmt: skip

PULLS: Final[Mapping[str, Mapping[str, float]]] = {
    # weights of a pick for other genres
    "R&B": {"Hip Hop": 2.4, "Oldies": 0.4},
    "Classical": {"World": 2.2, "Public Radio": 2.2, "International": 2.0, "News & Talk": -0.5},
    "Kids & Family": {"Top 40 & Pop": 0.5, "Christian & Gospel": 0.4},
    "Mix & Variety": {"Soft Rock": 0.7, "Top 40 & Pop": 0.3},
    "Rock": {"Classic Rock": 0.6, "Alternative": 0.4},
    "Alternative": {"Rock": 0.5},
    "Jazz": {"Public Radio": 0.4, "Soft Rock": 0.3},
    "Christian & Gospel": {"Religious": 0.7},
    "Religious": {"Christian & Gospel": 0.6},
    "News & Talk": {"Public Radio": 0.5, "Sports": 0.2},
    "Sports": {"News & Talk": 0.5},
    "Dance": {"Top 40 & Pop": 0.5},
    "Comedy": {"News & Talk": 0.3},
    "Latin": {"Reggae & Island": 0.3},
}

# Weight of a pick by its place: the first has the largest.
PLACES: Final = (1.33, 1.1, 0.9, 0.73, 0.58, 0.48, 0.42, 0.37, 0.37, 0.37, 0.37, 0.37)
MAX_PICKS: Final = len(PLACES)
NOT_GIVEN: Final = -1

COUNTRIES: Final[Mapping[str, Mapping[str, float]]] = {
    # weights of the genres that differ by country
    "US": {},
    "CA": {"Public Radio": 0.8, "Country": -0.3, "Religious": -0.5},
    "MX": {"Latin": 1.6, "Country": -1.5, "International": 0.7, "News & Talk": -0.4},
    "AU": {"Alternative": 0.5, "Dance": 0.6, "Sports": 0.5, "Christian & Gospel": -0.8},
    "NZ": {"Reggae & Island": 1.3, "Rock": 0.5, "Christian & Gospel": -0.8, "Country": -0.4},
}

GENDERS: Final = ("female", "male", "other")


class Twist(NamedTuple):
    """An interaction: where all its conditions hold, these weights are added."""

    picked: tuple[str, ...]
    then: Mapping[str, float]
    ages: tuple[int, int] = (0, 120)  # inclusive; a missing age is outside any narrower range
    gender: str | None = None


TWISTS: Final = (
    # two picks that together predict a third genre
    Twist(("Rock", "Country"), {"Classic Rock": 1.4, "Country": -1.0, "Rock": -0.5}),
    Twist(("Rock", "Hip Hop"), {"Alternative": 1.7, "Hip Hop": -1.0, "Rock": -0.5}),
    Twist(("Rock", "Top 40 & Pop"), {"Soft Rock": 1.6, "Rock": -0.5, "Top 40 & Pop": -0.6}),
    Twist(("Hip Hop", "Latin"), {"Reggae & Island": 2.3, "Hip Hop": -0.9, "Latin": -0.7}),
    Twist(("Top 40 & Pop", "Hip Hop"), {"Dance": 1.9, "Top 40 & Pop": -0.7, "Hip Hop": -0.7}),
    Twist(("Top 40 & Pop", "Country"), {"Soft Rock": 1.7, "Top 40 & Pop": -0.7, "Country": -0.7}),
    Twist(("Top 40 & Pop", "Alternative"), {"Rock": 1.7, "Top 40 & Pop": -0.9, "Alternative": -0.3}),
    Twist(("Classic Rock", "Country"), {"Oldies": 1.7, "Classic Rock": -0.7, "Country": -0.7}),
    Twist(("Classic Rock", "Alternative"), {"Rock": 1.7, "Classic Rock": -0.7, "Alternative": -0.7}),
    Twist(("Comedy", "News & Talk"), {"Public Radio": 1.9, "News & Talk": -0.7, "Comedy": -0.5}),
    Twist(("Comedy", "Sports"), {"News & Talk": 1.6, "Comedy": -0.7, "Sports": -0.5}),
    Twist(("News & Talk", "Sports"), {"Comedy": 1.6, "News & Talk": -0.9}),
    Twist(("Jazz", "Oldies"), {"Public Radio": 1.4, "Oldies": -0.7}),
    Twist(("Christian & Gospel", "Country"), {"Religious": 1.9, "Country": -0.9}),
    # picks whose meaning depends on age or gender
    Twist(("Rock",), {"Alternative": 1.6, "Rock": -0.5, "Classic Rock": -0.5}, ages=(0, 27)),
    Twist(("Rock",), {"Classic Rock": 0.9, "Soft Rock": 0.9, "Rock": -0.5}, ages=(48, 120)),
    Twist(("Top 40 & Pop",), {"Oldies": 1.0, "Soft Rock": 1.2, "Top 40 & Pop": -0.9}, ages=(46, 120)),
    Twist(("R&B",), {"Oldies": 1.4, "Jazz": 1.0, "Hip Hop": -1.2}, ages=(48, 120)),
    Twist(("Kids & Family",), {"Soft Rock": 1.4, "Top 40 & Pop": -0.3}, ages=(30, 46)),
    Twist(("Sports",), {"News & Talk": 0.7, "Country": 0.7, "Sports": -0.9}, gender="female"),
    Twist(("R&B", "Top 40 & Pop"), {"Dance": 1.0, "Hip Hop": -0.7}, gender="female"),
)

BEND: Final = 0.03  # standard deviation of a seed's noise on every pull and popularity


@dataclass(frozen=True, eq=False)
class Taste:
    """The tables as arrays over k sorted genres, c countries and t interactions: `pulls` is (k, k), for example."""

    genres: tuple[str, ...]
    base: NDArray[np.float64]  # (k,)
    pulls: NDArray[np.float64]  # (k, k), from a pick to what is played
    men: NDArray[np.float64]  # (k,)
    years: NDArray[np.float64]  # (k,)
    countries: NDArray[np.float64]  # (c, k)
    twists: NDArray[np.float64]  # (t, k)


@dataclass(frozen=True, eq=False)
class FormAnswers:
    """The answers of n registrations as columns of codes, `picks` (n, p); NOT_GIVEN also for unknown values."""

    age: NDArray[np.int16]  # (n,)
    gender: NDArray[np.int16]  # (n,) into GENDERS
    country: NDArray[np.int16]  # (n,) into COUNTRIES
    picks: NDArray[np.int16]  # (n, MAX_PICKS) into the genres, in the order picked, then NOT_GIVEN

    def __len__(self) -> int:
        return len(self.age)


def bent_taste(rng: np.random.Generator) -> Taste:
    """The weights of this file with noise from the seed, so that no two seeds share a truth."""
    genres = tuple(sorted(GENRES))
    k = len(genres)
    pulls = _rows([PULLS.get(genre, {}) for genre in genres], genres)
    pulls += np.diag([GENRES[genre].own for genre in genres])
    return Taste(
        genres=genres,
        base=np.log([GENRES[genre].played for genre in genres]) + rng.normal(0, BEND, k),
        pulls=pulls + rng.normal(0, BEND, (k, k)),
        men=np.array([GENRES[genre].men for genre in genres]),
        years=np.array([GENRES[genre].years for genre in genres]),
        countries=_rows(list(COUNTRIES.values()), genres),
        twists=_rows([twist.then for twist in TWISTS], genres),
    )


def _rows(weights: Sequence[Mapping[str, float]], genres: tuple[str, ...]) -> NDArray[np.float64]:
    return np.array([[row.get(genre, 0.0) for genre in genres] for row in weights])


def probabilities(taste: Taste, answers: FormAnswers) -> NDArray[np.float64]:
    """(n, k): probability of each genre to be the top genre, given the answers; rows sum to 1."""
    weights = taste.base + demographic_weights(taste, answers)
    weights += _strengths(answers, len(taste.genres)) @ taste.pulls
    weights += _twisted(answers, taste.genres) @ taste.twists
    odds: NDArray[np.float64] = np.exp(weights - weights.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    return odds


def demographic_weights(taste: Taste, answers: FormAnswers) -> NDArray[np.float64]:
    """(n, k): the summed weights of age, gender and country; answers not given add nothing."""
    male = (answers.gender == GENDERS.index("male")) * 1.0 - (answers.gender == GENDERS.index("female"))
    years = np.where(answers.age == NOT_GIVEN, 0.0, (np.clip(answers.age, 15, 75) - 38) / 20)
    there: NDArray[np.float64] = np.where(answers.country[:, None] == NOT_GIVEN, 0.0, taste.countries[answers.country])
    there += male[:, None] * taste.men + years[:, None] * taste.years
    return there


def _strengths(answers: FormAnswers, k: int) -> NDArray[np.float64]:
    """(n, k): weight of each genre by its place among the picks."""
    strengths = np.zeros((len(answers), k))
    person, place = np.nonzero(answers.picks != NOT_GIVEN)
    strengths[person, answers.picks[person, place]] = np.array(PLACES)[place]
    return strengths


def _twisted(answers: FormAnswers, genres: tuple[str, ...]) -> NDArray[np.float64]:
    """(n, t): 1 where all conditions of an interaction hold."""
    picked = _strengths(answers, len(genres)) > 0
    holds = np.empty((len(answers), len(TWISTS)))
    for t, twist in enumerate(TWISTS):
        min_age, max_age = twist.ages
        holds[:, t] = picked[:, [genres.index(pick) for pick in twist.picked]].all(axis=1)
        if (min_age, max_age) != (0, 120):
            holds[:, t] *= (answers.age >= min_age) & (answers.age <= max_age)
        if twist.gender is not None:
            holds[:, t] *= answers.gender == GENDERS.index(twist.gender)
    return holds
