"""The releases of an endpoint as versions of a model package group, SageMaker's registry of models."""

from __future__ import annotations

from functools import partial
from typing import Final

from firstspin.aws.clients import Account, clear, describe, pages
from firstspin.aws.package import Packed

FORMATS: Final = ["application/json", "text/csv"]


def is_registered(account: Account, group: str, packed: Packed) -> bool:
    """Whether the group has a version of this archive; not where there is no such group."""
    found = describe(account.sagemaker.describe_model_package_group, group, ModelPackageGroupName=group)
    if found is None:
        return False
    versions = pages(account.sagemaker, "list_model_packages", "ModelPackageSummaryList", ModelPackageGroupName=group)
    with clear(f"model package group {group}"):
        return any(one.get("ModelPackageDescription") == _description(packed) for one in versions)


def register(account: Account, group: str, packed: Packed, image: str, url: str, tags: list[dict[str, str]]) -> None:
    """Add a version, approved as it is released; the group is created where there is none."""
    create = partial(account.sagemaker.create_model_package_group, ModelPackageGroupName=group)
    if describe(account.sagemaker.describe_model_package_group, group, ModelPackageGroupName=group) is None:
        create(ModelPackageGroupDescription="Bundles of firstspin", Tags=tags)
    account.sagemaker.create_model_package(
        ModelPackageGroupName=group,
        ModelPackageDescription=_description(packed),
        ModelApprovalStatus="Approved",
        InferenceSpecification={
            "Containers": [{"Image": image, "ModelDataUrl": url}],
            "SupportedContentTypes": FORMATS,
            "SupportedResponseMIMETypes": FORMATS,
        },
        CustomerMetadataProperties={"bundle": packed.id, "sha256": packed.sha256},
    )


def _description(packed: Packed) -> str:
    return f"bundle {packed.id}, archive {packed.sha256}"
