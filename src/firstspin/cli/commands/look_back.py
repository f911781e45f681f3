"""`firstspin experiment look-back`: off-policy evaluation of a policy from an experiment's log."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from firstspin.cli import terminal
from firstspin.cli.options import AsJson, Seed, TableEncoding, new_spelling
from firstspin.cli.stored import Events, EventsSecret, opened_store
from firstspin.events.schema import Secret, read_secret
from firstspin.experiment.plan import Plan, experiment_key, read_plan
from firstspin.files import workspace
from firstspin.records import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from firstspin.data.formats.written_values import Spelling
    from firstspin.experiment.look_back.off_policy import PolicyReport


def look_back(
    plan: Annotated[Path, typer.Option(help="Sealed plan of the experiment.")],
    policy: Annotated[
        Path | None,
        typer.Option(
            help="CSV or Parquet with user_id (or an export's user_key) and the station_id it would have shown."
        ),
    ] = None,
    station: Annotated[str, typer.Option(help="Instead: this station for every user.")] = "",
    arm: Annotated[str, typer.Option(help="Instead: what this arm would have shown to every user.")] = "",
    stations: Annotated[
        Path | None,
        typer.Option(
            help="Stations table, to match by genre instead of station; valid if clicks depend on the genre alone."
        ),
    ] = None,
    exported: Annotated[Path | None, typer.Option(help="Folder of `firstspin events export`.")] = None,
    encoding: TableEncoding = None,
    events: Events = "",
    events_secret: EventsSecret = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Estimate the clicks per user of a policy that was never shown: off-policy evaluation of an experiment's log.

    Gives the clicks per user by inverse propensity, self-normalised and doubly robust estimates, with 95% intervals,
    for the users to whom some arm would have shown the policy's choice.
    """
    from firstspin.experiment.look_back.choices import read_genres
    from firstspin.experiment.look_back.off_policy import PolicyReport, evaluate_policy

    spelling = new_spelling(encoding=encoding)
    _check_one_policy(policy, station, arm)
    sealed = read_plan(plan)
    _check_arm(arm, sealed)
    attributed, secret = _log(sealed, exported, events, events_secret)
    name, chosen = _policy(policy, station, arm, attributed, sealed, secret, spelling)
    estimates, _ = evaluate_policy(
        attributed,
        sealed.arms,
        chosen,
        np.random.default_rng(seed),
        genres=read_genres(stations, spelling) if stations else None,
    )
    report = PolicyReport(experiment_key(sealed), name, estimates)
    if as_json:
        terminal.print_json(report, indent=2)
    else:
        _show(report)
        terminal.next_step("firstspin experiment plan --name NAME --baseline MEAN --registrations-a-day USERS")


def _check_one_policy(*policies: Path | str | None) -> None:
    if sum(map(bool, policies)) != 1:
        raise typer.BadParameter("give one of --policy, --station and --arm")


def _check_arm(arm: str, plan: Plan) -> None:
    if arm and arm not in plan.arms:
        raise InputError(f"{experiment_key(plan)}: there is no arm {arm!r}; its arms are {', '.join(plan.arms)}")


def _policy(
    policy: Path | None,
    station: str,
    arm: str,
    attributed: pa.Table,
    plan: Plan,
    secret: Secret | None,
    spelling: Spelling,
) -> tuple[str, list[str]]:
    """The policy's name, and the station that it would have shown to each user."""
    from firstspin.experiment.look_back.choices import read_choices
    from firstspin.experiment.look_back.off_policy import first_candidates

    if policy:
        return f"policy of {policy.name}", read_choices(policy, attributed, experiment_key(plan), secret, spelling)
    if arm:
        return f"arm {arm}", first_candidates(attributed, arm)
    return f"station {station} for everyone", [station] * attributed.num_rows


def _log(plan: Plan, exported: Path | None, events: str, events_secret: Path | None) -> tuple[pa.Table, Secret | None]:
    """One row per user, and the store's secret where it was given.

    Raises InputError where no user was exposed.
    """
    from firstspin.experiment import run

    now = datetime.now(UTC)
    secret = read_secret(events_secret) if events_secret else None
    if exported:
        users = run.attribute(exported, plan, now=now).table
    elif events:
        with opened_store(events, events_secret) as (database, _), workspace("look-back") as folder:
            users = run.attribute(run.read_log(database, plan, folder), plan, now=now).table
    else:
        raise typer.BadParameter("give --events or --exported")
    if not users.num_rows:
        raise InputError(f"{experiment_key(plan)} has no exposures in the log")
    return users, secret


def _show(report: PolicyReport) -> None:
    from firstspin.cli.output.verdict import estimate_text

    estimates = report.estimates
    terminal.out.print(
        f"{report.experiment}, {report.policy}\n{estimates.support:.0%} of {estimates.users:,} users have support in "
        f"the log; {estimates.matched:,} were shown the policy's choice",
    )
    table = terminal.table("clicks per user, ± half-width of the 95% CI", "estimate", "policy", "difference to shown")
    rows = {
        "inverse propensity": estimates.ips,
        "self-normalised": estimates.self_normalised,
        "doubly robust": estimates.doubly_robust,
    }
    for name, of in rows.items():
        if of is not None:
            table.add_row(name, estimate_text(of.value), estimate_text(of.above_shown))
    table.add_row("shown in the experiment", estimate_text(estimates.shown), "")
    terminal.show(table)
    terminal.out.print()
    for assumption in report.assumptions:
        terminal.out.print(f"- {assumption}")
