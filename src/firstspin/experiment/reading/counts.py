"""Aggregated counts -> outcomes: a table of users and of those with an outcome, by arm or by arm and day."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from firstspin.data.formats import written_values
from firstspin.data.formats.columns import Shape
from firstspin.data.formats.written_values import AS_WRITTEN, Spelling
from firstspin.data.sql import literal
from firstspin.experiment.outcomes import LeftOut, Outcomes
from firstspin.experiment.reading.outcome_columns import AMOUNT, ROW, OutcomeTable, opened_table, value
from firstspin.experiment.reading.spelling import amount, day_kind
from firstspin.experiment.reading.tidying import arm_name, drop_rows_at_ends
from firstspin.experiment.rules import Metric
from firstspin.records import InputError

MAX_COUNTED: Final = 50_000_000
"""Users in all; each takes some bytes of memory per metric."""


def count_metrics(counts: Sequence[str], metrics: Sequence[Metric]) -> tuple[Metric, ...]:
    """The metrics of the columns `counts` (arm, users, outcome, …): those given, else each outcome as a binary metric.

    Raises InputError where there are fewer than three columns, one is named twice, or a metric is not of a count.
    """
    if len(counts) < 3 or len(set(counts)) < len(counts):
        raise InputError(f"counts {','.join(counts)!r}: expected different columns of arm, users and outcomes")
    for metric in metrics:
        if metric.column not in counts[2:] or metric.kind not in (None, "binary"):
            raise InputError(
                f"{metric.column}: counts give the binary metrics {', '.join(counts[2:])} only; "
                "a mean needs one row per user"
            )
    return tuple(msgspec.structs.replace(metric, kind="binary") for metric in metrics) or tuple(
        Metric(column, "binary") for column in counts[2:]
    )


def read_counts(
    source: Path,
    counts: Sequence[str],
    metrics: Sequence[Metric],
    *,
    day: str | None = None,
    spelling: Spelling = AS_WRITTEN,
    known_arms: Collection[str] = (),
) -> Outcomes:
    """The users that a table counts, with a 1 for each outcome counted, as `read_outcomes` reads them from rows.

    `counts` names the columns of arm, users and outcomes; without `metrics`, each outcome is a binary one. Rows of one
    arm are added up; where an outcome is blank, its users have a missing value. Raises InputError with file, row and
    column where a count is not a whole number or exceeds the users.
    """
    metrics = count_metrics(counts, metrics)
    arm, users, *_ = counts
    outcomes = [metric.column for metric in metrics]
    with opened_table(source, spelling, [arm, users, *outcomes, *([day] if day else [])]) as table:
        drop_rows_at_ends(table, [arm], known_arms)
        columns = [f"({_count(table, c, spelling)}) AS n{i}" for i, c in enumerate([users, *outcomes])]
        dated = value(table, day, day_kind(table, day, spelling)) if day else "NULL"
        name = arm_name(table, arm, known_arms)
        cells = f"{ROW} AS position, {name} AS arm, {dated} AS day, {', '.join(columns)}"
        table.connection.execute(f"CREATE TABLE counted AS SELECT {cells} FROM {table.rows(table.types)}")
        _drop_total(table, known_arms, len(outcomes))
        _check(table, arm, [users, *outcomes])
        read = table.query("SELECT * EXCLUDE (position) FROM counted ORDER BY ALL")
    arms = tuple(sorted({str(name) for name, *_ in read}))
    numbers = np.array([[-1 if n is None else int(float(str(n))) for n in row[2:]] for row in read], dtype=np.int64)
    return Outcomes(
        source=table.file,
        arms=arms,
        arm=np.repeat([arms.index(str(name)) for name, *_ in read], numbers[:, 0]),
        metrics=metrics,
        values=tuple(_ones_and_zeros(numbers[:, 0], counted) for counted in numbers[:, 1:].T),
        per=(None,) * len(metrics),
        covariates=np.empty((int(numbers[:, 0].sum()), 0)),
        day=np.repeat(np.array([str(row[1]) for row in read], "datetime64[D]"), numbers[:, 0]) if day else None,
        left_out=LeftOut(),
        notes=tuple(table.notes),
    )


def _count(table: OutcomeTable, column: str, spelling: Spelling) -> str:
    """SQL of a count; as it is a whole number, 1.234 and 1,234 are both in thousands, unless `spelling` says else."""
    if table.shape(column) is not Shape.text or spelling.decimal:
        return value(table, column, amount(table, column, spelling))
    return value(table, column, replace(AMOUNT, value=lambda text, _: written_values.whole_number(text)))


def _drop_total(table: OutcomeTable, known: Collection[str], outcomes: int) -> None:
    """Delete the rows of an arm that has exactly the users and outcomes of all others (two or more), unless `known`."""
    sums = ", ".join(f"sum(n{i})" for i in range(outcomes + 1))
    arms = table.query(f"SELECT arm, min(position), max(position), {sums} FROM counted GROUP BY arm ORDER BY 2")
    if len(arms) < 3:
        return
    numbers = np.array([[np.nan if n is None else float(str(n)) for n in row[3:]] for row in arms])
    doubled, overall = 2 * numbers, np.nansum(numbers, axis=0)
    total = (doubled[:, 0] == overall[0]) & ((doubled == overall) | np.isnan(numbers)).all(axis=1) & (overall[0] > 0)
    for name, first, last, *_ in (row for row, found in zip(arms, total, strict=True) if found):
        if name not in known:
            which = f"Row {first:,}" if first == last else f"Rows {first:,} to {last:,}"
            shown = "without an arm" if name is None else f"of {name}"
            table.notes.append(f"{which} {shown}: the users are the sum of the others, a total, and are excluded.")
            table.connection.execute(f"DELETE FROM counted WHERE arm IS NOT DISTINCT FROM {_text(name)}")


def _text(name: object) -> str:
    return "NULL" if name is None else literal(str(name))


def _check(table: OutcomeTable, arm: str, counted: Sequence[str]) -> None:
    """Raises InputError for the first row without an arm or with an impossible count, and for too many users."""
    problems = {"arm IS NULL": (arm, "is missing; in each row the arm must be named")}
    nothing = " AND ".join(f"n{i} IS NULL" for i in range(len(counted)))
    problems[nothing] = (counted[0], "is missing; if the row is a note below the table, delete it")
    for i, column in enumerate(counted):
        whole = f"n{i} < 0 OR n{i} <> floor(n{i})" + (" OR n0 IS NULL" if i == 0 else "")
        problems[whole] = (column, "is not a whole number of users; a rate is none")
        problems[f"n{i} > n0"] = (column, f"is more than {counted[0]}; each user counts once")
    for broken, (column, complaint) in problems.items():
        for (row,) in table.query(f"SELECT position FROM counted WHERE {broken} ORDER BY 1 LIMIT 1"):
            raise InputError(f"{table.file} row {row}: {column} {complaint}")
    [(users,)] = table.query("SELECT coalesce(sum(n0), 0) FROM counted")
    if not 0 < float(str(users)) <= MAX_COUNTED:
        raise InputError(
            f"{table.file}: {counted[0]} adds up to {float(str(users)):,.0f}; expected 1 to {MAX_COUNTED:,}"
        )


def _ones_and_zeros(users: NDArray[np.int64], counted: NDArray[np.int64]) -> NDArray[np.float64]:
    """For each row as many values as users (k,): `counted` (k,) of them 1 and the others 0, all NaN where it is -1."""
    ones, missing = np.maximum(counted, 0), np.where(counted < 0, users, 0)
    values = np.tile([1.0, 0.0, np.nan], len(users))
    return np.repeat(values, np.column_stack([ones, users - ones - missing, missing]).ravel())
