"""The probe: a Lambda that measures every five minutes what no metric of AWS tells (deploy/aws/probe/index.py)."""

from __future__ import annotations

from pathlib import Path

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as functions
from aws_cdk import aws_logs as logs
from constructs import Construct

from firstspin_aws.ground import Ground, endpoint_arn
from firstspin_aws.settings import Settings

SOURCE = Path(__file__).parent.parent / "probe" / "index.py"
EVERY = Duration.minutes(5)


class Probe(Construct):
    """The function outside of the network, since it asks AWS's own interfaces, and its schedule."""

    def __init__(self, scope: Construct, settings: Settings, ground: Ground) -> None:
        super().__init__(scope, "Probe")
        name = f"{settings.name}-probe"
        log = logs.LogGroup(
            self,
            "Log",
            log_group_name=f"/aws/lambda/{name}",
            retention=logs.RetentionDays.ONE_MONTH,
            removal_policy=RemovalPolicy.DESTROY,
        )
        function = functions.Function(
            self,
            "Function",
            function_name=name,
            runtime=functions.Runtime.PYTHON_3_13,
            handler="index.handler",
            code=functions.Code.from_inline(SOURCE.read_text(encoding="utf-8")),
            role=self._role(settings, ground, log).without_policy_updates(),
            timeout=Duration.seconds(60),
            log_group=log,
            environment={
                "ENDPOINT": settings.name,
                "VARIANT": settings.endpoint.variant,
                "TABLE": ground.table.table_name,
                "NAMESPACE": settings.name,
            },
        )
        rule = events.Rule(self, "Schedule", schedule=events.Schedule.rate(EVERY))
        rule.add_target(targets.LambdaFunction(function, retry_attempts=0))

    def _role(self, settings: Settings, ground: Ground, log: logs.LogGroup) -> iam.Role:
        own = {"StringEquals": {"cloudwatch:namespace": settings.name}}
        statements = [
            iam.PolicyStatement(actions=["application-autoscaling:DescribeScalableTargets"], resources=["*"]),
            iam.PolicyStatement(actions=["sagemaker:DescribeEndpoint"], resources=[endpoint_arn(ground)]),
            iam.PolicyStatement(actions=["dynamodb:GetItem"], resources=[ground.table.table_arn]),
            iam.PolicyStatement(actions=["cloudwatch:PutMetricData"], resources=["*"], conditions=own),
            iam.PolicyStatement(actions=["logs:CreateLogStream", "logs:PutLogEvents"], resources=[log.log_group_arn]),
            *ground.use_of_key(),
        ]
        return iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            inline_policies={"probe": iam.PolicyDocument(statements=statements)},
        )
