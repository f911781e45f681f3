"""How an endpoint changes over: SageMaker's DeploymentConfig, blue/green or rolling.

A canary changes first, is rolled back by alarms on the new fleet, and then the rest follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from firstspin.records import InputError

Words = dict[str, Any]
MARGIN_SECONDS, BATCH_SECONDS = 1800, 600
"""Time of an update beside its waits, to start and to stop instances, and of each further batch."""

CANARY: Final = 1
BAKE_SECONDS, MAX_BAKE_SECONDS = 600, 3600
MAX_SECONDS: Final = 28_800
MAX_BATCHES: Final = 20
"""SageMaker's batch is at least 5% of the instances."""

MAX_ALARMS: Final = 10


@dataclass(frozen=True, slots=True)
class Rollout:
    """Settings of an update: `canary` instances first, watched for `bake` seconds; an alarm rolls it back.

    Blue/green starts a second fleet and needs twice the instance quota. With `rolling` the fleet changes in batches of
    `canary` instances. A canary of 0 changes all at once. Raises InputError where a value is out of range.
    """

    alarms: tuple[str, ...] = ()
    canary: int = CANARY
    bake: int = BAKE_SECONDS
    rolling: bool = False

    def __post_init__(self) -> None:
        canary_fits, bake_fits = self.canary >= int(self.rolling), 0 <= self.bake <= MAX_BAKE_SECONDS
        if not (canary_fits and bake_fits and len(self.alarms) <= MAX_ALARMS):
            raise InputError(
                f"a roll-out has a canary of 0 instances or more (1 where it is rolling), 0 to {MAX_BAKE_SECONDS} "
                f"seconds of watch, at most {MAX_ALARMS} alarms"
            )

    def configuration(self, instances: int, largest: int = 0) -> Words:
        """SageMaker's DeploymentConfig. A canary or batch is at most half of the instances, so one changes at once.

        `largest` is the larger of the fleets before and after, where they differ. Raises InputError where one instance
        would be rolling, or the batches would take longer than SageMaker lets an update run.
        """
        first = min(self.canary, instances // 2)
        policy = self._rolling(first, max(instances, largest)) if self.rolling else self._blue_green(first)
        configuration: Words = policy
        if self.alarms:
            configuration["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": name} for name in self.alarms]}
        return configuration

    def _blue_green(self, first: int) -> Words:
        routing: Words = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": self.bake}
        if first:
            routing |= {"Type": "CANARY", "CanarySize": _count(first)}
        policy = {
            "TrafficRoutingConfiguration": routing,
            "TerminationWaitInSeconds": self.bake,
            "MaximumExecutionTimeoutInSeconds": 3 * self.bake + MARGIN_SECONDS,
        }
        return {"BlueGreenUpdatePolicy": policy}

    def _rolling(self, batch: int, instances: int) -> Words:
        if not batch:
            raise InputError("one instance can't be updated in batches: use blue/green, or two instances")
        batch = max(batch, -(-instances // MAX_BATCHES))
        batches = -(-instances // batch)
        seconds = batches * (self.bake + BATCH_SECONDS) + MARGIN_SECONDS
        if seconds > MAX_SECONDS:
            raise InputError(
                f"{batches} batches with {self.bake} seconds of watch each need {seconds:,} s, and SageMaker ends an "
                f"update after {MAX_SECONDS:,}: choose a larger --canary or a shorter --bake"
            )
        policy = {
            "MaximumBatchSize": _count(batch),
            "RollbackMaximumBatchSize": _count(batch),  # SageMaker's default would start a second fleet
            "WaitIntervalInSeconds": self.bake,
            "MaximumExecutionTimeoutInSeconds": seconds,
        }
        return {"RollingUpdatePolicy": policy}


def time_of_update(configuration: Words) -> float:
    """Seconds after which SageMaker has ended an update, and gone back where it was late."""
    [policy] = [policy for name, policy in configuration.items() if name.endswith("UpdatePolicy")]
    return float(policy["MaximumExecutionTimeoutInSeconds"] + MARGIN_SECONDS)


def _count(instances: int) -> Words:
    return {"Type": "INSTANCE_COUNT", "Value": instances}


BACK: Final = Rollout(canary=0, bake=60)
"""A rollback: all at once, to what has served before, without alarms, which may be those of the fleet that fails."""
