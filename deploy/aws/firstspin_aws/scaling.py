"""How many instances answer: the scalable target of each variant and its policy.

`firstspin sagemaker deploy` makes the endpoint, `promote` and `rollback` change its model; this stack never does.
"""

from __future__ import annotations

from aws_cdk import aws_applicationautoscaling as scaling
from constructs import Construct

from firstspin_aws.settings import MINUTE, Settings

METRICS = {
    True: "SageMakerVariantInvocationsPerInstance",
    False: "SageMakerVariantConcurrentRequestsPerModelHighResolution",
}
"""By whether the policy is evaluated by the minute."""


def scale(scope: Construct, settings: Settings) -> None:
    """Hold each instance of the endpoint's variant at the target of the settings."""
    wanted, variant = settings.scaling, settings.endpoint.variant
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
