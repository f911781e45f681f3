"""The event store as the service uses it: exposures of users, clicks and listens are recorded.

With the exposure of a user of the running experiment, the stations that every arm would have shown are recorded. Other
users have an exposure where the exploration slot showed them a station. Of users under the minimum age nothing is
recorded.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from firstspin.events.schema import Exposure, Secret, Unavailable, exposure, microseconds, read_batch, results
from firstspin.events.slot_log import GREEDY, SLOT
from firstspin.records import InputError
from firstspin.serving.experiment import Running
from firstspin.serving.policy import ArmPolicy, Decision
from firstspin.serving.refusal import Refusal
from firstspin.serving.stations import SlotChoice
from firstspin.watch.answered_users import AnsweredUsers
from firstspin.watch.tally import AnswerTally

if TYPE_CHECKING:
    from firstspin.events.store import EventStore

KEEP_SECONDS: Final = 1.6
"""Timeout of storing a request's events; then it is answered 503, and a retry is deduplicated."""


@dataclass(frozen=True, slots=True)
class ExposureLog:
    """The exposures and events that `/v1` records; `now` is the time of day. `running` is the experiment, if any.

    `answered` has the users who count no more in the sums of answers; without it, every answer counts.
    """

    store: EventStore
    secret: Secret
    now: Callable[[], datetime]
    running: Running | None = None
    answered: AnsweredUsers | None = None
    tally: AnswerTally = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tally", AnswerTally(self.now, random.Random(), self.answered))

    def moment(self) -> int:
        """The time of day, as exposures have it."""
        return microseconds(self.now())

    def exposures(
        self, user_id: str, decision: Decision, stations: Mapping[ArmPolicy, Sequence[str]], at: int
    ) -> tuple[Exposure, ...]:
        """The exposure, at this `moment`, of a user of the experiment; none without a message.

        `stations` are those that each policy would have shown, the message's first.
        """
        assert decision.assignment is not None
        assert self.running is not None
        return self.running.exposures(
            self.secret,
            user_id,
            decision.assignment,
            stations,
            source=decision.source,
            model=decision.model,
            at=at,
            listens=decision.listens,
        )

    def slot_exposure(self, user_id: str, decision: Decision, choice: SlotChoice, at: int) -> Exposure:
        """The exposure, at this `moment`, of a user to the station of the exploration slot."""
        return exposure(
            self.secret,
            experiment=SLOT,
            user_id=user_id,
            arm=SLOT,
            propensity=choice.propensity,
            decided_at=at,
            source=decision.source,
            model=decision.model,
            station_id=choice.station.station_id,
            candidates={GREEDY: [choice.greedy] if choice.greedy else []},
            carousel=choice.carousel,
            relevance=choice.relevance,
            listens=decision.listens or None,
        )

    def record(self, exposures: Sequence[Exposure]) -> None:
        """Queue exposures for the event store."""
        self.store.submit_exposures(exposures)

    def report(self, *, closing: bool = False) -> None:
        """Queue the sums of answers for the event store where they are due. To be called about twice a second."""
        if counts := self.tally.due(closing=closing):
            self.store.submit_counts(counts)

    def counts(self) -> dict[str, int]:
        """The numbers of this process's stored and dropped rows and failures so far, by the metric's name."""
        health = self.store.health()
        return {
            "firstspin_exposures_stored": health.exposures.get("stored", 0),
            "firstspin_exposures_dropped": health.dropped_exposures,
            "firstspin_events_stored": health.events.get("stored", 0),
            "firstspin_event_store_failures": health.failures,
        }

    def trouble(self) -> str:
        """The reason why the event store is unavailable; empty where it is available."""
        health = self.store.health()
        return "" if health.ready else health.reason or "the event store is not open yet"

    async def keep(self, body: bytes) -> bytes:
        """The status of every event, once all are on the disk.

        Raises Refusal: 400 where the body is malformed, 503 where the store is unavailable.
        """
        try:
            batch = read_batch(body, self.secret, received_at=self.now())
            written = self.store.submit(batch.events) if batch.events else None
            statuses = await asyncio.wait_for(asyncio.wrap_future(written), KEEP_SECONDS) if written else ()
        except InputError as problem:
            raise Refusal(400, "malformed", str(problem)) from None
        except (Unavailable, TimeoutError) as problem:
            if isinstance(problem, TimeoutError):
                self.store.overdue()
            raise Refusal(503, "events_unavailable", "events can't be stored now; send them again") from None
        return msgspec.json.encode({"results": results(batch, statuses)})
