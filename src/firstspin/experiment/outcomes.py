"""Outcomes: a table of results with one row per user, aggregated to that where it has more."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from firstspin.data.formats.written_values import AS_WRITTEN, Spelling
from firstspin.data.schema import USER_ID
from firstspin.experiment.assign import MAX_ARMS
from firstspin.experiment.reading.outcome_columns import (
    UNIT,
    YES_OR_NO,
    OutcomeTable,
    covariate,
    fits,
    opened_table,
    value,
)
from firstspin.experiment.reading.spelling import amount, day_kind
from firstspin.experiment.reading.tidying import arm_name, drop_rows_at_ends, drop_without_arm
from firstspin.experiment.rules import Metric
from firstspin.records import InputError

Numbers = NDArray[np.float64]

USER_COLUMNS: Final = (USER_ID, "userid", "userId", "UserId", "User ID", "user", "User", "visitor_id", "customer_id")
"""Columns that may name the user where no unit is given; the first one counts."""


class LeftOut(msgspec.Struct, frozen=True):
    """Numbers of excluded users, by reason.

    `repeated` users have several rows; they are included, unless the table is aggregated to one row per user.
    """

    without_arm: int = 0
    in_several_arms: int = 0
    repeated: int = 0


@dataclass(frozen=True, slots=True)
class Outcomes:
    """n users, each in one arm, sorted by their values, so that results don't depend on the order of the file.

    `arm` (n,) indexes into `arms`. For each of `metrics`, with its kind resolved, `values` has the values (n,), NaN
    where missing, and `per` the divisors (n,) of a ratio. `covariates` (n, k) has a column for each number,
    missing-value indicator and level; `day` (n,) is datetime64[D] in UTC. `open_windows`: for each metric whose missing
    values mean an open window, the length of that window. `notes` are
    sentences about what was read in a way that the user may not expect.
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
    open_windows: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

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
    spelling: Spelling = AS_WRITTEN,
    known_arms: Collection[str] = (),
) -> Outcomes:
    """Read a CSV or Parquet file, or an Arrow table, with one row per user, or aggregated to one per `unit`.

    The aggregation takes the max of a binary metric, the sum of others, the first day and the min of a covariate. A
    unit in several arms is excluded and counted; `left_out` are exclusions of an earlier step. `spelling` decides
    ambiguous numbers and dates, `known_arms` the case of the arms (`arm_name`). Raises InputError with file, row,
    column and value.
    """
    of_metrics = [column for metric in metrics for column in metric.columns]
    named = [arm, *of_metrics, *covariates, *(c for c in (unit, day) if c)]
    _refuse_known_after(covariates, {arm: "the arm", **dict.fromkeys(of_metrics, "a metric")})
    with opened_table(source, spelling, list(dict.fromkeys(named)), USER_COLUMNS) as table:
        user = unit or next((column for column in USER_COLUMNS if column in table.types), None)
        drop_rows_at_ends(table, [arm, *([user] if user else [])], known_arms)
        name = arm_name(table, arm, known_arms)
        without_arm = 0 if unit else drop_without_arm(table, arm, name)
        metrics = tuple(_with_kind(table, metric) for metric in metrics)
        columns = _columns(table, metrics, covariates, day, spelling)
        here = _one_row_a_user(table, name, arm, unit, columns)
        here = msgspec.structs.replace(
            here, without_arm=here.without_arm + without_arm, repeated=0 if unit or not user else _repeated(table, user)
        )
        arms = _arms(table, arm)
        users = _fetch(table, arms)
    return Outcomes(
        source=table.file,
        arms=arms,
        arm=np.asarray(users["arm"], dtype=np.int64),
        metrics=metrics,
        values=tuple(_numbers(users[f"v{i}"]) for i in range(len(metrics))),
        per=tuple(_numbers(users[f"p{i}"]) if m.per else None for i, m in enumerate(metrics)),
        covariates=_design([users[f"c{i}"] for i in range(len(covariates))], len(users["arm"])),
        day=np.asarray(users["day"], dtype="datetime64[D]") if day else None,
        left_out=_together(left_out, here) if left_out else here,
        notes=tuple(table.notes),
    )


# ------------------------------------------------------------------------------------------------ one row a user


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the table `users`: its name, its SQL for one row, and the aggregate over a unit's rows."""

    name: str
    sql: str
    total: str = "min"


def _refuse_known_after(covariates: Sequence[str], uses: Mapping[str, str]) -> None:
    """Refuse covariates that the treatment can change: adjusting for them would remove the effect."""
    for column in covariates:
        if column in uses:
            raise InputError(f"the covariate {column} is {uses[column]}; a covariate must be known at registration")


def _count(table: OutcomeTable, rows: str) -> int:
    return int(str(table.query(f"SELECT count(*) FROM {rows}")[0][0]))


def _one_row_a_user(
    table: OutcomeTable, arm_sql: str, arm: str, unit: str | None, columns: Sequence[_Column]
) -> LeftOut:
    """Create the table `users` (arm and the columns) and count the excluded users."""
    unit_sql = value(table, unit, UNIT) if unit else "NULL"
    rows = ", ".join([f"{arm_sql} AS arm", *(f"{c.sql} AS {c.name}" for c in columns)])
    totals = ", ".join(["min(arm) AS arm", *(_summed(c) for c in columns)])
    if unit:
        grouped = f"SELECT unit, count(DISTINCT arm) AS arms, {totals} FROM rows GROUP BY unit"
    else:
        grouped = "SELECT *, (arm IS NOT NULL)::INTEGER AS arms FROM rows"
    rows = f"SELECT {unit_sql} AS unit, {rows} FROM {table.rows(table.types)}"
    table.connection.execute(f"CREATE TABLE units AS WITH rows AS ({rows}) {grouped}")
    table.connection.execute("CREATE VIEW users AS SELECT * EXCLUDE (unit, arms) FROM units WHERE arms = 1")
    if not _count(table, "users"):
        raise InputError(f"{table.file}: no user is in exactly one arm (column {arm})")
    return LeftOut(_count(table, "units WHERE arms = 0"), _count(table, "units WHERE arms > 1"))


def _repeated(table: OutcomeTable, column: str) -> int:
    """The number of users with several rows; 0 where the column does not name a user in each row."""
    if not fits(table, column, UNIT):
        return 0
    user = value(table, column, UNIT)
    return _count(table, f"(SELECT {user} AS user FROM {table.rows([column])} GROUP BY ALL HAVING count(*) > 1)")


def _arms(table: OutcomeTable, arm: str) -> tuple[str, ...]:
    arms = tuple(
        str(name) for (name,) in table.query(f"SELECT DISTINCT arm FROM users ORDER BY arm LIMIT {MAX_ARMS + 1}")
    )
    if len(arms) > MAX_ARMS:
        raise InputError(f"{table.file}: {arm} has more than {MAX_ARMS} values; is it the column of the arm?")
    return arms


def _together(one: LeftOut, two: LeftOut) -> LeftOut:
    return LeftOut(
        one.without_arm + two.without_arm, one.in_several_arms + two.in_several_arms, one.repeated + two.repeated
    )


def _summed(column: _Column) -> str:
    # Summation in ascending order makes the result independent of the file's order and of the threads.
    order = f" ORDER BY {column.name}" if column.total == "sum" else ""
    return f"{column.total}({column.name}{order}) AS {column.name}"


def _fetch(table: OutcomeTable, arms: Sequence[str]) -> dict[str, NDArray[np.generic]]:
    """The columns of the table `users` as arrays (n,); a missing value is NaN."""
    named = table.connection.execute(
        "SELECT list_position($arms, arm) - 1 AS arm, * EXCLUDE (arm) FROM users ORDER BY ALL", {"arms": list(arms)}
    )
    columns = {name: np.ma.asarray(column) for name, column in named.fetchnumpy().items()}
    return {n: np.asarray(c.filled(np.nan) if c.dtype.kind == "f" else c.data) for n, c in columns.items()}


# ---------------------------------------------------------------------------------------------------- the metrics


def _with_kind(table: OutcomeTable, metric: Metric) -> Metric:
    """The metric with its kind: as given, else binary where all values are 0 or 1."""
    if metric.kind is not None:
        return metric
    binary = metric.cap is None and fits(table, metric.column, YES_OR_NO)
    return msgspec.structs.replace(metric, kind="binary" if binary else "continuous")


def _columns(
    table: OutcomeTable, metrics: Sequence[Metric], covariates: Sequence[str], day: str | None, spelling: Spelling
) -> list[_Column]:
    """v0, v1, … of the metrics, p0, … of their divisors, c0, … of the covariates, and the day."""
    return [
        *(_metric_column(f"v{i}", table, m, m.column, spelling) for i, m in enumerate(metrics)),
        *(_metric_column(f"p{i}", table, m, m.per, spelling) for i, m in enumerate(metrics) if m.per),
        *(_Column(f"c{i}", covariate(table, c, amount(table, c, spelling))) for i, c in enumerate(covariates)),
        *([_Column("day", value(table, day, day_kind(table, day, spelling)))] if day else []),
    ]


def _metric_column(name: str, table: OutcomeTable, metric: Metric, column: str, spelling: Spelling) -> _Column:
    binary = metric.kind == "binary"
    sql = value(table, column, YES_OR_NO if binary else amount(table, column, spelling))
    return _Column(name, f"coalesce({sql}, 0)" if metric.blank else sql, "max" if binary else "sum")


def refuse_only_yes(outcomes: Outcomes) -> None:
    """Raises InputError where a metric has only the value 1 and blanks, which may be the users without an outcome."""
    for metric, values in zip(outcomes.metrics, outcomes.values, strict=True):
        there = values[~np.isnan(values)]
        if metric.kind != "ratio" and 0 < len(there) < len(values) and (there == 1).all():
            raise InputError(
                f"{outcomes.source}: {metric.column} has only yes and {len(values) - len(there):,} blanks: "
                f"where a blank means no, say {metric.column}:binary:blank=no"
            )


# ------------------------------------------------------------------------------------------ the numbers


def _numbers(column: NDArray[np.generic]) -> Numbers:
    return np.asarray(column, dtype=np.float64)


def _design(covariates: Sequence[NDArray[np.generic]], n: int) -> Numbers:
    """The design matrix (n, k): levels as indicators; numbers with mean imputation and missing-value indicators."""
    columns: list[Numbers] = []
    for known in covariates:
        numbers = _numbers(known)
        gaps = np.isnan(numbers)
        if known.dtype.kind == "i":
            columns.extend(_numbers(numbers == level) for level in np.unique(numbers)[1:])
        elif not gaps.all():
            columns.extend([np.where(gaps, numbers[~gaps].mean(), numbers), _numbers(gaps)])
    varying = [column for column in columns if np.ptp(column) > 0]
    return np.column_stack(varying) if varying else np.empty((n, 0))
