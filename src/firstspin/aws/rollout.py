"""Rollout of a bundle to a SageMaker endpoint: a plan of steps, and its execution.

The archive in S3, the model and the endpoint's configuration are named by their content. Existing ones are therefore
right and are reused, so a rollout is idempotent, and the next run finishes an interrupted one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import msgspec

from firstspin.aws.alarms import fleet_alarms
from firstspin.aws.autoscaling import keeps_instances, must_not_scale, must_stay_of_its_kind, retained
from firstspin.aws.clients import Account, carried, clear, describe
from firstspin.aws.deployment import BACK, Rollout, Words, time_of_update
from firstspin.aws.endpoint import (
    MAX_NAME,
    MOVING,
    SETTLED,
    EndpointState,
    leads_to,
    must_be_settled,
    only_variant,
    serving,
)
from firstspin.aws.hosting import VARIANT, Hosting
from firstspin.aws.model_registry import is_registered, register
from firstspin.aws.package import Packed
from firstspin.records import InputError

SHADOW: Final = "FirstspinShadow"
BUNDLE, FORCED = "firstspin:bundle", "firstspin:forced"
DIGITS: Final = 8
MAX_STEM: Final = MAX_NAME - DIGITS - 1
CREATION_SECONDS: Final = 3600

_TAG = re.compile(r"[\w .:/=+\-@]{1,256}")


@dataclass(frozen=True, slots=True)
class ReleaseStep:
    """A step: `what` it creates, its `name`, and whether it exists already (`there`)."""

    what: str
    name: str
    there: bool
    do: Callable[[], object]


@dataclass(frozen=True, slots=True)
class ReleasePlan:
    """The steps in order, and the configuration that the endpoint has after them, within `seconds`.

    The steps of `after` follow once it is in service with that configuration.
    """

    endpoint: str
    configuration: str
    steps: tuple[ReleaseStep, ...]
    after: tuple[ReleaseStep, ...] = ()
    seconds: float = CREATION_SECONDS

    @property
    def changes(self) -> bool:
        """Whether the endpoint, or what it needs, changes."""
        return not all(step.there for step in self.steps)

    @property
    def all(self) -> tuple[ReleaseStep, ...]:
        """The steps, and those after."""
        return (*self.steps, *self.after)


# ------------------------------------------------------------------------------------------------------------- plans


def plan_deploy(
    account: Account, endpoint: str, packed: Packed, place: tuple[str, str], hosting: Hosting, rollout: Rollout
) -> ReleasePlan:
    """A plan to create or update an endpoint with this bundle; `place` is a bucket and a prefix.

    Raises InputError where the instance type of an endpoint with autoscaling would change, which SageMaker refuses.
    """
    now = serving(account, endpoint)
    bucket, prefix = place
    configuration = hosting.configuration(only_variant(now.configuration)["VariantName"] if now else VARIANT)
    if now:
        must_stay_of_its_kind(now, configuration)
        must_not_scale(account, now, configuration)
    settings = Release(packed, f"s3://{bucket}/{prefix}", hosting.model, configuration, hosting.tags)
    return _planned(account, endpoint, settings, now, rollout)


def plan_promote(
    account: Account, now: EndpointState, packed: Packed, rollout: Rollout, forced: str = "", group: str = ""
) -> ReleasePlan:
    """The plan that gives an endpoint another bundle, and registers it in a model package group where one is named.

    Raises InputError where the endpoint can't be updated in place, or `forced` is no valid tag.
    """
    if forced and (forced.isspace() or not _TAG.fullmatch(forced)):
        raise InputError("a reason is stored as a tag: letters, digits, spaces and _.:/=+-@, at most 256")
    endpoint, current = now.endpoint["EndpointName"], now.endpoint["EndpointConfigName"]
    release = replace(_as_hosted(account, now, packed), forced=forced, group=group)
    if now.serves(packed.name) and not _has_shadow(now.configuration) and leads_to(now.endpoint, current):
        return ReleasePlan(endpoint, current, (), _registration(account, release, now.archive))
    return _planned(account, endpoint, release, now, rollout)


def plan_shadow(
    account: Account, now: EndpointState, packed: Packed, rollout: Rollout, percent: int, instances: int
) -> ReleasePlan:
    """The plan for a shadow variant: a bundle that gets a copy of `percent` of the requests, and answers nobody.

    Raises InputError where the endpoint can't be updated in place, is serverless, or `percent` is not 1 to 100.
    """
    if not 1 <= percent <= 100 or instances < 1:
        raise InputError("a shadow variant gets 1 to 100 percent of the requests, and has at least one instance")
    release = _as_hosted(account, now, packed)
    production = only_variant(now.configuration)
    if "InstanceType" not in production:
        raise InputError(f"endpoint {now.endpoint['EndpointName']} is serverless, which has no shadow variants")
    weight = production.get("InitialVariantWeight", 1.0) * percent / 100
    variant = {**production, "VariantName": SHADOW, "InitialInstanceCount": instances, "InitialVariantWeight": weight}
    return _planned(account, now.endpoint["EndpointName"], replace(release, shadow=variant), now, rollout)


def plan_rollback(account: Account, now: EndpointState, rollout: Rollout = BACK) -> ReleasePlan:
    """The endpoint with the configuration it had before.

    Raises InputError where none is known, or its instance type is another one and the endpoint scales.
    """
    must_be_settled(now.endpoint)
    endpoint, current = now.endpoint["EndpointName"], now.endpoint["EndpointConfigName"]
    previous = now.tags.get(way_back(endpoint))
    if not previous:
        raise InputError(f"endpoint {endpoint} has no configuration to go back to")
    configuration = describe(account.sagemaker.describe_endpoint_config, endpoint, EndpointConfigName=previous)
    if configuration is None:
        raise InputError(f"endpoint {endpoint} had the configuration {previous}, which was deleted")
    must_not_scale(account, now, configuration)
    alarms, settings = _watched(account, endpoint, previous, rollout)
    deployment = settings.configuration(*_fleets(account, now, configuration))
    change = partial(_update, account, now, previous, deployment)
    step = ReleaseStep("endpoint", f"{endpoint}: {current} -> {previous}", False, change)
    return ReleasePlan(endpoint, previous, (*alarms, step), seconds=time_of_update(deployment))


@dataclass(frozen=True, slots=True)
class Release:
    """A bundle's archive, the S3 prefix for it, the settings of its model and its configuration, and their tags.

    With `shadow` the bundle is that of this variant beside the one in service. `group` is a model package group.
    """

    packed: Packed
    place: str
    model: Words
    configuration: Words
    tags: Mapping[str, str]
    forced: str = ""
    group: str = ""
    shadow: Words | None = None

    @property
    def tags_with_bundle(self) -> list[dict[str, str]]:
        """The tags of what is made of this bundle."""
        return [*_tags(self.tags), {"Key": BUNDLE, "Value": self.packed.id}]


def _as_hosted(account: Account, now: EndpointState, packed: Packed) -> Release:
    """A bundle hosted as the one in service; a shadow variant of ours ends with the release."""
    endpoint = now.endpoint["EndpointName"]
    if now.model.get("Containers"):
        raise InputError(f"endpoint {endpoint} is a pipeline of containers; this promotes where its model has one")
    before, _, _ = now.archive.rpartition("/")  # …/PREFIX/ID-SHA/model.tar.gz
    place, _, _ = before.rpartition("/")
    if not place.startswith("s3://"):
        raise InputError(f"endpoint {endpoint} has no model archive in S3; use `firstspin sagemaker deploy` first")
    model = _unnamed(carried(account.sagemaker, "CreateModel", now.model))
    configuration = _unnamed(carried(account.sagemaker, "CreateEndpointConfig", now.configuration))
    if _has_shadow(configuration):
        del configuration["ShadowProductionVariants"]
    tags = {name: of for name, of in now.tags.items() if not name.startswith(("firstspin:", "aws:"))}
    return Release(packed, place, model, configuration, tags)


def _has_shadow(configuration: Mapping[str, Any]) -> bool:
    """Whether a configuration has a shadow variant of ours."""
    return [one["VariantName"] for one in configuration.get("ShadowProductionVariants", [])] == [SHADOW]


def _planned(
    account: Account, endpoint: str, release: Release, now: EndpointState | None, rollout: Rollout
) -> ReleasePlan:
    packed, stem = release.packed, f"{endpoint}-{release.packed.id}"
    url = f"{release.place.rstrip('/')}/{packed.name}"
    tags, with_bundle = _tags(release.tags), release.tags_with_bundle
    container = {**release.model["PrimaryContainer"], "ModelDataUrl": url}
    container.pop("ModelDataSource", None)  # the archive before, in another form
    model = {**release.model, "PrimaryContainer": container}
    model_name = _name(stem, model)
    variants = [_only(only_variant(release.configuration))]
    configuration = {**release.configuration, "ProductionVariants": variants}
    if release.shadow:
        configuration["ShadowProductionVariants"] = [{**_only(release.shadow), "ModelName": model_name}]
    else:
        variants[0]["ModelName"] = model_name
    name = _name(stem, configuration)
    sagemaker = account.sagemaker
    alarms, rollout = _watched(account, endpoint, name, rollout)
    seconds: float = CREATION_SECONDS
    if now is None:
        count = variants[0].get("InitialInstanceCount", 1)
        change = _creation(account, endpoint, name, rollout.configuration(count), tags)
    else:
        reason = _tags({FORCED: release.forced} if release.forced else {})
        deployment = rollout.configuration(*_fleets(account, now, configuration))
        change, seconds = _change(account, now, name, deployment, reason), time_of_update(deployment)
    steps = (
        _upload(account, packed, url),
        ReleaseStep(
            "model",
            model_name,
            describe(sagemaker.describe_model, model_name, ModelName=model_name) is not None,
            lambda: sagemaker.create_model(ModelName=model_name, Tags=with_bundle, **model),
        ),
        ReleaseStep(
            "configuration",
            name,
            describe(sagemaker.describe_endpoint_config, name, EndpointConfigName=name) is not None,
            lambda: sagemaker.create_endpoint_config(EndpointConfigName=name, Tags=with_bundle, **configuration),
        ),
        *(replace(step, there=change.there) for step in alarms),
        change,
    )
    return ReleasePlan(endpoint, name, steps, _registration(account, release, url), seconds)


def _registration(account: Account, release: Release, url: str) -> tuple[ReleaseStep, ...]:
    """The step that adds the bundle to its model package group; none without a group."""
    if not release.group:
        return ()
    packed, group, image = release.packed, release.group, release.model["PrimaryContainer"]["Image"]
    add = partial(register, account, group, packed, image, url, release.tags_with_bundle)
    return (ReleaseStep("package", f"{group}: {packed.id}", is_registered(account, group, packed), add),)


def _upload(account: Account, packed: Packed, url: str) -> ReleaseStep:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    there = describe(account.s3.head_object, url, Bucket=bucket, Key=key)

    def put() -> None:
        with packed.path.open("rb") as body:
            metadata = {"firstspin-bundle": packed.id, "firstspin-sha256": packed.sha256}
            account.s3.put_object(Bucket=bucket, Key=key, Body=body, Metadata=metadata, ContentLength=packed.bytes)

    return ReleaseStep("archive", f"{url} ({packed.bytes:,} bytes)", there is not None, put)


def _watched(
    account: Account, endpoint: str, configuration: str, rollout: Rollout
) -> tuple[list[ReleaseStep], Rollout]:
    """The roll-out with alarms on the new fleet, and the step that creates them."""
    if not rollout.alarms:
        return [], rollout
    fleet = fleet_alarms(account, rollout.alarms, endpoint, configuration, rollout.bake)
    step = ReleaseStep("alarms", ", ".join(fleet.copies), False, fleet.create)
    return [step] if fleet.copies else [], replace(rollout, alarms=fleet.names)


def _creation(
    account: Account, endpoint: str, name: str, deployment: Words, tags: Sequence[Mapping[str, str]]
) -> ReleaseStep:
    arguments = {"EndpointConfigName": name, "DeploymentConfig": deployment, "Tags": tags}
    make = partial(account.sagemaker.create_endpoint, EndpointName=endpoint, **arguments)
    return ReleaseStep("endpoint", f"{endpoint} with {name}", False, make)


def _change(
    account: Account, now: EndpointState, name: str, deployment: Words, reason: Sequence[Mapping[str, str]]
) -> ReleaseStep:
    """The step that updates the endpoint; done already where it is up to date."""
    endpoint, current = now.endpoint["EndpointName"], now.endpoint["EndpointConfigName"]
    update = partial(_update, account, now, name, deployment, reason)
    return ReleaseStep("endpoint", f"{endpoint}: {current} -> {name}", leads_to(now.endpoint, name), update)


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": name, "Value": of} for name, of in tags.items()]


def _fleets(account: Account, now: EndpointState, configuration: Mapping[str, Any]) -> tuple[int, int]:
    """The instances of the smaller and the larger of the fleets before and after an update."""
    before, after = (only_variant(one).get("InitialInstanceCount", 1) for one in (now.configuration, configuration))
    running = int(now.endpoint.get("ProductionVariants", [{}])[0].get("CurrentInstanceCount", before))
    fleets = (running, running if keeps_instances(account, now, configuration) else after)
    return min(fleets), max(fleets)


def _update(
    account: Account,
    now: EndpointState,
    name: str,
    deployment: Mapping[str, Any],
    reason: Sequence[Mapping[str, str]] = (),
) -> None:
    """Let the endpoint change over.

    The way back is written on the new configuration, beforehand: where the change is refused or taken back, the
    endpoint keeps the configuration it has, and with it the way back from there. It leads past a shadow variant, which
    nothing but `shadow` starts.
    """
    endpoint, current = now.endpoint["EndpointName"], now.endpoint["EndpointConfigName"]
    before = now.tags.get(way_back(endpoint), current) if _has_shadow(now.configuration) else current
    new = account.sagemaker.describe_endpoint_config(EndpointConfigName=name)
    arguments = retained(account, now, new) | {"DeploymentConfig": deployment}
    # the configuration from before a shadow variant knows its way back
    tags = [*reason, *(_tags({way_back(endpoint): before}) if before != name else [])]
    if tags:
        account.sagemaker.add_tags(ResourceArn=new["EndpointConfigArn"], Tags=tags)
    account.sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=name, **arguments)


def way_back(endpoint: str) -> str:
    """The tag of a configuration that names the one before it; by endpoint, as several may share a configuration."""
    return f"firstspin:previous:{endpoint}"


# ------------------------------------------------------------------------------------------------------------- doing


def carry_out(plan: ReleasePlan, tell: Callable[[str], None], *, pause: Callable[[], None] = lambda: None) -> None:
    """Do what is left of a plan; `pause` precedes the change of the endpoint.

    Raises InputError at the step that fails; those before it stay done.
    """
    for step in plan.steps:
        if step.what == "endpoint" and not step.there:
            pause()
        _do(step, tell)


def finish(plan: ReleasePlan, tell: Callable[[str], None]) -> None:
    """Do what follows once the endpoint is in service. Raises InputError at the step that fails."""
    for step in plan.after:
        _do(step, tell)


def _do(step: ReleaseStep, tell: Callable[[str], None]) -> None:
    if step.there:
        tell(f"{step.what} {step.name}: there already")
        return
    tell(f"{step.what} {step.name}")
    with clear(f"{step.what} {step.name}"):
        step.do()


def wait(
    account: Account,
    plan: ReleasePlan,
    tell: Callable[[str], None],
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    deadline: float,
    every: float,
) -> None:
    """Until the endpoint has the plan's configuration and is in service; `deadline` and `every` in seconds.

    Raises InputError when it failed, when alarms took the change back, and at the deadline.
    """
    began, last_status = clock(), ""
    while True:
        with clear(f"endpoint {plan.endpoint}"):
            now = account.sagemaker.describe_endpoint(EndpointName=plan.endpoint)
        status, waited = now["EndpointStatus"], clock() - began
        if status != last_status:
            tell(f"{waited:5.0f} s  endpoint {plan.endpoint} is {status}")
        last_status = status
        if status == SETTLED and now["EndpointConfigName"] == plan.configuration:
            return
        if status == SETTLED:
            back, reason = now["EndpointConfigName"], now.get("FailureReason") or "an alarm, or a failed start"
            raise InputError(f"endpoint {plan.endpoint} went back to {back}: {reason}")
        if status not in MOVING:
            must_be_settled(now)  # which says why it is not
        if waited > deadline:
            raise InputError(f"endpoint {plan.endpoint} is still {status} after {deadline:g} s; it goes on by itself")
        sleep(every)


# -------------------------------------------------------------------------------------------------------------- words


def _unnamed(settings: Words) -> Words:
    return {name: of for name, of in settings.items() if name not in ("ModelName", "EndpointConfigName") and of}


def _only(variant: Mapping[str, Any]) -> Words:
    """What may be asked for, of what is described."""
    return {name: of for name, of in variant.items() if of is not None}


def _name(stem: str, content: Mapping[str, Any]) -> str:
    """A name with a hash of the content."""
    digest = hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()[:DIGITS]
    return f"{_cut(stem)}-{digest}"


def is_named(name: str, stem: str) -> bool:
    """Whether a name is this stem with a hash."""
    return re.fullmatch(rf"{re.escape(_cut(stem))}-[0-9a-f]{{{DIGITS}}}", name) is not None


def _cut(stem: str) -> str:
    return stem[:MAX_STEM].rstrip("-")
