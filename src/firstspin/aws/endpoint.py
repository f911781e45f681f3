"""The state of a SageMaker endpoint: its configuration, model and bundle, and whether it can be updated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from firstspin.aws.clients import Account, clear, describe
from firstspin.records import InputError
from firstspin.service.bundles.store import MAX_BUNDLE_BYTES

MAX_NAME: Final = 63
SETTLED: Final = "InService"
MOVING: Final = ("Creating", "Updating", "SystemUpdating", "RollingBack")

_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")


@dataclass(frozen=True, slots=True)
class EndpointState:
    """An endpoint, its configuration and model as SageMaker describes them, and the tags of the configuration."""

    endpoint: Mapping[str, Any]
    configuration: Mapping[str, Any]
    model: Mapping[str, Any]
    tags: Mapping[str, str]

    @property
    def archive(self) -> str:
        """The URL of the model archive; empty where it is unknown."""
        return str((self.model.get("PrimaryContainer") or {}).get("ModelDataUrl", ""))

    def serves(self, archive: str) -> bool:
        """Whether it has the bundle of this archive in service."""
        return self.archive.endswith(f"/{archive}")


def serving(account: Account, endpoint: str) -> EndpointState | None:
    """The endpoint of that name, or None where there is none.

    Raises InputError where the name is invalid, or the endpoint does not have exactly one model.
    """
    if not _NAME.fullmatch(endpoint):
        raise InputError(f"{endpoint!r} is not a valid endpoint name: letters, digits and hyphens, at most {MAX_NAME}")
    doing, sagemaker = f"endpoint {endpoint}", account.sagemaker
    described = describe(sagemaker.describe_endpoint, doing, EndpointName=endpoint)
    if described is None:
        return None
    with clear(doing):
        configuration = sagemaker.describe_endpoint_config(EndpointConfigName=described["EndpointConfigName"])
        if "ModelName" not in only_variant(configuration):
            raise InputError(f"{doing} hosts inference components; this rolls out where its variant names a model")
        model = sagemaker.describe_model(ModelName=only_variant(configuration)["ModelName"])
        tags = sagemaker.list_tags(ResourceArn=configuration["EndpointConfigArn"])["Tags"]
    return EndpointState(described, configuration, model, {tag["Key"]: tag["Value"] for tag in tags})


def served_archive(account: Account, now: EndpointState) -> bytes:
    """The model archive of an endpoint. Raises InputError where it can't be read."""
    bucket, _, key = now.archive.removeprefix("s3://").partition("/")
    with clear(now.archive or "the endpoint's model"):
        response = account.s3.get_object(Bucket=bucket, Key=key)
        if response["ContentLength"] > MAX_BUNDLE_BYTES:
            raise InputError(f"{now.archive} is larger than {MAX_BUNDLE_BYTES:,} bytes")
        archive: bytes = response["Body"].read()
    return archive


def leads_to(endpoint: Mapping[str, Any], configuration: str) -> bool:
    """Whether an endpoint has that configuration, or will have it after the update in progress.

    Raises InputError where it has another one and can't be updated now.
    """
    ahead = pending(endpoint) or endpoint["EndpointConfigName"]
    if ahead == configuration and endpoint["EndpointStatus"] in (SETTLED, *MOVING):
        return True
    must_be_settled(endpoint)
    return False


def must_be_settled(endpoint: Mapping[str, Any]) -> None:
    """Raises InputError, with the reason and the remedy, where an endpoint can't be updated now."""
    name, status = endpoint["EndpointName"], endpoint["EndpointStatus"]
    if status == SETTLED:
        return
    if status in MOVING:
        to = f" (to {pending(endpoint)})" if pending(endpoint) else ""
        raise InputError(f"endpoint {name} is {status}{to}; try again when it is {SETTLED}")
    reason = f": {endpoint['FailureReason']}" if endpoint.get("FailureReason") else ""
    # the only operation that SageMaker allows on a failed endpoint
    delete = f"`aws sagemaker delete-endpoint --endpoint-name {name}`, then `firstspin sagemaker deploy` again"
    raise InputError(
        f"endpoint {name} is {status}{reason}; {delete if status == 'Failed' else f'it must be {SETTLED} first'}"
    )


def only_variant(configuration: Mapping[str, Any]) -> Mapping[str, Any]:
    """The production variant. Raises InputError where there are several."""
    variants = configuration["ProductionVariants"]
    if len(variants) != 1:
        names = ", ".join(variant["VariantName"] for variant in variants)
        raise InputError(
            f"the endpoint has {len(variants)} production variants ({names}); this rolls out where there is one"
        )
    one: Mapping[str, Any] = variants[0]
    return one


def pending(endpoint: Mapping[str, Any]) -> str:
    """The configuration of the deployment in progress; empty where none is."""
    return str(endpoint.get("PendingDeploymentSummary", {}).get("EndpointConfigName", ""))
