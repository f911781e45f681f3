"""Expected listening of stations: seconds per day since their first listen, shrunk by exposure.

Within a genre's carousel the probability of the genre is the same for all tiles, so the rate alone orders them by
expected listening. A total, the default order, grows with a station's age: a new station with a high rate comes last.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Final

from firstspin.data.ingest import Tables
from firstspin.records import Station

SHRINK_DAYS: Final = 30.0
"""The exposure at which a station's own rate and the median of its genre have the same weight."""
_DAY: Final = 86_400


def expected_listening(
    tables: Tables, stations: Sequence[tuple[Station, float]], data_ends: datetime
) -> list[tuple[Station, float]]:
    """The stations, each with its seconds of listening per day up to `data_ends` (UTC), in place of its popularity.

    A rate is shrunk towards the median of its genre with the weight of SHRINK_DAYS days: (seconds + 30 median) /
    (days + 30). The median, because a genre's long tail of stations is heard by chance. A station without a listen is
    exposed from the first listen of all on.
    """
    sums = "round(sum(seconds), 6), min(epoch(started_at))"  # rounded, no order of the listens changes a sum
    query = f"SELECT station_id, {sums} FROM listens WHERE epoch(started_at) <= ? GROUP BY ALL"
    end = data_ends.replace(tzinfo=UTC).timestamp()
    rows = tables.connection.execute(query, [end]).fetchall()
    heard = {name: (float(seconds), (end - first) / _DAY) for name, seconds, first in rows}
    all_days = max((days for _, days in heard.values()), default=0.0)
    exposed = [(station, *heard.get(station.station_id, (0.0, all_days))) for station, _ in stations]
    of_genre = defaultdict(list)
    for station, seconds, days in exposed:
        of_genre[station.genre].append(seconds / max(days, 1.0))
    medians = {genre: median(rates) for genre, rates in of_genre.items()}
    return [
        (station, (seconds + SHRINK_DAYS * medians[station.genre]) / (days + SHRINK_DAYS))
        for station, seconds, days in exposed
    ]
