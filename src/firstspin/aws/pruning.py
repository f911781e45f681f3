"""Old releases of an endpoint: configurations, models and archives that nothing needs any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from firstspin.aws.clients import Account, clear, describe
from firstspin.aws.endpoint import EndpointState
from firstspin.aws.rollout import BUNDLE, way_back
from firstspin.records import InputError


@dataclass(frozen=True, slots=True)
class OldRelease:
    """A configuration of firstspin's, the models and the archives that only old releases use."""

    configuration: str
    models: tuple[str, ...]
    archives: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """What is deleted, in order."""
        return [
            f"configuration {self.configuration}",
            *(f"model {model}" for model in self.models),
            *(f"archive {archive}" for archive in self.archives),
        ]


def old_releases(account: Account, now: EndpointState, keep: int) -> list[OldRelease]:
    """The releases of an endpoint but those in service, on their way, to go back to, and the newest `keep`.

    Only configurations named after the endpoint and tagged by firstspin count. A model or archive that another
    configuration needs stays. Raises InputError where `keep` is negative, or what is there can't be read.
    """
    if keep < 0:
        raise InputError("--keep is 0 or more")
    endpoint, needed = now.endpoint["EndpointName"], _needed(now)
    with clear(f"the configurations of endpoint {endpoint}"):
        ours = [one for one in _configurations(account, endpoint) if _is_ours(account, one)]
    others = [one for one in ours if one["EndpointConfigName"] not in needed]
    old, kept = others[keep:], [one for one in ours if one["EndpointConfigName"] in needed] + others[:keep]
    used_models = {model for one in kept for model in _models(account, one)}
    used_archives = {_archive(account, model) for model in used_models}
    releases = []
    for one in old:
        models = [model for model in _models(account, one) if model not in used_models]
        archives = {_archive(account, model) for model in models} - used_archives - {""}
        releases.append(OldRelease(one["EndpointConfigName"], tuple(models), tuple(sorted(archives))))
        used_models |= set(models)
        used_archives |= archives
    return releases


def delete(account: Account, releases: Sequence[OldRelease], tell: Callable[[str], None]) -> None:
    """Delete releases, the configuration first, so that a run that breaks off leaves nothing that names what is gone.

    Raises InputError at the first that can't be deleted; those before it are gone.
    """
    for release in releases:
        for name in release.names:
            tell(f"deleting {name}")
        with clear(f"configuration {release.configuration}"):
            account.sagemaker.delete_endpoint_config(EndpointConfigName=release.configuration)
        for model in release.models:
            with clear(f"model {model}"):
                account.sagemaker.delete_model(ModelName=model)
        for archive in release.archives:
            bucket, _, key = archive.removeprefix("s3://").partition("/")
            with clear(archive):
                account.s3.delete_object(Bucket=bucket, Key=key)


def _needed(now: EndpointState) -> set[str]:
    endpoint = now.endpoint["EndpointName"]
    pending = now.endpoint.get("PendingDeploymentSummary", {}).get("EndpointConfigName", "")
    return {now.endpoint["EndpointConfigName"], pending, now.tags.get(way_back(endpoint), "")}


def _configurations(account: Account, endpoint: str) -> Iterator[Mapping[str, Any]]:
    """The configurations named after the endpoint, newest first."""
    pages: dict[str, Any] = {"NameContains": f"{endpoint}-", "SortBy": "CreationTime", "SortOrder": "Descending"}
    while True:
        page = account.sagemaker.list_endpoint_configs(**pages)
        yield from (one for one in page["EndpointConfigs"] if one["EndpointConfigName"].startswith(f"{endpoint}-"))
        if not page.get("NextToken"):
            return
        pages["NextToken"] = page["NextToken"]


def _is_ours(account: Account, configuration: Mapping[str, Any]) -> bool:
    tags = account.sagemaker.list_tags(ResourceArn=configuration["EndpointConfigArn"])["Tags"]
    return any(tag["Key"] == BUNDLE for tag in tags)


def _models(account: Account, configuration: Mapping[str, Any]) -> list[str]:
    name = configuration["EndpointConfigName"]
    found = describe(account.sagemaker.describe_endpoint_config, name, EndpointConfigName=name) or {}
    variants = [*found.get("ProductionVariants", []), *found.get("ShadowProductionVariants", [])]
    return list(dict.fromkeys(one["ModelName"] for one in variants if "ModelName" in one))


def _archive(account: Account, model: str) -> str:
    found = describe(account.sagemaker.describe_model, model, ModelName=model) or {}
    return str((found.get("PrimaryContainer") or {}).get("ModelDataUrl", ""))
