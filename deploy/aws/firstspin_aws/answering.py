"""The model on SageMaker: what it is, the endpoint, and how many instances answer."""

from __future__ import annotations

from typing import Any

from aws_cdk import CfnParameter, CfnTag, Stack
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from firstspin_aws.ground import Ground
from firstspin_aws.settings import CHALLENGER, MINUTE, Settings

METRICS = {
    True: "SageMakerVariantInvocationsPerInstance",
    False: "SageMakerVariantConcurrentRequestsPerModelHighResolution",
}
"""By whether the policy looks by the minute."""


class Model(Construct):
    """The model, its endpoint and its releases: a changed parameter is a blue/green release with automatic rollback."""

    def __init__(self, scope: Construct, settings: Settings, ground: Ground, alarms: list[str]) -> None:
        super().__init__(scope, "Model")
        self._settings, self._ground = settings, ground
        stack = Stack.of(self)
        image = CfnParameter(stack, "ImageTag", description="Tag of the image in the repository of the ground stack")
        self._image = f"{ground.repository.repository_uri}:{image.value_as_string}"
        share = settings.endpoint.challenger_share
        variants = [self._variant(settings.endpoint.variant, "ModelKey", 1 - share)]
        if share:
            variants.append(self._variant(CHALLENGER, "ChallengerKey", share))
        config = sagemaker.CfnEndpointConfig(self, "Config", production_variants=variants)
        self.endpoint = sagemaker.CfnEndpoint(
            self,
            "Endpoint",
            endpoint_name=settings.name,
            endpoint_config_name=config.attr_endpoint_config_name,
            retain_all_variant_properties=True,  # a release keeps the number of instances that autoscaling found
            exclude_retained_variant_properties=[
                sagemaker.CfnEndpoint.VariantPropertyProperty(variant_property_type=kind)
                for kind in ("DesiredWeight", *([] if settings.scaling.enabled else ["DesiredInstanceCount"]))
            ],
            deployment_config=_release(alarms, settings.scaling.least_instances),
            tags=[CfnTag(key="project", value=settings.name)],
        )

    def _variant(
        self, name: str, parameter: str, weight: float
    ) -> sagemaker.CfnEndpointConfig.ProductionVariantProperty:
        where = f"Key of the model.tar.gz of `firstspin sagemaker package` in the artifacts bucket, for {name}"
        key = CfnParameter(Stack.of(self), parameter, description=where, allowed_pattern="models/.+")
        model = sagemaker.CfnModel(
            self,
            name,
            execution_role_arn=self._ground.model_role.role_arn,
            enable_network_isolation=True,  # the container only answers; SageMaker itself fetches the model
            primary_container=sagemaker.CfnModel.ContainerDefinitionProperty(
                image=self._image,
                model_data_url=f"s3://{self._ground.artifacts.bucket_name}/{key.value_as_string}",
            ),
        )
        return sagemaker.CfnEndpointConfig.ProductionVariantProperty(
            variant_name=name,
            model_name=model.attr_model_name,
            instance_type=self._settings.endpoint.instance,
            initial_instance_count=self._settings.scaling.least_instances,
            initial_variant_weight=weight,
        )


def _release(alarms: list[str], instances: int) -> sagemaker.CfnEndpoint.DeploymentConfigProperty:
    """One tenth first, five minutes under the alarms, then the rest; one instance has no tenth and changes at once."""
    endpoint = sagemaker.CfnEndpoint
    routing: dict[str, Any] = {"type": "ALL_AT_ONCE"}
    if instances > 1:
        routing = {"type": "CANARY", "canary_size": endpoint.CapacitySizeProperty(type="CAPACITY_PERCENT", value=10)}
    return endpoint.DeploymentConfigProperty(
        auto_rollback_configuration=endpoint.AutoRollbackConfigProperty(
            alarms=[endpoint.AlarmProperty(alarm_name=name) for name in alarms]
        ),
        blue_green_update_policy=endpoint.BlueGreenUpdatePolicyProperty(
            traffic_routing_configuration=endpoint.TrafficRoutingConfigProperty(
                wait_interval_in_seconds=300, **routing
            ),
            termination_wait_in_seconds=120,
            maximum_execution_timeout_in_seconds=1800,
        ),
    )


def scale(scope: Construct, settings: Settings, variant: str) -> scaling.CfnScalableTarget:
    """Hold each instance of a variant at the target of the settings."""
    wanted = settings.scaling
    target = scaling.CfnScalableTarget(
        scope,
        f"Instances-{variant}",
        service_namespace="sagemaker",
        resource_id=f"endpoint/{settings.name}/variant/{variant}",
        scalable_dimension="sagemaker:variant:DesiredInstanceCount",
        min_capacity=wanted.least_instances,
        max_capacity=wanted.most_instances,
    )
    policy = scaling.CfnScalingPolicy
    policy(
        scope,
        f"Policy-{variant}",
        policy_name=f"{settings.name}-{variant}",
        policy_type="TargetTrackingScaling",
        scaling_target_id=target.ref,
        target_tracking_scaling_policy_configuration=policy.TargetTrackingScalingPolicyConfigurationProperty(
            predefined_metric_specification=policy.PredefinedMetricSpecificationProperty(
                predefined_metric_type=METRICS[wanted.metric == MINUTE]
            ),
            target_value=wanted.target,
            scale_out_cooldown=wanted.out_cooldown,
            scale_in_cooldown=wanted.in_cooldown,
        ),
    )
    return target
