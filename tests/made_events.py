"""Events and exposures made by hand, for the tests of the event store."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec

from firstspin.events.schema import Event, Exposure, Flag, Secret, exposure, microseconds

NOON = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
SECRET = Secret(bytes(range(32)))


def click(event_id: str, user_id: str = "anna", *, minutes: float = 0, flag: Flag = "") -> Event:
    """A click on station 17, so many minutes after noon, received at once."""
    at = microseconds(NOON + timedelta(minutes=minutes))
    return Event(
        event_id=SECRET.event_id(event_id),
        type="click",
        user_hash=SECRET.user_hash(user_id),
        station_id="17",
        at=at,
        received_at=at,
        seconds=None,
        flag=flag,
    )


def listen(
    event_id: str,
    user_id: str = "anna",
    *,
    station_id: str = "17",
    seconds: float = 180.0,
    minutes: float = 0,
    flag: Flag = "",
) -> Event:
    """A listen to a station, so many minutes after noon."""
    clicked = click(event_id, user_id, minutes=minutes, flag=flag)
    return msgspec.structs.replace(clicked, type="listen", station_id=station_id, seconds=seconds)


def clicks(prefix: str, n: int, user_id: str = "anna") -> list[Event]:
    """n clicks with the ids prefix0, prefix1, ..."""
    return [click(f"{prefix}{i}", user_id) for i in range(n)]


def shown(
    user_id: str = "anna", experiment: str = "spring", *, station_id: str = "17", arm: str = "model", minutes: float = 0
) -> Exposure:
    """A message with this station, decided so many minutes after noon."""
    return exposure(
        SECRET,
        experiment=experiment,
        user_id=user_id,
        arm=arm,
        propensity=0.5,
        decided_at=microseconds(NOON + timedelta(minutes=minutes)),
        source="model" if arm == "model" else "rule",
        model="3f2a9c1b",
        station_id=station_id,
        candidates={"model": ("17", "4"), "rule": ("9",)},
    )


def ids(events: Iterable[Event]) -> set[bytes]:
    """The ids as the store has them."""
    return {event.event_id for event in events}
