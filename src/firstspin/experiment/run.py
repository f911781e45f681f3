"""The experiment story, one function a stage. READ FIRST, with `learn.py` and `answer.py`.

    event store -read_log-> exposures, clicks and listens -attribute-> a row per user -analyse-> verdict

On AWS the log comes from the files that Kinesis Data Firehose wrote (`read_delivered`).
The command line and the simulation both run an experiment through these functions. A folder with the log is what
`firstspin events export` writes.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from firstspin.events.database import Database
from firstspin.events.delivered import export_delivered
from firstspin.events.export import export
from firstspin.experiment.analyse import analyse
from firstspin.experiment.attribution import Attributed, attribute_export, planned_outcomes
from firstspin.experiment.outcomes import read_outcomes
from firstspin.experiment.plan import Plan, experiment_key, plan_rules
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
    return attributed, analyse(planned_outcomes(attributed, plan), plan_rules(plan), now=now)


def analyse_store(database: Database, plan: Plan, folder: Path, *, now: datetime) -> tuple[Attributed, Verdict]:
    """`analyse_log` of an event store, whose log is written to `folder`."""
    return analyse_log(read_log(database, plan, folder), plan, now=now)


def analyse_table(
    table: Path, rules: Rules, *, arm: str = "arm", unit: str | None = None, day: str | None = None, now: datetime
) -> Verdict:
    """The verdict on a table of outcomes (CSV or Parquet) with a row per user, or several where `unit` names the user.

    Raises InputError where the table can't be read or does not have the columns of the rules.
    """
    outcomes = read_outcomes(table, arm=arm, metrics=rules.metrics, unit=unit, day=day, covariates=rules.covariates)
    return analyse(outcomes, rules, now=now)
