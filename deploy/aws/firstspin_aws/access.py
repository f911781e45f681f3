"""Policies to attach to the identity that releases, and to the one that scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import ArnFormat
from aws_cdk import aws_iam as iam

if TYPE_CHECKING:
    from firstspin_aws.ground import Ground

RELEASE = ("CreateModel", "CreateEndpointConfig", "CreateEndpoint", "UpdateEndpoint", "AddTags")
REGISTER = ("CreateModelPackage", "CreateModelPackageGroup", "DescribeModelPackage", "DescribeModelPackageGroup")
PRUNE = ("DeleteEndpointConfig", "DeleteModel")
READ = ("DescribeModel", "DescribeEndpointConfig", "DescribeEndpoint", "ListTags")
LIST = ("ListEndpointConfigs", "ListEndpoints", "ListModelPackages", "ListModels")
"""They take no resource."""

SCORE = ("dynamodb:BatchWriteItem", "dynamodb:GetItem", "dynamodb:PutItem")
"""GetItem reads where a run broke off."""


def releaser(ground: Ground) -> iam.ManagedPolicy:
    """What `firstspin sagemaker deploy`, `promote`, `rollback`, `fetch` and `prune` may."""
    statements = [
        iam.PolicyStatement(
            actions=[f"sagemaker:{action}" for action in (*RELEASE, *READ, *REGISTER, *PRUNE)],
            resources=_of_endpoint(ground),
        ),
        iam.PolicyStatement(
            actions=["iam:PassRole"],
            resources=[ground.model_role.role_arn],
            conditions={"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
        ),
        ground.objects("s3:GetObject", "models"),
        ground.objects("s3:PutObject", "models"),
        ground.objects("s3:DeleteObject", "models"),
        ground.listing("models"),
        iam.PolicyStatement(actions=[f"sagemaker:{action}" for action in LIST], resources=["*"]),
        iam.PolicyStatement(actions=["application-autoscaling:DescribeScalableTargets"], resources=["*"]),
        ground.sees_alarms(),
        iam.PolicyStatement(
            actions=["cloudwatch:DeleteAlarms", "cloudwatch:PutMetricAlarm"], resources=[_alarms_of_releases(ground)]
        ),
        *ground.use_of_key(),
        *_volumes(ground),
    ]
    about = "For whoever releases with firstspin sagemaker"
    return iam.ManagedPolicy(ground, "Releaser", description=about, statements=statements)


def scorer(ground: Ground) -> iam.ManagedPolicy:
    """What `firstspin score --out dynamodb:TABLE` may."""
    write = iam.PolicyStatement(actions=list(SCORE), resources=[ground.table.table_arn])
    about = "For whoever runs firstspin score into DynamoDB"
    return iam.ManagedPolicy(ground, "Scorer", description=about, statements=[write, *ground.use_of_key()])


def _of_endpoint(ground: Ground) -> list[str]:
    """The endpoint, and what is named after it by its content."""
    name = ground.settings.name
    kinds = {"endpoint": name, "endpoint-config": f"{name}-*", "model": f"{name}-*"}
    kinds |= {"model-package-group": f"{name}*", "model-package": f"{name}*"}
    return [ground.format_arn(service="sagemaker", resource=kind, resource_name=of) for kind, of in kinds.items()]


def _volumes(ground: Ground) -> list[iam.PolicyStatement]:
    """What `deploy --key` needs: SageMaker lets the endpoint's volumes use the key by a grant of the caller's."""
    if ground.key is None:
        return []
    key, of_aws = [ground.key.key_arn], {"Bool": {"kms:GrantIsForAWSResource": "true"}}
    return [
        iam.PolicyStatement(actions=["kms:CreateGrant"], resources=key, conditions=of_aws),
        iam.PolicyStatement(actions=["kms:DescribeKey"], resources=key),
    ]


def _alarms_of_releases(ground: Ground) -> str:
    return ground.format_arn(
        service="cloudwatch",
        resource="alarm",
        resource_name=f"{ground.settings.name}-endpoint-*-release",
        arn_format=ArnFormat.COLON_RESOURCE_NAME,
    )
