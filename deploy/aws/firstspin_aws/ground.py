"""The stack that is made first and changes seldom: places for the image, models, batch answers and events, and the
private network."""

from __future__ import annotations

from typing import Any

from aws_cdk import ArnFormat, CfnOutput, Duration, RemovalPolicy, Stack
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kinesisfirehose as firehose
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from constructs import Construct

from firstspin_aws.access import releaser, scorer
from firstspin_aws.settings import Settings

STREAMS = ("exposures", "events")
"""As experiment.outbox names what it sends."""

SEND = "firehose:PutRecordBatch"

KEPT = RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE
"""What holds something is kept when its stack goes, but not when the stack could not even be made."""


class Ground(Stack):
    """What the serving stack stands on."""

    def __init__(self, scope: Construct, settings: Settings, **words: Any) -> None:
        super().__init__(scope, f"{settings.name}-ground", **words)
        self.settings = settings
        self.key = kms.Key.from_key_arn(self, "Key", settings.key_arn) if settings.key_arn else None
        self.repository = ecr.Repository(
            self,
            "Image",
            image_scan_on_push=True,
            image_tag_mutability=ecr.TagMutability.IMMUTABLE,
            # never one with a tag: an endpoint that adds an instance fetches its image again, however old that is
            lifecycle_rules=[ecr.LifecycleRule(tag_status=ecr.TagStatus.UNTAGGED, max_image_age=Duration.days(7))],
            encryption=ecr.RepositoryEncryption.KMS if self.key else ecr.RepositoryEncryption.AES_256,
            encryption_key=self.key,
            removal_policy=KEPT,
        )
        kept = settings.retention
        days = {"data/": kept.tables_days, "transform/": kept.transform_days, "capture/": kept.capture_days}
        self.artifacts = self._bucket("Artifacts", days, versioned=True)
        self.events = self._bucket("Events", {"": kept.events_days})
        logs.LogGroup(  # SageMaker would make it without an end
            self,
            "EndpointLog",
            log_group_name=f"/aws/sagemaker/Endpoints/{settings.name}",
            retention=logs.RetentionDays.ONE_MONTH,
            removal_policy=RemovalPolicy.DESTROY,
        )
        self.table = dynamodb.Table(
            self,
            "Scores",
            table_name=f"{settings.name}-scores",
            partition_key=dynamodb.Attribute(name="user_id", type=dynamodb.AttributeType.STRING),
            sort_key=dynamodb.Attribute(name="version", type=dynamodb.AttributeType.STRING),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            time_to_live_attribute="expires",
            encryption=dynamodb.TableEncryption.CUSTOMER_MANAGED if self.key else dynamodb.TableEncryption.DEFAULT,
            encryption_key=self.key,
            removal_policy=RemovalPolicy.DESTROY,  # `firstspin score` makes it anew
        )
        self.model_role, training_role, transform_role = (
            self._model_role(),
            self._training_role(),
            self._transform_role(),
        )
        forwarder = self._deliveries()
        releases, scores = releaser(self), scorer(self)
        self.vpc = ec2.Vpc(
            self,
            "Network",
            max_azs=2,
            nat_gateways=0,
            create_internet_gateway=False,
            restrict_default_security_group=False,  # would bring a Lambda of CDK's own along
            subnet_configuration=[
                ec2.SubnetConfiguration(name="inner", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED, cidr_mask=24)
            ],
        )
        self.inside = ec2.SecurityGroup(
            self, "Inside", vpc=self.vpc, allow_all_outbound=False, description="The Lambda, and what it may reach"
        )
        self._doors()
        for name, value in {
            "ImageRepository": self.repository.repository_uri,
            "ArtifactsBucket": self.artifacts.bucket_name,
            "ModelRoleArn": self.model_role.role_arn,
            "TrainingRoleArn": training_role.role_arn,
            "TransformRoleArn": transform_role.role_arn,
            "EventsBucket": self.events.bucket_name,
            "ScoresTable": self.table.table_name,
            "ForwarderPolicyArn": forwarder.managed_policy_arn,
            "ReleaserPolicyArn": releases.managed_policy_arn,
            "ScorerPolicyArn": scores.managed_policy_arn,
            "LeastAge": str(settings.policy.least_age),
            "UnderAge": settings.policy.under_age,
        }.items():
            CfnOutput(self, name, value=value)

    def _bucket(self, name: str, days: dict[str, int], *, versioned: bool = False) -> s3.Bucket:
        """A bucket whose objects below these folders expire; all that was replaced or deleted is kept for 30 days."""
        rules = [s3.LifecycleRule(abort_incomplete_multipart_upload_after=Duration.days(7))]
        if versioned:
            older = {"noncurrent_version_expiration": Duration.days(30), "expired_object_delete_marker": True}
            rules.append(s3.LifecycleRule(**older))
        for folder, after in days.items():
            below = {"prefix": folder} if folder else {}
            rules.append(s3.LifecycleRule(expiration=Duration.days(after), **below))
        return s3.Bucket(
            self,
            name,
            versioned=versioned,
            encryption=s3.BucketEncryption.KMS if self.key else s3.BucketEncryption.S3_MANAGED,
            encryption_key=self.key,
            bucket_key_enabled=self.key is not None,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            enforce_ssl=True,
            removal_policy=KEPT,
            lifecycle_rules=rules,
        )

    def _model_role(self) -> iam.Role:
        """What an endpoint may: fetch its model and its image, write its log and captured data, see alarms."""
        log = f"/aws/sagemaker/Endpoints/{self.settings.name}*"
        own = [self.objects("s3:GetObject", "models"), self.objects("s3:PutObject", "capture"), self.sees_alarms()]
        return self._sagemaker_role("ModelRole", log, own)

    def _training_role(self) -> iam.Role:
        """What a training job may: read the tables below data/, leave its model below models/, keep what tuning has
        tried below checkpoints/, and write its log."""
        return self._sagemaker_role(
            "TrainingRole",
            "/aws/sagemaker/TrainingJobs*",
            [
                self.objects("s3:GetObject", "data", "checkpoints"),
                self.listing("data", "checkpoints"),
                self.objects("s3:PutObject", "models", "checkpoints"),
            ],
        )

    def _transform_role(self) -> iam.Role:
        """What batch transform may: fetch its model, read what is asked, leave the answers, and write its log."""
        return self._sagemaker_role(
            "TransformRole",
            "/aws/sagemaker/TransformJobs*",
            [
                self.objects("s3:GetObject", "models", "transform/asked"),
                self.listing("transform/asked"),
                self.objects("s3:PutObject", "transform/answered"),
            ],
        )

    def sees_alarms(self) -> iam.PolicyStatement:
        """What AWS asks for of whatever alarms are to take back; narrower than `*`, it hides composite alarms."""
        return iam.PolicyStatement(actions=["cloudwatch:DescribeAlarms"], resources=["*"])

    def use_of_key(self) -> list[iam.PolicyStatement]:
        """What reading and writing needs with a customer-managed key; nothing without one."""
        if self.key is None:
            return []
        return [iam.PolicyStatement(actions=["kms:Decrypt", "kms:GenerateDataKey"], resources=[self.key.key_arn])]

    def objects(self, action: str, *folders: str) -> iam.PolicyStatement:
        """An action on the objects of these folders of the artifacts."""
        objects = [self.artifacts.arn_for_objects(f"{folder}/*") for folder in folders]
        return iam.PolicyStatement(actions=[action], resources=objects)

    def listing(self, *folders: str) -> iam.PolicyStatement:
        """Without it a missing key of these folders is a 403, not a 404."""
        return iam.PolicyStatement(
            actions=["s3:ListBucket"],
            resources=[self.artifacts.bucket_arn],
            conditions={"StringLike": {"s3:prefix": [f"{folder}/*" for folder in folders]}},
        )

    def _sagemaker_role(self, name: str, log: str, own: list[iam.PolicyStatement]) -> iam.Role:
        logs = self.format_arn(
            service="logs", resource="log-group", resource_name=log, arn_format=ArnFormat.COLON_RESOURCE_NAME
        )
        image = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        written = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
        statements = [
            *own,
            iam.PolicyStatement(actions=image, resources=[self.repository.repository_arn]),
            iam.PolicyStatement(actions=written, resources=[logs]),
            *self.use_of_key(),
            iam.PolicyStatement(  # neither of the two takes a resource
                actions=["ecr:GetAuthorizationToken", "cloudwatch:PutMetricData"], resources=["*"]
            ),
        ]
        return iam.Role(
            self,
            name,
            assumed_by=iam.ServicePrincipal(
                "sagemaker.amazonaws.com", conditions={"StringEquals": {"aws:SourceAccount": self.account}}
            ),
            inline_policies={"work": iam.PolicyDocument(statements=statements)},
        )

    def _deliveries(self) -> iam.ManagedPolicy:
        """One Firehose for each kind of row, into a folder a day; and what `firstspin events forward` may."""
        role = iam.Role(
            self,
            "Delivery",
            assumed_by=iam.ServicePrincipal(
                "firehose.amazonaws.com", conditions={"StringEquals": {"sts:ExternalId": self.account}}
            ),
            inline_policies={
                "write": iam.PolicyDocument(
                    statements=[
                        iam.PolicyStatement(
                            actions=["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"],
                            resources=[self.events.bucket_arn],
                        ),
                        iam.PolicyStatement(
                            actions=["s3:AbortMultipartUpload", "s3:PutObject"],
                            resources=[self.events.arn_for_objects(f"{kind}/*") for kind in (*STREAMS, "refused")],
                        ),
                        *self.use_of_key(),
                    ]
                )
            },
        )
        self.streams = {kind: self._stream(kind, role) for kind in STREAMS}
        send = iam.PolicyStatement(actions=[SEND], resources=[stream.attr_arn for stream in self.streams.values()])
        about = "For whatever runs firstspin events forward"
        return iam.ManagedPolicy(self, "Forwarder", description=about, statements=[send])

    def _stream(self, kind: str, role: iam.Role) -> firehose.CfnDeliveryStream:
        return firehose.CfnDeliveryStream(
            self,
            f"Deliver{kind.capitalize()}",
            delivery_stream_name=f"{self.settings.name}-{kind}",
            delivery_stream_type="DirectPut",
            delivery_stream_encryption_configuration_input=firehose.CfnDeliveryStream.DeliveryStreamEncryptionConfigurationInputProperty(
                key_type="CUSTOMER_MANAGED_CMK" if self.key else "AWS_OWNED_CMK",
                key_arn=self.key.key_arn if self.key else None,
            ),
            extended_s3_destination_configuration=firehose.CfnDeliveryStream.ExtendedS3DestinationConfigurationProperty(
                bucket_arn=self.events.bucket_arn,
                role_arn=role.role_arn,
                compression_format="GZIP",
                prefix=f"{kind}/day=!{{timestamp:yyyy-MM-dd}}/",
                error_output_prefix=f"refused/{kind}/!{{firehose:error-output-type}}/",
                buffering_hints=firehose.CfnDeliveryStream.BufferingHintsProperty(
                    interval_in_seconds=300, size_in_m_bs=64
                ),
            ),
        )

    def _doors(self) -> None:
        """All that can be reached from inside: this one endpoint of SageMaker and this one table of DynamoDB.

        While an experiment runs also the stream of exposures.
        """
        group = ec2.SecurityGroup(
            self, "Door", vpc=self.vpc, allow_all_outbound=False, description="What leads to the runtime of SageMaker"
        )
        group.add_ingress_rule(self.inside, ec2.Port.tcp(443), "from the Lambda")
        self.inside.add_egress_rule(group, ec2.Port.tcp(443), "to the runtime of SageMaker")
        self.runtime = runtime = self.vpc.add_interface_endpoint(
            "Runtime",
            service=ec2.InterfaceVpcEndpointAwsService.SAGEMAKER_RUNTIME,
            private_dns_enabled=True,
            security_groups=[group],
            open=False,
        )
        runtime.add_to_policy(_anyone_in_the_account(self, ["sagemaker:InvokeEndpoint"], [endpoint_arn(self)]))
        if self.settings.experiment.running:
            firehose_door = self.vpc.add_interface_endpoint(
                "Firehose",
                service=ec2.InterfaceVpcEndpointAwsService.KINESIS_FIREHOSE,
                private_dns_enabled=True,
                security_groups=[group],
                open=False,
            )
            stream = self.streams["exposures"].attr_arn
            firehose_door.add_to_policy(_anyone_in_the_account(self, [SEND], [stream]))
        table = self.vpc.add_gateway_endpoint("Table", service=ec2.GatewayVpcEndpointAwsService.DYNAMODB)
        table.add_to_policy(_anyone_in_the_account(self, ["dynamodb:GetItem"], [self.table.table_arn]))
        # a gateway endpoint is reached by public addresses, which a group can only name by a list of AWS's
        self.inside.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "to DynamoDB; no route leads anywhere else")


def endpoint_arn(stack: Stack) -> str:
    """The SageMaker endpoint, which may be made later or by `firstspin sagemaker deploy`."""
    return stack.format_arn(service="sagemaker", resource="endpoint", resource_name=stack.settings.name)  # type: ignore[attr-defined]


def _anyone_in_the_account(stack: Stack, actions: list[str], resources: list[str]) -> iam.PolicyStatement:
    return iam.PolicyStatement(
        principals=[iam.AnyPrincipal()],
        actions=actions,
        resources=resources,
        conditions={"StringEquals": {"aws:PrincipalAccount": stack.account}},
    )
