"""What the table of stations says of each one: its popularity, its countries and its colour."""

from __future__ import annotations

from typing import Final

from firstspin.data import schema
from firstspin.data.formats.connections import in_our_words
from firstspin.data.ingest import Tables
from firstspin.data.sql import identifier
from firstspin.records import Station

_ROW: Final = identifier(schema.ROW)


@in_our_words("the stations can't be read")
def station_popularity(tables: Tables) -> list[tuple[Station, float]]:
    """Each available station with its popularity: the column of that name, or else its seconds of listening.

    The seconds are rounded to microseconds, so that no order of the listens changes the sum.
    """
    columns_there = _columns_of_stations(tables)
    available = f"coalesce({schema.AVAILABLE}, true)" if schema.AVAILABLE in columns_there else "true"
    popularity = (
        f"coalesce({schema.POPULARITY}, 0)"
        if schema.POPULARITY in columns_there
        else "coalesce((SELECT round(sum(seconds), 6) FROM listens WHERE listens.station_id = stations.station_id), 0)"
    )
    name = "coalesce(nullif(name, ''), station_id)"
    query = f"SELECT station_id, {name}, genre, {popularity} FROM stations WHERE {available} ORDER BY {_ROW}"
    rows = tables.connection.execute(query).fetchall()
    return [(Station(station_id, name, genre), float(popularity)) for station_id, name, genre, popularity in rows]


def station_markets(tables: Tables) -> dict[str, tuple[str, ...]]:
    """The countries of each station that lists any."""
    if schema.MARKET not in _columns_of_stations(tables):
        return {}
    query = f"SELECT station_id, {schema.MARKET} FROM stations WHERE len({schema.MARKET}) > 0 ORDER BY {_ROW}"
    return {station_id: tuple(markets) for station_id, markets in tables.connection.execute(query).fetchall()}


def station_colours(tables: Tables) -> dict[str, str]:
    """The colour of each station that has one written as #rrggbb, in lower case; other values are ignored."""
    if schema.COLOUR not in _columns_of_stations(tables):
        return {}
    colour = f"lower({schema.COLOUR})"
    query = (
        f"SELECT station_id, {colour} FROM stations WHERE regexp_full_match({colour}, '#[0-9a-f]{{6}}') ORDER BY {_ROW}"
    )
    return dict(tables.connection.execute(query).fetchall())


def _columns_of_stations(tables: Tables) -> set[str]:
    return {str(name) for name, *_ in tables.connection.execute("DESCRIBE stations").fetchall()}
