"""Batch scoring: registrations -> a file or a score store, one row per registration, in order.

Registrations stay columns (Arrow, numpy) from the table to the file. Only those that the model does not rank (under the
minimum age, without an answer, with listens) become objects, for `policy.decide_many`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from firstspin.data.formats.arrays import arrow_array, arrow_texts, numbers_of
from firstspin.data.formats.csv_cells import csv_line, is_guarded
from firstspin.data.registrations.coded import coded
from firstspin.data.registrations.reading import registrations_of
from firstspin.data.schema import GENRES, LISTENS, PICK_SEPARATOR, PROBABILITIES, SOURCE, USER_ID
from firstspin.files import written_beside
from firstspin.records import SOURCES, Ranking
from firstspin.serving.bundle import Bundle
from firstspin.serving.policy import PolicySettings, decide_many, top
from firstspin.serving.ranked_columns import RankedColumns, rank_columns
from firstspin.serving.score_stores import Batch

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

ROWS_AT_ONCE: Final = 61_440
"""Registrations that are answered and written at once: they bound the memory."""


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to n registrations, in columns.

    Answer i has `places` (positions in `genres`, best first) and `probabilities` from `offsets`[i] to `offsets`[i + 1];
    `sources` (n,) are positions in SOURCES.
    """

    users: pa.StringArray
    genres: tuple[str, ...]
    places: NDArray[np.int32]
    probabilities: NDArray[np.float64]
    offsets: NDArray[np.int32]
    sources: NDArray[np.int8]

    def columns(self) -> pa.RecordBatch:
        """`user_id`, the genres best first (as a dictionary), their probabilities, and what answered (`source`)."""
        import pyarrow as pa

        genres = pa.DictionaryArray.from_arrays(arrow_array(self.places), arrow_texts(self.genres))
        offsets, probabilities = arrow_array(self.offsets), arrow_array(self.probabilities)
        lists = [pa.ListArray.from_arrays(offsets, of) for of in (genres, probabilities)]
        sources = arrow_texts(SOURCES).take(arrow_array(self.sources))
        return pa.record_batch([self.users, *lists, sources], names=[USER_ID, GENRES, PROBABILITIES, SOURCE])

    def rankings(self) -> Batch:
        """The user ids and rankings as objects."""
        names, values, ends = (of.tolist() for of in (self.places, self.probabilities, self.offsets))
        spans = zip(ends[:-1], ends[1:], self.sources.tolist(), strict=True)
        return self.users.to_pylist(), [
            Ranking(tuple(self.genres[i] for i in names[start:end]), tuple(values[start:end]), SOURCES[source])
            for start, end, source in spans
        ]


class AnswerSink(Protocol):
    """The destination of batch answers. It returns when they are stored durably: all are visible, or none."""

    def __call__(self, batches: Iterator[Answers], /) -> None:
        """Store these batches of answers."""


def file_sink(out: Path) -> AnswerSink:
    """A file, written atomically: CSV where its suffix is .csv, and Parquet otherwise.

    `preflight.scores` refuses other suffixes than .csv and .parquet before any work.
    """
    write_all = _to_csv if out.suffix.lower() == ".csv" else _to_parquet

    def sink(batches: Iterator[Answers], /) -> None:
        with written_beside(out) as beside:
            write_all(beside, batches)

    return sink


def write(
    sink: AnswerSink,
    people: Iterable[pa.RecordBatch],
    bundle: Bundle,
    settings: PolicySettings,
    k: int | None,
    progress: Callable[[int], None],
) -> int:
    """Score all registrations into a sink, with the first k genres each (None: all). Returns their number.

    `people` are batches of `people_columns`, with the further columns that they have.
    """
    written = failed = 0

    def answered() -> Iterator[Answers]:
        nonlocal written, failed
        for part in people:
            answers, failures = _answers(part, bundle, settings, k or max(len(bundle.predictor.genres), 1))
            failed += failures
            yield answers
            written += len(part)
            progress(written)

    sink(answered())
    if failed:
        log.warning("the model failed for %d registrations; the business rule answered them", failed)
    return written


def _answers(people: pa.RecordBatch, bundle: Bundle, settings: PolicySettings, k: int) -> tuple[Answers, int]:
    """The answers to a batch of registrations with k genres each, and for how many the model failed."""
    extra = [name for name in bundle.manifest.extra if name in people.schema.names]
    silent = np.arange(len(people))
    if LISTENS in people.schema.names:
        silent = np.flatnonzero(numbers_of(people.column(LISTENS).is_null(), np.int8))
    by_model = rank_columns(coded(people.take(arrow_array(silent)), extra), bundle, settings, k)
    by_model = replace(by_model, rows=silent[by_model.rows])
    others = np.setdiff1d(np.arange(len(people)), by_model.rows, assume_unique=True)
    decisions = list(decide_many(registrations_of(people.take(arrow_array(others)), extra), None, bundle, settings))
    genres = tuple(dict.fromkeys((*bundle.predictor.genres, *bundle.rule.genres)))
    rankings = [top(decision.ranking, k) for decision in decisions]
    answers = _joined(people.column(USER_ID), genres, by_model, others, rankings)
    return answers, sum(bool(decision.failure) for decision in decisions)


def _joined(
    users: pa.StringArray,
    genres: tuple[str, ...],
    by_model: RankedColumns,
    others: NDArray[np.int64],
    rankings: Sequence[Ranking],
) -> Answers:
    """The answers in the order of the users; `rankings` are those of the rows `others` (m,), which may be shorter."""
    lengths, sources = np.empty(len(users), np.int32), np.empty(len(users), np.int8)
    k = by_model.places.shape[1]
    lengths[by_model.rows], sources[by_model.rows] = k, by_model.sources
    lengths[others] = [len(ranking.genres) for ranking in rankings]
    sources[others] = [SOURCES.index(ranking.source) for ranking in rankings]
    offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)])
    places, probabilities = np.empty(offsets[-1], np.int32), np.empty(offsets[-1])
    cells = offsets[by_model.rows, None] + np.arange(k)
    places[cells], probabilities[cells] = by_model.places, by_model.probabilities
    index = {genre: i for i, genre in enumerate(genres)}
    for row, ranking in zip(others.tolist(), rankings, strict=True):
        start, end = offsets[row], offsets[row + 1]
        places[start:end] = [index[genre] for genre in ranking.genres]
        probabilities[start:end] = ranking.probabilities
    return Answers(users, genres, places, probabilities, offsets, sources)


def _to_csv(path: Path, batches: Iterator[Answers]) -> None:
    changed = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(csv_line([USER_ID, GENRES, PROBABILITIES]) + "\n")
        for users, rankings in (answers.rankings() for answers in batches):
            changed += sum(map(is_guarded, users))
            for user, ranking in zip(users, rankings, strict=True):
                genres, probabilities = ranking.genres, map(repr, ranking.probabilities)
                file.write(csv_line([user, PICK_SEPARATOR.join(genres), PICK_SEPARATOR.join(probabilities)]) + "\n")
    if changed:
        log.warning(
            "%d user ids begin like a formula: the CSV has an apostrophe before them; Parquet has them unchanged",
            changed,
        )


def to_arrow(batches: Iterable[Answers]) -> pa.Table:
    """The answers as an Arrow table: user_id, genres best first, their probabilities, and what answered (source)."""
    import pyarrow as pa

    schema = file_schema().append(pa.field(SOURCE, pa.string()))
    return pa.Table.from_batches([answers.columns().cast(schema) for answers in batches], schema)


def _to_parquet(path: Path, batches: Iterator[Answers]) -> None:
    import pyarrow.parquet as pq

    schema, dictionaries = file_schema(), [f"{GENRES}.list.element"]
    with pq.ParquetWriter(path, schema, use_dictionary=dictionaries) as writer:
        for answers in batches:
            writer.write_batch(answers.columns().select(schema.names).cast(schema))


def file_schema() -> pa.Schema:
    """The columns of a Parquet file of answers."""
    import pyarrow as pa

    texts, numbers = pa.list_(pa.string()), pa.list_(pa.float64())
    return pa.schema([(USER_ID, pa.string()), (GENRES, texts), (PROBABILITIES, numbers)])
