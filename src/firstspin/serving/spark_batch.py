"""Batch scoring on Spark: `score` in the executors, over Arrow batches (`DataFrame.mapInArrow`).

The bundle is broadcast: each executor receives it once, and each partition loads it once. Registrations are read,
checked and answered by the code of `score`, in columns, so that the answers are the same.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from firstspin.data import ingest
from firstspin.data.labels.spark import parquet_on_spark, spark_in_our_words, uri
from firstspin.data.picks import join_genres
from firstspin.data.registrations.reading import people_columns
from firstspin.data.schema import (
    AGE,
    COUNTRY,
    GENDER,
    GENRES,
    PICK_SEPARATOR,
    PROBABILITIES,
    REGISTRATIONS,
    SOURCE,
    USER_ID,
)
from firstspin.data.table_files import is_parquet
from firstspin.files import workspace, written_beside
from firstspin.installation.extras import need
from firstspin.records import InputError
from firstspin.serving import batch, bundle, policy
from firstspin.serving.batch import ROWS_AT_ONCE

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

_ANSWERS: Final = f"{USER_ID} string, {GENRES} array<string>, {PROBABILITIES} array<double>, {SOURCE} string"
_BUNDLE: Final = "bundle"
_ANSWERED: Final = "answers"


def score_on_spark(path: Path, registrations: DataFrame, top: int, settings: policy.PolicySettings) -> DataFrame:
    """The answers to a DataFrame of registrations, one row each: user id, `top` genres, probabilities, source.

    The rows are in no order. User ids are compared at once, all else happens when the result is used: a bad row then
    fails the job. Raises InputError where the bundle can't be loaded, a column has another type, or a user is repeated.
    """
    need("spark", "scoring on Spark")
    loaded = bundle.load(path)
    if USER_ID not in registrations.columns:
        raise InputError(f"the registrations have no column {USER_ID} (there are {', '.join(registrations.columns)})")
    fields = {_folded(name) for name in (USER_ID, AGE, GENDER, COUNTRY, GENRES, *loaded.manifest.extra)}
    used = registrations.select(*(f"`{name}`" for name in registrations.columns if _folded(name) in fields))
    with workspace("score") as folder:
        list(_answered(used.limit(0).toArrow(), loaded, settings, top, folder))  # raises where a type is wrong
    _refuse_repeated(used)
    archive = registrations.sparkSession.sparkContext.broadcast(_packed(path))

    def answer(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        with workspace("executor") as folder:
            with zipfile.ZipFile(io.BytesIO(archive.value)) as files:
                files.extractall(folder / _BUNDLE)
            shipped = bundle.load(folder / _BUNDLE)
            for received in _together(batches):
                yield from _answered(pa.Table.from_batches(received), shipped, settings, top, folder)

    return used.mapInArrow(answer, _ANSWERS)


def write_scores(
    path: Path, registrations: Path, out: Path, top: int, settings: policy.PolicySettings, session: SparkSession
) -> int:
    """Score a file or folder of Parquet on local Spark into a Parquet file, in no order. Returns the number of rows.

    The executors write their parts to a folder; the driver copies them into the file. Raises InputError as `score`,
    where the registrations are not Parquet, and where Spark runs on other machines.
    """
    import pyarrow.parquet as pq

    if not is_parquet(registrations):
        raise InputError(f"--engine spark reads registrations in Parquet, which {registrations.name} is not")
    if not (master := session.conf.get("spark.master") or "").startswith("local"):
        raise InputError(
            f"--engine spark writes a file of this machine, which the executors of {master} can't: "
            "call firstspin.api.score_on_spark in a job of your own"
        )
    columns, written = list(batch.file_schema().names), 0
    with workspace("score") as folder, spark_in_our_words("the registrations can't be answered"):
        answers = score_on_spark(path, parquet_on_spark(registrations, session), top, settings)
        answers.select(*columns).write.parquet(uri(folder / _ANSWERED))
        with written_beside(out) as beside, pq.ParquetWriter(beside, batch.file_schema()) as writer:
            for part in sorted((folder / _ANSWERED).glob("part-*.parquet")):
                for rows in pq.ParquetFile(part).iter_batches(ROWS_AT_ONCE, columns=columns):
                    writer.write_batch(rows.cast(batch.file_schema()))
                    written += len(rows)
    return written


def _folded(name: str) -> str:
    """The name of a column in any spelling: one of ours in another, as `Age`, is refused instead of left out."""
    return name.casefold().strip("_ ")


def _together(batches: Iterator[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Batches in lists of at least ROWS_AT_ONCE rows, but for the last: reading a table costs by the table too."""
    waiting: list[pa.RecordBatch] = []
    for one in batches:
        waiting.append(one)
        if sum(map(len, waiting)) >= ROWS_AT_ONCE:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _answered(
    registrations: pa.Table, loaded: bundle.Bundle, settings: policy.PolicySettings, top: int, folder: Path
) -> Iterator[pa.RecordBatch]:
    """The answers to a table of registrations, in order. Raises InputError and BadRows as `score`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    extra, path = loaded.manifest.extra, folder / REGISTRATIONS
    if GENRES not in map(_folded, registrations.column_names):
        registrations = registrations.append_column(GENRES, pa.nulls(len(registrations)))
    pq.write_table(registrations, path)
    received = ingest.read_registrations(path, workspace=folder, extra=extra)
    with received.connection:
        join_genres(received.connection, loaded.manifest.known_genres, PICK_SEPARATOR)
        further = tuple(name for name in extra if name not in received.absent)
        parts: list[batch.Answers] = []
        people = people_columns(received.connection, further, ROWS_AT_ONCE)
        batch.write(parts.extend, people, loaded, settings, top, lambda _: None)
    yield from batch.to_arrow(parts).to_batches()


def _refuse_repeated(registrations: DataFrame) -> None:
    """Raises InputError where a user id occurs twice: batches can't see each other's rows."""
    repeated = registrations.groupBy(USER_ID).count().filter(f"count > 1 AND {USER_ID} IS NOT NULL").limit(1).collect()
    for row in repeated:
        bare = f"registrations: {USER_ID} appears a second time"
        raise InputError(f"registrations: {USER_ID} {str(row[0])!r} appears a second time", bare=bare, field=USER_ID)


def _packed(path: Path) -> bytes:
    """The files of a bundle as a ZIP archive."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as files:
        for file in sorted(path.rglob("*")):
            if file.is_file():
                files.write(file, file.relative_to(path))
    return archive.getvalue()
