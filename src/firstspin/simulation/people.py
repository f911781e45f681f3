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

# Demographics.
COUNTRY_SHARES: Final = (0.52, 0.15, 0.13, 0.12, 0.08)  # in the order of COUNTRIES
GENDER_SHARES: Final = (0.48, 0.49, 0.03)  # in the order of GENDERS
MIN_AGE, MAX_AGE = 13, 90  # years
PICK_COUNTS: Final = (0.07, 0.10, 0.13, 0.18, 0.18, 0.13, 0.08, 0.05, 0.03, 0.02, 0.01, 0.01, 0.01)  # of 0, 1, … 12
PICKED_ALIKE: Final = 0.7  # how strongly age, gender and country influence the picks
AGE_WITHHELD, GENDER_WITHHELD, COUNTRY_WITHHELD = 0.10, 0.08, 0.03  # shares of missing answers

# Times in seconds since the simulation's beginning: a year of registrations and 45 more days, so that the last users
# have no complete second month.
DAY: Final = 86_400
REGISTERING: Final = 365 * DAY
DATA_END: Final = 410 * DAY

# Listening.
IDLE: Final = 0.20  # share of idle users: second month below the activity rule's min seconds
IDLE_WITHOUT_PICKS: Final = 0.35
IDLE_YET_HEARD: Final = 0.3  # share of the idle users with a short listen
MIN_ACTIVE_SECONDS: Final = 600  # in the second month: the activity rule
TRIALS, SECOND_MONTH, LATER = 6.0, 10.0, 4.0  # mean number of listens in days 0-30, 30-60 (active users) and 60-90
TRYING_PICKS: Final = 0.5  # share of the first month's listens that try a pick; the others follow the front page
FRONT_PAGE: Final = {"Mix & Variety": 0.3, "Kids & Family": 0.2, "R&B": 0.2, "Comedy": 0.15, "World": 0.15}
LOYALTY: Final = 0.55  # probability that a later listen is of the favourite; else its genre is drawn from P
USUAL_SECONDS: Final = 900.0
SPREAD: Final = 1.0  # standard deviation of the logarithm of the seconds
MAX_LISTEN: Final = 6 * 3_600


@dataclass(frozen=True, eq=False)
class People:
    """n registered users with their ground truth; arrays (n,), and `p` (n, k) over the k genres."""

    answers: FormAnswers
    home: NDArray[np.int16]  # (n,) into COUNTRIES, also where the answer is withheld
    p: NDArray[np.float64]  # (n, k) P(top genre | answers)
    favourite: NDArray[np.int64]  # (n,) the top genre of the second month, drawn from p

    def first(self, n: int) -> People:
        """The first n users."""
        every = self.answers
        answers = FormAnswers(every.age[:n], every.gender[:n], every.country[:n], every.picks[:n])
        return People(answers, self.home[:n], self.p[:n], self.favourite[:n])


@dataclass(frozen=True, eq=False)
class Listens:
    """l listens of several users; arrays (l,)."""

    person: NDArray[np.int64]  # (l,) position of the user
    started: NDArray[np.int64]  # (l,) seconds since the registration, or in a table since the simulation's beginning
    genre: NDArray[np.int64]  # (l,)
    seconds: NDArray[np.int64]  # (l,)


def register(taste: Taste, n: int, rng: np.random.Generator) -> People:
    """Draw n registrations: picks influenced by demographics, some answers withheld, and a top genre drawn from P."""
    complete = FormAnswers(
        age=np.clip(np.rint(12 + rng.gamma(5.5, 4.6, n)), MIN_AGE, MAX_AGE).astype(np.int16),
        gender=rng.choice(len(GENDERS), n, p=GENDER_SHARES).astype(np.int16),
        country=rng.choice(len(COUNTRIES), n, p=COUNTRY_SHARES).astype(np.int16),
        picks=np.full((n, MAX_PICKS), NOT_GIVEN, np.int16),
    )
    answers = FormAnswers(
        age=_withheld(complete.age, AGE_WITHHELD, rng),
        gender=_withheld(complete.gender, GENDER_WITHHELD, rng),
        country=_withheld(complete.country, COUNTRY_WITHHELD, rng),
        picks=_picks(taste, complete, rng),
    )
    p = probabilities(taste, answers)
    return People(answers, complete.country, p, _drawn(p, np.arange(n), rng))


def _withheld(codes: NDArray[np.int16], share: float, rng: np.random.Generator) -> NDArray[np.int16]:
    return np.where(rng.random(len(codes)) < share, NOT_GIVEN, codes).astype(np.int16)


def _picks(taste: Taste, people: FormAnswers, rng: np.random.Generator) -> NDArray[np.int16]:
    """(n, MAX_PICKS): ordered picks by a Plackett-Luce model, sampled with Gumbel noise."""
    appeal = np.log([GENRES[genre].picked for genre in taste.genres])
    appeal = appeal + PICKED_ALIKE * demographic_weights(taste, people) + rng.gumbel(size=(len(people), len(appeal)))
    picks = np.argsort(-appeal, axis=1)[:, :MAX_PICKS].astype(np.int16)
    counts = rng.choice(len(PICK_COUNTS), len(people), p=PICK_COUNTS)
    return np.where(np.arange(MAX_PICKS) < counts[:, None], picks, NOT_GIVEN).astype(np.int16)


def _drawn(p: NDArray[np.float64], person: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A genre for each entry of `person` (rows of p, with repeats), drawn from that row's probabilities."""
    n, k = p.shape
    cumulated = (p.cumsum(axis=1) + np.arange(n)[:, None]).ravel()  # ascending: row i runs from i to i + 1
    genre: NDArray[np.int64] = np.searchsorted(cumulated, person + rng.random(len(person)), side="right") - k * person
    return genre.clip(max=k - 1)  # a row sums to 1 only up to rounding


def draw_active(people: People, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(n,): whether each user is active in the second month; less probable without picks, independent of taste."""
    idle = np.where(people.answers.picks[:, 0] == NOT_GIVEN, IDLE_WITHOUT_PICKS, IDLE)
    return rng.random(len(idle)) >= idle


def listen(
    people: People, active: NDArray[np.bool_], genres: tuple[str, ...], early_loyalty: float, rng: np.random.Generator
) -> Listens:
    """Three months of listens, unordered; `active` (n,) users, `started` in seconds since the registration."""
    months = (
        _first_month(people, genres, early_loyalty, rng),
        _second_month(people, active, rng),
        _third_month(people, active, rng),
    )
    return Listens(
        person=np.concatenate([month.person for month in months]),
        started=np.concatenate([month.started + 30 * DAY * i for i, month in enumerate(months)]),
        genre=np.concatenate([month.genre for month in months]),
        seconds=np.concatenate([month.seconds for month in months]),
    )


def front_page(genres: tuple[str, ...]) -> NDArray[np.float64]:
    """(k,): the probability of each genre on the front page."""
    return np.array([FRONT_PAGE.get(genre, 0.0) for genre in genres])


def _first_month(people: People, genres: tuple[str, ...], early_loyalty: float, rng: np.random.Generator) -> Listens:
    """Misleading early listens: picks are tried uniformly, and the front page is followed; but for the loyal ones."""
    person = np.repeat(np.arange(len(people.p)), rng.poisson(TRIALS, len(people.p)))
    pushed = rng.choice([genres.index(genre) for genre in FRONT_PAGE], len(person), p=list(FRONT_PAGE.values()))
    counts = (people.answers.picks != NOT_GIVEN).sum(axis=1)[person]
    tried = people.answers.picks[person, rng.integers(np.maximum(counts, 1))]
    genre = np.where((rng.random(len(person)) < TRYING_PICKS) & (counts > 0), tried, pushed)
    loyal = rng.spawn(1)[0].random(len(person)) < early_loyalty  # a stream of its own: all else stays as without
    genre = np.where(loyal, people.favourite[person], genre)
    return Listens(person, rng.integers(30 * DAY, size=len(person)), genre, durations(len(person), rng))


def _second_month(people: People, active: NDArray[np.bool_], rng: np.random.Generator) -> Listens:
    """The label month: the top genre gets most seconds, and only active users reach `MIN_ACTIVE_SECONDS` seconds."""
    heard = rng.random(len(active)) < IDLE_YET_HEARD
    counts = np.where(active, rng.geometric(1 / SECOND_MONTH, len(active)), heard)
    person = np.repeat(np.arange(len(active)), counts)
    seconds = np.where(
        active[person], durations(len(person), rng), rng.integers(30, MIN_ACTIVE_SECONDS - 1, len(person))
    )
    opening = (counts.cumsum() - counts)[active]
    seconds[opening] = np.maximum(seconds[opening], MIN_ACTIVE_SECONDS)
    genre = _favourite_first(people, person, _liked(people, person, rng), seconds)
    seconds += genre == people.favourite[person]  # one second more breaks ties in favour of the favourite
    return Listens(person, rng.integers(30 * DAY, size=len(person)), genre, seconds)


def _third_month(people: People, active: NDArray[np.bool_], rng: np.random.Generator) -> Listens:
    person = np.repeat(np.arange(len(active)), active * rng.poisson(LATER, len(active)))
    started = rng.integers(30 * DAY, size=len(person))
    return Listens(person, started, _liked(people, person, rng), durations(len(person), rng))


def _liked(people: People, person: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Genres of later listens: often the top genre, else drawn from P."""
    loyal = rng.random(len(person)) < LOYALTY
    return np.where(loyal, people.favourite[person], _drawn(people.p, person, rng))


def _favourite_first(
    people: People, person: NDArray[np.int64], genre: NDArray[np.int64], seconds: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The genres, with the top genre exchanged with any genre that has more seconds."""
    n, k = people.p.shape
    played = np.bincount(k * person + genre, weights=seconds, minlength=n * k).reshape(n, k)
    top, favourite = played.argmax(axis=1)[person], people.favourite[person]
    return np.where(genre == top, favourite, np.where(genre == favourite, top, genre))


def durations(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(n,) seconds per listen: log-normal, from half a minute to six hours."""
    return np.clip(rng.lognormal(np.log(USUAL_SECONDS), SPREAD, n), 30, MAX_LISTEN).astype(np.int64)
