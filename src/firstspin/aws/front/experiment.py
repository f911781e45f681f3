"""A running experiment in the Lambda: its sealed plan, and its exposures on their way to Kinesis Data Firehose.

Assignment needs no store (`experiment.assign`), and exposures are the rows that `firstspin events forward` sends from
the service's event store: with the same key and scope, clicks and listens that a service records join them. The key is
that of the event store; a row has neither the user's id nor age, gender or country.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec

from firstspin.data.schema import INSTANCES, USER_ID
from firstspin.events.firehose import SCOPE, Firehose, FirehoseSink
from firstspin.events.schema import KEY_BYTES, Exposure, Secret, microseconds, scoped
from firstspin.experiment.assign import Assignment
from firstspin.experiment.plan import read_plan
from firstspin.records import InputError, Registration
from firstspin.serving.bodies.wire import ParsedBody
from firstspin.serving.experiment import Running, running
from firstspin.serving.policy import ArmPolicy, Decision
from firstspin.settings.environment import path, read, required, words

EXPERIMENT, EVENTS_KEY = "FIRSTSPIN_EXPERIMENT", "FIRSTSPIN_EVENTS_KEY"
STREAM, STREAM_SCOPE = "FIRSTSPIN_EXPOSURES_STREAM", "FIRSTSPIN_SCOPE"
VARIABLES: Final = (EXPERIMENT, EVENTS_KEY, STREAM, STREAM_SCOPE)

EXPOSURES_DROPPED: Final = "exposures_dropped"
"""The event in the log when exposures did not reach Firehose in time. An alarm of deploy/aws counts it."""


@dataclass(frozen=True, slots=True)
class UserAnswer:
    """The answer to a user, in the encoding of the request, with its source and model.

    `stations` are the ids of those in the endpoint's answer, the message's first; None where the Lambda decided.
    """

    body: bytes
    source: str
    model: str
    stations: Sequence[str] | None = None
    decision: Decision | None = None


@dataclass(frozen=True, slots=True)
class ExposureStream:
    """Where the exposures of the running experiment go; `now` is the time of day."""

    running: Running
    secret: Secret
    sink: FirehoseSink
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def pseudonym(self, user: str) -> str:
        """The user as in the delivered exposures: 32 hexadecimal digits."""
        return scoped(self.secret.user_hash(user), self.sink.scope)

    def exposures(
        self,
        user: str,
        assignment: Assignment,
        stations: Mapping[ArmPolicy, Sequence[str]],
        answer: UserAnswer,
        *,
        listens: int = 0,
    ) -> tuple[Exposure, ...]:
        """The exposure of a user to the message of an answer that so many listens moved; none without a message."""
        return self.running.exposures(
            self.secret,
            user,
            assignment,
            stations,
            source=answer.source,
            model=answer.model,
            at=microseconds(self.now()),
            listens=listens,
        )


def from_environment(environment: Mapping[str, str], client: Callable[[], Firehose]) -> ExposureStream | None:
    """The experiment that the Lambda's environment describes; None without FIRSTSPIN_EXPERIMENT.

    Variables: FIRSTSPIN_EXPERIMENT, the sealed plan's file; FIRSTSPIN_EVENTS_KEY, the content of the event store's
    secret file; FIRSTSPIN_EXPOSURES_STREAM, a delivery stream; and optionally FIRSTSPIN_SCOPE, as `--scope` of
    `firstspin events forward`. Raises InputError, with the variable's name, for one that is missing or can't be read,
    for a plan that was changed after it was sealed, and for a canary.
    """
    plan = read(environment, EXPERIMENT, path)
    if plan is None:
        return None
    secret, stream = required(environment, EVENTS_KEY, _secret), required(environment, STREAM, words)
    scope = read(environment, STREAM_SCOPE, words) or SCOPE
    experiment = running(read_plan(plan))
    if experiment.is_canary:
        raise InputError(
            f"{EXPERIMENT} is a canary, which only firstspin serve can answer and stop; deploy the challenger with a "
            "shadow variant instead"
        )
    return ExposureStream(experiment, secret, FirehoseSink(client(), {"exposures": stream}, scope))


def body_without_users(asked: ParsedBody) -> bytes:
    """The registrations as a body of JSON for `/invocations`: without user ids, and without answers not given."""
    registrations = [_answers(registration) for registration in asked.registrations]
    return msgspec.json.encode(registrations[0] if asked.alone else {INSTANCES: registrations})


def _answers(registration: Registration) -> dict[str, object]:
    fields = {name: getattr(registration, name) for name in registration.__struct_fields__ if name != USER_ID}
    return {name: value for name, value in fields.items() if value not in (None, (), msgspec.UNSET)}


def _secret(text: str) -> Secret:
    try:
        return Secret(bytes.fromhex(text.strip()))
    except ValueError:
        raise InputError(f"is not a key of an event store; expected {2 * KEY_BYTES} hexadecimal digits") from None
