"""Autoscaling of an endpoint: its scalable target, which SageMaker deregisters when the endpoint is deleted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from firstspin.aws.clients import Account, clear, describe
from firstspin.aws.endpoint import EndpointState, only_variant, pending
from firstspin.records import InputError

DIMENSION: Final = "sagemaker:variant:DesiredInstanceCount"
CAPTURE: Final = "DataCaptureConfig"


def scales(account: Account, now: EndpointState) -> bool:
    """Whether the endpoint's variant has a scalable target. Raises InputError where that can't be read."""
    endpoint, variant = now.endpoint["EndpointName"], only_variant(now.configuration)["VariantName"]
    with clear("application-autoscaling"):
        response = account.scaling.describe_scalable_targets(
            ServiceNamespace="sagemaker",
            ResourceIds=[f"endpoint/{endpoint}/variant/{variant}"],
            ScalableDimension=DIMENSION,
        )
    return bool(response["ScalableTargets"])


def must_not_scale(account: Account, now: EndpointState, configuration: Mapping[str, Any]) -> None:
    """Raises InputError where another instance type would meet autoscaling: SageMaker refuses that late."""
    types = {only_variant(one).get("InstanceType") for one in (now.configuration, configuration)}
    if len(types) == 1 or not scales(account, now):
        return
    raise InputError(
        f"endpoint {now.endpoint['EndpointName']} scales by itself, and SageMaker changes no type of instance then: "
        "take the scaling away (enabled = false under [scaling] of deploy/aws/settings.toml), change over, and bring "
        "it back"
    )


def must_stay_of_its_kind(now: EndpointState, configuration: Mapping[str, Any]) -> None:
    """Raises InputError where instances would become serverless or the reverse, which SageMaker does not convert."""
    is_now, will_be = ("ServerlessConfig" in only_variant(one) for one in (now.configuration, configuration))
    if is_now != will_be:
        name = now.endpoint["EndpointName"]
        raise InputError(
            f"endpoint {name} {'is serverless' if is_now else 'has instances'}, and SageMaker does not convert it: "
            f"deploy under another name, move the callers, then `aws sagemaker delete-endpoint --endpoint-name {name}`"
        )


def keeps_instances(account: Account, now: EndpointState, configuration: Mapping[str, Any]) -> bool:
    """Whether an update keeps the number of instances: where autoscaling sets it, or both begin with the same."""
    counts = {only_variant(one).get("InitialInstanceCount") for one in (now.configuration, configuration)}
    return len(counts) == 1 or scales(account, now)


def retained(account: Account, now: EndpointState, configuration: Mapping[str, Any]) -> dict[str, Any]:
    """UpdateEndpoint's arguments about what stays of the fleet; the data capture is that of the new configuration."""
    captures = [one.get(CAPTURE) for one in (now.configuration, configuration)]
    stays = keeps_instances(account, now, configuration)
    arguments: dict[str, Any] = {"RetainAllVariantProperties": stays}
    if stays and captures[0] != captures[1]:
        arguments["ExcludeRetainedVariantProperties"] = [{"VariantPropertyType": CAPTURE}]
    return arguments


def missing_target(account: Account, now: EndpointState) -> str:
    """What to do where the endpoint has no scalable target; empty where it has one, or no instances to scale."""
    if "InstanceType" not in only_variant(now.configuration) or scales(account, now):
        return ""
    return (
        f"endpoint {now.endpoint['EndpointName']} does not scale: it has no scalable target. Where the front stack is "
        "not deployed yet, deploy it. After a deleted endpoint was made again, CloudFormation does not restore the "
        "target by itself: deploy the front stack with enabled = false under [scaling], then with enabled = true"
    )


def await_scaling(
    account: Account,
    endpoint: str,
    tell: Callable[[str], None],
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    deadline: float,
    every: float,
) -> None:
    """Wait while autoscaling changes the number of instances (UpdateEndpointWeightsAndCapacities); times in seconds.

    An endpoint is Updating then, without a pending deployment. Raises InputError at the deadline.
    """
    began, waits = clock(), False
    while True:
        now = describe(account.sagemaker.describe_endpoint, f"endpoint {endpoint}", EndpointName=endpoint)
        if now is None or now["EndpointStatus"] != "Updating" or pending(now):
            return
        if not waits:
            tell(f"endpoint {endpoint} is scaling; the change follows")
        waits = True
        if clock() - began > deadline:
            raise InputError(f"endpoint {endpoint} is still scaling after {deadline:g} s; nothing was changed")
        sleep(every)
