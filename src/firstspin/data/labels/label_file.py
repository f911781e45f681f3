"""The file of labels, read: examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from firstspin.data.formats.arrays import numbers_of
from firstspin.data.registrations.coded import ONE_ANSWER, coded, distinct
from firstspin.data.schema import GENRES, PLAYED, REGISTERED_AT, REGISTRATION_COLUMNS, TOP_GENRE, USER_ID
from firstspin.records import Examples, InputError

if TYPE_CHECKING:
    import pyarrow as pa


def read_examples(path: Path, extra: Sequence[str] = ()) -> Examples:
    """The labelled users of a file written by `label_tables`."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return to_examples(file.read(), tuple(extra))


def read_labels(path: Path, extra: Sequence[str] = ()) -> Examples:
    """The labelled users of a file of `firstspin label`; of columns `extra` that it lacks, no user has a value.

    Raises InputError where it is another file, or has no rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file, pq.ParquetFile(file) as labels:
            labelled = labels.read()
        if missing := {*REGISTRATION_COLUMNS, TOP_GENRE, PLAYED} - set(labelled.column_names):
            raise InputError(f"{path} is not a file of `firstspin label`: it has no column {min(missing)}")
        if not len(labelled):
            raise InputError(f"{path} has no labelled users")
        for name in set(extra) - set(labelled.column_names):
            labelled = labelled.append_column(name, pa.nulls(len(labelled)))
        return to_examples(labelled, tuple(extra))
    except (pa.ArrowException, AttributeError, TypeError, ValueError) as problem:
        raise InputError(f"{path} is not a Parquet file of `firstspin label`") from problem


def to_examples(labelled: pa.Table, extra: tuple[str, ...] = ()) -> Examples:
    """The rows of a file of `label_tables` as examples, in their order. Registrations stay in columns."""
    import pyarrow as pa

    answers = {name: labelled[name].combine_chunks() for name in (*ONE_ANSWER, GENRES, *extra)}
    names, codes = distinct(labelled[TOP_GENRE].combine_chunks())
    genres = tuple(sorted({names[code] for code in np.unique(codes)}))
    registered_at = labelled[REGISTERED_AT].combine_chunks().cast(pa.timestamp("s"), safe=False)
    return Examples(
        user_ids=tuple(labelled[USER_ID].to_pylist()),
        registrations=coded(pa.record_batch(answers), extra),
        registered_at=numbers_of(registered_at, np.int64).view("M8[s]"),
        genres=genres,
        tops=_places(names, genres)[codes],
        shares=_shares(labelled, genres),
    )


def _places(names: Sequence[str | None], genres: tuple[str, ...]) -> NDArray[np.int64]:
    """The place of each name among the genres, or -1."""
    index = {genre: i for i, genre in enumerate(genres)}
    return np.array([index.get(name or "", -1) for name in names], dtype=np.int64)


def _shares(labelled: pa.Table, genres: tuple[str, ...]) -> NDArray[np.float64]:
    """(n, k) shares of each user's seconds by genre, over the genres that are a top genre."""
    played = labelled[PLAYED].combine_chunks()
    lengths = np.diff(numbers_of(played.offsets, np.int64))
    person = np.repeat(np.arange(len(labelled)), lengths)
    entries = played.flatten()
    names, codes = distinct(entries.field("genre"))
    genre = _places(names, genres)[codes]
    seconds = np.minimum(numbers_of(entries.field("seconds"), np.float64), 1e300)  # an infinite sum has no share
    shares = np.zeros((len(labelled), len(genres)))
    is_top = genre >= 0
    shares[person[is_top], genre[is_top]] = seconds[is_top]
    shares /= shares.sum(axis=1, keepdims=True)
    return shares
