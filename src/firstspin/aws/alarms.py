"""Alarms of a release: copies of the endpoint's alarms that watch the new fleet alone.

An alarm on the endpoint sees the old and the new fleet together: a canary that fails whole is a small share of that,
and an old fleet that fails would take its remedy back. SageMaker also counts each configuration by itself (dimension
EndpointConfigName), and the name of the configuration is known before the update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from firstspin.aws.clients import Account, carried, clear
from firstspin.records import InputError

SUFFIX: Final = "-release"
CONFIGURATION: Final = "EndpointConfigName"


@dataclass(frozen=True, slots=True)
class FleetAlarms:
    """The `names` that take a release back, and what creates those among them that are `copies`."""

    names: tuple[str, ...]
    copies: tuple[str, ...]
    create: Callable[[], None]


def fleet_alarms(
    account: Account, names: Sequence[str], endpoint: str, configuration: str, watch: float
) -> FleetAlarms:
    """The alarms for a fleet with that configuration, which is watched for `watch` seconds.

    Alarms on the endpoint's metrics are copied, others are used as they are. A copy is created anew for each release,
    so that it begins without the state of the one before. Raises InputError where an alarm does not exist, or needs
    longer than `watch`.
    """
    with clear("the alarms"):
        response = account.cloudwatch.describe_alarms(
            AlarmNames=list(names), AlarmTypes=["MetricAlarm", "CompositeAlarm"]
        )
    alarms = {one["AlarmName"]: one for kind in ("MetricAlarms", "CompositeAlarms") for one in response.get(kind, [])}
    copies = {}
    for name in names:
        if name not in alarms:
            raise InputError(f"there is no alarm {name}; the front stack creates those of deploy/aws")
        seconds = alarms[name].get("Period", 0) * alarms[name].get("EvaluationPeriods", 0)
        if seconds > watch:
            raise InputError(f"alarm {name} needs {seconds} s to fire, and --bake is {watch:g}: a release would pass")
        if {"Name": "EndpointName", "Value": endpoint} in alarms[name].get("Dimensions", []):
            copies[name + SUFFIX] = _copy(account, alarms[name], configuration)

    def create() -> None:
        account.cloudwatch.delete_alarms(AlarmNames=list(copies))
        for copy in copies.values():
            account.cloudwatch.put_metric_alarm(**copy)

    watching = tuple(name + SUFFIX if name + SUFFIX in copies else name for name in names)
    return FleetAlarms(watching, tuple(copies), create)


def _copy(account: Account, alarm: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    of_fleet = [*alarm["Dimensions"], {"Name": CONFIGURATION, "Value": configuration}]
    settings = carried(account.cloudwatch, "PutMetricAlarm", alarm)
    return settings | {"AlarmName": alarm["AlarmName"] + SUFFIX, "Dimensions": of_fleet}
