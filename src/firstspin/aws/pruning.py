"""Old releases of an endpoint: configurations, models and archives that nothing needs any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Final

from firstspin.aws.clients import Account, clear, describe, error_code, pages
from firstspin.aws.endpoint import EndpointState, pending
from firstspin.aws.rollout import BUNDLE, MAX_STEM, is_named, way_back
from firstspin.records import InputError

VARIANTS: Final = ("ProductionVariants", "ShadowProductionVariants")
REFUSED: Final = {"AccessDenied", "AccessDeniedException"}


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

    Only configurations that firstspin named after this endpoint and their bundle count. A model that another
    configuration names stays, and so does an archive that another model or a model package names. What this identity
    may not read does not count as a user. Raises InputError where `keep` is negative, or a call fails otherwise.
    """
    if keep < 0:
        raise InputError("--keep is 0 or more")
    with clear(f"the releases of endpoint {now.endpoint['EndpointName']}"):
        needed = _needed(account, now)
        listed = list(_configurations(account))
        ours = [one for one in listed if _is_ours(account, now.endpoint["EndpointName"], one)]
        old = [one for one in ours if one["EndpointConfigName"] not in needed][keep:]
        models = _models_by_configuration(account, [one for one in listed if one not in old])
        used = {model for of_one in models.values() for model in of_one}
        deleted = _unused(_models_by_configuration(account, old), used)
        archives = {model: _archives(account, model) for of_one in deleted.values() for model in of_one}
        used = _used_archives(account, archives.keys()) if archives else set()
        by_release = {name: [url for one in of_one for url in archives[one]] for name, of_one in deleted.items()}
    unused = _unused(by_release, used)
    return [OldRelease(name, tuple(deleted[name]), tuple(unused[name])) for name in deleted]


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


def _needed(account: Account, now: EndpointState) -> set[str]:
    """The configurations of all endpoints, and the one to go back to."""
    listed = pages(account.sagemaker, "list_endpoints", "Endpoints")
    others = (_readable(account.sagemaker.describe_endpoint, EndpointName=one["EndpointName"]) for one in listed)
    names = {now.tags.get(way_back(now.endpoint["EndpointName"]), "")}
    for endpoint in (now.endpoint, *others):
        names |= {endpoint.get("EndpointConfigName", ""), pending(endpoint)}
    return names


def _configurations(account: Account) -> Iterator[Mapping[str, Any]]:
    """All configurations of the account, newest first."""
    order = {"SortBy": "CreationTime", "SortOrder": "Descending"}
    return pages(account.sagemaker, "list_endpoint_configs", "EndpointConfigs", **order)


def _is_ours(account: Account, endpoint: str, configuration: Mapping[str, Any]) -> bool:
    """Whether firstspin named it after the endpoint and the bundle in its tag: ENDPOINT-BUNDLE-HASH.

    Another endpoint's name may begin with this one's.
    """
    name: str = configuration["EndpointConfigName"]
    if not name.startswith(f"{endpoint}-"[:MAX_STEM]):
        return False
    tags = account.sagemaker.list_tags(ResourceArn=configuration["EndpointConfigArn"])["Tags"]
    return any(tag["Key"] == BUNDLE and is_named(name, f"{endpoint}-{tag['Value']}") for tag in tags)


def _models_by_configuration(account: Account, configurations: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    models = {}
    for name in (one["EndpointConfigName"] for one in configurations):
        configuration = _readable(account.sagemaker.describe_endpoint_config, EndpointConfigName=name)
        variants = [variant for kind in VARIANTS for variant in configuration.get(kind, [])]
        models[name] = [one["ModelName"] for one in variants if "ModelName" in one]
    return models


def _unused(by_release: Mapping[str, Sequence[str]], used: Set[str]) -> dict[str, list[str]]:
    """What only these releases need, each with the first that does."""
    seen, unused = set(used), {}
    for release, names in by_release.items():
        unused[release] = [name for name in dict.fromkeys(names) if name not in seen]
        seen |= set(names)
    return unused


def _used_archives(account: Account, deleted: Set[str]) -> set[str]:
    """The archives of all models but those deleted, and of all model packages."""
    sagemaker = account.sagemaker
    models = (one["ModelName"] for one in pages(sagemaker, "list_models", "Models"))
    archives = {url for model in models if model not in deleted for url in _archives(account, model)}
    for one in pages(sagemaker, "list_model_packages", "ModelPackageSummaryList", ModelPackageType="Both"):
        package = _readable(sagemaker.describe_model_package, ModelPackageName=one["ModelPackageArn"])
        archives |= set(_urls(package.get("InferenceSpecification", {}).get("Containers", [])))
    return archives


def _archives(account: Account, model: str) -> list[str]:
    described = _readable(account.sagemaker.describe_model, ModelName=model)
    return _urls([described.get("PrimaryContainer") or {}, *described.get("Containers", [])])


def _urls(containers: Sequence[Mapping[str, Any]]) -> list[str]:
    sources = [one.get("ModelDataSource", {}).get("S3DataSource", {}).get("S3Uri") for one in containers]
    return [url for url in (*(one.get("ModelDataUrl") for one in containers), *sources) if url]


def _readable(ask: Callable[..., Mapping[str, Any]], **words: str) -> Mapping[str, Any]:
    """The description of a resource; empty where it is gone meanwhile, or this identity may not read it."""
    try:
        return describe(ask, next(iter(words.values())), **words) or {}
    except InputError as problem:
        if isinstance(problem.__cause__, Exception) and error_code(problem.__cause__) in REFUSED:
            return {}
        raise
