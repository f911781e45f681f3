"""The serving stack: autoscaling, front door, alarms. It stands on the ground stack; a command makes the endpoint."""

from __future__ import annotations

from typing import Any

from aws_cdk import CfnOutput, Stack
from constructs import Construct

from firstspin_aws.front import Door, Function
from firstspin_aws.ground import STREAMS, Ground
from firstspin_aws.probe import Probe
from firstspin_aws.scaling import scale
from firstspin_aws.settings import LAMBDA, Settings
from firstspin_aws.watch import Watch


class Serving(Stack):
    """Everything between a caller and a model's answer."""

    def __init__(self, scope: Construct, settings: Settings, ground: Ground, **words: Any) -> None:
        super().__init__(scope, settings.name, **words)
        watch = Watch(self, settings)
        watch.endpoint()
        if settings.scaling.enabled:
            scale(self, settings)
        Probe(self, settings, ground)
        watch.probe()
        watch.deliveries(f"{settings.name}-{kind}" for kind in STREAMS)
        function = Function(self, settings, ground) if settings.front.route == LAMBDA else None
        door = Door(self, settings, ground, function.target if function else None)
        watch.door(door.api)
        if function:
            function.shift(settings, watch.function(function.function, function.log))
            if settings.experiment.running:
                watch.exposures(function.log)
        watch.dashboard()
        CfnOutput(self, "Url", value=door.api.url_for_path("/invocations"))
        CfnOutput(self, "AlarmTopicArn", value=watch.topic.topic_arn)
        CfnOutput(self, "Target", value=f"{settings.scaling.target:g}", description=f"By the {settings.scaling.metric}")
