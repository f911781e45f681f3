"""`firstspin experiment …`: plan a test, and read its result."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from firstspin.cli import terminal
from firstspin.experiment.analyse import analyse as read_result
from firstspin.experiment.outcomes import read_outcomes
from firstspin.experiment.plan import Plan, checked_plan, experiment_key, freeze, plan_rules, read_plan
from firstspin.experiment.rules import Rules, parse_metric, parse_weights
from firstspin.experiment.sizing import plan_sizing
from firstspin.experiment.verdict import Verdict, verdict_lines
from firstspin.records import InputError

app = typer.Typer(
    name="firstspin experiment",
    help="Plan an A/B test, and read its result.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command("plan")
def plan(
    name: Annotated[str, typer.Option(help="Small letters, digits and hyphens.")],
    baseline: Annotated[float, typer.Option(help="The primary metric's mean without the change, as in 0.05.")],
    registrations_a_day: Annotated[int, typer.Option(help="Newcomers a day.", min=1)],
    minimum_effect: Annotated[float, typer.Option(help="Relative lift worth finding, as in 0.087.")] = 0.087,
    arms: Annotated[str, typer.Option(help="Arms and weights; the first is the control.")] = "rule=1,model=1",
    metric: Annotated[list[str] | None, typer.Option(help="As in `analyse`; the first is the primary one.")] = None,
    deviation: Annotated[float | None, typer.Option(help="Standard deviation, unless the metric is binary.")] = None,
    days: Annotated[int, typer.Option(help="Days it runs; whole weeks are best.", min=1)] = 14,
    starts_on: Annotated[str, typer.Option(help="First day (UTC); tomorrow if not given.")] = "",
    peeking: Annotated[str, typer.Option(help="none, obrien-fleming or always-valid.")] = "none",
    out: Annotated[Path, typer.Option(help="File to write and seal.")] = Path("experiment.toml"),
    as_json: AsJson = False,
) -> None:
    """How many users and days a test needs; then seal it in a file, for a changed plan is a new experiment."""
    weights = parse_weights(arms)
    told = {
        "name": name,
        "starts_on": starts_on or date.fromordinal(datetime.now(UTC).toordinal() + 1).isoformat(),
        "control": next(iter(weights)),
        "arms": weights,
        "metrics": [msgspec.to_builtins(parse_metric(m)) for m in metric or ["clicked:binary"]],
        "registrations_a_day": registrations_a_day,
        "baseline": baseline,
        "minimum_effect": minimum_effect,
        "deviation": deviation,
        "days": days,
        "peeking": peeking,
    }
    try:
        made = checked_plan(msgspec.convert(told, Plan))
    except msgspec.ValidationError as problem:
        raise InputError(f"this is no plan: {problem}") from None
    needed = plan_sizing(made)
    freeze(made, out)
    if as_json:
        _print_json({"experiment": experiment_key(made), "file": str(out), "sizing": msgspec.to_builtins(needed)})
        return
    terminal.out.print(f"{experiment_key(made)} is sealed in {out}", markup=False)
    for field, value in msgspec.structs.asdict(needed).items():
        if isinstance(value, int | float):
            shown = f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
            terminal.out.print(f"  {field.replace('_', ' ')}: {shown}", markup=False)
    if made.days % 7:
        terminal.out.print(f"  {made.days} days are not whole weeks: weekdays will weigh unequally", markup=False)
    terminal.next_step(f"firstspin experiment analyse --outcomes outcomes.csv --arm arm --plan {out}")


@app.command("analyse")
def analyse(
    outcomes: Annotated[Path, typer.Option(help="CSV or Parquet, one row a user (or see --unit).")],
    arm: Annotated[str, typer.Option(help="The column that names the arm.")],
    control: Annotated[str, typer.Option(help="The arm to compare with.")] = "",
    metric: Annotated[
        list[str] | None, typer.Option(help="COLUMN[:binary|continuous|ratio=COLUMN][:cap=pN][:margin=SHARE]; repeat.")
    ] = None,
    unit: Annotated[str | None, typer.Option(help="Column of the user, to sum rows up to one a user.")] = None,
    day: Annotated[str | None, typer.Option(help="Column of the day a user came, for the daily curve.")] = None,
    covariate: Annotated[
        list[str] | None, typer.Option(help="Column known at registration that sharpens the comparison; repeat.")
    ] = None,
    weights: Annotated[str, typer.Option(help="Planned shares of the arms, as in A=1,B=1.")] = "",
    plan: Annotated[Path | None, typer.Option(help="Sealed plan; it says control, metrics and weights.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check the sample ratio, then the lift with its interval; no winner where the check fails."""
    rules = plan_rules(read_plan(plan)) if plan else _rules(control, metric or [], covariate or [], weights)
    read = read_outcomes(outcomes, arm=arm, metrics=rules.metrics, unit=unit, day=day, covariates=rules.covariates)
    verdict = read_result(read, rules, now=datetime.now(UTC))
    if as_json:
        _print_json(msgspec.to_builtins(verdict))
    else:
        _print_verdict(verdict)


def _rules(control: str, metrics: list[str], covariates: list[str], weights: str) -> Rules:
    if not control or not metrics:
        raise typer.BadParameter("--control and --metric are needed where there is no --plan")
    return Rules(
        control=control,
        metrics=tuple(map(parse_metric, metrics)),
        weights=parse_weights(weights) if weights else {},
        covariates=tuple(covariates),
    )


def _print_json(content: object) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(content), indent=2).decode() + "\n")


def _print_verdict(verdict: Verdict) -> None:
    terminal.out.print(verdict.sentence, style="bold", markup=False)
    for warning in verdict.warnings:
        terminal.out.print(f"Mind: {warning}", markup=False)
    for section in verdict_lines(verdict):
        shown = terminal.table(section.title, *section.columns)
        for row in section.rows:
            shown.add_row(*row)
        terminal.out.print()
        terminal.out.print(shown)


def main() -> None:
    """The command line."""
    terminal.run(app)
