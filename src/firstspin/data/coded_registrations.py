"""Registrations in columns: of each question the distinct answers, and a code for each row.

What costs by the answer (tidying, parsing a name) is done once for each distinct answer instead of once for each row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from firstspin.data.further_fields import with_further_fields
from firstspin.data.schema import AGE, COUNTRY, GENDER, GENRES
from firstspin.records import Registration

if TYPE_CHECKING:
    import pyarrow as pa

Codes = NDArray[np.integer[Any]]
ONE_ANSWER: Final = (AGE, GENDER, COUNTRY)


@dataclass(frozen=True, slots=True)
class CodedAnswers:
    """The answers of n registrations to a question: `codes` (n,) are positions among the distinct `values`."""

    values: Sequence[str | float | None]
    codes: Codes


@dataclass(frozen=True, slots=True)
class CodedPicks:
    """The picks of n registrations: those of registration i are `codes`[`offsets`[i]:`offsets`[i + 1]], in order.

    `codes` (p,) are positions among the distinct `values`, which include the empty pick; `offsets` is (n + 1,).
    """

    values: Sequence[str]
    codes: Codes
    offsets: Codes


@dataclass(frozen=True, slots=True)
class CodedRegistrations:
    """n registrations without listens: the answers by question, and the picks. Values are tidied as in Registration."""

    answers: Mapping[str, CodedAnswers]
    picks: CodedPicks

    def __len__(self) -> int:
        return len(self.picks.offsets) - 1


def coded(people: pa.RecordBatch, extra: Sequence[str] = ()) -> CodedRegistrations:
    """Rows of the table `registrations`, with the further columns `extra`, in columns."""
    kind = with_further_fields(extra)
    answers = {name: _answers(people.column(name), name, kind) for name in (*ONE_ANSWER, *extra)}
    return CodedRegistrations(answers, _picks(people.column(GENRES)))


def _answers(column: pa.Array, name: str, kind: type[Registration]) -> CodedAnswers:
    values, codes = _distinct(column)
    return CodedAnswers([getattr(kind(**{name: value}), name) for value in values], codes)


def _picks(lists: pa.Array) -> CodedPicks:
    values, codes = _distinct(lists.flatten())
    offsets = np.concatenate([[0], np.cumsum(lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))])
    return CodedPicks(["".join(Registration(genres=(value,)).genres) for value in values], codes, offsets)


def _distinct(column: pa.Array) -> tuple[list[Any], Codes]:
    """The distinct values, last None, and the code of each row. Floats are distinct where a bit differs: -0.0, 0.0."""
    is_float = str(column.type) == "double"
    encoded = (column.view("int64") if is_float else column).dictionary_encode()
    values = encoded.dictionary.view("double") if is_float else encoded.dictionary
    return [*values.to_pylist(), None], encoded.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)
