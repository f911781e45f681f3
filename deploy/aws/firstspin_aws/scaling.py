"""How many instances answer: the scalable target of each variant and its policy.

`firstspin sagemaker deploy` makes the endpoint, `promote` and `rollback` change its model; this stack never does.
"""

from __future__ import annotations

from aws_cdk import aws_applicationautoscaling as scaling
from constructs import Construct

from firstspin_aws.settings import MINUTE, SCHEDULED, Settings

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
        scheduled_actions=[_scheduled(number, text) for number, text in enumerate(wanted.schedule)] or None,
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


def _scheduled(number: int, text: str) -> scaling.CfnScalableTarget.ScheduledActionProperty:
    """Other bounds from a time on: instances that stand ready before the evening's peak."""
    found = SCHEDULED.fullmatch(text)
    assert found is not None
    bounds = scaling.CfnScalableTarget.ScalableTargetActionProperty(
        min_capacity=int(found["least"]), max_capacity=int(found["most"])
    )
    return scaling.CfnScalableTarget.ScheduledActionProperty(
        schedule=found["when"],
        scheduled_action_name=f"schedule-{number}",
        timezone="UTC",
        scalable_target_action=bounds,
    )
