"""Feature encoding: registrations -> rows of numbers, with the same code for one request and a million rows.

Every question of the registration form becomes a few columns; a missing or unknown answer has its own encoding:

- A number (age): `age` (NaN when missing), `age missing`, and hats `age~18`, `age~25` … for linear models.
- A category (gender, country): `country=se` …, `country=other` for rare answers, `country missing`. An unseen answer
  counts as rare where training had rare ones, or else as missing.
- Genres picked: `picked=Rock` 1 or 0, `rank=Rock` 1 / position, `picks` the number of picks, and its hats `picks~2` …

Hats are a piecewise linear basis: 1 at the own knot, 0 at the neighbouring knots; they sum to 1. The time of
registration is not encoded.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, MutableSequence, Sequence
from itertools import pairwise
from math import isfinite, nan
from typing import Any, Final, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from firstspin.data.names import NameIndex
from firstspin.data.registrations.coded import CodedRegistrations
from firstspin.data.schema import AGE, COUNTRY, GENDER, GENRES
from firstspin.records import MAX_PICKS, Examples, InputError, Registration, normal

QUESTIONS: Final = (AGE, GENDER, COUNTRY, GENRES)

KNOTS: Final = 8
NO_KNOTS: Final = [0.0]
"""The knots of a number that no training user answered."""
PICK_KNOTS: Final = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 9.0)
MIN_ANSWERS: Final = 10
MAX_VALUES: Final = 60
MAX_COLUMNS: Final = 100_000

# Kinds of columns; models select their columns by kind.
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
    """The encoding of one question of the registration form."""

    name: str

    def columns(self) -> list[tuple[str, str]]:
        """Name and kind of each column, in order."""

    def writer(self, first: int) -> Callable[[Cells, Any], bool]:
        """A function that writes an answer into a row, from column `first` on, and returns whether training saw it."""

    def state(self) -> dict[str, Any]:
        """The parameters of the encoding, as JSON types."""


class Number:
    """A number: the value itself for trees, hats for linear models and the network."""

    def __init__(self, name: str, knots: Sequence[float]) -> None:
        self.name = name
        self.knots = tuple(float(knot) for knot in knots)

    def columns(self) -> list[tuple[str, str]]:
        """The number, a flag for missing, and the hats."""
        hats = [(f"{self.name}~{knot:g}", HAT) for knot in self.knots]
        return [(self.name, NUMBER), (f"{self.name} missing", MISSING), *hats]

    def writer(self, first: int) -> Callable[[Cells, Any], bool]:
        """A writer: a missing answer is NaN with the flag set."""
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
        """The name and the knots."""
        return {"name": self.name, "knots": list(self.knots)}


class Category:
    """A category, one-hot encoded; answers are normalised and matched in any case.

    `has_rare`: whether training users had values beside these, which were too rare. Only then is the column `=other`
    trained, and an unseen answer is like those; otherwise it counts as missing.
    """

    def __init__(self, name: str, values: Sequence[str], *, has_rare: bool = True) -> None:
        self.name = name
        self.values = tuple(values)
        self.names = NameIndex(self.values)
        self.has_rare = has_rare

    @property
    def unseen(self) -> str:
        """What an unseen answer counts as, for messages."""
        return "'other'" if self.has_rare else "missing"

    def columns(self) -> list[tuple[str, str]]:
        """A flag per category, one for other answers and one for missing."""
        words = (*(f"={value}" for value in self.values), "=other", " missing")
        return [(self.name + word, CATEGORY) for word in words]

    def writer(self, first: int) -> Callable[[Cells, Any], bool]:
        """A writer: an answer sets one flag."""
        index = {value: first + i for i, value in enumerate(self.values)}
        usual = {spelling: i for value, i in index.items() for spelling in (value.upper(), value.title(), value)}
        other, names = first + len(self.values), self.names
        missing = other + 1
        unseen = other if self.has_rare else missing

        def write(row: Cells, answer: Answer) -> bool:
            if answer is None:
                row[missing] = 1.0
                return False
            column = usual.get(answer)  # type: ignore[arg-type]
            if column is None:
                name = names.find(str(answer))
                column = unseen if name is None else index[name]
            row[column] = 1.0
            return column < other

        return write

    def state(self) -> dict[str, Any]:
        """The name and the categories; and that no value was rare, which bundles of earlier versions do not tell."""
        return {"name": self.name, "values": list(self.values)} | ({} if self.has_rare else {"has_rare": False})


class Picks:
    """The genres picked, in order; repeated and unknown genres are ignored."""

    def __init__(self, name: str, genres: Sequence[str]) -> None:
        self.name = name
        self.genres = tuple(genres)
        self.names = NameIndex(self.genres)
        self._places = {genre: i for i, genre in enumerate(self.genres)}

    def columns(self) -> list[tuple[str, str]]:
        """Flags of the genres, ranks of the genres, the count and its hats."""
        picked = [(f"picked={genre}", PICKED) for genre in self.genres]
        rank = [(f"rank={genre}", RANK) for genre in self.genres]
        return [*picked, *rank, ("picks", COUNT), *((f"picks~{knot:g}", HAT) for knot in PICK_KNOTS)]

    def writer(self, first: int) -> Callable[[Cells, Any], bool]:
        """A writer: each new pick sets its flag and its rank, then the count and its hats are set."""
        n_genres = len(self.genres)
        index = {genre: first + i for i, genre in enumerate(self.genres)}
        count = first + 2 * n_genres
        hat = _hat_writer(PICK_KNOTS, count + 1)
        worth = [1.0 / position for position in range(1, MAX_PICKS + 1)]
        names = self.names

        def write(row: Cells, answer: tuple[str, ...]) -> bool:
            picks = 0
            for pick in answer:
                column = index.get(pick)
                if column is None and (name := names.find(pick)) is not None:
                    column = index[name]
                if column is None or row[column]:
                    continue
                row[column] = 1.0
                row[column + n_genres] = worth[picks]
                picks += 1
            row[count] = picks
            hat(row, picks)
            return picks > 0

        return write

    def flags(self, first: int, answers: Iterable[tuple[str, ...]]) -> list[list[int]]:
        """Of each answer the flags that `writer` sets, in the order picked."""
        places, flags = self._places, []
        for answer in answers:
            try:
                of_answer = [first + places[pick] for pick in answer]
            except KeyError:  # another spelling, or a genre that is unknown
                of_answer = [first + places[name] for pick in answer if (name := self.names.find(pick)) is not None]
            flags.append(of_answer if len(set(of_answer)) == len(of_answer) else list(dict.fromkeys(of_answer)))
        return flags

    def state(self) -> dict[str, Any]:
        """The name and the genres."""
        return {"name": self.name, "genres": list(self.genres)}


class Encoder:
    """Encodes registrations as rows of numbers. Built by `fit_encoder` or `Encoder.from_state`.

    A further field that a registration does not have is encoded as missing.
    """

    def __init__(self, questions: Sequence[FormColumns]) -> None:
        self.form = tuple(questions)
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
        """One registration as a row (c,), and whether training saw at least one of its answers."""
        row, matched = self._empty[:], False  # a stdlib array: setting a number costs a third of numpy's time
        for name, write in self._writers:
            matched |= write(row, getattr(registration, name, None))
        return np.frombuffer(row), matched

    def matrix(self, registrations: Sequence[Registration]) -> NDArray[np.float64]:
        """Many registrations as rows (n, c), each equal to the bit to `encode`."""
        return self.matrix_matched(registrations)[0]

    def matrix_matched(self, registrations: Sequence[Registration]) -> tuple[NDArray[np.float64], list[bool]]:
        """Many registrations as rows (n, c), and of each whether training saw at least one of its answers."""
        width = len(self.columns)
        rows, matched = np.zeros((len(registrations), width)), [False] * len(registrations)
        cells = cast("MutableSequence[float]", memoryview(rows.reshape(-1).data))
        for n, registration in enumerate(registrations):
            row = cells[n * width : (n + 1) * width]
            for name, write in self._writers:
                matched[n] |= write(row, getattr(registration, name, None))
        return rows, matched

    def picked_columns(self, registrations: Sequence[Registration]) -> list[list[int]]:
        """Of each registration the columns of the genres picked, in the order picked; no other answer is read."""
        first = 0
        for question in self.form:
            if isinstance(question, Picks):
                return question.flags(first, (registration.genres for registration in registrations))
            first += len(question.columns())
        return [[] for _ in registrations]

    def categories(self) -> dict[str, Category]:
        """The questions with categories, by name."""
        return {question.name: question for question in self.form if isinstance(question, Category)}

    def matches(self, registration: Registration) -> bool:
        """Whether training saw at least one of the answers."""
        return self.encode_matched(registration)[1]

    def of_kind(self, *kinds: str) -> NDArray[np.int64]:
        """(m,) positions of the columns of these kinds, ascending."""
        return np.array([i for i, kind in enumerate(self.kinds) if kind in kinds], dtype=np.int64)

    def without(self, questions: Collection[str]) -> Encoder:
        """The encoder without these questions: its rows are those of this one in `columns_without`."""
        return Encoder([question for question in self.form if question.name not in questions])

    def columns_without(self, questions: Collection[str]) -> NDArray[np.int64]:
        """(m,) positions of the columns of all other questions, ascending."""
        return np.flatnonzero([question not in questions for question in self.questions])

    def state(self) -> dict[str, Any]:
        """The encoder as JSON types."""
        return {"questions": [question.state() for question in self.form]}

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> Encoder:
        """The encoder of a `state()`. Raises InputError where it is not one."""
        match state:
            case {"questions": list(questions)} if len(state) == 1:
                encoder = Encoder([_question(saved) for saved in questions])
            case _:
                raise InputError("the encoder is not a list of questions")
        names = [name for name, _ in encoder._writers]
        if len(set(names)) < len(names) or len(encoder.columns) > MAX_COLUMNS:
            raise InputError(f"the encoder has a question twice, or over {MAX_COLUMNS:,} columns")
        return encoder


def fit_encoder(
    examples: Examples, *, known_genres: Sequence[str], extra: Sequence[str] = (), without: Sequence[str] = ()
) -> Encoder:
    """Fit the encoder: knots of numbers, categories with at least MIN_ANSWERS answers, and the genres of the stations.

    `extra`: further fields to use. `without`: questions to leave out. Raises InputError where one of these is not on
    the form.
    """
    questions = selected_questions(extra, without)
    return Encoder([_fit_question(name, examples, known_genres) for name in questions])


def selected_questions(extra: Sequence[str], without: Sequence[str]) -> list[str]:
    """The questions that a model uses. Raises InputError where `without` names one that is not on the form."""
    if unknown := [name for name in without if name not in (*QUESTIONS, *extra)]:
        raise InputError(f"{unknown[0]!r} can't be left out: the questions are {', '.join((*QUESTIONS, *extra))}")
    return [name for name in (*QUESTIONS, *extra) if name not in without]


def _fit_question(name: str, examples: Examples, known_genres: Sequence[str]) -> FormColumns:
    if name == GENRES:
        return Picks(name, sorted({normal(genre) for genre in known_genres}))
    given = _answer_counts(name, examples.registrations)
    if name == AGE or (given and all(isinstance(answer, (int, float)) for answer in given)):
        return Number(name, _knots(given))
    values = _often_enough(given)
    return Category(name, values, has_rare=not {_folded(answer) for answer in given} <= {*values})


def _answer_counts(name: str, registrations: Sequence[Registration]) -> Counter[str | float]:
    """How many registrations gave each answer to a question."""
    if isinstance(registrations, CodedRegistrations):
        return registrations.counts(name)
    answers = (getattr(registration, name) for registration in registrations)
    return Counter(answer for answer in answers if answer is not None)


def _knots(given: Counter[Any]) -> list[float]:
    """Quantiles of the answers, without the extreme 2% at either end."""
    if not given:
        return NO_KNOTS
    answers = np.repeat(np.array(list(given), dtype=np.float64), list(given.values()))
    return sorted(set(np.quantile(answers, np.linspace(0.02, 0.98, KNOTS)).round(6).tolist()))


def _often_enough(given: Counter[Any]) -> list[str]:
    seen: Counter[str] = Counter()
    for answer, n in given.items():
        seen[_folded(answer)] += n
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
            rest.keys() <= {"has_rare"} and name not in (AGE, GENRES) and _are_words(values)
        ):
            if isinstance(has_rare := rest.get("has_rare", True), bool):
                return Category(name, values, has_rare=has_rare)
    raise InputError("the encoder holds a question of an unknown kind")


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
