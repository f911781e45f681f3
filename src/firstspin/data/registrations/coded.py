"""Registrations in columns: of each question the distinct answers, and a code for each row.

What costs by the answer (tidying, parsing a name) is done once for each distinct answer instead of once for each row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, overload

import numpy as np
from numpy.typing import NDArray

from firstspin.data.formats.arrays import numbers_of
from firstspin.data.further_fields import with_further_fields
from firstspin.data.schema import AGE, COUNTRY, GENDER, GENRES
from firstspin.records import Registration

if TYPE_CHECKING:
    import pyarrow as pa

Codes = NDArray[np.integer[Any]]
ONE_ANSWER: Final = (AGE, GENDER, COUNTRY)
OBJECTS_AT_ONCE: Final = 10_000


@dataclass(frozen=True, slots=True)
class CodedAnswers:
    """The answers of n registrations to a question: `codes` (n,) are positions among the distinct `values`."""

    values: Sequence[str | float | None]
    codes: Codes

    def take(self, which: Codes) -> CodedAnswers:
        """The answers of the registrations at positions `which` (m,)."""
        return CodedAnswers(self.values, self.codes[which])


@dataclass(frozen=True, slots=True)
class CodedPicks:
    """The picks of n registrations: those of registration i are `codes`[`offsets`[i]:`offsets`[i + 1]], in order.

    `codes` (p,) are positions among the distinct `values`, which include the empty pick; `offsets` is (n + 1,).
    """

    values: Sequence[str]
    codes: Codes
    offsets: Codes

    def take(self, which: Codes) -> CodedPicks:
        """The picks of the registrations at positions `which` (m,)."""
        return CodedPicks(self.values, *taken_lists(self.codes, self.offsets, which))


@dataclass(frozen=True, slots=True, eq=False)
class CodedRegistrations(Sequence[Registration]):
    """n registrations without listens: the answers by question, and the picks. Values are tidied as in Registration.

    As a sequence they are objects, each made where it is read.
    """

    answers: Mapping[str, CodedAnswers]
    picks: CodedPicks

    def __len__(self) -> int:
        return len(self.picks.offsets) - 1

    @overload
    def __getitem__(self, at: int) -> Registration: ...
    @overload
    def __getitem__(self, at: slice) -> CodedRegistrations: ...
    def __getitem__(self, at: int | slice) -> Registration | CodedRegistrations:
        if isinstance(at, slice):
            return self.take(np.arange(*at.indices(len(self))))
        return next(iter(self.take(np.array([range(len(self))[at]]))))

    def __iter__(self) -> Iterator[Registration]:
        kind = _kind(tuple(name for name in self.answers if name not in ONE_ANSWER))
        for start in range(0, len(self), OBJECTS_AT_ONCE):
            offsets = self.picks.offsets[start : start + OBJECTS_AT_ONCE + 1].tolist()
            picks = [self.picks.values[code] for code in self.picks.codes[offsets[0] : offsets[-1]].tolist()]
            columns = {
                name: [of.values[code] for code in of.codes[start : start + OBJECTS_AT_ONCE].tolist()]
                for name, of in self.answers.items()
            }
            for i, (begin, end) in enumerate(pairwise(offsets)):
                genres = tuple(picks[begin - offsets[0] : end - offsets[0]])
                yield kind(genres=genres, **{name: of[i] for name, of in columns.items()})

    def take(self, which: Codes) -> CodedRegistrations:
        """The registrations at positions `which` (m,), in this order."""
        return CodedRegistrations({name: of.take(which) for name, of in self.answers.items()}, self.picks.take(which))

    def counts(self, question: str) -> Counter[str | float]:
        """How many registrations gave each answer to a question with one answer."""
        counts: Counter[str | float] = Counter()
        if of := self.answers.get(question):
            for value, n in zip(of.values, np.bincount(of.codes, minlength=len(of.values)).tolist(), strict=True):
                if value is not None and n:
                    counts[value] += n
        return counts


def taken_lists(entries: Codes, offsets: Codes, which: Codes) -> tuple[Codes, Codes]:
    """The lists at positions `which` (m,), in this order, as their entries and offsets (m + 1,).

    List i is `entries`[`offsets`[i]:`offsets`[i + 1]].
    """
    first, lengths = offsets[which], offsets[which + 1] - offsets[which]
    ends = np.cumsum(lengths)
    at = np.repeat(first - ends + lengths, lengths) + np.arange(lengths.sum())
    return entries[at], np.concatenate([np.zeros(1, ends.dtype), ends])


def coded(people: pa.RecordBatch, extra: Sequence[str] = ()) -> CodedRegistrations:
    """Rows of the table `registrations`, with the further columns `extra`, in columns."""
    kind = _kind(tuple(extra))
    answers = {name: _answers(people.column(name), name, kind) for name in (*ONE_ANSWER, *extra)}
    return CodedRegistrations(answers, _picks(people.column(GENRES)))


@cache
def _kind(extra: tuple[str, ...]) -> type[Registration]:
    """The type with these further fields, which is built once: an object that is read alone would build its own."""
    return with_further_fields(extra)


def _answers(column: pa.Array, name: str, kind: type[Registration]) -> CodedAnswers:
    values, codes = distinct(column)
    return CodedAnswers([getattr(kind(**{name: value}), name) for value in values], codes)


def _picks(lists: pa.Array) -> CodedPicks:
    values, codes = distinct(lists.flatten())
    offsets = np.concatenate([[0], np.cumsum(numbers_of(lists.value_lengths(), np.int64, none=0))])
    return CodedPicks(["".join(Registration(genres=(value,)).genres) for value in values], codes, offsets)


def distinct(column: pa.Array) -> tuple[list[Any], Codes]:
    """The distinct values, last None, and the codes (n,). Floats are distinct where a bit differs: -0.0, 0.0."""
    is_float = str(column.type) == "double"
    encoded = (column.view("int64") if is_float else column).dictionary_encode()
    values = encoded.dictionary.view("double") if is_float else encoded.dictionary
    return [*values.to_pylist(), None], numbers_of(encoded.indices, np.int32, none=len(values))
