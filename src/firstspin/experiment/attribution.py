"""Which clicks and listens belong to which exposure: the log joined into one row a user, ready for the analysis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import duckdb
import msgspec
import pyarrow as pa

from firstspin.experiment.export import EVENTS, EXPOSURES
from firstspin.experiment.outcomes import LeftOut, Outcomes, read_outcomes
from firstspin.experiment.plan import Plan, experiment_key
from firstspin.files import workspace
from firstspin.records import InputError
from firstspin.sources import connect, in_our_words, open_table, read
from firstspin.sql import identifier

Log: TypeAlias = Path | pa.Table

EXPOSURE_COLUMNS: Final = ("experiment", "user_key", "arm", "decided_at")
EVENT_COLUMNS: Final = ("event_id", "type", "user_key", "at", "seconds")

_ASKED: Final = """
CREATE TABLE asked AS SELECT $experiment AS asked_for, $until::TIMESTAMP AS until,
    $click_within AS click_within, $listen_within AS listen_within
"""

_LOGS: Final = """
CREATE TABLE shown AS SELECT exposures.* REPLACE (decided_at::TIMESTAMP AS decided_at) FROM exposures, asked
    WHERE experiment = asked_for AND decided_at::TIMESTAMP <= until;
CREATE TABLE logged AS SELECT events.* REPLACE ("at"::TIMESTAMP AS "at") FROM events, asked
    WHERE "at"::TIMESTAMP <= until;
CREATE VIEW first AS SELECT * EXCLUDE (experiment) FROM shown QUALIFY
    row_number() OVER (PARTITION BY user_key ORDER BY decided_at, arm) = 1
    AND min(arm) OVER (PARTITION BY user_key) = max(arm) OVER (PARTITION BY user_key);
CREATE VIEW once AS SELECT * FROM logged
    QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY "at", type, user_key, seconds) = 1;
"""

_ONE_ROW_A_USER: Final = """
WITH told AS (
    SELECT user_key,
        count(*) FILTER (type = 'click' AND "at" < decided_at + click_within) AS clicks,
        sum(seconds ORDER BY seconds) FILTER (type = 'listen' AND "at" < decided_at + listen_within) AS seconds
    FROM first JOIN once USING (user_key), asked WHERE "at" >= decided_at GROUP BY user_key
)
SELECT first.*, decided_at::DATE AS day,
    CASE WHEN decided_at + click_within <= until THEN (coalesce(clicks, 0) > 0)::INTEGER END AS clicked,
    CASE WHEN decided_at + listen_within <= until THEN coalesce(seconds, 0)::DOUBLE END AS seconds
FROM first LEFT JOIN told USING (user_key), asked ORDER BY user_key
"""

_COUNTED: Final = """
WITH clicks AS (
    SELECT "at" < decided_at AS early, "at" >= decided_at + click_within AS late
    FROM once JOIN first USING (user_key), asked WHERE type = 'click'
)
SELECT
    (SELECT count(*) FROM shown),
    (SELECT count(*) - count(DISTINCT user_key) FROM shown),
    (SELECT count(*) FROM first),
    (SELECT count(*) FROM once),
    (SELECT count(*) FROM logged) - (SELECT count(*) FROM once),
    (SELECT count(*) FROM once WHERE user_key NOT IN (SELECT user_key FROM shown)),
    (SELECT count(*) FROM clicks WHERE NOT early AND NOT late),
    (SELECT count(*) FROM clicks WHERE late),
    (SELECT count(*) FROM clicks WHERE early),
    (SELECT count(*) FROM first, asked WHERE decided_at + click_within > until)
"""


class Counted(msgspec.Struct, frozen=True):
    """What the join made of the log, to be compared with what the service says it wrote.

    `repeated_exposures` are later ones of users already exposed, `duplicate_events` further rows of an event's id,
    `orphan_events` those of users never exposed. A click is in time, late, or before the message was decided: early.
    `not_yet_due` users' click window is still open.
    """

    exposures: int
    repeated_exposures: int
    users: int
    events: int
    duplicate_events: int
    orphan_events: int
    clicks_in_time: int
    clicks_late: int
    clicks_early: int
    not_yet_due: int


@dataclass(frozen=True, slots=True)
class Attributed:
    """One row a user in `table`: the first exposure's columns, its `day`, `clicked` (0 or 1) and `seconds` listened.

    The last two are null while their window is open.
    """

    table: pa.Table
    left_out: LeftOut
    counted: Counted


def attribute(
    exposures: Log,
    events: Log,
    *,
    experiment: str,
    until: datetime,
    click_within: timedelta = timedelta(days=1),
    listen_within: timedelta = timedelta(days=7),
) -> Attributed:
    """Join an experiment's exposures with events (Parquet files or Arrow tables; times in UTC, `until` aware).

    A user counts from the first exposure on, in its arm, whatever source answered; users of several arms are left out
    and counted. An event counts once by its id, from the exposure until the window ends. Nothing after `until` is
    looked at. Raises InputError where a log lacks a column.
    """
    asked = {"experiment": experiment, "until": until, "click_within": click_within, "listen_within": listen_within}
    with workspace("analyse") as folder, _offered(exposures, events, folder) as connection:
        connection.execute(_ASKED, asked)
        connection.execute(_LOGS)
        table = connection.sql(_ONE_ROW_A_USER).to_arrow_table()
        (counts,) = connection.sql(_COUNTED).fetchall()
        ((users,),) = connection.sql("SELECT count(DISTINCT user_key) FROM shown").fetchall()
    return Attributed(table, LeftOut(in_several_arms=users - table.num_rows), Counted(*counts))


def attribute_export(folder: Path, plan: Plan, *, until: datetime) -> Attributed:
    """The same, of a folder that `export` wrote and by the windows of a plan."""
    return attribute(
        folder / EXPOSURES,
        folder / EVENTS,
        experiment=experiment_key(plan),
        until=until,
        click_within=timedelta(hours=plan.click_within_hours),
        listen_within=timedelta(days=plan.listen_within_days),
    )


def planned_outcomes(found: Attributed, plan: Plan) -> Outcomes:
    """Attributed users as `analyse` reads them by the rules of a plan."""
    return read_outcomes(
        found.table,
        arm="arm",
        metrics=plan.metrics,
        day="day",
        covariates=plan.covariates,
        left_out=found.left_out,
    )


@contextmanager
def _offered(exposures: Log, events: Log, folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with the views `exposures` and `events`."""
    logs = {"exposures": (exposures, EXPOSURE_COLUMNS), "events": (events, EVENT_COLUMNS)}
    sources = {
        name: open_table(log, name, columns, optional=None, workspace=folder)
        for name, (log, columns) in logs.items()
        if isinstance(log, Path)
    }
    with connect(folder, list(sources.values())) as connection:
        for name, (log, columns) in logs.items():
            if source := sources.get(name):
                kept = ", ".join(f"{column.sql} AS {identifier(of)}" for of, column in source.columns.items())
                read(source, partial(_offer, connection, name, kept))
            else:
                _offer_table(connection, name, log, columns)
        yield connection


def _offer(connection: duckdb.DuckDBPyConnection, name: str, kept: str, rows: str) -> None:
    connection.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT {kept} FROM {rows}")


def _offer_table(connection: duckdb.DuckDBPyConnection, name: str, log: pa.Table, columns: tuple[str, ...]) -> None:
    if missing := [column for column in columns if column not in log.column_names]:
        raise InputError(f"{name} has no column {', '.join(missing)} (it has {', '.join(log.column_names)})")
    with in_our_words(f"{name} can't be read"):
        connection.from_arrow(log).create_view(name)
