"""Attribution: exposures joined with clicks and listens within their windows, one row per user, for the analysis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TypeAlias

import duckdb
import msgspec
import pyarrow as pa

from firstspin.data.formats import columns
from firstspin.data.formats.connections import connect, in_our_words
from firstspin.data.sql import identifier
from firstspin.events.export import EVENTS, EXPOSURES
from firstspin.experiment.outcomes import LeftOut, Outcomes, read_outcomes
from firstspin.experiment.plan import Plan, experiment_key
from firstspin.experiment.reading.outcome_columns import (
    AMOUNT,
    NAME,
    ROW,
    UNIT,
    OutcomeTable,
    open_source,
    receive,
    value,
)
from firstspin.files import workspace
from firstspin.records import InputError

Log: TypeAlias = Path | pa.Table

EXPOSURE_COLUMNS: Final = {"experiment": NAME, "user_key": UNIT, "arm": NAME, "decided_at": columns.TIME}
EVENT_COLUMNS: Final = {"event_id": UNIT, "type": NAME, "user_key": UNIT, "at": columns.TIME, "seconds": AMOUNT}
OUTCOME_COLUMNS: Final = (*EXPOSURE_COLUMNS, "day", "clicked", "seconds", "position")

_WINDOWS: Final = """
CREATE TABLE windows AS SELECT $experiment AS experiment, $until::TIMESTAMP AS until,
    $click_within AS click_within, $listen_within AS listen_within
"""

_LOGS: Final = """
CREATE TABLE shown AS SELECT exposures.* FROM exposures, windows
    WHERE exposures.experiment = windows.experiment AND decided_at <= until;
CREATE TABLE logged AS SELECT events.* FROM events, windows WHERE "at" <= until;
CREATE VIEW first AS SELECT * EXCLUDE (experiment) FROM shown QUALIFY
    row_number() OVER (PARTITION BY user_key ORDER BY decided_at, arm, position) = 1
    AND min(arm) OVER (PARTITION BY user_key) = max(arm) OVER (PARTITION BY user_key);
CREATE VIEW once AS SELECT * FROM logged
    QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY "at", type, user_key, seconds) = 1;
"""

_ONE_ROW_A_USER: Final = """
WITH attributed AS (
    SELECT user_key,
        count(*) FILTER (type = 'click' AND "at" < decided_at + click_within) AS clicks,
        sum(seconds ORDER BY seconds) FILTER (type = 'listen' AND "at" < decided_at + listen_within) AS seconds
    FROM first JOIN once USING (user_key), windows WHERE "at" >= decided_at GROUP BY user_key
)
SELECT joined.* EXCLUDE (position), further.* EXCLUDE (position) FROM (
    SELECT first.*, decided_at::DATE AS day,
        CASE WHEN decided_at + click_within <= until THEN (coalesce(clicks, 0) > 0)::INTEGER END AS clicked,
        CASE WHEN decided_at + listen_within <= until THEN coalesce(seconds, 0)::DOUBLE END AS seconds
    FROM first LEFT JOIN attributed USING (user_key), windows
) AS joined JOIN further USING (position) ORDER BY joined.user_key
"""

_COUNTED: Final = """
WITH clicks AS (
    SELECT "at" < decided_at AS early, "at" >= decided_at + click_within AS late
    FROM once JOIN first USING (user_key), windows WHERE type = 'click'
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
    (SELECT count(*) FROM first, windows WHERE decided_at + click_within > until)
"""


class Counted(msgspec.Struct, frozen=True):
    """Row counts of the join, to be compared with the service's counts of written rows.

    `repeated_exposures` are later exposures of the same user, `duplicate_events` further rows with the same event id,
    `orphan_events` events of users without an exposure. A click is early (before the exposure), in time, or late.
    `not_yet_due` counts users whose click window is still open.
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
    """One row per user in `table`: the first exposure's columns, its `day`, `clicked` (0 or 1) and `seconds` listened.

    `clicked` and `seconds` are null while their window is open.
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

    The first exposure sets a user's arm and start, whatever its source (intention to treat). Users of several arms are
    excluded and counted. An event counts once per id, from the exposure until the window ends. Rows after `until` are
    ignored. Raises InputError where a log lacks a column.
    """
    windows = {"experiment": experiment, "until": until, "click_within": click_within, "listen_within": listen_within}
    with workspace("analyse") as folder, _log_views(exposures, events, folder) as connection:
        connection.execute(_WINDOWS, windows)
        connection.execute(_LOGS)
        table = connection.sql(_ONE_ROW_A_USER).to_arrow_table()
        (counts,) = connection.sql(_COUNTED).fetchall()
        ((users,),) = connection.sql("SELECT count(DISTINCT user_key) FROM shown").fetchall()
    return Attributed(table, LeftOut(in_several_arms=users - table.num_rows), Counted(*counts))


def attribute_export(folder: Path, plan: Plan, *, until: datetime) -> Attributed:
    """`attribute` for a folder that `export` wrote, with the windows of a plan."""
    return attribute(
        folder / EXPOSURES,
        folder / EVENTS,
        experiment=experiment_key(plan),
        until=until,
        click_within=timedelta(hours=plan.click_within_hours),
        listen_within=timedelta(days=plan.listen_within_days),
    )


def planned_outcomes(attributed: Attributed, plan: Plan) -> Outcomes:
    """Attributed users as outcomes for `analyse`, with the metrics and covariates of a plan.

    Raises InputError where there is no user, and as `read_outcomes`.
    """
    if not attributed.table.num_rows:
        raise InputError(f"the log has no user of {experiment_key(plan)} in one arm: there is nothing to analyse yet")
    windows = {"clicked": f"{plan.click_within_hours} hours", "seconds": f"{plan.listen_within_days} days"}
    outcomes = read_outcomes(
        attributed.table,
        arm="arm",
        metrics=plan.metrics,
        day="day",
        covariates=plan.covariates,
        left_out=attributed.left_out,
    )
    return replace(outcomes, open_windows=windows)


@contextmanager
def _log_views(exposures: Log, events: Log, folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with the views `exposures`, `events` and `further` (the exposures' other columns, by position)."""
    sources = {
        "exposures": open_source(exposures, "exposures", folder, tuple(EXPOSURE_COLUMNS), None),
        "events": open_source(events, "events", folder, tuple(EVENT_COLUMNS)),
    }
    files = " or ".join(source.path.name for source in sources.values())
    with connect(folder, list(sources.values())) as connection, in_our_words(f"{files} can't be read"):
        logs = {
            name: receive(connection, source, f"{name}_received", in_place=True) for name, source in sources.items()
        }
        for name, kinds in (("exposures", EXPOSURE_COLUMNS), ("events", EVENT_COLUMNS)):
            values = ", ".join(
                f"{value(logs[name], column, kind)} AS {identifier(column)}" for column, kind in kinds.items()
            )
            connection.execute(
                f"CREATE VIEW {name} AS SELECT {values}, {ROW} AS position FROM {logs[name].rows(kinds)}"
            )
        connection.execute(f"CREATE VIEW further AS {_further(logs['exposures'])}")
        yield connection


def _further(shown: OutcomeTable) -> str:
    """The other columns of a supported type whose lower-case name is not taken yet."""
    taken = set(OUTCOME_COLUMNS)
    selected = [f"{ROW} AS position"]
    for column in shown.types:
        if shown.shape(column) is not None and column.lower() not in taken:
            taken.add(column.lower())
            selected.append(f"{shown.raw(column)} AS {identifier(column)}")
    return f"SELECT {', '.join(selected)} FROM {shown.table}"
