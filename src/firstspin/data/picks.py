"""Picks whose separator occurs in a genre: "Folk, World" is one genre, also where commas separate the picks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from firstspin.data.names import NameIndex
from firstspin.data.schema import ROW
from firstspin.data.sql import identifier
from firstspin.records import normal

if TYPE_CHECKING:
    import duckdb


def join_genres(connection: duckdb.DuckDBPyConnection, genres: Iterable[str], separator: str) -> None:
    """Join the parts of genres that contain the separator, in the picks of the table `registrations`.

    The table stays in the order of the file: DuckDB would move a row whose list it updates.
    """
    whole = {separator.join(map(str.strip, genre.split(separator))): genre for genre in map(normal, genres)}
    if not any(separator in genre for genre in whole):
        return
    names, changed = NameIndex(whole), []
    for (picks,) in connection.execute("SELECT DISTINCT genres FROM registrations WHERE len(genres) > 1").fetchall():
        joined = names.separated(separator.join(picks), separator)
        if len(joined) < len(picks):
            changed.append((picks, [whole[names.find(pick) or ""] if separator in pick else pick for pick in joined]))
    if changed:
        pairs = [[pair[side] for pair in changed] for side in (0, 1)]
        unnested = "SELECT unnest(?::VARCHAR[][]) AS split, unnest(?::VARCHAR[][]) AS joined"
        joined_genres = f"registrations r LEFT JOIN ({unnested}) p ON r.genres = p.split ORDER BY r.{identifier(ROW)}"
        replaced = "r.* REPLACE (coalesce(p.joined, r.genres) AS genres)"
        connection.execute(f"CREATE OR REPLACE TABLE registrations AS SELECT {replaced} FROM {joined_genres}", pairs)
