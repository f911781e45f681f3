"""Batch scoring: registrations -> a file or a score store, one row per registration, in order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from firstspin.data.formats.csv_cells import csv_line, is_guarded
from firstspin.data.schema import GENRES, PICK_SEPARATOR, PROBABILITIES, SOURCE, USER_ID
from firstspin.files import written_beside
from firstspin.records import Registration
from firstspin.serving.bundle import Bundle
from firstspin.serving.policy import PolicySettings, decide_many, top
from firstspin.serving.score_stores import Batch

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

People = Iterable[tuple[list[str], list[Registration]]]


class AnswerSink(Protocol):
    """The destination of batch answers. It returns when they are stored durably: all are visible, or none."""

    def __call__(self, batches: Iterator[Batch], /) -> None:
        """Store these batches of answers."""


def file_sink(out: Path) -> AnswerSink:
    """A file, written atomically: CSV where its suffix is .csv, and Parquet otherwise.

    `preflight.scores` refuses other suffixes than .csv and .parquet before any work.
    """
    write_all = _to_csv if out.suffix.lower() == ".csv" else _to_parquet

    def sink(batches: Iterator[Batch], /) -> None:
        with written_beside(out) as beside:
            write_all(beside, batches)

    return sink


def write(
    sink: AnswerSink,
    people: People,
    bundle: Bundle,
    settings: PolicySettings,
    k: int | None,
    progress: Callable[[int], None],
) -> int:
    """Score all registrations into a sink, with the first k genres each (None: all). Returns their number."""
    written = failed = 0

    def answered() -> Iterator[Batch]:
        nonlocal written, failed
        for users, registrations in people:
            decisions = list(decide_many(registrations, None, bundle, settings))
            failed += sum(bool(decision.failure) for decision in decisions)
            yield users, [top(decision.ranking, k) if k else decision.ranking for decision in decisions]
            written += len(users)
            progress(written)

    sink(answered())
    if failed:
        log.warning("the model failed for %d registrations; the business rule answered them", failed)
    return written


def _to_csv(path: Path, batches: Iterator[Batch]) -> None:
    changed = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(csv_line([USER_ID, GENRES, PROBABILITIES]) + "\n")
        for users, rankings in batches:
            changed += sum(map(is_guarded, users))
            for user, ranking in zip(users, rankings, strict=True):
                genres, probabilities = ranking.genres, map(repr, ranking.probabilities)
                file.write(csv_line([user, PICK_SEPARATOR.join(genres), PICK_SEPARATOR.join(probabilities)]) + "\n")
    if changed:
        log.warning(
            "%d user ids begin like a formula: the CSV has an apostrophe before them; Parquet has them unchanged",
            changed,
        )


def to_arrow(batches: Iterable[Batch]) -> pa.Table:
    """The answers as an Arrow table: user_id, genres best first, their probabilities, and what answered (source)."""
    import pyarrow as pa

    answers = [(user, ranking) for users, rankings in batches for user, ranking in zip(users, rankings, strict=True)]
    rows = [
        {USER_ID: user, GENRES: ranking.genres, PROBABILITIES: ranking.probabilities, SOURCE: ranking.source}
        for user, ranking in answers
    ]
    return pa.Table.from_pylist(rows, schema=_schema().append(pa.field(SOURCE, pa.string())))


def _to_parquet(path: Path, batches: Iterator[Batch]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema()
    with pq.ParquetWriter(path, schema) as writer:
        for users, rankings in batches:
            columns = [users, [r.genres for r in rankings], [r.probabilities for r in rankings]]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _schema() -> pa.Schema:
    import pyarrow as pa

    texts, numbers = pa.list_(pa.string()), pa.list_(pa.float64())
    return pa.schema([(USER_ID, pa.string()), (GENRES, texts), (PROBABILITIES, numbers)])
