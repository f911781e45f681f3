"""The listens of labelled users between the registration and the label window, in the order of time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from firstspin.data.formats.connections import in_our_words
from firstspin.data.labels.expressions import DROPPED
from firstspin.data.labels.labelling import FATES
from firstspin.data.schema import ROW
from firstspin.data.sql import identifier
from firstspin.records import MAX_LISTENS, LabelRule

if TYPE_CHECKING:
    import duckdb

MAX_USERS: Final = 40_000
"""Users whose early listens are read: a few parameters need no more."""


@dataclass(frozen=True, slots=True)
class EarlyListens:
    """l listens, by user and then time; arrays (l,).

    `users` are positions among some users, ascending; `genres` positions among their genres; `seconds` above 0;
    `picked`: whether the genre is among the user's picks.
    """

    users: NDArray[np.int64]
    genres: NDArray[np.int64]
    seconds: NDArray[np.float64]
    picked: NDArray[np.bool_]

    @staticmethod
    def none() -> EarlyListens:
        """No listens."""
        none = np.zeros(0, dtype=np.int64)
        return EarlyListens(none, none, np.zeros(0), np.zeros(0, dtype=np.bool_))

    def take(self, which: NDArray[np.int64]) -> EarlyListens:
        """The listens of the users at positions `which` (m,), in this order, who are numbered anew."""
        first, last = np.searchsorted(self.users, which), np.searchsorted(self.users, which, side="right")
        lengths = last - first
        at = np.repeat(first - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        return replace(self._at(at), users=np.repeat(np.arange(len(which)), lengths))

    def first(self, numbers: NDArray[np.int64] | int) -> EarlyListens:
        """The first so many listens of each user; one number, or one for each user (n,)."""
        nth = np.arange(len(self.users)) - np.searchsorted(self.users, self.users)
        return self._at(np.flatnonzero(nth < (numbers if isinstance(numbers, int) else numbers[self.users])))

    def _at(self, places: NDArray[np.int64]) -> EarlyListens:
        return EarlyListens(self.users[places], self.genres[places], self.seconds[places], self.picked[places])


def read_early_listens(connection: duckdb.DuckDBPyConnection, genres: tuple[str, ...], rule: LabelRule) -> EarlyListens:
    """The first listens of labelled users, at most MAX_LISTENS each, before their label window opens.

    The users are numbered as in the labels, of which the table FATES is there. Exact copies count once. Listens to
    genres that are not among `genres` are left out; of more than MAX_USERS users, some are drawn by a hash of their id.
    """
    row, index = identifier(ROW), {genre: i for i, genre in enumerate(genres)}
    query = f"""
        WITH labelled AS (
            SELECT user_id, registered_at, genres AS picks, row_number() OVER (ORDER BY {row}) - 1 AS n
            FROM registrations JOIN {FATES} USING ({row}) WHERE {identifier(DROPPED)} IS NULL),
        people AS (SELECT * FROM labelled ORDER BY hash(user_id), n LIMIT {MAX_USERS}),
        heard AS (
            SELECT DISTINCT n, started_at, station_id, seconds, genre::VARCHAR AS genre,
                coalesce(list_contains(picks::VARCHAR[], genre::VARCHAR), false) AS picked
            FROM listens JOIN people USING (user_id) JOIN stations USING (station_id)
            WHERE started_at >= registered_at AND started_at < registered_at + INTERVAL {int(rule.gap_days)} DAY)
        SELECT n, genre, seconds::DOUBLE AS seconds, picked FROM heard
        QUALIFY row_number() OVER (PARTITION BY n ORDER BY started_at, station_id, seconds) <= {MAX_LISTENS}
        ORDER BY n, started_at, station_id, seconds"""
    with in_our_words("the early listens can't be read"):
        heard = connection.sql(query).fetchnumpy()
    genre = np.array([index.get(name, -1) for name in heard["genre"]], dtype=np.int64)
    known = genre >= 0
    seconds = np.asarray(heard["seconds"], dtype=np.float64)
    picked = np.asarray(heard["picked"], dtype=np.bool_)
    return EarlyListens(np.asarray(heard["n"], dtype=np.int64)[known], genre[known], seconds[known], picked[known])


def station_genres(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """The genre of every station, available or not."""
    return dict(connection.execute("SELECT station_id, genre FROM stations").fetchall())
