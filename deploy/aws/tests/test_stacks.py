"""What the templates promise: who may do what, what scales at which figure, who gets in, who is woken."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import costs
import pytest
from app import build
from aws_cdk.assertions import Match, Template
from firstspin_aws.front import NETWORK
from firstspin_aws.settings import (
    CANARY,
    DIRECT,
    REFUSE,
    TEN_SECONDS,
    Alarms,
    Endpoint,
    Experiment,
    Front,
    Policy,
    Scaling,
    Settings,
    SettingsError,
    read_settings,
)

HERE = Path(__file__).parent.parent
ROOT = HERE.parent.parent
USUAL = Settings(policy=Policy(least_age=16, under_age=REFUSE))
OTHER = Settings(
    name="other",
    scaling=Scaling(load_test_rps=400, load_test_seconds=0.02, safety=0.5, metric=TEN_SECONDS),
    front=Front(route=DIRECT, consumers=("web", "mobile"), account_role=False, waf=True),
    alarms=Alarms(email="oncall@example.org"),
    key_arn="arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
)
TESTED = Settings(
    name="tested",
    scaling=Scaling(schedule=("4-10 at cron(0 16 * * ? *)", "2-10 at cron(0 23 * * ? *)")),
    front=Front(shift=CANARY),
    experiment=Experiment(running=True),
)
ALONE = Settings(name="alone", endpoint=Endpoint(serverless=True), scaling=Scaling(enabled=False, least_instances=1))
TAKE_NO_RESOURCE = {
    "sagemaker:ListEndpointConfigs",
    "sagemaker:ListEndpoints",
    "sagemaker:ListModelPackages",
    "sagemaker:ListModels",
    "application-autoscaling:DescribeScalableTargets",
    "cloudwatch:DescribeAlarms",
    "ecr:GetAuthorizationToken",
    "cloudwatch:PutMetricData",
    *NETWORK,
}


@dataclass(frozen=True)
class Made:
    """The templates of one choice of settings."""

    ground: Template
    serving: Template
    folder: Path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    found = {}
    for settings in (USUAL, OTHER, ALONE, TESTED):
        folder = tmp_path_factory.mktemp(settings.name)
        ground, serving = build(settings, folder)
        found[settings.name] = Made(Template.from_stack(ground), Template.from_stack(serving), folder)
    return found


@pytest.fixture(params=[USUAL.name, OTHER.name, ALONE.name, TESTED.name])
def each(request: pytest.FixtureRequest, made: dict[str, Made]) -> Made:
    return made[request.param]


@pytest.fixture
def usual(made: dict[str, Made]) -> Made:
    return made[USUAL.name]


@pytest.fixture
def tested(made: dict[str, Made]) -> Made:
    return made[TESTED.name]


@pytest.fixture
def other(made: dict[str, Made]) -> Made:
    return made[OTHER.name]


def statements(each: Made) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every statement of every role, of every policy to attach and of every door out of the network."""
    for template in (each.ground, each.serving):
        for name, resource in template.to_json()["Resources"].items():
            properties = resource.get("Properties", {})
            documents = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
            whole = resource["Type"] in ("AWS::EC2::VPCEndpoint", "AWS::IAM::ManagedPolicy")
            documents += [properties["PolicyDocument"]] if whole else []
            for document in documents:
                yield from ((name, statement) for statement in document["Statement"])


def gateways(made: Made) -> list[dict[str, Any]]:
    """The Lambda that answers, without the probe; none on the direct route."""
    found = made.serving.find_resources("AWS::Lambda::Function").values()
    return [one for one in found if one["Properties"]["FunctionName"].endswith("-gateway")]


def alarm(made: Made, name: str) -> dict[str, Any]:
    found = made.serving.find_resources("AWS::CloudWatch::Alarm").values()
    [properties] = [one["Properties"] for one in found if one["Properties"]["AlarmName"] == name]
    return dict(properties)


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


class TestRoles:
    def test_no_action_is_given_by_pattern(self, each: Made) -> None:
        given = [action for _, statement in statements(each) for action in listed(statement["Action"])]
        assert given
        assert [action for action in given if "*" in action] == []

    def test_everything_stands_only_where_aws_knows_nothing_narrower(self, each: Made) -> None:
        for name, statement in statements(each):
            if statement["Effect"] == "Allow" and "*" in listed(statement["Resource"]):
                assert set(listed(statement["Action"])) <= TAKE_NO_RESOURCE, name
            elif statement["Effect"] == "Allow":  # narrower, AWS allows none of these
                assert not set(listed(statement["Action"])) & TAKE_NO_RESOURCE, name

    def test_no_role_brings_a_managed_policy_along_but_those_that_aws_asks_for(self, each: Made) -> None:
        for template in (each.ground, each.serving):
            for name, role in template.find_resources("AWS::IAM::Role").items():
                of_aws = "CloudWatchRole" in name or "ShiftServiceRole" in name  # API Gateway's and CodeDeploy's
                assert ("ManagedPolicyArns" in role["Properties"]) == of_aws
            template.resource_count_is("AWS::IAM::Policy", 0)

    def test_the_lambda_may_ask_one_endpoint_and_read_one_table(self, usual: Made) -> None:
        (role,) = [
            r for name, r in usual.serving.find_resources("AWS::IAM::Role").items() if name.startswith("Function")
        ]
        allowed = [
            s for s in role["Properties"]["Policies"][0]["PolicyDocument"]["Statement"] if s["Effect"] == "Allow"
        ]
        by_action = {action: s["Resource"] for s in allowed for action in listed(s["Action"])}
        assert by_action.keys() == {
            "sagemaker:InvokeEndpoint",
            "dynamodb:GetItem",
            "logs:CreateLogStream",
            "logs:PutLogEvents",
            *NETWORK,
        }
        assert by_action["sagemaker:InvokeEndpoint"]["Fn::Join"][1][-1].endswith(":endpoint/firstspin")

    @pytest.mark.parametrize(
        ("role", "reads", "writes"),
        [
            ("ModelRole", {"models"}, {"capture"}),
            ("TrainingRole", {"data", "checkpoints"}, {"models", "checkpoints"}),
            ("TransformRole", {"models", "transform/asked"}, {"transform/answered"}),
        ],
    )
    def test_what_sagemaker_runs_touches_its_own_folders_alone(
        self, each: Made, role: str, reads: set[str], writes: set[str]
    ) -> None:
        found: dict[str, set[str]] = {"s3:GetObject": set(), "s3:PutObject": set()}
        for name, one in statements(each):
            for action in found.keys() & set(listed(one["Action"])) if name.startswith(role) else ():
                places = [place["Fn::Join"][1][-1] for place in listed(one["Resource"])]
                found[action] |= {place.removeprefix("/").removesuffix("/*") for place in places}
        assert found == {"s3:GetObject": reads, "s3:PutObject": writes}

    def test_the_lambdas_own_code_may_not_touch_the_network(self, usual: Made) -> None:
        denied = [s for _, s in statements(usual) if s["Effect"] == "Deny"]
        assert [set(s["Action"]) for s in denied] == [set(NETWORK)]
        assert "lambda:SourceFunctionArn" in denied[0]["Condition"]["ArnEquals"]


class TestPeople:
    """Managed policies for whoever releases, scores and forwards."""

    @staticmethod
    def rights(made: Made, policy: str) -> list[dict[str, Any]]:
        return [s for name, s in statements(made) if name.startswith(policy)]

    def test_the_releaser_may_all_that_the_commands_call_and_nothing_else(self, usual: Made) -> None:
        prefixes = {
            "sagemaker": "sagemaker",
            "s3": "s3",
            "scaling": "application-autoscaling",
            "cloudwatch": "cloudwatch",
        }
        called = {"iam:PassRole", "s3:ListBucket"}
        for name in ("rollout", "endpoint", "autoscaling", "alarms", "pruning", "model_registry"):
            source = (ROOT / "src" / "firstspin" / "aws" / f"{name}.py").read_text(encoding="utf-8")
            direct_or_paged = r"\b(sagemaker|s3|scaling|cloudwatch)(?:\.|, \")([a-z]+_[a-z_]+)\b"
            for client, verb in re.findall(direct_or_paged, source):
                action = verb.title().replace("_", "").replace("Head", "Get")
                called.add(f"{prefixes[client]}:{action}")
        allowed = {action for one in self.rights(usual, "Releaser") for action in listed(one["Action"])}
        assert allowed == called

    def test_the_releaser_passes_the_models_role_to_sagemaker_alone(self, usual: Made) -> None:
        [passing] = [one for one in self.rights(usual, "Releaser") if one["Action"] == "iam:PassRole"]
        assert passing["Resource"]["Fn::GetAtt"][0].startswith("ModelRole")
        assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}

    def test_the_releaser_touches_models_alone_and_alarms_of_releases(self, usual: Made) -> None:
        rights = json.dumps(self.rights(usual, "Releaser"))
        assert '"s3:prefix": ["models/*"]' in rights
        assert set(re.findall(r'"/([a-z/]+)/\*"', rights)) == {"models"}
        [change] = [one for one in self.rights(usual, "Releaser") if "cloudwatch:PutMetricAlarm" in one["Action"]]
        assert change["Resource"]["Fn::Join"][1][-1].endswith(":alarm:firstspin-endpoint-*-release")

    def test_the_scorer_writes_the_table_and_nothing_else(self, usual: Made) -> None:
        [write] = self.rights(usual, "Scorer")
        assert write["Action"] == ["dynamodb:BatchWriteItem", "dynamodb:GetItem", "dynamodb:PutItem"]
        assert write["Resource"]["Fn::GetAtt"][0].startswith("Scores")

    def test_policies_are_outputs(self, each: Made) -> None:
        outputs = each.ground.to_json()["Outputs"].keys()
        assert {"ReleaserPolicyArn", "ScorerPolicyArn", "ForwarderPolicyArn"} <= outputs

    def test_the_lambda_asks_the_endpoint_through_the_private_network_alone(self, usual: Made) -> None:
        [ask] = [
            one
            for name, one in statements(usual)
            if name.startswith("Function") and one["Action"] == "sagemaker:InvokeEndpoint"
        ]
        assert "NetworkRuntime" in json.dumps(ask["Condition"]["StringEquals"]["aws:SourceVpce"])


class TestKey:
    """A customer-managed key, where the settings name one."""

    KEY = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"

    def test_all_that_holds_data_is_encrypted_by_it(self, other: Made, usual: Made) -> None:
        places = {
            "AWS::S3::Bucket": "BucketEncryption",
            "AWS::DynamoDB::Table": "SSESpecification",
            "AWS::ECR::Repository": "EncryptionConfiguration",
            "AWS::KinesisFirehose::DeliveryStream": "DeliveryStreamEncryptionConfigurationInput",
        }
        for kind, encryption in places.items():
            for resource in other.ground.find_resources(kind).values():
                assert self.KEY in json.dumps(resource["Properties"][encryption])
        assert "arn:aws:kms" not in json.dumps(usual.ground.to_json())

    def test_every_role_that_reads_or_writes_may_use_it(self, other: Made) -> None:
        users = {name.rstrip("0123456789ABCDEF") for name, one in statements(other) if one["Resource"] == self.KEY}
        roles = {"ModelRole", "TrainingRole", "TransformRole", "Delivery", "ProbeRole"}
        assert users == roles | {"Releaser", "Scorer"}
        for name, one in statements(other):
            if one["Resource"] == self.KEY and not name.startswith("Releaser"):
                assert one["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]

    def test_the_releaser_lets_sagemaker_encrypt_volumes_by_it(self, other: Made, usual: Made) -> None:
        of_key = [one for name, one in statements(other) if name.startswith("Releaser") and one["Resource"] == self.KEY]
        by_action = {action: one.get("Condition") for one in of_key for action in listed(one["Action"])}
        assert by_action == {
            "kms:Decrypt": None,
            "kms:GenerateDataKey": None,
            "kms:DescribeKey": None,
            "kms:CreateGrant": {"Bool": {"kms:GrantIsForAWSResource": "true"}},
        }
        assert "kms:" not in json.dumps([one for _, one in statements(usual)])


class TestScaling:
    def test_the_target_is_what_one_instance_holds_a_minute_times_the_safety(self, usual: Made) -> None:
        assert USUAL.scaling.target == 200 * 60 * 0.5
        usual.serving.has_resource_properties(
            "AWS::ApplicationAutoScaling::ScalingPolicy",
            {
                "PolicyType": "TargetTrackingScaling",
                "TargetTrackingScalingPolicyConfiguration": {
                    "TargetValue": 6000,
                    "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
                    "ScaleOutCooldown": 60,
                    "ScaleInCooldown": 600,
                },
            },
        )

    def test_by_ten_seconds_it_is_what_is_under_way_at_once(self, other: Made) -> None:
        assert OTHER.scaling.target == 400 * 0.02 * 0.5
        metric = {"PredefinedMetricType": "SageMakerVariantConcurrentRequestsPerModelHighResolution"}
        other.serving.all_resources_properties(
            "AWS::ApplicationAutoScaling::ScalingPolicy",
            {
                "TargetTrackingScalingPolicyConfiguration": Match.object_like(
                    {"TargetValue": 4, "PredefinedMetricSpecification": metric}
                )
            },
        )

    def test_the_variant_scales_within_its_bounds(self, other: Made) -> None:
        (target,) = other.serving.find_resources("AWS::ApplicationAutoScaling::ScalableTarget").values()
        assert target["Properties"]["ResourceId"] == "endpoint/other/variant/AllTraffic"
        assert (target["Properties"]["MinCapacity"], target["Properties"]["MaxCapacity"]) == (2, 10)

    def test_it_has_other_bounds_by_schedule(self, tested: Made, usual: Made) -> None:
        (target,) = tested.serving.find_resources("AWS::ApplicationAutoScaling::ScalableTarget").values()
        actions = target["Properties"]["ScheduledActions"]
        assert [(one["Schedule"], one["ScalableTargetAction"], one["Timezone"]) for one in actions] == [
            ("cron(0 16 * * ? *)", {"MinCapacity": 4, "MaxCapacity": 10}, "UTC"),
            ("cron(0 23 * * ? *)", {"MinCapacity": 2, "MaxCapacity": 10}, "UTC"),
        ]
        (target,) = usual.serving.find_resources("AWS::ApplicationAutoScaling::ScalableTarget").values()
        assert "ScheduledActions" not in target["Properties"]

    def test_it_can_be_taken_away(self, made: dict[str, Made]) -> None:
        for kind in ("ScalableTarget", "ScalingPolicy"):
            made["alone"].serving.resource_count_is(f"AWS::ApplicationAutoScaling::{kind}", 0)


class TestDoor:
    def test_callers_are_known_by_iam_and_metered_by_a_key(self, each: Made) -> None:
        each.serving.all_resources_properties(
            "AWS::ApiGateway::Method", {"AuthorizationType": "AWS_IAM", "ApiKeyRequired": True, "HttpMethod": "POST"}
        )

    def test_stage_and_keys_are_throttled(self, other: Made) -> None:
        settings = {"ThrottlingRateLimit": 500, "ThrottlingBurstLimit": 1000}
        other.serving.has_resource_properties(
            "AWS::ApiGateway::Stage", {"MethodSettings": [Match.object_like(settings)]}
        )
        other.serving.resource_count_is("AWS::ApiGateway::UsagePlan", 2)
        other.serving.resource_count_is("AWS::ApiGateway::UsagePlanKey", 2)
        other.serving.all_resources_properties(
            "AWS::ApiGateway::UsagePlan",
            {"Quota": {"Limit": 10_000_000, "Period": "DAY"}, "Throttle": {"RateLimit": 500, "BurstLimit": 1000}},
        )

    def test_the_lambda_ends_after_its_budget_and_before_api_gateway_gives_up(self, usual: Made) -> None:
        (function,) = gateways(usual)
        assert float(function["Properties"]["Environment"]["Variables"]["FIRSTSPIN_BUDGET"]) == USUAL.front.budget
        assert USUAL.front.budget < function["Properties"]["Timeout"] < 29

    def test_the_lambda_and_the_endpoints_container_are_told_the_same_about_age(self, other: Made, usual: Made) -> None:
        (function,) = gateways(usual)
        policy = {"FIRSTSPIN_LEAST_AGE": "16", "FIRSTSPIN_UNDER_AGE": "refuse"}
        assert function["Properties"]["Environment"]["Variables"].items() >= policy.items()
        for made, least_age, under_age in ((usual, "16", "refuse"), (other, "13", "answer")):
            made.ground.has_output("LeastAge", {"Value": least_age})
            made.ground.has_output("UnderAge", {"Value": under_age})
        walk = (ROOT / "docs" / "sagemaker.md").read_text(encoding="utf-8")
        assert '--variable "FIRSTSPIN_LEAST_AGE=$(output firstspin-ground LeastAge)"' in walk
        assert '--variable "FIRSTSPIN_UNDER_AGE=$(output firstspin-ground UnderAge)"' in walk

    def test_the_direct_route_has_no_lambda_and_passes_no_error_on(self, other: Made) -> None:
        assert gateways(other) == []
        (method,) = other.serving.find_resources("AWS::ApiGateway::Method").values()
        integration = method["Properties"]["Integration"]
        uri = "".join(part for part in integration["Uri"]["Fn::Join"][1] if isinstance(part, str))
        assert uri.endswith(":runtime.sagemaker:path/endpoints/other/invocations")
        assert (integration["Type"], integration["IntegrationHttpMethod"]) == ("AWS", "POST")
        failing = [answer for answer in integration["IntegrationResponses"] if answer["StatusCode"] != "200"]
        assert failing
        assert all("unavailable" in answer["ResponseTemplates"]["application/json"] for answer in failing)


class TestEdge:
    def test_each_request_is_logged_without_a_body_or_an_address(self, each: Made) -> None:
        (stage,) = each.serving.find_resources("AWS::ApiGateway::Stage").values()
        log = stage["Properties"]["AccessLogSetting"]
        logged = json.loads(log["Format"])
        assert {"$context.status", "$context.responseLatency"} <= set(logged.values())
        assert not [value for value in logged.values() if "sourceIp" in value or "user" in value.lower()]
        assert log["DestinationArn"]

    def test_the_accounts_role_for_logs_can_be_left_as_it_is(self, usual: Made, other: Made) -> None:
        usual.serving.resource_count_is("AWS::ApiGateway::Account", 1)
        other.serving.resource_count_is("AWS::ApiGateway::Account", 0)

    def test_the_lambda_has_its_own_concurrency_of_rate_times_budget(self, usual: Made) -> None:
        (function,) = gateways(usual)
        assert function["Properties"]["ReservedConcurrentExecutions"] == 300
        assert USUAL.front.requests_a_second * USUAL.front.budget == 300

    def test_a_firewall_stands_before_the_stage_where_it_is_wanted(self, usual: Made, other: Made) -> None:
        usual.serving.resource_count_is("AWS::WAFv2::WebACL", 0)
        (acl,) = other.serving.find_resources("AWS::WAFv2::WebACL").values()
        assert (acl["Properties"]["Scope"], len(acl["Properties"]["Rules"])) == ("REGIONAL", 2)
        other.serving.has_resource_properties(
            "AWS::WAFv2::WebACLAssociation", {"ResourceArn": Match.any_value(), "WebACLArn": Match.any_value()}
        )


class TestShift:
    def test_a_new_zip_or_setting_is_a_new_version_that_takes_requests_little_by_little(self, tested: Made) -> None:
        (version,) = tested.serving.find_resources("AWS::Lambda::Version").values()
        assert {"Ref": "LambdaKey"} in version["Properties"]["Description"]["Fn::Join"][1]
        (function,) = gateways(tested)  # Lambda publishes no second version of an unchanged function
        assert function["Properties"]["Description"] == version["Properties"]["Description"]
        ((name, alias),) = tested.serving.find_resources("AWS::Lambda::Alias").items()
        assert alias["Properties"]["Name"] == "live"
        assert "CodeDeployLambdaAliasUpdate" in alias["UpdatePolicy"]
        for method in tested.serving.find_resources("AWS::ApiGateway::Method").values():
            assert name in json.dumps(method["Properties"]["Integration"]["Uri"])

    def test_it_is_taken_back_by_errors_and_by_the_share_of_fallbacks(self, tested: Made) -> None:
        (group,) = tested.serving.find_resources("AWS::CodeDeploy::DeploymentGroup").values()
        properties = group["Properties"]
        assert "LambdaCanary10Percent15Minutes" in json.dumps(properties["DeploymentConfigName"])
        slowest = alarm(tested, "tested-fallback-share")
        assert slowest["EvaluationPeriods"] * 300 < 15 * 60 / 2  # of a metric by 5 minutes
        assert "DEPLOYMENT_STOP_ON_ALARM" in properties["AutoRollbackConfiguration"]["Events"]
        watched = json.dumps(properties["AlarmConfiguration"])
        assert len(properties["AlarmConfiguration"]["Alarms"]) == 2
        assert ("fallbackshare" in watched, "lambdaerrors" in watched) == (True, True)

    def test_at_once_needs_none_of_it(self, usual: Made) -> None:
        for kind in ("Lambda::Version", "Lambda::Alias", "CodeDeploy::DeploymentGroup"):
            usual.serving.resource_count_is(f"AWS::{kind}", 0)


class TestRetention:
    def test_what_may_hold_personal_data_expires(self, each: Made) -> None:
        found = {}
        for name, bucket in each.ground.find_resources("AWS::S3::Bucket").items():
            for rule in bucket["Properties"]["LifecycleConfiguration"]["Rules"]:
                if "ExpirationInDays" in rule:
                    found[name.rstrip("0123456789ABCDEF"), rule.get("Prefix", "")] = rule["ExpirationInDays"]
        assert found == {
            ("Artifacts", "data/"): 90,
            ("Artifacts", "transform/"): 30,
            ("Artifacts", "capture/"): 30,
            ("Events", ""): 400,
        }

    def test_what_was_deleted_or_replaced_expires_in_the_whole_bucket(self, each: Made) -> None:
        found = {}
        for name, bucket in each.ground.find_resources("AWS::S3::Bucket").items():
            rules = bucket["Properties"]["LifecycleConfiguration"]["Rules"]
            older = [one for one in rules if "NoncurrentVersionExpiration" in one]
            days = [one["NoncurrentVersionExpiration"]["NoncurrentDays"] for one in older if "Prefix" not in one]
            assert all(one["ExpiredObjectDeleteMarker"] for one in older)
            found[name.rstrip("0123456789ABCDEF")] = days
        assert found == {"Artifacts": [30], "Events": []}  # which has no versions

    def test_every_log_ends_and_so_does_the_endpoints(self, each: Made) -> None:
        for template in (each.ground, each.serving):
            template.all_resources_properties("AWS::Logs::LogGroup", {"RetentionInDays": 30})
        (log,) = each.ground.find_resources("AWS::Logs::LogGroup").values()
        name = each.folder.name.rstrip("0123456789")
        assert log["Properties"]["LogGroupName"] == f"/aws/sagemaker/Endpoints/{name}"


class TestNetwork:
    def test_there_is_no_way_out(self, each: Made) -> None:
        for kind in ("InternetGateway", "NatGateway", "Route", "EgressOnlyInternetGateway"):
            each.ground.resource_count_is(f"AWS::EC2::{kind}", 0)

    def test_doors_lead_to_what_the_lambda_needs_alone(self, made: dict[str, Made]) -> None:
        needed = {"sagemaker:InvokeEndpoint", "dynamodb:GetItem"}
        for settings in (USUAL, OTHER, ALONE, TESTED):
            doors = made[settings.name].ground.find_resources("AWS::EC2::VPCEndpoint").values()
            allowed = [d["Properties"]["PolicyDocument"]["Statement"][0]["Action"] for d in doors]
            further = {"firehose:PutRecordBatch"} if settings.experiment.running else set()
            assert len(allowed) == len(needed | further)
            assert set(allowed) == needed | further

    def test_the_lambda_lies_inside(self, usual: Made) -> None:
        usual.serving.has_resource_properties(
            "AWS::Lambda::Function",
            {"VpcConfig": {"SubnetIds": Match.any_value(), "SecurityGroupIds": Match.any_value()}},
        )


class TestProbe:
    def test_it_measures_this_endpoint_and_this_table_by_its_own_few_rights(self, usual: Made) -> None:
        [function] = [
            one["Properties"]
            for one in usual.serving.find_resources("AWS::Lambda::Function").values()
            if one["Properties"]["FunctionName"] == "firstspin-probe"
        ]
        variables = function["Environment"]["Variables"]
        assert (variables["ENDPOINT"], variables["VARIANT"], variables["NAMESPACE"]) == (
            "firstspin",
            "AllTraffic",
            "firstspin",
        )
        assert function["Code"]["ZipFile"] == (HERE / "probe" / "index.py").read_text()
        allowed = {a for name, one in statements(usual) if name.startswith("Probe") for a in listed(one["Action"])}
        assert allowed == {
            "application-autoscaling:DescribeScalableTargets",
            "cloudwatch:PutMetricData",
            "dynamodb:GetItem",
            "logs:CreateLogStream",
            "logs:PutLogEvents",
            "sagemaker:DescribeEndpoint",
        }

    def test_it_runs_every_five_minutes(self, each: Made) -> None:
        each.serving.has_resource_properties("AWS::Events::Rule", {"ScheduleExpression": "rate(5 minutes)"})


class TestExperiment:
    def test_the_lambda_has_the_plan_the_key_and_the_stream(self, tested: Made, usual: Made) -> None:
        def variables(made: Made) -> dict[str, Any]:
            (function,) = gateways(made)
            found: dict[str, Any] = function["Properties"]["Environment"]["Variables"]
            return found

        added = {name: value for name, value in variables(tested).items() if name not in variables(usual)}
        assert added == {
            "FIRSTSPIN_EXPERIMENT": "/var/task/experiment.toml",
            "FIRSTSPIN_EVENTS_KEY": "{{resolve:secretsmanager:tested-events-key:SecretString}}",
            "FIRSTSPIN_EXPOSURES_STREAM": "tested-exposures",
        }
        known = (ROOT / "src" / "firstspin" / "aws" / "front" / "experiment.py").read_text(encoding="utf-8")
        assert all(f'"{name}"' in known for name in added)

    def test_the_lambda_may_send_exposures_and_no_events(self, tested: Made) -> None:
        [statement] = [
            s
            for name, s in statements(tested)
            if name.startswith("Function") and s["Action"] == "firehose:PutRecordBatch"
        ]
        assert "DeliverExposures" in json.dumps(statement["Resource"])
        assert "DeliverEvents" not in json.dumps(statement["Resource"])

    def test_users_have_a_route_of_their_own_where_there_is_a_lambda(self, tested: Made, other: Made) -> None:
        for made, routes in ((tested, {"invocations", "recommendations"}), (other, {"invocations"})):
            found = made.serving.find_resources("AWS::ApiGateway::Resource").values()
            assert {one["Properties"]["PathPart"] for one in found} == routes

    def test_an_exposure_that_is_lost_wakes_someone(self, tested: Made, usual: Made) -> None:
        tested.serving.has_resource_properties("AWS::Logs::MetricFilter", {"FilterPattern": '"exposures_dropped"'})
        alarm = {"AlarmName": "tested-exposures-dropped", "Threshold": 0, "AlarmActions": [Match.any_value()]}
        tested.serving.has_resource_properties("AWS::CloudWatch::Alarm", alarm)
        known = (ROOT / "src" / "firstspin" / "aws" / "front" / "experiment.py").read_text(encoding="utf-8")
        assert 'EXPOSURES_DROPPED: Final = "exposures_dropped"' in known
        usual.serving.resource_count_is("AWS::Logs::MetricFilter", 1)


class TestData:
    def test_the_table_is_the_one_that_score_writes(self, each: Made) -> None:
        each.ground.has_resource_properties(
            "AWS::DynamoDB::Table",
            {
                "KeySchema": [
                    {"AttributeName": "user_id", "KeyType": "HASH"},
                    {"AttributeName": "version", "KeyType": "RANGE"},
                ],
                "TimeToLiveSpecification": {"AttributeName": "expires", "Enabled": True},
            },
        )

    def test_buckets_are_closed_and_encrypted(self, each: Made) -> None:
        closed = dict.fromkeys(
            ["BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"], True
        )
        each.ground.all_resources_properties(
            "AWS::S3::Bucket",
            {"PublicAccessBlockConfiguration": closed, "BucketEncryption": Match.any_value()},
        )

    def test_an_image_with_a_tag_is_kept_as_it_may_serve(self, each: Made) -> None:
        (repository,) = each.ground.find_resources("AWS::ECR::Repository").values()
        (rule,) = json.loads(repository["Properties"]["LifecyclePolicy"]["LifecyclePolicyText"])["rules"]
        assert rule["selection"]["tagStatus"] == "untagged"

    def test_what_is_kept_stands_in_the_way_of_no_second_try(self, each: Made) -> None:
        resources = [r for template in (each.ground, each.serving) for r in template.to_json()["Resources"].values()]
        kept = [one for one in resources if one.get("DeletionPolicy", "Delete") != "Delete"]
        named = [word for one in kept for word in one["Properties"] if word.endswith("Name")]
        types = sorted(one["Type"] for one in kept)
        assert types == ["AWS::ECR::Repository", "AWS::S3::Bucket", "AWS::S3::Bucket"]
        assert {one["DeletionPolicy"] for one in kept} == {"RetainExceptOnCreate"}
        assert named == []

    def test_whoever_forwards_events_may_send_to_the_two_streams_alone(self, each: Made) -> None:
        (statement,) = [one for name, one in statements(each) if name.startswith("Forwarder")]
        assert statement["Action"] == "firehose:PutRecordBatch"
        streams = each.ground.find_resources("AWS::KinesisFirehose::DeliveryStream")
        assert {one["Fn::GetAtt"][0] for one in statement["Resource"]} == streams.keys()
        assert "ForwarderPolicyArn" in each.ground.to_json()["Outputs"]

    def test_events_go_to_a_folder_a_day(self, each: Made) -> None:
        streams = each.ground.find_resources("AWS::KinesisFirehose::DeliveryStream").values()
        prefixes = {s["Properties"]["ExtendedS3DestinationConfiguration"]["Prefix"] for s in streams}
        assert prefixes == {f"{kind}/day=!{{timestamp:yyyy-MM-dd}}/" for kind in ("exposures", "events")}


class TestAlarms:
    @pytest.mark.parametrize(
        "name",
        [
            "endpoint-5xx",
            "endpoint-failed",
            "endpoint-latency",
            "endpoint-latency-mean",
            "api-5xx",
            "fallback-share",
            "lambda-errors",
        ],
    )
    def test_someone_is_told(self, usual: Made, name: str) -> None:
        usual.serving.has_resource_properties(
            "AWS::CloudWatch::Alarm",
            {"AlarmName": f"firstspin-{name}", "AlarmActions": [Match.any_value()], "TreatMissingData": "notBreaching"},
        )

    def test_everyone_of_them_tells(self, each: Made) -> None:
        each.serving.all_resources_properties("AWS::CloudWatch::Alarm", {"AlarmActions": [Match.any_value()]})

    @pytest.mark.parametrize(
        ("name", "metric", "threshold", "operator", "missing"),
        [
            ("scaling-gone", "scalable_targets", 1, "LessThanThreshold", "breaching"),
            ("instances-at-max", "instances_left", 0, "LessThanOrEqualToThreshold", "notBreaching"),
            ("answers-old", "answers_age_hours", 48, "GreaterThanThreshold", "notBreaching"),
            ("traffic-gone", "Count", 1, "LessThanThreshold", "breaching"),
            ("lambda-throttles", "Throttles", 0, "GreaterThanThreshold", "notBreaching"),
            ("events-late", "DeliveryToS3.DataFreshness", 1800, "GreaterThanThreshold", "notBreaching"),
            ("exposures-late", "DeliveryToS3.DataFreshness", 1800, "GreaterThanThreshold", "notBreaching"),
        ],
    )
    def test_what_fails_in_silence_is_watched(
        self, usual: Made, name: str, metric: str, threshold: float, operator: str, missing: str
    ) -> None:
        found = alarm(usual, f"firstspin-{name}")
        assert (found["MetricName"], found["Threshold"]) == (metric, threshold)
        assert (found["ComparisonOperator"], found["TreatMissingData"]) == (operator, missing)

    def test_traffic_is_missed_after_an_hour_and_deliveries_by_their_own_stream(self, usual: Made) -> None:
        gone = alarm(usual, "firstspin-traffic-gone")
        assert gone["Period"] * gone["EvaluationPeriods"] == 3600
        for kind in ("events", "exposures"):
            dimension = {"Name": "DeliveryStreamName", "Value": f"firstspin-{kind}"}
            assert alarm(usual, f"firstspin-{kind}-late")["Dimensions"] == [dimension]

    def test_the_cost_table_counts_them_all(self, usual: Made) -> None:
        usual.serving.resource_count_is("AWS::CloudWatch::Alarm", costs.ALARMS)

    def test_where_nothing_scales_no_target_is_missed(self, made: dict[str, Made]) -> None:
        alarms = json.dumps(made["alone"].serving.to_json())
        assert "alone-scaling-gone" not in alarms
        assert "alone-answers-old" in alarms

    def test_cpu_and_memory_are_on_the_dashboard(self, each: Made) -> None:
        (dashboard,) = each.serving.find_resources("AWS::CloudWatch::Dashboard").values()
        body = json.dumps(dashboard["Properties"]["DashboardBody"])
        assert all(metric in body for metric in ("CPUUtilization", "MemoryUtilization", "/aws/sagemaker/Endpoints"))

    def test_a_container_that_resets_connections_takes_a_release_back(self, usual: Made) -> None:
        usual.serving.has_resource_properties(
            "AWS::CloudWatch::Alarm",
            {
                "AlarmName": "firstspin-endpoint-failed",
                "Namespace": "AWS/SageMaker",
                "MetricName": "InvocationModelErrors",
                "Statistic": "Average",
                "Threshold": 0.05,
                "ComparisonOperator": "GreaterThanThreshold",
            },
        )

    def test_the_alarms_that_the_docs_name_are_there(self, usual: Made) -> None:
        named = re.findall(
            r"--alarm\s+(firstspin-[a-z0-9-]+)", (ROOT / "docs/sagemaker.md").read_text(encoding="utf-8")
        )
        alarms = usual.serving.find_resources("AWS::CloudWatch::Alarm").values()
        of_endpoint = {
            one["Properties"]["AlarmName"] for one in alarms if "-endpoint-" in one["Properties"]["AlarmName"]
        }
        assert set(named) == of_endpoint
        [used] = re.findall(r"^ALARMS = \((.+)\)$", (ROOT / "deploy/airflow/dags/daily.py").read_text(), re.MULTILINE)
        assert {f"firstspin-endpoint-{name}" for name in re.findall(r'"([a-z0-9-]+)"', used)} == of_endpoint

    def test_the_endpoints_role_and_the_releaser_see_every_alarm_also_composite_ones(
        self, usual: Made, other: Made
    ) -> None:
        for made in (usual, other):
            seeing = [one for one in statements(made) if "cloudwatch:DescribeAlarms" in listed(one[1]["Action"])]
            assert {name.rstrip("0123456789ABCDEF") for name, _ in seeing} == {"ModelRole", "Releaser"}
            assert [one["Resource"] for _, one in seeing] == ["*", "*"]

    def test_the_releaser_writes_the_copies_of_the_endpoints_alarms(self, usual: Made) -> None:
        named = [
            one["Properties"]["AlarmName"] for one in usual.serving.find_resources("AWS::CloudWatch::Alarm").values()
        ]
        alarms = [name for name in named if "-endpoint-" in name]
        [write] = [one for _, one in statements(usual) if "cloudwatch:PutMetricAlarm" in listed(one["Action"])]
        pattern = write["Resource"]["Fn::Join"][1][-1].removeprefix(":alarm:")
        assert len(alarms) == 4
        assert all(fnmatchcase(f"{name}-release", pattern) for name in alarms)
        assert not any(fnmatchcase(name, pattern) for name in alarms)

    def test_the_variant_that_deploy_makes_is_the_one_watched(self, other: Made) -> None:
        watched = {
            one["Value"]
            for alarm in other.serving.find_resources("AWS::CloudWatch::Alarm").values()
            for one in alarm["Properties"].get("Dimensions", [])
            if one["Name"] == "VariantName"
        }
        assert watched == {"AllTraffic"}

    def test_who_is_named_is_written_to(self, usual: Made, other: Made) -> None:
        other.serving.has_resource_properties(
            "AWS::SNS::Subscription", {"Protocol": "email", "Endpoint": "oncall@example.org"}
        )
        usual.serving.resource_count_is("AWS::SNS::Subscription", 0)
        assert "AlarmTopicArn" in usual.serving.to_json()["Outputs"]

    def test_latency_is_counted_in_microseconds(self, usual: Made) -> None:
        usual.serving.has_resource_properties(
            "AWS::CloudWatch::Alarm",
            {"MetricName": "ModelLatency", "ExtendedStatistic": "p99", "Threshold": 50_000},
        )

    def test_the_p99_of_a_few_samples_takes_no_release_back(self, each: Made) -> None:
        for alarm in each.serving.find_resources("AWS::CloudWatch::Alarm").values():
            of_percentile = "ExtendedStatistic" in alarm["Properties"]
            assert ("EvaluateLowSampleCountPercentile" in alarm["Properties"]) == of_percentile
        each.serving.has_resource_properties(
            "AWS::CloudWatch::Alarm", {"MetricName": "ModelLatency", "EvaluateLowSampleCountPercentile": "ignore"}
        )

    def test_a_slow_release_is_seen_at_any_rate(self, usual: Made) -> None:
        mean = alarm(usual, "firstspin-endpoint-latency-mean")
        assert (mean["MetricName"], mean["Statistic"], mean["Threshold"]) == ("ModelLatency", "Average", 25_000)
        assert mean["Period"] * mean["EvaluationPeriods"] == 120
        assert "EvaluateLowSampleCountPercentile" not in mean

    def test_a_release_is_watched_longer_than_its_slowest_alarm_needs(self, usual: Made) -> None:
        alarms = [one["Properties"] for one in usual.serving.find_resources("AWS::CloudWatch::Alarm").values()]
        of_endpoint = [one for one in alarms if one["AlarmName"].startswith("firstspin-endpoint-")]
        deployment = (ROOT / "src" / "firstspin" / "aws" / "deployment.py").read_text(encoding="utf-8")
        [bake] = re.findall(r"^BAKE_SECONDS, MAX_BAKE_SECONDS = (\d+),", deployment, re.MULTILINE)
        assert len(of_endpoint) == 4
        assert max(one["Period"] * one["EvaluationPeriods"] for one in of_endpoint) < int(bake) / 2

    def test_the_fallback_is_counted_by_the_event_that_the_gateway_logs(self, usual: Made) -> None:
        usual.serving.has_resource_properties("AWS::Logs::MetricFilter", {"FilterPattern": '"fell_back"'})
        gateway = ROOT / "src" / "firstspin" / "aws" / "front" / "gateway.py"
        assert '_log("fell_back"' in gateway.read_text(encoding="utf-8")


def test_every_template_is_clean(made: dict[str, Made]) -> None:
    templates = [str(path) for each in made.values() for path in each.folder.glob("*.template.json")]
    assert len(templates) == 8
    lint = [str(Path(sys.executable).with_name("cfn-lint")), *templates]
    run = subprocess.run(lint, cwd=HERE, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


def test_nothing_is_an_asset(each: Made) -> None:
    assert [path.name for path in each.folder.iterdir() if path.name.startswith("asset.")] == []


def test_the_settings_of_the_file_are_those_of_the_code() -> None:
    assert read_settings(HERE / "settings.toml") == Settings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nam = 'x'", "nam is no setting"),
        ("[scaling]\nsaftey = 0.5", "scaling.saftey is no setting"),
        ("[scaling]\nsafety = 1.5", "scaling.safety must be"),
        ("[scaling]\nmetric = 'hour'", "scaling.metric must be"),
        ("[scaling]\nload_test_rps = 0", "scaling.load_test_rps must be"),
        ("[front]\nroute = 'ftp'", "front.route must be"),
        ("[front]\nbudget = 40", "front.budget must be"),
        ("[front]\nbudget = '1'", "front.budget must be a number"),
        ("[front]\nconsumers = 'backend'", "front.consumers must be a list of texts"),
        ("[front]\nconsumers = [1]", "front.consumers must be a list of texts"),
        ("[front]\nconsumers = []", "front.consumers must be one name at least"),
        ("[front]\nconsumers = ['web', 'web']", "front.consumers must be one name at least, none twice"),
        ("[front]\nconsumers = ['Web App']", "front.consumers must be names of 2 to 40 lower-case letters"),
        ("[front]\nmemory = -1", "front.memory must be 128 to 10240 MB"),
        ("[front]\nmemory = 64", "front.memory must be 128 to 10240 MB"),
        ("[front]\nburst = -1", "front.burst must be at least 1"),
        ("[front]\nburst = true", "front.burst must be a whole number"),
        ("[front]\nshift = 'slow'", "front.shift must be one of 'at once', 'canary', 'linear'"),
        ("[scaling]\nschedule = ['4 at noon']", "scaling.schedule must be a list such as"),
        ("[scaling]\nschedule = ['4-2 at rate(1 day)']", "scaling.schedule must be a list such as"),
        ("[endpoint]\nserverless = true", "scaling.enabled must be false where endpoint.serverless"),
        ("[front]\nconcurrency = -1", "front.concurrency must be at least 1, or 0"),
        ("[retention]\nevents_days = 0", "retention.events_days must be at least 1 day"),
        ("[front]\nquota_a_day = 0", "front.quota_a_day must be at least 1"),
        ("[front]\nquota_a_day = 9999999999", "front.quota_a_day must be a whole number"),
        ("[front]\nrequests_a_second = 0", "front.requests_a_second must be at least 1"),
        ("[endpoint]\nvariant = ''", "endpoint.variant must be up to 63 letters"),
        ("[endpoint]\ninstance = 'c6i.large'", "endpoint.instance must be a type such as ml"),
        ("[scaling]\nenabled = 1", "scaling.enabled must be true or false"),
        ("[alarms]\nfailed_percent = 101", "alarms.failed_percent must be 0 to 100"),
        ("[alarms]\nemail = 'on call'", "alarms.email must be an address"),
        (
            "[front]\nroute = 'direct'\n[experiment]\nrunning = true",
            "experiment.running must be false unless front.route",
        ),
        ("endpoint = 5", "endpoint must be a table"),
        ("[[endpoint]]", "endpoint must be a table"),
        ("[scaling]\nmetric = {}", "scaling.metric must be text"),
        ("[scaling]\nout_cooldown = -5", "scaling.out_cooldown must be at least 0"),
        ("[scaling]\nin_cooldown = -5", "scaling.in_cooldown must be at least 0"),
        ("[scaling]\nleast_instances = 2.5", "scaling.least_instances must be a whole number"),
        ("[scaling]\nleast_instances = '2'", "scaling.least_instances must be a whole number"),
        ("[scaling]\nleast_instances = 0", "scaling.least_instances must be at least 1"),
        ("[scaling]\nmost_instances = 1", "scaling.most_instances must be at least least_instances"),
        ("[scaling]\nload_test_seconds = 0", "scaling.load_test_seconds must be above 0"),
        ("[scaling]\nload_test_rps = '200'", "scaling.load_test_rps must be a number"),
        ("[scaling]\nload_test_rps = inf", "scaling.load_test_rps must be a number"),
        ("[scaling]\nload_test_rps = nan", "scaling.load_test_rps must be a number"),
        (f"[scaling]\nload_test_rps = {10**400}", "scaling.load_test_rps must be a number"),
        ("[alarms]\nlatency_p99_ms = 'x'", "alarms.latency_p99_ms must be a number"),
        ("[alarms]\nlatency_p99_ms = -1", "alarms.latency_p99_ms must be above 0"),
        ("[alarms]\nlatency_mean_ms = 0", "alarms.latency_mean_ms must be above 0"),
        ("[alarms]\nfallback_percent = -1", "alarms.fallback_percent must be 0 to 100"),
        ("[alarms]\nanswers_hours = 336", "alarms.answers_hours must be above 0 and under 336"),
        ("[alarms]\nquiet_minutes = 7", "alarms.quiet_minutes must be a multiple of 5"),
        ("name = ''", "name must be 2 to 40 lower-case letters, digits and single hyphens"),
        ("name = 'Bad Name!'", "name must be 2 to 40 lower-case letters"),
        ("name = 'double--hyphen'", "name must be 2 to 40 lower-case letters"),
        (f"name = '{41 * 'n'}'", "name must be 2 to 40 lower-case letters"),
        ("name = 5", "name must be text"),
        ("key_arn = 'alias/mine'", "key_arn must be the ARN of a KMS key"),
        ("region = ''", "region must be as AWS writes it"),
        ("name = ", "s.toml is not TOML: Invalid value"),
        ("a = " + 9999 * "[", "s.toml is not TOML: "),
        ("name = '\udcff'", "s.toml is not TOML: 'utf-8' codec"),
    ],
)
def test_a_setting_that_is_none_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "s.toml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(SettingsError, match=said) as caught:
        read_settings(tmp_path / "s.toml")
    assert "\n" not in str(caught.value)


def test_a_whole_number_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("name = 'two-words'\n[scaling]\nload_test_rps = 300\n")
    assert read_settings(tmp_path / "s.toml") == Settings(name="two-words", scaling=Scaling(load_test_rps=300.0))


def test_a_file_that_is_not_there_is_one_line_and_a_failure(tmp_path: Path) -> None:
    command = [sys.executable, "app.py", str(tmp_path / "none.toml")]
    run = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    said = f"{tmp_path}/none.toml can't be read: No such file or directory\n"
    assert (run.returncode, run.stdout, run.stderr) == (1, "", said)


def test_the_ground_stack_outputs_what_deploy_needs_and_no_stack_makes_the_endpoint(each: Made) -> None:
    assert {
        "ImageRepository",
        "ArtifactsBucket",
        "ModelRoleArn",
        "TrainingRoleArn",
        "TransformRoleArn",
        "ScoresTable",
    } <= each.ground.to_json()["Outputs"].keys()
    for kind in ("Model", "EndpointConfig", "Endpoint"):
        each.serving.resource_count_is(f"AWS::SageMaker::{kind}", 0)
