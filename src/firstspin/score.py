"""The answering story for a whole file of registrations: batch scoring, apart because it loads the table readers.

registrations -policy-> answers -> a file or a score store
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

from firstspin import preflight
from firstspin.data import ingest
from firstspin.data.checks import mismatches
from firstspin.data.column_map import OWN_NAMES, ColumnMap
from firstspin.data.formats.written_values import AS_WRITTEN, Spelling
from firstspin.data.labels.spark import own_session
from firstspin.data.picks import join_genres
from firstspin.data.registrations.reading import people_columns
from firstspin.data.schema import COUNTRY, GENDER
from firstspin.files import workspace
from firstspin.models.task import Progress, silent
from firstspin.records import Mismatch
from firstspin.serving import batch, bundle, policy, score_stores, spark_batch

log = logging.getLogger(__name__)

KNOWN: Final = "that the bundle knows"


def score(
    path: Path,
    registrations: Path,
    out: str,
    top: int | None = None,
    *,
    now: datetime,
    min_age: int | None = None,
    mapping: ColumnMap = OWN_NAMES,
    spelling: Spelling = AS_WRITTEN,
    skip_bad_rows: bool = False,
    listens: Path | None = None,
    progress: Progress = silent,
) -> tuple[int, dict[str, int], list[Mismatch]]:
    """Answer every registration of a file, in order.

    Returns the number of rows written, rows skipped by reason, and the picks and values that the bundle does not know.

    `out` is a .csv or .parquet file, sqlite:PATH or dynamodb:TABLE; a store keeps the answers under a version made of
    the bundle and `now`. `listens`: a table of listens since the registrations, as evidence. The rule answers
    registrations under `min_age` (None: the service's default).

    Raises InputError where the files can't be read or written, or most picks name no genre that the bundle knows.
    """
    preflight.scores(out, registrations)
    settings = policy.PolicySettings(policy.MIN_AGE if min_age is None else min_age)
    loaded = bundle.load(path)
    with _sink(out, f"{loaded.id}.{now:%Y%m%dT%H%M%S%f}") as sink:
        return score_into(
            sink,
            loaded,
            registrations,
            settings,
            top,
            mapping=mapping,
            spelling=spelling,
            skip_bad_rows=skip_bad_rows,
            listens=listens,
            progress=progress,
        )


def score_into(
    sink: batch.AnswerSink,
    loaded: bundle.Bundle,
    registrations: Path,
    settings: policy.PolicySettings,
    top: int | None,
    *,
    mapping: ColumnMap = OWN_NAMES,
    spelling: Spelling = AS_WRITTEN,
    skip_bad_rows: bool = False,
    listens: Path | None = None,
    progress: Progress = silent,
) -> tuple[int, dict[str, int], list[Mismatch]]:
    """Answer every registration of a file into a sink; returns, and raises InputError, as `score`."""
    extra = loaded.manifest.extra
    with workspace("score") as folder:
        received = ingest.read_registrations(
            registrations,
            workspace=folder,
            extra=extra,
            mapping=mapping,
            spelling=spelling,
            skip_bad_rows=skip_bad_rows,
            listens=listens,
        )
        if received.absent:
            log.warning("%s has no column %s: answered without", registrations.name, ", ".join(received.absent))
        join_genres(received.connection, loaded.manifest.known_genres, spelling.pick_separator)
        further = tuple(name for name in extra if name not in received.absent)
        unknown = _unknown(received, loaded, further, registrations.name)
        users = people_columns(received.connection, further, batch.ROWS_AT_ONCE, listens=listens is not None)
        rows = max(received.rows, 1)
        written = batch.write(sink, users, loaded, settings, top, lambda n: progress("scored", n / rows))
    return written, received.ignored, unknown


def _unknown(
    received: ingest.ReceivedRegistrations, loaded: bundle.Bundle, further: Sequence[str], file: str
) -> list[Mismatch]:
    """The picks, genders, countries and further texts that the bundle does not know, if any.

    A question of which the model knows no value is left out: it had no answers in training. Raises InputError where
    most picks are unknown.
    """
    picks = mismatches.unknown_picks(received.connection, loaded.manifest.known_genres)
    picks.refuse_most(KNOWN, file)
    values = [
        mismatches.unknown_values(received.connection, field, question.names, question.unseen, file)
        for field, question in loaded.predictor.encoder.categories().items()
        if question.values and field in (GENDER, COUNTRY, *further)
    ]
    return [one for one in (picks.mismatch(KNOWN, file), *values) if one.count]


def score_file_on_spark(path: Path, registrations: Path, out: str, top: int, *, min_age: int | None = None) -> int:
    """Answer a file or folder of Parquet on local Spark, in a session of its own, into a Parquet file, in no order.

    Returns the number of rows written. Raises InputError as `score`, and where Spark is not installed.
    """
    preflight.scores(out, registrations, on_spark=True)
    settings = policy.PolicySettings(policy.MIN_AGE if min_age is None else min_age)
    with own_session() as session:
        return spark_batch.write_scores(path, registrations, Path(out), top, settings, session)


@contextmanager
def _sink(out: str, version: str) -> Iterator[batch.AnswerSink]:
    scheme, _, name = out.partition(":")
    if scheme in score_stores.SCHEMES and name:
        with closing(score_stores.open_scores(out)) as store:
            yield lambda batches: store.write(version, (answers.rankings() for answers in batches))
    else:
        yield batch.file_sink(Path(out))
