"""What became of each user: any table of results, summed up to one row a user where it isn't yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from firstspin.experiment.rules import Metric
from firstspin.files import workspace
from firstspin.records import InputError
from firstspin.sources import PROBLEM, connect, in_our_words, open_table, read
from firstspin.sql import identifier, literal
from firstspin.tables import USER_ID

Numbers = NDArray[np.float64]

MOST_LEVELS: Final = 50

_LARGEST: Final = 1e60  # so that squares of squares are numbers too
_ROW: Final = identifier("row of the file")
_YES: Final = "('1', '1.0', 'true', 't', 'yes', 'y')"
_NUMBERS: Final = (
    *('"NULL"', "VARCHAR", "BOOLEAN", "ENUM", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE", "DECIMAL"),
)
_NO: Final = "('0', '0.0', 'false', 'f', 'no', 'n')"


class LeftOut(msgspec.Struct, frozen=True):
    """Users who are not counted, by reason. `repeated` are rows of a user_id that was there already: they do count,
    unless the table is summed up to one row a user."""

    without_arm: int = 0
    in_several_arms: int = 0
    repeated: int = 0


@dataclass(frozen=True, slots=True)
class Outcomes:
    """n users, each in one arm, sorted by what is known of them: the order of the file moves no digit.

    `arm` (n,) indexes into `arms`. For each of `metrics`, now of a known kind, `values` has what a user did (n,), NaN
    where the table has nothing, and `per` what that is divided by, for ratios. `covariates` (n, k) has a column for
    each number, gap and level; `day` (n,) is datetime64[D] in UTC.
    """

    source: str
    arms: tuple[str, ...]
    arm: NDArray[np.int64]
    metrics: tuple[Metric, ...]
    values: tuple[Numbers, ...]
    per: tuple[Numbers | None, ...]
    covariates: Numbers
    day: NDArray[np.datetime64] | None
    left_out: LeftOut

    def __len__(self) -> int:
        return len(self.arm)


def read_outcomes(
    source: Path | pa.Table,
    *,
    arm: str,
    metrics: Sequence[Metric],
    unit: str | None = None,
    day: str | None = None,
    covariates: Sequence[str] = (),
    left_out: LeftOut | None = None,
) -> Outcomes:
    """Read a CSV or Parquet file, or an Arrow table, of one row a user; or of many, summed up to one a `unit`.

    Summing up, a yes in any row is a yes, numbers add up, and the first day and the smallest covariate stand; a unit
    seen in several arms is left out and counted, beside those whom an earlier step had `left_out`. Raises InputError
    naming file, row, column and value.
    """
    named = [arm, *(c for m in metrics for c in m.columns), *covariates, *(c for c in (unit, day) if c)]
    with workspace("analyse") as folder, _received(source, list(dict.fromkeys(named)), folder) as table:
        metrics = tuple(_with_kind(table, metric) for metric in metrics)
        columns = [
            *(_Column(f"v{i}", _value(table, m.column, m.kind), _total(m)) for i, m in enumerate(metrics)),
            *(_Column(f"p{i}", _value(table, m.per, m.kind), _total(m)) for i, m in enumerate(metrics) if m.per),
            *(_Column(f"c{i}", _covariate(table, column)) for i, column in enumerate(covariates)),
            *([_Column("day", _day(table, day))] if day else []),
        ]
        here = _one_row_a_user(table, arm, unit, columns)
        arms = tuple(str(a) for (a,) in table.ask("SELECT DISTINCT arm FROM users ORDER BY arm"))
        found = _fetch(table.connection, arms)
    return Outcomes(
        source=table.name,
        arms=arms,
        arm=np.asarray(found["arm"], dtype=np.int64),
        metrics=metrics,
        values=tuple(_numbers(found[f"v{i}"]) for i in range(len(metrics))),
        per=tuple(_numbers(found[f"p{i}"]) if m.per else None for i, m in enumerate(metrics)),
        covariates=_design([found[f"c{i}"] for i in range(len(covariates))], len(found["arm"])),
        day=np.asarray(found["day"], dtype="datetime64[D]") if day else None,
        left_out=_together(left_out, here) if left_out else here,
    )


# -------------------------------------------------------------------------------------------- the table


@dataclass(frozen=True, slots=True)
class _Received:
    """The table `received` of a connection: the wanted columns as they came, and the row of the file, from 1."""

    connection: duckdb.DuckDBPyConnection
    name: str
    types: dict[str, str]

    def ask(self, sql: str) -> list[tuple[object, ...]]:
        return list(self.connection.sql(sql).fetchall())

    def count(self, sql: str) -> int:
        return int(str(self.ask(f"SELECT count(*) FROM {sql}")[0][0]))


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the table `users`: its name there, the SQL that makes it from a row, and from a unit's rows."""

    name: str
    sql: str
    total: str = "min"


@contextmanager
def _received(source: Path | pa.Table, wanted: Sequence[str], folder: Path) -> Iterator[_Received]:
    if isinstance(source, Path):
        opened = open_table(source, "outcomes", wanted, optional=[USER_ID], workspace=folder)
        with connect(folder, [opened]) as connection:
            read(opened, lambda rows: _keep(connection, rows, {name: of.sql for name, of in opened.columns.items()}))
            yield _checked(connection, source.name)
    else:
        names = [str(field.name) for field in source.schema]
        if missing := [column for column in wanted if column not in names]:
            raise InputError(f"outcomes has no column {', '.join(missing)} (it has {', '.join(names)})")
        with connect(folder) as connection:
            connection.register("given", source)
            kept = [*wanted, *(name for name in names if name == USER_ID)]
            rows = f"(SELECT *, NULL AS {identifier(PROBLEM)} FROM given)"
            with in_our_words("the outcomes can't be read"):
                _keep(connection, rows, {name: identifier(name) for name in kept})
            yield _checked(connection, "outcomes")


def _keep(connection: duckdb.DuckDBPyConnection, rows: str, columns: Mapping[str, str]) -> None:
    kept = ", ".join(f"{sql} AS {identifier(name)}" for name, sql in columns.items())
    number = f"row_number() OVER () AS {_ROW}"
    connection.execute(
        f"CREATE OR REPLACE TABLE received AS SELECT {kept}, {identifier(PROBLEM)}, {number} FROM {rows}"
    )


def _checked(connection: duckdb.DuckDBPyConnection, name: str) -> _Received:
    types = {str(column): str(kind) for column, kind, *_ in connection.sql("DESCRIBE received").fetchall()}
    table = _Received(connection, name, types)
    problem = identifier(PROBLEM)
    for row, said in table.ask(
        f"SELECT {_ROW}, {problem} FROM received WHERE {problem} IS NOT NULL ORDER BY 1 LIMIT 1"
    ):
        raise InputError(f"{name} row {row} {said}")
    return table


def _one_row_a_user(table: _Received, arm: str, unit: str | None, columns: Sequence[_Column]) -> LeftOut:
    """Make the table `users` (arm and the columns) and count who is not in it."""
    unit_sql = f"{identifier(unit)}::VARCHAR" if unit else _ROW
    rows = ", ".join(
        [f"nullif(trim({identifier(arm)}::VARCHAR), '') AS arm", *(f"{c.sql} AS {c.name}" for c in columns)]
    )
    totals = ", ".join(["min(arm) AS arm", *(_summed(c) for c in columns)])
    if unit:
        _refuse(table, unit, f"{unit_sql} IS NULL", "is missing")
        grouped = f"SELECT unit, count(DISTINCT arm) AS arms, {totals} FROM rows GROUP BY unit"
    else:
        grouped = "SELECT *, (arm IS NOT NULL)::INTEGER AS arms FROM rows"
    table.connection.execute(
        f"CREATE TABLE units AS WITH rows AS (SELECT {unit_sql} AS unit, {rows} FROM received) {grouped}"
    )
    table.connection.execute("CREATE VIEW users AS SELECT * EXCLUDE (unit, arms) FROM units WHERE arms = 1")
    if not table.count("users"):
        raise InputError(f"{table.name} has no user in any one arm (column {arm})")
    repeated = f"(SELECT 1 FROM received WHERE {USER_ID} IS NOT NULL GROUP BY {USER_ID} HAVING count(*) > 1)"
    return LeftOut(
        without_arm=table.count("units WHERE arms = 0"),
        in_several_arms=table.count("units WHERE arms > 1"),
        repeated=table.count(repeated) if not unit and USER_ID in table.types else 0,
    )


def _together(one: LeftOut, two: LeftOut) -> LeftOut:
    return LeftOut(
        one.without_arm + two.without_arm, one.in_several_arms + two.in_several_arms, one.repeated + two.repeated
    )


def _summed(column: _Column) -> str:
    # Sums are taken in the order of size, so that they don't depend on that of the file, nor on the threads.
    order = f" ORDER BY {column.name}" if column.total == "sum" else ""
    return f"{column.total}({column.name}{order}) AS {column.name}"


def _fetch(connection: duckdb.DuckDBPyConnection, arms: Sequence[str]) -> dict[str, NDArray[np.generic]]:
    """The table `users` as arrays; a gap is NaN."""
    named = connection.execute(
        "SELECT list_position($arms, arm) - 1 AS arm, * EXCLUDE (arm) FROM users ORDER BY ALL", {"arms": list(arms)}
    )
    columns = {name: np.ma.asarray(column) for name, column in named.fetchnumpy().items()}
    return {n: np.asarray(c.filled(np.nan) if c.dtype.kind == "f" else c.data) for n, c in columns.items()}


# --------------------------------------------------------------------------------- what a column means


def _with_kind(table: _Received, metric: Metric) -> Metric:
    """The metric with its kind: as given, else binary where every value is a yes or a no."""
    if metric.kind is not None:
        return metric
    _expect(table, metric.column, _NUMBERS, "numbers")
    column = identifier(metric.column)
    other = (
        f"received WHERE {column} IS NOT NULL AND ({_yes_or_no(column, table.types[metric.column])}) IS NULL LIMIT 1"
    )
    binary = metric.cap is None and not table.ask(f"SELECT 1 FROM {other}")
    return msgspec.structs.replace(metric, kind="binary" if binary else "continuous")


def _value(table: _Received, column: str, kind: str | None) -> str:
    """SQL for the column as a number, after a check that all its values are."""
    _expect(table, column, _NUMBERS, "numbers")
    name, type_name = identifier(column), table.types[column]
    if kind == "binary":
        sql, complaint = _yes_or_no(name, type_name), "is neither yes nor no (1 or 0, true or false)"
    else:
        sql, complaint = _number(name, type_name), "is not a finite number"
    _refuse(table, column, f"{name} IS NOT NULL AND NOT coalesce(abs({sql}) < {_LARGEST}, false)", complaint)
    return sql


def _yes_or_no(column: str, type_name: str) -> str:
    if type_name in ("VARCHAR", "BOOLEAN"):
        text = f"lower(trim({column}::VARCHAR))"
        return f"CASE WHEN {text} IN {_YES} THEN 1.0::DOUBLE WHEN {text} IN {_NO} THEN 0.0::DOUBLE END"
    return f"CASE WHEN {column} = 1 THEN 1.0::DOUBLE WHEN {column} = 0 THEN 0.0::DOUBLE END"


def _number(column: str, type_name: str) -> str:
    return f"TRY_CAST({column} AS DOUBLE)" if type_name != "BOOLEAN" else f"{column}::INTEGER::DOUBLE"


def _total(metric: Metric) -> str:
    return "max" if metric.kind == "binary" else "sum"


def _day(table: _Received, column: str) -> str:
    """SQL for the column's date in UTC."""
    _expect(table, column, ("VARCHAR", "DATE", "TIMESTAMP"), "days")
    name = identifier(column)
    sql = f"TRY_CAST({name} AS TIMESTAMPTZ)::TIMESTAMP::DATE" if table.types[column] == "VARCHAR" else f"{name}::DATE"
    _refuse(table, column, f"({sql}) IS NULL", "is not a date or an ISO 8601 time")
    return sql


def _covariate(table: _Received, column: str) -> str:
    """SQL for a number, or for a level of few as the list of those that it is: [0, 1, 0]."""
    _expect(table, column, _NUMBERS, "numbers or names")
    name = identifier(column)
    number = _number(name, table.types[column])
    if not table.ask(
        f"SELECT 1 FROM received WHERE {name} IS NOT NULL AND NOT coalesce(abs({number}) < {_LARGEST}, false) LIMIT 1"
    ):
        return number
    levels = table.ask(
        f"SELECT DISTINCT coalesce({name}::VARCHAR, '') FROM received ORDER BY 1 LIMIT {MOST_LEVELS + 1}"
    )
    if len(levels) > MOST_LEVELS:
        raise InputError(f"{table.name}: the covariate {column} has more than {MOST_LEVELS} different values")
    known = "[" + ", ".join(literal(str(level)) for (level,) in levels) + "]"
    return f"list_position({known}, coalesce({name}::VARCHAR, ''))::INTEGER"


def _expect(table: _Received, column: str, types: tuple[str, ...], what: str) -> None:
    """Raise InputError for a column of another type than those that begin so."""
    found = table.types[column]
    if not found.startswith(types) or "[" in found:
        raise InputError(f"{table.name}: the column {column} is of type {found.split('(')[0]}, where {what} are needed")


def _refuse(table: _Received, column: str, bad: str, complaint: str) -> None:
    """Raise InputError for the first row where `bad` (SQL) is true."""
    first = table.ask(f"SELECT {_ROW}, {identifier(column)}::VARCHAR FROM received WHERE {bad} ORDER BY ALL LIMIT 1")
    if first:
        row, value = first[0]
        shown = "" if value is None else f" {str(value)[:80]!r}"
        raise InputError(f"{table.name} row {row}: {column}{shown} {complaint}")


# ------------------------------------------------------------------------------------------ the numbers


def _numbers(column: NDArray[np.generic]) -> Numbers:
    return np.asarray(column, dtype=np.float64)


def _design(covariates: Sequence[NDArray[np.generic]], n: int) -> Numbers:
    """Columns for a regression: levels as indicators, numbers with their gaps at the mean and marked."""
    columns: list[Numbers] = []
    for covariate in covariates:
        numbers = _numbers(covariate)
        gaps = np.isnan(numbers)
        if covariate.dtype.kind == "i":
            columns.extend(_numbers(numbers == level) for level in np.unique(numbers)[1:])
        elif not gaps.all():
            columns.extend([np.where(gaps, numbers[~gaps].mean(), numbers), _numbers(gaps)])
    varying = [column for column in columns if np.ptp(column) > 0]
    return np.column_stack(varying) if varying else np.empty((n, 0))
