"""The users of the simulated service: their registrations, and their listens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from firstspin.simulation.taste import (
    COUNTRIES,
    GENDERS,
    GENRES,
    MAX_PICKS,
    NOT_GIVEN,
    FormAnswers,
    Taste,
    demographic_weights,
    probabilities,
)

# Who registers.
COUNTRY_SHARES: Final = (0.52, 0.15, 0.13, 0.12, 0.08)  # in the order of COUNTRIES
GENDER_SHARES: Final = (0.48, 0.49, 0.03)  # in the order of GENDERS
YOUNGEST, OLDEST = 13, 90
PICK_COUNTS: Final = (0.07, 0.10, 0.13, 0.18, 0.18, 0.13, 0.08, 0.05, 0.03, 0.02, 0.01, 0.01, 0.01)  # of 0, 1, … 12
PICKED_ALIKE: Final = 0.7  # how strongly age, gender and country influence the picks
AGE_KEPT_BACK, GENDER_KEPT_BACK, COUNTRY_KEPT_BACK = 0.10, 0.08, 0.03

# When, in seconds since the world began: a year of registrations, and 45 days on, so the last have no second month yet.
DAY: Final = 86_400
REGISTERING: Final = 365 * DAY
DATA_END: Final = 410 * DAY

# How they listen.
IDLE: Final = 0.20  # idle: no listen in the second month, or less than the activity rule requires
IDLE_WITHOUT_PICKS: Final = 0.35
IDLE_YET_HEARD: Final = 0.3  # of the idle, so many listen a little
ENOUGH: Final = 600  # seconds in the second month: the activity rule
TRIALS, SECOND_MONTH, LATER = 6.0, 10.0, 4.0  # listens on average in days 0-30, 30-60 (the active) and 60-90
TRYING_PICKS: Final = 0.5  # of the first month's listens, so many just try a pick; the others follow the front page
FRONT_PAGE: Final = {"Mix & Variety": 0.3, "Kids & Family": 0.2, "R&B": 0.2, "Comedy": 0.15, "World": 0.15}
LOYALTY: Final = 0.55  # how often a later listen is to the favourite outright; else to a genre drawn from P
USUAL_SECONDS: Final = 900.0
SPREAD: Final = 1.0  # of the logarithm of the seconds: most listens are short, a few take the whole evening
LONGEST: Final = 6 * 3_600


@dataclass(frozen=True, eq=False)
class People:
    """n registered users with their ground truth."""

    answers: FormAnswers
    home: NDArray[np.int16]  # (n,) into COUNTRIES, also of those who didn't tell
    p: NDArray[np.float64]  # (n, k) P(top genre | answers)
    favourite: NDArray[np.int64]  # (n,) the top genre of the second month, drawn from p

    def first(self, n: int) -> People:
        """The first n of them."""
        told = self.answers
        answers = FormAnswers(told.age[:n], told.gender[:n], told.country[:n], told.picks[:n])
        return People(answers, self.home[:n], self.p[:n], self.favourite[:n])


@dataclass(frozen=True, eq=False)
class Listens:
    """l listens of some people."""

    person: NDArray[np.int64]  # (l,) position of who listened
    started: NDArray[np.int64]  # (l,) in seconds: after registering, or in a table since the world began
    genre: NDArray[np.int64]  # (l,)
    seconds: NDArray[np.int64]  # (l,)


def register(taste: Taste, n: int, rng: np.random.Generator) -> People:
    """Draw n registrations: picks influenced by demographics, some answers withheld, and a top genre drawn from P."""
    everything = FormAnswers(
        age=np.clip(np.rint(12 + rng.gamma(5.5, 4.6, n)), YOUNGEST, OLDEST).astype(np.int16),
        gender=rng.choice(len(GENDERS), n, p=GENDER_SHARES).astype(np.int16),
        country=rng.choice(len(COUNTRIES), n, p=COUNTRY_SHARES).astype(np.int16),
        picks=np.full((n, MAX_PICKS), NOT_GIVEN, np.int16),
    )
    told = FormAnswers(
        age=_kept_back(everything.age, AGE_KEPT_BACK, rng),
        gender=_kept_back(everything.gender, GENDER_KEPT_BACK, rng),
        country=_kept_back(everything.country, COUNTRY_KEPT_BACK, rng),
        picks=_picks(taste, everything, rng),
    )
    p = probabilities(taste, told)
    return People(told, everything.country, p, _drawn(p, np.arange(n), rng))


def _kept_back(codes: NDArray[np.int16], share: float, rng: np.random.Generator) -> NDArray[np.int16]:
    return np.where(rng.random(len(codes)) < share, NOT_GIVEN, codes).astype(np.int16)


def _picks(taste: Taste, people: FormAnswers, rng: np.random.Generator) -> NDArray[np.int16]:
    """(n, MAX_PICKS): ordered picks by a Plackett-Luce model, sampled with Gumbel noise."""
    appeal = np.log([GENRES[genre].picked for genre in taste.genres])
    appeal = appeal + PICKED_ALIKE * demographic_weights(taste, people) + rng.gumbel(size=(len(people), len(appeal)))
    picks = np.argsort(-appeal, axis=1)[:, :MAX_PICKS].astype(np.int16)
    counts = rng.choice(len(PICK_COUNTS), len(people), p=PICK_COUNTS)
    return np.where(np.arange(MAX_PICKS) < counts[:, None], picks, NOT_GIVEN).astype(np.int16)


def _drawn(p: NDArray[np.float64], person: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A genre for each entry of `person` (rows of p, repeats welcome), drawn from that row's probabilities."""
    n, k = p.shape
    reached = (p.cumsum(axis=1) + np.arange(n)[:, None]).ravel()  # one rising line: row i runs from i to i + 1
    genre: NDArray[np.int64] = np.searchsorted(reached, person + rng.random(len(person)), side="right") - k * person
    return genre.clip(max=k - 1)  # a row may sum to a hair less or more than 1


def get_going(people: People, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(n,): whether each user is active in the second month; less often without picks, independent of taste."""
    idle = np.where(people.answers.picks[:, 0] == NOT_GIVEN, IDLE_WITHOUT_PICKS, IDLE)
    return rng.random(len(idle)) >= idle


def listen(people: People, active: NDArray[np.bool_], genres: tuple[str, ...], rng: np.random.Generator) -> Listens:
    """The first three months of listens, unordered; `started` is relative to each registration."""
    months = (
        _first_month(people, genres, rng),
        _second_month(people, active, rng),
        _third_month(people, active, rng),
    )
    return Listens(
        person=np.concatenate([month.person for month in months]),
        started=np.concatenate([month.started + 30 * DAY * i for i, month in enumerate(months)]),
        genre=np.concatenate([month.genre for month in months]),
        seconds=np.concatenate([month.seconds for month in months]),
    )


def _first_month(people: People, genres: tuple[str, ...], rng: np.random.Generator) -> Listens:
    """Misleading early listens: picks are tried uniformly, and the front page is followed."""
    person = np.repeat(np.arange(len(people.p)), rng.poisson(TRIALS, len(people.p)))
    pushed = rng.choice([genres.index(genre) for genre in FRONT_PAGE], len(person), p=list(FRONT_PAGE.values()))
    counts = (people.answers.picks != NOT_GIVEN).sum(axis=1)[person]
    tried = people.answers.picks[person, rng.integers(np.maximum(counts, 1))]
    tries = (rng.random(len(person)) < TRYING_PICKS) & (counts > 0)
    return Listens(
        person, rng.integers(30 * DAY, size=len(person)), np.where(tries, tried, pushed), durations(len(person), rng)
    )


def _second_month(people: People, active: NDArray[np.bool_], rng: np.random.Generator) -> Listens:
    """The label month: the top genre gets most seconds, and only active users reach `ENOUGH` seconds."""
    heard = rng.random(len(active)) < IDLE_YET_HEARD
    counts = np.where(active, rng.geometric(1 / SECOND_MONTH, len(active)), heard)
    person = np.repeat(np.arange(len(active)), counts)
    seconds = np.where(active[person], durations(len(person), rng), rng.integers(30, ENOUGH - 1, len(person)))
    opening = (counts.cumsum() - counts)[active]
    seconds[opening] = np.maximum(seconds[opening], ENOUGH)
    genre = _borne_out(people, person, _liked(people, person, rng), seconds)
    seconds += genre == people.favourite[person]  # a second more, so that the favourite never ties
    return Listens(person, rng.integers(30 * DAY, size=len(person)), genre, seconds)


def _third_month(people: People, active: NDArray[np.bool_], rng: np.random.Generator) -> Listens:
    person = np.repeat(np.arange(len(active)), active * rng.poisson(LATER, len(active)))
    started = rng.integers(30 * DAY, size=len(person))
    return Listens(person, started, _liked(people, person, rng), durations(len(person), rng))


def _liked(people: People, person: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Genres of later listens: often the top genre, else drawn from P."""
    loyal = rng.random(len(person)) < LOYALTY
    return np.where(loyal, people.favourite[person], _drawn(people.p, person, rng))


def _borne_out(
    people: People, person: NDArray[np.int64], genre: NDArray[np.int64], seconds: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The genres, with the top genre exchanged with any genre that has more seconds."""
    n, k = people.p.shape
    played = np.bincount(k * person + genre, weights=seconds, minlength=n * k).reshape(n, k)
    most, favourite = played.argmax(axis=1)[person], people.favourite[person]
    return np.where(genre == most, favourite, np.where(genre == favourite, most, genre))


def durations(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(n,) seconds of a listen each: heavy-tailed, half a minute to six hours."""
    return np.clip(rng.lognormal(np.log(USUAL_SECONDS), SPREAD, n), 30, LONGEST).astype(np.int64)
