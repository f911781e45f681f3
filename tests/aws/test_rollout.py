"""Shipping a bundle: against moto's server, with the life of an endpoint that moto leaves out stood in for."""

from __future__ import annotations

import itertools
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import made_people
import pytest
from botocore.stub import Stubber
from botocore.validate import ParamValidator
from made_bundles import pack, pack_with_further_fields
from stand_in_sagemaker import ControlPlane, control_plane
from typer.testing import CliRunner, Result

from firstspin.aws import autoscaling, endpoint, model_registry, rollout
from firstspin.aws.clients import Account, open_account
from firstspin.aws.deployment import BACK, Rollout
from firstspin.aws.endpoint import EndpointState
from firstspin.aws.hosting import Hosting
from firstspin.aws.package import Packed, package, read_manifest
from firstspin.aws.rollout import ReleasePlan
from firstspin.cli.commands.aws.sagemaker import app
from firstspin.records import InputError
from firstspin.serving.bundle import load

ROLE = "arn:aws:iam::123456789012:role/firstspin-serves"
# moto knows no newer instances
HOSTING = Hosting("123456789012.dkr.ecr.us-east-1.amazonaws.com/firstspin:1", ROLE, "ml.c5.large")
PLAIN = Rollout()
PLACE = ("firstspin-models", "newcomers")
WATCHED: dict[str, Any] = {
    "Namespace": "AWS/SageMaker",
    "MetricName": "Invocation5XXErrors",
    "Dimensions": [{"Name": "EndpointName", "Value": "newcomers"}, {"Name": "VariantName", "Value": "AllTraffic"}],
    "Statistic": "Sum",
    "Period": 60,
    "EvaluationPeriods": 2,
    "Threshold": 3.0,
    "ComparisonOperator": "GreaterThanThreshold",
    "TreatMissingData": "notBreaching",
    "AlarmActions": ["arn:aws:sns:us-east-1:123456789012:firstspin-alarms"],
}
SCALED = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/newcomers/variant/AllTraffic",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles, and `data` with 1,300 users, most of them new to `good`, `better` and `worse`."""
    folder = tmp_path_factory.mktemp("bundles")
    for name, model in {"good": "popularity", "better": "logistic", "worse": "popularity"}.items():
        people = made_people.examples(400, len(name))
        pack(folder / name, model, people=people, data={"labels_end": "2025-01-06T00:00:00"})
    made_people.tables(folder / "data", 1300, hours=2)
    pack_with_further_fields(folder / "more")
    for seed in range(10, 16):
        pack(folder / str(seed), seed=seed)
    return folder


@pytest.fixture(scope="module")
def opened() -> Iterator[tuple[ControlPlane, Account]]:
    with control_plane() as server, pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "none")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.setenv("AWS_ENDPOINT_URL", server.url)
        yield server, open_account()


@pytest.fixture
def account(opened: tuple[ControlPlane, Account]) -> Account:
    """With a bucket and two alarms."""
    server, account = opened
    server.reset()
    account.s3.create_bucket(Bucket=PLACE[0])
    for alarm in ("slow", "too-many-5xx"):
        account.cloudwatch.put_metric_alarm(AlarmName=alarm, **WATCHED)
    return account


@pytest.fixture
def aws(opened: tuple[ControlPlane, Account], account: Account) -> ControlPlane:  # noqa: ARG001
    """The server of the account."""
    return opened[0]


def ship(account: Account, plan: ReleasePlan, deadline: float = 100) -> list[str]:
    """Carry a plan out and wait, on a clock that ticks once a look."""
    said: list[str] = []
    rollout.carry_out(plan, said.append)
    ticks = itertools.count(0.0, 10.0)
    rollout.wait(
        account, plan, said.append, clock=lambda: next(ticks), sleep=lambda _: None, deadline=deadline, every=1
    )
    rollout.finish(plan, said.append)
    return said


@cache
def archived(bundle: Path) -> Packed:
    """The archive of a bundle that nobody changes."""
    return package(bundle, bundle.with_suffix(".tar.gz"))


def deploy(account: Account, bundle: Path, told: Rollout = PLAIN, hosting: Hosting = HOSTING) -> list[str]:
    return ship(account, rollout.plan_deploy(account, "newcomers", archived(bundle), PLACE, hosting, told))


def promote(account: Account, bundle: Path, told: Rollout = PLAIN, forced: str = "") -> list[str]:
    return ship(account, rollout.plan_promote(account, now(account), archived(bundle), told, forced))


def now(account: Account) -> EndpointState:
    found = endpoint.serving(account, "newcomers")
    assert found is not None
    return found


def served(account: Account) -> str:
    """The id of the bundle whose archive the endpoint's model names."""
    return now(account).archive.split("/")[-2].partition("-")[0]


class TestDeploying:
    def test_makes_all_of_it_and_the_archive_is_the_bundle(self, account: Account, bundles: Path) -> None:
        said = deploy(account, bundles / "good")
        assert [line.split()[0] for line in said[:4]] == ["archive", "model", "configuration", "endpoint"]
        assert said[4:] == ["   10 s  endpoint newcomers is Creating", "   30 s  endpoint newcomers is InService"]
        manifest = read_manifest(endpoint.served_archive(account, now(account)), "it")
        assert manifest == read_manifest(archived(bundles / "good").path.read_bytes(), "it")
        variant = now(account).configuration["ProductionVariants"][0]
        assert (variant["InitialInstanceCount"], variant["InstanceType"]) == (2, "ml.c5.large")

    def test_twice_does_nothing_the_second_time(self, aws: ControlPlane, account: Account, bundles: Path) -> None:
        deploy(account, bundles / "good")
        before = aws.fate.names()
        said = deploy(account, bundles / "good")
        assert [line.rpartition(": ")[2] for line in said[:4]] == ["there already"] * 4
        assert aws.fate.names() == before

    def test_that_was_cut_off_goes_on_where_it_was(self, aws: ControlPlane, account: Account, bundles: Path) -> None:
        packed = archived(bundles / "good")
        plan = rollout.plan_deploy(account, "newcomers", packed, PLACE, HOSTING, Rollout())
        for step in plan.steps[:2]:
            step.do()
        said = deploy(account, bundles / "good")
        assert [line.endswith("there already") for line in said[:4]] == [True, True, False, False]
        assert aws.fate.names() == ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"]

    def test_another_bundle_is_an_update_by_canary_with_alarms(
        self, aws: ControlPlane, account: Account, bundles: Path
    ) -> None:
        deploy(account, bundles / "good")
        deploy(account, bundles / "better", Rollout(("too-many-5xx",), bake=120))
        (update,) = [told for verb, told in aws.fate.asked if verb == "UpdateEndpoint"]
        assert update["RetainAllVariantProperties"] is True
        assert update["DeploymentConfig"] == {
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": {
                    "Type": "CANARY",
                    "WaitIntervalInSeconds": 120,
                    "CanarySize": {"Type": "INSTANCE_COUNT", "Value": 1},
                },
                "TerminationWaitInSeconds": 120,
                "MaximumExecutionTimeoutInSeconds": 2160,
            },
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "too-many-5xx-release"}]},
        }

    def test_other_instances_are_not_held_back_by_those_there_were(
        self, aws: ControlPlane, account: Account, bundles: Path
    ) -> None:
        deploy(account, bundles / "good")
        deploy(account, bundles / "good", hosting=replace(HOSTING, instances=4))
        (update,) = [told for verb, told in aws.fate.asked if verb == "UpdateEndpoint"]
        assert update["RetainAllVariantProperties"] is False

    def test_on_other_instances_while_it_scales_by_itself_is_refused_beforehand(
        self, aws: ControlPlane, account: Account, bundles: Path
    ) -> None:
        deploy(account, bundles / "good")
        account.scaling.register_scalable_target(**SCALED, MinCapacity=2, MaxCapacity=10)
        larger = replace(HOSTING, instance_type="ml.c5.xlarge")
        done = len(aws.fate.names())
        with pytest.raises(InputError, match="scales by itself"):
            deploy(account, bundles / "better", hosting=larger)
        assert len(aws.fate.names()) == done
        deploy(account, bundles / "better")  # on the same, it may
        account.scaling.deregister_scalable_target(**SCALED)
        deploy(account, bundles / "better", hosting=larger)
        assert now(account).configuration["ProductionVariants"][0]["InstanceType"] == "ml.c5.xlarge"


class TestPromoting:
    def test_changes_the_model_and_nothing_else(self, account: Account, bundles: Path) -> None:
        deploy(account, bundles / "good", hosting=replace(HOSTING, environment={"FIRSTSPIN_WORKERS": "3"}))
        before = now(account)
        promote(account, bundles / "better")
        after = now(account)
        assert served(account) != before.archive
        assert after.model["PrimaryContainer"]["Environment"] == {"FIRSTSPIN_WORKERS": "3"}
        changed = {"ModelName"}
        one, other = (serving.configuration["ProductionVariants"][0] for serving in (before, after))
        assert {name for name in one if one[name] != other[name]} == changed

    def test_carries_on_what_we_never_set_ourselves(self, account: Account, bundles: Path) -> None:
        deploy(account, bundles / "good")
        (variant,) = now(account).configuration["ProductionVariants"]
        theirs = {
            "ShadowProductionVariants": [variant | {"VariantName": "shadow"}],
            "ExplainerConfig": {
                "ClarifyExplainerConfig": {"ShapConfig": {"ShapBaselineConfig": {"ShapBaseline": "1"}}}
            },
            "EnableNetworkIsolation": True,
            "MetricsConfig": {"EnableEnhancedMetrics": True},
        }
        account.sagemaker.create_endpoint_config(EndpointConfigName="theirs", ProductionVariants=[variant], **theirs)
        account.sagemaker.update_endpoint(EndpointName="newcomers", EndpointConfigName="theirs")
        ship(account, ReleasePlan("newcomers", "theirs", ()))
        promote(account, bundles / "better")
        assert {name: now(account).configuration.get(name) for name in theirs} == theirs

    def test_names_the_archive_before_nowhere(self, account: Account, bundles: Path) -> None:
        deploy(account, bundles / "good")
        promote(account, bundles / "better")
        container = now(account).model["PrimaryContainer"]
        assert container["ModelDataSource"]["S3DataSource"]["S3Uri"] == container["ModelDataUrl"]

    def test_of_what_serves_does_nothing_but_not_while_another_comes(
        self, aws: ControlPlane, account: Account, bundles: Path
    ) -> None:
        deploy(account, bundles / "good")
        assert promote(account, bundles / "good") == ["   10 s  endpoint newcomers is InService"]
        aws.fate.stuck = True
        with pytest.raises(InputError, match="still Updating"):
            promote(account, bundles / "better")
        with pytest.raises(InputError, match=r"is Updating \(to newcomers-.*\); try again when it is InService"):
            promote(account, bundles / "good")

    def test_an_alarm_takes_it_back_and_the_command_says_so(
        self, aws: ControlPlane, account: Account, bundles: Path
    ) -> None:
        deploy(account, bundles / "good")
        before = served(account)
        aws.fate.ringing.add("slow-release")
        with pytest.raises(InputError, match=r"went back to newcomers-.*: Alarm slow-release is in the ALARM state"):
            promote(account, bundles / "better", Rollout(("slow",)))
        assert served(account) == before

    def test_a_reason_is_kept_with_the_configuration(self, account: Account, bundles: Path) -> None:
        deploy(account, bundles / "good")
        promote(account, bundles / "worse", forced="the window of the label changed - ticket 41")
        arn = now(account).configuration["EndpointConfigArn"]
        tags = account.sagemaker.list_tags(ResourceArn=arn)["Tags"]
        assert {"Key": "firstspin:forced", "Value": "the window of the label changed - ticket 41"} in tags


class TestRightsAndTags:
    @pytest.fixture
    def without_listing(self, account: Account) -> Iterator[tuple[Account, Stubber]]:
        """S3 as it answers an identity without s3:ListBucket."""
        client = boto3.client("s3")
        with Stubber(client) as stubber:
            yield replace(account, s3=client), stubber

    def test_a_missing_key_that_may_not_be_listed_is_uploaded(
        self, without_listing: tuple[Account, Stubber], bundles: Path
    ) -> None:
        account, stubber = without_listing
        packed = archived(bundles / "good")
        stubber.add_client_error("head_object", "403", "Forbidden", 403)
        plan = rollout.plan_deploy(account, "newcomers", packed, PLACE, HOSTING, PLAIN)
        assert next(step.what for step in plan.steps if not step.there) == "archive"
        stubber.add_client_error("put_object", "AccessDenied", "Access Denied", 403)
        with pytest.raises(InputError, match=r"archive s3://.*: AccessDenied: Access Denied$"):
            rollout.carry_out(plan, lambda _: None)

    def test_an_archive_that_can_not_be_read_may_be_missing(
        self, account: Account, without_listing: tuple[Account, Stubber], bundles: Path
    ) -> None:
        deploy(account, bundles / "good")
        limited, stubber = without_listing
        stubber.add_client_error("get_object", "AccessDenied", "Access Denied", 403)
        with pytest.raises(InputError, match="also for a missing key, where s3:ListBucket is not granted"):
            endpoint.served_archive(limited, now(account))

    def test_what_is_created_is_tagged_and_a_promotion_carries_the_tags_on(
        self, aws: ControlPlane, account: Account, bundles: Path
    ) -> None:
        deploy(account, bundles / "good", hosting=replace(HOSTING, tags={"team": "growth"}))
        promote(account, bundles / "better", forced="a test")
        made = {verb: told["Tags"] for verb, told in aws.fate.asked if verb.startswith("Create")}
        assert made.keys() == {"CreateModel", "CreateEndpointConfig", "CreateEndpoint"}
        assert all({"Key": "team", "Value": "growth"} in tags for tags in made.values())
        assert made["CreateEndpoint"] == [{"Key": "team", "Value": "growth"}]

    def test_volumes_are_encrypted_by_the_key_that_is_named_and_the_model_has_no_network(
        self, account: Account, bundles: Path
    ) -> None:
        key = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
        deploy(account, bundles / "good", hosting=replace(HOSTING, key=key))
        assert now(account).configuration["KmsKeyId"] == key
        promote(account, bundles / "better")
        assert now(account).configuration["KmsKeyId"] == key
        assert now(account).model["EnableNetworkIsolation"] is True


class TestFields:
    """Extra fields: the Lambda checks requests against the bundle in its zip."""

    @staticmethod
    def zipped(bundle: Path, out: Path) -> Path:
        """As deploy/aws/lambda.sh packs a bundle."""
        with zipfile.ZipFile(out, "w") as packed:
            for file in bundle.iterdir():
                packed.write(file, f"bundle/{file.name}")
        return out

    @pytest.fixture
    def promoted(self, account: Account, bundles: Path) -> Callable[..., Result]:
        """Promotes, by the command, a bundle that knows a device and a number of visits."""
        deploy(account, bundles / "good")

        def run(*words: object) -> Result:
            usual = ("--endpoint", "newcomers", "--no-alarm", "--force", "a test", "--poll", "0.01")
            return CliRunner().invoke(app, ["promote", "--bundle", str(bundles / "more"), *usual, *map(str, words)])

        return run

    def test_others_than_those_in_service_are_refused_beforehand(
        self, aws: ControlPlane, promoted: Callable[..., Result]
    ) -> None:
        before = aws.fate.names()
        for words in ((), ("--dry-run",)):
            said = str(promoted(*words).exception)
            assert "extra fields are device (text), visits (number), and those of the bundle in service none" in said
            assert "Deploy a zip with the new bundle first" in said
        assert aws.fate.names() == before

    def test_those_of_the_zip_decide(
        self, account: Account, promoted: Callable[..., Result], bundles: Path, tmp_path: Path
    ) -> None:
        old = self.zipped(bundles / "good", tmp_path / "old.zip")
        assert f"those of {old} none" in str(promoted("--zip", old).exception)
        new = self.zipped(bundles / "more", tmp_path / "new.zip")
        assert promoted("--zip", new).exit_code == 0
        assert served(account) == load(bundles / "more").id

    def test_can_be_overridden(self, account: Account, promoted: Callable[..., Result], bundles: Path) -> None:
        assert promoted("--other-fields").exit_code == 0
        assert served(account) == load(bundles / "more").id

    @pytest.mark.parametrize("content", [b"no archive", None])
    def test_an_archive_in_service_that_is_unreadable_or_gone_names_the_options(
        self, account: Account, promoted: Callable[..., Result], bundles: Path, tmp_path: Path, content: bytes | None
    ) -> None:
        bucket, _, key = now(account).archive.removeprefix("s3://").partition("/")
        account.s3.delete_object(Bucket=bucket, Key=key)
        if content:
            account.s3.put_object(Bucket=bucket, Key=key, Body=content)
        said = str(promoted().exception)
        assert "--zip names the Lambda's zip, and --other-fields promotes without a comparison of extra fields" in said
        said = str(promoted("--other-fields", "--force", "", "--data", tmp_path).exception)
        assert "--force REASON promotes without the gate" in said
        assert promoted("--other-fields").exit_code == 0
        assert served(account) == load(bundles / "more").id

    @pytest.mark.parametrize("content", [b"no zip", None])
    def test_a_zip_that_is_none_is_named(
        self, promoted: Callable[..., Result], tmp_path: Path, content: bytes | None
    ) -> None:
        path = tmp_path / "lambda.zip"
        if content:
            path.write_bytes(content)
        assert f"{path} is not a zip of deploy/aws/lambda.sh" in str(promoted("--zip", path).exception)


class TestKindsOfHosting:
    SERVERLESS = Hosting(HOSTING.image, ROLE, memory_mb=2048, concurrency=20)

    @pytest.mark.parametrize(
        "hosting", [HOSTING, SERVERLESS, replace(HOSTING, capture="s3://b/capture", capture_percent=10, key="arn:k")]
    )
    def test_are_valid_for_sagemaker(self, account: Account, hosting: Hosting) -> None:
        sdk: Any = account.sagemaker.meta
        configuration = hosting.configuration("AllTraffic") | {"EndpointConfigName": "c"}
        asked = {"CreateEndpointConfig": configuration, "CreateModel": hosting.model | {"ModelName": "m"}}
        for verb, words in asked.items():
            errors = ParamValidator().validate(words, sdk.service_model.operation_model(verb).input_shape)
            assert not errors.has_errors(), errors.generate_report()

    def test_serverless_has_no_instances_no_network_isolation_and_is_promoted_all_at_once(
        self, aws: ControlPlane, account: Account, bundles: Path
    ) -> None:
        deploy(account, bundles / "good", hosting=self.SERVERLESS)
        promote(account, bundles / "better", Rollout(("slow",)))
        (variant,) = now(account).configuration["ProductionVariants"]
        assert variant["ServerlessConfig"] == {"MemorySizeInMB": 2048, "MaxConcurrency": 20}
        assert "InstanceType" not in variant
        assert "EnableNetworkIsolation" not in aws.fate.made[now(account).model["ModelName"]]
        (update,) = [told for verb, told in aws.fate.asked if verb == "UpdateEndpoint"]
        routing = update["DeploymentConfig"]["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
        assert routing["Type"] == "ALL_AT_ONCE"
        assert autoscaling.missing_target(account, now(account)) == ""

    def test_instances_do_not_become_serverless(self, aws: ControlPlane, account: Account, bundles: Path) -> None:
        deploy(account, bundles / "good")
        before = aws.fate.names()
        with pytest.raises(InputError, match="has instances, and SageMaker does not convert it"):
            deploy(account, bundles / "good", hosting=self.SERVERLESS)
        assert aws.fate.names() == before

    @pytest.mark.parametrize(
        ("settings", "reason"),
        [
            ({"memory_mb": 1000}, "1024, 2048, 3072, 4096, 5120, 6144 MB"),
            ({"memory_mb": 1024, "capture": "s3://b/c"}, "has no data capture"),
            ({"concurrency": 201}, "a concurrency is 1 to 200"),
            ({"capture": "b/c"}, "a URL such as s3://BUCKET/capture"),
        ],
    )
    def test_out_of_range_are_refused(self, settings: dict[str, Any], reason: str) -> None:
        with pytest.raises(InputError, match=reason):
            replace(HOSTING, **settings)

    def test_another_capture_is_not_held_back_by_what_is_retained(
        self, aws: ControlPlane, account: Account, bundles: Path
    ) -> None:
        deploy(account, bundles / "good")
        deploy(account, bundles / "good", hosting=replace(HOSTING, capture=f"s3://{PLACE[0]}/capture"))
        (update,) = [told for verb, told in aws.fate.asked if verb == "UpdateEndpoint"]
        assert update["RetainAllVariantProperties"] is True
        assert update["ExcludeRetainedVariantProperties"] == [{"VariantPropertyType": "DataCaptureConfig"}]
        promote(account, bundles / "better")
        capture = now(account).configuration["DataCaptureConfig"]
        assert capture["CaptureContentTypeHeader"]["JsonContentTypes"] == ["application/json"]


class TestShadow:
    def test_gets_a_copy_of_the_requests_beside_what_serves_until_the_next_promotion(
        self, account: Account, bundles: Path
    ) -> None:
        deploy(account, bundles / "good")
        good, before = served(account), now(account).configuration["ProductionVariants"]
        words = ["shadow", "--bundle", str(bundles / "better"), "--endpoint", "newcomers", "--poll", "0.01"]
        undecided = CliRunner().invoke(app, [*words, "--percent", "10"])
        assert (undecided.exit_code, "--alarm NAME is needed" in undecided.stderr) == (2, True)
        assert CliRunner().invoke(app, [*words, "--percent", "10", "--no-alarm"]).exit_code == 0
        configuration = now(account).configuration
        assert (configuration["ProductionVariants"], served(account)) == (before, good)
        (variant,) = configuration["ShadowProductionVariants"]
        assert (variant["VariantName"], variant["InitialInstanceCount"]) == ("FirstspinShadow", 1)
        assert variant["InitialVariantWeight"] == pytest.approx(0.1)
        assert variant["ModelName"] != before[0]["ModelName"]
        sdk: Any = account.sagemaker.meta
        shape = sdk.service_model.operation_model("CreateEndpointConfig").input_shape
        asked = {name: configuration[name] for name in ("ProductionVariants", "ShadowProductionVariants")}
        assert not ParamValidator().validate(asked | {"EndpointConfigName": "c"}, shape).has_errors()
        promote(account, bundles / "better")
        assert "ShadowProductionVariants" not in now(account).configuration
        assert now(account).configuration["ProductionVariants"][0]["ModelName"] == variant["ModelName"]

    def test_a_rollback_ends_it(self, account: Account, bundles: Path) -> None:
        deploy(account, bundles / "good")
        packed = archived(bundles / "better")
        ship(account, rollout.plan_shadow(account, now(account), packed, PLAIN, 100, 2))
        ship(account, rollout.plan_rollback(account, now(account)))
        assert "ShadowProductionVariants" not in now(account).configuration

    @pytest.fixture
    def shadowed(self, account: Account, bundles: Path) -> list[str]:
        """`worse`, then `good` in service, and `better` as its shadow; the configurations before it."""
        configurations = []
        for release, bundle in ((deploy, "worse"), (promote, "good")):
            release(account, bundles / bundle)
            configurations.append(str(now(account).endpoint["EndpointConfigName"]))
        for percent in (10, 20):  # the second replaces the first
            packed = archived(bundles / "better")
            ship(account, rollout.plan_shadow(account, now(account), packed, PLAIN, percent, 1))
        return configurations

    def test_a_promotion_of_the_bundle_in_service_ends_it_without_a_gate(
        self, account: Account, bundles: Path, shadowed: list[str]
    ) -> None:
        assert "ShadowProductionVariants" in now(account).configuration
        words = ["promote", "--bundle", str(bundles / "good"), "--endpoint", "newcomers", "--no-alarm"]
        done = CliRunner().invoke(app, [*words, "--poll", "0.01", "--json"])
        assert done.exit_code == 0, done.exception
        assert json.loads(done.stdout)["gate"] is None
        assert "ShadowProductionVariants" not in now(account).configuration
        ship(account, rollout.plan_rollback(account, now(account)))
        assert now(account).endpoint["EndpointConfigName"] == shadowed[0]

    def test_a_rollback_does_not_start_it_again(self, account: Account, bundles: Path, shadowed: list[str]) -> None:
        promote(account, bundles / "better")
        ship(account, rollout.plan_rollback(account, now(account)))
        assert now(account).endpoint["EndpointConfigName"] == shadowed[1]

    def test_a_rollback_out_of_it_leaves_the_way_further_back(self, account: Account, shadowed: list[str]) -> None:
        for configuration in reversed(shadowed):
            ship(account, rollout.plan_rollback(account, now(account)))
            assert now(account).endpoint["EndpointConfigName"] == configuration

    def test_serverless_has_none(self, account: Account, bundles: Path) -> None:
        deploy(account, bundles / "good", hosting=TestKindsOfHosting.SERVERLESS)
        packed = archived(bundles / "better")
        with pytest.raises(InputError, match="is serverless, which has no shadow variants"):
            rollout.plan_shadow(account, now(account), packed, PLAIN, 100, 1)


class TestModelPackages:
    def test_a_promoted_bundle_is_a_version_of_its_group_and_only_once(self, account: Account, bundles: Path) -> None:
        deploy(account, bundles / "good")
        packed = archived(bundles / "better")
        for _ in range(2):
            plan = rollout.plan_promote(account, now(account), packed, PLAIN, group="newcomers")
            ship(account, plan)
        versions = account.sagemaker.list_model_packages(ModelPackageGroupName="newcomers")["ModelPackageSummaryList"]
        assert [one["ModelPackageDescription"] for one in versions] == [f"bundle {packed.id}, archive {packed.sha256}"]
        described = account.sagemaker.describe_model_package(ModelPackageName=versions[0]["ModelPackageArn"])
        (container,) = described["InferenceSpecification"]["Containers"]
        assert (container["ModelDataUrl"], container["Image"]) == (now(account).archive, HOSTING.image)
        assert model_registry.is_registered(account, "newcomers", packed)

    def test_a_bundle_that_alarms_take_back_is_none(self, aws: ControlPlane, account: Account, bundles: Path) -> None:
        deploy(account, bundles / "good")
        packed = archived(bundles / "better")
        aws.fate.ringing.add("slow-release")
        plan = rollout.plan_promote(account, now(account), packed, Rollout(("slow",)), group="newcomers")
        with pytest.raises(InputError, match="went back"):
            ship(account, plan)
        assert not model_registry.is_registered(account, "newcomers", packed)

    def test_the_bundle_in_service_can_be_registered_later(
        self, aws: ControlPlane, account: Account, bundles: Path
    ) -> None:
        deploy(account, bundles / "good")
        before = aws.fate.names()
        words = ["promote", "--bundle", str(bundles / "good"), "--endpoint", "newcomers", "--no-alarm", "--json"]
        done = CliRunner().invoke(app, [*words, "--poll", "0.01", "--package-group", "newcomers"])
        assert done.exit_code == 0, done.exception
        packed = archived(bundles / "good")
        assert json.loads(done.stdout)["changes"] == [f"package newcomers: {packed.id}"]
        assert model_registry.is_registered(account, "newcomers", packed)
        assert [verb for verb in aws.fate.names()[len(before) :] if "Package" not in verb] == []


class TestPruning:
    @pytest.fixture
    def history(self, aws: ControlPlane, account: Account, bundles: Path) -> list[str]:
        """Five releases, the oldest first; their configurations. The last two are to go back to and in service."""
        names = []
        for seed in range(10, 15):
            (promote if names else deploy)(account, bundles / str(seed))
            names.append(now(account).endpoint["EndpointConfigName"])
        aws.fate.asked.clear()
        return names

    @staticmethod
    def left(account: Account) -> tuple[set[str], int, int]:
        """The configurations, the number of models, and that of archives."""
        configurations = {
            one["EndpointConfigName"] for one in account.sagemaker.list_endpoint_configs()["EndpointConfigs"]
        }
        models = account.sagemaker.list_models()["Models"]
        return configurations, len(models), account.s3.list_objects_v2(Bucket=PLACE[0])["KeyCount"]

    def prune(self, *words: str) -> Result:
        return CliRunner().invoke(app, ["prune", "--endpoint", "newcomers", *words])

    def test_deletes_what_neither_serves_nor_is_to_go_back_to_nor_is_new(
        self, account: Account, history: list[str]
    ) -> None:
        assert self.prune("--keep", "1").exit_code == 0
        assert self.left(account) == (set(history[2:]), 3, 3)
        assert self.prune("--keep", "0").exit_code == 0
        assert self.left(account) == (set(history[3:]), 2, 2)
        ship(account, rollout.plan_rollback(account, now(account)))
        assert now(account).endpoint["EndpointConfigName"] == history[3]
        assert "nothing to do" in self.prune("--keep", "0").stdout

    def test_the_json_says_deleted_only_of_what_is(self, account: Account, history: list[str]) -> None:
        first = json.loads(self.prune("--keep", "2", "--json").stdout)
        assert f"configuration {history[0]}" in first["deleted"]
        for archive in account.s3.list_objects_v2(Bucket=PLACE[0])["Contents"]:
            account.s3.delete_object(Bucket=PLACE[0], Key=archive["Key"])
        account.s3.delete_bucket(Bucket=PLACE[0])
        failed = self.prune("--keep", "0", "--json")
        assert (failed.exit_code, failed.stdout) == (1, "")
        assert "NoSuchBucket" in str(failed.exception)

    def test_leaves_what_others_use_and_what_is_not_firstspins(self, account: Account, history: list[str]) -> None:
        oldest = account.sagemaker.describe_endpoint_config(EndpointConfigName=history[0])["ProductionVariants"]
        account.sagemaker.create_endpoint_config(EndpointConfigName="newcomers-theirs", ProductionVariants=oldest)
        account.sagemaker.create_endpoint_config(
            EndpointConfigName="newcomers-too-many",
            ProductionVariants=oldest,
            Tags=[{"Key": "firstspin:bundle", "Value": "x"}],
        )
        dry = self.prune("--keep", "1", "--dry-run")
        assert (history[0] in dry.stdout, "newcomers-theirs" in dry.stdout) == (True, False)
        assert "newcomers-too-many" not in dry.stdout
        model = oldest[0]["ModelName"]
        assert model not in dry.stdout  # the newest of the others uses it
        assert len(self.left(account)[0]) == 7

    def test_leaves_another_endpoint_whose_name_begins_with_this_ones(
        self, account: Account, history: list[str], bundles: Path
    ) -> None:
        assert len(history) == 5
        for seed in (10, 15):  # the archive of the first is newcomers' too
            packed = archived(bundles / str(seed))
            ship(account, rollout.plan_deploy(account, "newcomers-staging", packed, PLACE, HOSTING, PLAIN))
        assert self.prune("--keep", "0").exit_code == 0
        configurations, models, archives = self.left(account)
        staging = {name for name in configurations if name.startswith("newcomers-staging-")}
        assert (configurations - staging, len(staging)) == (set(history[3:]), 2)
        assert (models, archives) == (4, 4)  # two of each endpoint; of the archives that of staging's first is left

    @pytest.mark.parametrize("user", ["model", "package"])
    def test_leaves_an_archive_that_another_model_or_a_model_package_names(
        self, aws: ControlPlane, account: Account, history: list[str], user: str
    ) -> None:
        variant = account.sagemaker.describe_endpoint_config(EndpointConfigName=history[0])["ProductionVariants"][0]
        oldest = account.sagemaker.describe_model(ModelName=variant["ModelName"])["PrimaryContainer"]
        container = {"Image": HOSTING.image, "ModelDataUrl": oldest["ModelDataUrl"]}
        if user == "model":
            account.sagemaker.create_model(ModelName="transform", ExecutionRoleArn=ROLE, PrimaryContainer=container)
        else:
            account.sagemaker.create_model_package_group(ModelPackageGroupName="theirs")
            formats = {"SupportedContentTypes": ["text/csv"], "SupportedResponseMIMETypes": ["text/csv"]}
            specification = {"Containers": [container]} | formats
            account.sagemaker.create_model_package(ModelPackageGroupName="theirs", InferenceSpecification=specification)
        account.sagemaker.create_model(ModelName="secret", ExecutionRoleArn=ROLE, PrimaryContainer=container)
        aws.fate.hidden.add("secret")  # of another team: this identity may not read it
        assert self.prune("--keep", "0").exit_code == 0
        bucket, _, key = oldest["ModelDataUrl"].removeprefix("s3://").partition("/")
        assert account.s3.head_object(Bucket=bucket, Key=key)["ContentLength"]
        assert self.left(account)[2] == 3

    def test_leaves_what_another_endpoint_has_in_service(self, account: Account, history: list[str]) -> None:
        account.sagemaker.create_endpoint(EndpointName="others", EndpointConfigName=history[1])
        assert self.prune("--keep", "0").exit_code == 0
        assert self.left(account) == ({history[1], *history[3:]}, 3, 3)


class TestAlarmsOfARelease:
    def test_watch_the_new_fleet_alone_and_begin_without_the_state_of_the_one_before(
        self, account: Account, bundles: Path
    ) -> None:
        deploy(account, bundles / "good")
        for bundle in ("better", "worse"):
            promote(account, bundles / bundle, Rollout(("slow",)))
            response = account.cloudwatch.describe_alarms(AlarmNames=["slow", "slow-release"])
            theirs, ours = sorted(response["MetricAlarms"], key=lambda one: str(one["AlarmName"]))
            new_fleet = {"Name": "EndpointConfigName", "Value": now(account).endpoint["EndpointConfigName"]}
            assert ours["Dimensions"] == [*WATCHED["Dimensions"], new_fleet]
            assert theirs["Dimensions"] == WATCHED["Dimensions"]
            assert {name: ours[name] for name in WATCHED if name != "Dimensions"} == {
                name: of for name, of in WATCHED.items() if name != "Dimensions"
            }
            assert ours["StateValue"] != "ALARM"
            account.cloudwatch.set_alarm_state(AlarmName="slow-release", StateValue="ALARM", StateReason="a test")

    def test_of_another_metric_are_used_as_they_are(self, aws: ControlPlane, account: Account, bundles: Path) -> None:
        elsewhere = WATCHED | {"Namespace": "shop", "Dimensions": [], "MetricName": "sign_ups"}
        account.cloudwatch.put_metric_alarm(AlarmName="few-sign-ups", **elsewhere)
        deploy(account, bundles / "good")
        promote(account, bundles / "better", Rollout(("few-sign-ups",)))
        (update,) = [told for verb, told in aws.fate.asked if verb == "UpdateEndpoint"]
        assert update["DeploymentConfig"]["AutoRollbackConfiguration"] == {"Alarms": [{"AlarmName": "few-sign-ups"}]}

    def test_that_are_not_there_or_slower_than_the_watch_are_refused_beforehand(
        self, aws: ControlPlane, account: Account, bundles: Path
    ) -> None:
        deploy(account, bundles / "good")
        before = aws.fate.names()
        for settings, reason in {
            Rollout(("slwo",)): "there is no alarm slwo",
            Rollout(("slow",), bake=119): "alarm slow needs 120 s to fire, and --bake is 119",
        }.items():
            with pytest.raises(InputError, match=reason):
                promote(account, bundles / "better", settings)
        assert aws.fate.names() == before


class TestTheDeploymentConfig:
    @pytest.mark.parametrize("instances", [2, 3, 10])
    @pytest.mark.parametrize(
        "settings", [Rollout(), Rollout(canary=4), Rollout(canary=0), Rollout(("a",), rolling=True), BACK]
    )
    def test_is_valid_for_sagemaker(self, account: Account, settings: Rollout, instances: int) -> None:
        sdk: Any = account.sagemaker.meta
        shape = sdk.service_model.operation_model("UpdateEndpoint").input_shape
        words = {"EndpointName": "e", "EndpointConfigName": "c", "DeploymentConfig": settings.configuration(instances)}
        errors = ParamValidator().validate(words, shape)
        assert not errors.has_errors(), errors.generate_report()
        policy = settings.configuration(instances).get("BlueGreenUpdatePolicy", {})
        for name, limits in {
            "TerminationWaitInSeconds": (0, 3600),
            "MaximumExecutionTimeoutInSeconds": (600, 28_800),
        }.items():
            assert limits[0] <= policy.get(name, 600) <= limits[1]

    def test_begins_with_one_instance_whatever_the_size_of_the_fleet_and_at_most_with_half(self) -> None:
        def first(settings: Rollout, instances: int) -> object:
            routing = settings.configuration(instances)["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
            return routing.get("CanarySize", routing["Type"])

        one = {"Type": "INSTANCE_COUNT", "Value": 1}
        assert [first(Rollout(), instances) for instances in (1, 2, 10)] == ["ALL_AT_ONCE", one, one]
        assert first(Rollout(canary=4), 5) == {"Type": "INSTANCE_COUNT", "Value": 2}

    def test_is_watched_longer_than_three_minutes(self) -> None:
        assert Rollout().bake == 600

    def test_rolling_needs_no_second_fleet_not_even_to_go_back(self) -> None:
        one = {"Type": "INSTANCE_COUNT", "Value": 1}
        assert Rollout(("a",), rolling=True).configuration(4) == {
            "RollingUpdatePolicy": {
                "MaximumBatchSize": one,
                "RollbackMaximumBatchSize": one,
                "WaitIntervalInSeconds": 600,
                "MaximumExecutionTimeoutInSeconds": 4 * (600 + 600) + 1800,
            },
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "a"}]},
        }
        with pytest.raises(InputError, match="one instance can't be updated in batches"):
            Rollout(rolling=True).configuration(1)

    def test_rolling_has_at_most_twenty_batches_and_time_for_each(self) -> None:
        def batch_and_seconds(settings: Rollout, *instances: int) -> tuple[int, int]:
            policy = settings.configuration(*instances)["RollingUpdatePolicy"]
            return policy["MaximumBatchSize"]["Value"], policy["MaximumExecutionTimeoutInSeconds"]

        rolling = Rollout(rolling=True)
        assert batch_and_seconds(rolling, 20) == (1, 20 * 1200 + 1800)
        assert batch_and_seconds(rolling, 21) == (2, 11 * 1200 + 1800)
        assert batch_and_seconds(rolling, 100) == (5, 20 * 1200 + 1800)
        assert batch_and_seconds(replace(rolling, canary=4), 4, 10) == (2, 5 * 1200 + 1800)
        with pytest.raises(InputError, match="10 batches with 3600 seconds of watch each need 43,800 s"):
            replace(rolling, bake=3600).configuration(10)

    def test_is_sent_by_a_rollback_by_hand_too(self, aws: ControlPlane, account: Account, bundles: Path) -> None:
        deploy(account, bundles / "good")
        promote(account, bundles / "better")
        ship(account, rollout.plan_rollback(account, now(account)))
        (*_, update) = [told for verb, told in aws.fate.asked if verb == "UpdateEndpoint"]
        routing = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 60}
        assert update["DeploymentConfig"]["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"] == routing


class TestGoingBack:
    def test_is_to_what_served_before_and_forth_again(self, account: Account, bundles: Path) -> None:
        deploy(account, bundles / "good")
        good = served(account)
        promote(account, bundles / "better")
        better = served(account)
        ship(account, rollout.plan_rollback(account, now(account)))
        assert served(account) == good
        ship(account, rollout.plan_rollback(account, now(account)))
        assert served(account) == better

    def test_needs_something_to_go_back_to(self, account: Account, bundles: Path) -> None:
        deploy(account, bundles / "good")
        with pytest.raises(InputError, match="no configuration to go back to"):
            rollout.plan_rollback(account, now(account))
        promote(account, bundles / "better")
        account.sagemaker.delete_endpoint_config(EndpointConfigName=now(account).tags["firstspin:previous:newcomers"])
        with pytest.raises(InputError, match="which was deleted"):
            rollout.plan_rollback(account, now(account))

    def test_is_not_forgotten_for_a_change_that_was_refused(
        self, aws: ControlPlane, account: Account, bundles: Path
    ) -> None:
        deploy(account, bundles / "good")
        good = served(account)
        promote(account, bundles / "better")
        aws.fate.refuses = "The account-level service limit is 2 Instances"
        with pytest.raises(InputError, match="ResourceLimitExceeded"):
            promote(account, bundles / "worse")
        with pytest.raises(InputError, match="ResourceLimitExceeded"):
            ship(account, rollout.plan_rollback(account, now(account)))
        aws.fate.refuses = ""
        ship(account, rollout.plan_rollback(account, now(account)))
        assert served(account) == good

    def test_is_not_forgotten_for_a_change_that_an_alarm_took_back(
        self, aws: ControlPlane, account: Account, bundles: Path
    ) -> None:
        deploy(account, bundles / "good")
        good = served(account)
        promote(account, bundles / "better")
        aws.fate.ringing.add("slow-release")
        with pytest.raises(InputError, match="went back"):
            promote(account, bundles / "worse", Rollout(("slow",)))
        ship(account, rollout.plan_rollback(account, now(account)))
        assert served(account) == good

    def test_waits_for_a_change_under_way(self, aws: ControlPlane, account: Account, bundles: Path) -> None:
        deploy(account, bundles / "good")
        aws.fate.stuck = True
        with pytest.raises(InputError, match="still Updating"):
            promote(account, bundles / "better")
        with pytest.raises(InputError, match=r"is Updating \(to newcomers-.*\); try again when it is InService"):
            rollout.plan_rollback(account, now(account))

    def test_is_each_endpoints_own_where_two_share_a_configuration(self, account: Account, bundles: Path) -> None:
        deploy(account, bundles / "good")
        shared = now(account).endpoint["EndpointConfigName"]
        account.sagemaker.create_endpoint(EndpointName="others", EndpointConfigName=shared)
        ship(account, ReleasePlan("others", shared, ()))
        promote(account, bundles / "better")
        ship(account, rollout.plan_rollback(account, now(account)))
        others = endpoint.serving(account, "others")
        assert others is not None
        with pytest.raises(InputError, match="no configuration to go back to"):
            rollout.plan_rollback(account, others)


class TestAutoscaling:
    @pytest.fixture
    def updates(self, aws: ControlPlane, account: Account, bundles: Path) -> Iterator[list[dict[str, Any]]]:
        """An endpoint that went from 2 to 4 configured instances before it got its scalable target."""
        deploy(account, bundles / "good")
        deploy(account, bundles / "better", hosting=replace(HOSTING, instances=4))
        account.scaling.register_scalable_target(**SCALED, MinCapacity=2, MaxCapacity=20)
        aws.fate.asked.clear()
        yield (asked := [])
        asked += [told for verb, told in aws.fate.asked if verb == "UpdateEndpoint"]
        assert [told["RetainAllVariantProperties"] for told in asked] == [True]

    def test_a_rollback_to_fewer_configured_instances_keeps_those_that_run(
        self, account: Account, updates: list[dict[str, Any]]
    ) -> None:
        assert updates == []
        ship(account, rollout.plan_rollback(account, now(account)))
        assert now(account).configuration["ProductionVariants"][0]["InitialInstanceCount"] == 2

    def test_a_deployment_with_other_instances_does_too(
        self, account: Account, bundles: Path, updates: list[dict[str, Any]]
    ) -> None:
        assert updates == []
        deploy(account, bundles / "worse", hosting=replace(HOSTING, instances=1))

    def test_a_rolling_release_of_a_fleet_that_scaled_out_has_time_for_all_that_run(
        self, aws: ControlPlane, account: Account, bundles: Path, updates: list[dict[str, Any]]
    ) -> None:
        aws.fate.lives["newcomers"].running = 10
        promote(account, bundles / "worse", Rollout(rolling=True))
        [update] = [told for verb, told in aws.fate.asked if verb == "UpdateEndpoint"]
        policy = update["DeploymentConfig"]["RollingUpdatePolicy"]
        assert policy["MaximumExecutionTimeoutInSeconds"] == 10 * (600 + 600) + 1800  # not of the 4 configured
        assert updates == []

    def test_a_rollback_to_another_instance_type_is_refused_beforehand(
        self, aws: ControlPlane, account: Account, bundles: Path
    ) -> None:
        deploy(account, bundles / "good")
        deploy(account, bundles / "better", hosting=replace(HOSTING, instance_type="ml.c5.xlarge"))
        account.scaling.register_scalable_target(**SCALED, MinCapacity=2, MaxCapacity=20)
        done = len(aws.fate.names())
        with pytest.raises(InputError, match="scales by itself"):
            rollout.plan_rollback(account, now(account))
        assert len(aws.fate.names()) == done

    def test_a_change_waits_until_it_has_scaled_and_not_longer_than_the_deadline(
        self, aws: ControlPlane, account: Account, bundles: Path
    ) -> None:
        deploy(account, bundles / "good")
        words = ("--endpoint", "newcomers", "--poll", "0.01", "--json")
        better = ("--bundle", str(bundles / "better"), "--data", str(bundles / "data"))
        for change in (("promote", "--no-alarm", *better), ("rollback",)):
            aws.fate.lives["newcomers"].scale()
            done = CliRunner().invoke(app, [*change, *words])
            assert done.exit_code == 0, done.exception
            assert "endpoint newcomers is scaling; the change follows" in done.stderr
        aws.fate.lives["newcomers"].scale()
        aws.fate.stuck = True
        late = CliRunner().invoke(app, ["rollback", *words, "--deadline", "0"])
        assert "still scaling after 0 s; nothing was changed" in str(late.exception)

    def test_a_deployment_waits_before_it_plans(self, aws: ControlPlane, account: Account, bundles: Path) -> None:
        where = ["--bucket", PLACE[0], "--image", HOSTING.image, "--role", ROLE, "--instance-type", "ml.c5.large"]
        deploy(account, bundles / "good")
        aws.fate.lives["newcomers"].scale()
        words = ["deploy", "--bundle", str(bundles / "better"), "--endpoint", "newcomers", "--poll", "0.01", *where]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.exception
        assert "endpoint newcomers is scaling; the change follows" in done.stderr

    def test_scaling_that_begins_during_the_upload_is_waited_for(
        self, aws: ControlPlane, account: Account, bundles: Path
    ) -> None:
        deploy(account, bundles / "good")
        packed = archived(bundles / "better")
        plan = rollout.plan_promote(account, now(account), packed, PLAIN)
        aws.fate.lives["newcomers"].scale()
        waits = {"clock": lambda: 0.0, "sleep": lambda _: None, "deadline": 1.0, "every": 1.0}
        pause = partial(autoscaling.await_scaling, account, "newcomers", lambda _: None, **waits)
        rollout.carry_out(plan, lambda _: None, pause=pause)
        assert aws.fate.names()[-1] == "UpdateEndpoint"

    def test_an_endpoint_made_again_has_lost_its_target_and_deploy_says_what_to_do(
        self, account: Account, bundles: Path
    ) -> None:
        where = ["--bucket", PLACE[0], "--image", HOSTING.image, "--role", ROLE, "--instance-type", "ml.c5.large"]
        words = ["deploy", "--bundle", str(bundles / "good"), *where, "--endpoint", "newcomers", "--poll", "0.01"]
        first = CliRunner().invoke(app, words)
        assert "has no scalable target" in first.stderr
        assert "enabled = false under [scaling], then with enabled = true" in first.stderr
        account.scaling.register_scalable_target(**SCALED, MinCapacity=2, MaxCapacity=20)
        assert "scalable target" not in CliRunner().invoke(app, words).stderr


class TestWhatGoesWrong:
    def test_an_endpoint_that_does_not_start_is_told_with_the_reason(
        self, aws: ControlPlane, account: Account, bundles: Path
    ) -> None:
        aws.fate.fails_to_start = True
        with pytest.raises(InputError, match="is Failed: The primary container did not pass the ping health check"):
            deploy(account, bundles / "good")

    def test_waiting_has_an_end_and_the_next_run_goes_on_waiting(
        self, aws: ControlPlane, account: Account, bundles: Path
    ) -> None:
        aws.fate.stuck = True
        with pytest.raises(InputError, match="still Creating after 100 s; it goes on by itself"):
            deploy(account, bundles / "good")
        aws.fate.stuck = False
        assert deploy(account, bundles / "good")[-1].endswith("is InService")
        assert aws.fate.names() == ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"]

    @pytest.mark.parametrize(
        ("settings", "seconds"),
        [(Rollout(), 3 * 600 + 1800), (Rollout(bake=3600), 3 * 3600 + 1800), (Rollout(rolling=True), 2 * 1200 + 1800)],
    )
    def test_waiting_ends_after_sagemaker_has_ended_the_update_and_gone_back(
        self, account: Account, bundles: Path, settings: Rollout, seconds: float
    ) -> None:
        deploy(account, bundles / "good")
        packed = archived(bundles / "better")
        assert rollout.plan_promote(account, now(account), packed, settings).seconds == seconds + 1800
        promote(account, bundles / "better", settings)
        assert rollout.plan_rollback(account, now(account), settings).seconds == seconds + 1800

    def test_without_a_deadline_the_command_waits_as_long(
        self, aws: ControlPlane, account: Account, bundles: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deploy(account, bundles / "good")
        ticks = itertools.count(0.0, 100.0)
        clock = SimpleNamespace(monotonic=lambda: next(ticks), sleep=lambda _: setattr(aws.fate, "stuck", True))
        monkeypatch.setattr("firstspin.cli.endpoint_changes.time", clock)
        words = ["promote", "--bundle", str(bundles / "better"), "--endpoint", "newcomers", "--no-alarm"]
        late = CliRunner().invoke(app, [*words, "--bake", "3600", "--force", "test"])
        assert f"is still Updating after {3 * 3600 + 1800 + 1800} s" in str(late.exception)

    def test_an_endpoint_in_the_middle_of_another_change_is_left_alone(
        self, aws: ControlPlane, account: Account, bundles: Path
    ) -> None:
        deploy(account, bundles / "good")
        aws.fate.stuck = True
        with pytest.raises(InputError, match="still Updating"):
            promote(account, bundles / "better")
        made = aws.fate.names()
        with pytest.raises(InputError, match=r"is Updating \(to newcomers-.*\); try again when it is InService"):
            promote(account, bundles / "worse")
        assert aws.fate.names() == made

    def test_one_that_failed_is_told_with_the_way_out_before_anything_is_done(
        self, aws: ControlPlane, account: Account, bundles: Path
    ) -> None:
        aws.fate.fails_to_start = True
        way_out = r"is Failed: The primary .* check; `aws sagemaker delete-endpoint --endpoint-name newcomers`, then"
        with pytest.raises(InputError, match=way_out):
            deploy(account, bundles / "good")
        made = aws.fate.names()
        for change in (deploy, promote):
            for bundle in ("good", "better"):
                with pytest.raises(InputError, match=way_out):
                    change(account, bundles / bundle)
        with pytest.raises(InputError, match=way_out):
            rollout.plan_rollback(account, now(account))
        assert aws.fate.names() == made

    def test_a_pipeline_of_containers(self, account: Account, bundles: Path) -> None:
        deploy(account, bundles / "good")
        (variant,) = now(account).configuration["ProductionVariants"]
        account.sagemaker.create_model(
            ModelName="pipeline", ExecutionRoleArn=ROLE, Containers=[{"Image": HOSTING.image}, {"Image": HOSTING.image}]
        )
        account.sagemaker.delete_endpoint(EndpointName="newcomers")
        account.sagemaker.create_endpoint_config(
            EndpointConfigName="theirs", ProductionVariants=[variant | {"ModelName": "pipeline"}]
        )
        account.sagemaker.create_endpoint(EndpointName="newcomers", EndpointConfigName="theirs")
        with pytest.raises(InputError, match="newcomers is a pipeline of containers"):
            promote(account, bundles / "better")

    def test_inference_components(self, aws: ControlPlane, account: Account, bundles: Path) -> None:
        deploy(account, bundles / "good")
        del aws.fate.made[now(account).endpoint["EndpointConfigName"]]["ProductionVariants"][0]["ModelName"]
        with pytest.raises(InputError, match="newcomers hosts inference components"):
            endpoint.serving(account, "newcomers")

    def test_more_alarms_than_sagemaker_takes(self) -> None:
        with pytest.raises(InputError, match="at most 10 alarms"):
            Rollout(tuple(map(str, range(11))))

    def test_no_such_bucket(self, account: Account, bundles: Path) -> None:
        packed = archived(bundles / "good")
        plan = rollout.plan_deploy(account, "newcomers", packed, ("nowhere-at-all", "x"), HOSTING, Rollout())
        with pytest.raises(InputError, match=r"archive s3://nowhere-at-all/x/.*: NoSuchBucket"):
            ship(account, plan)

    def test_an_account_that_does_not_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "none")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(InputError, match="endpoint newcomers: Could not connect"):
            endpoint.serving(open_account(), "newcomers")

    @pytest.mark.parametrize("name", ["", "new comers", "-a", "a" * 64])
    def test_a_name_that_no_endpoint_can_have(self, account: Account, name: str) -> None:
        with pytest.raises(InputError, match="is not a valid endpoint name"):
            endpoint.serving(account, name)

    @pytest.mark.parametrize("reason", ["<because>", "   "])
    def test_a_reason_that_no_tag_can_hold(self, account: Account, bundles: Path, reason: str) -> None:
        deploy(account, bundles / "good")
        with pytest.raises(InputError, match="stored as a tag"):
            promote(account, bundles / "worse", forced=reason)

    def test_a_model_that_is_no_bundle_of_ours(self, account: Account, bundles: Path) -> None:
        deploy(account, bundles / "good")
        bucket, _, key = now(account).archive.removeprefix("s3://").partition("/")
        account.s3.put_object(Bucket=bucket, Key=key, Body=b"theirs")
        with pytest.raises(InputError, match=r"s3://firstspin-models/newcomers/.* can't be read"):
            read_manifest(endpoint.served_archive(account, now(account)), now(account).archive)


class TestTheCommands:
    def run(self, *words: object) -> Result:
        told = [str(word) for word in (*words, "--endpoint", "newcomers", "--poll", "0.01")]
        return CliRunner().invoke(app, told)

    def test_a_bundle_goes_out_a_worse_one_is_refused_forced_and_taken_back(
        self, aws: ControlPlane, account: Account, bundles: Path
    ) -> None:
        where = ("--bucket", PLACE[0], "--image", HOSTING.image, "--role", ROLE, "--instance-type", "ml.c5.large")
        none = self.run("promote", "--no-alarm", "--bundle", bundles / "good")
        assert "there is no endpoint newcomers" in str(none.exception)

        dry = self.run("deploy", "--bundle", bundles / "good", *where, "--dry-run")
        assert [line[:20] for line in dry.stdout.split("\n\n")[0].splitlines()] == [
            "to do  archive s3://",
            "to do  model newcome",
            "to do  configuration",
            "to do  endpoint newc",
        ]
        assert aws.fate.names() == []

        assert self.run("deploy", "--bundle", bundles / "good", *where).exit_code == 0
        again = self.run("deploy", "--bundle", bundles / "good", *where, "--json")
        assert json.loads(again.stdout)["changes"] == []
        good = served(account)

        data = ("--data", bundles / "data")
        worse = self.run("promote", "--no-alarm", "--bundle", bundles / "worse", *data)
        assert worse.exit_code == 3
        assert f"bundle {load(bundles / 'worse').id} is not promoted: keep: the challenger fails hit@3" in worse.stderr
        assert served(account) == good
        refused = self.run("promote", "--no-alarm", "--bundle", bundles / "worse", *data, "--dry-run", "--json")
        assert refused.exit_code == 3
        told = json.loads(refused.stdout)
        assert (told["gate"]["decision"], told["changes"]) == ("keep", [])
        assert (told["gate"]["champion"], told["gate"]["challenger"]) == (good, load(bundles / "worse").id)
        without = self.run("promote", "--no-alarm", "--bundle", bundles / "worse")
        assert without.exit_code == 2
        assert "--force REASON promotes without the gate" in without.stderr.replace("\n", " ")

        assert self.run("promote", "--no-alarm", "--bundle", bundles / "worse", "--force", "test").exit_code == 0
        assert served(account) != good
        assert self.run("rollback").exit_code == 0
        assert served(account) == good

        better = self.run("promote", "--no-alarm", "--bundle", bundles / "better", *data, "--json")
        assert json.loads(better.stdout)["changes"]
        assert json.loads(better.stdout)["gate"]["decision"] == "promote"
        assert "passes the gate: better, and nowhere inferior: hit@3" in better.stderr
        twice = self.run("promote", "--no-alarm", "--bundle", bundles / "better")
        assert "nothing to do" in twice.stdout

    def test_a_promotion_names_its_alarms_or_says_that_it_has_none(self, account: Account, bundles: Path) -> None:
        deploy(account, bundles / "good")
        bare = ("promote", "--bundle", bundles / "better")
        for words in ((), ("--alarm", "slow", "--no-alarm")):
            refused = self.run(*bare, *words)
            assert refused.exit_code == 2
            assert "--alarm NAME is needed" in refused.stderr
        assert self.run(*bare, "--alarm", "slow", "--json", "--force", "test").exit_code == 0

    @pytest.mark.parametrize("verb", ["rollback", "promote"])
    def test_a_rolling_update_has_a_batch(self, bundles: Path, verb: str) -> None:
        words = ("--no-alarm", "--bundle", bundles / "better") if verb == "promote" else ()
        assert "(1 where it is rolling)" in str(self.run(verb, *words, "--rolling", "--canary", "0").exception)

    def test_what_serves_is_brought_back(self, account: Account, bundles: Path, tmp_path: Path) -> None:
        deploy(account, bundles / "good")
        out = tmp_path / "a bundle"
        words = ["fetch", "--endpoint", "newcomers", "--out", str(out)]
        told = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
        assert told["bundle"] == served(account) == load(out).id
        promote(account, bundles / "better")
        said = CliRunner().invoke(app, words).stdout
        assert f"serves bundle {served(account)}" in said
        assert f"Next: firstspin evaluate --data DIR --bundle '{out}'" in said
        assert load(out).id == served(account)

    def test_a_dry_run_promises_nothing_that_can_not_be_done(
        self, aws: ControlPlane, account: Account, bundles: Path
    ) -> None:
        where = ("--bucket", PLACE[0], "--image", HOSTING.image, "--role", ROLE, "--instance-type", "ml.c5.large")
        words = ("deploy", "--bundle", bundles / "good", *where, "--dry-run")
        alarms = [word for number in range(11) for word in ("--alarm", f"alarm-{number}")]
        assert "at most 10 alarms" in str(self.run(*words, *alarms).exception)
        aws.fate.fails_to_start = True
        with pytest.raises(InputError, match="is Failed"):
            deploy(account, bundles / "good")
        assert "is Failed" in str(self.run(*words).exception)
        assert "is Failed" in str(
            self.run("promote", "--no-alarm", "--bundle", bundles / "worse", "--dry-run").exception
        )
