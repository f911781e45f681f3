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

# Only a user's first exposure counts: whether a later one is a new row depends on the station of the first.
_LOG: Final = """
SELECT x.station_id, x.candidates, x.propensity, x.relevance, x.decided_at,
       MAX(CASE WHEN e.at >= x.decided_at AND e.at < x.decided_at + ? THEN 1 ELSE 0 END)
FROM (SELECT MIN(seq) AS seq FROM exposures WHERE experiment = ? AND carousel = ? GROUP BY user_hash) f
JOIN exposures x ON x.seq = f.seq
LEFT JOIN (SELECT user_hash, station_id, at FROM events WHERE type = 'click') e
       ON e.user_hash = x.user_hash AND e.station_id = x.station_id
GROUP BY x.seq
ORDER BY x.seq
"""

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
    places: dict[str, int] = {}
    shown, best, at = array("q"), array("q"), array("q")
    propensity, relevance, clicked = array("d"), array("d"), array("b")
    with readable_rows():
        for rows in session.stream(_LOG, (CLICK_HOURS * _HOUR, SLOT, carousel), _CHUNK):
            for station_id, candidates, *numbers in rows:
                propensity.append(numbers[0])
                relevance.append(numbers[1])
                at.append(numbers[2])
                clicked.append(numbers[3])
                shown.append(places.setdefault(station_id, len(places)))
                greedy = next(iter(_candidates.decode(candidates).get(GREEDY, ())), None)
                best.append(NOT_SUPPORTED if greedy is None else places.setdefault(greedy, len(places)))
    return SlotLog(
        tuple(places),
        np.array(shown, dtype=np.int64),
        np.array(best, dtype=np.int64),
        np.array(propensity, dtype=np.float64),
        np.array(relevance, dtype=np.float64),
        np.array(at, dtype="datetime64[us]"),
        np.array(clicked, dtype=np.bool_),
    )
