"""`firstspin experiment …`: plan a test, read its result, or run one on simulated people."""

from __future__ import annotations

import shlex
import time
from contextlib import ExitStack
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from firstspin.cli import terminal
from firstspin.cli.apps import command, new_app
from firstspin.cli.commands.explore import explore
from firstspin.cli.commands.look_back import look_back
from firstspin.cli.next_steps import next_command
from firstspin.cli.options import AsJson, TableEncoding, new_spelling, split_names
from firstspin.cli.stored import Delivered, Events, EventsSecret, opened_store
from firstspin.data.formats.written_values import DayOrder, Mark
from firstspin.experiment.plan import Plan, checked_plan, experiment_key, freeze, plan_rules, read_plan
from firstspin.experiment.rules import Rules, parse_metric, parse_weights
from firstspin.files import workspace
from firstspin.records import MAX_SEED, InputError, readable

if TYPE_CHECKING:
    from firstspin.experiment.run import Layout
    from firstspin.experiment.verdict import Decision, Verdict

PLAN_NEXT: Final = "firstspin experiment plan --name NAME --baseline MEAN --registrations-a-day USERS"
NEXT_STEPS: Final[dict[Decision, str]] = {
    "winner": "show the winner to everyone; where firstspin serves, without --experiment",
    "control is better": "keep the control; where firstspin serves, without --experiment",
    "no difference shown": f"see what a longer test could show: {PLAN_NEXT}",
    "guardrail not kept": f"keep the control; plan the next test: {PLAN_NEXT}",
    "no decision yet": "analyse again when the planned days and the open windows are over",
    "stop the canary": "keep the control; find the cause, and plan the next canary: a changed challenger is a new one",
    "go on with the canary": "analyse again at any time: looks are free",
    "promote the challenger": "firstspin serve --bundle CHALLENGER",
    "sample ratio mismatch": "find out why arms lost users before any figure is read: compare the logs of assignment",
}

MIN_EFFECT: Final = 0.087
"""The relative effect to detect where none is given."""

LEARNED_FROM: Final = 40_000
"""Simulated people a model learns from where none is given."""

BY_HAND: Final = "stopped by an operator"

SERVED_CANARY: Final = {"challenger": "challenger", "state": "state"}
"""What the service of a canary needs beside that."""

SERVED: Final = {"bundle": "bundle", "events": "sqlite:///events.sqlite", "events-secret": "events.secret"}
"""What the service of an experiment needs beside its plan, where the settings file has no other."""

app = new_app("firstspin experiment", "Plan an A/B test, analyse it, or simulate one.")


def _share(text: object) -> float:
    """A number, or a percentage with its sign. Raises BadParameter for any other text."""
    number, percent, rest = str(text).strip().partition("%")
    try:
        if rest:
            raise ValueError
        return float(number) / (100 if percent else 1)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number; write 0.1 or 10%") from None


@dataclass(frozen=True, slots=True)
class LayoutOptions:
    """How a table of outcomes is laid out and spelled: options of `analyse`."""

    arm: Annotated[str, typer.Option(help="The column that names the arm.")] = "arm"
    unit: Annotated[
        str | None,
        typer.Option(help="Column of the user id, to aggregate rows to one per user."),
    ] = None
    day: Annotated[str | None, typer.Option(help="Column of the day of exposure, for daily results.")] = None
    counts: Annotated[
        str,
        typer.Option(
            help="Columns of a table with a row per arm (and day): arm, users, outcomes.",
            metavar="<arm,users,clicks>",
        ),
    ] = ""
    event_log: Annotated[
        str,
        typer.Option(
            help="Columns of a table with a row per event; a metric is then the name of an event.",
            metavar="<user,event,time,value>",
        ),
    ] = ""
    exposure: Annotated[
        str | None,
        typer.Option(help="The event of --event-log that each user starts with."),
    ] = None
    decimal: Annotated[Mark | None, typer.Option(help="What 1,234 or 1.234 is where its column leaves it open.")] = None
    dates: Annotated[
        DayOrder | None,
        typer.Option(help="What 01/02/2026 is where its column leaves it open."),
    ] = None
    encoding: TableEncoding = None

    def layout(self) -> Layout:
        """The layout. Raises BadParameter for options that exclude each other."""
        from firstspin.experiment.run import Layout

        if self.counts and (self.event_log or self.unit):
            raise typer.BadParameter("counts have no users: leave out --unit and --event-log", param_hint="--counts")
        if self.exposure and not self.event_log:
            raise typer.BadParameter("an event of --event-log, which is missing", param_hint="--exposure")
        log = split_names(self.event_log)
        spelling = new_spelling(decimal=self.decimal, dates=self.dates, encoding=self.encoding)
        return Layout(self.arm, self.unit, self.day, split_names(self.counts), log, self.exposure, spelling)


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What a plan fixes beside its name, baseline and registrations: options of `plan`."""

    minimum_effect: Annotated[
        float | None,
        typer.Option(
            help="Minimum detectable effect, relative; 8.7% if not given, of a canary its --harm-margin.",
            parser=_share,
            metavar="<float>",
        ),
    ] = None
    harm_margin: Annotated[
        float | None,
        typer.Option(
            help="Makes a canary: a relative loss of its second arm above this, as in 5%, stops it.",
            parser=_share,
            metavar="<float>",
        ),
    ] = None
    arms: Annotated[
        str, typer.Option(help="Arms and weights; the first is the control.", metavar="<arm=weight,...>")
    ] = "rule=1,model=1"
    metric: Annotated[list[str] | None, typer.Option(help="As in `analyse`; the first is the primary metric.")] = None
    deviation: Annotated[float | None, typer.Option(help="Standard deviation, unless the metric is binary.")] = None
    days: Annotated[int, typer.Option(help="Duration in days; preferably whole weeks.", min=1)] = 14
    starts_on: Annotated[str, typer.Option(help="First day (UTC); tomorrow if not given.")] = ""
    peeking: Annotated[
        str | None,
        typer.Option(help="Interim analyses: none (the default), obrien-fleming, or always-valid (of a canary)."),
    ] = None
    name_arm: Annotated[
        bool, typer.Option("--name-arm", help="Answers name the experiment and the arm, so clients are not blind.")
    ] = False

    def plan(self, **needed: object) -> Plan:
        """The plan with these fields and the `needed` ones. Raises InputError or BadParameter where one is invalid."""
        weights = parse_weights(self.arms)
        fields = {one.name: getattr(self, one.name) for one in dataclass_fields(self)} | {
            "starts_on": _first_day(self.starts_on),
            "control": next(iter(weights)),
            "arms": weights,
            "metrics": [msgspec.to_builtins(parse_metric(m)) for m in self.metric or ["clicked:binary"]],
        }
        del fields["metric"]
        if self.minimum_effect is None:
            fields["minimum_effect"] = MIN_EFFECT if self.harm_margin is None else self.harm_margin
        fields["peeking"] = self.peeking or ("none" if self.harm_margin is None else "always-valid")
        try:
            return checked_plan(msgspec.convert(fields | needed, Plan))
        except msgspec.ValidationError as problem:
            raise InputError(f"invalid plan: {problem}") from None


@command(
    app, "plan", example=("firstspin experiment plan --name first-message --baseline 0.05 --registrations-a-day 30000")
)
def plan(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="Lower-case letters, digits and hyphens.")],
    baseline: Annotated[
        float,
        typer.Option(
            help="The primary metric's mean without the change, as in 0.05 or 5%.", parser=_share, metavar="<float>"
        ),
    ],
    registrations_a_day: Annotated[int, typer.Option(help="Expected registrations per day.", min=1)],
    options: PlanOptions,
    out: Annotated[Path, typer.Option(help="File to write and seal (.toml).")] = Path("experiment.toml"),
    as_json: AsJson = False,
) -> None:
    """Compute the users and days that a test needs, and seal its plan in a file."""
    from firstspin import preflight
    from firstspin.cli.output.verdict import show_sizing
    from firstspin.experiment.plan_warnings import plan_warnings
    from firstspin.experiment.stats.sizing import plan_sizing
    from firstspin.serving.experiment import is_served, running

    preflight.file(out, suffixes=(".toml",))
    made = options.plan(name=name, baseline=baseline, registrations_a_day=registrations_a_day)
    needed = plan_sizing(made)
    unserved = [arm for arm in made.arms if not is_served(arm)]
    if not unserved:
        running(made)
    doubts = list(plan_warnings(made, needed, today=datetime.now(UTC).date(), unserved=unserved))
    freeze(made, out)
    if as_json:
        sealed = {"experiment": experiment_key(made), "file": str(out), "warnings": doubts, "sizing": needed}
        terminal.print_json(sealed, indent=2)
        return
    terminal.out.print(f"{experiment_key(made)} is sealed in {out}", markup=False)
    show_sizing(made, needed)
    for doubt in doubts:
        terminal.out.print(f"Warning: {doubt}", markup=False, soft_wrap=True)
    if doubts:
        terminal.out.print(f"A sealed plan is not edited: to change it, delete {out} and plan again.", markup=False)
    if unserved:
        terminal.next_step(f"firstspin experiment analyse --plan {shlex.quote(str(out))} --outcomes FILE --day COLUMN")
        return
    suggested = SERVED if made.harm_margin is None else SERVED | SERVED_CANARY
    terminal.next_step(next_command(context, "serve", experiment=out, suggested=suggested))


@dataclass(frozen=True, slots=True)
class RuleOptions:
    """The rules of an analysis, unless they are those of a plan: options of `analyse`."""

    control: Annotated[str, typer.Option(help="The arm to compare with.")] = ""
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Column:kind, as clicked:binary, spend:continuous, clicks:ratio=views; "
            ":cap=p99, :margin=5%, :blank=no; repeat."
        ),
    ] = None
    covariate: Annotated[
        list[str] | None, typer.Option(help="Column known at registration, for variance reduction; repeat.")
    ] = None
    weights: Annotated[
        str, typer.Option(help="Planned shares of the arms, as in A=1,B=1.", metavar="<arm=weight,...>")
    ] = ""

    def rules(self, *, counted: bool) -> Rules:
        """The rules. Raises BadParameter without a control, or without a metric that is not `counted` either."""
        if not self.control:
            raise typer.BadParameter(
                "the arm to compare with is needed where there is no --plan", param_hint="--control"
            )
        if not self.metric and not counted:
            raise typer.BadParameter("needed without --plan and --counts", param_hint="--metric")
        return Rules(
            control=self.control,
            metrics=tuple(map(parse_metric, self.metric or [])),
            weights=parse_weights(self.weights) if self.weights else {},
            covariates=tuple(self.covariate or []),
        )


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Where a plan's exposures and events are: options of `analyse`."""

    exported: Annotated[Path | None, typer.Option(help="Folder of `firstspin events export`, for --plan.")] = None
    delivered: Delivered = None
    events: Events = ""
    events_secret: EventsSecret = None

    def verdict(self, plan: Plan, *, now: datetime) -> Verdict | None:
        """The verdict on the plan's log; None where no log is named."""
        from firstspin.experiment import run

        if self.exported:
            return run.analyse_log(self.exported, plan, now=now)[1]
        with workspace("analyse") as folder:
            if self.delivered:
                return run.analyse_log(run.read_delivered(self.delivered, plan, folder), plan, now=now)[1]
            if self.events:
                with opened_store(self.events, self.events_secret) as (database, _):
                    return run.analyse_store(database, plan, folder, now=now)[1]
        return None


@command(
    app,
    "analyse",
    example="firstspin experiment analyse --outcomes outcomes.csv --control rule --metric clicked:binary",
)
def analyse(
    table: LayoutOptions,
    given: RuleOptions,
    log: LogOptions,
    outcomes: Annotated[Path | None, typer.Option(help="CSV or Parquet, one row per user (or see --unit).")] = None,
    plan: Annotated[Path | None, typer.Option(help="Sealed plan, with control, metrics and weights.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check the sample ratio, then estimate the lift with its interval; no winner where the check fails.

    Reads a table (--outcomes), or a plan's users from the event store (--plan and --events), from its export, or from
    the files of Firehose (--delivered).
    """
    from firstspin.cli.output.verdict import show
    from firstspin.experiment import run

    now, layout = datetime.now(UTC), table.layout()
    planned = read_plan(plan) if plan else None
    rules = plan_rules(planned) if planned else given.rules(counted=bool(layout.counts))
    with terminal.progress("analysis") as step:
        step("reading", 0.1)
        verdict: Verdict | None
        if outcomes:
            verdict = run.analyse_table(outcomes, rules, layout, now=now)
        else:
            verdict = log.verdict(planned, now=now) if planned else None
    if verdict is None:
        raise typer.BadParameter("give --outcomes, or --plan with --events, --exported or --delivered")
    if as_json:
        terminal.print_json(verdict, indent=2)
        return
    show(verdict)
    terminal.next_step(NEXT_STEPS[verdict.decision])


@command(app, "stop", example="firstspin experiment stop --plan experiment.toml --state state")
def stop(
    plan: Annotated[Path, typer.Option(help="Sealed plan of the canary.")],
    state: Annotated[Path, typer.Option(help="Folder of `firstspin serve --state`; the service may run.")],
    reason: Annotated[str, typer.Option(help="Why, as /ops and `state` show it.")] = BY_HAND,
) -> None:
    """Stop a canary for good: the bundle in service answers all users, within a second and after restarts."""
    from firstspin.service.bundles.store import CURRENT
    from firstspin.service.challenger import canary
    from firstspin.serving.experiment import running

    if not (state / CURRENT).is_file():
        raise InputError(f"{state} is not the folder of `firstspin serve --state`: it has no {CURRENT}")
    experiment = running(read_plan(plan))
    if not experiment.is_canary:
        raise InputError(f"{plan} is no canary: no arm is named challenger; start the service without --experiment")
    if not canary.challenger_copies(state, experiment.key).is_dir():
        raise InputError(f"the service of {state} has not begun {experiment.key}: start it with --experiment {plan}")
    stopped = canary.stop(
        canary.stop_file(state, experiment.key), readable(reason).strip() or BY_HAND, datetime.now(UTC)
    )
    since = f" since {stopped.at:%Y-%m-%d %H:%M} UTC" if stopped.at else ""
    terminal.out.print(f"{stopped.experiment} is stopped{since}: {stopped.reason}")
    terminal.next_step("restart the service without --experiment and --challenger when it suits")


command(
    app, "look-back", example=("firstspin experiment look-back --plan experiment.toml --exported exported --arm rule")
)(look_back)

command(app, "explore", example="firstspin experiment explore --users-a-day 2000 --seed 1")(explore)


@command(app, "simulate", example="firstspin experiment simulate --users 20000 --days 7 --out simulated")
def simulate(
    users: Annotated[int, typer.Option(help="Number of simulated users.", min=1)] = 100_000,
    days: Annotated[int, typer.Option(help="Number of simulated days.", min=1, max=60)] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the simulated service and its users.", min=0, max=MAX_SEED)] = 0,
    aa: Annotated[bool, typer.Option("--aa", help="A/A test: both arms show the same.")] = False,
    bundle: Annotated[
        Path | None, typer.Option(help="Bundle trained on `firstspin world --seed SEED`; default: train one first.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Worker processes of the service.", min=1, max=64)] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder for plan, store and outcomes.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run an A/B test of model against rule on simulated users through the real service, beside the ground truth."""
    from firstspin import learn
    from firstspin.cli.output.verdict import show_simulated
    from firstspin.simulation import run as simulation
    from firstspin.simulation.world import write_world

    if out:
        simulation.check_folder(out)
    with ExitStack() as opened:
        folder = out or opened.enter_context(workspace("simulate"))
        progress = opened.enter_context(terminal.progress("simulation"))
        if bundle is None:
            bundle = folder / "bundle"
            write_world(folder / "world", LEARNED_FROM, seed, progress)
            learn.train(folder / "world", bundle, progress=progress)
        setting = simulation.Setting(users=users, days=days, seed=seed, alike=aa, workers=workers)
        simulated = simulation.simulate(bundle, setting, folder, now=time.perf_counter_ns, progress=progress)
    if as_json:
        terminal.print_json(simulated, indent=2)
        return
    show_simulated(simulated)
    if out:
        files = shlex.join(["--exported", str(out), "--plan", str(out / "experiment.toml")])
        terminal.next_step(f"firstspin experiment analyse {files}")


def _first_day(text: str) -> date:
    """The first day of a plan, by default tomorrow. Raises BadParameter where the text is no date."""
    if not text:
        return date.fromordinal(datetime.now(UTC).toordinal() + 1)
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a date such as 2026-02-05", param_hint="--starts-on") from None
