"""Labels on Apache Spark: the listens stay where they are; their seconds by registration and genre come back.

Registrations and stations are read and checked by the driver, as with DuckDB. The listens are checked by the SQL of
`ingest`: DuckDB runs it in the executors, over Arrow batches (`DataFrame.mapInArrow`), so that a row is valid on Spark
where it is valid without. The label's Ibis expression is compiled to Spark SQL. No setting of the session is changed,
and none affects the labels: times are TIMESTAMP_NTZ in UTC, which the session's time zone does not shift.
"""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

from firstspin.data import schema
from firstspin.data.checks.mismatches import by_day
from firstspin.data.checks.row_rules import BROKEN, VALUE
from firstspin.data.dataset import Reading, open_reading
from firstspin.data.formats.connections import connect
from firstspin.data.formats.dataframes import TableSet
from firstspin.data.formats.opening import open_table
from firstspin.data.formats.sources import PROBLEM, name_at
from firstspin.data.ingest import Tables, checked_listens, listen_rules
from firstspin.data.labels import expressions, labelling
from firstspin.data.labels.remote import EngineTables, complain, without_listens
from firstspin.data.schema import ROW
from firstspin.data.sql import identifier
from firstspin.data.table_files import files_of, find_table, is_parquet
from firstspin.files import workspace
from firstspin.installation.extras import need
from firstspin.records import Census, InputError, LabelRule

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

REGISTRATIONS_AT_ONCE: Final = 2_000_000
"""Registrations whose seconds by genre are in the memory of the driver at once."""

_ROWS_OF_A_BATCH: Final = 122_880
_CHECKED: Final = (
    f"{schema.USER_ID} string, {schema.STARTED_AT} timestamp_ntz, {schema.STATION_ID} string, "
    f"{schema.SECONDS} double, `{BROKEN}` int, `{VALUE}` string"
)

Batches = Iterator["pa.RecordBatch"]


def write_labels(
    data: Path,
    out: Path,
    reading: Reading,
    session: SparkSession | None = None,
    listens: DataFrame | None = None,
) -> tuple[Census, dict[str, int]]:
    """`dataset.write_labels` with the listens on Spark: those of a DataFrame, or else of the folder.

    Without a session, one is started and stopped. Raises InputError as there, and where Spark fails.
    """
    with own_session() if session is None else nullcontext(session) as spark, workspace("label") as folder:
        with open_on_spark(data, folder, reading, spark, listens) as tables:
            census, _ = labelling.label_tables(tables, reading.rule, out, reading.now)
        return census, tables.ignored


def collected(tables: TableSet) -> tuple[TableSet, DataFrame | None]:
    """The tables with DataFrames of Spark collected as Arrow, but of the listens only the columns; and the listens."""
    from pyspark.sql import DataFrame

    if not isinstance(tables, Mapping):
        return tables, None
    listens = tables.get(schema.LISTENS)
    ours = listens if isinstance(listens, DataFrame) else None
    rows = dict(tables) if ours is None else {**tables, schema.LISTENS: ours.limit(0)}
    with spark_in_our_words():
        return {name: one.toArrow() if isinstance(one, DataFrame) else one for name, one in rows.items()}, ours


@contextmanager
def own_session() -> Iterator[SparkSession]:
    """A Spark session, stopped at the end. In a process that has one: a new session beside it, which stops nothing.

    Raises InputError where Spark is not installed or does not start.
    """
    need("spark", "--engine spark")
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    if active := SparkSession.getActiveSession():
        yield active.newSession()
        return
    if not (shutil.which("java") or os.environ.get("JAVA_HOME")):
        raise InputError("--engine spark needs Java 17 or 21: install it, or set JAVA_HOME")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # otherwise the executors take the first python3 of PATH
    try:
        builder = SparkSession.builder.appName("firstspin").config("spark.ui.showConsoleProgress", "false")
        session = builder.getOrCreate()
        session.sparkContext.setLogLevel("ERROR")
    except (PySparkException, RuntimeError) as problem:
        raise InputError(f"--engine spark: Spark does not start: {_cause(problem)}") from problem
    try:
        yield session
    finally:
        session.stop()


@contextmanager
def open_on_spark(
    data: Path, folder: Path, reading: Reading, session: SparkSession, frame: DataFrame | None = None
) -> Iterator[Tables]:
    """The checked tables of a folder, with the listens on Spark; see `write_labels`.

    Listens in CSV are parsed by the driver, whose files a local Spark alone can read. Raises InputError as
    `open_reading`, for erased users, and where Spark can't read the listens.
    """
    if reading.erased:
        raise InputError("--engine spark does not leave out erased users: use --engine duckdb with --erased")
    with spark_in_our_words():
        path = None if frame is not None else find_table(data, schema.LISTENS)
        parsed = path is not None and not is_parquet(path)
        if path and parsed:
            _refuse_cluster(session, path)
            tables = open_reading(data, folder, reading)
            checked = session.read.schema(_CHECKED).parquet(uri(checked_listens(folder)))
        else:
            received: DataFrame = _received(path, folder, reading, session) if path else frame
            file = path.name if path else f"{schema.LISTENS}.parquet"
            given = without_listens(data, folder, received.limit(0).toArrow(), file)
            tables = open_reading(given, folder, reading)
            checked = _checked(received, tables)
        with _views(session, tables, checked) as views:
            listens = SparkListens(session, views, tables)
            if not parsed:
                listens.complain()
            yield replace(tables, remote=listens)


def _refuse_cluster(session: SparkSession, path: Path) -> None:
    master = session.conf.get("spark.master", "")
    if not master.startswith("local"):
        cause = f"{path.name} is parsed by the driver, whose files the executors of {master} do not read"
        raise InputError(f"--engine spark: {cause}: write the listens as Parquet")


def _received(path: Path, folder: Path, reading: Reading, session: SparkSession) -> DataFrame:
    """The listens of a file or folder of Parquet, as received. Raises InputError as `open_table`, for any of the files.

    Spark would take values from the names of folders (`started_at=2026-02-05`) in place of those of the files, null for
    the columns that a file lacks, and, where the session says so, skip damaged files.
    """
    needed, aliases = schema.COLUMNS[schema.LISTENS], reading.mapping.aliases(schema.LISTENS)
    open_table(path, "remote", needed, workspace=folder, mapped=aliases, mapped_at=reading.mapping.at_place)
    return parquet_on_spark(path, session)


def parquet_on_spark(path: Path, session: SparkSession) -> DataFrame:
    """A file or folder of Parquet, as it is written; a damaged file is an error, whatever the session says."""
    reader = session.read.option("recursiveFileLookup", True)
    reader = reader.option("ignoreCorruptFiles", False).option("ignoreMissingFiles", False)
    return reader.parquet(*map(uri, files_of(path) if path.is_dir() else [path]))


def uri(path: Path) -> str:
    """A local path for Spark. Raises InputError where Spark takes it for a pattern."""
    if strange := set("*?[]{}\\") & set(str(path)):
        raise InputError(f"{path} has {min(strange)} in its name, which Spark takes for a pattern: rename it")
    return f"file://{path.resolve()}"


def _checked(received: DataFrame, tables: Tables) -> DataFrame:
    """The listens with their validated values, the number of the first rule that each breaks, and the bad value."""
    source = tables.sources[schema.LISTENS]
    by_position = received.toDF(*(name_at(at) for at in range(source.width)))
    read = by_position.select(*(f"`{name_at(column.position)}`" for column in source.columns.values()))
    well_formed = f"(SELECT *, NULL::VARCHAR AS {identifier(PROBLEM)} FROM received)"
    statement = listen_rules(tables, source).validated(well_formed, every=False)
    stations = tables.connection.execute("SELECT station_id FROM stations ORDER BY station_id").fetchall()
    return read.mapInArrow(_checks(statement, [station for (station,) in stations]), _CHECKED)


def _checks(statement: str, stations: Sequence[str]) -> Callable[[Batches], Batches]:
    """The function that the executors call once per partition: one query of DuckDB over its stream of batches."""

    def check(batches: Batches) -> Batches:
        import pyarrow as pa

        first = next(batches, None)
        if first is None:
            return
        with workspace("executor") as folder, connect(folder, threads=1) as connection:
            known = "CREATE TABLE stations AS SELECT unnest($known::VARCHAR[]) AS station_id"
            connection.execute(known, {"known": stations})
            rows = pa.RecordBatchReader.from_batches(first.schema, chain([first], batches))
            connection.register("received", rows)
            yield from connection.sql(statement).to_arrow_reader(_ROWS_OF_A_BATCH)

    return check


@contextmanager
def _views(session: SparkSession, tables: Tables, checked: DataFrame) -> Iterator[dict[str, str]]:
    """The names of temporary views of the three tables, which no other view of the session has."""
    from pyspark.sql import types

    run = uuid.uuid4().hex
    row, text = types.StructField(ROW, types.IntegerType()), types.StringType()
    user = types.StructField(schema.USER_ID, text)
    at = types.StructField(schema.REGISTERED_AT, types.TimestampNTZType())
    of_stations = [types.StructField(schema.STATION_ID, text), types.StructField(schema.GENRE, text)]
    columns = {schema.REGISTRATIONS: [row, user, at], schema.STATIONS: [row, *of_stations]}
    frames = {schema.LISTENS: checked}
    for name, fields in columns.items():
        selected = ", ".join(identifier(one.name) for one in fields)
        numbered = selected.replace(identifier(ROW), f"{identifier(ROW)}::INTEGER AS {identifier(ROW)}", 1)
        rows = tables.connection.sql(f"SELECT {numbered} FROM {name}").to_arrow_table()
        frames[name] = session.createDataFrame(rows, types.StructType(fields))
    names = {name: f"firstspin_{run}_{name}" for name in frames}
    try:
        for name, frame in frames.items():
            frame.createOrReplaceTempView(names[name])
        yield names
    finally:
        for view in names.values():
            session.catalog.dropTempView(view)


@dataclass(frozen=True, slots=True)
class SparkListens:
    """The validated listens as views of a Spark session, with the registrations and stations they are joined with."""

    session: SparkSession
    views: dict[str, str]
    tables: Tables

    def by_day(self) -> pa.Table:
        """Days and lengths of the valid listens, see `mismatches.by_day`."""
        return self._run(by_day(self._names.valid)).toArrow()

    def seconds_by_genre(self, rule: LabelRule) -> Iterator[pa.Table]:
        """The result of `expressions.seconds_by_genre`, in parts of so many registrations, at first of all others."""
        from pyspark import StorageLevel

        names = self._names
        registrations, stations = names.table(schema.REGISTRATIONS), names.table(schema.STATIONS)
        by_genre = expressions.seconds_by_genre(registrations, names.valid, stations, rule)
        result = self._run(by_genre).persist(StorageLevel.DISK_ONLY)
        try:
            yield result.filter(f"`{ROW}` IS NULL").toArrow()
            ((last,),) = self.tables.connection.execute(f"SELECT max({identifier(ROW)}) FROM registrations").fetchall()
            for begin in range(0, last + 1, REGISTRATIONS_AT_ONCE):
                end = begin + REGISTRATIONS_AT_ONCE
                yield result.filter(f"`{ROW}` >= {begin} AND `{ROW}` < {end}").toArrow()
        finally:
            result.unpersist()

    def users(self, strangers: int, *, registered: bool) -> pa.Table:
        """Distinct users of the listens, see `EngineTables.users`."""
        return self._run(self._names.users(strangers, registered=registered)).toArrow()

    def complain(self) -> None:
        """Hand over the bad rows. Raises BadRows, without the numbers of rows, unless they are to be skipped."""
        names = self._names
        complain(self.tables, self._run(names.broken()).toArrow(), lambda: self._run(names.bad_values()).toArrow())

    @property
    def _names(self) -> EngineTables:
        return EngineTables(self.views)

    def _run(self, query: ir.Table) -> DataFrame:
        import ibis

        return self.session.sql(ibis.pyspark.compile(query))


@contextmanager
def spark_in_our_words(what: str = "the labels can't be made") -> Iterator[None]:
    """Convert the errors of Spark. Raises InputError with what Spark, or Python in an executor, says of the cause."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError) as problem:
        raise InputError(f"{what} on Spark: {_cause(problem)}") from problem


def _cause(problem: Exception) -> str:
    """The line of a message that says why: of an executor's traceback the last, and otherwise the first."""
    lines = [
        line for line in str(problem).splitlines() if line.strip() and "An error occurred while calling" not in line
    ]
    missing = [line for line in lines if line.startswith("ModuleNotFoundError")]
    if missing:
        return f"{missing[0]} (in the executors: PYSPARK_PYTHON names a Python that has firstspin)"
    return lines[-1 if "Traceback" in str(problem) else 0] if lines else type(problem).__name__
