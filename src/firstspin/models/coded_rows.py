"""Registrations in columns -> rows of numbers, equal to the bit to those of `features`.

Each distinct answer is encoded once, by the writer of its question in `features`; a row is looked up by its codes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from firstspin.data.coded_registrations import CodedAnswers, CodedPicks, CodedRegistrations, Codes
from firstspin.models.features import Cells, Encoder, FormColumns, Picks
from firstspin.records import MAX_PICKS

Rows = NDArray[np.float64]
Known = NDArray[np.bool_]


class CodedRows:
    """The rows of registrations in columns, as `encoder` encodes them."""

    def __init__(self, encoder: Encoder, registrations: CodedRegistrations) -> None:
        self._width = len(encoder.columns)
        self._parts: list[tuple[int, int, _EncodedAnswers | _EncodedPicks]] = []
        first = 0
        for question in encoder.form:
            end = first + len(question.columns())
            self._parts.append((first, end, _encoded(question, registrations)))
            first = end

    def matched(self, start: int, stop: int) -> tuple[Rows, Known]:
        """Registrations [start, stop) as rows (n, c), and whether training saw at least one answer of each (n,)."""
        rows, known = np.zeros((stop - start, self._width)), np.zeros(stop - start, dtype=bool)
        for first, end, part in self._parts:
            known |= part.write(rows[:, first:end], start, stop)
        return rows, known


def _encoded(question: FormColumns, registrations: CodedRegistrations) -> _EncodedAnswers | _EncodedPicks:
    if isinstance(question, Picks):
        return _EncodedPicks.of(question, registrations.picks)
    absent = CodedAnswers([None], np.zeros(len(registrations), dtype=np.int64))
    answers = registrations.answers.get(question.name, absent)
    rows, known = _written(question.writer(0), list(answers.values), len(question.columns()))
    return _EncodedAnswers(rows, known, answers.codes)


def _written(write: Callable[[Cells, Any], bool], answers: list[Any], width: int) -> tuple[Rows, Known]:
    """The rows (v, w) of some answers to a question, and whether training saw each (v,)."""
    rows = np.zeros((len(answers), width))
    known = [write(cast("Cells", memoryview(row.data)), answer) for row, answer in zip(rows, answers, strict=True)]
    return rows, np.array(known, dtype=bool)


@dataclass(frozen=True, slots=True)
class _EncodedAnswers:
    """The rows (v, w) of the distinct answers to a question, whether training saw each (v,), and the codes (n,)."""

    rows: Rows
    known: Known
    codes: Codes

    def write(self, rows: Rows, start: int, stop: int) -> Known:
        """Write registrations [start, stop) into rows (n, w); of each, whether training saw its answer (n,)."""
        codes = self.codes[start:stop]
        rows[:] = self.rows[codes]
        return self.known[codes]


@dataclass(frozen=True, slots=True)
class _EncodedPicks:
    """Picks as positions among the g genres, -1 for none of them: `genres` (p,), those of row i from `offsets`[i] on.

    `counts` (MAX_PICKS + 1, w - 2g): the columns of the number of picks, for each number.
    """

    n_genres: int
    genres: Codes
    offsets: Codes
    counts: Rows

    @staticmethod
    def of(question: Picks, picks: CodedPicks) -> _EncodedPicks:
        """The picks of registrations, by the genres of a question."""
        index = {genre: i for i, genre in enumerate(question.genres)}
        genre_of = np.array([index.get(question.names.find(pick) or "", -1) for pick in picks.values], dtype=np.int32)
        first = 2 * len(index)
        some = [question.genres[:n] for n in range(min(len(index), MAX_PICKS) + 1)]
        by_number, _ = _written(question.writer(0), some, len(question.columns()))
        return _EncodedPicks(len(index), genre_of[picks.codes], picks.offsets, by_number[:, first:])

    def write(self, rows: Rows, start: int, stop: int) -> Known:
        """As of answers: flags and ranks of the genres picked, each once, then the number of them."""
        offsets, n_genres = self.offsets[start : stop + 1], self.n_genres
        genres = self.genres[offsets[0] : offsets[-1]]
        people = np.repeat(np.arange(stop - start), np.diff(offsets))
        known = genres >= 0
        cells = people[known] * n_genres + genres[known]
        turn, first = np.arange(len(cells)), np.empty((stop - start) * n_genres, dtype=np.int64)
        first[cells[::-1]] = turn[::-1]  # of equal cells the last one written remains: the first pick of the genre
        cells = cells[first[cells] == turn]
        people, genres = np.divmod(cells, max(n_genres, 1))
        numbers = np.bincount(people, minlength=stop - start)
        before = np.cumsum(numbers) - numbers
        rows[people, genres] = 1.0
        rows[people, n_genres + genres] = 1.0 / (np.arange(len(people)) - before[people] + 1)
        rows[:, 2 * n_genres :] = self.counts[numbers]
        return numbers > 0
