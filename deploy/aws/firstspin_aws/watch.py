"""Who is woken when, and what they look at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aws_cdk import Duration, Stack
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as functions
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from firstspin_aws.settings import Settings

MINUTE, FIVE_MINUTES = Duration.minutes(1), Duration.minutes(5)
LATE_SECONDS = 1800
"""Firehose delivers every 300 s; so late it is failing, and it keeps rows for a day."""

BELOW: dict[str, Any] = {"comparison_operator": cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD}
AT_MOST: dict[str, Any] = {"comparison_operator": cloudwatch.ComparisonOperator.LESS_THAN_OR_EQUAL_TO_THRESHOLD}
LOUD: dict[str, Any] = {"treat_missing_data": cloudwatch.TreatMissingData.BREACHING}
"""Where no data is a fault."""

FELL_BACK = "fell_back"
"""The event that aws.front.gateway logs when the endpoint did not answer."""

EXPOSURES_DROPPED = "exposures_dropped"
"""The event that it logs when exposures did not reach Firehose."""


def _alarms_may_publish(scope: Construct, topic: sns.Topic) -> iam.PolicyStatement:
    """A topic with a policy of its own has lost the permission that it has by default."""
    return iam.PolicyStatement(
        principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
        actions=["sns:Publish"],
        resources=[topic.topic_arn],
        conditions={"StringEquals": {"aws:SourceAccount": Stack.of(scope).account}},
    )


class Watch(Construct):
    """Alarms, told to one topic, and a dashboard."""

    def __init__(self, scope: Construct, settings: Settings) -> None:
        super().__init__(scope, "Watch")
        self._settings = settings
        self.topic = sns.Topic(self, "Topic", topic_name=f"{settings.name}-alarms", enforce_ssl=True)
        self.topic.add_to_resource_policy(_alarms_may_publish(self, self.topic))
        if settings.alarms.email:
            self.topic.add_subscription(subscriptions.EmailSubscription(settings.alarms.email))
        self._graphs: list[cloudwatch.IWidget] = []

    def endpoint(self) -> None:
        """Watch the endpoint. `firstspin sagemaker promote --alarm` copies these for the new fleet of a release."""
        named = {"EndpointName": self._settings.name, "VariantName": self._settings.endpoint.variant}

        def metric(name: str, statistic: str) -> cloudwatch.Metric:
            return cloudwatch.Metric(
                namespace="AWS/SageMaker", metric_name=name, dimensions_map=named, statistic=statistic, period=MINUTE
            )

        errors, latency = metric("Invocation5XXErrors", "Sum"), metric("ModelLatency", "p99")
        # each invocation counts 0 or 1: also for a connection reset, an answer that is no HTTP, and one that never came
        failed = metric("InvocationModelErrors", "Average")
        wanted = self._settings.alarms
        self._graph("Invocations", metric("Invocations", "Sum"), metric("InvocationsPerInstance", "Sum"))
        self._graph("Time in the container (us)", metric("ModelLatency", "p50"), latency)
        self._graph("Endpoint errors", errors, metric("Invocation4XXErrors", "Sum"), failed)
        self._alarm("endpoint-5xx", errors, 0, periods=2)
        self._alarm("endpoint-failed", failed, wanted.failed_percent / 100, periods=2)
        # SageMaker counts microseconds; the p99 of a few samples is only their maximum
        few: dict[str, Any] = {"evaluate_low_sample_count_percentile": "ignore"}
        self._alarm("endpoint-latency", latency, wanted.latency_p99_ms * 1000, periods=3, **few)
        # at a low rate the alarm above is silent
        mean = metric("ModelLatency", "Average")
        self._alarm("endpoint-latency-mean", mean, wanted.latency_mean_ms * 1000, periods=2)

        self._graph("CPU of the instances (%)", self._of_instances("CPUUtilization"))
        self._graph("Memory of the instances (%)", self._of_instances("MemoryUtilization"))

    def _of_instances(self, name: str) -> cloudwatch.Metric:
        """The maximum of all instances; CPU counts 100% per core."""
        named = {"EndpointName": self._settings.name, "VariantName": self._settings.endpoint.variant}
        return cloudwatch.Metric(
            namespace="/aws/sagemaker/Endpoints", metric_name=name, dimensions_map=named, statistic="Maximum"
        )

    def probe(self) -> None:
        """Watch what the probe measures: the scalable target, the number of instances, the age of the answers."""
        names = ("scalable_targets", "instances", "instances_left", "answers_age_hours")
        targets, instances, left, age = map(self._probed, names)
        scaling, wanted = self._settings.scaling, self._settings.alarms
        self._graph("Instances", instances, *([left] if scaling.enabled else []))
        self._graph("Age of the stored answers (hours)", age)
        if scaling.enabled:
            # no data is a probe that fails, and then nobody would see the target go
            self._alarm("scaling-gone", targets, 1, periods=3, **BELOW | LOUD)
            # the scalable target says its max, which a schedule changes
            self._alarm("instances-at-max", left, 0, periods=3, **AT_MOST)
        self._alarm("answers-old", age, wanted.answers_hours, periods=3)

    def _probed(self, name: str) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace=self._settings.name, metric_name=name, statistic="Maximum", period=FIVE_MINUTES
        )

    def deliveries(self, streams: Iterable[str]) -> None:
        """Watch Firehose: the age of the oldest row that is not in S3 yet."""
        for stream in streams:
            fresh = cloudwatch.Metric(
                namespace="AWS/Firehose",
                metric_name="DeliveryToS3.DataFreshness",
                dimensions_map={"DeliveryStreamName": stream},
                statistic="Maximum",
                period=FIVE_MINUTES,
            )
            kind = stream.removeprefix(f"{self._settings.name}-")
            self._graph(f"Age of {kind} that are not delivered (s)", fresh)
            self._alarm(f"{kind}-late", fresh, LATE_SECONDS, periods=2)

    def door(self, api: apigateway.RestApi) -> None:
        """Watch the REST API."""
        errors = api.metric_server_error(period=MINUTE, statistic="Sum")
        self._graph("API requests", api.metric_count(period=MINUTE))
        self._graph("API time (ms)", api.metric_latency(period=MINUTE, statistic="p99"))
        self._graph("API errors", errors, api.metric_client_error(period=MINUTE, statistic="Sum"))
        self._alarm("api-5xx", errors, 0, periods=2)
        if quiet := self._settings.alarms.quiet_minutes:
            asked = api.metric_count(period=FIVE_MINUTES, statistic="Sum")
            self._alarm("traffic-gone", asked, 1, periods=quiet // 5, **BELOW | LOUD)

    def function(self, function: functions.Function, log: logs.LogGroup) -> list[cloudwatch.IAlarm]:
        """Watch the Lambda, above all the share of fallbacks; the alarms that take a new version back."""
        fell_back = self._counted(log, "FellBack", FELL_BACK, FIVE_MINUTES)
        share = cloudwatch.MathExpression(
            expression="IF(asked > 0, 100 * fell_back / asked, 0)",
            using_metrics={
                "fell_back": fell_back,
                "asked": function.metric_invocations(period=FIVE_MINUTES, statistic="Sum"),
            },
            label="answered by a fallback (%)",
            period=FIVE_MINUTES,
        )
        errors = function.metric_errors(period=MINUTE, statistic="Sum")
        self._graph("Fallback (%)", share)
        throttles = function.metric_throttles(period=MINUTE, statistic="Sum")
        self._graph("Lambda errors and throttles", errors, throttles)
        # Lambda refuses the request before any code of ours runs: without an answer, and without the fallback
        self._alarm("lambda-throttles", throttles, 0, periods=1)
        return [
            self._alarm("fallback-share", share, self._settings.alarms.fallback_percent, periods=1),
            self._alarm("lambda-errors", errors, 0, periods=2),
        ]

    def exposures(self, log: logs.LogGroup) -> None:
        """Watch the experiment: a lost exposure is a user who is missing in its result."""
        dropped = self._counted(log, "ExposuresDropped", EXPOSURES_DROPPED, MINUTE)
        self._graph("Exposures dropped (requests)", dropped)
        self._alarm("exposures-dropped", dropped, 0, periods=1)

    def _counted(self, log: logs.LogGroup, name: str, event: str, period: Duration) -> cloudwatch.Metric:
        """How often the Lambda logs an event."""
        logs.MetricFilter(
            self,
            name,
            log_group=log,
            filter_pattern=logs.FilterPattern.all_terms(event),
            metric_namespace=self._settings.name,
            metric_name=event,
            metric_value="1",
            default_value=0,
        )
        return cloudwatch.Metric(namespace=self._settings.name, metric_name=event, statistic="Sum", period=period)

    def dashboard(self) -> None:
        """All graphs, two a row."""
        rows = [self._graphs[i : i + 2] for i in range(0, len(self._graphs), 2)]
        cloudwatch.Dashboard(self, "Dashboard", dashboard_name=self._settings.name, widgets=rows)

    def _graph(self, title: str, *metrics: cloudwatch.IMetric) -> None:
        self._graphs.append(cloudwatch.GraphWidget(title=title, left=list(metrics), width=12))

    def _alarm(
        self, name: str, metric: cloudwatch.IMetric, threshold: float, *, periods: int, **words: Any
    ) -> cloudwatch.IAlarm:
        """Wakes after so many periods in a row above the threshold; no data is a quiet hour, not a fault.

        `words` are further properties, or others than these.
        """
        usual: dict[str, Any] = {
            "comparison_operator": cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            "treat_missing_data": cloudwatch.TreatMissingData.NOT_BREACHING,
        }
        alarm = cloudwatch.Alarm(
            self,
            name,
            alarm_name=self._name(name),
            metric=metric,
            threshold=threshold,
            evaluation_periods=periods,
            **(usual | words),
        )
        alarm.add_alarm_action(actions.SnsAction(self.topic))
        return alarm

    def _name(self, name: str) -> str:
        return f"{self._settings.name}-{name}"
