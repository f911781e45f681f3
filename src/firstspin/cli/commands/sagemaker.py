"""`firstspin sagemaker …`: see whether a container keeps the contract, and ship a bundle."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from firstspin import preflight
from firstspin.aws import deployment, hosting, rollout
from firstspin.aws.autoscaling import await_scaling, missing_target
from firstspin.aws.clients import Account, open_account
from firstspin.aws.endpoint import EndpointState, served_archive, serving
from firstspin.aws.gate import GateVerdict, judge, must_accept
from firstspin.aws.package import ARCHIVE, Packed, read_manifest, unpack, zipped_manifest
from firstspin.aws.package import package as pack
from firstspin.aws.pruning import delete, old_releases
from firstspin.cli import terminal
from firstspin.cli.apps import command, new_app
from firstspin.cli.commands.load_test import load_test
from firstspin.cli.options import AsJson, BundlePath
from firstspin.evaluation.metrics import RankingMetric
from firstspin.files import workspace
from firstspin.records import InputError
from firstspin.serving.bundle import Manifest, load
from firstspin.tools.sagemaker_check import payloads as bodies
from firstspin.tools.sagemaker_check import report
from firstspin.tools.sagemaker_check import run as contract
from firstspin.tools.sagemaker_check.payloads import REGISTRATIONS, Payloads
from firstspin.tools.sagemaker_check.player import Target

app = new_app("firstspin sagemaker", "Check a container against SageMaker's contract; deploy a bundle to an endpoint.")

Endpoint = Annotated[str, typer.Option(help="Name of the endpoint.")]
Alarms = Annotated[list[str] | None, typer.Option(help="CloudWatch alarm that rolls the update back; repeat.")]
NoAlarm = Annotated[bool, typer.Option("--no-alarm", help="Update without alarms; nothing rolls it back.")]
Canary = Annotated[
    int | None, typer.Option(help=f"Instances that change first ({deployment.CANARY}); 0: all at once.", min=0)
]
Rolling = Annotated[
    bool, typer.Option("--rolling", help="Update in batches, not blue/green, which needs twice the instance quota.")
]
Bake = Annotated[
    int | None,
    typer.Option(
        help=f"Bake time in seconds ({deployment.BAKE_SECONDS}; a rollback {deployment.BACK.bake}).",
        min=0,
        max=deployment.MAX_BAKE_SECONDS,
    ),
]
Deadline = Annotated[
    float | None,
    typer.Option(help="Seconds to wait for the endpoint; else until SageMaker itself ends the update.", min=0),
]
SCALING_SECONDS = 3600
Poll = Annotated[float, typer.Option(help="Polling interval in seconds.", min=0)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan, and change nothing.")]


@command(app, "check", example="firstspin sagemaker check --url http://127.0.0.1:8080")
def check(
    command: Annotated[
        str, typer.Option(help="Command that starts the container; {root}, {env} and {name} as above.")
    ] = "",
    url: Annotated[str, typer.Option(help="Instead: URL of a running server, as in http://127.0.0.1:8080.")] = "",
    train: Annotated[Path | None, typer.Option(help="Folder for the channel `training`.")] = None,
    channel: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER for a channel of another name; repeat.")
    ] = None,
    hyperparameter: Annotated[list[str] | None, typer.Option(help="NAME=VALUE for the training job; repeat.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder or tar.gz to serve; default: the output of the training job.")
    ] = None,
    inspected: Annotated[
        Path | None, typer.Option("--inspect", help="Output of `docker image inspect IMAGE`, as a file.")
    ] = None,
    payload: Annotated[list[Path] | None, typer.Option(help="File with a valid request body; repeat.")] = None,
    content_type: Annotated[list[str] | None, typer.Option(help="The content type of each payload, in order.")] = None,
    port: Annotated[int, typer.Option(help="Default port of the container.", min=1, max=65535)] = 8080,
    as_json: AsJson = False,
) -> None:
    """Simulate SageMaker against a container: test every fact of its contract that is testable without AWS.

    Placeholders for a container engine: {root} is the folder for /opt/ml, {env} a file of environment variables, {name}
    the name by which a container that ignores SIGTERM is removed:
    docker run --rm --name {name} --network host -v {root}:/opt/ml --env-file {env} IMAGE

    The exit status is 1 where a required or expected fact is missed.
    """
    target = Target(
        _words(command, url),
        url,
        environment=os.environ,
        model=model,
        channels=_channels(train, channel or []),
        hyperparameters=_pairs(hyperparameter or []),
        port=port,
        inspected=inspected,
    )
    payloads = _payloads(payload or [], content_type or [])
    with terminal.progress("check") as progress:
        results = contract.check(target, payloads=payloads, progress=lambda line: progress(line, 0.0))
    sys.stdout.write(report.as_json(results).decode() + "\n" if as_json else report.as_text(results) + "\n")
    if not as_json:
        passed = report.exit_status(results) == 0
        endpoint = f"firstspin sagemaker load-test --url {url or 'URL'}"
        terminal.next_step(endpoint if passed else "mend what is missed, and run this again")
    if results.left:
        _tell(f"{results.left} was not removed: the container wrote files there that this user can't remove")
    sys.exit(report.exit_status(results))


command(app, "load-test", example="firstspin sagemaker load-test --url http://127.0.0.1:8080 --p99 50")(load_test)


@command(app, "package", example="firstspin sagemaker package --bundle bundle --out model.tar.gz")
def package(
    bundle: BundlePath,
    out: Annotated[Path, typer.Option(help="Archive to write (.tar.gz or .tgz).")] = Path(ARCHIVE),
    as_json: AsJson = False,
) -> None:
    """Write a bundle as SageMaker's model.tar.gz; the same bundle gives the same bytes."""
    preflight.file(out, suffixes=(".tar.gz", ".tgz"))
    packed = pack(bundle, out)
    if as_json:
        summary = {"file": str(out), "bundle": packed.id, "sha256": packed.sha256, "bytes": packed.bytes}
        terminal.print_json(summary)
        return
    terminal.out.print(f"Bundle {packed.id} is in {out}: {packed.bytes:,} bytes")
    terminal.next_step(
        f"firstspin sagemaker deploy --bundle {shlex.quote(str(bundle))} --endpoint NAME --bucket BUCKET "
        "--image IMAGE --role ARN"
    )


@command(
    app,
    "deploy",
    example=(
        "firstspin sagemaker deploy --bundle bundle --endpoint newcomers --bucket models --image IMAGE --role "
        "ARN --dry-run"
    ),
)
def deploy(
    bundle: BundlePath,
    endpoint: Endpoint,
    bucket: Annotated[str, typer.Option(help="S3 bucket for the archive.")],
    image: Annotated[str, typer.Option(help="Container image in ECR.")],
    role: Annotated[str, typer.Option(help="ARN of the endpoint's execution role.")],
    prefix: Annotated[str, typer.Option(help="Prefix of the archive's key.")] = "firstspin",
    instance_type: Annotated[str, typer.Option(help="Instance type.")] = hosting.INSTANCE_TYPE,
    instances: Annotated[int, typer.Option(help="Initial number of instances.", min=1)] = hosting.INSTANCES,
    variable: Annotated[list[str] | None, typer.Option(help="NAME=VALUE for the container; repeat.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, a tag of all that is created; repeat.")] = None,
    key: Annotated[str, typer.Option(help="ARN of a KMS key for the volumes of the instances.")] = "",
    serverless: Annotated[
        int, typer.Option(help="MB of memory of serverless inference, instead of instances: 1024 to 6144.", min=0)
    ] = 0,
    concurrency: Annotated[int, typer.Option(help="Max requests at once of serverless inference.", min=1)] = 20,
    capture: Annotated[str, typer.Option(help="S3 URL to which requests and responses are captured.")] = "",
    capture_percent: Annotated[int, typer.Option(help="Percent of the requests to capture.", min=0, max=100)] = 100,
    alarm: Alarms = None,
    canary: Canary = None,
    bake: Bake = None,
    rolling: Rolling = False,
    deadline: Deadline = None,
    poll: Poll = 15,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Create or update an endpoint with a bundle, without the promotion gate."""
    hosts = hosting.Hosting(
        image,
        role,
        instance_type,
        instances,
        _pairs(variable or []),
        tags=_pairs(tag or []),
        key=key,
        memory_mb=serverless,
        concurrency=concurrency,
        capture=capture,
        capture_percent=capture_percent,
    )
    settings = _rollout(deployment.Rollout(), alarm, canary, bake, rolling)
    account = open_account()
    if serving(account, endpoint):
        _await_scaling(account, endpoint, deadline, poll)
    with _packed(bundle) as packed:
        plan = rollout.plan_deploy(account, endpoint, packed, (bucket, prefix), hosts, settings)
        _carry_out(account, plan, _RunOptions(packed.id, deadline, poll, dry_run, as_json))
    if not dry_run and (note := missing_target(account, _serving(account, endpoint))):
        _tell(note)


@command(
    app,
    "promote",
    example="firstspin sagemaker promote --bundle bundle --endpoint newcomers --alarm newcomers-endpoint-5xx --dry-run",
)
def promote(
    bundle: BundlePath,
    endpoint: Endpoint,
    metric: Annotated[
        RankingMetric, typer.Option(help="Metric of the scorecards that the gate compares.")
    ] = RankingMetric.HIT_3,
    force: Annotated[str, typer.Option(help="Reason to override the gate, stored as a tag.")] = "",
    lambda_zip: Annotated[
        Path | None, typer.Option("--zip", help="The Lambda's zip, whose extra fields the bundle must have.")
    ] = None,
    package_group: Annotated[str, typer.Option(help="Model package group to register the bundle in.")] = "",
    other_fields: Annotated[
        bool, typer.Option("--other-fields", help="Promote a bundle with other extra fields than the zip's.")
    ] = False,
    alarm: Alarms = None,
    no_alarm: NoAlarm = False,
    canary: Canary = None,
    bake: Bake = None,
    rolling: Rolling = False,
    deadline: Deadline = None,
    poll: Poll = 15,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Update an endpoint to a bundle, if its scorecard beats that of the bundle in service (promotion gate).

    The rest of the endpoint's configuration stays. With --json, `gate` has the comparison; a refusal is printed too,
    with exit status 1. Each alarm on the endpoint is copied to watch the new instances alone.
    """
    _must_choose_alarms(alarm, no_alarm)
    settings = _rollout(deployment.Rollout(), alarm, canary, bake, rolling)
    account = open_account()
    now = _settled(account, endpoint, deadline, poll)
    with _packed(bundle) as packed:
        plan = rollout.plan_promote(account, now, packed, settings, force, package_group)
        options = _RunOptions(packed.id, deadline, poll, dry_run, as_json)
        is_new = plan.changes and not now.serves(packed.name)
        if is_new and not other_fields:
            without = "--zip names the Lambda's zip, and --other-fields promotes without a comparison of extra fields"
            accepted = zipped_manifest(lambda_zip) if lambda_zip else _served_manifest(account, now, without)
            must_accept(accepted, load(bundle).manifest, str(lambda_zip or "the bundle in service"))
        if is_new and force:
            _tell(f"the gate is skipped: {force}")
        elif is_new:
            beaten = _served_manifest(account, now, "--force REASON promotes without the gate")
            options = replace(options, gate=judge(load(bundle).manifest, beaten, metric))
            _refuse_what_fails(plan, options)
        _carry_out(account, plan, options)


@command(
    app,
    "shadow",
    example=(
        "firstspin sagemaker shadow --bundle bundle --endpoint newcomers --percent 10 --alarm newcomers-endpoint-5xx "
        "--dry-run"
    ),
)
def shadow(
    bundle: BundlePath,
    endpoint: Endpoint,
    percent: Annotated[int, typer.Option(help="Percent of the requests to copy.", min=1, max=100)] = 100,
    instances: Annotated[int, typer.Option(help="Instances of the shadow variant.", min=1)] = 1,
    alarm: Alarms = None,
    no_alarm: NoAlarm = False,
    deadline: Deadline = None,
    poll: Poll = 15,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Send a copy of the requests to a bundle whose answers go nowhere (shadow variant): its latency and errors show.

    The update replaces the instances in service too, so it needs alarms or --no-alarm as a promotion does. A rollback,
    or the next promotion, also of the bundle in service, ends it.
    """
    _must_choose_alarms(alarm, no_alarm)
    settings = deployment.Rollout(tuple(alarm or ()))
    account = open_account()
    now = _settled(account, endpoint, deadline, poll)
    with _packed(bundle) as packed:
        plan = rollout.plan_shadow(account, now, packed, settings, percent, instances)
        _carry_out(account, plan, _RunOptions(packed.id, deadline, poll, dry_run, as_json))


@command(app, "rollback", example="firstspin sagemaker rollback --endpoint newcomers --dry-run")
def rollback(
    endpoint: Endpoint,
    alarm: Alarms = None,
    canary: Canary = None,
    bake: Bake = None,
    rolling: Rolling = False,
    deadline: Deadline = None,
    poll: Poll = 15,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Roll an endpoint back to its previous configuration; a second rollback returns to the current one.

    All instances change at once, unless --canary or --rolling is given.
    """
    first = deployment.CANARY if rolling and canary is None else canary
    settings = _rollout(deployment.BACK, alarm, first, bake, rolling)
    account = open_account()
    plan = rollout.plan_rollback(account, _settled(account, endpoint, deadline, poll), settings)
    _carry_out(account, plan, _RunOptions("", deadline, poll, dry_run, as_json))


@command(app, "fetch", example="firstspin sagemaker fetch --endpoint newcomers --out served")
def fetch(
    endpoint: Endpoint,
    out: Annotated[Path, typer.Option(help="Folder to write; a bundle already there is replaced.")],
    as_json: AsJson = False,
) -> None:
    """Download the bundle that an endpoint serves."""
    account = open_account()
    now = _serving(account, endpoint)
    name = unpack(served_archive(account, now), now.archive, out)
    if as_json:
        terminal.print_json({"bundle": name, "folder": str(out), "from": now.archive})
        return
    terminal.out.print(f"endpoint {endpoint} serves bundle {name}, now in {out}")
    terminal.next_step(f"firstspin evaluate --data DIR --bundle {shlex.quote(str(out))}")


@command(app, "prune", example="firstspin sagemaker prune --endpoint newcomers --keep 5 --dry-run")
def prune(
    endpoint: Endpoint,
    keep: Annotated[int, typer.Option(help="Releases to keep beside those in service and to go back to.", min=0)] = 5,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Delete an endpoint's old configurations, models and archives; what is in service or shared stays."""
    account = open_account()
    releases = old_releases(account, _serving(account, endpoint), keep)
    names = [name for release in releases for name in release.names]
    if not dry_run:
        delete(account, releases, _tell)
    if as_json:
        terminal.print_json({"endpoint": endpoint, "deleted": names, "dry_run": dry_run})
    elif dry_run or not names:
        terminal.out.print("\n".join(f"to delete  {name}" for name in names) or f"endpoint {endpoint}: nothing to do")
    if dry_run and not as_json:
        terminal.next_step("the same without --dry-run")


@dataclass(frozen=True, slots=True)
class _RunOptions:
    """Options of carrying out a plan; times in seconds. `gate` is the verdict before a promotion."""

    bundle: str
    deadline: float | None
    poll: float
    dry_run: bool
    as_json: bool
    gate: GateVerdict | None = None


def _served_manifest(account: Account, now: EndpointState, without: str) -> Manifest:
    """The manifest in service. Raises InputError where it can't be read, with the option that does `without` it."""
    try:
        return read_manifest(served_archive(account, now), now.archive)
    except InputError as problem:
        raise InputError(f"{problem}; {without}") from None


def _refuse_what_fails(plan: rollout.ReleasePlan, options: _RunOptions) -> None:
    """Raises InputError where the bundle does not pass the gate, after the report that --json asks for."""
    verdict = options.gate
    assert verdict is not None
    if not verdict.passes:
        if options.as_json:
            _print_plan(replace(plan, steps=(), after=()), options)
        raise InputError(f"bundle {options.bundle} is not promoted: {verdict.why} (--force REASON promotes it)")
    _tell(f"bundle {options.bundle} passes the gate: {verdict.why}")


def _print_plan(plan: rollout.ReleasePlan, options: _RunOptions) -> None:
    """Print the plan as JSON with --json, or else the steps of a dry run."""
    changes = [f"{step.what} {step.name}" for step in plan.all if not step.there]
    if options.as_json:
        summary: dict[str, object] = {"endpoint": plan.endpoint, "configuration": plan.configuration}
        summary |= {"bundle": options.bundle, "changes": changes, "dry_run": options.dry_run, "gate": options.gate}
        terminal.print_json(summary)
    elif options.dry_run or not changes:
        for step in plan.all:
            terminal.out.print(f"{'there' if step.there else 'to do'}  {step.what} {step.name}")
        if not changes:
            terminal.out.print(f"endpoint {plan.endpoint}: nothing to do")


def _carry_out(account: Account, plan: rollout.ReleasePlan, options: _RunOptions) -> None:
    _print_plan(plan, options)
    if options.dry_run:
        if not options.as_json:
            terminal.next_step("the same without --dry-run")
        return
    pause = partial(_await_scaling, account, plan.endpoint, options.deadline, options.poll)
    rollout.carry_out(plan, _tell, pause=pause)
    deadline = plan.seconds if options.deadline is None else options.deadline
    rollout.wait(account, plan, _tell, **_patience(deadline, options.poll))
    rollout.finish(plan, _tell)
    if not options.as_json:
        terminal.next_step(
            f"firstspin sagemaker rollback --endpoint {plan.endpoint}, if its alarms or figures get worse"
        )


def _settled(account: Account, endpoint: str, deadline: float | None, poll: float) -> EndpointState:
    """The endpoint, once autoscaling has changed its number of instances."""
    _serving(account, endpoint)
    _await_scaling(account, endpoint, deadline, poll)
    return _serving(account, endpoint)


def _await_scaling(account: Account, endpoint: str, deadline: float | None, poll: float) -> None:
    await_scaling(account, endpoint, _tell, **_patience(SCALING_SECONDS if deadline is None else deadline, poll))


def _patience(deadline: float, poll: float) -> dict[str, Any]:
    return {"clock": time.monotonic, "sleep": time.sleep, "deadline": deadline, "every": poll}


def _must_choose_alarms(alarm: list[str] | None, no_alarm: bool) -> None:
    if bool(alarm) == no_alarm:
        raise typer.BadParameter("--alarm NAME is needed, so that a bad release rolls back, or else --no-alarm")


def _serving(account: Account, endpoint: str) -> EndpointState:
    now = serving(account, endpoint)
    if now is None:
        raise InputError(f"there is no endpoint {endpoint}; `firstspin sagemaker deploy` makes one")
    return now


@contextmanager
def _packed(bundle: Path) -> Iterator[Packed]:
    with workspace("ship") as folder:
        yield pack(bundle, folder / ARCHIVE)


def _rollout(
    usual: deployment.Rollout, alarms: list[str] | None, canary: int | None, bake: int | None, rolling: bool
) -> deployment.Rollout:
    """The roll-out of the options given, else the usual one."""
    options = {"alarms": tuple(alarms or ()), "canary": canary, "bake": bake, "rolling": rolling}
    return replace(usual, **{name: of for name, of in options.items() if of is not None})  # type: ignore[arg-type]


def _tell(line: str) -> None:
    terminal.err.print(line)


def _words(command: str, url: str) -> tuple[str, ...]:
    """The words of the container's command; none where the URL of a running server is given instead."""
    if bool(command) == bool(url):
        raise typer.BadParameter("either --command or --url is needed, and not both")
    try:
        return tuple(shlex.split(command))
    except ValueError as problem:
        raise typer.BadParameter(f"--command: {problem}") from None


def _pairs(pairs: list[str]) -> dict[str, str]:
    if wrong := [one for one in pairs if "=" not in one]:
        raise typer.BadParameter(f"{wrong[0]!r} is not NAME=VALUE")
    return dict(one.split("=", 1) for one in pairs)


def _channels(train: Path | None, named_channels: list[str]) -> dict[str, Path]:
    named = [*([f"training={train}"] if train else []), *named_channels]
    channels = _pairs(named)
    if len(channels) < len(named):
        raise typer.BadParameter("a channel is given twice")
    if empty := [name for name, folder in channels.items() if not folder]:
        raise typer.BadParameter(f"the channel {empty[0]!r} has no folder")
    return {name: Path(folder) for name, folder in channels.items()}


def _payloads(files: list[Path], types: list[str]) -> Payloads:
    if len(files) != len(types):
        raise typer.BadParameter(f"{len(files)} --payload and {len(types)} --content-type: each needs the other")
    return Payloads(tuple(map(bodies.read, files, types))) if files else REGISTRATIONS
