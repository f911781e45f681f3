"""The experiment story, one function a stage. READ FIRST, with `learn.py` and `answer.py`.

    event store -read_log-> exposures, clicks and listens -attribute-> a row per user -analyse-> verdict

On AWS the log comes from the files that Kinesis Data Firehose wrote (`read_delivered`).
The command line and the simulation both run an experiment through these functions. A folder with the log is what
`firstspin events export` writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from msgspec.structs import replace

from firstspin.data.formats.written_values import AS_WRITTEN, Spelling
from firstspin.events.database import Database
from firstspin.events.delivered import export_delivered
from firstspin.events.export import export
from firstspin.experiment.analyse import analyse
from firstspin.experiment.attribution import Attributed, attribute_export
from firstspin.experiment.monitor import verdict_on
from firstspin.experiment.outcomes import Outcomes, read_outcomes, refuse_only_yes
from firstspin.experiment.plan import Plan, experiment_key
from firstspin.experiment.reading.counts import read_counts
from firstspin.experiment.reading.event_log import read_event_log
from firstspin.experiment.rules import Rules
from firstspin.experiment.verdict import Verdict


def read_log(database: Database, plan: Plan, folder: Path) -> Path:
    """Write the experiment's exposures, and the clicks and listens of its users, to Parquet files in a folder."""
    export(database, folder, experiment_key(plan), arms=tuple(plan.arms))
    return folder


def read_delivered(delivered: Path, plan: Plan, folder: Path) -> Path:
    """`read_log` from the files that Kinesis Data Firehose wrote. Raises InputError as `export_delivered`."""
    export_delivered(delivered, folder, experiment_key(plan), arms=tuple(plan.arms))
    return folder


def attribute(log: Path, plan: Plan, *, now: datetime) -> Attributed:
    """Join exposures with the clicks and listens in the plan's windows, as known at `now`: a row per user."""
    return attribute_export(log, plan, until=now)


def analyse_log(log: Path, plan: Plan, *, now: datetime) -> tuple[Attributed, Verdict]:
    """The log of an experiment -> a row per user -> the verdict by the plan's metrics, as known at `now`.

    Raises InputError where the log can't be read or does not fit the plan.
    """
    attributed = attribute(log, plan, now=now)
    return attributed, verdict_on(attributed, plan, now)


def analyse_store(database: Database, plan: Plan, folder: Path, *, now: datetime) -> tuple[Attributed, Verdict]:
    """`analyse_log` of an event store, whose log is written to `folder`."""
    return analyse_log(read_log(database, plan, folder), plan, now=now)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table of outcomes is laid out: the columns of arm, user (`unit`) and day, and the spelling of its values.

    `counts` are the columns of an aggregated table (`read_counts`), `log` those of a table of events, whose users start
    with the event `exposure` (`read_event_log`). Without both there is a row per user, or several with a `unit`.
    """

    arm: str = "arm"
    unit: str | None = None
    day: str | None = None
    counts: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    exposure: str | None = None
    spelling: Spelling = AS_WRITTEN


def read_table(table: Path, rules: Rules, layout: Layout) -> Outcomes:
    """The outcomes in a table (CSV or Parquet). Raises InputError where it can't be read or lacks a column."""
    known, spelling = (rules.control, *rules.weights), layout.spelling
    if layout.counts:
        return read_counts(table, layout.counts, rules.metrics, day=layout.day, spelling=spelling, known_arms=known)
    if layout.log:
        log, shown = layout.log, layout.exposure
        return read_event_log(
            table, log, rules.metrics, arm=layout.arm, exposure=shown, spelling=spelling, known_arms=known
        )
    outcomes = read_outcomes(
        table,
        arm=layout.arm,
        metrics=rules.metrics,
        unit=layout.unit,
        day=layout.day,
        covariates=rules.covariates,
        spelling=spelling,
        known_arms=known,
    )
    refuse_only_yes(outcomes)
    return outcomes


def analyse_table(table: Path, rules: Rules, layout: Layout = Layout(), *, now: datetime) -> Verdict:
    """The verdict on a table of outcomes. Raises InputError as `read_table` and `analyse`."""
    outcomes = read_table(table, rules, layout)
    return analyse(outcomes, replace(rules, metrics=outcomes.metrics), now=now)
