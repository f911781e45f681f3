"""The experiment and the event store, as the service uses them: which policy answers an arm, and what is recorded.

The arm of a user is a hash of the id (`experiment.assign`) and what answers is decided in `serving.policy`. With the
exposure, the stations that every arm would have shown are recorded. Of users under the minimum age, or outside the
experiment, nothing is recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from firstspin.events.schema import Exposure, Secret, Unavailable, exposure, read_batch, results
from firstspin.experiment.assign import ArmSplit
from firstspin.experiment.plan import Plan, experiment_key, plan_split
from firstspin.records import InputError
from firstspin.serving.policy import ArmPolicy, Decision
from firstspin.serving.wire import Refusal

if TYPE_CHECKING:
    from firstspin.events.store import EventStore

POLICIES: Final[tuple[ArmPolicy, ...]] = ("model", "rule")
KEEP_SECONDS: Final = 1.6
"""A request with events is answered 503 after so long; what is kept of it later is a duplicate when it comes again."""


@dataclass(frozen=True, slots=True)
class Running:
    """A sealed plan as it is served: its key, who gets which arm, and the policy that answers each arm."""

    plan: Plan
    key: str
    split: ArmSplit
    policies: Mapping[str, ArmPolicy]


def running(plan: Plan) -> Running:
    """The plan, ready to be served. Raises InputError for an arm that no policy of the service answers."""
    return Running(plan, experiment_key(plan), plan_split(plan), {arm: policy(arm) for arm in plan.arms})


def policy(arm: str) -> ArmPolicy:
    """What answers an arm: its name is `model` or `rule`, or begins so, as in `model-a` and `model-b` of an A/A test.

    >>> policy("rule"), policy("model-b")
    ('rule', 'model')
    """
    found = next((name for name in POLICIES if arm == name or arm.startswith(f"{name}-")), None)
    if found is None:
        raise InputError(f"arm {arm!r}: the service answers {' and '.join(POLICIES)}, and arms named like model-b")
    return found


@dataclass(frozen=True, slots=True)
class ExposureLog:
    """What `/v1` keeps; `now` is the time of day. Without a running experiment nobody is assigned."""

    store: EventStore
    secret: Secret
    now: Callable[[], datetime]
    running: Running | None = None

    def exposures(
        self, user_id: str, decision: Decision, stations: Mapping[ArmPolicy, Sequence[str]]
    ) -> tuple[Exposure, ...]:
        """The exposure of a user of the experiment; none without a message.

        `stations` are those that each policy would have shown, the message's first.
        """
        given, running = decision.assignment, self.running
        assert given is not None
        assert running is not None
        policies = running.policies
        shown = stations[policies[given.arm]]
        if not shown:
            return ()
        return (
            exposure(
                self.secret,
                experiment=running.key,
                user_id=user_id,
                arm=given.arm,
                propensity=given.propensity,
                decided_at=self.now(),
                source=decision.source,
                model=decision.model,
                station_id=shown[0],
                candidates={arm: stations[policy] for arm, policy in policies.items()},
            ),
        )

    def record(self, exposures: Sequence[Exposure]) -> None:
        """Record exposures; they are stored as soon as that is possible."""
        self.store.submit_exposures(exposures)

    def kept(self) -> dict[str, int]:
        """What this process has kept since it began, by the name it is counted under."""
        health = self.store.health()
        return {
            "firstspin_exposures_stored": health.exposures.get("stored", 0),
            "firstspin_exposures_dropped": health.dropped_exposures,
            "firstspin_events_stored": health.events.get("stored", 0),
            "firstspin_event_store_failures": health.failures,
        }

    def trouble(self) -> str:
        """Why nothing can be kept now; empty where it can."""
        health = self.store.health()
        return "" if health.ready else health.reason or "the event store is not open yet"

    async def keep(self, body: bytes) -> bytes:
        """A status for every event, once all are on the disk. Refusal 503 while that can't be."""
        try:
            batch = read_batch(body, self.secret, received_at=self.now())
            written = self.store.submit(batch.events) if batch.events else None
            statuses = await asyncio.wait_for(asyncio.wrap_future(written), KEEP_SECONDS) if written else ()
        except InputError as problem:
            raise Refusal(400, "malformed", str(problem)) from None
        except (Unavailable, TimeoutError) as problem:
            if isinstance(problem, TimeoutError):
                self.store.overdue()
            raise Refusal(503, "events_unavailable", "events can't be kept just now; send them again") from None
        return msgspec.json.encode({"results": results(batch, statuses)})
