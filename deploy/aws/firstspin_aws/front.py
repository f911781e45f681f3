"""What callers meet: API Gateway with IAM, keys that meter, throttles; behind it the Lambda, or the endpoint itself."""

from __future__ import annotations

import hashlib
import json

from aws_cdk import ArnFormat, CfnParameter, Duration, RemovalPolicy, Stack
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_codedeploy as codedeploy
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as functions
from aws_cdk import aws_logs as logs
from aws_cdk import aws_wafv2 as waf
from constructs import Construct

from firstspin_aws.ground import SEND, Ground, endpoint_arn
from firstspin_aws.settings import AT_ONCE, CANARY, LAMBDA, LINEAR, Settings

HANDLER = "firstspin.aws.lambda_handler.handler"
BUNDLE = "/var/task/bundle"
PLAN = "/var/task/experiment.toml"
NETWORK = (
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
)
"""What the Lambda service needs to put a function into a network. Most of it takes no resource."""

ACCESS = {
    name: f"$context.{of}"
    for name, of in {
        "request": "requestId",
        "time": "requestTimeEpoch",
        "method": "httpMethod",
        "route": "resourcePath",
        "status": "status",
        "key": "identity.apiKeyId",
        "ms": "responseLatency",
        "behind_ms": "integrationLatency",
        "bytes": "responseLength",
    }.items()
}
"""A line of the access log: nothing of a body, and no address."""

GUARDS = ("AWSManagedRulesKnownBadInputsRuleSet", "AWSManagedRulesAmazonIpReputationList")

REFUSED = '{"error":{"code":"unavailable","message":"no answer"}}'


class Function(Construct):
    """The Lambda: inside the network, its answers inside the budget."""

    def __init__(self, scope: Construct, settings: Settings, ground: Ground) -> None:
        super().__init__(scope, "Function")
        stack = Stack.of(self)
        key = CfnParameter(
            stack,
            "LambdaKey",
            description="Key of the Lambda's zip in the artifacts bucket",
            allowed_pattern="lambda/.+",
        )
        name = f"{settings.name}-gateway"
        self.log = logs.LogGroup(
            self,
            "Log",
            log_group_name=f"/aws/lambda/{name}",
            retention=logs.RetentionDays.ONE_MONTH,
            removal_policy=RemovalPolicy.DESTROY,
        )
        role = self._role(name, settings, ground)
        self.function = functions.Function(
            self,
            "Gateway",
            function_name=name,
            description=self._content(key.value_as_string, settings),
            runtime=functions.Runtime.PYTHON_3_13,
            handler=HANDLER,
            code=functions.Code.from_bucket(ground.artifacts, key.value_as_string),
            role=role.without_policy_updates(),
            vpc=ground.vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED),
            security_groups=[ground.inside],
            memory_size=settings.front.memory,
            timeout=Duration.seconds(int(settings.front.budget) + 4),
            reserved_concurrent_executions=settings.front.concurrency or None,
            log_group=self.log,
            environment={
                "FIRSTSPIN_ENDPOINT": settings.name,
                "FIRSTSPIN_BUNDLE": BUNDLE,
                "FIRSTSPIN_BUDGET": str(settings.front.budget),
                "FIRSTSPIN_SCORES": ground.table.table_name,
                **settings.policy.variables,
                **(_experiment(settings, ground) if settings.experiment.running else {}),
            },
        )

        self.alias = self._alias(key.value_as_string, settings) if settings.front.shift != AT_ONCE else None
        self.target = self.alias or self.function

    def _content(self, key: str, settings: Settings) -> str:
        """The description of the function and of its version: another one with another zip or any other setting.

        CloudFormation publishes a version when its description changes; Lambda refuses one of an unchanged function.
        """
        return f"{key} {hashlib.sha256(repr(settings).encode()).hexdigest()[:8]}"

    def _alias(self, key: str, settings: Settings) -> functions.Alias:
        """The version that answers."""
        version = functions.Version(
            self,
            "Version",
            lambda_=self.function,
            description=self._content(key, settings),
            removal_policy=RemovalPolicy.DESTROY,
        )
        return functions.Alias(self, "Live", alias_name="live", version=version)

    def shift(self, settings: Settings, alarms: list[cloudwatch.IAlarm]) -> None:
        """Let requests go over to a new version little by little, and back where one of the alarms fires."""
        if self.alias is None:
            return
        configuration = codedeploy.LambdaDeploymentConfig
        steps = {
            CANARY: configuration.CANARY_10_PERCENT_15_MINUTES,  # longer than the slowest alarm needs
            LINEAR: configuration.LINEAR_10_PERCENT_EVERY_1_MINUTE,
        }
        codedeploy.LambdaDeploymentGroup(
            self, "Shift", alias=self.alias, deployment_config=steps[settings.front.shift], alarms=alarms
        )

    def _role(self, name: str, settings: Settings, ground: Ground) -> iam.Role:
        stack = Stack.of(self)
        own = stack.format_arn(
            service="lambda", resource="function", resource_name=name, arn_format=ArnFormat.COLON_RESOURCE_NAME
        )
        statements = [
            iam.PolicyStatement(
                actions=["sagemaker:InvokeEndpoint"],
                resources=[endpoint_arn(ground)],
                conditions={"StringEquals": {"aws:SourceVpce": ground.runtime.vpc_endpoint_id}},
            ),
            *ground.use_of_key(),
            iam.PolicyStatement(actions=["dynamodb:GetItem"], resources=[ground.table.table_arn]),
            iam.PolicyStatement(
                actions=["logs:CreateLogStream", "logs:PutLogEvents"], resources=[self.log.log_group_arn]
            ),
            iam.PolicyStatement(actions=list(NETWORK), resources=["*"]),
            iam.PolicyStatement(  # the service may, the function's own code may not
                effect=iam.Effect.DENY,
                actions=list(NETWORK),
                resources=["*"],
                conditions={"ArnEquals": {"lambda:SourceFunctionArn": own}},
            ),
        ]
        if settings.experiment.running:
            statements.append(iam.PolicyStatement(actions=[SEND], resources=[ground.streams["exposures"].attr_arn]))
        return iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            inline_policies={"answer": iam.PolicyDocument(statements=statements)},
        )


def _experiment(settings: Settings, ground: Ground) -> dict[str, str]:
    """The variables of `firstspin.aws.front.experiment`. CloudFormation fills in the key when it makes the function."""
    stream = ground.streams["exposures"].delivery_stream_name
    assert stream is not None
    return {
        "FIRSTSPIN_EXPERIMENT": PLAN,
        "FIRSTSPIN_EVENTS_KEY": f"{{{{resolve:secretsmanager:{settings.name}-events-key:SecretString}}}}",
        "FIRSTSPIN_EXPOSURES_STREAM": stream,
    }


class Door(Construct):
    """The REST API: its routes, callers known by IAM (SigV4), each consumer metered and throttled by its own key."""

    def __init__(
        self, scope: Construct, settings: Settings, ground: Ground, function: functions.IFunction | None
    ) -> None:
        super().__init__(scope, "Door")
        front = settings.front
        log = logs.LogGroup(
            self,
            "Log",
            log_group_name=f"/aws/apigateway/{settings.name}",
            retention=logs.RetentionDays.ONE_MONTH,
            removal_policy=RemovalPolicy.DESTROY,
        )
        self.api = apigateway.RestApi(
            self,
            "Api",
            rest_api_name=settings.name,
            endpoint_types=[apigateway.EndpointType.REGIONAL],
            cloud_watch_role=front.account_role,
            cloud_watch_role_removal_policy=RemovalPolicy.DESTROY if front.account_role else None,
            deploy_options=apigateway.StageOptions(
                stage_name="v1",
                metrics_enabled=True,
                access_log_destination=apigateway.LogGroupLogDestination(log),
                access_log_format=apigateway.AccessLogFormat.custom(json.dumps(ACCESS)),
                throttling_rate_limit=front.requests_a_second,
                throttling_burst_limit=front.burst,
            ),
        )
        direct = front.route != LAMBDA
        integration = self._to_the_endpoint(settings, ground) if direct else self._to_the_lambda(settings, function)
        # below the stage v1 the second is the service's /v1/recommendations, whose users only the Lambda knows
        for route in ("invocations",) if direct else ("invocations", "recommendations"):
            self.api.root.add_resource(route).add_method(
                "POST",
                integration,
                authorization_type=apigateway.AuthorizationType.IAM,
                api_key_required=True,
                request_parameters={"method.request.header.Content-Type": False} if direct else None,
                method_responses=[apigateway.MethodResponse(status_code=s) for s in ("200", "400", "503")]
                if direct
                else None,
            )
        self._meter(settings)
        if front.waf:
            self._guard(settings)

    def _to_the_lambda(self, settings: Settings, function: functions.IFunction | None) -> apigateway.Integration:
        assert function is not None
        return apigateway.LambdaIntegration(
            function, allow_test_invoke=False, timeout=Duration.seconds(int(settings.front.budget) + 4)
        )

    def _to_the_endpoint(self, settings: Settings, ground: Ground) -> apigateway.Integration:
        """Without a Lambda: no check of the body, no fallback, and nothing of the endpoint's error text passed on."""
        role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("apigateway.amazonaws.com"),
            inline_policies={
                "ask": iam.PolicyDocument(
                    statements=[
                        iam.PolicyStatement(actions=["sagemaker:InvokeEndpoint"], resources=[endpoint_arn(ground)])
                    ]
                )
            },
        )
        answers = [apigateway.IntegrationResponse(status_code="200")]
        answers += [
            apigateway.IntegrationResponse(
                status_code=status, selection_pattern=pattern, response_templates={"application/json": REFUSED}
            )
            for status, pattern in (("400", "400"), ("503", "4(?!00)\\d{2}|5\\d{2}"))
        ]
        return apigateway.AwsIntegration(
            service="runtime.sagemaker",
            path=f"endpoints/{settings.name}/invocations",
            options=apigateway.IntegrationOptions(
                credentials_role=role,
                passthrough_behavior=apigateway.PassthroughBehavior.WHEN_NO_TEMPLATES,
                request_parameters={"integration.request.header.Content-Type": "method.request.header.Content-Type"},
                integration_responses=answers,
                timeout=Duration.seconds(5),
            ),
        )

    def _meter(self, settings: Settings) -> None:
        front = settings.front
        throttle = apigateway.ThrottleSettings(rate_limit=front.requests_a_second, burst_limit=front.burst)
        quota = apigateway.QuotaSettings(limit=front.quota_a_day, period=apigateway.Period.DAY)
        for consumer in front.consumers:
            plan = self.api.add_usage_plan(
                f"Plan-{consumer}",
                name=f"{settings.name}-{consumer}",
                throttle=throttle,
                quota=quota,
                api_stages=[apigateway.UsagePlanPerApiStage(stage=self.api.deployment_stage)],
            )
            plan.add_api_key(self.api.add_api_key(f"Key-{consumer}", api_key_name=f"{settings.name}-{consumer}"))

    def _guard(self, settings: Settings) -> None:
        """AWS WAF before the stage. Its common rules are left out: they refuse bodies over 8 kB."""
        visible = waf.CfnWebACL.VisibilityConfigProperty

        def shown(name: str) -> waf.CfnWebACL.VisibilityConfigProperty:
            return visible(cloud_watch_metrics_enabled=True, metric_name=name, sampled_requests_enabled=False)

        rules = [
            waf.CfnWebACL.RuleProperty(
                name=rule,
                priority=priority,
                override_action=waf.CfnWebACL.OverrideActionProperty(none={}),
                statement=waf.CfnWebACL.StatementProperty(
                    managed_rule_group_statement=waf.CfnWebACL.ManagedRuleGroupStatementProperty(
                        vendor_name="AWS", name=rule
                    )
                ),
                visibility_config=shown(rule),
            )
            for priority, rule in enumerate(GUARDS)
        ]
        guard = waf.CfnWebACL(
            self,
            "Guard",
            scope="REGIONAL",
            default_action=waf.CfnWebACL.DefaultActionProperty(allow={}),
            rules=rules,
            visibility_config=shown(f"{settings.name}-guard"),
        )
        stage = self.api.deployment_stage.stage_arn
        waf.CfnWebACLAssociation(self, "Guarded", resource_arn=stage, web_acl_arn=guard.attr_arn)
