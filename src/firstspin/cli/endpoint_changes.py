"""A change of an endpoint on the command line: its options, its plan as text or JSON, and the wait for its end."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Final

import typer

from firstspin.aws import deployment, rollout
from firstspin.aws.autoscaling import await_scaling
from firstspin.aws.clients import Account
from firstspin.aws.endpoint import EndpointState, serving
from firstspin.cli import terminal
from firstspin.evaluation.promotion import PromotionVerdict
from firstspin.records import InputError

SCALING_SECONDS: Final = 3600

Endpoint = Annotated[str, typer.Option(help="Name of the endpoint.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan, and change nothing.")]


@dataclass(frozen=True, slots=True)
class AlarmOptions:
    """What takes an update back: options of every command that changes an endpoint."""

    alarm: Annotated[list[str] | None, typer.Option(help="CloudWatch alarm that rolls the update back; repeat.")] = None

    def rollout(self, usual: deployment.Rollout) -> deployment.Rollout:
        """The usual roll-out with these alarms."""
        return replace(usual, alarms=tuple(self.alarm or ()))


@dataclass(frozen=True, slots=True)
class ReleaseAlarms(AlarmOptions):
    """Alarms of a command that gives instances another bundle, which must be chosen or declined."""

    no_alarm: Annotated[bool, typer.Option("--no-alarm", help="Update without alarms; nothing rolls it back.")] = False

    def must_be_chosen(self) -> None:
        """Raises BadParameter where neither alarms nor --no-alarm are given, or both."""
        if bool(self.alarm) == self.no_alarm:
            raise typer.BadParameter("--alarm NAME is needed, so that a bad release rolls back, or else --no-alarm")


@dataclass(frozen=True, slots=True)
class RolloutOptions:
    """How many instances change at a time, and how long they are watched."""

    canary: Annotated[
        int | None, typer.Option(help=f"Instances that change first ({deployment.CANARY}); 0: all at once.", min=0)
    ] = None
    bake: Annotated[
        int | None,
        typer.Option(
            help=f"Bake time in seconds ({deployment.BAKE_SECONDS}; a rollback {deployment.BACK.bake}).",
            min=0,
            max=deployment.MAX_BAKE_SECONDS,
        ),
    ] = None
    rolling: Annotated[
        bool, typer.Option("--rolling", help="Update in batches, not blue/green, which needs twice the instance quota.")
    ] = False

    def rollout(self, usual: deployment.Rollout) -> deployment.Rollout:
        """The usual roll-out with the options given."""
        given = {"canary": self.canary, "bake": self.bake}
        changed = {name: of for name, of in given.items() if of is not None}
        return replace(usual, rolling=self.rolling, **changed)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class ChangeOptions:
    """How a plan is carried out: options of every command that changes an endpoint. Times in seconds."""

    deadline: Annotated[
        float | None,
        typer.Option(help="Seconds to wait for the endpoint; else until SageMaker itself ends the update.", min=0),
    ] = None
    poll: Annotated[float, typer.Option(help="Polling interval in seconds.", min=0)] = 15
    dry_run: DryRun = False
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False

    def patience(self, usual: float) -> dict[str, Any]:
        """The arguments of a wait; `usual` is the deadline unless one is given."""
        deadline = usual if self.deadline is None else self.deadline
        return {"clock": time.monotonic, "sleep": time.sleep, "deadline": deadline, "every": self.poll}


def existing(account: Account, endpoint: str) -> EndpointState:
    """The state of an endpoint. Raises InputError where there is none."""
    now = serving(account, endpoint)
    if now is None:
        raise InputError(f"there is no endpoint {endpoint}; `firstspin sagemaker deploy` makes one")
    return now


def settled(account: Account, endpoint: str, options: ChangeOptions) -> EndpointState:
    """The endpoint, once autoscaling has changed its number of instances. Raises InputError where there is none."""
    existing(account, endpoint)
    scaled(account, endpoint, options)
    return existing(account, endpoint)


def scaled(account: Account, endpoint: str, options: ChangeOptions) -> None:
    """Wait while autoscaling changes the number of instances. Raises InputError after the deadline."""
    await_scaling(account, endpoint, tell, **options.patience(SCALING_SECONDS))


def carry_out(
    account: Account,
    plan: rollout.ReleasePlan,
    options: ChangeOptions,
    bundle: str = "",
    gate: PromotionVerdict | None = None,
) -> None:
    """Print a plan, carry it out unless the run is dry, and wait for its end. Raises InputError where it fails."""
    print_plan(plan, options, bundle, gate)
    if options.dry_run:
        if not options.as_json:
            terminal.next_step("the same without --dry-run")
        return
    rollout.carry_out(plan, tell, pause=partial(scaled, account, plan.endpoint, options))
    rollout.wait(account, plan, tell, **options.patience(plan.seconds))
    rollout.finish(plan, tell)
    if not options.as_json:
        terminal.next_step(
            f"firstspin sagemaker rollback --endpoint {plan.endpoint}, if its alarms or figures get worse"
        )


def print_plan(plan: rollout.ReleasePlan, options: ChangeOptions, bundle: str, gate: PromotionVerdict | None) -> None:
    """Print the plan as JSON with --json, or else the steps of a dry run."""
    changes = [f"{step.what} {step.name}" for step in plan.all if not step.there]
    if options.as_json:
        summary: dict[str, object] = {"endpoint": plan.endpoint, "configuration": plan.configuration}
        terminal.print_json(summary | {"bundle": bundle, "changes": changes, "dry_run": options.dry_run, "gate": gate})
    elif options.dry_run or not changes:
        for step in plan.all:
            terminal.out.print(f"{'there' if step.there else 'to do'}  {step.what} {step.name}")
        if not changes:
            terminal.out.print(f"endpoint {plan.endpoint}: nothing to do")


def tell(line: str) -> None:
    """Print a step of the change on stderr."""
    terminal.err.print(line)
