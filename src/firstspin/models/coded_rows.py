"""Registrations in columns -> rows of numbers, equal to the bit to those of `features`.

Each distinct answer is encoded once, by the writer of its question in `features`; a row is looked up by its codes.
Training on many users keeps the codes, a tenth of the rows' size, and looks up the rows that it needs at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from firstspin.data.registrations.coded import CodedAnswers, CodedPicks, CodedRegistrations, Codes, taken_lists
from firstspin.models.features import MIN_ANSWERS, Cells, Encoder, FormColumns, Picks
from firstspin.records import MAX_PICKS, Registration

Rows = NDArray[np.float64]
Known = NDArray[np.bool_]

AT_ONCE: Final = 2**18
"""Up to so many users, rows are an array in memory, and sums over them are taken at once."""


MAX_CELLS: Final = 2**21
"""Cells of a table of people and genres that are in memory at once: 16 MB."""


class CodedRows:
    """The rows of registrations in columns, as `encoder` encodes them."""

    def __init__(self, encoder: Encoder, registrations: CodedRegistrations) -> None:
        self._length, self._width = len(registrations), len(encoder.columns)
        self._parts = [
            (question.name, len(question.columns()), _encoded(question, registrations)) for question in encoder.form
        ]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, which: slice | NDArray[np.int64]) -> Rows:
        """(m, c) the rows at some positions, as of an array (n, c)."""
        if isinstance(which, slice):
            start, stop, step = which.indices(self._length)
            return self.matched(start, max(start, stop))[0][::step]
        return self.take(which)[:]

    def take(self, which: NDArray[np.int64]) -> CodedRows:
        """The rows at positions `which` (m,), still in codes."""
        rows = copy(self)
        rows._length, rows._parts = len(which), [(name, width, part.take(which)) for name, width, part in self._parts]
        return rows

    def without(self, questions: Collection[str]) -> CodedRows:
        """The rows without the columns of these questions."""
        rows = copy(self)
        rows._parts = [part for part in self._parts if part[0] not in questions]
        rows._width = sum(width for _, width, _ in rows._parts)
        return rows

    def answers(self) -> Iterator[tuple[int, EncodedAnswers | EncodedPicks]]:
        """Of each question its first column in a row, and the answers."""
        first = 0
        for _, width, part in self._parts:
            yield first, part
            first += width

    def matched(self, start: int, stop: int) -> tuple[Rows, Known]:
        """Registrations [start, stop) as rows (n, c), and whether training saw at least one answer of each (n,)."""
        rows, known = np.zeros((stop - start, self._width)), np.zeros(stop - start, dtype=bool)
        first = 0
        for _, width, part in self._parts:
            known |= part.write(rows[:, first : first + width], start, stop)
            first += width
        return rows, known


def rows_of(encoder: Encoder, registrations: Sequence[Registration]) -> Rows | CodedRows:
    """The rows (n, c) of registrations: as an array, but of many users in columns as codes."""
    if not isinstance(registrations, CodedRegistrations):
        return encoder.matrix(registrations)
    rows = CodedRows(encoder, registrations)
    return rows if len(rows) > AT_ONCE else rows[:]


def parts(n: int, at_once: int = AT_ONCE) -> list[slice]:
    """The parts of n rows, in order, of `at_once` each but for the last."""
    return [slice(start, min(start + at_once, n)) for start in range(0, n, at_once)]


def knows_silence(encoder: Encoder, registrations: Sequence[Registration]) -> bool:
    """Whether enough training users gave no usable answer for a model to answer such registrations."""
    if isinstance(registrations, CodedRegistrations):
        rows = CodedRows(encoder, registrations)
        return sum(int((~rows.matched(of.start, of.stop)[1]).sum()) for of in parts(len(rows))) >= MIN_ANSWERS
    return sum(not encoder.matches(registration) for registration in registrations) >= MIN_ANSWERS


def _encoded(question: FormColumns, registrations: CodedRegistrations) -> EncodedAnswers | EncodedPicks:
    if isinstance(question, Picks):
        return EncodedPicks.of(question, registrations.picks)
    absent = CodedAnswers([None], np.zeros(len(registrations), dtype=np.int64))
    answers = registrations.answers.get(question.name, absent)
    rows, known = _written(question.writer(0), list(answers.values), len(question.columns()))
    return EncodedAnswers(rows, known, answers.codes)


def _written(write: Callable[[Cells, Any], bool], answers: list[Any], width: int) -> tuple[Rows, Known]:
    """The rows (v, w) of some answers to a question, and whether training saw each (v,)."""
    rows = np.zeros((len(answers), width))
    known = [write(cast("Cells", memoryview(row.data)), answer) for row, answer in zip(rows, answers, strict=True)]
    return rows, np.array(known, dtype=bool)


@dataclass(frozen=True, slots=True)
class PickedCells:
    """The p genres that n registrations picked, each once and in order.

    `people`, `genres` (p,): whose pick, and of which genre · `ranks` (p,): from 0 · `numbers` (n,): how many of each.
    """

    people: NDArray[np.int64]
    genres: NDArray[np.int64]
    ranks: NDArray[np.int64]
    numbers: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class EncodedAnswers:
    """The rows (v, w) of the distinct answers to a question, whether training saw each (v,), and the codes (n,)."""

    rows: Rows
    known: Known
    codes: Codes

    def take(self, which: Codes) -> EncodedAnswers:
        """The answers of the registrations at positions `which` (m,)."""
        return replace(self, codes=self.codes[which])

    def write(self, rows: Rows, start: int, stop: int) -> Known:
        """Write registrations [start, stop) into rows (n, w); of each, whether training saw its answer (n,)."""
        codes = self.codes[start:stop]
        rows[:] = self.rows[codes]
        return self.known[codes]


@dataclass(frozen=True, slots=True)
class EncodedPicks:
    """Picks as positions among the g genres, -1 for none of them: `genres` (p,), those of row i from `offsets`[i] on.

    `counts` (MAX_PICKS + 1, w - 2g): the columns of the number of picks, for each number.
    """

    n_genres: int
    genres: Codes
    offsets: Codes
    counts: Rows

    @staticmethod
    def of(question: Picks, picks: CodedPicks) -> EncodedPicks:
        """The picks of registrations, by the genres of a question."""
        index = {genre: i for i, genre in enumerate(question.genres)}
        genre_of = np.array([index.get(question.names.find(pick) or "", -1) for pick in picks.values], dtype=np.int32)
        first = 2 * len(index)
        some = [question.genres[:n] for n in range(min(len(index), MAX_PICKS) + 1)]
        by_number, _ = _written(question.writer(0), some, len(question.columns()))
        return EncodedPicks(len(index), genre_of[picks.codes], picks.offsets, by_number[:, first:])

    def take(self, which: Codes) -> EncodedPicks:
        """The picks of the registrations at positions `which` (m,)."""
        genres, offsets = taken_lists(self.genres, self.offsets, which)
        return replace(self, genres=genres, offsets=offsets)

    def cells(self, start: int, stop: int) -> PickedCells:
        """The picks of registrations [start, stop) that are genres."""
        at_once = max(1, MAX_CELLS // max(self.n_genres, 1))
        parts = [
            self._first_picks(at, min(at + at_once, stop)) + (at - start) * self.n_genres
            for at in range(start, stop, at_once)
        ]
        people, genres = np.divmod(np.concatenate([np.empty(0, np.int64), *parts]), max(self.n_genres, 1))
        numbers = np.bincount(people, minlength=stop - start)
        before = np.cumsum(numbers) - numbers
        return PickedCells(people, genres, np.arange(len(people)) - before[people], numbers)

    def _first_picks(self, start: int, stop: int) -> NDArray[np.int64]:
        """Of the table (stop - start, g) of people and genres the cells of the picks, each once, in their order."""
        offsets = self.offsets[start : stop + 1]
        genres = self.genres[offsets[0] : offsets[-1]]
        people = np.repeat(np.arange(stop - start), np.diff(offsets))
        known = genres >= 0
        cells = people[known] * self.n_genres + genres[known]
        turn, first = np.arange(len(cells)), np.empty((stop - start) * self.n_genres, dtype=np.int64)
        first[cells[::-1]] = turn[::-1]  # of equal cells the last one written remains: the first pick of the genre
        picks: NDArray[np.int64] = cells[first[cells] == turn]
        return picks

    def write(self, rows: Rows, start: int, stop: int) -> Known:
        """As of answers, into rows (n, w): flags and ranks of the genres picked, each once, then the number of them."""
        cells = self.cells(start, stop)
        self.write_picks(rows, cells.people, cells.genres, cells.ranks)
        rows[:, 2 * self.n_genres :] = self.counts[cells.numbers]
        return cells.numbers > 0

    def write_picks(self, rows: Rows, people: Codes, genres: Codes, ranks: Codes) -> None:
        """Write flag and rank of picks (p,) into the rows (n, w) of their people."""
        rows[people, genres] = 1.0
        rows[people, self.n_genres + genres] = 1.0 / (ranks + 1)
