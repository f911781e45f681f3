"""Registration(s) -> numbers: one encoder, fitted once, the same code for one request and a million rows.

Every question asked at registration becomes a few columns; an answer not given, or not known, has its own encoding:

| question | columns |
|---|---|
| a number (age) | `age` as it is (NaN when missing), `age missing`, hats `age~18`, `age~25` … for models that add up |
| a category (gender, country) | `country=se` …, `country=other` for an answer seldom or never seen, `country missing` |
| genres picked | `picked=Rock` 1 or 0, `rank=Rock` 1 / position, `picks` how many, and hats `picks~2` … of that |

Hats are piecewise linear: they are 1 at their own knot, 0 at the next ones, and sum to 1. Nothing here knows when
somebody registered, let alone what came later.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, MutableSequence, Sequence
from itertools import pairwise
from math import isfinite, nan
from typing import Any, Final, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from firstspin.data.names import NameIndex
from firstspin.data.schema import AGE, COUNTRY, GENDER, GENRES
from firstspin.records import MAX_PICKS, Examples, InputError, Registration, normal

QUESTIONS: Final = (AGE, GENDER, COUNTRY, GENRES)

KNOTS: Final = 8
PICK_KNOTS: Final = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 9.0)
MIN_ANSWERS: Final = 10
MAX_VALUES: Final = 60
MAX_COLUMNS: Final = 100_000

# What a column holds; models choose their columns by this.
NUMBER, MISSING, HAT, CATEGORY, PICKED, RANK, COUNT = (
    "number",
    "missing",
    "hat",
    "category",
    "picked",
    "rank",
    "count",
)

Row = NDArray[np.float64]
Cells = MutableSequence[float]
Answer = str | float | tuple[str, ...] | None


class FormColumns(Protocol):
    """One question of the registration form, as columns."""

    name: str

    def columns(self) -> list[tuple[str, str]]:
        """Name and kind of each column, in order."""

    def writer(self, first: int) -> Callable[[Cells, Any], bool]:
        """A function that writes an answer into a row, from column `first` on; it says whether it knew the answer."""

    def state(self) -> dict[str, Any]:
        """Everything needed to build this question again, as JSON takes it."""


class Number:
    """A number: as it is for trees, as hats for models that add up."""

    def __init__(self, name: str, knots: Sequence[float]) -> None:
        self.name = name
        self.knots = tuple(float(knot) for knot in knots)

    def columns(self) -> list[tuple[str, str]]:
        hats = [(f"{self.name}~{knot:g}", HAT) for knot in self.knots]
        return [(self.name, NUMBER), (f"{self.name} missing", MISSING), *hats]

    def writer(self, first: int) -> Callable[[Cells, Any], bool]:
        hat = _hat_writer(self.knots, first + 2)

        def write(row: Cells, answer: Answer) -> bool:
            if not isinstance(answer, (int, float)) or answer != answer:
                row[first] = nan
                row[first + 1] = 1.0
                return False
            row[first] = answer
            hat(row, answer)
            return True

        return write

    def state(self) -> dict[str, Any]:
        return {"name": self.name, "knots": list(self.knots)}


class Category:
    """One of a few words; compared after normalisation and without regard to case."""

    def __init__(self, name: str, values: Sequence[str]) -> None:
        self.name = name
        self.values = tuple(values)

    def columns(self) -> list[tuple[str, str]]:
        words = (*(f"={value}" for value in self.values), "=other", " missing")
        return [(self.name + word, CATEGORY) for word in words]

    def writer(self, first: int) -> Callable[[Cells, Any], bool]:
        index = {value: first + i for i, value in enumerate(self.values)}
        usual = {spelling: i for value, i in index.items() for spelling in (value.upper(), value.title(), value)}
        other = first + len(self.values)
        names = NameIndex(self.values)

        def write(row: Cells, answer: Answer) -> bool:
            if answer is None:
                row[other + 1] = 1.0
                return False
            column = usual.get(answer)  # type: ignore[arg-type]
            if column is None:
                name = names.find(str(answer))
                column = other if name is None else index[name]
            row[column] = 1.0
            return column != other

        return write

    def state(self) -> dict[str, Any]:
        return {"name": self.name, "values": list(self.values)}


class Picks:
    """The genres picked at onboarding, in order; a genre picked twice counts once, an unknown one not at all."""

    def __init__(self, name: str, genres: Sequence[str]) -> None:
        self.name = name
        self.genres = tuple(genres)

    def columns(self) -> list[tuple[str, str]]:
        picked = [(f"picked={genre}", PICKED) for genre in self.genres]
        rank = [(f"rank={genre}", RANK) for genre in self.genres]
        return [*picked, *rank, ("picks", COUNT), *((f"picks~{knot:g}", HAT) for knot in PICK_KNOTS)]

    def writer(self, first: int) -> Callable[[Cells, Any], bool]:
        known = len(self.genres)
        index = {genre: first + i for i, genre in enumerate(self.genres)}
        count = first + 2 * known
        hat = _hat_writer(PICK_KNOTS, count + 1)
        worth = [1.0 / position for position in range(1, MAX_PICKS + 1)]
        names = NameIndex(self.genres)

        def write(row: Cells, answer: tuple[str, ...]) -> bool:
            picks = 0
            for pick in answer:
                column = index.get(pick)
                if column is None and (name := names.find(pick)) is not None:
                    column = index[name]
                if column is None or row[column]:
                    continue
                row[column] = 1.0
                row[column + known] = worth[picks]
                picks += 1
            row[count] = picks
            hat(row, picks)
            return picks > 0

        return write

    def state(self) -> dict[str, Any]:
        return {"name": self.name, "genres": list(self.genres)}


class Encoder:
    """Turns what a newcomer told us into a row of numbers. Build one with `fit_encoder` or `Encoder.from_state`.

    A further field that a registration has no place for is an answer not given, as on a form that doesn't ask it.
    """

    def __init__(self, questions: Sequence[FormColumns]) -> None:
        self._questions = tuple(questions)
        columns = [(question.name, *column) for question in questions for column in question.columns()]
        self.questions = tuple(question for question, _, _ in columns)
        self.columns = tuple(name for _, name, _ in columns)
        self.kinds = tuple(kind for _, _, kind in columns)
        self._writers: list[tuple[str, Callable[[Cells, Any], bool]]] = []
        first = 0
        for question in questions:
            self._writers.append((question.name, question.writer(first)))
            first += len(question.columns())
        self._empty = array("d", bytes(8 * first))

    def encode(self, registration: Registration) -> Row:
        """One registration as a row (c,)."""
        return self.encode_matched(registration)[0]

    def encode_matched(self, registration: Registration) -> tuple[Row, bool]:
        """One registration as a row (c,), and whether at least one answer is one that training has seen."""
        row, told = self._empty[:], False  # an array of the standard library: setting one number costs a third
        for name, write in self._writers:
            told |= write(row, getattr(registration, name, None))
        return np.frombuffer(row), told

    def matrix(self, registrations: Sequence[Registration]) -> NDArray[np.float64]:
        """Many registrations as rows (n, c), each the same to the bit as it is alone."""
        return self.matrix_matched(registrations)[0]

    def matrix_matched(self, registrations: Sequence[Registration]) -> tuple[NDArray[np.float64], list[bool]]:
        """Many registrations as rows (n, c), and of each whether at least one answer is one that training has seen."""
        width = len(self.columns)
        rows, told = np.zeros((len(registrations), width)), [False] * len(registrations)
        cells = cast("MutableSequence[float]", memoryview(rows.reshape(-1).data))
        for n, registration in enumerate(registrations):
            row = cells[n * width : (n + 1) * width]
            for name, write in self._writers:
                told[n] |= write(row, getattr(registration, name, None))
        return rows, told

    def matches(self, registration: Registration) -> bool:
        """Whether at least one answer is one that training has seen."""
        return self.encode_matched(registration)[1]

    def of_kind(self, *kinds: str) -> NDArray[np.int64]:
        """Positions of the columns of these kinds, ascending."""
        return np.array([i for i, kind in enumerate(self.kinds) if kind in kinds], dtype=np.int64)

    def state(self) -> dict[str, Any]:
        """The encoder as JSON takes it."""
        return {"questions": [question.state() for question in self._questions]}

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> Encoder:
        """The encoder that `state()` came from. Raises InputError for what is no encoder's state."""
        match state:
            case {"questions": list(questions)} if len(state) == 1:
                encoder = Encoder([_question(saved) for saved in questions])
            case _:
                raise InputError("the encoder is not a list of questions")
        names = [name for name, _ in encoder._writers]
        if len(set(names)) < len(names) or len(encoder.columns) > MAX_COLUMNS:
            raise InputError(f"the encoder asks something twice, or has over {MAX_COLUMNS:,} columns")
        return encoder


def fit_encoder(
    examples: Examples, *, known_genres: Sequence[str], extra: Sequence[str] = (), without: Sequence[str] = ()
) -> Encoder:
    """Learn which answers occur: knots of the numbers, categories seen often enough, and the genres there are.

    `extra` names further fields of the registrations to use; `without` names questions to leave out. Raises InputError
    for one that nobody was asked.
    """
    asked = selected_questions(extra, without)
    return Encoder([_fit_question(name, examples, known_genres) for name in asked])


def selected_questions(extra: Sequence[str], without: Sequence[str]) -> list[str]:
    """The questions that a model learns from. Raises InputError where one that nobody was asked is left out."""
    if unknown := [name for name in without if name not in (*QUESTIONS, *extra)]:
        raise InputError(f"{unknown[0]!r} can't be left out: asked are {', '.join((*QUESTIONS, *extra))}")
    return [name for name in (*QUESTIONS, *extra) if name not in without]


def _fit_question(name: str, examples: Examples, known_genres: Sequence[str]) -> FormColumns:
    if name == GENRES:
        return Picks(name, sorted({normal(genre) for genre in known_genres}))
    given = [a for a in (getattr(registration, name) for registration in examples.registrations) if a is not None]
    if name == AGE or (given and all(isinstance(answer, (int, float)) for answer in given)):
        return Number(name, _knots(given))
    return Category(name, _often_enough(given))


def _knots(given: Sequence[float]) -> list[float]:
    """Evenly spread over the people, not over the numbers, and away from the odd ends."""
    if not given:
        return [0.0]
    return sorted(set(np.quantile(np.array(given, dtype=np.float64), np.linspace(0.02, 0.98, KNOTS)).round(6).tolist()))


def _often_enough(given: Iterable[str | float]) -> list[str]:
    seen = Counter(_folded(answer) for answer in given)
    often = sorted(((-n, value) for value, n in seen.items() if n >= MIN_ANSWERS))[:MAX_VALUES]
    return sorted(value for _, value in often)


def _folded(answer: str | float) -> str:
    return normal(str(answer)).casefold()


def _question(saved: object) -> FormColumns:
    match saved:
        case {"name": "genres", "genres": list(genres), **rest} if not rest and _are_words(genres):
            return Picks(GENRES, genres)
        case {"name": str(name), "knots": list(knots), **rest} if not rest and name != GENRES and _rise(knots):
            return Number(name, knots)
        case {"name": str(name), "values": list(values), **rest} if (
            not rest and name not in (AGE, GENRES) and _are_words(values)
        ):
            return Category(name, values)
    raise InputError("the encoder holds a question of no known kind")


def _are_words(values: list[object]) -> bool:
    return all(isinstance(value, str) for value in values) and len(set(values)) == len(values)


def _rise(knots: list[object]) -> bool:
    numbers = [knot for knot in knots if isinstance(knot, (int, float)) and isfinite(knot)]
    return len(numbers) == len(knots) > 0 and all(low < high for low, high in pairwise(numbers))


def _hat_writer(knots: Sequence[float], first: int) -> Callable[[Cells, float], None]:
    last = len(knots)

    def write(row: Cells, value: float) -> None:
        above = bisect_right(knots, value)
        if above == 0:
            row[first] = 1.0
        elif above == last:
            row[first + last - 1] = 1.0
        else:
            low = knots[above - 1]
            share = (value - low) / (knots[above] - low)
            row[first + above - 1] = 1.0 - share
            row[first + above] = share

    return write
