"""The days of a simulated experiment: users register, see their message, click and listen by their true taste.

Time advances by the hour: the clock is set, events since the last hour are sent, and the registrations of the hour
request their message. The next hour starts when all are answered, so the result does not depend on the machine's speed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from firstspin.experiment.plan import Plan
from firstspin.models.task import Progress
from firstspin.records import InputError, Registration
from firstspin.simulation.client import LoadClient, TimedReply, post
from firstspin.simulation.world import Newcomers, clicks

HOURS: Final = 24
BATCH: Final = 200  # events in a request
MEAN_DELAY: Final = 1_800.0  # seconds from the message to the click …
MAX_DELAY: Final = 20 * 3_600.0  # … and at most, inside the plan's window
PAUSE: Final = timedelta(seconds=5)  # from the click to the first sound
NOTHING: Final = -1


class _Message(msgspec.Struct):
    station_id: str


class _Answer(msgspec.Struct):
    message: _Message | None = None


class _Status(msgspec.Struct):
    status: str


class _Results(msgspec.Struct):
    results: list[_Status]


_answers: Final = msgspec.json.Decoder(_Answer)
_results: Final = msgspec.json.Decoder(_Results)


@dataclass(frozen=True, slots=True)
class Audience:
    """n simulated users with their ids, registration hours (n,) and delays to a click (n,) in seconds."""

    people: Newcomers
    user_ids: tuple[str, ...]
    hour: NDArray[np.int64]  # (n,) ascending, hours since the beginning of the experiment's first day
    delay: NDArray[np.float64]  # (n,) seconds


@dataclass
class Lived:
    """The log of a simulation: the genre shown to each user (n,), and the service's responses."""

    shown: NDArray[np.int64]
    took: list[int] = field(default_factory=list)  # nanoseconds per recommendation
    asking: int = 0  # nanoseconds in which recommendations were under way
    events: int = 0
    clicks: int = 0
    errors: int = 0


def audience(people: Newcomers, days: int, name: str, rng: np.random.Generator) -> Audience:
    """The users, spread uniformly over the days; `name` is the prefix of their ids."""
    n = len(people.registrations)
    return Audience(
        people=people,
        user_ids=tuple(f"{name}-{number:07d}" for number in range(n)),
        hour=np.sort(rng.integers(HOURS * days, size=n)),
        delay=np.minimum(rng.exponential(MEAN_DELAY, n), MAX_DELAY),
    )


class Days:
    """The days of an experiment; `live` runs them."""

    def __init__(
        self,
        client: LoadClient,
        plan: Plan,
        audience: Audience,
        genre_of: Mapping[str, int],
        set_clock: Callable[[datetime], None],
    ) -> None:
        """`genre_of` maps a station id to the world's number of its genre."""
        self._client, self._plan, self._audience = client, plan, audience
        self._genre_of, self._set_clock = genre_of, set_clock
        self._due: list[tuple[datetime, bytes]] = []  # heap of future events
        self.lived = Lived(np.full(len(audience.user_ids), NOTHING))

    async def live(self, progress: Progress) -> Lived:
        """Run all days, and the time after them until the last event."""
        now = datetime.combine(self._plan.starts_on, time(), UTC)
        first = 0
        for hour in range(HOURS * self._plan.days):
            progress(f"simulated day {hour // HOURS + 1} of {self._plan.days}", hour / (HOURS * self._plan.days))
            await self._turn_to(now)
            last = int(np.searchsorted(self._audience.hour, hour, side="right"))
            await self._register(first, last, now)
            first, now = last, now + timedelta(hours=1)
        while self._due:
            await self._turn_to(now)
            now += timedelta(hours=1)
        return self.lived

    async def _turn_to(self, now: datetime) -> None:
        """Advance the clock to `now` and send the events until then."""
        self._set_clock(now)
        done = []
        while self._due and self._due[0][0] <= now:
            done.append(heapq.heappop(self._due)[1])
        batches = [done[start : start + BATCH] for start in range(0, len(done), BATCH)]
        bodies = [b'{"events":[' + b",".join(batch) + b"]}" for batch in batches]
        replies = await self._client.ask([post("/v1/events", body) for body in bodies])
        self.lived.events += len(done)
        for batch, reply in zip(batches, replies, strict=True):
            stored = [item.status for item in _results.decode(reply.body).results] if reply.status == 202 else []
            self.lived.errors += len(batch) - stored.count("stored")

    async def _register(self, first: int, last: int, now: datetime) -> None:
        """The users from `first` to before `last` request their message and react to it."""
        audience, lived = self._audience, self.lived
        requests = [
            post("/v1/recommendations", _body(audience.people.registrations[i], audience.user_ids[i]))
            for i in range(first, last)
        ]
        begin = self._client.now()
        replies = await self._client.ask(requests)
        lived.asking += self._client.now() - begin
        lived.took += [reply.nanoseconds for reply in replies]
        stations = [self._station(reply) for reply in replies]
        lived.shown[first:last] = [self._genre_of.get(station, NOTHING) for station in stations]
        which = np.arange(first, last)
        clicking = clicks(audience.people.take(which), lived.shown[which]) & (lived.shown[which] != NOTHING)
        for i in which[clicking].tolist():
            self._click(i, stations[i - first], now)

    def _station(self, reply: TimedReply) -> str:
        """The station of the message; empty where the response is an error."""
        if reply.status != 200:
            self.lived.errors += 1
            return ""
        message = _answers.decode(reply.body).message
        if message is None or message.station_id not in self._genre_of:
            raise InputError("the bundle recommends stations that the simulated world does not have")
        return message.station_id

    def _click(self, i: int, station_id: str, now: datetime) -> None:
        user_id, clicked = self._audience.user_ids[i], now + timedelta(seconds=float(self._audience.delay[i]))
        common = {"user_id": user_id, "station_id": station_id}
        click = common | {"event_id": f"{user_id} clicks", "type": "click", "at": clicked}
        listened = {"type": "listen", "at": clicked + PAUSE, "seconds": float(self._audience.people.seconds[i])}
        listen = common | {"event_id": f"{user_id} listens"} | listened
        heapq.heappush(self._due, (clicked, msgspec.json.encode(click)))
        heapq.heappush(self._due, (clicked + PAUSE, msgspec.json.encode(listen)))
        self.lived.clicks += 1


def _body(registration: Registration, user_id: str) -> bytes:
    answers = {name: value for name, value in msgspec.structs.asdict(registration).items() if value not in (None, ())}
    return msgspec.json.encode({"user_id": user_id, **answers})
