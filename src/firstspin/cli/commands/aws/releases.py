"""`firstspin sagemaker package|deploy|promote|shadow|rollback|fetch|prune`: bundles to an endpoint and back."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from firstspin import preflight
from firstspin.aws import deployment, hosting, rollout
from firstspin.aws.autoscaling import missing_target
from firstspin.aws.clients import Account, open_account
from firstspin.aws.endpoint import EndpointState, served_archive, serving
from firstspin.aws.extra_fields import must_accept
from firstspin.aws.package import ARCHIVE, Packed, read_manifest, unpack, zipped_manifest
from firstspin.aws.package import package as pack
from firstspin.aws.pruning import delete, old_releases
from firstspin.cli import terminal
from firstspin.cli.commands.promotion import STATUS, compared
from firstspin.cli.endpoint_changes import (
    AlarmOptions,
    ChangeOptions,
    DryRun,
    Endpoint,
    ReleaseAlarms,
    RolloutOptions,
    carry_out,
    existing,
    print_plan,
    scaled,
    settled,
    tell,
)
from firstspin.cli.from_settings import DATA
from firstspin.cli.options import AsJson, BundlePath, ErasureOptions, FileOptions, GateOptions, named_values
from firstspin.evaluation.promotion import PromotionVerdict
from firstspin.files import workspace
from firstspin.records import InputError
from firstspin.serving.bundle import load


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


def deploy(
    bundle: BundlePath,
    endpoint: Endpoint,
    bucket: Annotated[str, typer.Option(help="S3 bucket for the archive.")],
    image: Annotated[str, typer.Option(help="Container image in ECR.")],
    role: Annotated[str, typer.Option(help="ARN of the endpoint's execution role.")],
    alarms: AlarmOptions,
    shape: RolloutOptions,
    change: ChangeOptions,
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
) -> None:
    """Create or update an endpoint with a bundle, without the promotion gate."""
    hosts = hosting.Hosting(
        image,
        role,
        instance_type,
        instances,
        named_values(variable or []),
        tags=named_values(tag or []),
        key=key,
        memory_mb=serverless,
        concurrency=concurrency,
        capture=capture,
        capture_percent=capture_percent,
    )
    settings = alarms.rollout(shape.rollout(deployment.Rollout()))
    account = open_account()
    if serving(account, endpoint):
        scaled(account, endpoint, change)
    with _packed(bundle) as packed:
        plan = rollout.plan_deploy(account, endpoint, packed, (bucket, prefix), hosts, settings)
        carry_out(account, plan, change, packed.id)
    if not change.dry_run and (note := missing_target(account, existing(account, endpoint))):
        tell(note)


def promote(
    bundle: BundlePath,
    endpoint: Endpoint,
    gate: GateOptions,
    files: FileOptions,
    erasure: ErasureOptions,
    alarms: ReleaseAlarms,
    shape: RolloutOptions,
    change: ChangeOptions,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the tables with the hold-out of the gate.", rich_help_panel=DATA)
    ] = None,
    force: Annotated[str, typer.Option(help="Reason to override the gate, stored as a tag.")] = "",
    lambda_zip: Annotated[
        Path | None, typer.Option("--zip", help="The Lambda's zip, whose extra fields the bundle must have.")
    ] = None,
    package_group: Annotated[str, typer.Option(help="Model package group to register the bundle in.")] = "",
    other_fields: Annotated[
        bool, typer.Option("--other-fields", help="Promote a bundle with other extra fields than the zip's.")
    ] = False,
) -> None:
    """Update an endpoint to a bundle that passes the promotion gate against the one in service, on users new to both.

    The rest of the endpoint's configuration stays. With --json, `gate` has the comparison, also of a refusal. Exit
    status of a refusal: 3 keep the champion, 4 not enough users. Each alarm on the endpoint is copied to watch the new
    instances alone.
    """
    alarms.must_be_chosen()
    settings = alarms.rollout(shape.rollout(deployment.Rollout()))
    account = open_account()
    now = settled(account, endpoint, change)
    verdict = None
    with _packed(bundle) as packed:
        plan = rollout.plan_promote(account, now, packed, settings, force, package_group)
        if plan.changes and not now.serves(packed.name):
            if not other_fields:
                _must_accept(account, now, bundle, lambda_zip)
            if force:
                tell(f"the gate is skipped: {force}")
            else:
                verdict = _verdict(account, now, bundle, data, gate, files, erasure)
                _refuse_what_fails(plan, change, packed.id, verdict)
        carry_out(account, plan, change, packed.id, verdict)


def shadow(
    bundle: BundlePath,
    endpoint: Endpoint,
    alarms: ReleaseAlarms,
    change: ChangeOptions,
    percent: Annotated[int, typer.Option(help="Percent of the requests to copy.", min=1, max=100)] = 100,
    instances: Annotated[int, typer.Option(help="Instances of the shadow variant.", min=1)] = 1,
) -> None:
    """Send a copy of the requests to a bundle whose answers go nowhere (shadow variant): its latency and errors show.

    The update replaces the instances in service too, so it needs alarms or --no-alarm as a promotion does. A rollback,
    or the next promotion, also of the bundle in service, ends it.
    """
    alarms.must_be_chosen()
    account = open_account()
    now = settled(account, endpoint, change)
    with _packed(bundle) as packed:
        plan = rollout.plan_shadow(account, now, packed, alarms.rollout(deployment.Rollout()), percent, instances)
        carry_out(account, plan, change, packed.id)


def rollback(endpoint: Endpoint, alarms: AlarmOptions, shape: RolloutOptions, change: ChangeOptions) -> None:
    """Roll an endpoint back to its previous configuration; a second rollback returns to the current one.

    All instances change at once, unless --canary or --rolling is given.
    """
    if shape.rolling and shape.canary is None:
        shape = replace(shape, canary=deployment.CANARY)
    settings = alarms.rollout(shape.rollout(deployment.BACK))
    account = open_account()
    plan = rollout.plan_rollback(account, settled(account, endpoint, change), settings)
    carry_out(account, plan, change)


def fetch(
    endpoint: Endpoint,
    out: Annotated[Path, typer.Option(help="Folder to write; a bundle already there is replaced.")],
    as_json: AsJson = False,
) -> None:
    """Download the bundle that an endpoint serves."""
    account = open_account()
    now = existing(account, endpoint)
    name = unpack(served_archive(account, now), now.archive, out)
    if as_json:
        terminal.print_json({"bundle": name, "folder": str(out), "from": now.archive})
        return
    terminal.out.print(f"endpoint {endpoint} serves bundle {name}, now in {out}")
    terminal.next_step(f"firstspin evaluate --data DIR --bundle {shlex.quote(str(out))}")


def prune(
    endpoint: Endpoint,
    keep: Annotated[int, typer.Option(help="Releases to keep beside those in service and to go back to.", min=0)] = 5,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Delete an endpoint's old configurations, models and archives; what is in service or shared stays."""
    account = open_account()
    releases = old_releases(account, existing(account, endpoint), keep)
    names = [name for release in releases for name in release.names]
    if not dry_run:
        delete(account, releases, tell)
    if as_json:
        terminal.print_json({"endpoint": endpoint, "deleted": names, "dry_run": dry_run})
    elif dry_run or not names:
        terminal.out.print("\n".join(f"to delete  {name}" for name in names) or f"endpoint {endpoint}: nothing to do")
    if dry_run and not as_json:
        terminal.next_step("the same without --dry-run")


def _must_accept(account: Account, now: EndpointState, bundle: Path, lambda_zip: Path | None) -> None:
    """Raises InputError where the bundle has other extra fields than the zip's, or else the bundle in service."""
    without = "--zip names the Lambda's zip, and --other-fields promotes without a comparison of extra fields"
    with _or_else(without):
        accepted = (
            zipped_manifest(lambda_zip) if lambda_zip else read_manifest(served_archive(account, now), now.archive)
        )
    must_accept(accepted, load(bundle).manifest, str(lambda_zip or "the bundle in service"))


def _verdict(
    account: Account,
    now: EndpointState,
    bundle: Path,
    data: Path | None,
    gate: GateOptions,
    files: FileOptions,
    erasure: ErasureOptions,
) -> PromotionVerdict:
    """The gate's verdict on a bundle, against the one in service. Raises BadParameter where there are no tables."""
    without = "--force REASON promotes without the gate"
    if data is None:
        raise typer.BadParameter(f"the gate compares both bundles on these tables; {without}", param_hint="--data")
    with workspace("champion") as folder:
        with _or_else(without):
            unpack(served_archive(account, now), now.archive, folder / "bundle")
        return compared(data, folder / "bundle", bundle, gate, files.reading(), erasure)[0]


def _refuse_what_fails(
    plan: rollout.ReleasePlan, change: ChangeOptions, bundle: str, verdict: PromotionVerdict
) -> None:
    """Exit with the verdict's status where the bundle does not pass the gate, after the report that --json asks for."""
    if verdict.passes:
        tell(f"bundle {bundle} passes the gate: {verdict.why}")
        return
    if change.as_json:
        print_plan(replace(plan, steps=(), after=()), change, bundle, verdict)
    tell(f"bundle {bundle} is not promoted: {verdict.decision}: {verdict.why} (--force REASON promotes it)")
    sys.exit(STATUS[verdict.decision])


@contextmanager
def _or_else(without: str) -> Iterator[None]:
    """Inside, an InputError ends with the option that does `without` what failed."""
    try:
        yield
    except InputError as problem:
        raise InputError(f"{problem}; {without}") from None


@contextmanager
def _packed(bundle: Path) -> Iterator[Packed]:
    with workspace("ship") as folder:
        yield pack(bundle, folder / ARCHIVE)
