"""A running experiment: the policy that answers each arm, and the exposure of a user to a message.

The service and the Lambda run experiments by this module, so their arms and exposures are the same. The arm of a user
is a hash of the id (`experiment.assign`); what answers is decided in `policy`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from firstspin.events.schema import Exposure, Secret, exposure
from firstspin.experiment.assign import ArmSplit, Assignment
from firstspin.experiment.plan import Plan, experiment_key, plan_split
from firstspin.records import InputError
from firstspin.serving.policy import ArmPolicy

POLICIES: Final[tuple[ArmPolicy, ...]] = ("model", "rule", "challenger")


@dataclass(frozen=True, slots=True)
class Running:
    """A sealed plan as it is served: its key, who gets which arm, and the policy that answers each arm."""

    plan: Plan
    key: str
    split: ArmSplit
    policies: Mapping[str, ArmPolicy]

    @property
    def named(self) -> str:
        """The key, where the plan lets answers name it and the arm; otherwise empty."""
        return self.key if self.plan.name_arm else ""

    @property
    def is_canary(self) -> bool:
        """Whether a challenger answers one of the arms."""
        return "challenger" in self.policies.values()

    def exposures(
        self,
        secret: Secret,
        user_id: str,
        assignment: Assignment,
        stations: Mapping[ArmPolicy, Sequence[str]],
        *,
        source: str,
        model: str,
        at: int,
        listens: int = 0,
    ) -> tuple[Exposure, ...]:
        """The exposure of a user of the experiment; none without a message.

        `stations` are those that each policy would have shown, the message's first, empty where that is not known;
        `source`, `model` and `listens` are those of the answer, which was decided `at` so many microseconds since 1970.
        """
        shown = stations[self.policies[assignment.arm]]
        if not shown:
            return ()
        return (
            exposure(
                secret,
                experiment=self.key,
                user_id=user_id,
                arm=assignment.arm,
                propensity=assignment.propensity,
                decided_at=at,
                source=source,
                model=model,
                station_id=shown[0],
                listens=listens or None,
                candidates={arm: stations.get(policy, ()) for arm, policy in self.policies.items()},
            ),
        )


def running(plan: Plan) -> Running:
    """The plan, ready to be served.

    Raises InputError for an arm that no policy of the service answers, for a challenger without a rule that stops it,
    and for such a rule where the control is not the model in service, which answers everyone after a stop.
    """
    made = Running(plan, experiment_key(plan), plan_split(plan), {arm: arm_policy(arm) for arm in plan.arms})
    if made.is_canary != (plan.harm_margin is not None) or (made.is_canary and arm_policy(plan.control) != "model"):
        raise InputError(
            "an arm named challenger needs --harm-margin, and --harm-margin the arms model and challenger, as in "
            "--arms model=95,challenger=5"
        )
    return made


def is_served(arm: str) -> bool:
    """Whether a policy of the service answers this arm."""
    return _policy(arm) is not None


def arm_policy(arm: str) -> ArmPolicy:
    """What answers an arm: its name is a policy, or begins so, as in `model-a` and `model-b` of an A/A test.

    Raises InputError for another name.

    >>> arm_policy("rule"), arm_policy("model-b")
    ('rule', 'model')
    """
    policy = _policy(arm)
    if policy is None:
        raise InputError(f"arm {arm!r}: the service answers {', '.join(POLICIES)}, and arms named like model-b")
    return policy


def _policy(arm: str) -> ArmPolicy | None:
    return next((name for name in POLICIES if arm == name or arm.startswith(f"{name}-")), None)
