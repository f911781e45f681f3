"""The log of the exploration slot in the event store: the first exposure of each user, and whether it was clicked."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from firstspin.events.database import Session, readable_rows

SLOT: Final = "slot"
"""The `experiment` and the `arm` of the slot's exposures; the key of an experiment has an @."""
GREEDY: Final = "greedy"
"""The candidate of an exposure that the greedy policy would have shown."""
NOT_SUPPORTED: Final = -1
CLICK_HOURS: Final = 24
_HOUR: Final = 3_600_000_000  # microseconds
_CHUNK: Final = 50_000

_EXPOSURES: Final = (
    "SELECT user_hash, station_id, candidates, propensity, relevance, decided_at "
    "FROM exposures WHERE experiment = ? AND carousel = ? ORDER BY seq"
)
_CLICKS: Final = "SELECT user_hash, station_id, at FROM events WHERE type = 'click'"

_candidates: Final = msgspec.json.Decoder(dict[str, list[str]])


@dataclass(frozen=True, slots=True)
class SlotLog:
    """n users in the order of arrival of their exposures; stations are positions in `station_ids`.

    `shown`, `best` (n,): the station shown, and the greedy choice at that time, NOT_SUPPORTED where it had nearly no
    chance to be shown · `propensity`, `relevance` (n,): of the station shown · `at` (n,): datetime64[us] in UTC ·
    `clicked` (n,): whether the user clicked the station within CLICK_HOURS.
    """

    station_ids: tuple[str, ...]
    shown: NDArray[np.int64]
    best: NDArray[np.int64]
    propensity: NDArray[np.float64]
    relevance: NDArray[np.float64]
    at: NDArray[np.datetime64]
    clicked: NDArray[np.bool_]


def read_slot_log(session: Session, carousel: int) -> SlotLog:
    """The log of the slot at this carousel. Raises InputError where the store has rows that firstspin did not write."""
    users: dict[bytes, int] = {}  # joined here: without an index on users, SQLite would scan the events for each
    places: dict[str, int] = {}
    shown, best, at = array("q"), array("q"), array("q")
    propensity, relevance = array("d"), array("d")
    with readable_rows():
        for rows in session.stream(_EXPOSURES, (SLOT, carousel), _CHUNK):
            for user, station_id, candidates, *numbers in rows:
                if user in users:  # only the first counts: whether a later one is a row depends on its station
                    continue
                users[user] = len(users)
                shown.append(places.setdefault(station_id, len(places)))
                greedy = next(iter(_candidates.decode(candidates).get(GREEDY, ())), None)
                best.append(NOT_SUPPORTED if greedy is None else places.setdefault(greedy, len(places)))
                propensity.append(numbers[0])
                relevance.append(numbers[1])
                at.append(numbers[2])
        shares = _shares(propensity), _shares(relevance)
        clicked = bytearray(len(users))
        for rows in session.stream(_CLICKS, (), _CHUNK):
            for user, station_id, clicked_at in rows:
                i = users.get(user, -1)
                if i >= 0 and places.get(station_id) == shown[i] and 0 <= clicked_at - at[i] < CLICK_HOURS * _HOUR:
                    clicked[i] = True
    return SlotLog(
        tuple(places),
        np.array(shown, dtype=np.int64),
        np.array(best, dtype=np.int64),
        *shares,
        np.array(at, dtype="datetime64[us]"),
        np.array(clicked, dtype=np.bool_),
    )


def _shares(column: array[float]) -> NDArray[np.float64]:
    shares = np.array(column, dtype=np.float64)
    if not ((shares > 0) & (shares <= 1)).all():
        raise ValueError("not in (0, 1]")
    return shares
